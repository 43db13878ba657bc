"""Pooling on a GPU, forward and backward, without padding anything and without two threads writing to one place.

Which tap of a window was its largest is kept, in a byte where that holds it, and tells the gradient where to go.
"""

from __future__ import annotations

import numpy as np

from xpconv.cuda import geometry
from xpconv.cuda.runtime import empty, pack_of, run, settled, strides
from xpconv.cuda.sources import BYTE, expression, tap_type
from xpconv.libraries import Array
from xpconv.windows import Window


def max_pool(x: Array, window: Window) -> tuple[Array, Array]:
    """Take the largest element of every window, and the number of its tap: (N, *size, C) to (N, *output, C), twice.

    The first of equals, and NaN above all numbers.
    """
    shape = (x.shape[0], *window.output, x.shape[-1])
    y, taps = empty(shape, x.dtype), empty(shape, "uint8" if window.taps <= BYTE else "int32")
    pack = pack_of(x)
    told = _told(x, window, y.size // pack, pack)
    kernel = expression("max_pool", x.dtype.name, pack, tap_type(window.taps))
    run("pooling", kernel, y.size // pack, x, y, taps, told)
    return y, taps


def max_pool_gradient(dy: Array, taps: Array, window: Window) -> Array:
    """Hand every window's gradient to its largest element: (N, *output, C) to (N, *size, C)."""
    dy = settled(dy)
    dx = empty((dy.shape[0], *window.size, dy.shape[-1]), dy.dtype)
    pack = pack_of(dy)
    told = _told(dx, window, dx.size // pack, pack)
    kernel = expression("max_pool_gradient", dy.dtype.name, pack, tap_type(window.taps))
    run("pooling", kernel, dx.size // pack, dy, taps, dx, told)
    return dx


def avg_pool(x: Array, window: Window, divisor: int | None, count_include_pad: bool) -> Array:
    """Take the mean of every window: (N, *size, C) to (N, *output, C)."""
    y = empty((x.shape[0], *window.output, x.shape[-1]), x.dtype)
    pack = pack_of(x)
    told, mean = _told(x, window, y.size // pack, pack), _mean(divisor, count_include_pad)
    run("pooling", expression("avg_pool", x.dtype.name, pack), y.size // pack, x, y, told, mean)
    return y


def avg_pool_gradient(dy: Array, window: Window, divisor: int | None, count_include_pad: bool) -> Array:
    """Give every element its shares of dy: (N, *output, C) to (N, *size, C)."""
    dy = settled(dy)
    dx = empty((dy.shape[0], *window.size, dy.shape[-1]), dy.dtype)
    pack = pack_of(dy)
    told, mean = _told(dx, window, dx.size // pack, pack), _mean(divisor, count_include_pad)
    run("pooling", expression("avg_pool_gradient", dy.dtype.name, pack), dx.size // pack, dy, dx, told, mean)
    return dx


def _told(x: Array, window: Window, threads: int, pack: int) -> geometry.Struct:
    return geometry.windows(window, threads, batch=x.shape[0], channels=x.shape[-1], pack=pack, strides=strides(x))


def _mean(divisor: int | None, count_include_pad: bool) -> geometry.Struct:
    return np.array((divisor or 0, count_include_pad), geometry.MEAN)
