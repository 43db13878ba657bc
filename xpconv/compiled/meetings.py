"""Which elements of one side meet which of the other, and by which tap: the windows of a `Window` as small tables.

A loop over windows needs only this. Each side is a target in turn: a window meets the elements that its taps see,
and an element the windows that see it, so the adjoint of a loop is the same loop over the other table.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np

from xpconv.compiled.calls import Told, told
from xpconv.compiled.compiler import loop
from xpconv.compiled.counters import Table
from xpconv.windows import Axis, Window

Meeting = tuple[int, int]


class Rows(NamedTuple):
    """All axes but the last, taken together: row r meets rows ``source[i]`` by taps ``tap[i]`` from ``start[r]`` on."""

    start: Table
    source: Table
    tap: Table


class Runs(NamedTuple):
    """Along the last axis, targets that meet alike: every ``step``-th one, the sources of the next lie ``move`` on.

    Run s has ``length[s]`` targets from ``first[s]`` on, and meetings from ``start[s]`` on.
    """

    first: Table
    length: Table
    start: Table
    source: Table
    tap: Table
    step: int
    move: int


class Meetings(NamedTuple):
    """The tables of all axes, with the rows and the width of either side, and how the taps of a window are numbered."""

    rows: Rows
    runs: Runs
    target: tuple[int, int]
    source: tuple[int, int]
    taps: tuple[int, int]  # of a window, and of those the ones along the width


class Place(NamedTuple):
    """Where the first target of a run lies, of all that there are; the number of the last one, and what each meets."""

    first: int
    last: int
    met: int


@functools.lru_cache(maxsize=256)
def meetings(window: Window, *, adjoint: bool = False) -> Told[Meetings]:
    """Tell what the windows meet; or, the other way round, what the elements meet."""
    *outer, last = window.axes
    rows: list[list[Meeting]] = [[(0, 0)]]
    targets = sources = 1
    for axis in outer:
        along, count = _along(axis, adjoint), axis.output if adjoint else axis.size
        rows = [
            [(a * count + b, s * axis.kernel + t) for (a, s), (b, t) in itertools.product(above, here)]
            for above, here in itertools.product(rows, along)
        ]
        targets, sources = len(rows), sources * count
    runs, width = _runs(last, adjoint), last.output if adjoint else last.size
    start, source, tap = _flat(rows)
    found = Meetings(
        Rows(start, source, tap),
        runs,
        (targets, last.size if adjoint else last.output),
        (sources, width),
        (window.taps, last.kernel),
    )
    return told(found)


@loop
def meet(plan: Meetings, job: int, s: int, source: Table, tap: Table) -> Place:
    """Write down what the first target of a run meets, and return where the run is.

    A job is a row of one of the images, all taken together; sources and targets are counted through all images, too.
    """
    rows, runs = plan.rows, plan.runs
    height, width = plan.target
    n, r = divmod(job, height)
    count = 0
    for i in range(rows.start[r], rows.start[r + 1]):
        for j in range(runs.start[s], runs.start[s + 1]):
            source[count] = (n * plan.source[0] + rows.source[i]) * plan.source[1] + runs.source[j]
            tap[count] = rows.tap[i] * plan.taps[1] + runs.tap[j]
            count += 1
    return Place(job * width + runs.first[s], runs.length[s] - 1, count)


def _along(axis: Axis, adjoint: bool) -> list[list[Meeting]]:
    """For each target along one axis its sources and taps, in the order of the taps."""
    found: list[list[Meeting]] = [[] for _ in range(axis.size if adjoint else axis.output)]
    for k, o in itertools.product(range(axis.kernel), range(axis.output)):
        element = o * axis.stride + k * axis.dilation - axis.before
        if 0 <= element < axis.size:
            target, source = (element, o) if adjoint else (o, element)
            found[target].append((source, k))
    return found


def _runs(axis: Axis, adjoint: bool) -> Runs:
    step, move = (axis.stride, 1) if adjoint else (1, axis.stride)
    along = _along(axis, adjoint)
    first: list[int] = []
    count: list[int] = []
    for residue in range(min(step, len(along))):
        for target in range(residue, len(along), step):
            if target >= step and along[target] == [(source + move, tap) for source, tap in along[target - step]]:
                count[-1] += 1
            else:
                first.append(target)
                count.append(1)
    start, source, tap = _flat([along[target] for target in first])
    return Runs(_table(first), _table(count), start, source, tap, step, move)


def _flat(lists: list[list[Meeting]]) -> tuple[Table, Table, Table]:
    start = _table([0, *itertools.accumulate(map(len, lists))])
    source, tap = (_table([meeting[i] for each in lists for meeting in each]) for i in (0, 1))
    return start, source, tap


def _table(numbers: list[int]) -> Table:
    return np.array(numbers, dtype=np.int64)
