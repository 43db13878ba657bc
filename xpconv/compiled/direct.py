"""Convolution by sums of products in registers, which needs no lowered windows: an algorithm, made of loops."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xpconv.algorithms import Plan
from xpconv.compiled.compiler import loop
from xpconv.compiled.meetings import Table
from xpconv.compiled.registers import registers, sum_products
from xpconv.execution.elementwise import settled, zeros
from xpconv.execution.steps import step
from xpconv.execution.tasks import Band, assemble, bands, total
from xpconv.windows import Window

Host = np.ndarray[Any, Any]
VECTORS = 2  # of filters that share each number of the input
NEAR = 1 << 18  # bytes of images that are padded at a time, for a gradient to be added up from


@dataclass(frozen=True)
class Direct:
    """The way of all windows and filters that are in one group."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whether there is one group."""
        return groups == 1

    def prepare(self, weight: Host, plan: Plan) -> Host:
        """(*kernel, C, O) to (B, taps*C, O/B): filters in blocks of some vectors, the last one filled up with zeros."""
        filters, width = weight.shape[-1], _width(weight)
        blocks = math.ceil(filters / width)
        laid = np.zeros((weight.size // filters, blocks * width), weight.dtype)
        laid[:, :filters] = weight.reshape(-1, filters)
        return np.ascontiguousarray(laid.reshape(-1, blocks, width).swapaxes(0, 1))

    def convolve(self, x: Host, weight: Host, bias: Host | None, plan: Plan, prepared: Host | None = None) -> Host:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        window, (channels, filters) = plan.window, weight.shape[-2:]
        laid = self.prepare(weight, plan) if prepared is None else prepared
        start = np.zeros(laid.shape[::2], x.dtype)
        if bias is not None:
            start.reshape(-1)[:filters] = bias

        def block(band: Band, place: Host) -> Host:
            elements, part = window.part(band.rows.start, band.rows.stop)
            some, y = _flat(x[band.images, elements, ...]), place.reshape(len(place), -1, part.output[-1], filters)
            convolve = _convolution(*_tile(part.output[-1], laid))
            step(convolve, some, laid, start, lie(part, channels), y)
            return place

        return assemble(x, (x.shape[0], *window.output, filters), _bands(x, filters, plan), block, moving=(x,))

    def weight_gradient(self, x: Host, dy: Host, plan: Plan) -> Host:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C, O)."""
        window, channels, filters = plan.window, x.shape[-1], dy.shape[-1]
        whole = lie(window, channels)
        rows, vectors = _tile(whole.length, dy[..., : _width(dy)])
        shape = (len(whole.jumps), rows * math.ceil(whole.length / rows), filters)

        def part_of(band: Band) -> Host:
            elements, part = window.part(band.rows.start, band.rows.stop)
            some, found = (_flat(a) for a in (x[band.images, elements, ...], dy[band.images, band.rows, ...]))
            images = max(1, NEAR // ((some.shape[1] + found.shape[1]) * x.itemsize))
            dweight = zeros(x, shape)
            correlate = _correlation(rows, vectors)
            step(correlate, some, found, lie(part, channels, images), images, part.output[-1], dweight)
            return dweight

        dweight = total(x, _bands(x, filters, plan), part_of, moving=(x, dy))
        return dweight[:, : whole.length].reshape(*window.kernel, channels, filters)


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
    *outer, last = axes = window.axes
    pitches = [channels * math.prod(axis.reach for axis in axes[i + 1 :]) for i in range(len(axes))]
    bare = [channels * math.prod(axis.size for axis in axes[i + 1 :]) for i in range(len(axes))]
    kept = [range(max(0, -a.before), min(a.size, a.reach - a.before)) for a in axes]  # elements that windows touch
    source = [range(r.start * p, r.stop * p, p) for r, p in zip(kept, bare, strict=True)]
    place = [range((r.start + a.before) * p, (r.stop + a.before) * p, p) for a, r, p in zip(axes, kept, pitches)]
    size, together = pitches[0] * axes[0].reach, last.kernel if last.dilation == 1 else 1
    lines = [range(0, a.output * a.stride * p, a.stride * p) for a, p in zip(outer, pitches, strict=False)]
    jumps = [range(0, a.kernel * a.dilation * p, a.dilation * p) for a, p in zip(outer, pitches, strict=False)]
    jumps.append(range(0, last.extent * channels, last.dilation * channels * together))
    return Lie(
        *(_sums([*part[:-1], part[-1][:1]]) for part in (source, place)),
        len(kept[-1]) * channels,
        size,
        _sums([range(0, images * size, size), *lines]),
        _sums(jumps),
        together * channels,
        last.stride * channels,
    )


def _sums(parts: list[range]) -> Table:
    table = np.array([sum(numbers) for numbers in itertools.product(*parts)], np.int64)
    table.flags.writeable = False
    return table


def _flat(x: Host) -> Host:
    """(n, ...) to (n, numbers)."""
    return settled(x).reshape(len(x), math.prod(x.shape[1:]))


def _bands(x: Host, filters: int, plan: Plan) -> list[Band]:
    """Cut the work into bands, for each window of which there are its inputs and its outputs."""
    window, row = plan.window, math.prod(plan.window.output[1:])
    numbers = math.prod(x.shape[1:]) // window.output[0] + row * filters
    work = row * window.taps * x.shape[-1] * filters
    return bands(x, x.shape[0], window.output[0], numbers, work=work, workspace=plan.workspace)


def _width(filters: Host) -> int:
    """Choose how many filters there are in a block."""
    lanes = registers().size // filters.itemsize
    return lanes * min(VECTORS, math.ceil(filters.shape[-1] / lanes))


def _tile(rows: int, block: Host) -> tuple[int, int]:
    """Choose how many of some rows are summed up at a time, and in how many vectors, so that registers hold them."""
    vectors = math.ceil(block.shape[-1] * block.itemsize / registers().size)
    most = (registers().count - vectors - 1) // vectors
    chosen = math.ceil(rows / math.ceil(rows / most))
    return chosen + (chosen % 2 if chosen < min(rows, most) else 0), vectors  # fewer kinds of tiles to compile


@loop
def _pad(x: Host, lie: Lie, padded: Host) -> None:
    """Lay an image into zeros."""
    for i in range(len(lie.source)):
        line, place = x[lie.source[i] : lie.source[i] + lie.width], padded[lie.place[i] : lie.place[i] + lie.width]
        for j in range(lie.width):
            place[j] = line[j]


@functools.cache
def _convolution(rows: int, vectors: int) -> Callable[..., None]:
    """Make the loop for tiles of this size."""

    @loop
    def convolve(x: Host, laid: Host, start: Host, lie: Lie, y: Host) -> None:
        images, _, windows, filters = y.shape
        blocks, _, width = laid.shape
        padded = np.zeros(lie.size, x.dtype)
        for n in range(images):
            _pad(x[n], lie, padded)
            for i in range(len(lie.lines)):
                made = y[n, i].reshape(-1)
                for block in range(blocks):
                    first, p, weight = block * width, 0, laid[block].reshape(-1)
                    while p < windows:
                        p = min(p, windows - rows)  # the last tile makes some again
                        a, place = padded[lie.lines[i] + p * lie.move :], made[p * filters + first :]
                        left, begin, jumps, length, move = filters - first, start[block], lie.jumps, lie.length, lie.move
                        sum_products(
                            rows, vectors, begin, 0, a, move, 1, jumps, length, weight, width, place, filters, left
                        )
                        p += rows

    return convolve


@functools.cache
def _correlation(rows: int, vectors: int) -> Callable[..., None]:
    """Make the loop for tiles of this size."""
    registers_size = registers().size

    @loop
    def correlate(x: Host, dy: Host, lie: Lie, images: int, windows: int, dweight: Host) -> None:
        runs, length, filters = dweight.shape
        lines, size, width = len(lie.lines) // images, lie.size, vectors * (registers_size // x.itemsize)
        padded = np.zeros(images * size + rows, x.dtype)
        for n in range(0, len(x), images):
            some = min(images, len(x) - n)
            for i in range(some):
                _pad(x[n + i], lie, padded[i * size : (i + 1) * size])
            found, beginnings = dy[n : n + some].reshape(-1), lie.lines[: some * lines]
            for run in range(runs):
                for p in range(0, length, rows):
                    for first in range(0, filters, width):
                        a, y = padded[lie.jumps[run] + p :], dweight[run, p : p + rows].reshape(-1)[first:]
                        b, left, move = found[first:], filters - first, lie.move
                        sum_products(
                            rows, vectors, y, filters, a, 1, move, beginnings, windows, b, filters, y, filters, left
                        )

    return correlate
