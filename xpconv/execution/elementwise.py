"""Arithmetic element by element, as each library does it best: on NumPy written where it is wanted, step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import array_api_extra as xpx
import numpy as np
from array_api_compat import device

from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.steps import copied, step
from xpconv.execution.workspace import empty


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


def reduced(name: str, parts: Iterable[Array], place: Array | None = None) -> Array:
    """Reduce arrays element by element, by "add" or "maximum"; `place` is where to write the result."""
    first, *rest = parts
    if not isinstance(first, np.ndarray):
        return functools.reduce(getattr(namespace_of(first), name), rest, first)
    if place is None:
        place = empty(first.shape, first.dtype) if rest else first
    elif not rest:
        step(copied, first, place)
    for part in rest:
        step(_INTO[name], first, part, place)
        first = place
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


def divided(x: Array, mask: Array) -> tuple[Array, Array]:
    """Return x where the mask is true and 0 elsewhere, and the other way round, written over x where a library can."""
    if not isinstance(x, np.ndarray):
        xp = namespace_of(x)
        return xp.where(mask, x, xp.zeros_like(x)), xp.where(mask, xp.zeros_like(x), x)
    bits = x.view(f"i{x.itemsize}")  # as whole numbers they multiply exactly, an infinity and a NaN too
    chosen = empty(x.shape, bits.dtype)
    step(copied, mask, chosen)  # a product that casts it takes longer
    step(np.multiply, bits, chosen, chosen)
    step(np.subtract, bits, chosen, bits)
    return chosen.view(x.dtype), x


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
