"""Transforms of tiles, by a small matrix along every axis, each from memory to memory in one sweep.

A tile is transformed in registers, so many of its channels at a time as a vector holds; the numbers of the matrix are
a part of the machine code, in which a 0 takes nothing and a 1 no product.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpconv.arrays.libraries import Array
from xpconv.compiled.compiler import loop, vector_bytes
from xpconv.compiled.counters import Table
from xpconv.compiled.registers import Writer
from xpconv.windows import Axis, Window

cgutils: Any = importlib.import_module("numba.core.cgutils")
extending: Any = importlib.import_module("numba.extending")
numba: Any = importlib.import_module("numba")


class Tiles(NamedTuple):
    """Where tiles lie in an image, in elements.

    Attributes
    ----------
    lines : table
        For all tiles along the axes but the last, where in the image the lines of the tile begin; -1 for a line that is
        beside the image.
    columns : table
        For all tiles along the last axis, where they begin, and from where to where in them there is an image.
    apart, alone : table
        How far, along each axis, neighbours are from each other: in the image, and in a tile by itself.
    span : int
        Elements of a line.
    """

    lines: Table
    columns: Table
    apart: Table
    alone: Table
    span: int


@functools.lru_cache(maxsize=256)
def tiles_of(window: Window) -> Tiles:
    """Tell where tiles lie that are windows."""
    *outer, last = window.axes
    apart, alone = (_pitches(sizes) for sizes in ([axis.size for axis in window.axes], window.kernel))
    begun = itertools.product(*(range(axis.output) for axis in outer))
    lines = [[_place(line, outer, apart) for line in itertools.product(*map(_elements, outer, tile))] for tile in begun]
    columns = [
        (seen.start, max(0, -seen.start), min(last.kernel, last.size - seen.start))
        for seen in (_elements(last, o) for o in range(last.output))
    ]
    return Tiles(_table(lines), _table(columns), _table(apart), _table(alone), last.kernel)


def _elements(axis: Axis, tile: int) -> range:
    first = tile * axis.stride - axis.before
    return range(first, first + axis.kernel)


def _place(line: Sequence[int], outer: Sequence[Axis], apart: Sequence[int]) -> int:
    inside = all(0 <= i < axis.size for i, axis in zip(line, outer, strict=True))
    return sum(map(operator.mul, line, apart)) if inside else -1


def _pitches(sizes: Sequence[int]) -> list[int]:
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def _table(numbers: Sequence[Any]) -> Table:
    table = np.array(numbers, np.int64)
    table.flags.writeable = False
    return table


@extending.intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def transform(
    context: Any, matrix: Any, axes: Any, x: Any, x_pitches: Any, y: Any, y_pitches: Any, columns: Any
) -> Any:
    """Multiply each axis of a tile by a matrix, written as JSON, for one vector of channels.

    Of the vectors' numbers there are so many `columns`; neighbours along an axis are so many numbers apart as the
    pitches say, in arrays that begin at the tile.
    """
    rows, count = json.loads(matrix.literal_value), axes.literal_value

    def write(compiler: Any, builder: Any, signature: Any, given: Any) -> Any:
        source, x_steps, target, y_steps = (
            compiler.make_array(signature.args[i])(compiler, builder, given[i]).data for i in (2, 3, 4, 5)
        )
        writer = Writer(compiler, builder, x.dtype, given[6], 1)

        def place(pointer: Any, steps: Any, index: tuple[int, ...]) -> Any:
            for axis, i in enumerate(index):
                pitch = builder.load(builder.gep(steps, [writer.word(axis)]))
                pointer = writer.after(pointer, builder.mul(pitch, writer.word(i)))
            return pointer

        values: dict[tuple[int, ...], Any] = {}
        sizes = [len(rows[0])] * count
        for axis in range(count):
            others = [range(size) for size in sizes[:axis] + sizes[axis + 1 :]]
            for line in itertools.product(*others):
                along = [(*line[:axis], i, *line[axis:]) for i in range(len(rows[0]))]
                if axis == 0:
                    values |= {index: writer.load(place(source, x_steps, index), 0) for index in along}
                made = [writer.combined(row, [values[index] for index in along]) for row in rows]
                for i, value in enumerate(made):
                    index = (*line[:axis], i, *line[axis:])
                    if axis == count - 1:
                        writer.store(value, place(target, y_steps, index), 0)
                    values[index] = value
            sizes[axis] = len(rows)
        return compiler.get_dummy_value()

    kinds = (matrix, axes, x, x_pitches, y, y_pitches, numba.types.intp)
    return numba.types.void(*kinds), write


@functools.cache
def gathering(matrix: str, axes: int) -> Callable[..., None]:
    """Make the loop that transforms the tiles of images: (n, elements, C) to (T, P, C)."""
    size, places = vector_bytes(), len(json.loads(matrix))

    @loop
    def gather(x: Array, tiles: Tiles, y: Array) -> None:
        images, _, channels = x.shape
        lanes, span, p = size // x.itemsize, tiles.span, 0
        apart, alone, steps = tiles.apart * channels, tiles.alone * channels, pitches(y, places, axes)
        bare = np.zeros((tiles.lines.shape[1] * span, channels), x.dtype)
        for n in range(images):
            for lines in tiles.lines:
                inside = lines.min() >= 0
                for first, low, high in tiles.columns:
                    if inside and high - low == span:
                        source, near = x[n, lines[0] + first :], apart
                    else:
                        source, near = bare, alone
                        for i in range(len(lines)):
                            for j in range(span):
                                place = bare[i * span + j]
                                if lines[i] >= 0 and low <= j < high:
                                    seen = x[n, lines[i] + first + j]
                                    for c in range(channels):
                                        place[c] = seen[c]
                                else:
                                    for c in range(channels):
                                        place[c] = 0
                    for c in range(0, channels, lanes):
                        transform(matrix, axes, source[0, c:], near, y[0, p, c:], steps, channels - c)
                    p += 1

    return gather


@functools.cache
def scattering(matrix: str, axes: int) -> Callable[..., None]:
    """Make the loop that transforms tiles into images: (T, P, C) to (n, elements, C)."""
    size, places = vector_bytes(), len(json.loads(matrix)[0])

    @loop
    def scatter(x: Array, tiles: Tiles, y: Array) -> None:
        images, _, channels = y.shape
        lanes, span, p, apart = size // x.itemsize, tiles.span, 0, y.strides[1] // y.itemsize
        apart, alone, steps = tiles.apart * apart, tiles.alone * channels, pitches(x, places, axes)
        bare = np.zeros((tiles.lines.shape[1] * span, channels), x.dtype)
        for n in range(images):
            for lines in tiles.lines:
                inside = lines.min() >= 0
                for first, _, high in tiles.columns:
                    whole = inside and high == span
                    target, near = (y[n, lines[0] + first :], apart) if whole else (bare, alone)
                    for c in range(0, channels, lanes):
                        transform(matrix, axes, x[0, p, c:], steps, target[0, c:], near, channels - c)
                    if not whole:
                        for i in range(len(lines)):
                            for j in range(high if lines[i] >= 0 else 0):
                                made, place = bare[i * span + j], y[n, lines[i] + first + j]
                                for c in range(channels):
                                    place[c] = made[c]
                    p += 1

    return scatter


@functools.cache
def exchanging(matrix: str, axes: int) -> Callable[..., None]:
    """Make the loop that transforms filters, or their gradients: (S, C, O) to (T, B, C, O/B)."""
    size, places, taps = vector_bytes(), len(json.loads(matrix)), len(json.loads(matrix)[0])

    @loop
    def exchange(x: Array, y: Array) -> None:
        (_, channels, _), (_, blocks, _, width) = x.shape, y.shape
        lanes, near, steps = size // x.itemsize, pitches(x, taps, axes), pitches(y, places, axes)
        for block in range(blocks):
            for i in range(channels):
                for c in range(0, width, lanes):
                    transform(matrix, axes, x[0, i, block * width + c :], near, y[0, block, i, c:], steps, width - c)

    return exchange


@loop
def pitches(x: Array, side: int, axes: int) -> Table:
    """Return how far neighbours along each axis of a tile are apart, whose places are one axis of an array."""
    return np.array([x.strides[0] // x.itemsize * side ** (axes - 1 - axis) for axis in range(axes)])
