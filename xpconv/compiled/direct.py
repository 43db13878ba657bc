"""Convolution by sums of products in registers, which needs no lowered windows: an algorithm, made of loops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.algorithms import Plan
from xpconv.arrays.libraries import Array
from xpconv.compiled.calls import taken
from xpconv.compiled.compiler import loop, vector_bytes
from xpconv.compiled.counters import Table
from xpconv.compiled.laying import in_blocks
from xpconv.compiled.lines import Width, width_for
from xpconv.compiled.padding import Lie, lies, pad
from xpconv.compiled.registers import REGISTERS, Count, sum_products
from xpconv.compiled.sweeps import shares, sweep
from xpconv.compiled.turns import claim
from xpconv.execution.tasks import TASK
from xpconv.execution.workers import lanes
from xpconv.windows import Window

VECTORS = 2  # of filters that share each number of the input
SIZE = vector_bytes()
NEAR = 1 << 18  # bytes of what is used again: of blocks of filters, and of images that a gradient is added up from
Tile = tuple[Count, Count, Width]  # of registers: its rows, and vectors of each; and a line, as images are copied by


@dataclass(frozen=True)
class Direct:
    """The way of all windows and filters that are in one group."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whether there is one group."""
        return groups == 1

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C, O) to (B, taps*C, O/B): filters in blocks of some vectors, the last one filled up with zeros."""
        return in_blocks(weight, _width(weight))

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        window, (channels, filters) = plan.window, weight.shape[-2:]
        laid = self.prepare(weight, plan) if prepared is None else prepared
        start = np.zeros(laid.shape[0] * laid.shape[-1], x.dtype)
        if bias is not None:
            start[:filters] = bias
        y = np.empty((x.shape[0], *window.output, filters), x.dtype)
        parts, work = _parts(x, filters, plan), _work(x, filters, plan)
        lie = lies(window, channels, parts)
        tile = _tile(int(lie.value.windows.min()), laid, lie.value)
        sweep(_convolve, (x, y), len(x) * parts, tile, lie, laid.shape, laid.reshape(-1), start, filters, work=work)
        return y

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C, O)."""
        window, channels, filters = plan.window, x.shape[-1], dy.shape[-1]
        parts, work = _parts(x, filters, plan), _work(x, filters, plan)
        images = max(1, NEAR * len(x) // max(1, x.nbytes + dy.nbytes)) if parts == 1 else 1
        lie = lies(window, channels, parts, images)
        tile = _tile(lie.value.length, dy[..., : _width(dy)], lie.value)
        length = len(tile[0]) * math.ceil(lie.value.length / len(tile[0]))
        sums = np.zeros((shares(x, dy, work=work), len(lie.value.jumps), length, filters), x.dtype)
        sweep(_correlate, (x, dy), len(sums), tile, lie, images, sums.shape, sums.reshape(-1), work=work)
        return sums.sum(axis=0)[:, : lie.value.length].reshape(*window.kernel, channels, filters)


def _work(x: Array, filters: int, plan: Plan) -> int:
    """Count the multiply-adds."""
    return int(x.shape[0]) * math.prod(plan.window.output) * plan.window.taps * int(x.shape[-1]) * filters


def _parts(x: Array, filters: int, plan: Plan) -> int:
    """Choose into how many parts to cut an image: such as stay near a processor, and enough for all."""
    rows: int = plan.window.output[0]
    numbers = int(x[:1].size) + math.prod(plan.window.output) * filters
    room = max(1, min(TASK, plan.workspace // lanes()))
    least = math.ceil(numbers * int(x.itemsize) / room)
    enough = math.ceil(4 * lanes() / max(1, int(x.shape[0]))) if lanes() > 1 else 1
    return max(1, min(rows, max(least, enough)))


def _width(filters: Array) -> int:
    """Choose how many filters there are in a block."""
    lanes: int = vector_bytes() // filters.itemsize
    return lanes * min(VECTORS, math.ceil(int(filters.shape[-1]) / lanes))


def _tile(rows: int, block: Array, lie: Lie) -> Tile:
    """Choose how many of some rows are summed up at a time, and in how many vectors, so that registers hold them."""
    vectors = math.ceil(block.shape[-1] * block.itemsize / vector_bytes())
    most = min(rows, 3 * REGISTERS // 4 // vectors)
    chosen = min(range(most, most // 2, -1), key=lambda count: -rows % count)  # of which the fewest are made again
    return (None,) * chosen, (None,) * vectors, width_for(int(lie.width.min()), block.itemsize)


@loop
def _convolve(board: Table, mine: int, given: Any, kind: Any) -> None:
    x, y, (rows, vectors, line), lie, (blocks, depth, width), laid, start, filters = taken(given, kind)
    tile, move, length, jumps, runs = (rows, vectors), lie.move, lie.length, lie.jumps, (0, len(lie.jumps))
    padded, before = np.zeros(lie.size.max(), x.dtype), 0
    together = max(1, NEAR // (depth * width * x.itemsize))  # blocks that stay near, so that all of a line is written
    job = claim(board, mine)
    while job >= 0:
        image, part = divmod(job, len(lie.size))
        if part != before:
            padded[:] = 0
            before = part
        pad(x, image, lie, part, padded, 0, line)
        windows, first = lie.windows[part], image * lie.outputs + lie.target[part]
        for group in range(0, blocks, together):
            for i in range(lie.begun[part], lie.begun[part + 1]):
                to, p = first + (i - lie.begun[part]) * windows, 0
                while p < windows:
                    p = min(p, windows - len(rows))  # the last tile makes some again
                    for block in range(group, min(group + together, blocks)):
                        column, begin = block * width, lie.lines[i] + p * move
                        at, left = (column, begin, column * depth, (to + p) * filters + column), filters - column
                        sum_products(
                            tile, at, start, 0, padded, move, 1, jumps, runs, length, laid, width, y, filters, left
                        )
                    p += len(rows)
        job = claim(board, mine)


@loop
def _correlate(board: Table, mine: int, given: Any, kind: Any) -> None:
    x, dy, (rows, vectors, line), lie, images, (shares, runs, length, filters), sums = taken(given, kind)
    move, width, parts = lie.move, len(vectors) * (SIZE // x.itemsize), len(lie.size)
    tile, batch, most = (rows, vectors), len(x) // lie.elements, lie.size.max()
    padded = np.zeros(images * most + len(rows), x.dtype)
    share = claim(board, mine)
    while share >= 0:
        job, before = share * batch * parts // shares, -1
        end = (share + 1) * batch * parts // shares
        while job < end:
            (image, part), some = divmod(job, parts), min(images, end - job)
            if part != before:
                padded[:] = 0
                before = part
            for i in range(some):
                pad(x, image + i, lie, part, padded, i * lie.size[part], line)
            begun, windows = lie.begun[part], lie.windows[part]
            lines = begun, begun + (lie.begun[part + 1] - begun) // images * some
            found = (image * lie.outputs + lie.target[part]) * filters
            for run in range(runs):
                for p in range(0, length, len(rows)):
                    for first in range(0, filters, width):
                        to = ((share * runs + run) * length + p) * filters + first
                        at, left = (to, lie.jumps[run] + p, found + first, to), filters - first
                        sum_products(
                            tile,
                            at,
                            sums,
                            filters,
                            padded,
                            1,
                            move,
                            lie.lines,
                            lines,
                            windows,
                            dy,
                            filters,
                            sums,
                            filters,
                            left,
                        )
            job += some
        share = claim(board, mine)
