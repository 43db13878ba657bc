"""The way of groups with few channels: a sum over the taps, each a slice of the input times a row of numbers.

Lowering would copy every element once for each tap, for products too small to be worth it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from xpconv.algorithms import Plan
from xpconv.broadcasting import along
from xpconv.broadcasting import total as summed_over
from xpconv.execution import Band, assemble, bands, total
from xpconv.frames import extend
from xpconv.libraries import Array, namespace_of
from xpconv.products import add_product
from xpconv.windows import Window


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
        numbers = along(numbers, 2, window.row)  # a row of windows, which multiplies faster than one by one

        def block(band: Band, place: Array | None) -> Array:
            elements, part = window.part(band.rows.start, band.rows.stop)
            y = None if place is None else xp.reshape(place, (*place.shape[:-1], plan.groups, -1))
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


def _seen(x: Array, window: Window, groups: int) -> Iterator[tuple[tuple[int, int], Array]]:
    """Give for every tap and channel of a group what all windows see of it: (n, *output, G, 1)."""
    padded = extend(x, window.margins, first=1)
    padded = namespace_of(x).reshape(padded, (*padded.shape[:-1], groups, -1))
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
