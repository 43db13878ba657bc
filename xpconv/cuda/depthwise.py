"""Depthwise convolution on a GPU: every channel by its own filter, without lowering.

Weights are (*kernel, C): one filter for each channel.
"""

from __future__ import annotations

import math

from xpconv.cuda import geometry
from xpconv.cuda.runtime import empty, pack_of, run, settled, strides
from xpconv.cuda.sources import expression
from xpconv.libraries import Array
from xpconv.windows import Window

THREADS = 1 << 16  # that a weight gradient should have at least: a sum over all windows is cut into slices for them


def convolve(x: Array, weight: Array, bias: Array | None, window: Window) -> Array:
    """Sum over the taps of every window: (N, *size, C) to (N, *output, C)."""
    y = empty((x.shape[0], *window.output, x.shape[-1]), x.dtype)
    weight, bias = settled(weight), None if bias is None else settled(bias)
    pack = pack_of(x, weight, *([] if bias is None else [bias]))
    told = _told(x, window, y.size // pack, pack)
    run("depthwise", expression("depthwise", x.dtype.name, pack), y.size // pack, x, weight, bias, y, told)
    return y


def input_gradient(dy: Array, weight: Array, window: Window) -> Array:
    """Give every element its share of dy: (N, *output, C) to (N, *size, C)."""
    dy, weight = settled(dy), settled(weight)
    dx = empty((dy.shape[0], *window.size, dy.shape[-1]), dy.dtype)
    pack = pack_of(dy, weight)
    told = _told(dx, window, dx.size // pack, pack)
    kernel = expression("depthwise_input_gradient", dy.dtype.name, pack)
    run("depthwise", kernel, dx.size // pack, dy, weight, dx, told)
    return dx


def weight_gradient(x: Array, dy: Array, window: Window) -> Array:
    """Correlate the input with dy: (N, *size, C) and (N, *output, C) to (*kernel, C)."""
    dy, channels = settled(dy), x.shape[-1]
    pack = pack_of(x, dy)
    sums = window.taps * channels // pack
    slices = max(1, min(math.ceil(THREADS / max(1, sums)), x.shape[0] * math.prod(window.output)))
    dw = empty((slices, *window.kernel, channels), x.dtype if x.itemsize >= 4 else "float32")
    told = _told(x, window, slices * sums, pack, slices)
    kernel = expression("depthwise_weight_gradient", x.dtype.name, pack)
    run("depthwise", kernel, slices * sums, x, dy, dw, told)
    return dw.sum(axis=0).astype(x.dtype, copy=False)


def _told(x: Array, window: Window, threads: int, pack: int, slices: int = 1) -> geometry.Struct:
    return geometry.windows(
        window, threads, batch=x.shape[0], channels=x.shape[-1], pack=pack, strides=strides(x), slices=slices
    )
