"""The arrays of a case, drawn on the host, and what must come out of them: in float64, one tap at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xpconv.bench.layers import NETWORKS, Case

Host = NDArray[Any]


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

    arrays: tuple[Host, ...]
    dy: Host


@functools.lru_cache(maxsize=1)
def problem(case: Case) -> Problem:
    """Draw the arrays of a case in float32, the same ones each time."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Host:
        return rng.standard_normal(shape, dtype=np.float32)

    x = normal(*case.shape)
    if case.operator in NETWORKS:
        return Problem((x,), rng.integers(10, size=case.shape[0]))
    if case.operator != "conv":
        return Problem((x,), normal(*case.output_shape))
    weight = normal(*case.weight_shape)
    weight /= np.float32(math.sqrt(math.prod(case.weight_shape[1:])))
    biases = (normal(case.filters),) if case.bias else ()
    return Problem((x, weight, *biases), normal(*case.output_shape))


def expected(case: Case) -> tuple[Host, ...]:
    """Return y and the gradient of every array in float64, of an operator that is no network.

    Written for this one purpose, from the definition and with none of the library's code for arrays: a sum over the
    taps, each of which sees a slice of the padded input.
    """
    return (_convolution if case.operator == "conv" else _pooling)(case, problem(case))


def _taps(case: Case) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Go through the taps of a window, each with where it lies in the padded input (N, *size, C)."""
    for tap in np.ndindex(*case.window.kernel):
        ends = [(k, k + (count - 1) * case.stride + 1) for k, count in zip(tap, case.window.output, strict=True)]
        yield tap, (slice(None), *(slice(start, end, case.stride) for start, end in ends))


def _padded(case: Case, x: Host, value: float) -> Host:
    pads = [(0, 0), *[(case.pad, case.pad)] * (x.ndim - 2), (0, 0)]
    return np.pad(np.moveaxis(x, 1, -1).astype(np.float64), pads, constant_values=value)


def _cut(case: Case, dx: Host) -> Host:
    inside = (slice(case.pad, case.pad + size) for size in case.shape[2:])
    return np.moveaxis(dx[:, *inside], -1, 1)


def _convolution(case: Case, given: Problem) -> tuple[Host, ...]:
    x, weight, *biases = given.arrays

    def by_group(a: Host) -> Host:
        """(..., C) to (G, prod(...), C/G)."""
        return np.moveaxis(a.reshape(-1, case.groups, a.shape[-1] // case.groups), 1, 0)

    def from_groups(a: Host, shape: tuple[int, ...]) -> Host:
        return np.moveaxis(a, 0, 1).reshape(shape)

    padded, dy = _padded(case, x, 0), np.moveaxis(given.dy, 1, -1).astype(np.float64)
    filters: Any = weight.astype(np.float64).reshape(case.groups, -1, *weight.shape[1:])  # (G, O/G, C/G, *kernel)
    y, dx, dw = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(filters)
    dys = by_group(dy)
    for tap, where in _taps(case):
        seen, matrix = by_group(padded[where]), filters[..., *tap]
        y += from_groups(seen @ matrix.mT, y.shape)
        dx[where] += from_groups(dys @ matrix, padded[where].shape)
        dw[(..., *tap)] = dys.mT @ seen
    gradients = [np.moveaxis(y, -1, 1), _cut(case, dx), dw.reshape(weight.shape)]
    for bias in biases:
        y += bias
        gradients.append(dy.sum(axis=tuple(range(dy.ndim - 1))))
    return tuple(gradients)


def _pooling(case: Case, given: Problem) -> tuple[Host, ...]:
    (x,) = given.arrays
    largest = case.operator in ("max_pool", "global_max_pool")
    padded, left = _padded(case, x, -np.inf if largest else 0), np.moveaxis(given.dy, 1, -1).astype(np.float64)
    reduce, taps = np.maximum if largest else np.add, math.prod(case.window.kernel)
    y, dx = functools.reduce(reduce, (padded[where] for _, where in _taps(case))), np.zeros(padded.shape)
    for _, where in _taps(case):
        if largest:  # the gradient goes to the first maximum
            chosen = padded[where] == y
            dx[where] += np.where(chosen, left, 0)
            left = np.where(chosen, 0, left)
        else:
            dx[where] += left / taps
    return np.moveaxis(y if largest else y / taps, -1, 1), _cut(case, dx)
