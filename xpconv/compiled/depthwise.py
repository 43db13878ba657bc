"""Convolution of every channel by a filter of its own, in one sweep over memory: an algorithm, made of loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.algorithms import Plan
from xpconv.compiled.compiler import loop
from xpconv.compiled.lines import Width, load, store
from xpconv.compiled.meetings import Meetings, meet, meetings
from xpconv.compiled.sweeps import sweep
from xpconv.compiled.turns import Turn, claim
from xpconv.windows import Window

Host = np.ndarray[Any, Any]
SHARES = 8  # of a weight's gradient: each is summed by itself, so that the bits do not depend on threads


@dataclass(frozen=True)
class Depthwise:
    """The way of as many groups and filters as channels: (*kernel, 1, C) are the weights."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whatever the window."""
        return True

    def adjoins(self, window: Window) -> bool:
        """Whatever the window: elements meet windows as windows meet elements."""
        return True

    def prepare(self, weight: Host, plan: Plan) -> Host:
        """(*kernel, 1, C) to (taps, C)."""
        return np.ascontiguousarray(weight).reshape(-1, weight.shape[-1])

    def convolve(self, x: Host, weight: Host, bias: Host | None, plan: Plan, prepared: Host | None = None) -> Host:
        """Sum over the taps of every window: (N, *size, C) to (N, *output, C)."""
        by_tap = self.prepare(weight, plan) if prepared is None else prepared
        return _summed(x, plan.window.output, meetings(plan.window), by_tap, bias)

    def input_gradient(self, dy: Host, weight: Host, plan: Plan, bias: Host | None = None) -> Host:
        """Give every element its share of dy, and a bias: (N, *output, C) to (N, *size, C)."""
        return _summed(dy, plan.window.size, meetings(plan.window, adjoint=True), self.prepare(weight, plan), bias)

    def weight_gradient(self, x: Host, dy: Host, plan: Plan) -> Host:
        """Correlate the input with dy: (N, *size, C) and (N, *output, C) to (*kernel, 1, C)."""
        window, channels = plan.window, x.shape[-1]
        shares = np.empty((SHARES, window.taps, channels), x.dtype)
        sweep(_weight_gradient, meetings(window), (x,), (dy,), shares, jobs=SHARES)
        dweight: Host = shares.sum(axis=0).reshape(*window.kernel, 1, channels)
        return dweight


def _summed(x: Host, size: tuple[int, ...], plan: Meetings, by_tap: Host, bias: Host | None) -> Host:
    y = np.empty((x.shape[0], *size, x.shape[-1]), x.dtype)
    bias = np.zeros(x.shape[-1], x.dtype) if bias is None else np.ascontiguousarray(bias)
    sweep(_weighted_sum, plan, (x,), (y,), by_tap.reshape(-1), bias)
    return y


@loop
def _weighted_sum(
    x: Host,
    y: Host,
    channels: int,
    width: Width,
    plan: Meetings,
    turn: Turn,
    weight: Host,
    bias: Host,
) -> None:
    lanes, step, move = len(width), plan.runs.step * channels, plan.runs.move * channels
    source, tap = np.empty(plan.taps[0], np.int64), np.empty(plan.taps[0], np.int64)
    job = claim(turn)
    while job >= 0:
        for s in range(len(plan.runs.first)):
            place, p = meet(plan, job, s, source, tap), 0
            to, on = place.first * channels, 0
            while p + 3 <= place.last:  # four targets at a time, which share what is read of the weight
                for b in range(0, channels, lanes):
                    c = min(b, channels - lanes)
                    sum0 = sum1 = sum2 = sum3 = load(bias, c, width)
                    for e in range(place.met):
                        at, line = source[e] * channels + on + c, load(weight, tap[e] * channels + c, width)
                        sum0 = sum0 + line * load(x, at, width)
                        sum1 = sum1 + line * load(x, at + move, width)
                        sum2 = sum2 + line * load(x, at + 2 * move, width)
                        sum3 = sum3 + line * load(x, at + 3 * move, width)
                    store(y, to + c, sum0)
                    store(y, to + step + c, sum1)
                    store(y, to + 2 * step + c, sum2)
                    store(y, to + 3 * step + c, sum3)
                p, to, on = p + 4, to + 4 * step, on + 4 * move
            while p <= place.last:
                for b in range(0, channels, lanes):
                    c = min(b, channels - lanes)
                    total = load(bias, c, width)
                    for e in range(place.met):
                        line = load(weight, tap[e] * channels + c, width)
                        total = total + line * load(x, source[e] * channels + on + c, width)
                    store(y, to + c, total)
                p, to, on = p + 1, to + step, on + move
        job = claim(turn)


@loop
def _weight_gradient(x: Host, dy: Host, channels: int, width: Width, plan: Meetings, turn: Turn, shares: Host) -> None:
    lanes, runs, (parts, taps, _) = len(width), plan.runs, shares.shape
    jobs = len(dy) // (plan.target[1] * channels)
    source, tap = np.empty(taps, np.int64), np.empty(taps, np.int64)
    sums = np.empty((channels + lanes - 1) // lanes * taps * lanes, x.dtype)  # by line, so that none overlap
    part = claim(turn)
    while part >= 0:
        sums[:] = 0
        for job in range(part * jobs // parts, (part + 1) * jobs // parts):
            for s in range(len(runs.first)):
                place = meet(plan, job, s, source, tap)
                for e in range(0, place.met, 3):  # three taps share what is read of dy, the last ones anew
                    f, g = min(e + 1, place.met - 1), min(e + 2, place.met - 1)
                    for b in range(0, channels, lanes):
                        c = min(b, channels - lanes)
                        to0, to1, to2 = b * taps + tap[e] * lanes, b * taps + tap[f] * lanes, b * taps + tap[g] * lanes
                        sum0, sum1, sum2 = load(sums, to0, width), load(sums, to1, width), load(sums, to2, width)
                        for p in range(place.last + 1):
                            line, on = load(dy, (place.first + p * runs.step) * channels + c, width), p * runs.move
                            sum0 = sum0 + line * load(x, (source[e] + on) * channels + c, width)
                            sum1 = sum1 + line * load(x, (source[f] + on) * channels + c, width)
                            sum2 = sum2 + line * load(x, (source[g] + on) * channels + c, width)
                        store(sums, to0, sum0)
                        store(sums, to1, sum1)
                        store(sums, to2, sum2)
        share = shares[part].reshape(-1)
        for b in range(0, channels, lanes):
            for k in range(taps):
                store(share, k * channels + min(b, channels - lanes), load(sums, b * taps + k * lanes, width))
        part = claim(turn)
