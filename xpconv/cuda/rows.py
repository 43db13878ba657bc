"""Matrices row by row on a GPU: products that are added to a bias, and the sum of all rows, which is its gradient."""

from __future__ import annotations

import math

from xpconv.arrays.libraries import Array
from xpconv.cuda import geometry
from xpconv.cuda.runtime import accumulation, dtype_name, empty, fitting, multiply, pack_of, readable, run, settled
from xpconv.cuda.sources import expression

THREADS = 1 << 16  # that read or write a matrix at most, unless a row has more packs
CHAIN = 64  # rows that a thread adds up at least, before their sums are added up in turn


def matmul(a: Array, b: Array, start: Array | None = None, *, precision: str = "float32") -> Array:
    """Multiply matrices (M, K) and (K, N), wherever they lie, and add the products to a row (N,) where one is given."""
    a, b = readable(a), readable(b)
    shape = (a.shape[0], b.shape[1])

    def work() -> Array:
        y = empty(shape, a.dtype)
        if start is not None:
            repeat_row(start, y)
        multiply(a, b, y, add=start is not None, precision=precision)
        return y

    return fitting(work, shape, a.dtype)


def repeat_row(row: Array, y: Array) -> None:
    """Write a row (C,) to all rows of y (..., C), which lies in memory in the order of its axes."""
    row, kind = settled(row), y.dtype.kind
    if kind == "c":
        row, y = (array.view(f"f{array.itemsize // 2}") for array in (row, y))
    pack = pack_of(row, y)
    packs = row.size // pack
    rows = min(y.size // max(1, row.size), max(1, THREADS // max(1, packs)))
    told = geometry.rows(y.size // pack, rows * packs, packs)
    run("rows", expression("repeat_row", dtype_name(y.dtype), pack), rows * packs, row, y, told)


def sum_rows(x: Array) -> Array:
    """Sum (..., C) to (C,), narrow numbers in float32: some rows to each of many sums, and those to fewer in turn."""
    x, channels = settled(x), x.shape[-1]

    def work() -> Array:
        sums, count = x, x.size // max(1, channels)
        while True:
            pack = pack_of(sums)
            packs, few = channels // pack, count <= 4 * CHAIN
            count = 1 if few else min(math.ceil(count / CHAIN), max(1, THREADS // max(1, packs)))
            made = empty((count, channels), accumulation(x))
            told = geometry.rows(sums.size // pack, count * packs, packs)
            run("rows", expression("sum_rows", dtype_name(sums.dtype), pack), count * packs, sums, made, told)
            if count == 1:
                return made.reshape(channels).astype(x.dtype, copy=False)
            sums = made

    return fitting(work, (channels,), x.dtype)
