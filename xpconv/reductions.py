"""Reductions over windows in calls of the standard, and where their gradients go: what pooling is made of.

Arrays are channels-last in here. A maximum or a sum over windows is one over shifted slices, so nothing is lowered.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import array_api_extra as xpx
from array_api_compat import array_namespace, device

from xpconv.arrays import lowest, may_have_nan
from xpconv.execution import over_images
from xpconv.frames import extend, overlap_add
from xpconv.libraries import Array, Pullback
from xpconv.products import divided, settled
from xpconv.windows import Window


def largest(x: Array, plan: Window) -> tuple[Array, Pullback]:
    """Take the largest tap of every window: (N, *size, C) to (N, *output, C)."""
    xp, value = array_namespace(x), lowest(array_namespace(x), x.dtype)

    def padded(part: Array) -> Array:
        return extend(part, plan.margins, first=1, value=value)

    y = over_images(lambda part: over_taps(xp.maximum, padded(part), plan), x)
    return y, lambda dy: (over_images(lambda part, *rest: _to_largest(plan, padded(part), *rest), x, y, dy),)


def mean(x: Array, plan: Window, members: Sequence[Sequence[int]]) -> tuple[Array, Pullback]:
    """Take the mean of every window, of so many members along each axis: (N, *size, C) to (N, *output, C)."""
    xp, count, axes = array_namespace(x), 1, len(plan.axes)
    for i, along in enumerate(members):
        numbers = xp.asarray(along, dtype=x.dtype, device=device(x))
        count = count * xp.reshape(numbers, (1,) * (1 + i) + (len(along),) + (1,) * (axes - i))
    y = over_taps(xp.add, extend(x, plan.margins, first=1), plan) / count
    return y, lambda dy: (spread(dy / count, plan),)


def indices(x: Array, plan: Window) -> Array:
    """Flat indices over the unpadded axes of the first maximum of every window; a NaN is above everything."""
    xp, place = array_namespace(x), device(x)
    x = extend(x, plan.margins, first=1, value=lowest(xp, x.dtype))
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


def spread(share: Array, plan: Window) -> Array:
    """Give every element what its windows hold, added up: (N, *output, C) to (N, *size, C), the adjoint of summing."""
    xp = array_namespace(share)
    for axis, span in enumerate(plan.axes, start=1):
        shape = (*share.shape[: axis + 1], span.kernel, *share.shape[axis + 1 :])
        share = overlap_add(xp.broadcast_to(xp.expand_dims(share, axis=axis + 1), shape), axis, span)
    return _without_margins(share, plan)


def over_taps(reduce: Callable[[Array, Array], Array], x: Array, plan: Window) -> Array:
    """Reduce the taps of every window, one axis after the other: (N, reach, ..., C) to (N, output, ..., C)."""
    for axis, span in enumerate(plan.axes, start=1):
        before = (slice(None),) * axis
        x = functools.reduce(reduce, (x[*before, span.tap(k), ...] for k in range(span.kernel)))
    return x


def taps(plan: Window) -> list[tuple[slice, ...]]:
    """Where each tap of every window lies in a channels-last array with its margins on, in the order of the taps."""
    return [(slice(None), *where, slice(None)) for where in plan.places()]


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


def _inside(last: Array, plan: Window) -> Array | None:
    """Tell the elements from the padding, as an array that broadcasts over (N, *padded, C); None without padding."""
    xp, real = array_namespace(last), (1, *plan.size, 1)
    if all(pair == (0, 0) for pair in plan.margins):
        return None
    return extend(xp.ones(real, dtype=xp.bool, device=device(last)), plan.margins, first=1, value=False)


def _without_margins(x: Array, plan: Window) -> Array:
    return extend(x, [(-before, -after) for before, after in plan.margins], first=1)
