"""Products of matrices, small and large, as each library does them best.

NumPy writes results where they are wanted, in the order of axes that comes next, and multiplies by filters in blocks:
OpenBLAS takes many small products without packing, without locks and at the full speed of a processor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import device

from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.blas import small_product
from xpconv.execution.elementwise import inverse
from xpconv.execution.steps import step
from xpconv.execution.tasks import ITEMSIZE, evenly
from xpconv.execution.workers import lanes, run
from xpconv.execution.workspace import apart, empty

BLOCK = 1 << 20  # bytes of filters that are laid out by one task
SUMS = 3 << 19  # bytes of sums of outer products that are kept side by side, for the sake of small products


def multiplies_small(x: Array) -> bool:
    """Whether many small products run as fast here as one large one."""
    return not isinstance(x, np.ndarray) or small_product() > 0


def has_views(array: Array) -> bool:
    """Whether overlapping windows are views here, and a product reads them where they lie."""
    return isinstance(array, np.ndarray)


@functools.lru_cache(maxsize=64)
def _constant(matrix: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    made = np.frombuffer(matrix).reshape(shape).astype(dtype)
    made.flags.writeable = False
    return made


def constant(matrix: np.ndarray[Any, Any], like: Array) -> Array:
    """Return a small matrix as an array of the library, device and dtype of another."""
    if isinstance(like, np.ndarray):
        return matrix if matrix.dtype == like.dtype else _constant(matrix.tobytes(), matrix.shape, like.dtype)
    return namespace_of(like).asarray(matrix.tolist(), dtype=like.dtype, device=device(like))


def product(
    matrix: np.ndarray[Any, Any], b: Array, order: tuple[int, ...] | None = None, place: Array | None = None
) -> Array:
    """Multiply the last axis but one of an array by a small matrix.

    With `order` the axes of the result are handed on, and lie in memory, in that order; `place` is where to write them.
    """
    a = constant(matrix, b)
    if not isinstance(b, np.ndarray):
        y = namespace_of(b).matmul(a, b)
        return y if order is None else namespace_of(b).permute_dims(y, order)
    shape = (*b.shape[:-2], a.shape[0], b.shape[-1])
    if place is None:
        place = empty(shape if order is None else [shape[i] for i in order], b.dtype)
    step(np.matmul, a, *_narrow(a, b, place if order is None else place.transpose(inverse(order))))
    return place


def _narrow(a: Array, b: Array, y: Array) -> tuple[Array, Array]:
    """Cut the columns of a wide product, (..., K, N) and (..., M, N), into stacks of such as stay small."""
    columns = b.shape[-1]
    most = small_product() // a.size
    parts = next((n for n in range(-(-columns // most), 65) if columns % n == 0), 1) if most and columns > most else 1
    if parts == 1:
        return b, y
    return tuple(c.reshape(*c.shape[:-1], parts, -1).swapaxes(-2, -3) for c in (b, y))


def matmul(a: Array, b: Array) -> Array:
    """Multiply two matrices by the threads that convolutions run on: those of BLAS, once called, keep a core busy."""
    if not isinstance(a, np.ndarray):
        return namespace_of(a).matmul(a, b)
    rows, columns = a.shape[0], b.shape[1]
    y = np.empty((rows, columns), a.dtype)
    parts = min(lanes(), max(1, rows // 16)) if math.prod(a.shape) * columns > 1 << 21 else 1

    def fill(part: slice) -> None:
        np.matmul(a[part], b, out=y[part])

    run(fill, evenly(rows, parts))
    return y


@functools.lru_cache(maxsize=256)
def _contraction(subscripts: str) -> Callable[[Array, Array, Array], object]:
    return lambda a, b, place: np.einsum(subscripts, a, b, out=place)


def contracted(subscripts: str, a: Array, b: Array, place: Array) -> Array:
    """Add up products in one sweep over NumPy's arrays, as `numpy.einsum` says which, and write them to a place."""
    step(_contraction(subscripts), a, b, place)
    return place


def summed(a: Array, b: Array) -> Array:
    """Add up the outer products of the rows of two stacks: (..., M, K) and (..., M, O) to (..., K, O)."""
    if not isinstance(a, np.ndarray):
        xp = namespace_of(a)
        return xp.matmul(xp.matrix_transpose(a), b)
    (rows, depth), filters = a.shape[-2:], b.shape[-1]
    y = apart((*a.shape[:-2], depth, filters), a.dtype)
    tall, wide = (_even_block(count) for count in (depth, filters))
    at_once = _rows(rows, small_product() // (tall * wide))
    sums = math.ceil(rows / at_once)
    if rows == 0 or (sums > 1 and sums * y.nbytes > SUMS):
        step(np.matmul, a.mT, b, y)
        return y
    parts = y[..., None, :, :] if sums == 1 else empty((*y.shape[:-2], sums, *y.shape[-2:]), y.dtype)
    whole = rows // at_once
    for some, length in (slice(0, whole), at_once), (slice(whole, sums), rows % at_once):
        if some.start < some.stop:
            first, last = some.start * at_once, some.start * at_once + (some.stop - some.start) * length
            left = a[..., first:last, :].reshape(*a.shape[:-2], -1, length, depth // tall, 1, tall)
            right = b[..., first:last, :].reshape(*b.shape[:-2], -1, length, 1, filters // wide, wide)
            place = parts[..., some, :, :].reshape(*y.shape[:-2], -1, depth // tall, tall, filters // wide, wide)
            step(np.matmul, np.moveaxis(left, -4, -1), np.moveaxis(right, -4, -2), place.swapaxes(-3, -2))
    if sums > 1:
        step(np.add.reduce, parts, -3, None, y)
    return y


def _even_block(count: int) -> int:
    """Choose how many rows or columns a product has, so that it is small: 64 or 32 where they divide the count."""
    return next((width for width in (64, 48, 32) if count % width == 0), count)


def lay_out(
    weight: Array,
    lead: tuple[int, ...],
    matrix: tuple[int, int],
    piece: Callable[[slice, int, Array | None], Array | None],
) -> Array:
    """Make (*lead, B, K, O/B) of a weight: filters in blocks that lie together, as `times` multiplies by them best.

    Parameters
    ----------
    weight : array
        Whose library and dtype the result has.
    lead : tuple of int
        Leading axes of the result.
    matrix : (int, int)
        K and O.
    piece : callable
        Given a slice of K, the number of blocks B and, where the library writes in place, the part
        ``(*lead, B, k, O/B)`` of the result to fill, returns that part.
    """
    depth, filters = matrix
    if not isinstance(weight, np.ndarray):
        return piece(slice(0, depth), 1, None)
    width = _block_width(depth, filters)
    blocks = apart((*lead, filters // width, depth, width), weight.dtype)
    parts = evenly(depth, min(depth, math.ceil(ITEMSIZE * blocks.size / BLOCK)))
    run(lambda part: piece(part, filters // width, blocks[..., part, :]), parts)
    return blocks


def _block_width(depth: int, filters: int) -> int:
    """Choose how many filters to multiply by at a time, so that at least eight rows make a small product."""
    fitting = (w for w in (64, 48, 32) if filters % w == 0 and 8 * depth * w <= small_product())
    return filters if 8 * depth * filters <= small_product() and filters < 96 else next(fitting, filters)


def times(rows: Array, laid: Array, place: Array | None = None) -> Array:
    """Multiply (..., M, K) by filters that `lay_out` has laid out, into `place` (..., M, O) where one is given."""
    if not isinstance(rows, np.ndarray):
        xp = namespace_of(rows)
        return xp.matmul(rows, xp.squeeze(laid, axis=-3))
    count, (blocks, depth, width) = rows.shape[-2], laid.shape[-3:]
    if place is None:
        lead = np.broadcast_shapes(rows.shape[:-2], laid.shape[:-3])
        place = empty((*lead, count, blocks * width), rows.dtype)
    at_once = _rows(count, small_product() // (depth * width)) if blocks > 1 or small_product() else count
    whole = count - count % at_once
    for part in (slice(0, whole), slice(whole, count)):
        if part.start < part.stop:
            size = min(at_once, part.stop - part.start)
            a = rows[..., None, part, :].reshape(*rows.shape[:-2], 1, -1, size, depth)
            y = place[..., part, :].reshape(*place.shape[:-2], -1, size, blocks, width)
            step(np.matmul, a, laid[..., :, None, :, :], np.moveaxis(y, -2, -4))
    return place


def _rows(count: int, most: int) -> int:
    """Choose how many rows to multiply at a time: whole eights, which the kernel for small matrices likes best."""
    return max(1, count) if most < 8 or count <= most else most - most % 8
