"""Carrying out tasks: the seam through which NumPy does side by side, and in place, what the standard does at once.

An algorithm cuts its work into bands (some images, some rows of windows) and says how one band is computed, in calls of
the standard. Here the bands are brought together: on NumPy several threads fill one array in place, each band small
enough for its processor's cache; elsewhere, where a library brings its own parallelism, bands are few and large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from types import EllipsisType
from typing import Any, NamedTuple, TypeVar

import array_api_extra as xpx
import numpy as np
from array_api_compat import device

from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.steps import Repeated, copied, step
from xpconv.execution.workers import lanes, run
from xpconv.execution.workspace import empty, in_task

ITEMSIZE = 4  # bytes of a number: the plan is made for float32, and serves other dtypes too
TASK = 5 << 19  # bytes that a task takes on NumPy: what stays near its processor, and outweighs what a task costs
ALONE = 1 << 21  # multiply-adds that are done before another thread has woken up


P = TypeVar("P", bound=tuple[Any, ...])


class Band(NamedTuple):
    """Some images, and some of the windows along their first axis."""

    images: slice
    rows: slice


def bands(x: Array, batch: int, rows: int, numbers: int, *, work: int, workspace: int, least: int = 0) -> list[Band]:
    """Cut the work into bands.

    Parameters
    ----------
    x : array
        Whose library carries the bands out.
    batch, rows : int
        Images, and windows along the first axis.
    numbers : int
        Numbers that intermediate arrays hold for one row of one image.
    work : int
        Multiply-adds that one row of one image takes.
    least : int
        Numbers that a band should hold even where it outgrows the cache, because a band costs something of its own.
    workspace : int
        Bytes that the intermediate arrays of all bands under way may take.
    """
    own = isinstance(x, np.ndarray)
    threads = lanes() if own and batch * rows * work > ALONE else 1
    limit = min(max(TASK, least * ITEMSIZE), workspace // threads) if own else workspace
    at_once = max(1, min(limit // max(1, numbers * ITEMSIZE), math.ceil(batch * rows / threads)))
    if at_once < rows and batch > 0:
        parts = math.ceil(rows / at_once)
        parts += (-parts * batch % threads) // math.gcd(batch, threads) if batch < threads else 0
        return [Band(slice(n, n + 1), cut) for n in range(batch) for cut in evenly(rows, parts)]
    parts = math.ceil(batch / (at_once // max(rows, 1))) if batch else 1
    parts = min(batch, parts + -parts % threads) or 1
    return [Band(cut, slice(0, rows)) for cut in evenly(batch, parts)]


def evenly(count: int, parts: int) -> list[slice]:
    """Cut `count` things into so many nearly equal ranges."""
    return [slice(i * count // parts, (i + 1) * count // parts) for i in range(parts)]


def pieces(x: Array, count: int, width: int) -> list[tuple[EllipsisType, slice]]:
    """Cut the last axis into pieces of this width, where threads share them out; elsewhere there is one piece."""
    step = width if isinstance(x, np.ndarray) else count
    return [(..., slice(start, min(start + step, count))) for start in range(0, count, step)]


def assemble(
    x: Array,
    shape: tuple[int, ...],
    cuts: Sequence[P],
    block: Callable[[P, Array | None], Array],
    moving: Sequence[Array] | None = None,
) -> Array:
    """Make an array of its pieces, such as bands of an array (N, rows, ...).

    `block` is given an index and, where the library writes in place, the part of the result to fill; it returns that
    part once filled, or an array of the same shape. With `moving`, the arrays of which it takes the images of a band,
    it keeps to what `steps` asks of a task.
    """
    if not isinstance(x, np.ndarray):
        if len(cuts) == 1:
            return block(cuts[0], None)
        y = namespace_of(x).empty(shape, dtype=x.dtype, device=device(x))
        for where in cuts:
            whole = where if ... in where else (*where, ...)
            y = xpx.at(y)[whole].set(block(where, None))
        return y
    y = empty(shape, x.dtype)

    def fill(where: P) -> None:
        place = y[where]
        made = block(where, place)
        if made is not place:
            step(copied, made, place)

    if moving is None:
        run(fill, cuts)
    else:
        repeated = Repeated(fill, (*moving, y))
        run(lambda where: repeated(*_part(where), where), cuts)
    return y


def filled(x: Array, fill: Callable[[Array, slice], Array]) -> Array:
    """Fill an array some images at a time: `fill` is given it and a slice of images, and returns it with those filled.

    On NumPy the images are shared out, and what is computed for them on the way is taken from the workspace.
    """
    if not isinstance(x, np.ndarray):
        return fill(x, slice(None))
    batch, threads = x.shape[0], lanes()
    if x.size <= ALONE // 8 or (batch < 4 * threads and batch % threads):
        return fill(x, slice(0, batch))
    run(lambda images: fill(x, images), evenly(batch, threads))
    return x


def put(x: Array, where: tuple[slice, ...], values: Array | float) -> Array:
    """Return x with these values at a place, in place where a library can."""
    if not isinstance(x, np.ndarray):
        if isinstance(values, int | float):  # which a library could put on another device first
            values = namespace_of(x).full((), values, dtype=x.dtype, device=device(x))
        return xpx.at(x)[*where, ...].set(values)
    step(copied, values, x[where])
    return x


def _part(where: tuple[Any, ...]) -> tuple[Hashable, int]:
    """Say in numbers which part of the work this is, but for the first image of a band, and which image that is."""
    if isinstance(where, Band):
        images, rows = where
        return (images.stop - images.start, rows.start, rows.stop), images.start
    return tuple((index.start, index.stop) if isinstance(index, slice) else index for index in where), 0


def total(
    x: Array, plan: Sequence[Band], part: Callable[[Band], Array], moving: Sequence[Array] | None = None
) -> Array:
    """Add up the parts that the bands give, always in the same order; `moving` is what it is for `assemble`."""
    if not isinstance(x, np.ndarray):
        result = part(plan[0])
        for band in plan[1:]:
            result = result + part(band)
        return result
    repeated = None if moving is None else Repeated(part, moving)
    shares = evenly(len(plan), min(len(plan), lanes()))
    sums: list[Array] = [None] * len(shares)

    def add_up(share: int) -> None:
        def add(band: Band) -> None:
            made: Array = part(band) if repeated is None else repeated(*_part(band), band)
            if sums[share] is None:
                sums[share] = made.copy()
            else:
                sums[share] += made

        for band in plan[shares[share]]:
            in_task(add, band)

    run(add_up, range(len(shares)))
    result = sums[0]
    for other in sums[1:]:
        result += other
    return result
