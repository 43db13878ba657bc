"""Winograd's F(m, 3) on a GPU: two transforms over the whole batch, and between them one product for each place.

The matrices, the tiles, and where they come from, are those of `xpconv.algorithms.winograd`. The kernels are for two
axes and stride 1; for others the array code serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from xpconv.algorithms import Plan, winograd
from xpconv.algorithms.toom_cook import transforms
from xpconv.arrays.libraries import Array
from xpconv.cuda import geometry
from xpconv.cuda.runtime import Pool, dtype_name, empty, multiply, part_of, run, settled, strides
from xpconv.cuda.sources import expression
from xpconv.cuda.workspace import Piece, halving, pieces
from xpconv.windows import Window


class Winograd(winograd.Winograd):
    """F(m, 3) along both of two axes."""

    @property
    def side(self) -> int:
        """Places of a tile along an axis."""
        return transforms(self.m).places

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(3, 3, C, O) to (T, C, O): transformed filters."""
        if not _served(plan.window):
            return super().prepare(weight, plan)
        made = empty((self.side**2, *weight.shape[2:]), weight.dtype)
        self._transform_filters("winograd_filters", settled(weight), made)
        return made

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        if not _served(plan.window):
            return super().convolve(x, weight, bias, plan, prepared)
        bias, count = settled(bias), weight.shape[-1]
        tiles, outputs = self.tiling(plan.window).inputs, self.tiling(plan.window).outputs

        def some(y: Array, filters: Array, images: slice, rows: slice) -> None:
            elements, part = tiles.part(rows.start, rows.stop)
            places = self._transformed("winograd_inputs", part_of(x, images, elements), part)  # (T, P, C)
            made = empty((*places.shape[:2], filters.shape[-1]), x.dtype)
            multiply(places, filters, made, precision=plan.precision)
            elements, part = outputs.part(rows.start, rows.stop)
            place = part_of(y, images, elements)
            threads, told = self._told(place, part)
            run(
                "winograd",
                expression("winograd_outputs", dtype_name(x.dtype), self.m),
                threads,
                made,
                bias,
                place,
                told,
            )

        def work(cuts: list[Piece]) -> Array:
            y = empty((x.shape[0], *plan.window.output, count), x.dtype)
            filters = self.prepare(weight, plan) if prepared is None else prepared
            for piece in cuts:
                some(y, filters, *piece)
            return y

        return self._halving(work, x, count, plan, x.shape[0] * math.prod(plan.window.output))

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (3, 3, C, O)."""
        if not _served(plan.window):
            return super().weight_gradient(x, dy, plan)
        channels, filters = x.shape[-1], dy.shape[-1]
        tiles, outputs = self.tiling(plan.window).inputs, self.tiling(plan.window).outputs

        def work(cuts: list[Piece]) -> Array:
            dplaces, several = empty((self.side**2, channels, filters), x.dtype), len(cuts) != 1
            if several:
                dplaces[...] = 0
            for images, rows in cuts:
                elements, part = tiles.part(rows.start, rows.stop)
                places = self._transformed("winograd_inputs", part_of(x, images, elements), part)  # (T, P, C)
                elements, part = outputs.part(rows.start, rows.stop)
                shares = self._transformed(
                    "winograd_output_gradients", part_of(dy, images, elements), part
                )  # (T, P, O)
                multiply(places.transpose(0, 2, 1), shares, dplaces, add=several, precision=plan.precision)
            dw = empty((*plan.window.kernel, channels, filters), x.dtype)
            self._transform_filters("winograd_filter_gradients", dplaces, dw)
            return dw

        return self._halving(work, x, filters, plan, plan.window.taps * channels)

    def _transformed(self, kernel: str, x: Array, tiles: Window) -> Array:
        """(n, H, W, C), as it lies in memory, to (T, P, C): every tile transformed, its places in front."""
        count, told = self._told(x, tiles)
        places = empty((self.side**2, count // max(1, x.shape[-1]), x.shape[-1]), x.dtype)
        run("winograd", expression(kernel, dtype_name(x.dtype), self.m), count, x, places, told)
        return places

    def _told(self, x: Array, tiles: Window) -> tuple[int, geometry.Struct]:
        """Tell of the tiles of an array, with a thread for each channel of each."""
        threads = x.shape[0] * math.prod(tiles.output) * x.shape[-1]
        return threads, geometry.windows(tiles, threads, batch=x.shape[0], channels=x.shape[-1], strides=strides(x))

    def _transform_filters(self, kernel: str, given: Array, made: Array) -> None:
        threads = math.prod(given.shape[-2:])
        told = geometry.windows(Window(()), threads, batch=1, channels=threads)
        run("winograd", expression(kernel, dtype_name(given.dtype), self.m), threads, given, made, told)

    def _halving(self, work: Callable[[list[Piece]], Array], x: Array, filters: int, plan: Plan, rows: int) -> Array:
        """Do work on pieces of the batch for a result of so many rows of filters, in the workspace that there is."""
        count, across = self.tiling(plan.window).inputs.output
        place = self.side**2 * int(x.itemsize)
        whole = place * x.shape[-1] * filters  # filters or their gradient, transformed
        row = place * across * (x.shape[-1] + filters)

        def cut(limit: int) -> Array:
            return work(list(pieces(x.shape[0], count, row, min(limit - whole, geometry.MOST))))

        wanted = whole + min(plan.workspace, row * count * x.shape[0])
        return halving(cut, rows * filters * int(x.itemsize), Pool(), wanted, whole + row)


def _served(window: Window) -> bool:
    return len(window.axes) == 2 and not window.strided
