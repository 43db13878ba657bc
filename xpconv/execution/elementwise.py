"""Arithmetic element by element, as each library does it best: on NumPy written where it is wanted, step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import array_api_extra as xpx
import numpy as np
from array_api_compat import device

from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.steps import copied, step
from xpconv.execution.workspace import empty

SHORT = 512  # numbers in one piece of memory


def room(like: Array, shape: tuple[int, ...]) -> Array:
    """Make an array to be filled: with what happens to be there where a library writes in place, elsewhere zeros."""
    if isinstance(like, np.ndarray):
        return empty(shape, like.dtype)
    return namespace_of(like).zeros(shape, dtype=like.dtype, device=device(like))


def zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """Make an array of zeros, to be added to."""
    made = room(like, shape)
    if isinstance(made, np.ndarray):
        step(copied, 0, made)
    return made


@functools.lru_cache(maxsize=256)
def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return the order of axes that undoes another."""
    return tuple(order.index(axis) for axis in range(len(order)))


def owned(x: Array) -> Array:
    """Return an array that can be written over where a library writes in place: a copy."""
    if not isinstance(x, np.ndarray):
        return x
    if x.ndim > 1 and x.strides[-1] > x.itemsize:
        # Neighbours that lie far apart share few places of a cache: they are brought together before they are turned.
        order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
        if order[-1] != x.ndim - 1:
            together = empty([x.shape[axis] for axis in order], x.dtype)
            step(copied, x.transpose(order), together)
            x = together.transpose(inverse(tuple(order)))
    y = empty(x.shape, x.dtype)
    step(copied, x, y)
    return y


def settled(x: Array) -> Array:
    """Return the array lying in memory in the order of its axes, where a library lets that be said."""
    return x if isinstance(x, np.ndarray) and x.flags.c_contiguous else owned(x)


def together(x: Array) -> Array:
    """Return the array, or a copy where what lies in one piece is so short that every sweep would stumble over it."""
    if not isinstance(x, np.ndarray):
        return x
    run = 1
    for size, stride in zip(reversed(x.shape), reversed(x.strides), strict=True):
        if stride != run * x.itemsize:
            break
        run *= size
    return owned(x) if 1 < run < min(SHORT, x.size) else x


def within(x: Array, where: tuple[Any, ...]) -> Array | None:
    """Return a part of an array to be written to, where a library writes in place."""
    if not isinstance(x, np.ndarray):
        return None
    part: Array = x[*where, ...]
    return part


Part = tuple[tuple[slice, ...], Array]  # an array, and where it is laid


def reduced(
    name: str, like: Array, shape: tuple[int, ...], parts: Sequence[Part], value: float, place: Array | None = None
) -> Array:
    """Reduce arrays element by element, by "add" or "maximum", each laid on a part of an array filled with a value.

    Parameters
    ----------
    like : array
        Whose library, dtype and device the result has.
    place : array, optional
        Where to write the result.
    """
    whole = [part for _, part in parts if part.shape == shape]
    rest = [(where, part) for where, part in parts if part.shape != shape]
    if not isinstance(like, np.ndarray):
        xp = namespace_of(like)
        if rest or not whole:
            whole.insert(0, xp.full(shape, value, dtype=like.dtype, device=device(like)))
        y = functools.reduce(getattr(xp, name), whole)
        for where, part in rest:
            y = xpx.at(y)[*where, ...].add(part) if name == "add" else xpx.at(y)[*where, ...].max(part)
        return y
    if place is None:
        if len(whole) == 1 and not rest:
            return whole[0]
        place = empty(shape, like.dtype)
    if len(whole) < 2:
        step(copied, whole[0] if whole else value, place)
    first = whole[0] if len(whole) > 1 else place
    for part in whole[1:]:
        step(_INTO[name], first, part, place)
        first = place
    for where, part in rest:
        step(_INTO[name], place[where], part, place[where])
    return place


def _maximum(a: Array, b: Array, place: Array) -> None:
    np.maximum(a, b, out=place)


_INTO: dict[str, Callable[..., object]] = {"add": np.add, "maximum": _maximum}


def equal(a: Array, b: Array) -> Array:
    """Compare element by element."""
    if not isinstance(a, np.ndarray):
        return a == b
    mask = empty(np.broadcast_shapes(a.shape, b.shape), np.dtype(bool))
    step(np.equal, a, b, mask)
    return mask


def scaled(x: Array, divisor: Array | float, place: Array | None = None) -> Array:
    """Divide by an array that broadcasts or by a number; `place` is where to write the result."""
    if not isinstance(x, np.ndarray):
        return x / divisor
    place = empty(x.shape, x.dtype) if place is None else place
    step(np.divide, x, divisor, place)
    return place


def divided(
    x: Array, where: tuple[slice, ...], mask: Array, place: Array | None = None, *, keep: bool = False
) -> tuple[Array, Array]:
    """Return what a part of x holds where the mask is true, with 0 elsewhere, and x without it.

    The first is written to `place`, if there is one, and the second over x unless it is to `keep`.
    """
    if not isinstance(x, np.ndarray):
        xp = namespace_of(x)
        part = x[*where, ...]
        none = xp.zeros_like(part)
        chosen, left = xp.where(mask, part, none), xp.where(mask, none, part)
        left = left if left.shape == x.shape else xpx.at(x)[*where, ...].set(left, copy=keep or None)
        return chosen, left
    whole = mask.shape == x.shape
    if keep and not whole:
        x, keep = owned(x), False
    bits = x[where].view(f"i{x.itemsize}")  # as whole numbers they multiply exactly, an infinity and a NaN too
    ones = empty(mask.shape, bits.dtype)
    step(copied, mask, ones)  # a product that casts it takes longer
    chosen = ones if place is None else place.view(bits.dtype)
    step(np.multiply, bits, ones, chosen)
    left = empty(x.shape, x.dtype) if keep else x
    step(np.subtract, bits, chosen, left[where].view(bits.dtype))
    return chosen.view(x.dtype), left


def repeated(x: Array, counts: tuple[int, ...], place: Array | None = None) -> Array:
    """Repeat every element so many times along each axis; `place` is where to write them."""
    xp = namespace_of(x)
    shape = tuple(size * count for size, count in zip(x.shape, counts, strict=True))
    pairs = tuple(number for pair in zip(x.shape, counts, strict=True) for number in pair)
    apart = xp.reshape(x, tuple(number for size in x.shape for number in (size, 1)))
    if place is None:
        return xp.reshape(xp.broadcast_to(apart, pairs), shape)
    step(copied, apart, place.reshape(pairs))
    return place


def add_product(sum_so_far: Array | None, a: Array, b: Array, place: Array | None = None) -> Array:
    """Return ``sum_so_far + a*b``, or the first of such products; `place` is where to write it."""
    if not isinstance(a, np.ndarray):
        return a * b if sum_so_far is None else sum_so_far + a * b
    shape = np.broadcast_shapes(a.shape, b.shape)
    if sum_so_far is None:
        place = empty(shape, a.dtype) if place is None else place
        step(np.multiply, a, b, place)
        return place
    more = empty(shape, a.dtype)
    step(np.multiply, a, b, more)
    step(np.add, sum_so_far, more, sum_so_far)
    return sum_so_far


def add(x: Array, more: Array) -> Array:
    """Return ``x + more``, in place where a library can."""
    if not isinstance(x, np.ndarray):
        return x + more
    step(np.add, x, more, x)
    return x


def add_at(x: Array, where: tuple[int | slice, ...], more: Array) -> Array:
    """Return x with more added to a part of it, in place where a library can."""
    if not isinstance(x, np.ndarray):
        return xpx.at(x)[*where, ...].add(more)
    add(x[where], more)
    return x
