"""The direct way on a GPU: lower the windows to rows of a matrix, many images at a time, and multiply by cuBLAS.

References
----------
Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing" (2006).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xpconv.cuda import geometry
from xpconv.cuda.runtime import Pool, empty, multiply, pack_of, run, settled, strides
from xpconv.cuda.sources import expression
from xpconv.cuda.workspace import WORKSPACE, Piece, halving, pieces
from xpconv.libraries import Array
from xpconv.windows import Window


@dataclass(frozen=True)
class Lowering:
    """A convolution as one product for each piece of the batch; of up to three axes there is nothing it cannot do."""

    precision: str = "float32"
    workspace: int = WORKSPACE

    def supports(self, window: Window, groups: int) -> bool:
        """Whether there are at most three axes."""
        return len(window.axes) <= geometry.AXES

    def prepare(self, weight: Array, groups: int) -> Array:
        """(*kernel, C/G, O) to (taps*C/G, O), lying in memory in that order."""
        return settled(weight).reshape(-1, weight.shape[-1])

    def convolve(self, x: Array, prepared: Array, bias: Array | None, window: Window, groups: int) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        row = _row(window, x.shape[-1], x.itemsize)

        def work(limit: int) -> Array:
            y = empty((x.shape[0], *window.output, prepared.shape[-1]), x.dtype)
            if bias is not None:
                y[...] = bias
            for piece in _pieces(x.shape[0], window.output[0], row, limit):
                rows, place = _rows(x, window, piece, groups), by_group(y[piece.images, piece.rows], groups)
                multiply(rows, by_group(prepared, groups), place, add=bias is not None, precision=self.precision)
            return y

        return self._halving(work, row, x.shape[0] * window.output[0])

    def weight_gradient(self, x: Array, dy: Array, window: Window, groups: int) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
        row, width, dy = _row(window, x.shape[-1], x.itemsize), x.shape[-1] // groups, settled(dy)

        def work(limit: int) -> Array:
            dw = empty((window.taps * width, dy.shape[-1]), x.dtype if x.itemsize >= 4 else "float32")
            dw[...] = 0
            for piece in _pieces(x.shape[0], window.output[0], row, limit):
                rows, shares = _rows(x, window, piece, groups), by_group(dy[piece.images, piece.rows], groups)
                multiply(rows.transpose(0, 2, 1), shares, by_group(dw, groups), add=True, precision=self.precision)
            return dw.astype(x.dtype, copy=False)

        dw = self._halving(work, row, x.shape[0] * window.output[0])
        return dw.reshape(*window.kernel, width, dy.shape[-1])

    def input_gradient(self, dy: Array, weight: Array, window: Window, groups: int) -> Array:
        """Give every element its share of dy: (N, *output, O) and (*kernel, C/G, O) to (N, *size, C).

        The rows are dy times the filters, and go through the adjoint of lowering: one product where the windows' stride
        would make several convolutions of it.
        """
        dy, channels = settled(dy), weight.shape[-2] * groups
        filters = by_group(self.prepare(weight, groups), groups).transpose(0, 2, 1)  # (G, O/G, taps*C/G)
        image = _row(window, channels, dy.itemsize) * window.output[0]

        def work(limit: int) -> Array:
            dx = empty((dy.shape[0], *window.size, channels), dy.dtype)
            for piece in _pieces(dy.shape[0], 1, image, limit):
                part = by_group(dy[piece.images], groups)
                rows = empty((*part.shape[:2], filters.shape[-1]), dy.dtype)
                multiply(part, filters, rows, precision=self.precision)
                raise_to(dx[piece.images], rows, window, groups)
            return dx

        return self._halving(work, image, dy.shape[0])

    def _halving(self, work: Callable[[int], Array], size: int, count: int) -> Array:
        """Do work on so many things of this size, in the workspace that there is for it."""
        return halving(work, min(self.workspace, size * count), size, Pool())


def lower(x: Array, window: Window, groups: int) -> Array:
    """(N, *size, C), as it lies in memory, to (G, N*L, taps*C/G): each row a window of one group's channels."""
    batch, channels = x.shape[0], x.shape[-1]
    width, steps = channels // groups, strides(x)
    pack = pack_of(x, groups=groups)
    rows = empty((groups, batch * math.prod(window.output), window.taps * width), x.dtype)
    told = geometry.windows(
        window, rows.size // pack, batch=batch, channels=channels, groups=groups, pack=pack, strides=steps
    )
    run("lowering", expression("lower", x.dtype.name, pack), rows.size // pack, x, rows, told)
    return rows


def raise_to(x: Array, rows: Array, window: Window, groups: int) -> None:
    """Add rows (G, N*L, taps*C/G) up where they overlap, into x (N, *size, C): the adjoint of `lower`."""
    pack = pack_of(x, groups=groups)
    told = geometry.windows(window, x.size // pack, batch=x.shape[0], channels=x.shape[-1], groups=groups, pack=pack)
    run("lowering", expression("lower_adjoint", x.dtype.name, pack), x.size // pack, rows, x, told)


def by_group(x: Array, groups: int) -> Array:
    """View (..., O), lying in memory in the order of its axes, as (G, prod(...), O/G)."""
    return x.reshape(-1, groups, x.shape[-1] // groups).transpose(1, 0, 2)


def _rows(x: Array, window: Window, piece: Piece, groups: int) -> Array:
    """(G, P, taps*C/G): the windows of a piece, in a view where each is one element and they see them all."""
    elements, part = window.part(piece.rows.start, piece.rows.stop)
    x = x[piece.images, elements]
    if all((a.kernel, a.stride, a.margin) == (1, 1, (0, 0)) for a in part.axes):
        return by_group(settled(x), groups)
    return lower(x, part, groups)


def _row(window: Window, channels: int, itemsize: int) -> int:
    """Bytes that the windows along all axes but the first take once they are lowered."""
    return math.prod(window.output[1:]) * window.taps * channels * itemsize


def _pieces(batch: int, rows: int, size: int, limit: int) -> Iterator[Piece]:
    return pieces(batch, rows, size, min(limit, geometry.MOST))  # bytes, so that a launch has fewer threads
