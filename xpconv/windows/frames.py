"""The primitive under everything: overlapping windows cut along an axis, and their adjoint, overlap-add.

`frames` is a view where the library has such views, and a stack of slices elsewhere: the only place where lowering,
pooling and Winograd tiles differ between libraries. An axis of ``n`` elements becomes two, ``(output, kernel)``.

`extend` lays a `Window`'s margins on, after which frames cover the axis from end to end. A negative margin takes
elements away, so the adjoint of `extend` is `extend` with every margin negated.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import array_api_extra as xpx
import numpy as np
from array_api_compat import device

from xpconv.arrays.libraries import Array, namespace_of, overlapping_view
from xpconv.execution.steps import copied, step
from xpconv.execution.workspace import empty
from xpconv.windows import Axis, Window


def extend(x: Array, margins: Sequence[tuple[int, int]], *, first: int, value: float = 0) -> Array:
    """Add (or with negative numbers take away) elements before and after the axes from `first` on."""
    crop, shape, inside = [slice(None)] * first, list(x.shape), [slice(None)] * first
    for axis, (before, after) in enumerate(margins, start=first):
        size = x.shape[axis]
        kept = range(size)[max(0, -before) : max(0, size - max(0, -after))]
        crop.append(slice(kept.start, kept.start + len(kept)))
        shape[axis] = size + before + after
        inside.append(slice(max(0, before), max(0, before) + len(kept)) if kept else slice(0, 0))
    if any(min(pair) < 0 for pair in margins):
        x = x[*crop, ...]
    if all(max(pair) <= 0 for pair in margins):
        return x
    if isinstance(x, np.ndarray):
        return _surrounded(x, shape, inside, value)
    xp = namespace_of(x)
    make = functools.partial(xp.full, fill_value=value) if value else xp.zeros
    laid = make(tuple(shape), dtype=x.dtype, device=device(x))
    return xpx.at(laid)[*inside, ...].set(x)


def _surrounded(x: Array, shape: list[int], inside: list[slice], value: float) -> Array:
    """Lay an array in a larger one; only what is around it is filled."""
    laid = empty(shape, x.dtype)
    for axis, part in enumerate(inside):
        if (part.start, part.stop) not in ((None, None), (0, shape[axis])):
            step(copied, value, laid[*inside[:axis], : part.start])
            step(copied, value, laid[*inside[:axis], part.stop :])
    step(copied, x, laid[*inside])
    return laid


def frames(x: Array, axis: int, span: Axis) -> Array:
    """Cut windows along one axis: (..., reach, ...) to (..., output, kernel, ...)."""
    view = overlapping_view(x, axis, (span.output, span.kernel), (span.stride, span.dilation))
    if view is not None:
        return view
    before = (slice(None),) * axis
    return namespace_of(x).stack([x[*before, span.tap(k), ...] for k in range(span.kernel)], axis=axis + 1)


def overlap_add(y: Array, axis: int, span: Axis) -> Array:
    """Add windows up where they overlap: (..., output, kernel, ...) to (..., reach, ...), the adjoint of `frames`."""
    before = (slice(None),) * axis
    shape = (*y.shape[:axis], span.reach, *y.shape[axis + 2 :])
    total = namespace_of(y).zeros(shape, dtype=y.dtype, device=device(y))
    for k in range(span.kernel):
        total = xpx.at(total)[*before, span.tap(k), ...].add(y[*before, :, k, ...])
    return total


def cut(x: Array, window: Window, *, first: int) -> Array:
    """Cut windows along every spatial axis: (..., H, W, ...) to (..., OH, KH, OW, KW, ...)."""
    x = extend(x, window.margins, first=first)
    for i in reversed(range(len(window.axes))):
        x = frames(x, first + i, window.axes[i])
    return x


def uncut(y: Array, window: Window, *, first: int) -> Array:
    """Add windows up along every spatial axis: the adjoint of `cut`."""
    for i, span in enumerate(window.axes):
        y = overlap_add(y, first + i, span)
    return extend(y, [(-before, -after) for before, after in window.margins], first=first)
