"""Winograd's minimal filtering, F(m, 3): m + 2 products an axis where the direct way takes 3m.

Tiles of m + 2 inputs, m apart along every axis, are transformed by a small matrix for each axis; each place in the
tile is then one product over the channels; the inverse transform brings m outputs an axis back. The tiles are frames,
so nothing is gathered or scattered, and any number of axes is the same transform nested.

Where there are many tiles, the filters are transformed once and each task takes some tiles from input to output. Where
there are fewer tiles than filters, the tiles are transformed once and each task takes some filters: they are
transformed, used and forgotten while they are in cache, where all of them would be several times the weight.

Letters: R is the number of tiles along an axis, T the places of a tile, P all tiles of all images.

References
----------
Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import EllipsisType

import numpy as np

from xpconv.algorithms import Plan
from xpconv.algorithms.toom_cook import TAPS, nested, transforms
from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.elementwise import add_at, settled
from xpconv.execution.products import lay_out, product, summed, times
from xpconv.execution.tasks import Band, assemble, bands, pieces, total
from xpconv.windows import Axis, Window
from xpconv.windows.frames import extend, frames

TILES = 56  # that a band takes at least: all filters are read once for each band
BLOCK = 64  # filters that a task takes where it takes all tiles

Filters = tuple[EllipsisType, slice]
Channels = tuple[EllipsisType, slice, slice]


@dataclass(frozen=True)
class Winograd:
    """F(m, 3) along every axis."""

    m: int

    @property
    def side(self) -> int:
        """Places of a tile along an axis."""
        return self.m + TAPS - 1

    def supports(self, window: Window, groups: int) -> bool:
        """Whether every axis has three neighbouring taps and stride 1, and the channels are not cut into groups."""
        return groups == 1 and all((a.kernel, a.stride, a.dilation) == (TAPS, 1, 1) for a in window.axes)

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C, O) to (T, B, C, O/B): transformed filters, in the blocks that `times` wants."""
        xp, matrix = namespace_of(weight), nested(transforms(self.m).filters, weight.ndim - 2)

        def piece(part: slice, blocks: int, place: Array | None) -> Array:
            taps = xp.reshape(settled(weight[..., part, :]), (matrix.shape[1], part.stop - part.start, blocks, -1))
            return product(matrix, xp.permute_dims(taps, (1, 2, 0, 3)), (2, 1, 0, 3), place)

        return lay_out(weight, (matrix.shape[0],), weight.shape[-2:], piece)

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        window, filters = plan.window, weight.shape[-1]
        tiles, matrices, shape = self._tiles(window), transforms(self.m), (x.shape[0], *window.output, filters)

        def restored(products: Array, part: Window, rows: int, place: Array | None = None) -> Array:
            """(T, P, O) to (n, rows, ..., O), and the bias."""
            return self._restored(products, part, (rows, *window.output[1:]), place)

        def with_bias(products: Array, bias: Array | None) -> Array:
            """Add the bias at the place of the point 1, whose powers are 1: every output of the tile gets it whole."""
            if bias is None:
                return products
            one = sum(self.side**axis for axis in range(len(window.axes)))
            return add_at(products, (one,), bias)

        def some_tiles(band: Band, place: Array | None) -> Array:
            elements, part = tiles.part(*self._rows(band))
            places = transformed(x[band.images, elements, ...], matrices.inputs, part)  # (T, P, C)
            products = with_bias(times(places, laid), bias)  # (T, P, O)
            return restored(products, part, band.rows.stop - band.rows.start, place)

        def some_filters(where: Filters, _: Array | None) -> Array:
            laid = self.prepare(weight[where], plan)  # (T, B, C, o/B)
            products = with_bias(times(places, laid), None if bias is None else bias[where])
            return restored(products, tiles, window.output[0])

        if prepared is None and self._fewer_tiles(x, filters, plan):
            places = self._places(x, matrices.inputs, tiles, plan)
            return assemble(x, shape, pieces(x, filters, BLOCK), some_filters, moving=())
        laid = self.prepare(weight, plan) if prepared is None else prepared
        return assemble(x, shape, self._bands(x, tiles, filters, plan, TILES), some_tiles, moving=(x,))

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C, O)."""
        xp, matrices, window = namespace_of(x), transforms(self.m), plan.window
        tiles, outputs = self._tiles(window), self._output_tiles(window)
        channels, filters = x.shape[-1], dy.shape[-1]

        def some_tiles(band: Band) -> Array:
            elements, part = tiles.part(*self._rows(band))
            places = transformed(x[band.images, elements, ...], matrices.inputs, part)  # (T, P, C)
            elements, part = outputs.part(*self._rows(band))
            dplaces = transformed(dy[band.images, elements, ...], matrices.outputs.T, part)  # (T, P, O)
            return summed(places, dplaces)

        def taps(dfilters: Array, place: Array | None) -> Array:
            """(T, c, O) to (*kernel, c, O)."""
            flat = xp.reshape(dfilters, (dfilters.shape[0], -1))
            inverse = nested(matrices.filters.T, len(window.axes))
            made = product(inverse, flat, place=None if place is None else place.reshape(-1, flat.shape[1]))
            return xp.reshape(made, (*window.kernel, -1, filters)) if place is None else place

        def some_channels(where: Channels, place: Array | None) -> Array:
            return taps(summed(places[where[:-1]], dplaces), place)

        # Gradients of some channels lie in rows as long as there are filters, those of some filters would not.
        shape = (*window.kernel, channels, filters)
        cuts: list[Channels] = [(*where, slice(None)) for where in pieces(x, channels, BLOCK // 2)]
        if self._fewer_tiles(x, min(channels, filters), plan):
            places = self._places(x, matrices.inputs, tiles, plan)
            dplaces = self._places(dy, matrices.outputs.T, outputs, plan)
            return assemble(x, shape, cuts, some_channels, moving=())
        # A band adds up a whole gradient, so it should have as many numbers of its own.
        least = max(TILES, channels * filters // (channels + filters))
        dfilters = total(x, self._bands(x, tiles, filters, plan, least), some_tiles, moving=(x, dy))
        return assemble(x, shape, cuts, lambda where, place: taps(dfilters[where], place), moving=())

    def _tiles(self, window: Window) -> Window:
        """Tiles of the input as windows."""
        return Window(
            tuple(Axis(a.size, self.side, self.m, a.before, 0, 1, math.ceil(a.output / self.m)) for a in window.axes)
        )

    def _output_tiles(self, window: Window) -> Window:
        """Tiles of the output as windows."""
        return Window(tuple(Axis(a.output, self.m, self.m, 0, 0, 1, math.ceil(a.output / self.m)) for a in window.axes))

    def _fewer_tiles(self, x: Array, filters: int, plan: Plan) -> bool:
        """Whether there are fewer tiles than filters, and they fit into the workspace."""
        tiles: int = x.shape[0] * math.prod(self._tiles(plan.window).output)
        numbers: int = tiles * x.shape[-1] * self.side ** len(plan.window.axes)
        return tiles <= filters and 8 * numbers <= plan.workspace

    def _rows(self, band: Band) -> tuple[int, int]:
        """First and last row of tiles of a band of output rows."""
        return band.rows.start // self.m, math.ceil(band.rows.stop / self.m)

    def _bands(self, x: Array, tiles: Window, filters: int, plan: Plan, least: int) -> list[Band]:
        """Cut the work into bands of whole tiles, of at least so many tiles unless there are fewer."""
        channels, places = x.shape[-1], self.side ** len(tiles.axes)
        row, numbers, rows = math.prod(tiles.output[1:]), places * (channels + filters), plan.window.output[0]
        cuts = bands(
            x,
            x.shape[0],
            tiles.output[0],
            row * numbers,
            work=row * places * channels * filters,
            workspace=plan.workspace,
            least=least * numbers,
        )
        return [Band(band.images, slice(band.rows.start * self.m, min(rows, band.rows.stop * self.m))) for band in cuts]

    def _places(self, x: Array, matrix: np.ndarray, tiles: Window, plan: Plan) -> Array:
        """(N, *size, C) to (T, P, C): all tiles, transformed."""
        channels, side, axes = x.shape[-1], matrix.shape[0], len(tiles.axes)
        row = math.prod(tiles.output[1:]) * side**axes * channels
        cuts = bands(x, x.shape[0], tiles.output[0], row, work=row * side, workspace=plan.workspace)

        def block(where: tuple[slice, ...], place: Array | None) -> Array:
            images, rows = where[-2:]
            elements, part = tiles.part(rows.start, rows.stop)
            shape = ((side,) * axes) + (images.stop - images.start, *part.output, channels)
            made = transformed(x[images, elements, ...], matrix, part, None if place is None else place.reshape(shape))
            return place if place is not None else made

        shape = (side**axes, x.shape[0], *tiles.output, channels)
        everything = assemble(x, shape, [(slice(None), *band) for band in cuts], block)
        return namespace_of(x).reshape(everything, (side**axes, -1, channels))

    def _restored(self, products: Array, tiles: Window, output: tuple[int, ...], place: Array | None) -> Array:
        """(T, P, O) to (n, *output, O): the outputs of every tile side by side, into `place` where they fill it."""
        xp, axes, m, counts = namespace_of(products), len(tiles.axes), self.m, tiles.output
        batch, filters = products.shape[1] // math.prod(counts), products.shape[-1]
        matrix = transforms(m).outputs
        y = xp.reshape(products, (self.side,) * axes + (batch, *counts, filters))
        y = on_leading_axes(matrix, y, axes - 1)  # (m, ..., T, n, R, ..., O)
        y = xp.moveaxis(y, axes - 1, -2)  # (m, ..., n, R, ..., T, O)
        sides = zip(range(axes, 2 * axes), (*range(axes - 1), 2 * axes), strict=True)
        order = (axes - 1, *(axis for pair in sides for axis in pair), 2 * axes + 1)  # (n, R, m, R, m, ..., O)
        if place is not None and place.shape[1:-1] == tuple(count * m for count in counts):
            tiled = (batch, *(k for count in counts for k in (count, m)), filters)
            product(matrix, y, order, place.reshape(tiled))
            return place
        y = xp.reshape(product(matrix, y, order), (batch, *(count * m for count in counts), filters))
        return y[:, *(slice(0, size) for size in output), :]


def transformed(x: Array, matrix: np.ndarray, tiles: Window, place: Array | None = None) -> Array:
    """(n, *size, C) to (T, P, C): every tile, transformed along each axis, with its places in front.

    A `place` to write them to has the shape (t, ..., n, R, ..., C).
    """
    xp, axes = namespace_of(x), len(tiles.axes)
    v = settled(extend(x, tiles.margins, first=1))
    order = (*range(2, 2 * axes + 1, 2), 0, *range(1, 2 * axes, 2), 2 * axes + 1)
    for i, span in enumerate(tiles.axes):
        v = frames(v, 1 + 2 * i, span)  # (n, R, T, ..., R, m + 2, size, ..., C)
        lead, rest = v.shape[: 3 + 2 * i], v.shape[3 + 2 * i :]
        flat = xp.reshape(v, (*lead, math.prod(rest)))
        if i == axes - 1:
            v = product(matrix, flat, order, place)
        else:
            v = xp.reshape(product(matrix, flat), (*lead[:-1], matrix.shape[0], *rest))
    return v if place is not None else xp.reshape(v, (matrix.shape[0] ** axes, -1, x.shape[-1]))


def on_leading_axes(matrix: np.ndarray, x: Array, axes: int) -> Array:
    """Multiply each of the first axes by a matrix."""
    xp = namespace_of(x)
    for i in range(axes):
        lead, rest = x.shape[:i], x.shape[i + 1 :]
        y = product(matrix, xp.reshape(x, (math.prod(lead), x.shape[i], math.prod(rest))))
        x = xp.reshape(y, (*lead, matrix.shape[0], *rest))
    return x
