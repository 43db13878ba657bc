"""Windows along one axis, in whole numbers: where each starts, what each tap of it sees, how many there are.

Letters: a window of ``kernel`` taps, ``dilation`` apart, moves by ``stride`` along an axis of ``size`` elements that
has ``before`` and ``after`` elements of padding. Its ``extent`` is the distance from its first tap to its last,
inclusive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Tap(NamedTuple):
    """The windows that have a tap on the axis, and what it sees there: some of the elements ``residue::stride``."""

    windows: slice
    residue: int
    places: slice


class Phase(NamedTuple):
    """Elements of an axis that meet the same taps, the windows that give them back, and those of stride 1 over them."""

    elements: slice
    taps: slice
    axis: Axis
    over: Axis


@dataclass(frozen=True)
class Axis:
    """Windows along one axis."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int
    output: int

    @property
    def extent(self) -> int:
        """Elements from the first tap of a window to its last, inclusive."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def reach(self) -> int:
        """Elements of the padded axis that the windows touch, from the first window to the last."""
        return (self.output - 1) * self.stride + self.extent

    @property
    def margin(self) -> tuple[int, int]:
        """Elements to add before and after the axis so that it is `reach` long; a negative number takes away."""
        return self.before, self.reach - self.before - self.size

    @property
    def abutting(self) -> bool:
        """Whether the windows lie side by side, with no gaps and no element in two of them."""
        return self.extent == self.kernel and (self.output == 1 or self.stride == self.kernel)

    def tap(self, k: int) -> slice:
        """Where tap `k` of every window lies on the axis once its margin is laid on."""
        start = k * self.dilation
        return slice(start, start + (self.output - 1) * self.stride + 1, self.stride)

    def part(self, start: int, stop: int) -> tuple[slice, Axis]:
        """Return the windows from `start` up to `stop` alone, and the elements of the axis that they touch."""
        low = start * self.stride - self.before
        high = low + (stop - start - 1) * self.stride + self.extent
        elements = slice(min(max(low, 0), self.size), max(min(high, self.size), 0))
        size = max(0, elements.stop - elements.start)
        before = elements.start - low
        return elements, Axis(size, self.kernel, self.stride, before, 0, self.dilation, stop - start)

    def around(self, start: int, stop: int) -> tuple[slice, Axis]:
        """Return the windows that see any of the elements from `start` up to `stop`, over these elements alone."""
        first = max(0, -(-(start + self.before - self.extent + 1) // self.stride))
        before = self.before + start - first * self.stride
        count = max(0, min(self.output, (stop - 1 + self.before) // self.stride + 1) - first)
        over = Axis(stop - start, self.kernel, self.stride, before, 0, self.dilation, count)
        return slice(first, first + count), over

    def members(self, *, include_pad: bool) -> tuple[int, ...]:
        """Count for each window the taps that lie on the axis, or on the axis and its padding."""
        return self._members[include_pad]

    @cached_property
    def _members(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        starts = range(-self.before, -self.before + self.output * self.stride, self.stride)

        def taps_below(bound: int, start: int) -> int:
            return min(max(-(-(bound - start) // self.dilation), 0), self.kernel)

        def between(low: int, high: int) -> tuple[int, ...]:
            return tuple(taps_below(high, start) - taps_below(low, start) for start in starts)

        return between(0, self.size), between(-self.before, self.size + self.after)

    @cached_property
    def taps(self) -> tuple[Tap, ...]:
        """The taps of the windows, in order, without those that no window has on the axis."""
        found = []
        for offset in range(-self.before, self.extent - self.before, self.dilation):
            first = max(0, -(offset // self.stride))
            count = min(self.output, -((offset - self.size) // self.stride)) - first
            if count > 0:
                start = offset // self.stride + first
                found.append(Tap(slice(first, first + count), offset % self.stride, slice(start, start + count)))
        return tuple(found)

    @property
    def tiled(self) -> bool:
        """Whether every element is in one window and no more."""
        return self.abutting and self.margin == (0, 0)

    @cached_property
    def padding_alone(self) -> bool:
        """Whether there is a window that sees no element of the axis."""
        return 0 in self.members(include_pad=False)

    def phases(self) -> Iterator[Phase]:
        """Cut the windows and their adjoint into windows of stride 1, one for each residue of the stride.

        An element ``i`` takes part in window ``o`` at tap ``k`` when ``i + before == o*stride + k*dilation``. The
        elements of one residue ``(i + before) % stride`` therefore meet every ``stride/gcd``-th tap, and the windows
        they belong to are neighbours: run backwards, they are a window of stride 1 over the outputs.
        """
        return iter(self._phases)

    @cached_property
    def _phases(self) -> tuple[Phase, ...]:
        found = []
        common = math.gcd(self.stride, self.dilation)
        step, dilation = self.stride // common, self.dilation // common
        for residue in range(self.stride):
            first = (residue - self.before) % self.stride
            if first >= self.size:
                continue
            tap = next((k for k in range(step) if k * self.dilation % self.stride == residue), self.kernel)
            taps = len(range(tap, self.kernel, step))
            nearest = (first + self.before - tap * self.dilation) // self.stride
            count = len(range(first, self.size, self.stride))
            before = (taps - 1) * dilation - nearest
            elements, seen = slice(first, self.size, self.stride), slice(tap, self.kernel, step)
            axis = Axis(self.output, taps, 1, before, 0, dilation, count)
            found.append(Phase(elements, seen, axis, Axis(count, taps, 1, nearest, 0, dilation, self.output)))
        return tuple(found)
