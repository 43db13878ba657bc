"""Padding as an operator of its own: zeros, a constant, reflection, replication, or the other end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from xpconv.arrays.arguments import namespace, one_dtype, spatial_axes
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.ops.resampling import Reads, resample
from xpconv.windows import paddings
from xpconv.windows.frames import extend

MODES = ("zeros", "constant", "reflect", "replicate", "circular")


@operator
@accumulated
def pad(
    x: Array, pad: int | Sequence[int | tuple[int, int]], *, mode: str = "zeros", value: float = 0
) -> tuple[Array, Pullback]:
    """Add elements before and after the spatial axes.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of any numeric dtype.
    pad : int, one int an axis, or one (before, after) pair an axis
        How many to add.
    mode : str
        What to add: "zeros"; "constant", the number `value`; "reflect", the elements inside of the edge, from there
        to the opposite edge and back again as often as needed; "replicate", the edge; "circular", the axis once more.
    value : float
        The number that mode "constant" adds.

    Returns
    -------
    array, shape (N, C, *output)
        The dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of numbers, a number is not whole, or `value` does not fit the dtype.
    ValueError
        When a number is negative or there is not one for each axis, the mode is not known or has no use for `value`, or
        there is nothing to reflect or repeat.
    """
    xp = namespace(x=x)
    one_dtype(xp, "numeric", x=x)
    axes = spatial_axes("x", x)
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; give one of {', '.join(MODES)}")
    if value and mode != "constant":
        raise ValueError(f'value is {value} with mode "{mode}"; give mode "constant"')
    if not isinstance(value, int) and xp.isdtype(x.dtype, "integral"):
        raise TypeError(f"value is {value!r} and x has dtype {x.dtype}; give a whole number")
    if isinstance(pad, str):
        raise ValueError(f"pad is {pad!r}, which needs windows; give numbers of elements")
    pairs = paddings(pad, axes)
    if mode in ("zeros", "constant"):
        taken = [(-before, -after) for before, after in pairs]
        y = extend(channels_last(x), pairs, first=1, value=value)
        return channels_second(y), lambda dy: (channels_second(extend(channels_last(dy), taken, first=1)),)

    needed = 2 if mode == "reflect" else 1
    for size, pair in zip(x.shape[2:], pairs, strict=True):
        if size < needed and any(pair):
            raise ValueError(f'x has shape {tuple(x.shape)}; give at least {needed} along an axis to pad with "{mode}"')
    reads = [_reads(size, *pair, mode) for size, pair in zip(x.shape[2:], pairs, strict=True)]
    back = [along.adjoint for along in reads]
    y = resample(channels_last(x), reads, first=1)
    return channels_second(y), lambda dy: (channels_second(resample(channels_last(dy), back, first=1)),)


@lru_cache(maxsize=1024)
def _reads(size: int, before: int, after: int, mode: str) -> Reads:
    """Which element each place shows, from `before` places ahead of the axis to `after` behind it."""
    places = range(-before, size + after)
    if mode == "reflect":
        there_and_back = max(1, 2 * (size - 1))
        return Reads.copies(size, [min(i % there_and_back, -i % there_and_back) for i in places])
    if mode == "replicate":
        return Reads.copies(size, [min(max(i, 0), size - 1) for i in places])
    return Reads.copies(size, [i % size for i in places])
