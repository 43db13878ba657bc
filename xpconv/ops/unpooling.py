"""Unpooling: what max pooling kept goes back to where it stood."""

from __future__ import annotations

import math
from collections.abc import Sequence

from array_api_compat import device

from xpconv.arrays.arguments import namespace, one_dtype, spatial_axes
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array, Pullback, at_hand
from xpconv.operators import operator
from xpconv.windows import Pad, whole_numbers
from xpconv.windows.transposition import transposed_window


@operator
def max_unpool(
    x: Array,
    indices: Array,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    pad: Pad = 0,
    output_size: int | Sequence[int] | None = None,
) -> tuple[Array, Pullback]:
    """Put every maximum back where it stood, among zeros: what `max_pool` with `return_indices` gave goes in.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of any dtype.
    indices : array, shape (N, C, *size)
        Integers: where each element goes, flat over the spatial axes of the result.
    kernel, stride, pad
        As they were in `max_pool`.
    output_size : int or one int an axis, optional
        Spatial size of the result. Several sizes pool to the size of `x`; without this one, the result has all the
        elements that the windows touch, less the padding.

    Returns
    -------
    array, shape (N, C, *output_size)
        The dtype of `x`. Where an index comes twice, the later element stays, and the other has no gradient. Where
        looking at the indices would mean waiting for a device or break a trace, one out of range is passed over.

    Raises
    ------
    TypeError
        When the arrays are of several libraries, the indices are no integers, or a number is not whole.
    ValueError
        When shapes or devices do not fit, a number is out of range, `output_size` is none that pools to the size of
        `x`, or an index is not in the result.

    References
    ----------
    Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014).
    """
    xp = namespace(x=x, indices=indices)
    spatial_axes("x", x)
    if tuple(indices.shape) != tuple(x.shape):
        raise ValueError(f"indices has shape {tuple(indices.shape)}; give {tuple(x.shape)}, one for each element of x")
    one_dtype(xp, "integral", indices=indices)
    size = _unpooled_size(x, kernel, stride, pad, output_size)
    place, dtype = device(x), xp.__array_namespace_info__().default_dtypes(device=device(x))["indexing"]
    shape, places = (x.shape[0], *size, x.shape[1]), math.prod(size)
    last, index = channels_last(x), xp.astype(channels_last(indices), dtype)
    inside = (index >= 0) & (index < places)
    if at_hand(indices) and not bool(xp.all(inside)):
        raise ValueError(
            f"indices go from {int(xp.min(indices))} to {int(xp.max(indices))}; give 0 to {places - 1}, places in a "
            f"result of spatial size {size}"
        )
    image = xp.reshape(xp.arange(shape[0], dtype=dtype, device=place), (-1,) + (1,) * (x.ndim - 1))
    channel = xp.arange(shape[-1], dtype=dtype, device=place)
    target = (image * places + index) * shape[-1] + channel
    source = xp.reshape(xp.where(inside, target, xp.zeros_like(target)), (-1,))
    target = xp.reshape(xp.where(inside, target, xp.full_like(target, math.prod(shape))), (-1,))

    # No call of the standard puts elements at an array of places; but sorted by their places, the element for a place
    # can be searched. The sort is stable, so of those that go to one place it is the last that is found.
    order = xp.argsort(target, stable=True)
    target = xp.take(target, order, axis=0)
    everywhere = xp.arange(math.prod(shape), dtype=dtype, device=place)
    found = xp.searchsorted(target, everywhere, side="right") - 1
    found = xp.where(found < 0, xp.zeros_like(found), found)
    y = xp.take(xp.reshape(last, (-1,)), xp.take(order, found, axis=0), axis=0)
    y = xp.where(xp.take(target, found, axis=0) == everywhere, y, xp.zeros_like(y))

    def pullback(dy: Array) -> tuple[Array, None]:
        own = xp.take(order, xp.take(found, source, axis=0), axis=0)  # which element stands where each one went
        kept = inside & xp.reshape(own == xp.arange(own.shape[0], dtype=own.dtype, device=place), last.shape)
        dx = xp.reshape(xp.take(xp.reshape(channels_last(dy), (-1,)), source, axis=0), last.shape)
        return channels_second(xp.where(kept, dx, xp.zeros_like(dx))), None

    return channels_second(xp.reshape(y, shape)), pullback


def _unpooled_size(
    x: Array,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None,
    pad: Pad,
    output_size: int | Sequence[int] | None,
) -> tuple[int, ...]:
    """Return the spatial size that is wanted, or else the one that the windows cover."""
    plan = transposed_window(x.shape[2:], kernel, stride=kernel if stride is None else stride, pad=pad)
    if output_size is None:
        return plan.size
    wanted = whole_numbers("output_size", output_size, len(plan.axes), least=1)
    for i, (span, n) in enumerate(zip(plan.axes, wanted, strict=True)):
        if abs(n - span.size) >= span.stride:
            raise ValueError(
                f"output_size is {n} on axis {i}; give {max(1, span.size - span.stride + 1)} to "
                f"{span.size + span.stride - 1}, the sizes that pool to {span.output} with these windows"
            )
    return wanted
