"""Convolution of every channel by a filter of its own, in one sweep over memory: an algorithm, made of loops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.algorithms import Plan
from xpconv.compiled.calls import Told, taken
from xpconv.compiled.compiler import loop, vector_bytes
from xpconv.compiled.counters import Table
from xpconv.compiled.meetings import Meetings, meetings
from xpconv.compiled.registers import REGISTERS
from xpconv.compiled.slides import Course, correlate, course, weigh
from xpconv.compiled.sweeps import sweep
from xpconv.compiled.turns import claim
from xpconv.windows import Axis, Window

Host = np.ndarray[Any, Any]
VECTORS, APART = 2, REGISTERS // 8  # of channels that are taken at a time; and of columns that are apart
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
        """Lay the weight out for the slides of windows."""
        last = plan.window.axes[-1]
        return _laid(weight, course(last), _vectors(weight, last))

    def convolve(self, x: Host, weight: Host, bias: Host | None, plan: Plan, prepared: Host | None = None) -> Host:
        """Sum over the taps of every window: (N, *size, C) to (N, *output, C)."""
        window, way, vectors = plan.window, course(plan.window.axes[-1]), _vectors(x, plan.window.axes[-1])
        laid = _laid(weight, way, vectors) if prepared is None else prepared
        return _summed(x, window.output, meetings(window), way, vectors, laid, bias)

    def input_gradient(self, dy: Host, weight: Host, plan: Plan, bias: Host | None = None) -> Host:
        """Give every element its share of dy, and a bias: (N, *output, C) to (N, *size, C)."""
        window, last = plan.window, plan.window.axes[-1]
        met, way, vectors = meetings(window, adjoint=True), course(last, adjoint=True), _vectors(dy, last)
        laid = _laid(weight, way, vectors)
        return _summed(dy, window.size, met, way, vectors, laid, bias)

    def weight_gradient(self, x: Host, dy: Host, plan: Plan) -> Host:
        """Correlate the input with dy: (N, *size, C) and (N, *output, C) to (*kernel, 1, C)."""
        window, channels, way = plan.window, x.shape[-1], course(plan.window.axes[-1])
        vectors = _vectors(x, window.axes[-1])
        blocks, width = _blocks(x, vectors)
        shares = np.zeros((SHARES, blocks, window.taps // way.most, way.most, width), x.dtype)
        more = way.columns, channels, meetings(window), way.slides, shares.shape, shares.reshape(-1)
        sweep(_correlate, (x, dy), SHARES, way.shape(vectors), *more)
        taps = np.moveaxis(shares.sum(axis=0), 0, 2).reshape(*window.kernel, 1, blocks * width)
        return np.ascontiguousarray(taps[..., :channels])


def _summed(
    x: Host, size: tuple[int, ...], plan: Told[Meetings], way: Course, vectors: int, laid: Host, bias: Host | None
) -> Host:
    """Sum up for every target, of which there are so many, over what it meets."""
    y = np.empty((x.shape[0], *size, x.shape[-1]), x.dtype)
    blocks, width = _blocks(x, vectors)
    begin = np.zeros(blocks * width, x.dtype)
    if bias is not None:
        begin[: len(bias)] = bias
    jobs, more = x.shape[0] * plan.value.target[0], (x.shape[-1], width, plan, way.slides, laid.reshape(-1), begin)
    sweep(_weigh, (x, y), jobs, way.shape(vectors), way.columns, *more)
    return y


def _laid(weight: Host, way: Course, vectors: int) -> Host:
    """(*kernel, 1, C) to (B, S, numbers): for every slide its rows of taps, in the order of its columns."""
    *outer, last, _, channels = weight.shape
    blocks, width = _blocks(weight, vectors)
    padded = np.zeros((math.prod(outer), last, blocks * width), weight.dtype)
    padded[..., :channels] = weight.reshape(-1, last, channels)
    by_block = np.moveaxis(padded.reshape(-1, last, blocks, width), 2, 0)
    laid = np.zeros((blocks, len(way.taps), len(padded) * way.most * width), weight.dtype)
    for slide, taps in enumerate(way.taps):
        chosen = by_block[:, :, list(taps)].reshape(blocks, -1)
        laid[:, slide, : chosen.shape[1]] = chosen
    return laid


def _vectors(array: Host, axis: Axis) -> int:
    """Choose how many vectors of channels to take at a time."""
    return APART if axis.stride > 1 and array.shape[-1] * array.itemsize >= APART * vector_bytes() else VECTORS


def _blocks(array: Host, vectors: int) -> tuple[int, int]:
    """Return in how many blocks its channels are taken, and how many there are in a block."""
    width = vectors * (vector_bytes() // array.itemsize)
    return math.ceil(array.shape[-1] / width), width


@loop
def _weigh(board: Table, mine: int, given: Any, kind: Any) -> None:
    x, y, shape, most, channels, width, plan, slides, laid, bias = taken(given, kind)
    (tall, apart, _), fewer = shape, most[1:]
    stride = len(apart)
    rows, source, tap, row = plan.rows, plan.rows.source, plan.rows.tap, plan.source[1] * channels
    blocks = (channels + width - 1) // width
    size = len(laid) // (blocks * len(slides.first))
    job = claim(board, mine)
    while job >= 0:
        n, r = divmod(job, plan.target[0])
        image = n * plan.source[0] * row
        for s in range(len(slides.first)):
            step, pitch, taps = slides.step[s] * channels, slides.pitch[s] * channels, slides.taps[s]
            met = (rows.start[r], rows.start[r + 1] if taps else rows.start[r], row)
            for p in range(0, slides.length[s], len(tall)):
                on = p * stride
                bounds = (slides.low[s] - on, slides.high[s] - on, slides.length[s] - p)
                first = image + (slides.start[s] + on * slides.pitch[s]) * channels
                to = (job * plan.target[1] + slides.first[s]) * channels + p * step
                for block in range(blocks):
                    c = block * width
                    at, left = (c, first + c, (block * len(slides.first) + s) * size, to + c), channels - c
                    if taps < len(most):
                        weigh(shape, fewer, at, bias, x, pitch, bounds, met, source, tap, laid, y, step, left)
                    else:
                        weigh(shape, most, at, bias, x, pitch, bounds, met, source, tap, laid, y, step, left)
        job = claim(board, mine)


@loop
def _correlate(board: Table, mine: int, given: Any, kind: Any) -> None:
    x, dy, shape, most, channels, plan, slides, (parts, blocks, taps, _, width), sums = taken(given, kind)
    tall, apart, _ = shape
    stride = len(apart)
    rows, height, row = plan.rows, plan.target[0], plan.source[1] * channels
    jobs = len(dy) // (height * plan.target[1] * channels)
    part = claim(board, mine)
    while part >= 0:
        for job in range(part * jobs * height // parts, (part + 1) * jobs * height // parts):
            n, r = divmod(job, height)
            for i in range(rows.start[r], rows.start[r + 1]):
                origin = (n * plan.source[0] + rows.source[i]) * row
                for block in range(blocks):
                    c = block * width
                    to = ((part * blocks + block) * taps + rows.tap[i]) * len(most) * width
                    for s in range(len(slides.first)):
                        step, pitch = slides.step[s] * channels, slides.pitch[s] * channels
                        for p in range(0, slides.length[s], len(tall)):
                            on = p * stride
                            bounds = (slides.low[s] - on, slides.high[s] - on, slides.length[s] - p)
                            first = origin + (slides.start[s] + on * slides.pitch[s]) * channels + c
                            found = (job * plan.target[1] + slides.first[s]) * channels + p * step + c
                            at = to, first, found
                            correlate(shape, most, at, sums, x, pitch, bounds, dy, step, channels - c)
        part = claim(board, mine)
