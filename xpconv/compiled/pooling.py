"""Maxima and means over windows, each in one sweep over memory. Arrays are (N, ..., C), their channels last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpconv.arrays.libraries import Pullback
from xpconv.compiled.calls import Told, taken
from xpconv.compiled.compiler import loop
from xpconv.compiled.counters import Table
from xpconv.compiled.lines import exceeds, load, repeat, store, where, width_for
from xpconv.compiled.meetings import Meetings, meet, meetings
from xpconv.compiled.sweeps import sweep
from xpconv.compiled.turns import claim
from xpconv.windows import Window

Host = np.ndarray[Any, Any]


def largest(x: Host, window: Window) -> tuple[Host, Pullback]:
    """Take the largest element of every window: (N, *size, C) to (N, *output, C).

    NaN is above all numbers. The gradient goes to the first of equals, whose tap is all that is kept.
    """
    y = np.empty((x.shape[0], *window.output, x.shape[-1]), x.dtype)
    tap = np.empty(y.shape, np.min_scalar_type(window.taps - 1))
    _sweep(_largest, meetings(window), (x, y, tap))

    def pullback(dy: Host) -> tuple[Host]:
        dx = np.empty((dy.shape[0], *window.size, dy.shape[-1]), dy.dtype)
        _sweep(_to_largest, meetings(window, adjoint=True), (dy, tap, dx))
        return (dx,)

    return y, pullback


def mean(x: Host, window: Window, members: Sequence[Sequence[float]]) -> tuple[Host, Pullback]:
    """Take the mean of every window, of so many members along each axis: (N, *size, C) to (N, *output, C)."""
    count, share = _counted(tuple(members), x.dtype)
    y = np.empty((x.shape[0], *window.output, x.shape[-1]), x.dtype)
    _sweep(_mean, meetings(window), (x, y), count)

    def pullback(dy: Host) -> tuple[Host]:
        dx = np.empty((dy.shape[0], *window.size, dy.shape[-1]), dy.dtype)
        _sweep(_spread, meetings(window, adjoint=True), (dy, dx), share)
        return (dx,)

    return y, pullback


def _sweep(function: Callable[..., None], plan: Told[Meetings], arrays: Sequence[Host], *more: Host) -> None:
    """Call a loop on all rows of targets."""
    first, channels = arrays[0], arrays[0].shape[-1]
    width = width_for(channels, max(array.itemsize for array in arrays))
    sweep(function, arrays, first.shape[0] * plan.value.target[0], channels, width, plan, *more)


@functools.lru_cache(maxsize=256)
def _counted(members: tuple[Sequence[float], ...], dtype: np.dtype[Any]) -> tuple[Host, Host]:
    """Say of all windows, one after the other, how many members each has, and the share of each of them."""
    count: Host = functools.reduce(np.multiply.outer, (np.array(along, dtype) for along in members)).reshape(-1)
    return count, 1 / count


@loop
def _largest(board: Table, mine: int, given: Any, kind: Any) -> None:
    x, y, tap, channels, width, plan = taken(given, kind)
    lanes, runs = len(width), plan.runs
    source, number = np.empty(plan.taps[0], np.int64), np.empty(plan.taps[0], np.int64)
    job = claim(board, mine)
    while job >= 0:
        for s in range(len(runs.first)):
            place = meet(plan, job, s, source, number)
            for p in range(place.last + 1):
                to, on = (place.first + p * runs.step) * channels, p * runs.move * channels
                for b in range(0, channels, lanes):
                    c = min(b, channels - lanes)
                    best = load(x, source[0] * channels + on + c, width)
                    found = repeat(tap.dtype.type(number[0]), width)
                    for e in range(1, place.met):
                        value = load(x, source[e] * channels + on + c, width)
                        above = exceeds(value, best)
                        best = where(above, value, best)
                        found = where(above, repeat(tap.dtype.type(number[e]), width), found)
                    store(y, to + c, best)
                    store(tap, to + c, found)
        job = claim(board, mine)


@loop
def _to_largest(board: Table, mine: int, given: Any, kind: Any) -> None:
    dy, tap, dx, channels, width, plan = taken(given, kind)
    lanes, runs = len(width), plan.runs
    source, number = np.empty(plan.taps[0], np.int64), np.empty(plan.taps[0], np.int64)
    none = repeat(dx.dtype.type(0), width)
    job = claim(board, mine)
    while job >= 0:
        for s in range(len(runs.first)):
            place = meet(plan, job, s, source, number)
            for p in range(place.last + 1):
                to, on = (place.first + p * runs.step) * channels, p * runs.move * channels
                for b in range(0, channels, lanes):
                    c, total = min(b, channels - lanes), none
                    for e in range(place.met):
                        at = source[e] * channels + on + c
                        chosen = load(tap, at, width) == repeat(tap.dtype.type(number[e]), width)
                        total = total + where(chosen, load(dy, at, width), none)
                    store(dx, to + c, total)
        job = claim(board, mine)


@loop
def _mean(board: Table, mine: int, given: Any, kind: Any) -> None:
    x, y, channels, width, plan, members = taken(given, kind)
    lanes, runs = len(width), plan.runs
    source, number = np.empty(plan.taps[0], np.int64), np.empty(plan.taps[0], np.int64)
    none = repeat(y.dtype.type(0), width)
    job = claim(board, mine)
    while job >= 0:
        for s in range(len(runs.first)):
            place = meet(plan, job, s, source, number)
            for p in range(place.last + 1):
                window, on = place.first + p * runs.step, p * runs.move * channels
                count = repeat(members[window % len(members)], width)
                for b in range(0, channels, lanes):
                    c, total = min(b, channels - lanes), none
                    for e in range(place.met):
                        total = total + load(x, source[e] * channels + on + c, width)
                    store(y, window * channels + c, total / count)
        job = claim(board, mine)


@loop
def _spread(board: Table, mine: int, given: Any, kind: Any) -> None:
    dy, dx, channels, width, plan, share = taken(given, kind)
    lanes, runs = len(width), plan.runs
    source, number = np.empty(plan.taps[0], np.int64), np.empty(plan.taps[0], np.int64)
    none = repeat(dx.dtype.type(0), width)
    job = claim(board, mine)
    while job >= 0:
        for s in range(len(runs.first)):
            place = meet(plan, job, s, source, number)
            for p in range(place.last + 1):
                to = (place.first + p * runs.step) * channels
                for b in range(0, channels, lanes):
                    c, total = min(b, channels - lanes), none
                    for e in range(place.met):
                        window = source[e] + p * runs.move
                        total = total + repeat(share[window % len(share)], width) * load(
                            dy, window * channels + c, width
                        )
                    store(dx, to + c, total)
        job = claim(board, mine)
