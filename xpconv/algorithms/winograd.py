"""Winograd's minimal filtering, F(m, 3): m + 2 products an axis where the direct way takes 3m.

Tiles of m + 2 inputs, m apart along every axis, are transformed by a small matrix for each axis; each place in the
tile is then one product over the channels; the inverse transform brings m outputs an axis back. The tiles are frames,
so nothing is gathered or scattered, and any number of axes is the same transform nested. Windows two apart meet the
even inputs with two of their taps and the odd ones with the third: F(m, 2) and m products, 2m + 1 of 2m + 1 inputs.

Where there are many tiles, the filters are transformed once and each task takes some tiles from input to output. Where
there are fewer tiles than filters, the tiles are transformed once and each task takes some filters: they are
transformed, used and forgotten while they are in cache, where all of them would be several times the weight.

Letters: R is the number of tiles along an axis, T the places of a tile, P all tiles of all images.

References
----------
Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import EllipsisType

import numpy as np

from xpconv.algorithms import Plan
from xpconv.algorithms.toom_cook import TAPS, Transforms, nested, transforms
from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.elementwise import add_at, settled
from xpconv.execution.products import lay_out, product, summed, times
from xpconv.execution.tasks import Band, assemble, bands, pieces, total
from xpconv.windows import Axis, Window
from xpconv.windows.frames import extend, frames

TILES = 56  # that a band takes at least: all filters are read once for each band
BLOCK = 64  # filters that a task takes where it takes all tiles
UNIT, STRIDED = ({(TAPS, stride, 1)} for stride in (1, 2))

Filters = tuple[EllipsisType, slice]
Channels = tuple[EllipsisType, slice, slice]


@dataclass(frozen=True)
class Tiling:
    """Tiles of the inputs and of the outputs, as windows of m outputs, and what transforms them."""

    m: int
    matrices: Transforms
    inputs: Window
    outputs: Window

    @property
    def places(self) -> int:
        """Products of a tile."""
        return int(self.matrices.places ** len(self.inputs.axes))

    def rows(self, band: Band) -> tuple[int, int]:
        """First and last row of tiles of a band of output rows."""
        return band.rows.start // self.m, math.ceil(band.rows.stop / self.m)


@functools.lru_cache(maxsize=256)
def _tiling(m: int, window: Window) -> Tiling:
    matrices, inputs, outputs = transforms(m, window.axes[0].stride), [], []
    for a in window.axes:
        count = math.ceil(a.output / m)
        inputs.append(Axis(a.size, matrices.span, m * a.stride, a.before, 0, 1, count))
        outputs.append(Axis(a.output, m, m, 0, 0, 1, count))
    return Tiling(m, matrices, Window(tuple(inputs)), Window(tuple(outputs)))


@dataclass(frozen=True)
class Winograd:
    """F(m, 3) along every axis."""

    m: int

    def supports(self, window: Window, groups: int) -> bool:
        """Whether every axis has three neighbouring taps and stride 1, or 2, and the channels are in one group."""
        return groups == 1 and {(a.kernel, a.stride, a.dilation) for a in window.axes} in (UNIT, STRIDED)

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C, O) to (T, B, C, O/B): transformed filters, in the blocks that `times` wants."""
        matrices, axes = self.tiling(plan.window).matrices, len(plan.window.axes)

        def piece(part: slice, blocks: int, place: Array | None) -> Array:
            return self.transformed_filters(weight[..., part, :], matrices.filters, blocks, place)

        return lay_out(weight, (matrices.places**axes,), weight.shape[-2:], piece)

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        window, filters = plan.window, weight.shape[-1]
        tiling = self.tiling(window)
        matrices = tiling.matrices

        def with_bias(products: Array, bias: Array | None) -> Array:
            """Add the bias at the place of the point 1, whose powers are 1: every output of the tile gets it whole."""
            if bias is None:
                return products
            one = sum(matrices.places**axis for axis in range(len(window.axes)))
            return add_at(products, (one,), bias)

        def some_tiles(band: Band, place: Array | None) -> Array:
            elements, part = tiling.inputs.part(*tiling.rows(band))
            places = self.transformed(x[band.images, elements, ...], matrices.inputs, part)  # (T, P, C)
            products = with_bias(self.products(places, laid), bias)  # (T, P, O)
            return self.restored(products, matrices.outputs, tiling.outputs.part(*tiling.rows(band))[1], place)

        def some_filters(where: Filters, place: Array | None) -> Array:
            laid = self.prepare(weight[where], plan)  # (T, B, C, o/B)
            products = with_bias(self.products(places, laid), None if bias is None else bias[where])
            return self.restored(products, matrices.outputs, tiling.outputs, place)

        shape = (x.shape[0], *window.output, filters)
        if prepared is None and self._fewer_tiles(x, filters, plan):
            places = self._places(x, matrices.inputs, tiling.inputs, plan)
            return assemble(x, shape, pieces(x, filters, BLOCK), some_filters, moving=())
        laid = self.prepare(weight, plan) if prepared is None else prepared
        return assemble(x, shape, self._bands(x, tiling, filters, plan, TILES), some_tiles, moving=(x,))

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C, O)."""
        window, tiling = plan.window, self.tiling(plan.window)
        matrices = tiling.matrices
        channels, filters = x.shape[-1], dy.shape[-1]

        def some_tiles(band: Band) -> Array:
            elements, part = tiling.inputs.part(*tiling.rows(band))
            places = self.transformed(x[band.images, elements, ...], matrices.inputs, part)  # (T, P, C)
            elements, part = tiling.outputs.part(*tiling.rows(band))
            dplaces = self.transformed(dy[band.images, elements, ...], matrices.outputs.T, part)  # (T, P, O)
            return summed(places, dplaces)

        def taps(dfilters: Array, place: Array | None) -> Array:
            return self.gradients(dfilters, matrices.filters.T, len(window.axes), place)

        def some_channels(where: Channels, place: Array | None) -> Array:
            return taps(summed(places[where[:-1]], dplaces), place)

        # Gradients of some channels lie in rows as long as there are filters, those of some filters would not.
        shape = (*window.kernel, channels, filters)
        cuts: list[Channels] = [(*where, slice(None)) for where in pieces(x, channels, BLOCK // 2)]
        if self._fewer_tiles(x, min(channels, filters), plan):
            places = self._places(x, matrices.inputs, tiling.inputs, plan)
            dplaces = self._places(dy, matrices.outputs.T, tiling.outputs, plan)
            return assemble(x, shape, cuts, some_channels, moving=())
        # A band adds up a whole gradient, so it should have as many numbers of its own.
        least = max(TILES, channels * filters // (channels + filters))
        dfilters = total(x, self._bands(x, tiling, filters, plan, least), some_tiles, moving=(x, dy))
        return assemble(x, shape, cuts, lambda where, place: taps(dfilters[where], place), moving=())

    def tiling(self, window: Window) -> Tiling:
        """Return the tiles of a window."""
        return _tiling(self.m, window)

    def _fewer_tiles(self, x: Array, filters: int, plan: Plan) -> bool:
        """Whether there are fewer tiles than filters, and they fit into the workspace."""
        tiling = self.tiling(plan.window)
        tiles: int = x.shape[0] * math.prod(tiling.inputs.output)
        numbers: int = tiles * x.shape[-1] * tiling.places
        return tiles <= filters and 8 * numbers <= plan.workspace

    def _bands(self, x: Array, tiling: Tiling, filters: int, plan: Plan, least: int) -> list[Band]:
        """Cut the work into bands of whole tiles, of at least so many tiles unless there are fewer."""
        channels, (count, *across), m = x.shape[-1], tiling.inputs.output, tiling.m
        row, numbers, rows = math.prod(across), tiling.places * (channels + filters), plan.window.output[0]
        work = row * tiling.places * channels * filters
        least *= numbers
        cuts = bands(x, x.shape[0], count, row * numbers, work=work, workspace=plan.workspace, least=least)
        return [Band(band.images, slice(band.rows.start * m, min(rows, band.rows.stop * m))) for band in cuts]

    def _places(self, x: Array, matrix: np.ndarray, tiles: Window, plan: Plan) -> Array:
        """(N, *size, C) to (T, P, C): all tiles, transformed."""
        xp, channels, side = namespace_of(x), x.shape[-1], matrix.shape[0]
        places = side ** len(tiles.axes)
        row = math.prod(tiles.output[1:]) * places * channels
        cuts = bands(x, x.shape[0], tiles.output[0], row, work=row * side, workspace=plan.workspace)

        def block(where: tuple[slice, ...], place: Array | None) -> Array:
            images, rows = where[-2:]
            elements, part = tiles.part(rows.start, rows.stop)
            made = self.transformed(x[images, elements, ...], matrix, part, place)
            return made if made is place else xp.reshape(made, (places, -1, *part.output, channels))

        shape = (places, x.shape[0], *tiles.output, channels)
        everything = assemble(x, shape, [(slice(None), *band) for band in cuts], block)
        return xp.reshape(everything, (places, -1, channels))

    # What tiles and filters are transformed by, here in calls of the standard

    def products(self, places: Array, laid: Array) -> Array:
        """(T, P, C) and (T, B, C, O/B) to (T, P, O)."""
        return times(places, laid)

    def transformed(self, x: Array, matrix: np.ndarray, tiles: Window, place: Array | None = None) -> Array:
        """(n, *size, C) to (T, P, C), or to a `place` (T, n, *tiles, C): every tile, transformed along each axis."""
        xp, axes, side = namespace_of(x), len(tiles.axes), matrix.shape[0]
        v = settled(extend(x, tiles.margins, first=1))
        order = (*range(2, 2 * axes + 1, 2), 0, *range(1, 2 * axes, 2), 2 * axes + 1)
        for i, span in enumerate(tiles.axes):
            v = frames(v, 1 + 2 * i, span)  # (n, R, T, ..., R, span, size, ..., C)
            lead, rest = v.shape[: 3 + 2 * i], v.shape[3 + 2 * i :]
            flat = xp.reshape(v, (*lead, math.prod(rest)))
            if i < axes - 1:
                v = xp.reshape(product(matrix, flat), (*lead[:-1], side, *rest))
            elif place is None:
                v = product(matrix, flat, order)
            else:
                product(matrix, flat, order, place.reshape((side,) * axes + place.shape[1:]))
        return xp.reshape(v, (side**axes, -1, x.shape[-1])) if place is None else place

    def restored(self, products: Array, matrix: np.ndarray, outputs: Window, place: Array | None) -> Array:
        """(T, P, O) to (n, *output, O): the outputs of every tile side by side, into `place` where they fill it."""
        xp, axes, counts = namespace_of(products), len(outputs.axes), outputs.output
        (m, side), filters = matrix.shape, products.shape[-1]
        batch = products.shape[1] // math.prod(counts)
        y = xp.reshape(products, (side,) * axes + (batch, *counts, filters))
        y = on_leading_axes(matrix, y, axes - 1)  # (m, ..., T, n, R, ..., O)
        y = xp.moveaxis(y, axes - 1, -2)  # (m, ..., n, R, ..., T, O)
        sides = zip(range(axes, 2 * axes), (*range(axes - 1), 2 * axes), strict=True)
        order = (axes - 1, *(axis for pair in sides for axis in pair), 2 * axes + 1)  # (n, R, m, R, m, ..., O)
        if place is not None and outputs.size == tuple(count * m for count in counts):
            tiled = (batch, *(k for count in counts for k in (count, m)), filters)
            product(matrix, y, order, place.reshape(tiled))
            return place
        y = xp.reshape(product(matrix, y, order), (batch, *(count * m for count in counts), filters))
        return y[:, *(slice(0, size) for size in outputs.size), :]

    def transformed_filters(self, weight: Array, matrix: np.ndarray, blocks: int, place: Array | None) -> Array:
        """(*kernel, c, O) to (T, B, c, O/B)."""
        xp, matrix = namespace_of(weight), nested(matrix, weight.ndim - 2)
        taps = xp.reshape(settled(weight), (matrix.shape[1], weight.shape[-2], blocks, -1))
        return product(matrix, xp.permute_dims(taps, (1, 2, 0, 3)), (2, 1, 0, 3), place)

    def gradients(self, dfilters: Array, matrix: np.ndarray, axes: int, place: Array | None) -> Array:
        """(T, c, O) to (*kernel, c, O)."""
        xp = namespace_of(dfilters)
        flat = xp.reshape(dfilters, (dfilters.shape[0], -1))
        made = product(nested(matrix, axes), flat, place=None if place is None else place.reshape(-1, flat.shape[1]))
        return xp.reshape(made, (TAPS,) * axes + dfilters.shape[1:]) if place is None else place


def on_leading_axes(matrix: np.ndarray, x: Array, axes: int) -> Array:
    """Multiply each of the first axes by a matrix."""
    xp = namespace_of(x)
    for i in range(axes):
        lead, rest = x.shape[:i], x.shape[i + 1 :]
        y = product(matrix, xp.reshape(x, (math.prod(lead), x.shape[i], math.prod(rest))))
        x = xp.reshape(y, (*lead, matrix.shape[0], *rest))
    return x
