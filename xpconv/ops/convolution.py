"""Convolution over any number of axes, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpconv.algorithms import Plan
from xpconv.arrays.arguments import conjugate, namespace, one_dtype, shaped, spatial_axes
from xpconv.arrays.broadcasting import sum_rows
from xpconv.arrays.frozen import immutable, remembered
from xpconv.arrays.layout import channels_last, channels_second, taps_first, taps_last
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated_unless, known
from xpconv.cuda import serves
from xpconv.execution.workspace import WORKSPACE
from xpconv.fusions import fused
from xpconv.operators import operator
from xpconv.selection.adjoint import convolve, input_gradient, weight_gradient
from xpconv.selection.model import named
from xpconv.selection.tuning import way_to_convolve
from xpconv.windows import Pad, whole_number, window
from xpconv.windows.transposition import transposed_window


@operator
@accumulated_unless(serves)
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    pad: Pad = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    algorithm: str = "auto",
    workspace: int = WORKSPACE,
    precision: str = "float32",
) -> tuple[Array, Pullback]:
    """Convolve, in the sense of neural networks: correlate every window with every filter.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Any number of spatial axes.
    weight : array, shape (O, C/groups, *kernel)
        Filters.
    bias : array, shape (O,), optional
        Added to every element of an output channel.
    stride, dilation : int or one int an axis
        Elements between windows, elements between taps.
    pad : int, one int an axis, one (before, after) pair an axis, "same" or "valid"
        Padding with zeros.
    groups : int
        Cut channels and filters into this many groups that do not see each other; C groups are a depthwise
        convolution.
    algorithm : str
        "auto", "direct", "winograd" (F(4, 3)) or "winograd2" (F(2, 3)), "fft", "depthwise" for groups, or for CuPy
        arrays "implicit" (implicit GEMM by tensor cores) or "cudnn".
    workspace : int
        Bytes that intermediate arrays may take, unless the smallest piece of work takes more.
    precision : str
        "float32", or "tf32" to let a GPU multiply float32 with 10 bits of fraction and add up in float32. It is heeded
        for CuPy arrays; the others have no such units, or like PyTorch and JAX a switch of their own for all products.

    Returns
    -------
    array, shape (N, O, *output)
        The dtype of `x`. Its memory holds the channels last.

    Raises
    ------
    ImportError
        When cuDNN is asked for by name and is not installed.
    TypeError
        When the arrays are of several libraries or dtypes, or a number is not whole.
    ValueError
        When ranks, channels, groups or devices do not fit, a number is out of range, no window fits, or an algorithm or
        a precision is not known.

    Notes
    -----
    In float32 on a CPU the largest error that "auto" makes, in standard deviations of what it computes (the result or a
    gradient, of independent random numbers), is at most 5e-5 where Winograd's way is taken, 2e-5 of the direct way and
    5e-6 of the others. What "auto" takes depends on shapes, dtype and library alone, unless `xpconv.tune` has measured.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 7.4; Dumoulin and Visin, "A guide to convolution arithmetic for deep
    learning" (2016), for the arithmetic and its adjoint.
    """
    xp = _fitting(x, weight, bias)
    groups = whole_number("groups", groups, least=1)
    filters = weight.shape[0]
    if x.shape[1] != weight.shape[1] * groups or filters % groups:
        raise ValueError(
            f"x has {x.shape[1]} channels and weight has shape {tuple(weight.shape)} (O, C/groups, ...) with {groups} "
            f"groups; give weight of shape (O, {x.shape[1]}/groups, ...), O and {x.shape[1]} multiples of groups"
        )
    shaped("bias", bias, (filters,), "one number for each filter")
    windows = window(x.shape[2:], weight.shape[2:], stride=stride, pad=pad, dilation=dilation)
    algorithm = named(algorithm, x, windows, groups)
    plan = Plan(windows, groups, whole_number("workspace", workspace, least=1), known(precision))

    last, kernel = channels_last(x), taps_first(weight)
    kept = immutable(kernel)  # which a trace makes its own, of a weight that is a constant in it
    way = way_to_convolve(algorithm, last, kernel, bias, plan, cached=kept)
    key = way, groups, windows.strided
    prepared = remembered(weight, key, lambda: way.prepare(kernel, plan)) if kept else None
    y = way.convolve(last, kernel, bias, plan, prepared)

    def pullback(dy: Array) -> tuple[Any, ...]:
        dy = channels_last(dy)
        return (
            lambda: channels_second(input_gradient(algorithm, dy, conjugate(xp, kernel), plan)),
            lambda: taps_last(weight_gradient(algorithm, conjugate(xp, last), dy, plan)),
            None if bias is None else (fused("sum_rows", dy) or sum_rows)(dy),
        )

    return channels_second(y), pullback


@operator
@accumulated_unless(serves)
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    pad: Pad = 0,
    output_pad: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    workspace: int = WORKSPACE,
    precision: str = "float32",
) -> tuple[Array, Pullback]:
    """Run a convolution backwards: add up every filter, times an element, where that element's window lies.

    The adjoint of `conv` with the same weight and options, plus a bias; also known as deconvolution.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Any number of spatial axes.
    weight : array, shape (C, O/groups, *kernel)
        Filters, of which `conv` would say that C come out and O go in.
    bias : array, shape (O,), optional
        Added to every element of an output channel.
    stride, dilation : int or one int an axis
        Elements between windows, elements between taps.
    pad : int, one int an axis, one (before, after) pair an axis, "same" or "valid"
        Elements to take off the result: what `conv` adds. "same" leaves ``size * stride`` elements, unless the windows
        touch fewer.
    output_pad : int or one int an axis
        Elements to add to the end of the result, less than the stride or the dilation: those that `conv`'s last window
        does not reach.
    groups : int
        Cut channels and filters into this many groups that do not see each other.
    workspace, precision
        As in `conv`.

    Returns
    -------
    array, shape (N, O, *output)
        With ``output = (size - 1)*stride + (kernel - 1)*dilation + 1 - before - after + output_pad`` elements along
        each axis, in the dtype of `x`. Its memory holds the channels last.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or a number is not whole.
    ValueError
        When ranks, channels, groups or devices do not fit, a number is out of range, or no element is left.

    References
    ----------
    Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks" (2010); Dumoulin and Visin, "A guide to convolution
    arithmetic for deep learning" (2016).
    """
    xp = _fitting(x, weight, bias)
    groups = whole_number("groups", groups, least=1)
    channels = x.shape[1]
    if channels != weight.shape[0] or channels % groups:
        raise ValueError(
            f"x has {channels} channels and weight has shape {tuple(weight.shape)} (C, O/groups, ...) with {groups} "
            f"groups; give weight of shape ({channels}, O/groups, ...), {channels} a multiple of groups"
        )
    shaped("bias", bias, (weight.shape[1] * groups,), "one number for each filter")
    windows = transposed_window(
        x.shape[2:], weight.shape[2:], stride=stride, pad=pad, output_pad=output_pad, dilation=dilation
    )
    plan = Plan(windows, groups, whole_number("workspace", workspace, least=1), known(precision))

    last, kernel = channels_last(x), taps_first(weight)
    y = input_gradient("auto", last, kernel, plan, bias)

    def pullback(dy: Array) -> tuple[Any, ...]:
        dy = channels_last(dy)
        return (
            lambda: channels_second(convolve("auto", dy, conjugate(xp, kernel), None, plan)),
            lambda: taps_last(weight_gradient("auto", dy, conjugate(xp, last), plan)),
            None if bias is None else (fused("sum_rows", dy) or sum_rows)(dy),
        )

    return channels_second(y), pullback


def _fitting(x: Array, weight: Array, bias: Array | None) -> Any:
    """Return the namespace of arrays that fit together."""
    xp = namespace(x=x, weight=weight, bias=bias)
    one_dtype(xp, "numeric", x=x, weight=weight, bias=bias)
    spatial_axes("weight", weight, spatial_axes("x", x))
    if 0 in weight.shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; give at least one filter, one channel and one tap")
    return xp
