"""The direct way: lower the windows to rows of a matrix, band by band, and multiply.

References
----------
Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing" (2006), for
lowering (im2col); Cho and Brand, "MEC: Memory-efficient convolution" (2017), for lowering along all axes but the first,
after which the windows along the first are overlapping views.
"""

from __future__ import annotations

import itertools
import math

from xpconv.algorithms import Plan
from xpconv.arrays.broadcasting import along
from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.elementwise import add, settled
from xpconv.execution.products import has_views, lay_out, matmul, summed, times
from xpconv.execution.tasks import Band, assemble, bands, total
from xpconv.windows import Window
from xpconv.windows.frames import cut, extend, frames


class Direct:
    """Lowering and one product; there is nothing it cannot do."""

    def supports(self, window: Window, groups: int) -> bool:
        """Say yes."""
        return True

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C/G, O) to (G, B, taps*C/G, O/G/B): filters in the blocks that `times` wants."""
        xp, groups, (*kernel, width, filters) = namespace_of(weight), plan.groups, weight.shape
        taps = list(itertools.product(*(range(size) for size in kernel)))

        def piece(part: slice, blocks: int, place: Array | None) -> Array:
            if place is None:
                rows = xp.reshape(weight, (-1, groups, blocks, filters // groups // blocks))
                return xp.permute_dims(rows, (1, 2, 0, 3))
            for i, tap in enumerate(taps):  # as turned filters are no matrix without being copied
                first, last = max(part.start, i * width), min(part.stop, (i + 1) * width)
                if first < last:
                    rows = weight[*tap, first - i * width : last - i * width, :].reshape(
                        last - first, groups, blocks, -1
                    )
                    place[..., first - part.start : last - part.start, :] = rows.transpose(1, 2, 0, 3)
            return place

        return lay_out(weight, (groups,), (len(taps) * width, filters // groups), piece)

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        xp, window, groups, filters = namespace_of(x), plan.window, plan.groups, weight.shape[-1]
        laid = self.prepare(weight, plan) if prepared is None else prepared
        in_views = groups == 1 and _in_views(x, window)
        if bias is not None:
            bias = along(xp.reshape(bias, (1, filters)), 0, window.row)  # (OW, O): long rows add up faster

        def block(band: Band, place: Array | None) -> Array:
            elements, part = window.part(band.rows.start, band.rows.stop)
            some = x[band.images, elements, ...]
            if in_views and place is not None:
                rows = lower_in_views(some, part)  # (n, OH, OW, K)
                times(rows, laid[0], place.reshape(*rows.shape[:3], filters))
                y = place
            else:
                rows = lower(some, part, groups)  # (G, P, K)
                y = times(rows, laid, None if place is None else by_group(place, groups))
                y = xp.reshape(xp.permute_dims(y, (1, 0, 2)), (-1, *part.output, filters)) if place is None else place
            return y if bias is None else add(y, bias)

        depth = window.taps * x.shape[-1]
        lowered = depth // window.kernel[0] if in_views else depth
        # A band reads all filters, so it should have as many numbers of its own.
        cuts = _bands(x, plan, lowered + filters, filters, least=depth * filters // groups)
        return assemble(x, (x.shape[0], *window.output, filters), cuts, block, moving=(x,))

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
        xp, window, groups, filters = namespace_of(x), plan.window, plan.groups, dy.shape[-1]

        def part_of(band: Band) -> Array:
            elements, part = window.part(band.rows.start, band.rows.stop)
            rows = lower(x[band.images, elements, ...], part, groups)  # (G, P, K)
            return summed(rows, by_group(settled(dy[band.images, band.rows, ...]), groups))

        depth = window.taps * x.shape[-1]
        if groups == 1 and 2 * x.shape[0] * math.prod(window.output) * (depth + filters) <= depth * filters:
            rows = lower(x, window, groups)[0, ...]
            dw = xp.expand_dims(matmul(xp.matrix_transpose(rows), by_group(dy, groups)[0, ...]), axis=0)
        else:
            # A band adds up a whole gradient, so it should have twice as many numbers of its own.
            cuts = _bands(x, plan, depth + filters, filters, least=2 * depth * filters // groups)
            dw = total(x, cuts, part_of, moving=(x, dy))  # (G, K, O/G)
        shape = (*window.kernel, x.shape[-1] // groups, filters)
        return xp.reshape(xp.permute_dims(dw, (1, 0, 2)), shape)


def lower(x: Array, window: Window, groups: int) -> Array:
    """(N, *size, C) to (G, N*L, taps*C/G): each row a window of one group's channels."""
    xp, axes = namespace_of(x), len(window.axes)
    count, width = x.shape[0] * math.prod(window.output), x.shape[-1] // groups
    patches = cut(x, window, first=1)  # (N, OH, KH, OW, KW, C)
    outputs, taps = range(1, 1 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
    patches = settled(xp.permute_dims(patches, (0, *outputs, *taps, 1 + 2 * axes)))  # (N, OH, OW, KH, KW, C)
    if groups == 1:
        return xp.reshape(patches, (1, count, window.taps * width))
    patches = xp.reshape(patches, (count, window.taps, groups, width))
    patches = settled(xp.permute_dims(patches, (2, 0, 1, 3)))
    return xp.reshape(patches, (groups, count, window.taps * width))


def lower_in_views(x: Array, window: Window) -> Array:
    """(N, *size, C) to (N, OH, OW, taps*C): rows that share memory along the first axis."""
    xp, axes = namespace_of(x), len(window.axes)
    x = extend(x, window.margins, first=1)
    for i in reversed(range(1, axes)):
        x = frames(x, 1 + i, window.axes[i])  # (N, H, OW, KW, C)
    outputs, taps = range(2, 2 * axes, 2), range(3, 2 * axes + 1, 2)
    x = settled(xp.permute_dims(x, (0, *outputs, 1, *taps, 2 * axes)))  # (N, OW, H, KW, C)
    depth = math.prod(window.kernel[1:]) * x.shape[-1]
    x = xp.reshape(x, (x.shape[0], math.prod(window.output[1:]), window.axes[0].reach, depth))
    x = frames(x, 2, window.axes[0])  # (N, OW, OH, KH, KW*C)
    x = xp.reshape(x, (*x.shape[:3], window.kernel[0] * depth))
    return xp.permute_dims(x, (0, 2, 1, 3))


def _in_views(x: Array, window: Window) -> bool:
    """Whether lowering along all axes but the first moves much less, and leaves rows enough for a product."""
    first, beside = window.axes[0], math.prod(window.output[1:])
    return (
        has_views(x)
        and len(window.axes) > 1
        and first.kernel > 1
        and first.dilation == 1
        and beside >= 14
        and window.taps * x.shape[-1] <= 1200
    )


def by_group(x: Array, groups: int) -> Array:
    """(..., O) to (G, prod(...), O/G)."""
    xp = namespace_of(x)
    count, width = math.prod(x.shape[:-1]), x.shape[-1] // groups
    return xp.permute_dims(xp.reshape(x, (count, groups, width)), (1, 0, 2))


def _bands(x: Array, plan: Plan, numbers: int, filters: int, least: int) -> list[Band]:
    """Cut the work into bands, each window of which takes so many numbers."""
    window, row = plan.window, math.prod(plan.window.output[1:])
    work = row * window.taps * x.shape[-1] // plan.groups * filters
    return bands(x, x.shape[0], window.output[0], row * numbers, work=work, least=least, workspace=plan.workspace)
