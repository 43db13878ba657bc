"""Carrying out tasks: the one seam through which NumPy does what the standard cannot say.

An algorithm cuts its work into bands (some images, some rows of windows) and says how one band is computed, in calls of
the standard. Here the bands are brought together: on NumPy several threads fill one array in place, each band small
enough for its processor's cache; elsewhere, where a library brings its own parallelism, bands are few and large.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import array_api_extra as xpx
import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from xpconv.blas import small_product
from xpconv.libraries import Array
from xpconv.workers import lanes, run

ITEMSIZE = 4  # bytes of a number: the plan is made for float32, and serves other dtypes too
CACHE = 1 << 20  # bytes that a task may take on NumPy: the second-level cache of one processor
WORKSPACE = 1 << 28  # bytes that a task may take elsewhere


class Band(NamedTuple):
    """Some images, and some of the windows along their first axis."""

    images: slice
    rows: slice


def bands(x: Array, batch: int, rows: int, numbers: int, least: int = 0) -> list[Band]:
    """Cut the work into bands.

    Parameters
    ----------
    x : array
        Whose library carries the bands out.
    batch, rows : int
        Images, and windows along the first axis.
    numbers : int
        Numbers that intermediate arrays hold for one row of one image.
    least : int
        Numbers that a band may hold though the cache be smaller, because a band costs something of its own.
    """
    limit = max(CACHE, least * ITEMSIZE) if is_numpy_array(x) else WORKSPACE
    at_once = max(1, limit // max(1, numbers * ITEMSIZE))
    if is_numpy_array(x) and batch * rows > 1:
        at_once = min(at_once, math.ceil(batch * rows / lanes()))
    if at_once < rows:
        cuts = _even(rows, at_once)
        return [Band(slice(n, n + 1), cut) for n in range(batch) for cut in cuts]
    return [Band(cut, slice(0, rows)) for cut in _even(batch, at_once // max(rows, 1))]


def _even(count: int, most: int) -> list[slice]:
    """Cut `count` things into nearly equal ranges of at most `most`."""
    parts = max(1, math.ceil(count / most))
    return [slice(i * count // parts, (i + 1) * count // parts) for i in range(parts)]


def assemble(
    x: Array, shape: tuple[int, ...], plan: Sequence[Band], block: Callable[[Band, Array | None], Array]
) -> Array:
    """Make an array (N, rows, ...) of its bands.

    `block` is given a band and, where the library writes in place, the part of the result to fill; it returns that part
    once filled, or an array of the same shape.
    """
    if not is_numpy_array(x):
        if len(plan) == 1:
            return block(plan[0], None)
        y = array_namespace(x).empty(shape, dtype=x.dtype, device=device(x))
        for band in plan:
            y = xpx.at(y)[band.images, band.rows, ...].set(block(band, None))
        return y
    y = np.empty(shape, x.dtype)

    def fill(band: Band) -> None:
        place = y[band]
        made = block(band, place)
        if made is not place:
            place[...] = made

    run(fill, plan)
    return y


def over_images(function: Callable[..., Array], *arrays: Array) -> Array:
    """Apply a function that treats every image by itself, to arrays that all have the images first."""
    batch = arrays[0].shape[0]
    most = max(1, CACHE * batch // (1 + sum(a.nbytes for a in arrays))) if is_numpy_array(arrays[0]) else batch
    if batch <= most:
        return function(*arrays)
    first, *rest = _even(batch, most)
    made = function(*(a[first] for a in arrays))
    y = np.empty_like(made, shape=(batch, *made.shape[1:]))
    y[first] = made

    def fill(images: slice) -> None:
        y[images] = function(*(a[images] for a in arrays))

    run(fill, rest)
    return y


def total(x: Array, plan: Sequence[Band], part: Callable[[Band], Array]) -> Array:
    """Add up the parts that the bands give, always in the same order."""
    if not is_numpy_array(x) or len(plan) == 1:
        result = part(plan[0])
        for band in plan[1:]:
            result = result + part(band)
        return result
    shares = _even(len(plan), math.ceil(len(plan) / lanes()))
    sums: list[Array] = [None] * len(shares)

    def add(share: int) -> None:
        own = plan[shares[share]]
        result = part(own[0])
        for band in own[1:]:
            result += part(band)
        sums[share] = result

    run(add, range(len(shares)))
    result = sums[0]
    for other in sums[1:]:
        result += other
    return result


@functools.lru_cache(maxsize=64)
def _constant(matrix: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(matrix).reshape(shape).astype(dtype)


def constant(matrix: np.ndarray[Any, Any], like: Array) -> Array:
    """Return a small matrix of float64 as an array of the library, device and dtype of another."""
    if is_numpy_array(like):
        return _constant(matrix.tobytes(), matrix.shape, like.dtype)
    return array_namespace(like).asarray(matrix.tolist(), dtype=like.dtype, device=device(like))


def product(
    matrix: np.ndarray[Any, Any], b: Array, order: Sequence[int] | None = None, place: Array | None = None
) -> Array:
    """Multiply the last axis but one of an array by a small matrix.

    With `order` the axes of the result are handed on, and lie in memory, in that order; `place` is where to write them.
    """
    a = constant(matrix, b)
    if not is_numpy_array(b):
        y = array_namespace(b).matmul(a, b)
        return y if order is None else array_namespace(b).permute_dims(y, tuple(order))
    order = tuple(range(b.ndim) if order is None else order)
    if place is None:
        shape = (*b.shape[:-2], a.shape[0], b.shape[-1])
        place = np.empty([shape[i] for i in order], b.dtype)
    run(lambda out: np.matmul(a, b, out=out), [place.transpose([order.index(axis) for axis in range(b.ndim)])])
    return place


def matmul(a: Array, b: Array) -> Array:
    """Multiply two matrices by the threads that convolutions run on: those of BLAS, once called, keep a core busy."""
    if not is_numpy_array(a):
        return array_namespace(a, b).matmul(a, b)
    y = np.empty((a.shape[0], b.shape[1]), a.dtype)

    def fill(rows: slice) -> None:
        np.matmul(a[rows], b, out=y[rows])

    run(fill, _even(a.shape[0], max(16, math.ceil(a.shape[0] / lanes()))) if a.shape[0] else [])
    return y


def has_views(x: Array) -> bool:
    """Whether overlapping windows are views here, and a product reads them where they lie."""
    return bool(is_numpy_array(x))


def multiplies_small(x: Array) -> bool:
    """Whether many small products run as fast here as one large one."""
    return not is_numpy_array(x) or small_product() > 0


def divided(x: Array, mask: Array) -> tuple[Array, Array]:
    """Return x where the mask is true and 0 elsewhere, and the other way round."""
    if not is_numpy_array(x):
        xp = array_namespace(x)
        return xp.where(mask, x, xp.zeros_like(x)), xp.where(mask, xp.zeros_like(x), x)
    bits = x.view(f"i{x.itemsize}")  # as whole numbers they multiply exactly, an infinity and a NaN too
    chosen = bits * mask
    return chosen.view(x.dtype), (bits - chosen).view(x.dtype)


def settled(x: Array) -> Array:
    """Return the array lying in memory in the order of its axes, where a library lets that be said."""
    return np.ascontiguousarray(x) if is_numpy_array(x) else x


def lay_out(weight: Array, lead: tuple[int, ...], piece: Callable[[slice, int, Array | None], Array | None]) -> Array:
    """Make (*lead, B, K, O/B) of (..., K, O): filters in blocks that lie together, as `times` multiplies by them best.

    Parameters
    ----------
    weight : array, shape (..., K, O)
        Whose library, dtype and last two axes the result has.
    lead : tuple of int
        Leading axes of the result.
    piece : callable
        Given a slice of K, the number of blocks B and, where the library writes in place, the part
        ``(*lead, B, k, O/B)`` of the result to fill, returns that part.
    """
    depth, filters = weight.shape[-2:]
    if not is_numpy_array(weight):
        return piece(slice(0, depth), 1, None)
    width = _block_width(depth, filters)
    blocks = np.empty((*lead, filters // width, depth, width), weight.dtype)
    parts = _even(depth, max(1, CACHE // (ITEMSIZE * math.prod(lead) * filters)))
    run(lambda part: piece(part, filters // width, blocks[..., part, :]), parts)
    return blocks


def _block_width(depth: int, filters: int) -> int:
    """Choose how many filters to multiply by at a time, so that at least eight rows make a small product."""
    fitting = (w for w in (64, 48, 32) if filters % w == 0 and 8 * depth * w <= small_product())
    return filters if 8 * depth * filters <= small_product() and filters < 96 else next(fitting, filters)


def times(rows: Array, laid: Array, place: Array | None = None) -> Array:
    """Multiply (..., M, K) by filters that `lay_out` has laid out, into `place` (..., M, O) where one is given."""
    xp, (blocks, depth, width) = array_namespace(rows), laid.shape[-3:]
    if not is_numpy_array(rows):
        return xp.matmul(rows, xp.squeeze(laid, axis=-3))
    count = rows.shape[-2]
    if place is None:
        lead = np.broadcast_shapes(rows.shape[:-2], laid.shape[:-3])
        place = np.empty((*lead, count, blocks * width), rows.dtype)
    step = _step(count, small_product() // (depth * width)) if blocks > 1 or small_product() else count
    whole = count - count % step
    for part in (slice(0, whole), slice(whole, count)):
        if part.start < part.stop:
            size = min(step, part.stop - part.start)
            a = rows[..., None, part, :].reshape(*rows.shape[:-2], 1, -1, size, depth)
            y = place[..., part, :].reshape(*place.shape[:-2], -1, size, blocks, width)
            np.matmul(a, laid[..., :, None, :, :], out=np.moveaxis(y, -2, -4))
    return place


def _step(count: int, most: int) -> int:
    """Choose how many rows to multiply at a time: whole eights, which the kernel for small matrices likes best."""
    return max(1, count) if most < 8 or count <= most else most - most % 8
