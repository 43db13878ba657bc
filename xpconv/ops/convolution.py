"""Convolution over any number of axes, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence

from xpconv.algorithms.adjoint import input_gradient
from xpconv.algorithms.selection import choose
from xpconv.arrays import namespace, one_dtype, shaped, spatial_axes
from xpconv.backends import Array, Pullback
from xpconv.layout import channels_last, channels_second, taps_first, taps_last
from xpconv.operators import operator
from xpconv.windows import Pad, whole_number, window


@operator
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
        "auto" or "direct".

    Returns
    -------
    array, shape (N, O, *output)
        The dtype of `x`. Its memory holds the channels last.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or a number is not whole.
    ValueError
        When ranks, channels, groups or devices do not fit, a number is out of range, or no window fits.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 7.4; Dumoulin and Visin, "A guide to convolution arithmetic for deep
    learning" (2016), for the arithmetic and its adjoint.
    """
    xp = namespace(x=x, weight=weight, bias=bias)
    one_dtype(xp, "numeric", x=x, weight=weight, bias=bias)
    axes = spatial_axes("x", x)
    spatial_axes("weight", weight, axes)
    groups = whole_number("groups", groups, least=1)
    filters = weight.shape[0]
    if x.shape[1] != weight.shape[1] * groups or filters % groups:
        raise ValueError(
            f"x has {x.shape[1]} channels and weight has shape {tuple(weight.shape)} (O, C/groups, ...) with {groups} "
            f"groups; give weight of shape (O, {x.shape[1]}/groups, ...), O and {x.shape[1]} multiples of groups"
        )
    shaped("bias", bias, (filters,), "one number for each filter")
    plan = window(x.shape[2:], weight.shape[2:], stride=stride, pad=pad, dilation=dilation)
    way = choose(algorithm)

    last, kernel = channels_last(x), taps_first(weight)
    y = way.convolve(last, kernel, plan, groups)
    if bias is not None:
        y = y + bias

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dy = channels_last(dy)
        return (
            channels_second(input_gradient(way, dy, kernel, plan, groups)),
            taps_last(way.weight_gradient(last, dy, plan, groups)),
            None if bias is None else xp.sum(dy, axis=tuple(range(1 + axes)), dtype=dy.dtype),
        )

    return channels_second(y), pullback
