"""The arrays of a case, drawn where it is computed, and what must come out of them: in float64, one tap at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.arrays.libraries import Array, namespace_of
from xpconv.bench.layers import NETWORKS, Case


@dataclass(frozen=True)
class Problem:
    """Arrays as (N, C, ...), lying in memory in the order of their axes.

    Attributes
    ----------
    arrays : tuple of array
        x (N, C, *size); of a convolution also the weight (O, C/G, *kernel) and, where it has one, the bias (O,). Its
        output has unit variance.
    dy : array, shape (N, O, *output)
        The gradient to pull back; for a network the labels (N,).
    """

    arrays: tuple[Array, ...]
    dy: Array


@functools.lru_cache(maxsize=1)
def problem(case: Case, xp: Any = np, dtype: str = "float32") -> Problem:
    """Draw the arrays of a case with NumPy or CuPy in float32, the same ones each time, and round them to the dtype."""
    rng = xp.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        drawn = rng.standard_normal(shape, dtype=xp.float32)
        drawn /= scale
        return drawn.astype(dtype, copy=False)

    x = normal(*case.shape)
    if case.operator in NETWORKS:
        return Problem((x,), rng.integers(10, size=case.shape[0]))
    if case.operator != "conv":
        return Problem((x,), normal(*case.output_shape))
    weight = normal(*case.weight_shape, scale=math.sqrt(math.prod(case.weight_shape[1:])))
    biases = (normal(case.filters),) if case.bias else ()
    return Problem((x, weight, *biases), normal(*case.output_shape))


def expected(case: Case, given: Problem) -> tuple[Array, ...]:
    """Return y and the gradient of every array in float64, of an operator that is no network.

    Written for this one purpose, from the definition and with none of the library's code for arrays: a sum over the
    taps, each of which sees a slice of the padded input.
    """
    return (_convolution if case.operator == "conv" else _pooling)(namespace_of(given.dy), case, given)


def _taps(case: Case) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Go through the taps of a window, each with where it lies in the padded input (N, *size, C)."""
    for tap in np.ndindex(*case.window.kernel):
        ends = [(k, k + (count - 1) * case.stride + 1) for k, count in zip(tap, case.window.output, strict=True)]
        yield tap, (slice(None), *(slice(start, end, case.stride) for start, end in ends))


def _padded(xp: Any, case: Case, x: Array, value: float) -> Array:
    pads = [(0, 0), *[(case.pad, case.pad)] * (x.ndim - 2), (0, 0)]
    return xp.pad(xp.moveaxis(x, 1, -1).astype("float64"), pads, constant_values=value)


def _cut(xp: Any, case: Case, dx: Array) -> Array:
    inside = (slice(case.pad, case.pad + size) for size in case.shape[2:])
    return xp.moveaxis(dx[:, *inside], -1, 1)


def _convolution(xp: Any, case: Case, given: Problem) -> tuple[Array, ...]:
    x, weight, *biases = given.arrays

    def by_group(a: Array) -> Array:
        """(..., C) to (G, prod(...), C/G)."""
        return xp.moveaxis(a.reshape(-1, case.groups, a.shape[-1] // case.groups), 1, 0)

    def from_groups(a: Array, shape: tuple[int, ...]) -> Array:
        return xp.moveaxis(a, 0, 1).reshape(shape)

    padded, dy = _padded(xp, case, x, 0), xp.moveaxis(given.dy, 1, -1).astype("float64")
    filters = weight.astype("float64").reshape(case.groups, -1, *weight.shape[1:])  # (G, O/G, C/G, *kernel)
    y, dx, dw = xp.zeros_like(dy), xp.zeros_like(padded), xp.zeros_like(filters)
    dys = by_group(dy)
    for tap, where in _taps(case):
        seen, matrix = by_group(padded[where]), filters[..., *tap]
        y += from_groups(seen @ xp.matrix_transpose(matrix), y.shape)
        dx[where] += from_groups(dys @ matrix, padded[where].shape)
        dw[(..., *tap)] = xp.matrix_transpose(dys) @ seen
    gradients = [xp.moveaxis(y, -1, 1), _cut(xp, case, dx), dw.reshape(weight.shape)]
    for bias in biases:
        y += bias
        gradients.append(dy.sum(axis=tuple(range(dy.ndim - 1))))
    return tuple(gradients)


def _pooling(xp: Any, case: Case, given: Problem) -> tuple[Array, ...]:
    (x,) = given.arrays
    largest = case.operator in ("max_pool", "global_max_pool")
    padded, left = _padded(xp, case, x, -math.inf if largest else 0), xp.moveaxis(given.dy, 1, -1).astype("float64")
    reduce, taps = xp.maximum if largest else xp.add, math.prod(case.window.kernel)
    y, dx = functools.reduce(reduce, (padded[where] for _, where in _taps(case))), xp.zeros(padded.shape)
    for _, where in _taps(case):
        if largest:  # the gradient goes to the first maximum
            chosen = padded[where] == y
            dx[where] += xp.where(chosen, left, 0)
            left = xp.where(chosen, 0, left)
        else:
            dx[where] += left / taps
    return xp.moveaxis(y if largest else y / taps, -1, 1), _cut(xp, case, dx)
