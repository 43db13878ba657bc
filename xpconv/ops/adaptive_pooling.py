"""Pooling to a given size: windows that share an axis out evenly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from array_api_compat import array_namespace, device

from xpconv.arrays.arguments import lowest, namespace, one_dtype, spatial_axes
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.ops.resampling import Reads, resample
from xpconv.windows import whole_numbers


@operator
@accumulated
def adaptive_max_pool(
    x: Array, output_size: int | Sequence[int], *, return_indices: bool = False
) -> tuple[Any, Pullback]:
    """Take the largest element of every window, with as many windows as the result is to have elements.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of a real dtype.
    output_size : int or one int an axis
        Windows along each axis. Window ``i`` of ``m`` over ``n`` elements runs from ``floor(i n / m)`` up to
        ``ceil((i + 1) n / m)``.
    return_indices : bool
        Give also where each maximum stands.

    Returns
    -------
    y : array, shape (N, C, *output_size)
        The dtype of `x`.
    indices : array, shape (N, C, *output_size), only with `return_indices`
        Index of the first maximum, flat over the spatial axes, in the library's dtype for indices (int64).

    Raises
    ------
    TypeError
        When `x` is no array of real numbers, or a number is not whole.
    ValueError
        When `x` has no spatial axis or an empty one, or `output_size` is below 1 or not one number an axis.

    Notes
    -----
    The gradient goes to the first maximum of a window, in the order of its elements; NaN is above all numbers.
    """
    xp = namespace(x=x)
    one_dtype(xp, ("real floating", "integral"), x=x)
    shares = _shares(x, output_size)
    taps = tuple(share.longest for share in shares)
    windows = _windows(x, shares, fill=lowest(xp, x.dtype))  # (N, OH, OW, C, KH, KW)
    outside = tuple(windows.shape[: -len(taps)])
    windows = xp.reshape(windows, (*outside, math.prod(taps)))
    first = xp.argmax(windows, axis=-1, keepdims=True)
    y = xp.squeeze(xp.take_along_axis(windows, first, axis=-1), axis=-1)

    def pullback(dy: Array) -> tuple[Array]:
        dy = xp.expand_dims(channels_last(dy), axis=-1)
        tap = xp.arange(math.prod(taps), dtype=first.dtype, device=device(first))
        dwindows = xp.where(first == tap, dy, xp.zeros_like(dy))
        return (_elements(xp.reshape(dwindows, (*outside, *taps)), shares),)

    if return_indices:
        return (channels_second(y), channels_second(_flat_index(xp.squeeze(first, axis=-1), shares))), pullback
    return channels_second(y), pullback


@operator
@accumulated
def adaptive_avg_pool(x: Array, output_size: int | Sequence[int]) -> tuple[Array, Pullback]:
    """Take the mean of every window, with as many windows as the result is to have elements.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of a real floating dtype.
    output_size : int or one int an axis
        As in `adaptive_max_pool`.

    Returns
    -------
    array, shape (N, C, *output_size)
        The dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        As in `adaptive_max_pool`.
    """
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    shares = _shares(x, output_size)
    windows = _windows(x, shares, fill=0)  # (N, OH, OW, C, KH, KW)
    shape, taps = tuple(windows.shape), tuple(range(-len(shares), 0))
    count: Any = 1
    for i, share in enumerate(shares):
        lengths = xp.asarray(share.lengths, dtype=x.dtype, device=device(x))
        count = count * xp.reshape(lengths, (share.count,) + (1,) * (len(shares) - i))
    y = xp.sum(windows, axis=taps, dtype=x.dtype) / count

    def pullback(dy: Array) -> tuple[Array]:
        part = xp.reshape(channels_last(dy) / count, (*shape[: -len(shares)], *(1 for _ in shares)))
        return (_elements(xp.broadcast_to(part, shape), shares),)

    return channels_second(y), pullback


@dataclass(frozen=True)
class Share:
    """An axis of `size` elements shared out to `count` windows, as evenly as whole numbers allow."""

    size: int
    count: int

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each window starts."""
        return tuple(i * self.size // self.count for i in range(self.count))

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Elements of each window; neighbours share one where an even cut would go through it."""
        stops = (-(-(i + 1) * self.size // self.count) for i in range(self.count))
        return tuple(stop - start for start, stop in zip(self.starts, stops, strict=True))

    @cached_property
    def longest(self) -> int:
        """Elements of the longest window."""
        return max(self.lengths)

    @cached_property
    def side_by_side(self) -> Reads:
        """Every window after the other, all as long as the longest; behind the end of a shorter one nothing is read."""
        return Reads.copies(
            self.size,
            [
                start + k if k < length else None
                for start, length in zip(self.starts, self.lengths, strict=True)
                for k in range(self.longest)
            ],
        )


_share = lru_cache(maxsize=1024)(Share)


def _shares(x: Array, output_size: int | Sequence[int]) -> list[Share]:
    axes = spatial_axes("x", x)
    if 0 in x.shape[2:]:
        raise ValueError(f"x has shape {tuple(x.shape)}; give at least one element along every spatial axis")
    counts = whole_numbers("output_size", output_size, axes, least=1)
    return [_share(size, count) for size, count in zip(x.shape[2:], counts, strict=True)]


def _windows(x: Array, shares: Sequence[Share], *, fill: float) -> Array:
    """(N, C, *size) to (N, OH, OW, C, KH, KW), a window shorter than the longest filled up."""
    xp, axes = array_namespace(x), len(shares)
    x = resample(channels_last(x), [share.side_by_side for share in shares], first=1, fill=fill)
    pairs = (n for share in shares for n in (share.count, share.longest))
    x = xp.reshape(x, (x.shape[0], *pairs, x.shape[-1]))  # (N, OH, KH, OW, KW, C)
    return xp.permute_dims(x, (0, *range(1, 2 * axes, 2), 2 * axes + 1, *range(2, 2 * axes + 1, 2)))


def _elements(windows: Array, shares: Sequence[Share]) -> Array:
    """(N, OH, OW, C, KH, KW) to (N, C, *size), adding up what windows share: the adjoint of `_windows`."""
    xp, axes = array_namespace(windows), len(shares)
    pairs = (axis for i in range(axes) for axis in (1 + i, 2 + axes + i))
    x = xp.permute_dims(windows, (0, *pairs, 1 + axes))  # (N, OH, KH, OW, KW, C)
    x = xp.reshape(x, (x.shape[0], *(share.count * share.longest for share in shares), x.shape[-1]))
    return channels_second(resample(x, [share.side_by_side.adjoint for share in shares], first=1))


def _flat_index(tap: Array, shares: Sequence[Share]) -> Array:
    """Flat index over the spatial axes of one tap of every window: (N, OH, OW, C), counted within the window."""
    xp, index, stride = array_namespace(tap), 0, 1
    for i, share in reversed(list(enumerate(shares))):
        starts = xp.asarray(share.starts, dtype=tap.dtype, device=device(tap))
        starts = xp.reshape(starts, (share.count,) + (1,) * (len(shares) - i))
        index = index + (starts + tap % share.longest) * stride
        tap, stride = tap // share.longest, stride * share.size
    return index
