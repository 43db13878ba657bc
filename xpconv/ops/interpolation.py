"""Interpolation: an array seen at another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from xpconv.arrays.arguments import namespace, one_dtype, spatial_axes
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.ops.resampling import Reads, resample
from xpconv.windows import whole_numbers

LINEAR = {"linear": None, "bilinear": 2, "trilinear": 3}  # what linear is called over so many axes


@operator
@accumulated
def interpolate(
    x: Array, output_size: int | Sequence[int], *, mode: str = "nearest", align_corners: bool = False
) -> tuple[Array, Pullback]:
    """Resize along every spatial axis.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of any numeric dtype; for linear interpolation a floating one.
    output_size : int or one int an axis
        Spatial size of the result, larger or smaller.
    mode : str
        "nearest": element ``i`` of ``m`` is element ``floor(i n / m)`` of ``n``. "linear", over any number of axes
        ("bilinear" over two, "trilinear" over three): along each axis, from the two elements whose centres are nearest,
        weighted by their distance; beyond the outermost centres, the outermost element.
    align_corners : bool
        For linear interpolation, lay the outermost centres of both sizes on each other, in place of the outermost
        edges.

    Returns
    -------
    array, shape (N, C, *output_size)
        The dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of such numbers, or a number is not whole.
    ValueError
        When `x` has no spatial axis or an empty one, `output_size` is below 1 or not one number an axis, or the mode is
        not known, not for this number of axes or without corners to align.
    """
    xp = namespace(x=x)
    axes = spatial_axes("x", x)
    if mode != "nearest" and LINEAR.get(mode, 0) not in (None, axes):
        raise ValueError(f"mode is {mode!r} and x has {axes} spatial axes; give nearest or linear")
    if mode == "nearest" and align_corners:
        raise ValueError("align_corners is for linear interpolation; leave it out, or give mode linear")
    one_dtype(xp, "numeric" if mode == "nearest" else ("real floating", "complex floating"), x=x)
    if 0 in x.shape[2:]:
        raise ValueError(f"x has shape {tuple(x.shape)}; give at least one element along every spatial axis")
    sizes = whole_numbers("output_size", output_size, axes, least=1)
    if mode == "nearest":
        reads = [_nearest(n, m) for n, m in zip(x.shape[2:], sizes, strict=True)]
    else:
        reads = [_linear(n, m, align_corners) for n, m in zip(x.shape[2:], sizes, strict=True)]
    back = [along.adjoint for along in reads]
    y = resample(channels_last(x), reads, first=1)
    return channels_second(y), lambda dy: (channels_second(resample(channels_last(dy), back, first=1)),)


@lru_cache(maxsize=1024)
def _nearest(size: int, output: int) -> Reads:
    return Reads.copies(size, [i * size // output for i in range(output)])


@lru_cache(maxsize=1024)
def _linear(size: int, output: int, align_corners: bool) -> Reads:
    """Each element of the result between two of the axis: (left, 1 - share), (right, share)."""
    pairs = []
    for i in range(output):
        if align_corners:
            centre = i * (size - 1) / (output - 1) if output > 1 else 0.0
        else:
            centre = min(max((i + 0.5) * size / output - 0.5, 0.0), size - 1.0)
        left = min(math.floor(centre), size - 1)
        share = centre - left
        pairs.append(((left, 1 - share), (left + 1, share)) if share else ((left, 1),))
    return Reads(size, tuple(pairs))
