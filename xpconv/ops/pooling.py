"""Pooling over any number of axes: a reduction over the taps of every window, with its identity as padding."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import array_api_extra as xpx
from array_api_compat import array_namespace, device

from xpconv.arrays import namespace, one_dtype, spatial_axes
from xpconv.backends import Array, Pullback
from xpconv.frames import extend, overlap_add
from xpconv.layout import channels_last, channels_second
from xpconv.operators import operator
from xpconv.windows import Pad, Window, whole_number, window


@operator
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
        Padding that never wins, of at most half a window.
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
        When a number is out of range, the padding is more than half a window, or no window fits.

    Notes
    -----
    The gradient goes to the first maximum of a window, in the order of its taps.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 7.4.4.
    """
    xp = namespace(x=x)
    one_dtype(xp, ("real floating", "integral"), x=x)
    plan = pooling_window(x, kernel, stride, pad, dilation, ceil_mode)
    last = extend(channels_last(x), plan.margins, first=1, value=lowest(xp, x.dtype))
    y = over_taps(xp.maximum, last, plan)

    def pullback(dy: Array) -> tuple[Array]:
        left = channels_last(dy)
        nothing = xp.zeros_like(left)
        dx = xp.zeros_like(last)
        for where in taps(plan):
            largest = last[where] == y
            dx = xpx.at(dx)[where].add(xp.where(largest, left, nothing))
            left = xp.where(largest, nothing, left)
        return (channels_second(_without_margins(dx, plan)),)

    if return_indices:
        return (channels_second(y), channels_second(_indices(last, plan))), pullback
    return channels_second(y), pullback


@operator
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
        When a number is out of range, the padding is more than half a window, or no window fits.
    """
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    plan = pooling_window(x, kernel, stride, pad, dilation, ceil_mode)
    if divisor is not None:
        divisor = whole_number("divisor", divisor, least=1)
    count = divisor or _members(x, plan, count_include_pad)
    y = over_taps(xp.add, extend(channels_last(x), plan.margins, first=1), plan) / count

    def pullback(dy: Array) -> tuple[Array]:
        share = channels_last(dy) / count
        for axis, span in enumerate(plan.axes, start=1):
            shape = (*share.shape[: axis + 1], span.kernel, *share.shape[axis + 1 :])
            share = overlap_add(xp.broadcast_to(xp.expand_dims(share, axis=axis + 1), shape), axis, span)
        return (channels_second(_without_margins(share, plan)),)

    return channels_second(y), pullback


def pooling_window(
    x: Array,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None,
    pad: Pad,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Window:
    """Plan the windows of a pooling, or raise ValueError when a window could lie wholly on padding."""
    spatial_axes("x", x)
    stride = kernel if stride is None else stride
    plan = window(x.shape[2:], kernel, stride=stride, pad=pad, dilation=dilation, ceil_mode=ceil_mode)
    for i, span in enumerate(plan.axes):
        if max(span.before, span.after) > span.extent // 2:
            raise ValueError(
                f"pad is {(span.before, span.after)} on axis {i}, for a window of {span.extent} elements; give at most "
                f"half a window, {span.extent // 2}"
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


def lowest(xp: Any, dtype: Any) -> float:
    """Return the identity of the maximum: what no element is below."""
    return float("-inf") if xp.isdtype(dtype, "real floating") else int(xp.iinfo(dtype).min)


def _indices(x: Array, plan: Window) -> Array:
    """Flat indices over the unpadded axes of the first maximum of every window; a NaN is above everything."""
    xp, place = array_namespace(x), device(x)
    dtype = xp.__array_namespace_info__().default_dtypes(device=place)["indexing"]
    shape = (1, *plan.size, 1)
    flat = xp.reshape(xp.arange(functools.reduce(int.__mul__, plan.size), dtype=dtype, device=place), shape)
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


def _members(x: Array, plan: Window, include_pad: bool) -> Array:
    """Elements of every window, as an array that broadcasts over (N, *output, C)."""
    xp, count = array_namespace(x), 1
    for i, span in enumerate(plan.axes):
        members = xp.asarray(span.members(include_pad=include_pad), dtype=x.dtype, device=device(x))
        count = count * xp.reshape(members, (1,) * (1 + i) + (span.output,) + (1,) * (len(plan.axes) - i))
    return count


def _without_margins(x: Array, plan: Window) -> Array:
    return extend(x, [(-before, -after) for before, after in plan.margins], first=1)
