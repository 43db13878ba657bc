"""Maxima and sums over windows, each in one sweep over memory. Arrays are (N, rows, width, C), their channels last."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv.arrays.libraries import Pullback
from xpconv.compiled.compiler import loop
from xpconv.compiled.meetings import Meetings, meetings
from xpconv.compiled.sweeps import sweep
from xpconv.windows import Window

Host = np.ndarray[Any, Any]


def largest(x: Host, window: Window) -> tuple[Host, Pullback]:
    """Take the largest element of every window: (N, *size, C) to (N, *output, C).

    NaN is above all numbers. The gradient goes to the first of equals, whose tap is all that is kept.
    """
    plan = meetings(window)
    y = np.empty((x.shape[0], *window.output, x.shape[-1]), x.dtype)
    tap = np.empty(y.shape, np.min_scalar_type(window.taps - 1))
    sweep(_largest, plan, (x,), (y, tap))

    def pullback(dy: Host) -> tuple[Host]:
        dx = np.empty((dy.shape[0], *window.size, dy.shape[-1]), dy.dtype)
        sweep(_to_largest, plan, (dx,), (dy, tap), _tiling(window), jobs=len(dx))
        return (dx,)

    return y, pullback


def mean(x: Host, window: Window, members: Sequence[Sequence[float]]) -> tuple[Host, Pullback]:
    """Take the mean of every window, of so many members along each axis: (N, *size, C) to (N, *output, C)."""
    plan = meetings(window)
    *outer, last = (np.array(along, x.dtype) for along in members)
    by_row = functools.reduce(np.multiply.outer, outer, np.ones((), x.dtype)).reshape(-1)
    y = np.empty((x.shape[0], *window.output, x.shape[-1]), x.dtype)
    sweep(_mean, plan, (x,), (y,), by_row, last)

    def pullback(dy: Host) -> tuple[Host]:
        dx = np.empty((dy.shape[0], *window.size, dy.shape[-1]), dy.dtype)
        sweep(_spread, plan, (dx,), (dy,), by_row, last, _tiling(window), jobs=len(dx))
        return (dx,)

    return y, pullback


def _tiling(window: Window) -> bool:
    """Whether every element is in one window and no more."""
    return all(axis.abutting and axis.margin == (0, 0) for axis in window.axes)


@loop
def _largest(x: Host, y: Host, tap: Host, plan: Meetings, start: int, stop: int) -> None:
    rows, runs, taps = plan.rows, plan.runs, plan.taps
    height = len(rows.start) - 1
    for job in range(start, stop):
        n, r = divmod(job, height)
        for s in range(len(runs.first)):
            last = runs.start[s + 1] - 1
            for p in range(runs.length[s]):
                at, on = runs.first[s] + p * runs.step, p * runs.move
                best, found, fresh = y[n, r, at], tap[n, r, at], True
                for i in range(rows.start[r], rows.start[r + 1]):
                    row = x[n, rows.source[i]]
                    for j in range(runs.start[s], last + 1, 3):  # three at a time, the last ones again where it ends
                        k, m = min(j + 1, last), min(j + 2, last)
                        x0, x1, x2 = row[runs.source[j] + on], row[runs.source[k] + on], row[runs.source[m] + on]
                        t0 = tap.dtype.type(rows.tap[i] * taps + runs.tap[j])
                        t1 = tap.dtype.type(rows.tap[i] * taps + runs.tap[k])
                        t2 = tap.dtype.type(rows.tap[i] * taps + runs.tap[m])
                        for c in range(len(best)):
                            value, here = (x0[c], t0) if fresh else (best[c], found[c])
                            above = (not x0[c] <= value) & (value == value)
                            value, here = (x0[c], t0) if above else (value, here)
                            above = (not x1[c] <= value) & (value == value)
                            value, here = (x1[c], t1) if above else (value, here)
                            above = (not x2[c] <= value) & (value == value)
                            value, here = (x2[c], t2) if above else (value, here)
                            best[c], found[c] = value, here
                        fresh = False


@loop
def _to_largest(dx: Host, dy: Host, tap: Host, plan: Meetings, start: int, stop: int, tiling: bool) -> None:
    rows, runs, taps = plan.rows, plan.runs, plan.taps
    none = dx.dtype.type(0)
    for n in range(start, stop):
        if not tiling:
            dx[n] = none
        for r in range(len(rows.start) - 1):
            for s in range(len(runs.first)):
                for p in range(runs.length[s]):
                    at, on = runs.first[s] + p * runs.step, p * runs.move
                    share, chosen = dy[n, r, at], tap[n, r, at]
                    for i in range(rows.start[r], rows.start[r + 1]):
                        row = dx[n, rows.source[i]]
                        for j in range(runs.start[s], runs.start[s + 1]):
                            x, here = row[runs.source[j] + on], tap.dtype.type(rows.tap[i] * taps + runs.tap[j])
                            for c in range(len(share)):
                                given = share[c] if chosen[c] == here else none
                                x[c] = given if tiling else x[c] + given


@loop
def _mean(x: Host, y: Host, plan: Meetings, start: int, stop: int, by_row: Host, along: Host) -> None:
    rows, runs = plan.rows, plan.runs
    height = len(rows.start) - 1
    none = y.dtype.type(0)
    for job in range(start, stop):
        n, r = divmod(job, height)
        for s in range(len(runs.first)):
            for p in range(runs.length[s]):
                at, on = runs.first[s] + p * runs.step, p * runs.move
                total, fresh = y[n, r, at], True
                for i in range(rows.start[r], rows.start[r + 1]):
                    row = x[n, rows.source[i]]
                    j, end = runs.start[s], runs.start[s + 1]
                    while j + 3 <= end:
                        x0, x1, x2 = (
                            row[runs.source[j] + on],
                            row[runs.source[j + 1] + on],
                            row[runs.source[j + 2] + on],
                        )
                        for c in range(len(total)):
                            total[c] = (none if fresh else total[c]) + (x0[c] + x1[c] + x2[c])
                        j, fresh = j + 3, False
                    while j < end:
                        x0 = row[runs.source[j] + on]
                        for c in range(len(total)):
                            total[c] = (none if fresh else total[c]) + x0[c]
                        j, fresh = j + 1, False
                count = by_row[r] * along[at]
                for c in range(len(total)):
                    total[c] /= count


@loop
def _spread(dx: Host, dy: Host, plan: Meetings, start: int, stop: int, by_row: Host, along: Host, tiling: bool) -> None:
    rows, runs = plan.rows, plan.runs
    for n in range(start, stop):
        if not tiling:
            dx[n] = dx.dtype.type(0)
        for r in range(len(rows.start) - 1):
            for s in range(len(runs.first)):
                for p in range(runs.length[s]):
                    at, on = runs.first[s] + p * runs.step, p * runs.move
                    share, count = dy[n, r, at], by_row[r] * along[at]
                    for i in range(rows.start[r], rows.start[r + 1]):
                        row = dx[n, rows.source[i]]
                        for j in range(runs.start[s], runs.start[s + 1]):
                            x = row[runs.source[j] + on]
                            for c in range(len(share)):
                                x[c] = share[c] / count if tiling else x[c] + share[c] / count
