"""Convolution of every channel by a filter of its own, in one sweep over memory: an algorithm, made of loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.algorithms import Plan
from xpconv.compiled.compiler import loop
from xpconv.compiled.meetings import Meetings, Table, meetings
from xpconv.compiled.sweeps import sweep
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
        """Whether the windows' stride would make several convolutions of the gradient."""
        return window.strided

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
        shares = np.zeros((SHARES, window.taps, channels), x.dtype)
        sweep(_weight_gradient, meetings(window), (x,), (dy,), shares, jobs=SHARES)
        dweight: Host = shares.sum(axis=0).reshape(*window.kernel, 1, channels)
        return dweight


def _summed(x: Host, size: tuple[int, ...], plan: Meetings, by_tap: Host, bias: Host | None) -> Host:
    y = np.empty((x.shape[0], *size, x.shape[-1]), x.dtype)
    bias = np.zeros(x.shape[-1], x.dtype) if bias is None else np.ascontiguousarray(bias)
    sweep(_weighted_sum, plan, (x,), (y,), by_tap, bias)
    return y


@loop
def _meet(plan: Meetings, r: int, s: int, source: Table, tap: Table) -> int:
    """Write down what the first target of run s in row r meets, flat over rows and width; return how many they are."""
    rows, runs, count = plan.rows, plan.runs, 0
    for i in range(rows.start[r], rows.start[r + 1]):
        for j in range(runs.start[s], runs.start[s + 1]):
            source[count] = rows.source[i] * plan.source[1] + runs.source[j]
            tap[count] = rows.tap[i] * plan.taps + runs.tap[j]
            count += 1
    return count


@loop
def _weighted_sum(x: Host, y: Host, plan: Meetings, start: int, stop: int, weight: Host, bias: Host) -> None:
    rows, runs = plan.rows, plan.runs
    height, step, move = len(rows.start) - 1, plan.runs.step, plan.runs.move
    elements = x.reshape(len(x), x.shape[1] * x.shape[2], x.shape[3])
    windows = y.reshape(len(y), y.shape[1] * y.shape[2], y.shape[3])
    source, tap = np.empty(len(weight), np.int64), np.empty(len(weight), np.int64)
    for job in range(start, stop):
        n, r = divmod(job, height)
        given, made = elements[n], windows[n]
        for s in range(len(runs.first)):
            count = _meet(plan, r, s, source, tap)
            at, length, p = r * plan.target[1] + runs.first[s], runs.length[s], 0
            if count == 9 and source[2] - source[0] == 2 * move == 2:
                p = _nine(given, made, at, step, length, source, tap, weight, bias)
            elif count == 9:
                p = _nine_apart(given, made, at, step, length, move, source, tap, weight, bias)
            while p + 4 <= length:  # four targets at a time: each weight that is read serves all of them
                _four(given, made, at + p * step, step, p * move, move, source, tap, count, weight, bias)
                p += 4
            while p < length:
                _one(given, made[at + p * step], p * move, source, tap, count, weight, bias)
                p += 1


@loop
def _nine(
    given: Host, made: Host, at: int, step: int, length: int, source: Table, tap: Table, weight: Host, bias: Host
) -> int:
    """Sum three times three neighbours for four targets at a time, which share them; return how many are made."""
    w0, w1, w2, w3, w4 = weight[tap[0]], weight[tap[1]], weight[tap[2]], weight[tap[3]], weight[tap[4]]
    w5, w6, w7, w8 = weight[tap[5]], weight[tap[6]], weight[tap[7]], weight[tap[8]]
    p = 0
    while p + 4 <= length:
        y0, y1 = made[at + p * step], made[at + (p + 1) * step]
        y2, y3 = made[at + (p + 2) * step], made[at + (p + 3) * step]
        i, j, k = source[0] + p, source[3] + p, source[6] + p
        a0, a1, a2, a3, a4, a5 = given[i], given[i + 1], given[i + 2], given[i + 3], given[i + 4], given[i + 5]
        b0, b1, b2, b3, b4, b5 = given[j], given[j + 1], given[j + 2], given[j + 3], given[j + 4], given[j + 5]
        d0, d1, d2, d3, d4, d5 = given[k], given[k + 1], given[k + 2], given[k + 3], given[k + 4], given[k + 5]
        for c in range(len(bias)):
            u, v, w, z = w0[c], w1[c], w2[c], bias[c]
            x0, x1, x2, x3, x4, x5 = a0[c], a1[c], a2[c], a3[c], a4[c], a5[c]
            s0 = z + u * x0 + v * x1 + w * x2
            s1 = z + u * x1 + v * x2 + w * x3
            s2 = z + u * x2 + v * x3 + w * x4
            s3 = z + u * x3 + v * x4 + w * x5
            u, v, w = w3[c], w4[c], w5[c]
            x0, x1, x2, x3, x4, x5 = b0[c], b1[c], b2[c], b3[c], b4[c], b5[c]
            s0 += u * x0 + v * x1 + w * x2
            s1 += u * x1 + v * x2 + w * x3
            s2 += u * x2 + v * x3 + w * x4
            s3 += u * x3 + v * x4 + w * x5
            u, v, w = w6[c], w7[c], w8[c]
            x0, x1, x2, x3, x4, x5 = d0[c], d1[c], d2[c], d3[c], d4[c], d5[c]
            y0[c] = s0 + (u * x0 + v * x1 + w * x2)
            y1[c] = s1 + (u * x1 + v * x2 + w * x3)
            y2[c] = s2 + (u * x2 + v * x3 + w * x4)
            y3[c] = s3 + (u * x3 + v * x4 + w * x5)
        p += 4
    return p


@loop
def _nine_apart(
    given: Host,
    made: Host,
    at: int,
    step: int,
    length: int,
    move: int,
    source: Table,
    tap: Table,
    weight: Host,
    bias: Host,
) -> int:
    """Sum nine that lie anywhere for two targets at a time; return how many are made."""
    w0, w1, w2, w3, w4 = weight[tap[0]], weight[tap[1]], weight[tap[2]], weight[tap[3]], weight[tap[4]]
    w5, w6, w7, w8 = weight[tap[5]], weight[tap[6]], weight[tap[7]], weight[tap[8]]
    p = 0
    while p + 2 <= length:
        y0, y1, i, j = made[at + p * step], made[at + (p + 1) * step], p * move, (p + 1) * move
        a0, a1, a2 = given[source[0] + i], given[source[1] + i], given[source[2] + i]
        a3, a4, a5 = given[source[3] + i], given[source[4] + i], given[source[5] + i]
        a6, a7, a8 = given[source[6] + i], given[source[7] + i], given[source[8] + i]
        b0, b1, b2 = given[source[0] + j], given[source[1] + j], given[source[2] + j]
        b3, b4, b5 = given[source[3] + j], given[source[4] + j], given[source[5] + j]
        b6, b7, b8 = given[source[6] + j], given[source[7] + j], given[source[8] + j]
        for c in range(len(bias)):
            u, v, w = w0[c], w1[c], w2[c]
            s0 = bias[c] + u * a0[c] + v * a1[c] + w * a2[c]
            s1 = bias[c] + u * b0[c] + v * b1[c] + w * b2[c]
            u, v, w = w3[c], w4[c], w5[c]
            s0 += u * a3[c] + v * a4[c] + w * a5[c]
            s1 += u * b3[c] + v * b4[c] + w * b5[c]
            u, v, w = w6[c], w7[c], w8[c]
            y0[c] = s0 + (u * a6[c] + v * a7[c] + w * a8[c])
            y1[c] = s1 + (u * b6[c] + v * b7[c] + w * b8[c])
        p += 2
    return p


@loop
def _four(
    given: Host,
    made: Host,
    at: int,
    step: int,
    on: int,
    move: int,
    source: Table,
    tap: Table,
    count: int,
    weight: Host,
    bias: Host,
) -> None:
    y0, y1, y2, y3 = made[at], made[at + step], made[at + 2 * step], made[at + 3 * step]
    for c in range(len(bias)):
        y0[c] = y1[c] = y2[c] = y3[c] = bias[c]
    e = 0
    while e + 3 <= count:
        u, v, w = weight[tap[e]], weight[tap[e + 1]], weight[tap[e + 2]]
        a, b, d = source[e] + on, source[e + 1] + on, source[e + 2] + on
        a0, a1, a2, a3 = given[a], given[a + move], given[a + 2 * move], given[a + 3 * move]
        b0, b1, b2, b3 = given[b], given[b + move], given[b + 2 * move], given[b + 3 * move]
        d0, d1, d2, d3 = given[d], given[d + move], given[d + 2 * move], given[d + 3 * move]
        for c in range(len(bias)):
            y0[c] += u[c] * a0[c] + v[c] * b0[c] + w[c] * d0[c]
            y1[c] += u[c] * a1[c] + v[c] * b1[c] + w[c] * d1[c]
            y2[c] += u[c] * a2[c] + v[c] * b2[c] + w[c] * d2[c]
            y3[c] += u[c] * a3[c] + v[c] * b3[c] + w[c] * d3[c]
        e += 3
    while e < count:
        u, a = weight[tap[e]], source[e] + on
        a0, a1, a2, a3 = given[a], given[a + move], given[a + 2 * move], given[a + 3 * move]
        for c in range(len(bias)):
            y0[c] += u[c] * a0[c]
            y1[c] += u[c] * a1[c]
            y2[c] += u[c] * a2[c]
            y3[c] += u[c] * a3[c]
        e += 1


@loop
def _one(given: Host, y: Host, on: int, source: Table, tap: Table, count: int, weight: Host, bias: Host) -> None:
    for c in range(len(bias)):
        y[c] = bias[c]
    e = 0
    while e + 3 <= count:
        u, v, w = weight[tap[e]], weight[tap[e + 1]], weight[tap[e + 2]]
        a, b, d = given[source[e] + on], given[source[e + 1] + on], given[source[e + 2] + on]
        for c in range(len(bias)):
            y[c] += u[c] * a[c] + v[c] * b[c] + w[c] * d[c]
        e += 3
    while e < count:
        u, a = weight[tap[e]], given[source[e] + on]
        for c in range(len(bias)):
            y[c] += u[c] * a[c]
        e += 1


@loop
def _weight_gradient(x: Host, dy: Host, plan: Meetings, start: int, stop: int, shares: Host) -> None:
    rows, runs = plan.rows, plan.runs
    height, step, move = len(rows.start) - 1, plan.runs.step, plan.runs.move
    elements = x.reshape(len(x), x.shape[1] * x.shape[2], x.shape[3])
    windows = dy.reshape(len(dy), dy.shape[1] * dy.shape[2], dy.shape[3])
    parts, taps, channels = shares.shape
    source, tap = np.empty(taps, np.int64), np.empty(taps, np.int64)
    for share in range(start, stop):
        dweight = shares[share]
        for job in range(share * len(x) * height // parts, (share + 1) * len(x) * height // parts):
            n, r = divmod(job, height)
            given, found = elements[n], windows[n]
            for s in range(len(runs.first)):
                count, first, e = _meet(plan, r, s, source, tap), r * plan.target[1] + runs.first[s], 0
                while e < count:
                    three, p, at = e + 3 <= count, 0, first
                    k, m = (e + 1, e + 2) if three else (e, e)
                    sums, sums1, sums2 = dweight[tap[e]], dweight[tap[k]], dweight[tap[m]]
                    a, b, d = source[e], source[k], source[m]
                    while three and p + 4 <= runs.length[s]:  # three taps of four windows at a time
                        y0, y1, y2, y3 = found[at], found[at + step], found[at + 2 * step], found[at + 3 * step]
                        a0, a1, a2, a3 = given[a], given[a + move], given[a + 2 * move], given[a + 3 * move]
                        b0, b1, b2, b3 = given[b], given[b + move], given[b + 2 * move], given[b + 3 * move]
                        d0, d1, d2, d3 = given[d], given[d + move], given[d + 2 * move], given[d + 3 * move]
                        for c in range(channels):
                            z0, z1, z2, z3 = y0[c], y1[c], y2[c], y3[c]
                            sums[c] += a0[c] * z0 + a1[c] * z1 + a2[c] * z2 + a3[c] * z3
                            sums1[c] += b0[c] * z0 + b1[c] * z1 + b2[c] * z2 + b3[c] * z3
                            sums2[c] += d0[c] * z0 + d1[c] * z1 + d2[c] * z2 + d3[c] * z3
                        p, at, a, b, d = p + 4, at + 4 * step, a + 4 * move, b + 4 * move, d + 4 * move
                    while p < runs.length[s]:
                        x0, x1, x2, y0 = given[a], given[b], given[d], found[at]
                        for c in range(channels):
                            sums[c] += x0[c] * y0[c]
                        if three:
                            for c in range(channels):
                                sums1[c] += x1[c] * y0[c]
                                sums2[c] += x2[c] * y0[c]
                        p, at, a, b, d = p + 1, at + step, a + move, b + move, d + move
                    e = m + 1
