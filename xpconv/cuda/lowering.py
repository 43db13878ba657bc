"""The direct way on a GPU: lower the windows to rows of a matrix, many images at a time, and multiply by cuBLAS.

References
----------
Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing" (2006).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from xpconv.algorithms import Plan
from xpconv.arrays.libraries import Array
from xpconv.cuda import geometry
from xpconv.cuda.rows import repeat_row
from xpconv.cuda.runtime import (
    Pool,
    accumulation,
    dtype_name,
    empty,
    multiply,
    pack_of,
    part_of,
    readable,
    run,
    settled,
    strides,
)
from xpconv.cuda.sources import expression
from xpconv.cuda.workspace import Piece, halving, pieces
from xpconv.windows import Window


class Lowering:
    """A convolution as one product for each piece of the batch; of up to three axes there is nothing it cannot do."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whether there are at most three axes."""
        return len(window.axes) <= geometry.AXES

    def adjoins(self, window: Window) -> bool:
        """Whether the windows' stride would make several convolutions of the gradient."""
        return window.strided

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C/G, O) to (G, taps*C/G, O/G)."""
        return readable(by_group(weight, plan.groups))

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        window, row = plan.window, _row(plan.window, x.shape[-1], x.itemsize)
        filters = self.prepare(weight, plan) if prepared is None else prepared
        shape = (x.shape[0], *window.output, weight.shape[-1])

        def work(limit: int) -> Array:
            y = empty(shape, x.dtype)
            if bias is not None:
                repeat_row(bias, y)
            for piece in _pieces(x.shape[0], window.output[0], row, limit):
                rows, place = _rows(x, plan, piece), by_group(part_of(y, *piece), plan.groups)
                multiply(rows, filters, place, add=bias is not None, precision=plan.precision)
            return y

        return _halving(work, math.prod(shape) * x.itemsize, row, x.shape[0] * window.output[0], plan)

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
        window, row, dy = plan.window, _row(plan.window, x.shape[-1], x.itemsize), settled(dy)
        shape = (*window.kernel, x.shape[-1] // plan.groups, dy.shape[-1])

        def work(limit: int) -> Array:
            dw, cuts = empty(shape, accumulation(x)), list(_pieces(x.shape[0], window.output[0], row, limit))
            several = len(cuts) != 1
            if several:
                dw[...] = 0
            for piece in cuts:
                rows, shares = _rows(x, plan, piece), by_group(part_of(dy, *piece), plan.groups)
                place = by_group(dw, plan.groups)
                multiply(rows.transpose(0, 2, 1), shares, place, add=several, precision=plan.precision)
            return dw.astype(x.dtype, copy=False)

        return _halving(work, math.prod(shape) * x.itemsize, row, x.shape[0] * window.output[0], plan)

    def input_gradient(self, dy: Array, weight: Array, plan: Plan, bias: Array | None = None) -> Array:
        """Give every element its share of dy: (N, *output, O) and (*kernel, C/G, O) to (N, *size, C).

        The rows are dy times the filters, and go through the adjoint of lowering: one product for all of it.
        """
        window, groups, dy, bias = plan.window, plan.groups, settled(dy), settled(bias)
        filters = self.prepare(weight, plan).transpose(0, 2, 1)  # (G, O/G, taps*C/G)
        shape, wide = (dy.shape[0], *window.size, weight.shape[-2] * groups), accumulation(dy)
        image = _row(window, shape[-1], wide.itemsize) * window.output[0]

        def work(limit: int) -> Array:
            dx = empty(shape, dy.dtype)
            for piece in _pieces(dy.shape[0], 1, image, limit):
                part = by_group(part_of(dy, piece.images), groups)
                rows = empty((*part.shape[:2], filters.shape[-1]), wide)
                multiply(part, filters, rows, precision=plan.precision)
                raise_to(part_of(dx, piece.images), rows, window, groups, bias)
            return dx

        return _halving(work, math.prod(shape) * dy.itemsize, image, dy.shape[0], plan)


def lower(x: Array, window: Window, groups: int) -> Array:
    """(N, *size, C), as it lies in memory, to (G, N*L, taps*C/G): each row a window of one group's channels."""
    batch, channels = x.shape[0], x.shape[-1]
    width, steps = channels // groups, strides(x)
    pack = pack_of(x, groups=groups)
    rows = empty((groups, batch * math.prod(window.output), window.taps * width), x.dtype)
    told = geometry.windows(
        window, rows.size // pack, batch=batch, channels=channels, groups=groups, pack=pack, strides=steps
    )
    run("lowering", expression("lower", dtype_name(x.dtype), pack), rows.size // pack, x, rows, told)
    return rows


def raise_to(x: Array, rows: Array, window: Window, groups: int, bias: Array | None = None) -> None:
    """Add rows (G, N*L, taps*C/G) up where they overlap, and a bias, into x (N, *size, C): the adjoint of `lower`.

    The rows are of the dtype that x is added up in.
    """
    pack = pack_of(x, bias, groups=groups)
    told = geometry.windows(window, x.size // pack, batch=x.shape[0], channels=x.shape[-1], groups=groups, pack=pack)
    run("lowering", expression("lower_adjoint", dtype_name(x.dtype), pack), x.size // pack, rows, bias, x, told)


def by_group(x: Array, groups: int) -> Array:
    """View (..., O), lying in memory in the order of its axes, as (G, prod(...), O/G)."""
    if groups == 1:
        return x.reshape(1, -1, x.shape[-1])
    return x.reshape(-1, groups, x.shape[-1] // groups).transpose(1, 0, 2)


def _rows(x: Array, plan: Plan, piece: Piece) -> Array:
    """(G, P, taps*C/G): the windows of a piece, in a view where each is one element and they see them all."""
    elements, part = plan.window.part(piece.rows.start, piece.rows.stop)
    x = part_of(x, piece.images, elements)
    if part.identical:
        return by_group(settled(x), plan.groups)
    return lower(x, part, plan.groups)


def _row(window: Window, channels: int, itemsize: int) -> int:
    """Bytes that the windows along all axes but the first take once they are lowered."""
    return math.prod(window.output[1:]) * window.taps * channels * itemsize


def _pieces(batch: int, rows: int, size: int, limit: int) -> Iterator[Piece]:
    return pieces(batch, rows, size, min(limit, geometry.MOST))  # bytes, so that a launch has fewer threads


def _halving(work: Callable[[int], Array], result: int, size: int, count: int, plan: Plan) -> Array:
    """Do work on so many things of this size, in the workspace that there is for it."""
    return halving(work, result, Pool(), min(plan.workspace, size * count), size)
