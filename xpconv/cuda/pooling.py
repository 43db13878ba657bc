"""Pooling on a GPU, forward and backward, without padding anything and without two threads writing to one place.

Which tap of a window was its largest is kept, in a byte where that holds it, and tells the gradient where to go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xpconv.arrays.libraries import Array, Pullback
from xpconv.cuda import geometry
from xpconv.cuda.runtime import empty, fitting, pack_of, run, settled, strides
from xpconv.cuda.sources import BYTE, expression, tap_type
from xpconv.windows import Window


def largest(x: Array, window: Window) -> tuple[Array, Pullback]:
    """Take the largest element of every window: (N, *size, C) to (N, *output, C).

    NaN is above all numbers. The gradient goes to the first of equals, whose tap is all that is kept.
    """
    shape, size = (x.shape[0], *window.output, x.shape[-1]), x.shape
    tap = tap_type(window.taps)

    def forward() -> tuple[Array, Array]:
        y, taps = empty(shape, x.dtype), empty(shape, "uint8" if window.taps <= BYTE else "int32")
        pack = pack_of(x)
        told = _told(x, window, y.size // pack, pack)
        run("pooling", expression("max_pool", x.dtype.name, pack, tap), y.size // pack, x, y, taps, told)
        return y, taps

    def pullback(dy: Array) -> tuple[Array]:
        def backward() -> Array:
            given, dx = settled(dy), empty(size, dy.dtype)
            pack = pack_of(given)
            told = _told(dx, window, dx.size // pack, pack)
            kernel = expression("max_pool_gradient", dy.dtype.name, pack, tap)
            run("pooling", kernel, dx.size // pack, given, taps, dx, told)
            return dx

        return (fitting(backward, size, dy.dtype),)

    y, taps = fitting(forward, shape, x.dtype)
    return y, pullback


def mean(x: Array, window: Window, members: Sequence[Sequence[int]]) -> tuple[Array, Pullback]:
    """Take the mean of every window, of so many members along each axis: (N, *size, C) to (N, *output, C).

    The members are those that `Axis.members` counts, with padding or without, or as many for one window as for another.
    """
    shape, size, counted = (x.shape[0], *window.output, x.shape[-1]), x.shape, _mean(window, members)

    def forward() -> Array:
        y, pack = empty(shape, x.dtype), pack_of(x)
        told = _told(x, window, y.size // pack, pack)
        run("pooling", expression("avg_pool", x.dtype.name, pack), y.size // pack, x, y, told, counted)
        return y

    def pullback(dy: Array) -> tuple[Array]:
        def backward() -> Array:
            given, dx = settled(dy), empty(size, dy.dtype)
            pack = pack_of(given)
            told = _told(dx, window, dx.size // pack, pack)
            kernel = expression("avg_pool_gradient", dy.dtype.name, pack)
            run("pooling", kernel, dx.size // pack, given, dx, told, counted)
            return dx

        return (fitting(backward, size, dy.dtype),)

    return fitting(forward, shape, x.dtype), pullback


def _told(x: Array, window: Window, threads: int, pack: int) -> geometry.Struct:
    return geometry.windows(window, threads, batch=x.shape[0], channels=x.shape[-1], pack=pack, strides=strides(x))


def _mean(window: Window, members: Sequence[Sequence[int]]) -> geometry.Struct:
    """Say how a kernel finds the members of a window: by counting, its padding among them or not, or by a number."""
    for include_pad in (True, False):
        if all(tuple(m) == a.members(include_pad=include_pad) for m, a in zip(members, window.axes, strict=True)):
            return np.array((0, include_pad), geometry.MEAN)
    return np.array((math.prod(m[0] for m in members), True), geometry.MEAN)
