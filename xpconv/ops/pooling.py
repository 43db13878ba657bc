"""Pooling over any number of axes: a reduction over the taps of every window, with its identity as padding."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import array_api_extra as xpx
from array_api_compat import array_namespace, device

from xpconv.arrays import lowest, may_have_nan, namespace, one_dtype, spatial_axes
from xpconv.execution import over_images
from xpconv.frames import extend, overlap_add
from xpconv.layout import channels_last, channels_second
from xpconv.libraries import Array, Pullback
from xpconv.operators import operator
from xpconv.precision import accumulated
from xpconv.products import divided, settled
from xpconv.windows import Pad, Window, whole_number, window


@operator
@accumulated
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
    last, lowest_value = channels_last(x), lowest(xp, x.dtype)

    def padded(part: Array) -> Array:
        return extend(part, plan.margins, first=1, value=lowest_value)

    y = over_images(lambda part: over_taps(xp.maximum, padded(part), plan), last)

    def pullback(dy: Array) -> tuple[Array]:
        dx = over_images(lambda part, *rest: _to_largest(plan, padded(part), *rest), last, y, channels_last(dy))
        return (channels_second(dx),)

    if return_indices:
        return (channels_second(y), channels_second(_indices(padded(last), plan))), pullback
    return channels_second(y), pullback


@operator
@accumulated
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
    given = divisor is not None
    count = whole_number("divisor", divisor, least=1) if given else _members(x, plan, count_include_pad)
    y = over_taps(xp.add, extend(channels_last(x), plan.margins, first=1), plan) / count

    def pullback(dy: Array) -> tuple[Array]:
        return (channels_second(_spread(channels_last(dy) / count, plan)),)

    return channels_second(y), pullback


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
    y = over_taps(xp.add, extend(xp.abs(last) ** p, plan.margins, first=1), plan) ** (1 / p)

    def pullback(dy: Array) -> tuple[Array]:
        # dx = sign(x) |x|^(p-1) times the sum over windows of dy y^(1-p), where zeros have no powers below 0
        share = xp.where(y == 0, xp.zeros_like(y), channels_last(dy) * xp.where(y == 0, xp.ones_like(y), y) ** (1 - p))
        slope = xp.sign(last) * xp.where(last == 0, xp.ones_like(last), xp.abs(last)) ** (p - 1)
        return (channels_second(slope * _spread(share, plan)),)

    return channels_second(y), pullback


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


def taps(plan: Window) -> list[tuple[slice, ...]]:
    """Where each tap of every window lies in a channels-last array with its margins on, in the order of the taps."""
    along = ([span.tap(k) for k in range(span.kernel)] for span in plan.axes)
    return [(slice(None), *where, slice(None)) for where in itertools.product(*along)]


def over_taps(reduce: Callable[[Array, Array], Array], x: Array, plan: Window) -> Array:
    """Reduce the taps of every window, one axis after the other: (N, reach, ..., C) to (N, output, ..., C)."""
    for axis, span in enumerate(plan.axes, start=1):
        before = (slice(None),) * axis
        x = functools.reduce(reduce, (x[*before, span.tap(k), ...] for k in range(span.kernel)))
    return x


def _to_largest(plan: Window, x: Array, y: Array, dy: Array) -> Array:
    """Hand every window's gradient to the first tap that is its maximum."""
    xp = array_namespace(x)
    left, dx = settled(dy), xp.zeros_like(x)
    nan = x != x if may_have_nan(y) else None
    inside = _inside(x, plan)
    for where in taps(plan):
        largest = x[where] == y
        if nan is not None:
            largest = largest | nan[where]
        if inside is not None:
            largest = largest & inside[where]
        share, left = divided(left, largest)
        dx = xpx.at(dx)[where].add(share) if plan.overlapping else xpx.at(dx)[where].set(share)
    return _without_margins(dx, plan)


def _indices(x: Array, plan: Window) -> Array:
    """Flat indices over the unpadded axes of the first maximum of every window; a NaN is above everything."""
    xp, place = array_namespace(x), device(x)
    dtype = xp.__array_namespace_info__().default_dtypes(device=place)["indexing"]
    flat = xp.reshape(xp.arange(math.prod(plan.size), dtype=dtype, device=place), (1, *plan.size, 1))
    flat = extend(flat, plan.margins, first=1, value=-1)
    best = index = None
    for where in taps(plan):
        value, here = x[where], xp.broadcast_to(flat[where], x[where].shape)
        if index is None:
            best, index = value, here
            continue
        better = (value > best) | (index < 0) | ((value != value) & (best == best))
        best, index = xp.where(better, value, best), xp.where(better, here, index)
    return index


def _spread(share: Array, plan: Window) -> Array:
    """Give every element what its windows hold, added up: (N, *output, C) to (N, *size, C), the adjoint of summing."""
    xp = array_namespace(share)
    for axis, span in enumerate(plan.axes, start=1):
        shape = (*share.shape[: axis + 1], span.kernel, *share.shape[axis + 1 :])
        share = overlap_add(xp.broadcast_to(xp.expand_dims(share, axis=axis + 1), shape), axis, span)
    return _without_margins(share, plan)


def _inside(last: Array, plan: Window) -> Array | None:
    """Tell the elements from the padding, as an array that broadcasts over (N, *padded, C); None without padding."""
    xp, real = array_namespace(last), (1, *plan.size, 1)
    if all(pair == (0, 0) for pair in plan.margins):
        return None
    return extend(xp.ones(real, dtype=xp.bool, device=device(last)), plan.margins, first=1, value=False)


def _members(x: Array, plan: Window, include_pad: bool) -> Array:
    """Elements of every window, as an array that broadcasts over (N, *output, C)."""
    xp, count = array_namespace(x), 1
    for i, span in enumerate(plan.axes):
        members = xp.asarray(span.members(include_pad=include_pad), dtype=x.dtype, device=device(x))
        count = count * xp.reshape(members, (1,) * (1 + i) + (span.output,) + (1,) * (len(plan.axes) - i))
    return count


def _without_margins(x: Array, plan: Window) -> Array:
    return extend(x, [(-before, -after) for before, after in plan.margins], first=1)
