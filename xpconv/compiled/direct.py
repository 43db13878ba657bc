"""Convolution by sums of products in registers, which needs no lowered windows: an algorithm, made of loops."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xpconv.algorithms import Plan
from xpconv.arrays.libraries import Array
from xpconv.compiled.compiler import loop, vector_bytes
from xpconv.compiled.meetings import Table
from xpconv.compiled.registers import REGISTERS, sum_products
from xpconv.compiled.turns import Turn, call, share
from xpconv.execution.elementwise import settled
from xpconv.execution.tasks import TASK, Band, bands, evenly
from xpconv.execution.workers import lanes
from xpconv.windows import Window

VECTORS = 2  # of filters that share each number of the input
NEAR = 1 << 18  # bytes of images that are padded at a time, for a gradient to be added up from


@dataclass(frozen=True)
class Direct:
    """The way of all windows and filters that are in one group."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whether there is one group."""
        return groups == 1

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C, O) to (B, taps*C, O/B): filters in blocks of some vectors, the last one filled up with zeros."""
        filters, width = weight.shape[-1], _width(weight)
        blocks = math.ceil(filters / width)
        laid = np.zeros((weight.size // filters, blocks * width), weight.dtype)
        laid[:, :filters] = weight.reshape(-1, filters)
        return np.ascontiguousarray(laid.reshape(-1, blocks, width).swapaxes(0, 1))

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        window, (channels, filters) = plan.window, weight.shape[-2:]
        laid = self.prepare(weight, plan) if prepared is None else prepared
        start = np.zeros(laid.shape[::2], x.dtype)
        if bias is not None:
            start.reshape(-1)[:filters] = bias
        y = np.empty((x.shape[0], *window.output, filters), x.dtype)
        shares = _shares(x, filters, plan)

        def compute(turn: Turn) -> None:
            for images, rows in shares[turn.mine]:
                elements, part = window.part(rows.start, rows.stop)
                made = y[images, rows, ...]
                made = made.reshape(len(made), -1, part.output[-1], filters)
                convolve = _convolution(*_tile(part.output[-1], laid))
                convolve(_flat(x[images, elements, ...]), laid, start, lie(part, channels), made, turn)

        share(compute, len(shares), len(shares))
        return y

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C, O)."""
        window, channels, filters = plan.window, x.shape[-1], dy.shape[-1]
        whole, shares = lie(window, channels), _shares(x, filters, plan)
        rows_at_once, vectors = _tile(whole.length, dy[..., : _width(dy)])
        correlate, length = _correlation(rows_at_once, vectors), rows_at_once * math.ceil(whole.length / rows_at_once)
        sums = np.zeros((len(shares), len(whole.jumps), length, filters), x.dtype)

        def add_up(turn: Turn) -> None:
            for images, rows in shares[turn.mine]:
                elements, part = window.part(rows.start, rows.stop)
                some, found = _flat(x[images, elements, ...]), _flat(dy[images, rows, ...])
                together = max(1, NEAR // ((some.shape[1] + found.shape[1]) * x.itemsize))
                correlate(some, found, lie(part, channels, together), together, part.output[-1], sums[turn.mine], turn)

        share(add_up, len(shares), len(shares))
        return sums.sum(axis=0)[:, : whole.length].reshape(*window.kernel, channels, filters)


class Lie(NamedTuple):
    """Where windows lie in images that are padded, in numbers from the start.

    Attributes
    ----------
    source, place : table
        Where the lines of an image are, and where they are to lie with the padding between them.
    width, size : int
        Numbers of a line, and of a padded image.
    lines : table
        Where the windows along the last axis begin, in some images, `move` numbers after each other.
    jumps : table
        Where, in a window, those of its taps begin that lie together and have `length` numbers.
    """

    source: Table
    place: Table
    width: int
    size: int
    lines: Table
    jumps: Table
    length: int
    move: int


@functools.lru_cache(maxsize=256)
def lie(window: Window, channels: int, images: int = 1) -> Lie:
    """Tell how windows lie in so many images."""
    axes, last = window.axes, window.axes[-1]
    bare, padded = (_pitches(sizes, channels) for sizes in (window.size, [axis.reach for axis in axes]))
    *outer, line = (range(max(0, -a.before), min(a.size, a.reach - a.before)) for a in axes)  # what windows see
    begin = [*outer, line[:1]]
    moved = [range(part.start + a.before, part.stop + a.before) for part, a in zip(begin, axes, strict=True)]
    windows = [range(0, a.output * a.stride, a.stride) for a in axes[:-1]]
    together = last.kernel if last.dilation == 1 else 1
    taps = [range(0, a.extent, a.dilation) for a in axes[:-1]] + [range(0, last.extent, last.dilation * together)]
    return Lie(
        source=_places(bare[1:], begin),
        place=_places(padded[1:], moved),
        width=len(line) * channels,
        size=padded[0],
        lines=_places(padded, [range(images), *windows]),
        jumps=_places(padded[1:], taps),
        length=together * channels,
        move=last.stride * channels,
    )


def _pitches(sizes: Sequence[int], channels: int) -> list[int]:
    """Count the numbers of an image, and of its parts after each of its axes."""
    return [channels * math.prod(sizes[i:]) for i in range(len(sizes) + 1)]


def _places(pitches: Sequence[int], ranges: Sequence[range]) -> Table:
    """Say how far each combination of indices lies from the start."""
    table = np.array([sum(map(operator.mul, pitches, indices)) for indices in itertools.product(*ranges)], np.int64)
    table.flags.writeable = False
    return table


def _flat(x: Array) -> Array:
    """(n, ...) to (n, numbers)."""
    return settled(x).reshape(len(x), math.prod(x.shape[1:]))


def _shares(x: Array, filters: int, plan: Plan) -> list[list[Band]]:
    """Share the work out: images, or where one of them outgrows the cache, some rows of windows at a time."""
    window, row = plan.window, math.prod(plan.window.output[1:])
    numbers = math.prod(x.shape[1:]) + row * window.output[0] * filters
    numbers = 0 if numbers * x.itemsize <= TASK else numbers // window.output[0]
    work = row * window.taps * x.shape[-1] * filters
    cuts = bands(x, x.shape[0], window.output[0], numbers, work=work, workspace=plan.workspace)
    return [cuts[part] for part in evenly(len(cuts), min(len(cuts), lanes()))]


def _width(filters: Array) -> int:
    """Choose how many filters there are in a block."""
    lanes: int = vector_bytes() // filters.itemsize
    return lanes * min(VECTORS, math.ceil(int(filters.shape[-1]) / lanes))


def _tile(rows: int, block: Array) -> tuple[int, int]:
    """Choose how many of some rows are summed up at a time, and in how many vectors, so that registers hold them."""
    vectors = math.ceil(block.shape[-1] * block.itemsize / vector_bytes())
    most = 3 * REGISTERS // 4 // vectors
    chosen = math.ceil(rows / math.ceil(rows / most))
    return chosen + (chosen % 2 if chosen < min(rows, most) else 0), vectors  # fewer kinds of tiles to compile


@loop
def _pad(x: Array, lie: Lie, padded: Array) -> None:
    """Lay an image into zeros."""
    for i in range(len(lie.source)):
        line, place = x[lie.source[i] : lie.source[i] + lie.width], padded[lie.place[i] : lie.place[i] + lie.width]
        for j in range(lie.width):
            place[j] = line[j]


@functools.cache
def _convolution(rows: int, vectors: int) -> Callable[..., None]:
    """Make the loop for tiles of this size."""

    @loop
    def convolve(x: Array, laid: Array, start: Array, lie: Lie, y: Array, turn: Turn) -> None:
        call(turn)
        images, _, windows, filters = y.shape
        blocks, _, width = laid.shape
        jumps, length, move = lie.jumps, lie.length, lie.move
        padded = np.zeros(lie.size, x.dtype)
        for n in range(images):
            _pad(x[n], lie, padded)
            for block in range(blocks):
                first, weight, begin = block * width, laid[block].reshape(-1), start[block]
                for i in range(len(lie.lines)):
                    made, p = y[n, i].reshape(-1), 0
                    while p < windows:
                        p = min(p, windows - rows)  # the last tile makes some again
                        a, place, left = padded[lie.lines[i] + p * move :], made[p * filters + first :], filters - first
                        sum_products(
                            rows, vectors, begin, 0, a, move, 1, jumps, length, weight, width, place, filters, left
                        )
                        p += rows

    return convolve


@functools.cache
def _correlation(rows: int, vectors: int) -> Callable[..., None]:
    """Make the loop for tiles of this size."""
    size = vector_bytes()

    @loop
    def correlate(x: Array, dy: Array, lie: Lie, images: int, windows: int, dweight: Array, turn: Turn) -> None:
        call(turn)
        runs, length, filters = dweight.shape
        lines, move, width = len(lie.lines) // images, lie.move, vectors * (size // x.itemsize)
        padded = np.zeros(images * lie.size + rows, x.dtype)
        for n in range(0, len(x), images):
            some = min(images, len(x) - n)
            for i in range(some):
                _pad(x[n + i], lie, padded[i * lie.size : (i + 1) * lie.size])
            found, beginnings = dy[n : n + some].reshape(-1), lie.lines[: some * lines]
            for run in range(runs):
                for p in range(0, length, rows):
                    for first in range(0, filters, width):
                        a, y = padded[lie.jumps[run] + p :], dweight[run, p : p + rows].reshape(-1)[first:]
                        b, left = found[first:], filters - first
                        sum_products(
                            rows, vectors, y, filters, a, 1, move, beginnings, windows, b, filters, y, filters, left
                        )

    return correlate
