"""Fourier's way, for large kernels: a product for each frequency, whatever the number of taps.

The input is cut into tiles that overlap by what a kernel spans (overlap-save). Between their spectra and those of the
filters, correlating is one product over the channels at each frequency, and the way back gives the windows of every
tile. The gradient of the filters correlates the same tiles with those of dy.

References
----------
Mathieu, Henaff and LeCun, "Fast training of convolutional networks through FFTs" (2014); Highlander and Rodriguez,
"Very efficient training of convolutional neural networks using fast Fourier transform and overlap-and-add" (2015), for
tiles.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

from xpconv.algorithms import Plan
from xpconv.algorithms.fourier import FAST, LONGEST, Places, Transform, transform
from xpconv.arrays.broadcasting import along
from xpconv.arrays.broadcasting import total as summed_over
from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.elementwise import add_product, settled
from xpconv.execution.products import lay_out, summed, times
from xpconv.execution.tasks import ITEMSIZE, Band, assemble, bands, evenly, pieces, total
from xpconv.windows import Axis, Window

Spectra = dict[tuple[tuple[int, ...], Places], Array]  # by lengths of transforms, and where the taps stand

TILES = 48  # that a band takes at least: all filters are read once for each band
BLOCK = 32  # filters of a gradient that a task takes back at a time


@dataclass(frozen=True)
class Tiling:
    """Transforms of so many elements along each axis, and the windows that a tile of so many elements gives."""

    window: Window
    lengths: tuple[int, ...]
    gives: tuple[int, ...]

    @functools.cached_property
    def transform(self) -> Transform:
        """What makes spectra of tiles."""
        return transform(self.lengths)

    @functools.cached_property
    def inputs(self) -> Window:
        """Tiles of the input."""
        return Window(
            tuple(
                Axis(a.size, (m - 1) * a.stride + a.extent, m * a.stride, a.before, 0, 1, math.ceil(a.output / m))
                for a, m in zip(self.window.axes, self.gives, strict=True)
            )
        )

    @functools.cached_property
    def outputs(self) -> Window:
        """Tiles of the output."""
        axes = zip(self.window.axes, self.gives, strict=True)
        return Window(tuple(Axis(a.output, m, m, 0, 0, 1, math.ceil(a.output / m)) for a, m in axes))

    @functools.cached_property
    def filters(self) -> Window:
        """The one tile of a filter."""
        return Window(tuple(Axis(k, k, 1, 0, 0, 1, 1) for k in self.window.kernel))

    @functools.cached_property
    def elements(self) -> Places:
        """Where the elements of a tile of the input stand."""
        return tuple(range(a.kernel) for a in self.inputs.axes)

    @functools.cached_property
    def starts(self) -> Places:
        """Where the windows of a tile start."""
        return tuple(range(0, m * a.stride, a.stride) for a, m in zip(self.window.axes, self.gives, strict=True))

    @functools.cached_property
    def taps(self) -> Places:
        """Where the taps of the first window stand."""
        return tuple(range(0, a.kernel * a.dilation, a.dilation) for a in self.window.axes)


class Fft:
    """Overlapping tiles, their spectra, and products of those."""

    def supports(self, window: Window, groups: int) -> bool:
        """Say yes."""
        return True

    def prepare(self, weight: Array, plan: Plan) -> Spectra:
        """Spectra of the filters as tiles of this plan want them; `convolve` adds those that others want."""
        tiling = tiled(plan, *weight.shape[-2:])
        return {(tiling.lengths, tiling.taps): self._spectra(weight, tiling, plan.groups)}

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Spectra | None = None
    ) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        xp, window, groups, filters = namespace_of(x), plan.window, plan.groups, weight.shape[-1]
        tiling = tiled(plan, *weight.shape[-2:])
        parts = self._parts(tiling, x.shape[-1], filters, plan, copies=1)
        if prepared is None and len(parts) > 1:
            return xp.concat(
                [
                    self.convolve(x[..., c], weight[..., o], None if bias is None else bias[o], replace(plan, groups=g))
                    for c, o, g in parts
                ],
                axis=-1,
            )
        kept, key = {} if prepared is None else prepared, (tiling.lengths, tiling.taps)
        if key not in kept:
            kept[key] = self._spectra(weight, tiling, groups)
        laid = kept[key]
        if bias is not None:
            bias = along(xp.reshape(bias, (1, filters)), 0, window.row)  # (OW, O): long rows add up faster

        def block(band: Band, place: Array | None) -> Array:
            elements, part = tiling.inputs.part(*_rows(tiling, band))
            spectra = tiling.transform.spectrum(x[band.images, elements, ...], part, tiling.elements)  # (T, P, C)
            y = tiling.transform.restored(_multiplied(spectra, laid), part, tiling.starts, place)
            y = y[:, : band.rows.stop - band.rows.start, *(slice(0, size) for size in window.output[1:]), :]
            if bias is not None:
                y += bias
            return y

        return assemble(x, (x.shape[0], *window.output, filters), _bands(x, tiling, filters, plan, TILES), block)

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
        xp, window, groups = namespace_of(x), plan.window, plan.groups
        channels, filters = x.shape[-1], dy.shape[-1]
        width = channels // groups
        tiling = tiled(plan, width, filters)
        parts = self._parts(tiling, channels, filters, plan, copies=3)
        if len(parts) > 1:
            made = [self.weight_gradient(x[..., c], dy[..., o], replace(plan, groups=g)) for c, o, g in parts]
            return xp.concat(made, axis=-1)
        make, numbers = tiling.transform.spectrum, tiling.transform.numbers

        def some_tiles(band: Band) -> Array:
            first, last = _rows(tiling, band)
            elements, part = tiling.inputs.part(first, last)
            spectra = make(x[band.images, elements, ...], part, tiling.elements)  # (T, P, C)
            rows, part = tiling.outputs.part(first, last)
            dspectra = make(dy[band.images, rows, ...], part, tiling.starts, conjugate=True)  # (T, P, O)
            return _summed(spectra, dspectra, groups)

        # A band adds up a whole gradient, so it should have as many numbers of its own.
        least = max(TILES, width * filters // (channels + filters))
        dfilters = total(x, _bands(x, tiling, filters, plan, least), some_tiles)  # (T, G, C/G, O/G)
        dfilters = xp.reshape(xp.moveaxis(dfilters, 1, 2), (numbers, width, filters))

        def some_filters(where: tuple[Any, slice], place: Array | None) -> Array:
            some = dfilters[where]
            flat = xp.reshape(settled(some), (numbers, 1, width * some.shape[-1]))
            return xp.reshape(
                tiling.transform.restored(flat, tiling.filters, tiling.taps), (*window.kernel, width, some.shape[-1])
            )

        return assemble(x, (*window.kernel, width, filters), pieces(x, filters, BLOCK), some_filters)

    def _spectra(self, weight: Array, tiling: Tiling, groups: int) -> Array:
        """(*kernel, C/G, O) to (T, G, B, C/G, O/G/B): spectra of the filters, in the blocks that `times` wants."""
        xp = namespace_of(weight)
        axes, numbers = len(tiling.lengths), tiling.transform.numbers
        filters = xp.reshape(weight, (*weight.shape[:-1], groups, weight.shape[-1] // groups))
        filters = xp.moveaxis(filters, axes + 1, axes)  # (*kernel, G, C/G, O/G)

        def piece(part: slice, blocks: int, place: Array | None) -> Array:
            some = filters[..., part, :]
            flat = settled(xp.reshape(some, (1, *some.shape[:axes], math.prod(some.shape[axes:]))))
            made = tiling.transform.spectrum(flat, tiling.filters, tiling.taps, conjugate=True)
            made = xp.reshape(made, (numbers, *some.shape[axes:-1], blocks, some.shape[-1] // blocks))
            made = xp.moveaxis(made, 3, 2)
            if place is None:
                return made
            place[...] = made
            return place

        return lay_out(filters, (numbers, groups), filters.shape[-2:], piece)

    def _parts(
        self, tiling: Tiling, channels: int, filters: int, plan: Plan, copies: int
    ) -> list[tuple[slice, slice, int]]:
        """Cut channels, filters and groups into parts whose filters' spectra take half of the workspace at most."""
        groups, each = plan.groups, copies * ITEMSIZE * tiling.transform.numbers * channels // plan.groups
        count = math.ceil(2 * each * filters / plan.workspace)
        if groups == 1:
            return [(slice(0, channels), cut, 1) for cut in evenly(filters, min(count, filters))]
        width, made = channels // groups, filters // groups
        return [
            (slice(g.start * width, g.stop * width), slice(g.start * made, g.stop * made), g.stop - g.start)
            for g in evenly(groups, min(count, groups))
        ]


def tiled(plan: Plan, width: int, filters: int) -> Tiling:
    """Choose the tiles for filters of this width, C/G: long enough to overlap little, and short to transform."""
    return _tiled(plan.window, plan.groups, width, filters)


@functools.lru_cache(maxsize=1024)
def _tiled(window: Window, groups: int, width: int, filters: int) -> Tiling:
    # What a tile's elements take besides being transformed, in units of their transform along one axis by one element.
    both = width * groups + filters
    beside = (1.5 * width * filters + 75 * both) / (2 * len(window.axes) * both)
    matrices = all(2 * axis.extent <= LONGEST for axis in window.axes)
    chosen = [_length(axis, beside, matrices, first=i == 0) for i, axis in enumerate(window.axes)]
    return Tiling(window, tuple(length for length, _ in chosen), tuple(gives for _, gives in chosen))


def _length(axis: Axis, beside: float, matrix: bool, *, first: bool) -> tuple[int, int]:
    """Choose how many elements a transform has along an axis, and how many windows come of it."""

    def length(gives: int) -> int:
        reach = (gives - 1) * axis.stride + axis.extent
        return _smooth(reach) if not matrix else reach + reach % 2 if first else reach

    def work(gives: int) -> float:
        size = length(gives)
        return math.ceil(axis.output / gives) * size * ((size if matrix else FAST) + beside)

    most = max(1, (LONGEST - axis.extent) // axis.stride + 1) if matrix else axis.output
    tiles = range(math.ceil(axis.output / most), axis.output + 1)
    gives = {math.ceil(axis.output / count) for count in tiles[:64]} or {1}
    best = min(sorted(gives), key=work)
    return length(best), best


def _smooth(least: int) -> int:
    """Return the next even number of no other prime factors than 2, 3 and 5, which fast transforms like best."""
    odd = (1, 3, 5, 9, 15, 25, 45, 75)
    return min(factor << max(1, math.ceil(math.log2(least / factor))) for factor in odd)


def _rows(tiling: Tiling, band: Band) -> tuple[int, int]:
    """First and last row of tiles of a band of output rows."""
    return band.rows.start // tiling.gives[0], math.ceil(band.rows.stop / tiling.gives[0])


def _bands(x: Array, tiling: Tiling, filters: int, plan: Plan, least: int) -> list[Band]:
    """Cut the work into bands of whole tiles, of at least so many tiles unless there are fewer."""
    step, rows = tiling.gives[0], plan.window.output[0]
    counts, channels = tiling.inputs.output, x.shape[-1]
    row, numbers = math.prod(counts[1:]), tiling.transform.numbers * (channels + filters)
    cuts = bands(
        x,
        x.shape[0],
        counts[0],
        2 * row * numbers,
        work=row * tiling.transform.numbers * channels * (filters // plan.groups + 40),
        workspace=plan.workspace // 2,
        least=2 * least * numbers,
    )
    return [Band(cut.images, slice(cut.rows.start * step, min(rows, cut.rows.stop * step))) for cut in cuts]


def _multiplied(spectra: Array, laid: Array) -> Array:
    """Sum over the channels at every number: (T, P, C) and (T, G, B, C/G, O/G/B) to (T, P, O)."""
    xp = namespace_of(spectra)
    (numbers, count, _), (groups, blocks, width, made) = spectra.shape, laid.shape[1:]
    if groups == 1:
        return times(spectra, laid[:, 0, ...])
    if width == 1:
        rows = xp.reshape(spectra, (numbers, count, groups, 1))
        products = add_product(None, rows, xp.reshape(laid, (numbers, 1, groups, blocks * made)))
        return xp.reshape(products, (numbers, count, groups * blocks * made))
    rows = settled(xp.moveaxis(xp.reshape(spectra, (numbers, count, groups, width)), 2, 1))
    return xp.reshape(settled(xp.moveaxis(times(rows, laid), 1, 2)), (numbers, count, groups * blocks * made))


def _summed(spectra: Array, dspectra: Array, groups: int) -> Array:
    """Sum over all tiles at every number: (T, P, C) and (T, P, O) to (T, G, C/G, O/G)."""
    xp = namespace_of(spectra)
    (numbers, count, channels), filters = spectra.shape, dspectra.shape[-1]
    if groups == 1:
        return xp.expand_dims(summed(spectra, dspectra), axis=1)
    a = xp.reshape(spectra, (numbers, count, groups, channels // groups))
    b = xp.reshape(dspectra, (numbers, count, groups, filters // groups))
    if channels == groups:
        made = summed_over(add_product(None, a, b), (1,))
        return xp.reshape(made, (numbers, groups, 1, filters // groups))
    return summed(settled(xp.moveaxis(a, 2, 1)), settled(xp.moveaxis(b, 2, 1)))
