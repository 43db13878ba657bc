"""Depthwise convolution on a GPU: every channel by its own filter, without lowering."""

from __future__ import annotations

import math

from xpconv.algorithms import Plan
from xpconv.arrays.libraries import Array
from xpconv.cuda import geometry
from xpconv.cuda.lowering import Lowering
from xpconv.cuda.runtime import accumulation, empty, fitting, pack_of, run, settled, strides
from xpconv.cuda.sources import expression
from xpconv.windows import Window

THREADS = 1 << 16  # that a weight gradient should have at least: a sum over all windows is cut into slices for them


class Depthwise(Lowering):
    """Every channel by a filter of its own; the channels of wider groups, and several filters, are lowered."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whether the channels are cut into groups."""
        return groups > 1

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps of every window: (N, *size, C) to (N, *output, C)."""
        if not plan.groups == x.shape[-1] == weight.shape[-1]:
            return super().convolve(x, weight, bias, plan, prepared)
        weight, bias = settled(weight), settled(bias)
        pack = pack_of(x, weight, bias)
        kernel, shape = expression("depthwise", x.dtype.name, pack), (x.shape[0], *plan.window.output, x.shape[-1])

        def work() -> Array:
            y = empty(shape, x.dtype)
            run("depthwise", kernel, y.size // pack, x, weight, bias, y, _told(x, plan.window, y.size // pack, pack))
            return y

        return fitting(work, shape, x.dtype)

    def input_gradient(self, dy: Array, weight: Array, plan: Plan, bias: Array | None = None) -> Array:
        """Give every element its share of dy: (N, *output, C) to (N, *size, C)."""
        if not plan.groups == dy.shape[-1] == weight.shape[-2] * plan.groups:
            return super().input_gradient(dy, weight, plan, bias)
        dy, weight, bias = settled(dy), settled(weight), settled(bias)
        pack, shape = pack_of(dy, weight, bias), (dy.shape[0], *plan.window.size, dy.shape[-1])
        kernel = expression("depthwise_input_gradient", dy.dtype.name, pack)

        def work() -> Array:
            dx = empty(shape, dy.dtype)
            run(
                "depthwise",
                kernel,
                dx.size // pack,
                dy,
                weight,
                bias,
                dx,
                _told(dx, plan.window, dx.size // pack, pack),
            )
            return dx

        return fitting(work, shape, dy.dtype)

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, C) to (*kernel, 1, C)."""
        if not plan.groups == x.shape[-1] == dy.shape[-1]:
            return super().weight_gradient(x, dy, plan)
        dy, channels, window = settled(dy), x.shape[-1], plan.window
        pack = pack_of(x, dy)
        sums = window.taps * channels // pack
        slices = max(1, min(math.ceil(THREADS / max(1, sums)), x.shape[0] * math.prod(window.output)))
        dw = empty((slices, *window.kernel, 1, channels), accumulation(x))
        kernel = expression("depthwise_weight_gradient", x.dtype.name, pack)
        run("depthwise", kernel, slices * sums, x, dy, dw, _told(x, window, slices * sums, pack, slices))
        return dw.sum(axis=0).astype(x.dtype, copy=False)


def _told(x: Array, window: Window, threads: int, pack: int, slices: int = 1) -> geometry.Struct:
    return geometry.windows(
        window, threads, batch=x.shape[0], channels=x.shape[-1], pack=pack, strides=strides(x), slices=slices
    )
