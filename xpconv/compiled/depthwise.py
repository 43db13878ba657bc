"""Convolution of every channel by a filter of its own, in one sweep over memory, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.compiled.compiler import loop
from xpconv.compiled.meetings import Meetings, Table, meetings
from xpconv.compiled.sweeps import sweep
from xpconv.libraries import Pullback
from xpconv.windows import Window

Host = np.ndarray[Any, Any]


def depthwise(x: Host, weight: Host, bias: Host | None, window: Window) -> tuple[Host, Pullback]:
    """Sum over the taps of every window: (N, *size, C) and (*kernel, C) to (N, *output, C).

    The pullback gives the gradients of x and weight as functions, each of which is called only if it is wanted.
    """
    y = np.empty((x.shape[0], *window.output, x.shape[-1]), x.dtype)
    nothing = np.zeros(x.shape[-1], x.dtype)
    by_tap = np.ascontiguousarray(weight).reshape(window.taps, x.shape[-1])
    sweep(_weighted_sum, meetings(window), (x,), (y,), by_tap, nothing if bias is None else np.ascontiguousarray(bias))

    def pullback(dy: Host) -> tuple[Callable[[], Host], Callable[[], Host]]:
        def input_gradient() -> Host:
            dx = np.empty(x.shape, x.dtype)
            sweep(_weighted_sum, meetings(window, adjoint=True), (dy,), (dx,), by_tap, nothing)
            return dx

        def weight_gradient() -> Host:
            by_sample = np.zeros((x.shape[0], *by_tap.shape), x.dtype)
            sweep(_weight_gradient, meetings(window), (x,), (dy,), by_sample, samples=True)
            dweight: Host = by_sample.sum(axis=0).reshape(weight.shape)
            return dweight

        return input_gradient, weight_gradient

    return y, pullback


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
            at, on, p = r * plan.target[1] + runs.first[s], 0, 0
            while p < runs.length[s]:
                wide = p + 4 <= runs.length[s]
                y0 = made[at]
                for c in range(len(bias)):
                    y0[c] = bias[c]
                e = 0
                if wide:  # four targets at a time: each weight that is read serves all of them
                    y1, y2, y3 = made[at + step], made[at + 2 * step], made[at + 3 * step]
                    for c in range(len(bias)):
                        y1[c] = y2[c] = y3[c] = bias[c]
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
                    p, at, on = p + 4, at + 4 * step, on + 4 * move
                else:
                    while e + 3 <= count:
                        u, v, w = weight[tap[e]], weight[tap[e + 1]], weight[tap[e + 2]]
                        a0, b0, d0 = given[source[e] + on], given[source[e + 1] + on], given[source[e + 2] + on]
                        for c in range(len(bias)):
                            y0[c] += u[c] * a0[c] + v[c] * b0[c] + w[c] * d0[c]
                        e += 3
                    while e < count:
                        u, a0 = weight[tap[e]], given[source[e] + on]
                        for c in range(len(bias)):
                            y0[c] += u[c] * a0[c]
                        e += 1
                    p, at, on = p + 1, at + step, on + move


@loop
def _weight_gradient(x: Host, dy: Host, plan: Meetings, start: int, stop: int, by_sample: Host) -> None:
    rows, runs = plan.rows, plan.runs
    height, step, move = len(rows.start) - 1, plan.runs.step, plan.runs.move
    elements = x.reshape(len(x), x.shape[1] * x.shape[2], x.shape[3])
    windows = dy.reshape(len(dy), dy.shape[1] * dy.shape[2], dy.shape[3])
    taps = by_sample.shape[1]
    source, tap = np.empty(taps, np.int64), np.empty(taps, np.int64)
    for n in range(start, stop):
        given, found, dweight = elements[n], windows[n], by_sample[n]
        for r in range(height):
            for s in range(len(runs.first)):
                for e in range(_meet(plan, r, s, source, tap)):
                    sums, a, at, p = dweight[tap[e]], source[e], r * plan.target[1] + runs.first[s], 0
                    while p < runs.length[s]:
                        x0, y0 = given[a], found[at]
                        if p + 4 <= runs.length[s]:
                            x1, x2, x3 = given[a + move], given[a + 2 * move], given[a + 3 * move]
                            y1, y2, y3 = found[at + step], found[at + 2 * step], found[at + 3 * step]
                            for c in range(len(sums)):
                                sums[c] += x0[c] * y0[c] + x1[c] * y1[c] + x2[c] * y2[c] + x3[c] * y3[c]
                            p, a, at = p + 4, a + 4 * move, at + 4 * step
                        else:
                            for c in range(len(sums)):
                                sums[c] += x0[c] * y0[c]
                            p, a, at = p + 1, a + move, at + step
