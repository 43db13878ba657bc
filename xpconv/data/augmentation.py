"""Augmentation: training on images that differ a little each time, made where they are.

Every function takes a batch (N, C, *size) of any dtype and number of spatial axes, and changes each sample by what it
draws for it. Random numbers are drawn on the host, a few for each sample, so that every backend makes the same images;
without a generator nothing is drawn, and the batch is what evaluation wants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import device

from xpconv.arrays.arguments import namespace, spatial_axes
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array
from xpconv.windows import paddings, whole_number, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray


def crop(
    x: Array,
    size: int | Sequence[int],
    *,
    pad: int | Sequence[int | tuple[int, int]] = 0,
    rng: np.random.Generator | None = None,
) -> Array:
    """Cut a window out of every image, at a place of its own.

    Parameters
    ----------
    x : array, shape (N, C, *size)
    size : int or one int an axis
        Of the window.
    pad : int, one int an axis, or one (before, after) pair an axis
        Zeros around the image, where the window may reach.
    rng : numpy.random.Generator, optional
        Draws the places. Without it the window is in the middle of the padded image.

    Returns
    -------
    array, shape (N, C, *size)
        Of the window; the dtype of `x`.

    Raises
    ------
    TypeError
        When a number is not whole or `rng` no generator.
    ValueError
        When the window is larger than the padded image, or there is not one number for each axis.

    References
    ----------
    He et al., "Deep residual learning for image recognition" (2016), section 4.2: ``crop(x, 32, pad=4)``.
    """
    axes = _checked(x, rng)
    sizes, pairs = whole_numbers("size", size, axes, least=1), paddings(pad, axes)
    room = [have + sum(pair) - want for have, pair, want in zip(x.shape[2:], pairs, sizes, strict=True)]
    if min(room) < 0:
        padded = tuple(want + left for want, left in zip(sizes, room, strict=True))
        raise ValueError(f"size is {sizes} and the images with their padding {padded}; give a window that fits")
    starts = [
        (np.full(x.shape[0], left // 2) if rng is None else rng.integers(left + 1, size=x.shape[0])) - before
        for left, (before, _) in zip(room, pairs, strict=True)
    ]
    return _read(x, [start[:, None] + np.arange(want) for start, want in zip(starts, sizes, strict=True)])


def shift(x: Array, most: int | Sequence[int] = 2, *, rng: np.random.Generator | None = None) -> Array:
    """Move every image by whole elements along each spatial axis; zeros come in.

    Parameters
    ----------
    x : array, shape (N, C, *size)
    most : int or one int an axis
        The farthest that an image moves, to either side.
    rng : numpy.random.Generator, optional
        Draws how far, every distance alike. Without it nothing moves.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        When `most` is no whole number of at least 0, or `rng` no generator.
    """
    return crop(x, tuple(x.shape[2:]), pad=whole_numbers("most", most, _checked(x, rng), least=0), rng=rng)


def flip(
    x: Array, axes: int | Sequence[int] = -1, *, ratio: float = 0.5, rng: np.random.Generator | None = None
) -> Array:
    """Mirror some images, along each of the axes by a decision of its own.

    Parameters
    ----------
    x : array, shape (N, C, *size)
    axes : int or sequence of int
        Spatial axes: -1, the last, is left and right.
    ratio : float
        Probability that an image is mirrored.
    rng : numpy.random.Generator, optional
        Decides. Without it nothing is mirrored.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When an axis is no whole number, or `rng` no generator.
    ValueError
        When an axis is not a spatial one, or `ratio` not in [0, 1].
    """
    _checked(x, rng)
    chosen = axes if isinstance(axes, Sequence) else (axes,)
    chosen = [whole_number("an axis", axis, least=-x.ndim) for axis in chosen]
    if wrong := [axis for axis in chosen if axis not in range(2, x.ndim) and axis not in range(2 - x.ndim, 0)]:
        raise ValueError(f"axes has {wrong[0]}, which is no spatial axis of x of shape {tuple(x.shape)}")
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is {ratio!r}; give a probability, from 0 to 1")
    if rng is None:
        return x
    xp = namespace(x=x)
    for axis in chosen:
        mirrored = rng.random(x.shape[0]) < ratio
        x = xp.where(_along(x, mirrored, 0), xp.flip(x, axis=axis), x)
    return x


def cutout(x: Array, size: int | Sequence[int], *, rng: np.random.Generator | None = None) -> Array:
    """Set a window of every image to zero.

    Parameters
    ----------
    x : array, shape (N, C, *size)
    size : int or one int an axis
        Of the window.
    rng : numpy.random.Generator, optional
        Draws the element that the window's middle is at, from all of the image: it may stand out at an edge. Without
        it nothing is set.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        When `size` is no whole number of at least 1, or `rng` no generator.

    References
    ----------
    DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout" (2017).
    """
    sizes = whole_numbers("size", size, _checked(x, rng), least=1)
    if rng is None:
        return x
    hidden = None
    for axis, width in enumerate(sizes, start=2):
        have = x.shape[axis]
        starts = rng.integers(have, size=x.shape[0])[:, None] - width // 2
        places = np.arange(have)
        inside = _along(x, (places >= starts) & (places < starts + width), 0, axis)
        hidden = inside if hidden is None else hidden & inside
    return namespace(x=x).where(hidden, 0, x)


def _checked(x: Array, rng: np.random.Generator | None) -> int:
    """Return the number of spatial axes, once it is clear that there are some and what draws."""
    namespace(x=x)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a {type(rng).__name__}; give a numpy.random.Generator or None")
    return spatial_axes("x", x)


def _along(x: Array, host: NDArray[Any], *axes: int, ndim: int | None = None) -> Array:
    """Move an array of the host to the device of `x`, its axes at these places among ones."""
    shape = [1] * (x.ndim if ndim is None else ndim)
    for axis, length in zip(axes, host.shape, strict=True):
        shape[axis] = length
    return namespace(x=x).asarray(host.reshape(shape), device=device(x), copy=True)


def _read(x: Array, places: list[NDArray[np.int64]]) -> Array:
    """Read from every sample the elements at its own places (N, OH), (N, OW), ... of each axis; beyond it are zeros."""
    xp, (samples, channels, *sizes) = namespace(x=x), x.shape
    output = (samples, *(place.shape[1] for place in places))
    flat, inside = _along(x, np.arange(samples), 0, ndim=x.ndim - 1), None
    for axis, (size, place) in enumerate(zip(sizes, places, strict=True), start=1):
        flat = flat * size + _along(x, np.clip(place, 0, size - 1), 0, axis, ndim=x.ndim - 1)  # (N, OH, 1) and so on
        if np.any((place < 0) | (place >= size)):
            here = _along(x, (place >= 0) & (place < size), 0, axis, ndim=x.ndim - 1)
            inside = here if inside is None else inside & here
    rows = xp.reshape(channels_last(x), (samples * math.prod(sizes), channels))
    y = xp.reshape(xp.take(rows, xp.reshape(flat, (-1,)), axis=0), (*output, channels))
    if inside is not None:
        y = xp.where(inside[..., None], y, 0)
    return channels_second(y)
