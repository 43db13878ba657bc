"""Linear maps along one axis in which every element of the result reads a few elements: padding, interpolation, means.

`Reads` is such a map in whole numbers and weights, a sparse matrix by its rows; `resample` carries it out. The adjoint
is again such a map, of the transposed matrix: nothing is scattered, so the result does not depend on any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from array_api_compat import array_namespace, device

from xpconv.arrays.libraries import Array


@dataclass(frozen=True)
class Reads:
    """What each element of the result reads: (element, weight) pairs, in order, of an axis of `size` elements."""

    size: int
    pairs: tuple[tuple[tuple[int, float], ...], ...]

    @classmethod
    def copies(cls, size: int, elements: Sequence[int | None]) -> Reads:
        """Make every element of the result a copy of one element, or of none."""
        return cls(size, tuple(() if i is None else ((i, 1),) for i in elements))

    @cached_property
    def adjoint(self) -> Reads:
        """The transposed map: what each element of the axis is read by."""
        readers: list[list[tuple[int, float]]] = [[] for _ in range(self.size)]
        for o, pairs in enumerate(self.pairs):
            for i, weight in pairs:
                readers[i].append((o, weight))
        return Reads(len(self.pairs), tuple(map(tuple, readers)))

    @cached_property
    def identical(self) -> bool:
        """Whether the result is the axis itself."""
        return self.pairs == tuple(((i, 1),) for i in range(self.size))


def resample(x: Array, reads: Sequence[Reads], *, first: int, fill: float = 0) -> Array:
    """Let the axes from `first` on be read, one after the other; an element that reads nothing is `fill`."""
    for axis, along in enumerate(reads, start=first):
        if not along.identical:
            x = _read(x, axis, along, fill)
    return x


def _read(x: Array, axis: int, reads: Reads, fill: float) -> Array:
    xp, place = array_namespace(x), device(x)
    indexing = xp.__array_namespace_info__().default_dtypes(device=place)["indexing"]
    along = (1,) * axis + (len(reads.pairs),) + (1,) * (x.ndim - axis - 1)
    total = None
    for pairs in itertools.zip_longest(*reads.pairs):  # the first element that each one reads, the second, ...
        elements, weights = zip(*((0, 1) if pair is None else pair for pair in pairs), strict=True)
        term = xp.take(x, xp.asarray(elements, dtype=indexing, device=place), axis=axis)
        if any(weight != 1 for weight in weights):
            term *= xp.reshape(xp.asarray(weights, dtype=x.dtype, device=place), along)
        if None in pairs:
            reading = [pair is not None for pair in pairs]
            reading = xp.reshape(xp.asarray(reading, dtype=xp.bool, device=place), along)
            nothing = xp.full((), fill if total is None else 0, dtype=x.dtype, device=place)
            term = xp.where(reading, term, nothing)
        if total is None:
            total = term
        else:
            total += term
    return total
