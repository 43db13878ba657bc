"""The matrices of minimal filtering, F(m, 3), derived from points of interpolation: Toom and Cook's method, transposed.

References
----------
Winograd, *Arithmetic Complexity of Computations* (1980); Barabasz et al., "Error analysis and improving the accuracy of
Winograd convolution for deep neural networks" (2020), for the points.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

TAPS = 3
# Finite points by how many products there are, the last one being at infinity. They are those that leave the smallest
# errors; for F(4, 3), 1/2 and -2 in place of 2 and -2 leave a third of them.
POINTS = {
    3: (0, 1),
    4: (0, 1, -1),
    5: (0, 1, Fraction(-1, 2), -2),
    6: (0, 1, -1, Fraction(1, 2), -2),
}


@dataclass(frozen=True, eq=False)
class Transforms:
    """The three matrices of F(m, 3): ``y = outputs @ ((filters @ w) * (inputs @ x))``."""

    inputs: np.ndarray
    filters: np.ndarray
    outputs: np.ndarray

    @property
    def places(self) -> int:
        """Products of a tile along an axis."""
        return len(self.inputs)

    @property
    def span(self) -> int:
        """Inputs of a tile along an axis."""
        return int(self.inputs.shape[1])


@functools.cache
def transforms(m: int, stride: int = 1) -> Transforms:
    """Return the matrices of m outputs: every phase of the stride filters by itself, and the outputs are added up."""
    span = (m - 1) * stride + TAPS
    inputs, filters, outputs = [], [], []
    for phase in range(min(stride, TAPS)):
        taps = len(range(phase, TAPS, stride))
        part = _minimal_filtering(m, taps)
        for row, weights in zip(part.inputs, part.filters, strict=True):
            inputs.append(np.zeros(span))
            inputs[-1][phase : phase + (m + taps - 1) * stride : stride] = row
            filters.append(np.zeros(TAPS))
            filters[-1][phase::stride] = weights
        outputs.append(part.outputs)
    return Transforms(np.stack(inputs), np.stack(filters), np.concatenate(outputs, axis=1))


def _minimal_filtering(m: int, taps: int) -> Transforms:
    """Derive the matrices of F(m, taps) from its points, exactly: evaluate, multiply, and interpolate, transposed."""
    if taps == 1:
        return Transforms(np.eye(m), np.ones((m, 1)), np.eye(m))
    points = [Fraction(p) for p in POINTS[m + taps - 1]]

    def powers(p: Fraction, count: int) -> list[Fraction]:
        return [p**i for i in range(count)]

    def without(i: int | None) -> list[Fraction]:
        """Coefficients of the product of (z - p) over all points but the i-th."""
        coefficients = [Fraction(1)]
        for j, p in enumerate(points):
            if j != i:
                shifted, scaled = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
                coefficients = [a - p * b for a, b in zip(shifted, scaled, strict=True)]
        return coefficients

    inputs, filters, outputs = [], [], []
    for i, p in enumerate(points):
        scale = math.prod(p - q for q in points if q != p)
        inputs.append([*without(i), Fraction(0)])
        filters.append([power / scale for power in powers(p, taps)])
        outputs.append(powers(p, m))
    inputs.append(without(None))
    filters.append([Fraction(0)] * (taps - 1) + [Fraction(1)])
    outputs.append([Fraction(0)] * (m - 1) + [Fraction(1)])
    as_matrix = functools.partial(np.asarray, dtype=np.float64)
    return Transforms(as_matrix(inputs), as_matrix(filters), as_matrix(outputs).T)


@functools.cache
def _kronecker(matrix: bytes, rows: int, axes: int) -> np.ndarray:
    return functools.reduce(np.kron, [np.frombuffer(matrix).reshape(rows, -1)] * axes)


def nested(matrix: np.ndarray, axes: int) -> np.ndarray:
    """Return the one matrix that does what this one does along every axis."""
    return _kronecker(matrix.tobytes(), matrix.shape[0], axes)
