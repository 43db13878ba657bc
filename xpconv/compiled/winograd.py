"""Winograd's minimal filtering with transforms that are loops, each tile's in registers: an algorithm."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.algorithms import winograd
from xpconv.arrays.libraries import Array
from xpconv.compiled.tiles import exchanging, gathering, scattering, tiles_of
from xpconv.execution.elementwise import settled
from xpconv.execution.products import times
from xpconv.execution.steps import step
from xpconv.execution.workspace import apart, empty
from xpconv.windows import Window

Matrix = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Winograd(winograd.Winograd):
    """F(m, 3) along every axis."""

    def products(self, places: Array, laid: Array) -> Array:
        """(T, P, C) and (T, B, C, O/B) to (T, P, O)."""
        blocks, _, width = laid.shape[1:]
        return times(places, laid, apart((*places.shape[:2], blocks * width), places.dtype))

    def transformed(self, x: Array, matrix: Matrix, tiles: Window, place: Array | None = None) -> Array:
        """(n, *size, C) to (T, P, C), or to a `place` (T, n, *tiles, C): every tile, transformed along each axis."""
        x, axes = settled(x), len(tiles.axes)
        shape = (matrix.shape[0] ** axes, x.shape[0] * math.prod(tiles.output), x.shape[-1])
        made = apart(shape, x.dtype) if place is None else place
        gather = gathering(_told(matrix), axes)
        step(gather, x.reshape(len(x), math.prod(tiles.size), x.shape[-1]), tiles_of(tiles), made.reshape(shape))
        return made

    def restored(self, products: Array, matrix: Matrix, outputs: Window, place: Array | None) -> Array:
        """(T, P, O) to (n, *output, O): the outputs of every tile side by side."""
        images, filters = products.shape[1] // math.prod(outputs.output), products.shape[-1]
        y = empty((images, *outputs.size, filters), products.dtype) if place is None else place
        scatter = scattering(_told(matrix), len(outputs.axes))
        step(scatter, products, tiles_of(outputs), y.reshape(images, math.prod(outputs.size), filters))
        return y

    def transformed_filters(self, weight: Array, matrix: Matrix, blocks: int, place: Array | None) -> Array:
        """(*kernel, c, O) to (T, B, c, O/B)."""
        (*kernel, channels, filters), axes = weight.shape, weight.ndim - 2
        if place is None:
            place = empty((matrix.shape[0] ** axes, blocks, channels, filters // blocks), weight.dtype)
        step(exchanging(_told(matrix), axes), settled(weight).reshape(math.prod(kernel), channels, filters), place)
        return place

    def gradients(self, dfilters: Array, matrix: Matrix, axes: int, place: Array | None) -> Array:
        """(T, c, O) to (*kernel, c, O)."""
        _, channels, filters = dfilters.shape
        made = empty((matrix.shape[0],) * axes + (channels, filters), dfilters.dtype) if place is None else place
        step(exchanging(_told(matrix), axes), dfilters, made.reshape(matrix.shape[0] ** axes, 1, channels, filters))
        return made


@functools.cache
def _written(matrix: bytes, columns: int) -> str:
    return json.dumps(np.frombuffer(matrix).reshape(-1, columns).tolist())


def _told(matrix: Matrix) -> str:
    """Write a matrix as JSON."""
    return _written(matrix.tobytes(), matrix.shape[1])
