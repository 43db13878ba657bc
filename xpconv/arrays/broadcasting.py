"""Broadcasting and its adjoint, summing, arranged so that the innermost loop of a library is long.

An elementwise operation of channels-last images with one number a channel has an inner loop as short as there are
channels. Laid out along a whole row of the image, the numbers let it run over ``W*C`` elements; summing axis by axis,
from the outermost, does the same for a sum, and its chains of additions are no longer than the axes are.
"""

from __future__ import annotations

from collections.abc import Sequence

from xpconv.arrays.arguments import accumulation_dtype
from xpconv.arrays.libraries import Array, namespace_of


def total(x: Array, axes: Sequence[int]) -> Array:
    """Sum over these axes, which stay with length 1."""
    xp = namespace_of(x)
    for axis in axes:
        if x.shape[axis] != 1:
            x = xp.sum(x, axis=axis, keepdims=True, dtype=x.dtype)
    return x


def total_like(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum down to a shape that broadcasts to that of x, narrow numbers in float32: the adjoint of broadcasting."""
    xp, lead = namespace_of(x), x.ndim - len(shape)
    shared = [i for i in range(x.ndim) if i < lead or shape[i - lead] == 1]
    wide = xp.astype(x, accumulation_dtype(xp, x.dtype), copy=False)
    return xp.astype(xp.reshape(total(wide, shared), shape), x.dtype, copy=False)


def sum_rows(x: Array) -> Array:
    """Sum (..., C) to (C,), narrow numbers in float32: the adjoint of adding a bias."""
    return total_like(x, (x.shape[-1],))


def along(values: Array, axis: int, length: int) -> Array:
    """Repeat values of length 1 along an axis, in memory."""
    if length == 1:
        return values
    return namespace_of(values).tile(values, tuple(length if i == axis else 1 for i in range(values.ndim)))
