"""Windows over axes, in whole numbers: one `Axis` for each spatial axis of an array, and what callers say of them.

There are no arrays here. Whatever moves data (lowering, pooling, their gradients) reads its slices from these plans.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from xpconv.windows.axis import Axis

Pad = int | str | Sequence[int | tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """Windows over every spatial axis of an array: one `Axis` each."""

    axes: tuple[Axis, ...]

    @cached_property
    def size(self) -> tuple[int, ...]:
        """Input size along each axis."""
        return tuple(axis.size for axis in self.axes)

    @cached_property
    def kernel(self) -> tuple[int, ...]:
        """Taps along each axis."""
        return tuple(axis.kernel for axis in self.axes)

    @cached_property
    def output(self) -> tuple[int, ...]:
        """Windows along each axis."""
        return tuple(axis.output for axis in self.axes)

    @cached_property
    def margins(self) -> tuple[tuple[int, int], ...]:
        """Elements to add, or with a negative number to take away, before and after each axis."""
        return tuple(axis.margin for axis in self.axes)

    @cached_property
    def taps(self) -> int:
        """Taps of one window."""
        return math.prod(self.kernel)

    @property
    def row(self) -> int:
        """How many neighbouring windows a part has at least: those along the last axis, where only the first is cut."""
        return self.output[-1] if len(self.axes) > 1 else 1

    @cached_property
    def strided(self) -> bool:
        """Whether windows move by more than one element along an axis."""
        return any(axis.stride > 1 for axis in self.axes)

    @cached_property
    def identical(self) -> bool:
        """Whether each window is one element and they see them all, in their order."""
        return all((axis.kernel, axis.stride, axis.margin) == (1, 1, (0, 0)) for axis in self.axes)

    @cached_property
    def backward(self) -> Window:
        """Windows of the opposite direction, of elements on the windows that see them, where none is strided."""
        return Window(tuple(next(axis.phases()).axis for axis in self.axes))

    def places(self) -> Iterator[tuple[slice, ...]]:
        """Say where each tap of every window lies on the axes once their margins are laid on, in the taps' order."""
        return itertools.product(*([axis.tap(k) for k in range(axis.kernel)] for axis in self.axes))

    def part(self, start: int, stop: int) -> tuple[slice, Window]:
        """Return the windows from `start` up to `stop` along the first axis, and the elements that they touch."""
        return _part(self, start, stop)


@lru_cache(maxsize=4096)
def _part(whole: Window, start: int, stop: int) -> tuple[slice, Window]:
    elements, axis = whole.axes[0].part(start, stop)
    return elements, Window((axis, *whole.axes[1:]))


def window(
    size: Sequence[int],
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    pad: Pad = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Window:
    """Plan windows over axes of the given sizes.

    Parameters
    ----------
    size : sequence of int
        Elements along each axis.
    kernel, stride, dilation : int or sequence of int
        Taps of a window, elements between neighbouring windows, and elements between neighbouring taps: one number
        for all axes or one for each. At least 1.
    pad : int, sequence of int, sequence of (int, int), "same" or "valid"
        Elements of padding on both sides of every axis, of each axis, or before and after each axis. "valid" is 0;
        "same" gives ``ceil(size / stride)`` windows, with the odd element of padding at the end.
    ceil_mode : bool
        Let a last, incomplete window hang over the padded end when it starts inside the axis or the padding before it.

    Raises
    ------
    TypeError
        When a number is not whole.
    ValueError
        When a number is out of range, there is not one for each axis, or no window fits.
    """
    axes = len(size)
    return _plan(
        tuple(size),
        whole_numbers("kernel", kernel, axes, least=1),
        whole_numbers("stride", stride, axes, least=1),
        None if isinstance(pad, str) and pad == "same" else paddings(pad, axes),
        whole_numbers("dilation", dilation, axes, least=1),
        ceil_mode,
    )


@lru_cache(maxsize=4096)
def _plan(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[tuple[int, int], ...] | None,
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> Window:
    axes = []
    for i, (n, k, s, d) in enumerate(zip(size, kernel, stride, dilation, strict=True)):
        extent = (k - 1) * d + 1
        if pad is None:  # "same"
            missing = max(0, (math.ceil(n / s) - 1) * s + extent - n)
            before, after = missing // 2, missing - missing // 2
        else:
            before, after = pad[i]
        room = n + before + after - extent
        if n < 1 or room < 0:
            raise ValueError(
                f"a kernel of {k} with dilation {d} spans {extent} elements, but axis {i} of the spatial size {size} "
                f"has {n} and {n + before + after} when padded; give a smaller kernel or more padding"
            )
        output = room // s + 1
        if ceil_mode and room % s and output * s < n + before:
            output += 1
        axes.append(Axis(n, k, s, before, after, d, output))
    return Window(tuple(axes))


def whole_number(name: str, value: object, *, least: int) -> int:
    """Return `value` as an int, or raise TypeError when it is not whole and ValueError when it is below `least`."""
    if type(value) is int and value >= least:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); give a whole number") from None
    if number < least:
        raise ValueError(f"{name} is {number}; give a whole number of at least {least}")
    return number


def whole_numbers(name: str, value: object, axes: int, *, least: int) -> tuple[int, ...]:
    """Return one int an axis from a single number or from one number an axis."""
    if isinstance(value, int) or not isinstance(value, Sequence) or isinstance(value, str):
        return (whole_number(name, value, least=least),) * axes
    if len(value) != axes:
        raise ValueError(
            f"{name} is {tuple(value)!r}, {len(value)} numbers for {axes} spatial axes; "
            "give one for each, or one for all"
        )
    return tuple(whole_number(name, number, least=least) for number in value)


def paddings(pad: object, axes: int) -> tuple[tuple[int, int], ...]:
    """Return one (before, after) pair an axis from a number, one number an axis, or one pair an axis."""
    if isinstance(pad, str):
        if pad != "valid":
            raise ValueError(f'pad is {pad!r}; as a word it is "same" or "valid"')
        pad = 0
    if isinstance(pad, int) or not isinstance(pad, Sequence):
        return ((whole_number("pad", pad, least=0),) * 2,) * axes
    if len(pad) != axes:
        raise ValueError(
            f"pad is {tuple(pad)!r}, {len(pad)} entries for {axes} spatial axes; give one number for all axes, or a "
            "number or a (before, after) pair for each"
        )
    pairs = []
    for entry in pad:
        pair = tuple(entry) if isinstance(entry, Sequence) and not isinstance(entry, str) else (entry, entry)
        if len(pair) != 2:
            raise ValueError(f"pad has the entry {entry!r}; give a number or a (before, after) pair for each axis")
        pairs.append((whole_number("pad", pair[0], least=0), whole_number("pad", pair[1], least=0)))
    return tuple(pairs)
