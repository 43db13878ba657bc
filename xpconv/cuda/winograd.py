"""Winograd's F(m, 3) on a GPU: two transforms over the whole batch, and between them one product for each place.

The matrices, and where they come from, are those of `xpconv.algorithms.winograd`. Along two axes only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from xpconv.algorithms.toom_cook import TAPS
from xpconv.cuda import geometry
from xpconv.cuda.runtime import Pool, empty, multiply, run, settled, strides
from xpconv.cuda.sources import expression
from xpconv.cuda.workspace import WORKSPACE, halving, pieces
from xpconv.libraries import Array
from xpconv.windows import Axis, Window


@dataclass(frozen=True)
class Winograd:
    """F(m, 3) along both of two axes."""

    m: int
    precision: str = "float32"
    workspace: int = WORKSPACE

    def supports(self, window: Window, groups: int) -> bool:
        """Whether both axes have three neighbouring taps and stride 1, and the channels are not cut into groups."""
        return (
            groups == 1
            and len(window.axes) == 2
            and all((a.kernel, a.stride, a.dilation) == (TAPS, 1, 1) for a in window.axes)
        )

    @property
    def places(self) -> int:
        """Places of a tile."""
        return (self.m + TAPS - 1) ** 2

    def prepare(self, weight: Array, groups: int) -> Array:
        """(3, 3, C, O) to (T, C, O): transformed filters."""
        made = empty((self.places, *weight.shape[2:]), weight.dtype)
        self._transform_filters("winograd_filters", settled(weight), made)
        return made

    def convolve(self, x: Array, prepared: Array, bias: Array | None, window: Window, groups: int) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        _, channels, filters = prepared.shape
        tiles, outputs = self._tiles(window)

        def work(limit: int) -> Array:
            y = empty((x.shape[0], *window.output, filters), x.dtype)
            for images, rows in self._pieces(x, tiles, channels + filters, limit):
                elements, part = tiles.part(rows.start, rows.stop)
                places = self._transformed("winograd_inputs", x[images, elements], part)  # (T, P, C)
                made = empty((*places.shape[:2], filters), x.dtype)
                multiply(places, prepared, made, precision=self.precision)
                elements, part = outputs.part(rows.start, rows.stop)
                place = y[images, elements]
                count, told = self._told(place, part)
                run("winograd", expression("winograd_outputs", x.dtype.name, self.m), count, made, bias, place, told)
            return y

        return self._halving(work, x, tiles, channels + filters)

    def weight_gradient(self, x: Array, dy: Array, window: Window, groups: int) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (3, 3, C, O)."""
        channels, filters = x.shape[-1], dy.shape[-1]
        tiles, outputs = self._tiles(window)

        def work(limit: int) -> Array:
            dplaces = empty((self.places, channels, filters), x.dtype)
            dplaces[...] = 0
            for images, rows in self._pieces(x, tiles, channels + filters, limit):
                elements, part = tiles.part(rows.start, rows.stop)
                places = self._transformed("winograd_inputs", x[images, elements], part)  # (T, P, C)
                elements, part = outputs.part(rows.start, rows.stop)
                shares = self._transformed("winograd_output_gradients", dy[images, elements], part)  # (T, P, O)
                multiply(places.transpose(0, 2, 1), shares, dplaces, add=True, precision=self.precision)
            dw = empty((*window.kernel, channels, filters), x.dtype)
            self._transform_filters("winograd_filter_gradients", dplaces, dw)
            return dw

        return self._halving(work, x, tiles, channels + filters)

    def _tiles(self, window: Window) -> tuple[Window, Window]:
        """Tiles of the input and of the output as windows."""
        counts = [math.ceil(a.output / self.m) for a in window.axes]
        spans = list(zip(window.axes, counts, strict=True))
        size = self.m + TAPS - 1
        return (
            Window(tuple(Axis(a.size, size, self.m, a.before, 0, 1, count) for a, count in spans)),
            Window(tuple(Axis(a.output, self.m, self.m, 0, 0, 1, count) for a, count in spans)),
        )

    def _transformed(self, kernel: str, x: Array, tiles: Window) -> Array:
        """(n, H, W, C), as it lies in memory, to (T, P, C): every tile transformed, its places in front."""
        count, told = self._told(x, tiles)
        places = empty((self.places, count // max(1, x.shape[-1]), x.shape[-1]), x.dtype)
        run("winograd", expression(kernel, x.dtype.name, self.m), count, x, places, told)
        return places

    def _told(self, x: Array, tiles: Window) -> tuple[int, geometry.Struct]:
        """Tell of the tiles of an array, with a thread for each channel of each."""
        threads = x.shape[0] * math.prod(tiles.output) * x.shape[-1]
        return threads, geometry.windows(tiles, threads, batch=x.shape[0], channels=x.shape[-1], strides=strides(x))

    def _transform_filters(self, kernel: str, given: Array, made: Array) -> None:
        threads = math.prod(given.shape[-2:])
        told = geometry.windows(Window(()), threads, batch=1, channels=threads)
        run("winograd", expression(kernel, given.dtype.name, self.m), threads, given, made, told)

    def _pieces(self, x: Array, tiles: Window, numbers: int, limit: int) -> list[tuple[slice, slice]]:
        size = self._row(x, tiles, numbers)
        return [(p.images, p.rows) for p in pieces(x.shape[0], tiles.output[0], size, min(limit, geometry.MOST))]

    def _halving(self, work: Callable[[int], Array], x: Array, tiles: Window, numbers: int) -> Array:
        row = self._row(x, tiles, numbers)
        return halving(work, min(self.workspace, row * tiles.output[0] * x.shape[0]), row, Pool())

    def _row(self, x: Array, tiles: Window, numbers: int) -> int:
        """Bytes that a row of tiles takes, with so many numbers for each place of a tile."""
        return tiles.output[1] * self.places * numbers * int(x.itemsize)
