"""Winograd's minimal filtering, F(m, 3): m + 2 products an axis where the direct way takes 3m.

Tiles of m + 2 inputs, m apart along every axis, are transformed by a small matrix for each axis; each place in the
tile is then one product over the channels; the inverse transform brings m outputs an axis back. The tiles are frames,
so nothing is gathered or scattered, and any number of axes is the same transform nested.

Letters: R is the number of tiles along an axis, T the places of a tile, P all tiles of all images.

References
----------
Winograd, *Arithmetic Complexity of Computations* (1980); Lavin and Gray, "Fast algorithms for convolutional neural
networks" (2016); Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution for deep neural
networks" (2020), for the points of interpolation.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from array_api_compat import array_namespace

from xpconv.execution import Band, assemble, bands, lay_out, product, settled, times, total
from xpconv.frames import extend, frames
from xpconv.libraries import Array
from xpconv.windows import Axis, Window

TAPS = 3
# Infinity is always one more point. For F(4, 3), 1/2 and -2 in place of 2 and -2 leave a third of the error.
POINTS = {2: (0, 1, -1), 4: (0, 1, -1, Fraction(1, 2), -2)}


@dataclass(frozen=True)
class Transforms:
    """The three matrices of F(m, 3): ``y = outputs @ ((filters @ w) * (inputs @ x))``."""

    inputs: np.ndarray
    filters: np.ndarray
    outputs: np.ndarray


@functools.cache
def transforms(m: int) -> Transforms:
    """Derive the matrices of F(m, 3) from its points, exactly: evaluate, multiply, and interpolate, transposed."""
    points = [Fraction(p) for p in POINTS[m]]

    def powers(p: Fraction, count: int) -> list[Fraction]:
        return [p**i for i in range(count)]

    def without(i: int | None) -> list[Fraction]:
        """Coefficients of the product of (z - p) over all points but the i-th."""
        coefficients = [Fraction(1)]
        for j, p in enumerate(points):
            if j != i:
                shifted, scaled = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
                coefficients = [a - p * b for a, b in zip(shifted, scaled, strict=True)]
        return coefficients

    inputs, filters, outputs = [], [], []
    for i, p in enumerate(points):
        scale = math.prod(p - q for q in points if q != p)
        inputs.append([*without(i), Fraction(0)])
        filters.append([power / scale for power in powers(p, TAPS)])
        outputs.append(powers(p, m))
    inputs.append(without(None))
    filters.append([Fraction(0)] * (TAPS - 1) + [Fraction(1)])
    outputs.append([Fraction(0)] * (m - 1) + [Fraction(1)])
    as_matrix = functools.partial(np.asarray, dtype=np.float64)
    return Transforms(as_matrix(inputs), as_matrix(filters), as_matrix(outputs).T)


@dataclass(frozen=True)
class Winograd:
    """F(m, 3) along every axis."""

    m: int

    def supports(self, window: Window, groups: int) -> bool:
        """Whether every axis has three neighbouring taps and stride 1, and the channels are not cut into groups."""
        return groups == 1 and all((a.kernel, a.stride, a.dilation) == (TAPS, 1, 1) for a in window.axes)

    def prepare(self, weight: Array, groups: int) -> Array:
        """(*kernel, C, O) to (T, B, C, O/B): transformed filters, in the blocks that `times` wants."""
        xp, axes = array_namespace(weight), weight.ndim - 2
        matrix = nested(transforms(self.m).filters, axes)

        def piece(part: slice, blocks: int, place: Array | None) -> Array:
            taps = xp.reshape(settled(weight[..., part, :]), (matrix.shape[1], part.stop - part.start, blocks, -1))
            return product(matrix, xp.permute_dims(taps, (1, 2, 0, 3)), (2, 1, 0, 3), place)

        return lay_out(weight, (matrix.shape[0],), piece)

    def convolve(self, x: Array, prepared: Array, bias: Array | None, window: Window, groups: int) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        matrices, filters = transforms(self.m), prepared.shape[1] * prepared.shape[3]
        tiles = self._tiles(window, self.m + TAPS - 1)

        def block(band: Band, place: Array | None) -> Array:
            elements, part = tiles.part(*self._rows(band))
            places = transformed(x[band.images, elements, ...], matrices.inputs, part)  # (T, P, C)
            products = times(places, prepared)  # (T, P, O)
            y = self._restored(products, part, (band.rows.stop - band.rows.start, *window.output[1:]), place)
            if bias is not None:
                y += bias
            return y

        shape = (x.shape[0], *window.output, filters)
        plan = self._bands(x, tiles, window.output[0], x.shape[-1] + filters)
        return assemble(x, shape, plan, block)

    def weight_gradient(self, x: Array, dy: Array, window: Window, groups: int) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C, O)."""
        xp, matrices, axes = array_namespace(x), transforms(self.m), len(window.axes)
        tiles, outputs = self._tiles(window, self.m + TAPS - 1), self._output_tiles(window)

        def part_of(band: Band) -> Array:
            elements, part = tiles.part(*self._rows(band))
            places = transformed(x[band.images, elements, ...], matrices.inputs, part)  # (T, P, C)
            elements, part = outputs.part(*self._rows(band))
            dplaces = transformed(dy[band.images, elements, ...], matrices.outputs.T, part)  # (T, P, O)
            return xp.matmul(xp.matrix_transpose(places), dplaces)

        channels, filters = x.shape[-1], dy.shape[-1]
        plan = self._bands(x, tiles, window.output[0], channels + filters)
        dplaces = xp.reshape(total(x, plan, part_of), (-1, channels * filters))  # (T, C*O)
        return xp.reshape(product(nested(matrices.filters.T, axes), dplaces), (*window.kernel, channels, filters))

    def _tiles(self, window: Window, size: int) -> Window:
        """Tiles of the input as windows."""
        return Window(
            tuple(Axis(a.size, size, self.m, a.before, 0, 1, math.ceil(a.output / self.m)) for a in window.axes)
        )

    def _output_tiles(self, window: Window) -> Window:
        """Tiles of the output as windows."""
        return Window(tuple(Axis(a.output, self.m, self.m, 0, 0, 1, math.ceil(a.output / self.m)) for a in window.axes))

    def _rows(self, band: Band) -> tuple[int, int]:
        """First and last row of tiles of a band of output rows."""
        return band.rows.start // self.m, math.ceil(band.rows.stop / self.m)

    def _bands(self, x: Array, tiles: Window, rows: int, numbers: int) -> list[Band]:
        """Cut the work into bands of whole tiles, of `numbers` numbers for each place of a tile."""
        places = (self.m + TAPS - 1) ** len(tiles.axes)
        row = math.prod(tiles.output[1:]) * places * numbers
        plan = bands(x, x.shape[0], tiles.output[0], row, least=TILES * places * numbers)
        return [Band(band.images, slice(band.rows.start * self.m, min(rows, band.rows.stop * self.m))) for band in plan]

    def _restored(self, products: Array, tiles: Window, output: tuple[int, ...], place: Array | None) -> Array:
        """(T, P, O) to (n, *output, O): the outputs of every tile side by side, into `place` where they fill it."""
        xp, axes, m, counts = array_namespace(products), len(tiles.axes), self.m, tiles.output
        batch, filters = products.shape[1] // math.prod(counts), products.shape[-1]
        matrix = transforms(m).outputs
        y = xp.reshape(products, ((m + TAPS - 1),) * axes + (batch, *counts, filters))
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


# Tiles that a band takes at least: the transformed filters are read once for each band.
TILES = 56


def transformed(x: Array, matrix: np.ndarray, tiles: Window) -> Array:
    """(n, *size, C) to (T, P, C): every tile, transformed along each axis, with its places in front."""
    xp, axes = array_namespace(x), len(tiles.axes)
    v = extend(x, tiles.margins, first=1)
    order = (*range(2, 2 * axes + 1, 2), 0, *range(1, 2 * axes, 2), 2 * axes + 1)
    for i, span in enumerate(tiles.axes):
        v = frames(v, 1 + 2 * i, span)  # (n, R, T, ..., R, m + 2, size, ..., C)
        lead, rest = v.shape[: 3 + 2 * i], v.shape[3 + 2 * i :]
        last = i == axes - 1
        v = product(matrix, xp.reshape(v, (*lead, math.prod(rest))), order if last else None)
        if not last:
            v = xp.reshape(v, (*lead[:-1], matrix.shape[0], *rest))
    return xp.reshape(v, (matrix.shape[0] ** axes, -1, x.shape[-1]))


@functools.cache
def _kronecker(matrix: bytes, rows: int, axes: int) -> np.ndarray:
    return functools.reduce(np.kron, [np.frombuffer(matrix).reshape(rows, -1)] * axes)


def nested(matrix: np.ndarray, axes: int) -> np.ndarray:
    """Return the one matrix that does what this one does along every axis."""
    return _kronecker(matrix.tobytes(), matrix.shape[0], axes)


def on_leading_axes(matrix: np.ndarray, x: Array, axes: int) -> Array:
    """Multiply each of the first axes by a matrix."""
    xp = array_namespace(x)
    for i in range(axes):
        lead, rest = x.shape[:i], x.shape[i + 1 :]
        y = product(matrix, xp.reshape(x, (math.prod(lead), x.shape[i], math.prod(rest))))
        x = xp.reshape(y, (*lead, matrix.shape[0], *rest))
    return x
