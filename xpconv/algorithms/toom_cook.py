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
# Infinity is always one more point. For F(4, 3), 1/2 and -2 in place of 2 and -2 leave a third of the error.
POINTS = {2: (0, 1, -1), 4: (0, 1, -1, Fraction(1, 2), -2)}


@dataclass(frozen=True, eq=False)
class Transforms:
    """The three matrices of F(m, 3): ``y = outputs @ ((filters @ w) * (inputs @ x))``."""

    inputs: np.ndarray
    filters: np.ndarray
    outputs: np.ndarray


@functools.cache
def transforms(m: int) -> Transforms:
    """Derive the matrices of F(m, 3) from its points, exactly: evaluate, multiply, and interpolate, transposed."""
    points = [Fraction(p) for p in POINTS[m]]

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
        filters.append([power / scale for power in powers(p, TAPS)])
        outputs.append(powers(p, m))
    inputs.append(without(None))
    filters.append([Fraction(0)] * (TAPS - 1) + [Fraction(1)])
    outputs.append([Fraction(0)] * (m - 1) + [Fraction(1)])
    as_matrix = functools.partial(np.asarray, dtype=np.float64)
    return Transforms(as_matrix(inputs), as_matrix(filters), as_matrix(outputs).T)


@functools.cache
def _kronecker(matrix: bytes, rows: int, axes: int) -> np.ndarray:
    return functools.reduce(np.kron, [np.frombuffer(matrix).reshape(rows, -1)] * axes)


def nested(matrix: np.ndarray, axes: int) -> np.ndarray:
    """Return the one matrix that does what this one does along every axis."""
    return _kronecker(matrix.tobytes(), matrix.shape[0], axes)
