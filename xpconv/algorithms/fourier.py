"""Discrete Fourier transforms of tiles, as real numbers: where they are, correlating is multiplying.

A complex number is kept as three real ones, its parts and their sum, so that a product of two takes three products of
real numbers (Gauss), and all products over the channels are of real matrices.

A short transform is the product by its matrix, which costs less than a fast one up to some hundred elements: it is one
of the small products that a processor is best at, it takes tiles as views, and it leaves out whatever is not asked for.
So dilation is a choice of columns, and stride of rows. The frequencies lie halfway between the usual ones, where none
of them is real, and half of them tell all of a real tile: along the first axis there are no others. Long transforms are
left to the library's own `fft`.

Letters: R tiles along an axis, K elements of a tile, F frequencies, T all numbers of a spectrum, P tiles of all images.

References
----------
Cooley and Tukey, "An algorithm for the machine calculation of complex Fourier series" (1965).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Protocol

import array_api_extra as xpx
import numpy as np
from array_api_compat import device

from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.elementwise import settled
from xpconv.execution.products import product
from xpconv.windows import Window
from xpconv.windows.frames import extend, frames

Places = tuple[range, ...]  # where the elements of a tile stand on each axis of the transform
LONGEST = 128  # elements that a transform by a matrix has at most
FAST = 200  # what a fast transform takes along an axis: nearly the same for every length

GAUSS = np.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # (real, imaginary) to the three factors of a product
PARTS = np.asarray([[1.0, -1.0, 0.0], [-1.0, -1.0, 1.0]])  # the three products to (real, imaginary)


class Transform(Protocol):
    """A transform of tiles, as long along each axis as it was made to be."""

    @property
    def numbers(self) -> int:
        """Real numbers in a spectrum."""

    @property
    def work(self) -> int:
        """What a transform takes for each of them, in units of a multiply-add of matrices."""

    def spectrum(self, x: Array, tiles: Window, places: Places, *, conjugate: bool = False) -> Array:
        """(n, *size, C) to (T, P, C): the spectrum of every tile, its elements standing at these places."""

    def restored(self, products: Array, tiles: Window, places: Places, place: Array | None = None) -> Array:
        """(T, P, C) to (n, R*K, ..., C): the elements at these places of every tile, side by side.

        Of the product of a spectrum with a conjugate one they are what their tiles correlate to.
        """


def transform(lengths: tuple[int, ...]) -> Transform:
    """Return the transform of these lengths."""
    return Matrices(lengths) if max(lengths) <= LONGEST else Fast(lengths)


@dataclass(frozen=True)
class Matrices:
    """Transforms by their matrices, along one axis after the other; the first has an even length."""

    lengths: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """Real numbers in a spectrum."""
        return 3 * math.prod(self.lengths) // 2

    @property
    def work(self) -> int:
        """What a transform takes for each of them, in units of a multiply-add of matrices."""
        return sum(self.lengths)

    def spectrum(self, x: Array, tiles: Window, places: Places, *, conjugate: bool = False) -> Array:
        """(n, *size, C) to (T, P, C): the spectrum of every tile, its elements standing at these places."""
        xp, axes = namespace_of(x), len(self.lengths)
        order = (*range(2, 2 * axes + 1, 2), 0, *range(1, 2 * axes, 2), 2 * axes + 1)
        v = extend(x, tiles.margins, first=1)
        for i, (length, span, at) in enumerate(zip(self.lengths, tiles.axes, places, strict=True)):
            if i == 0:
                v = frames(v, 1, span)  # (n, R, K, size, ..., C)
            else:
                v = frames(v, 2 * i + 2, span)  # (n, R, F, ..., R, 2, F, R, K, size, ..., C)
                v = settled(xp.moveaxis(v, 2 * i, 2 * i + 2))  # (n, R, F, ..., R, F, R, 2, K, size, ..., C)
            lead, rest = v.shape[: 2 * i + 2], v.shape[2 * i + 3 + (i > 0) :]
            matrix = _forward(length, at, conjugate, i == 0, i == axes - 1, _dtype(x))
            flat = xp.reshape(v, (*lead, matrix.shape[1], math.prod(rest)))
            if i < axes - 1:
                v = xp.reshape(product(matrix, flat), (*lead, 2, matrix.shape[0] // 2, *rest))
        return xp.reshape(
            product(matrix, flat, order), (self.numbers, math.prod(v.shape[0:1] + tiles.output), x.shape[-1])
        )

    def restored(self, products: Array, tiles: Window, places: Places, place: Array | None = None) -> Array:
        """(T, P, C) to (n, R*K, ..., C): the elements at these places of every tile, side by side."""
        xp, axes, counts = namespace_of(products), len(self.lengths), tiles.output
        (_, count, channels), kept = products.shape, [len(at) for at in places]
        frequencies = (self.lengths[0] // 2, *self.lengths[1:])
        y = products
        for i in reversed(range(axes)):
            matrix = _inverse(self.lengths[i], places[i], i == 0, i == axes - 1, _dtype(products))
            done = kept[:i:-1]  # (F, ..., K, ..., 2*F, P*C), and 3*F first of all
            y = xp.reshape(y, (*frequencies[:i], *done, matrix.shape[1], count * channels))
            if i:
                y = product(matrix, y, (*range(i - 1), *range(i, axes), i - 1, axes))
        batch = count // math.prod(counts)
        y = xp.moveaxis(xp.reshape(y, (*y.shape[:-1], batch, *counts, channels)), axes - 1, -2)
        sides = zip(range(axes, 2 * axes), (2 * axes, *range(axes - 2, -1, -1)), strict=True)
        order = (axes - 1, *(axis for pair in sides for axis in pair), 2 * axes + 1)  # (n, R, K, ..., C)
        whole = (batch, *(r * k for r, k in zip(counts, kept, strict=True)), channels)
        if place is None or place.shape != whole:
            return xp.reshape(product(matrix, y, order), whole)
        split = (batch, *(size for pair in zip(counts, kept, strict=True) for size in pair), channels)
        product(matrix, y, order, place.reshape(split))
        return place


@dataclass(frozen=True)
class Fast:
    """Transforms by the library's `fft`, an extension of the standard."""

    lengths: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """Real numbers in a spectrum."""
        return 3 * (self.lengths[0] // 2 + 1) * math.prod(self.lengths[1:])

    @property
    def work(self) -> int:
        """What a transform takes for each of them, in units of a multiply-add of matrices."""
        return FAST * len(self.lengths)

    def spectrum(self, x: Array, tiles: Window, places: Places, *, conjugate: bool = False) -> Array:
        """(n, *size, C) to (T, P, C): the spectrum of every tile, its elements standing at these places."""
        xp, axes, fft = namespace_of(x), len(self.lengths), fft_of(x)
        v = extend(x, tiles.margins, first=1)
        for i, span in enumerate(tiles.axes):
            v = _spread(frames(v, 1 + 2 * i, span), 2 + 2 * i, places[i])
        z = fft.rfft(v, n=self.lengths[0], axis=2)  # (n, R, F, ..., C)
        for i in range(1, axes):
            z = fft.fft(z, n=self.lengths[i], axis=2 + 2 * i)
        z = xp.permute_dims(z, (*range(2, 2 * axes + 1, 2), 0, *range(1, 2 * axes, 2), 2 * axes + 1))
        real, imaginary = xp.real(z), -xp.imag(z) if conjugate else xp.imag(z)
        parts = xp.stack([real, imaginary, real + imaginary])
        return xp.reshape(parts, (self.numbers, x.shape[0] * math.prod(tiles.output), x.shape[-1]))

    def restored(self, products: Array, tiles: Window, places: Places, place: Array | None = None) -> Array:
        """(T, P, C) to (n, R*K, ..., C): the elements at these places of every tile, side by side."""
        xp, axes, fft, counts = namespace_of(products), len(self.lengths), fft_of(products), tiles.output
        batch, channels = products.shape[1] // math.prod(counts), products.shape[-1]
        frequencies = (self.lengths[0] // 2 + 1, *self.lengths[1:])
        parts = xp.reshape(products, (3, *frequencies, batch, *counts, channels))
        first, second, third = (parts[i, ...] for i in range(3))
        kind = xp.complex64 if products.dtype == xp.float32 else xp.complex128
        z = xp.astype(first - second, kind) + 1j * xp.astype(third - first - second, kind)
        sides = zip(range(axes + 1, 2 * axes + 1), range(axes), strict=True)
        z = xp.permute_dims(z, (axes, *(axis for pair in sides for axis in pair), 2 * axes + 1))
        for i in range(1, axes):
            z = fft.ifft(z, n=self.lengths[i], axis=2 + 2 * i)[(slice(None),) * (2 + 2 * i) + (_slice(places[i]), ...)]
        y = fft.irfft(z, n=self.lengths[0], axis=2)[:, :, _slice(places[0]), ...]
        return xp.reshape(y, (batch, *(r * len(at) for r, at in zip(counts, places, strict=True)), channels))


def fft_of(x: Array) -> Any:
    """Return the standard's extension `fft` of an array's library, or raise ValueError where it has none."""
    try:
        return namespace_of(x).fft
    except (AttributeError, RuntimeError):
        raise ValueError(
            f"a kernel that spans so many elements takes Fourier transforms of more than {LONGEST}, and "
            f'{namespace_of(x).__name__} has no fft; choose algorithm "direct"'
        ) from None


def _slice(places: range) -> slice:
    return slice(places[0], places[-1] + 1, places.step)


def _spread(x: Array, axis: int, places: range) -> Array:
    """Lay elements where they stand, among zeros; the end is left to the transform."""
    if places.step == 1:
        return x
    xp, before = namespace_of(x), (slice(None),) * axis
    laid = xp.zeros((*x.shape[:axis], places[-1] + 1, *x.shape[axis + 1 :]), dtype=x.dtype, device=device(x))
    return xpx.at(laid)[(*before, _slice(places), ...)].set(x)


def _dtype(x: Array) -> Any:
    """Say in which dtype matrices are wanted: that of NumPy's array, and otherwise float64."""
    return x.dtype if isinstance(x, np.ndarray) else np.dtype(np.float64)


def _rotations(length: int, frequencies: int, places: range, sign: int) -> np.ndarray[Any, Any]:
    """(frequencies, K): powers of the roots of -1."""
    turns = np.outer(2 * np.arange(frequencies) + 1, np.asarray(places)) % (2 * length)
    return np.exp(sign * 1j * np.pi / length * turns)


@functools.lru_cache(maxsize=256)
def _forward(
    length: int, places: range, conjugate: bool, first: bool, last: bool, dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    """(2*F or, at last, 3*F, 2*K or, at first, K): real elements come in first, and Gauss's factors go out last."""
    matrix = _rotations(length, length // 2 if first else length, places, 1 if conjugate else -1)
    real = np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])
    if first:
        real = real[:, : len(places)]
    if last:
        real = np.kron(GAUSS, np.eye(matrix.shape[0])) @ real
    return np.ascontiguousarray(real, dtype)


@functools.lru_cache(maxsize=256)
def _inverse(length: int, places: range, first: bool, last: bool, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """(K*2 or, of the first axis, K, 2*F or, of the last, 3*F): the way back."""
    matrix = _rotations(length, length // 2 if first else length, places, 1).T / length
    real = np.stack([np.hstack([matrix.real, -matrix.imag]), np.hstack([matrix.imag, matrix.real])], axis=1)
    real = 2 * real[:, 0] if first else real.reshape(2 * len(places), -1)
    if last:
        real = real @ np.kron(PARTS, np.eye(matrix.shape[1]))
    return np.ascontiguousarray(real, dtype)
