"""The way of groups with few channels: a sum over the taps, each a slice of the input times a row of numbers.

Lowering would copy every element once for each tap, for products too small to be worth it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from xpconv.algorithms import Plan
from xpconv.arrays.broadcasting import along
from xpconv.arrays.broadcasting import total as summed_over
from xpconv.arrays.libraries import Array, namespace_of, overlapping_view
from xpconv.execution.elementwise import add, add_product, settled, zeros
from xpconv.execution.products import contracted, has_views
from xpconv.execution.steps import step
from xpconv.execution.tasks import Band, assemble, bands, put, total
from xpconv.execution.workspace import empty, scratch
from xpconv.windows import Window
from xpconv.windows.frames import extend, frames


class Depthwise:
    """Shift, multiply, add."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whether the channels are cut into groups."""
        return groups > 1

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C/G, O) to (taps, C/G, 1, G, O/G): the numbers that what a tap sees is multiplied by."""
        width, filters = weight.shape[-2:]
        return namespace_of(weight).reshape(weight, (-1, width, 1, plan.groups, filters // plan.groups))

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        xp, window, filters = namespace_of(x), plan.window, weight.shape[-1]
        numbers = self.prepare(weight, plan) if prepared is None else prepared
        if _alone(x, filters, plan):
            return _correlated(x, numbers, bias, plan)
        numbers = along(numbers, 2, window.row)  # a row of windows, which multiplies faster than one by one

        def block(band: Band, place: Array | None) -> Array:
            elements, part = window.part(band.rows.start, band.rows.stop)
            y = None if place is None else xp.reshape(place, (*place.shape[:-1], plan.groups, filters // plan.groups))
            first = True
            for (tap, channel), seen in _seen(x[band.images, elements, ...], part, plan.groups):
                y = add_product(None if first else y, seen, numbers[tap, channel, ...], place=y)
                first = False
            if bias is not None:
                y += xp.reshape(bias, (plan.groups, -1))
            return xp.reshape(y, (-1, *part.output, filters)) if place is None else place

        return assemble(x, (x.shape[0], *window.output, filters), _bands(x, filters, plan), block)

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
        xp, window, groups, filters = namespace_of(x), plan.window, plan.groups, dy.shape[-1]
        width = x.shape[-1] // groups

        if _alone(x, filters, plan):
            return xp.reshape(_gradients(x, dy, plan), (*window.kernel, 1, filters))

        def part_of(band: Band) -> Array:
            elements, part = window.part(band.rows.start, band.rows.stop)
            given = dy[band.images, band.rows, ...]
            given = xp.reshape(given, (*given.shape[:-1], groups, filters // groups))
            axes = range(given.ndim - 2)
            sums = [
                xp.reshape(summed_over(add_product(None, given, seen), axes), (filters,))
                for _, seen in _seen(x[band.images, elements, ...], part, groups)
            ]
            return xp.stack(sums)

        dw = total(x, _bands(x, filters, plan), part_of)  # (taps*C/G, O)
        return xp.reshape(dw, (*window.kernel, width, filters))


def _alone(x: Array, filters: int, plan: Plan) -> bool:
    """Whether every channel has a filter of its own, and a sweep over views does it."""
    return has_views(x) and len(plan.window.axes) > 0 and plan.groups == x.shape[-1] == filters


def _correlated(x: Array, numbers: Array, bias: Array | None, plan: Plan) -> Array:
    """Sum over the taps of every window, row by row: (N, *size, C) to (N, *output, C)."""
    window, channels = plan.window, x.shape[-1]
    axes, width = len(window.axes), window.output[-1]
    weight = along(numbers, 2, width).reshape(*window.kernel, width * channels)
    labels = _labels(axes)
    row = None if bias is None else along(bias.reshape(1, channels), 0, width)  # (OW, C)

    def block(band: Band, place: Array) -> Array:
        elements, part = window.part(band.rows.start, band.rows.stop)
        flat, first = _joined(place), True
        by_row = weight[..., : flat.shape[-1]]
        for taps, seen in _rows(x[band.images, elements, ...], part):
            with scratch():
                made = flat if first else empty(flat.shape, flat.dtype)
                contracted(f"{labels.seen},{labels.taps}->{labels.made}", seen, by_row[..., taps, :], made)
                if not first:
                    add(flat, made)
            first = False
        if first:
            put(place, (), 0)
        return place if row is None else add(place, row[: part.output[-1], :])

    return assemble(x, (x.shape[0], *window.output, channels), _bands(x, channels, plan), block, moving=(x,))


def _gradients(x: Array, dy: Array, plan: Plan) -> Array:
    """Correlate every channel of the input with that of dy: (N, *size, C) and (N, *output, C) to (*kernel, C)."""
    window, channels = plan.window, x.shape[-1]
    labels = _labels(len(window.axes))

    def part_of(band: Band) -> Array:
        elements, part = window.part(band.rows.start, band.rows.stop)
        given = settled(dy[band.images, band.rows, ...])
        width, given = given.shape[-2], _joined(given)
        sums = zeros(x, (*window.kernel, channels))
        for taps, seen in _rows(x[band.images, elements, ...], part):
            with scratch():
                some = sums[..., taps, :]
                made = empty((*some.shape[:-1], width * channels), x.dtype)
                contracted(f"{labels.seen},{labels.made}->{labels.taps}", seen, given, made)
                by_window = made.reshape(*some.shape[:-1], width, channels)
                step(np.add.reduce, by_window, -2, None, some)
        return sums

    return total(x, _bands(x, channels, plan), part_of, moving=(x, dy))


def _joined(rows: Array) -> Array:
    """(..., W, C) to (..., W*C), of empty batches too."""
    return rows.reshape(*rows.shape[:-2], math.prod(rows.shape[-2:]))


class _Labels(NamedTuple):
    """What einsum is to call the axes of what is seen, of the taps, and of what is made."""

    seen: str
    taps: str
    made: str


def _labels(axes: int) -> _Labels:
    outputs, taps = "abcdefgh"[: axes - 1], "ijklmnop"[:axes]
    pairs = "".join(o + k for o, k in zip(outputs, taps, strict=False))
    return _Labels(f"z{pairs}{taps[-1]}x", f"{taps}x", f"z{outputs}x")


def _rows(x: Array, window: Window) -> Iterator[tuple[slice, Array]]:
    """Give what some taps of the last axis see of every row, as views: (N, H, ..., W, C) to (N, OH, KH, ..., KW, OW*C).

    They are those of one phase of its stride, where windows move by one: with them a row lies in one piece.
    """
    *outer, last = window.axes
    before, channels, margins = (slice(None),) * len(window.axes), x.shape[-1], [span.margin for span in outer]
    for phase in last.phases():
        if phase.over.kernel:
            part = settled(extend(x[*before, phase.elements, :], [*margins, phase.over.margin], first=1))
            counts, steps = (phase.over.kernel, last.output * channels), (phase.over.dilation * channels, 1)
            seen = overlapping_view(_joined(part), len(window.axes), counts, steps)
            for i in reversed(range(len(outer))):
                seen = frames(seen, 1 + i, outer[i])
            yield phase.taps, seen


def _seen(x: Array, window: Window, groups: int) -> Iterator[tuple[tuple[int, int], Array]]:
    """Give for every tap and channel of a group what all windows see of it: (n, *output, G, 1)."""
    padded = extend(x, window.margins, first=1)
    padded = namespace_of(x).reshape(padded, (*padded.shape[:-1], groups, x.shape[-1] // groups))
    for tap, where in enumerate(window.places()):
        for channel in range(padded.shape[-1]):
            yield (tap, channel), padded[:, *where, :, channel : channel + 1]


def _bands(x: Array, filters: int, plan: Plan) -> list[Band]:
    """Cut the work into bands: what a window sees, its sum, and one product on the way to it."""
    row = math.prod(plan.window.output[1:])
    work = row * plan.window.taps * x.shape[-1] // plan.groups * filters
    stride = plan.window.axes[0].stride
    numbers = row * (stride * stride * x.shape[-1] + 2 * filters)
    return bands(x, x.shape[0], plan.window.output[0], numbers, work=work, workspace=plan.workspace)
