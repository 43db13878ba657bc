"""Pooling over any number of axes: a reduction over the taps of every window, with its identity as padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from xpconv.arrays.arguments import namespace, one_dtype, spatial_axes
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated, accumulated_unless
from xpconv.cuda import serves
from xpconv.fusions import fused
from xpconv.operators import operator
from xpconv.windows import Pad, Window, whole_number, window
from xpconv.windows.reductions import indices, largest, mean, over_taps, spread


@operator
@accumulated_unless(serves)
def max_pool(
    x: Array,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    pad: Pad = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Any, Pullback]:
    """Take the largest element of every window.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of a real dtype.
    kernel, dilation : int or one int an axis
        Taps of a window, elements between taps.
    stride : int or one int an axis, optional
        Elements between windows; the kernel if not given.
    pad : int, one int an axis, one (before, after) pair an axis, "same" or "valid"
        Padding that never wins.
    ceil_mode : bool
        Let the last window hang over the end.
    return_indices : bool
        Give also where each maximum stands.

    Returns
    -------
    y : array, shape (N, C, *output)
        The dtype of `x`.
    indices : array, shape (N, C, *output), only with `return_indices`
        Index of the first maximum, flat over the unpadded spatial axes, in the library's dtype for indices (int64).

    Raises
    ------
    TypeError
        When `x` is no array of real numbers, or a number is not whole.
    ValueError
        When a number is out of range, no window fits, or one would lie wholly on padding.

    Notes
    -----
    The gradient goes to the first maximum of a window, in the order of its taps; NaN is above all numbers.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 7.4.4.
    """
    xp = namespace(x=x)
    one_dtype(xp, ("real floating", "integral"), x=x)
    plan = pooling_window(x, kernel, stride, pad, dilation, ceil_mode)
    y, pullback = _pooled(largest, x, plan)
    if return_indices:
        return (y, channels_second(indices(channels_last(x), plan))), pullback
    return y, pullback


@operator
@accumulated_unless(serves)
def avg_pool(
    x: Array,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    pad: Pad = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> tuple[Array, Pullback]:
    """Take the mean of every window.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of a real floating dtype.
    kernel, stride, pad, dilation, ceil_mode
        As in `max_pool`; the padding is of zeros.
    count_include_pad : bool
        Whether padding counts as elements of a window. What hangs over the padding with `ceil_mode` never does.
    divisor : int, optional
        Divide the sum by this number in place of the number of elements.

    Returns
    -------
    array, shape (N, C, *output)
        The dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers, or a number is not whole.
    ValueError
        When a number is out of range, no window fits, or one would lie wholly on padding.
    """
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    plan = pooling_window(x, kernel, stride, pad, dilation, ceil_mode)
    if divisor is not None:
        divisor = whole_number("divisor", divisor, least=1)
    members = [span.members(include_pad=count_include_pad) for span in plan.axes]
    if divisor is not None:
        members = [(divisor if i == 0 else 1,) * span.output for i, span in enumerate(plan.axes)]
    return _pooled(mean, x, plan, members)


@operator
@accumulated
def lp_pool(
    x: Array,
    kernel: int | Sequence[int],
    p: float = 2,
    *,
    stride: int | Sequence[int] | None = None,
    pad: Pad = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Pullback]:
    """Take the p-norm of every window, ``(sum |x|^p)^(1/p)``.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of a real floating dtype.
    p : float
        The norm: 1 adds up, 2 is the Euclidean length, and the larger it is the nearer to the maximum. Above 0.
    kernel, stride, pad, dilation, ceil_mode
        As in `max_pool`; the padding is of zeros.

    Returns
    -------
    array, shape (N, C, *output)
        The dtype of `x`. At a zero, where the norm may have a kink, the gradient is zero.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers, or a number is not of its kind.
    ValueError
        When a number is out of range, no window fits, or one would lie wholly on padding.

    References
    ----------
    Sermanet, Chintala and LeCun, "Convolutional neural networks applied to house numbers digit classification" (2012).
    """
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    if isinstance(p, bool) or not isinstance(p, (int, float)):
        raise TypeError(f"p is {p!r} ({type(p).__name__}); give a number")
    if not 0 < p < math.inf:
        raise ValueError(f"p is {p}; give a finite number above 0")
    plan = pooling_window(x, kernel, stride, pad, dilation, ceil_mode)
    last = channels_last(x)
    y = over_taps("add", xp.abs(last) ** p, plan) ** (1 / p)

    def pullback(dy: Array) -> tuple[Array]:
        # dx = sign(x) |x|^(p-1) times the sum over windows of dy y^(1-p), where zeros have no powers below 0
        share = xp.where(y == 0, xp.zeros_like(y), channels_last(dy) * xp.where(y == 0, xp.ones_like(y), y) ** (1 - p))
        slope = xp.sign(last) * xp.where(last == 0, xp.ones_like(last), xp.abs(last)) ** (p - 1)
        return (channels_second(slope * spread(share, plan)),)

    return channels_second(y), pullback


@operator
@accumulated_unless(serves)
def global_max_pool(x: Array) -> tuple[Array, Pullback]:
    """Take the largest element of every channel.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of a real dtype.

    Returns
    -------
    array, shape (N, C, 1, ...)
        The dtype of `x`. The gradient goes to the first maximum; NaN is above all numbers.

    Raises
    ------
    TypeError
        When `x` is no array of real numbers.
    ValueError
        When `x` has no spatial axis or an empty one.
    """
    xp = namespace(x=x)
    one_dtype(xp, ("real floating", "integral"), x=x)
    return _pooled(largest, x, _everything(x))


@operator
@accumulated_unless(serves)
def global_avg_pool(x: Array) -> tuple[Array, Pullback]:
    """Take the mean of every channel.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of a real floating dtype.

    Returns
    -------
    array, shape (N, C, 1, ...)
        The dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.
    ValueError
        When `x` has no spatial axis or an empty one.

    References
    ----------
    Lin, Chen and Yan, "Network in network" (2014).
    """
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    plan = _everything(x)
    return _pooled(mean, x, plan, [span.members(include_pad=False) for span in plan.axes])


def pooling_window(
    x: Array,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None,
    pad: Pad,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Window:
    """Plan the windows of a pooling, or raise ValueError when one lies wholly on padding and has nothing to reduce."""
    spatial_axes("x", x)
    stride = kernel if stride is None else stride
    plan = window(x.shape[2:], kernel, stride=stride, pad=pad, dilation=dilation, ceil_mode=ceil_mode)
    for i, span in enumerate(plan.axes):
        if span.padding_alone:
            raise ValueError(
                f"with a pad of {(span.before, span.after)} on axis {i}, of {span.size} elements, there is a window of "
                f"{span.kernel} taps with dilation {span.dilation} that sees none of them; give less padding"
            )
    return plan


def _pooled(reduction: Callable[..., tuple[Array, Pullback]], x: Array, *given: Any) -> tuple[Array, Pullback]:
    """Reduce windows, by array code or by what there is of its name: (N, C, *size) to (N, C, *output)."""
    last = channels_last(x)
    y, to_last = (fused(reduction.__name__, last) or reduction)(last, *given)

    def pullback(dy: Array) -> tuple[Array]:
        (dx,) = to_last(channels_last(dy))
        return (channels_second(dx),)

    return channels_second(y), pullback


def _everything(x: Array) -> Window:
    """Plan the one window that sees all of every channel."""
    spatial_axes("x", x)
    if 0 in x.shape[2:]:
        raise ValueError(f"x has shape {tuple(x.shape)}; give at least one element along every spatial axis")
    return window(x.shape[2:], x.shape[2:])
