"""Local response normalization: neighbouring channels hold each other down."""

from __future__ import annotations

import array_api_extra as xpx
from array_api_compat import array_namespace

from xpconv.arrays.arguments import namespace, one_dtype
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.windows import whole_number


@operator
@accumulated
def local_response_norm(
    x: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tuple[Array, Pullback]:
    """Divide every element by the strength of the channels around it: ``x / (k + alpha * mean(x**2)) ** beta``.

    Parameters
    ----------
    x : array, shape (N, C) or (N, C, *size)
        Of a real floating dtype.
    size : int
        How many channels the mean is over: the element's own, ``size // 2`` before it and the rest after. Channels
        outside x are zeros.
    alpha, beta, k : float
        Scale of the mean (not below 0), exponent, and what is added (above 0).

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers, or `size` is not whole.
    ValueError
        When `x` has no channels, or a number is out of range.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks" (2012).
    """
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    size = whole_number("size", size, least=1)
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; give (N, C) or (N, C, ...)")
    if not (k > 0 and alpha >= 0):
        raise ValueError(f"k is {k!r} and alpha {alpha!r}; give k above 0 and alpha not below")
    before, after = size // 2, (size - 1) // 2
    last = channels_last(x)
    strength = _around(last * last, before, after)
    strength *= alpha / size
    strength += k
    scale = strength**-beta

    def pullback(dy: Array) -> tuple[Array]:
        dy = channels_last(dy)
        felt = _around(dy * last * scale / strength, after, before)  # the neighbours that hear this channel
        dx = dy * scale
        dx -= felt * last * (2 * alpha * beta / size)
        return (channels_second(dx),)

    return channels_second(last * scale), pullback


def _around(x: Array, before: int, after: int) -> Array:
    """Sum over so many channels before and after each, channels last."""
    channels = x.shape[-1]
    y = array_namespace(x).zeros_like(x)
    for shift in range(-min(before, channels - 1), min(after, channels - 1) + 1):
        here, there = slice(max(0, -shift), channels - max(0, shift)), slice(max(0, shift), channels + min(0, shift))
        y = xpx.at(y)[..., here].add(x[..., there])
    return y
