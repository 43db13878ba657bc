"""Activations: functions of one element.

A derivative that is 1 on one side of zero is put together from the mask of that side with products, in place of
`where`, which takes NumPy a branch for each element.
"""

from __future__ import annotations

import math
from typing import Any

from xpconv.arrays.arguments import namespace, one_dtype
from xpconv.arrays.broadcasting import total_like
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.ops.distributions import logistic, normal


@operator
def relu(x: Array) -> tuple[Array, Pullback]:
    """Keep what is above zero: ``max(x, 0)``.

    Parameters
    ----------
    x : array
        Of any shape and real floating dtype.

    Returns
    -------
    array
        The shape and dtype of `x`. Its gradient at zero is zero.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 5.5.1.
    """
    xp = _namespace(x)
    # Zeros for one sample, which stay in the cache: beside a number NumPy takes two or three times as long.
    y = xp.maximum(x, xp.zeros_like(x[:1, ...]) if x.ndim and x.shape[0] else 0)
    return y, lambda dy: (dy * xp.astype(y > 0, dy.dtype),)


@operator
@accumulated
def leaky_relu(x: Array, *, slope: float = 0.01) -> tuple[Array, Pullback]:
    """Keep what is above zero and scale down what is below: ``max(x, 0) + slope * min(x, 0)``.

    Parameters
    ----------
    x : array
        Of any shape and real floating dtype.
    slope : float
        Slope below zero, and at zero.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.

    References
    ----------
    Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models" (2013).
    """
    xp = _namespace(x)
    y = slope * xp.minimum(x, 0)
    y += xp.maximum(x, 0)
    return y, lambda dy: (dy * (slope + (1 - slope) * xp.astype(x > 0, x.dtype)),)


@operator
@accumulated
def prelu(x: Array, slope: Array) -> tuple[Array, Pullback]:
    """Keep what is above zero and scale what is below by a slope that is learned.

    Parameters
    ----------
    x : array, shape (N, C, ...)
        Of a real floating dtype.
    slope : array, shape (C,) or (1,)
        Slope below zero, and at zero, of each channel or of all.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or not real floating.
    ValueError
        When shapes or devices do not fit.

    References
    ----------
    He et al., "Delving deep into rectifiers" (2015).
    """
    xp = namespace(x=x, slope=slope)
    one_dtype(xp, "real floating", x=x, slope=slope)
    if x.ndim < 2 or tuple(slope.shape) not in ((1,), (x.shape[1],)):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and slope {tuple(slope.shape)}; give x (N, C, ...) and slope (C,) or (1,)"
        )
    last = channels_last(x)
    below = xp.minimum(last, 0)

    def pullback(dy: Array) -> tuple[Array, Array]:
        dy = channels_last(dy)
        dx = dy * (slope + (1 - slope) * xp.astype(last > 0, dy.dtype))
        return channels_second(dx), total_like(dy * below, tuple(slope.shape))

    return channels_second(xp.maximum(last, 0) + slope * below), pullback


@operator
@accumulated
def elu(x: Array, *, alpha: float = 1.0) -> tuple[Array, Pullback]:
    """Keep what is above zero and bend what is below towards ``-alpha``: ``alpha * (exp(x) - 1)``.

    Parameters
    ----------
    x : array
        Of any shape and real floating dtype.
    alpha : float
        Scale of the part below zero.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.

    References
    ----------
    Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by exponential linear units" (2016).
    """
    xp = _namespace(x)
    below = xp.minimum(x, 0)
    y = alpha * xp.expm1(below)
    y += xp.maximum(x, 0)
    return y, lambda dy: (dy * (alpha * xp.exp(below) + (1 - alpha) * xp.astype(x > 0, x.dtype)),)


@operator
@accumulated
def gelu(x: Array, *, approximate: str = "none") -> tuple[Array, Pullback]:
    """Scale every element by the probability that a normal variable is below it.

    Parameters
    ----------
    x : array
        Of any shape and real floating dtype.
    approximate : str
        "none" for the normal distribution itself, to rounding; "tanh" for the paper's approximation, which is within
        5e-4 of it.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.
    ValueError
        When `approximate` is neither.

    References
    ----------
    Hendrycks and Gimpel, "Gaussian error linear units" (2016).
    """
    xp = _namespace(x)
    if approximate == "tanh":
        width, cubic = math.sqrt(2 / math.pi), 0.044715
        share = logistic(2 * width * (x + cubic * x * x * x))  # (1 + tanh(z)) / 2 is logistic(2 z)

        def slope() -> Array:
            return share + x * share * (1 - share) * (2 * width * (1 + 3 * cubic * x * x))

    elif approximate == "none":
        share = normal(x)

        def slope() -> Array:
            return share + x * (xp.exp(x * x / -2) / math.sqrt(2 * math.pi))

    else:
        raise ValueError(f'approximate is {approximate!r}; give "none" or "tanh"')
    return x * share, lambda dy: (dy * slope(),)


@operator
@accumulated
def silu(x: Array) -> tuple[Array, Pullback]:
    """Scale every element by its `sigmoid`; also known as swish.

    Parameters
    ----------
    x : array
        Of any shape and real floating dtype.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.

    References
    ----------
    Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units" (2017).
    """
    _namespace(x)
    share = logistic(x)
    return x * share, lambda dy: (dy * (share * (1 + x * (1 - share))),)


@operator
@accumulated
def sigmoid(x: Array) -> tuple[Array, Pullback]:
    """Squeeze every element between 0 and 1: ``1 / (1 + exp(-x))``.

    Parameters
    ----------
    x : array
        Of any shape and real floating dtype.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 5.5.2.
    """
    _namespace(x)
    y = logistic(x)
    return y, lambda dy: (dy * (y * (1 - y)),)


@operator
@accumulated
def tanh(x: Array) -> tuple[Array, Pullback]:
    """Squeeze every element between -1 and 1: the hyperbolic tangent.

    Parameters
    ----------
    x : array
        Of any shape and real floating dtype.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.
    """
    xp = _namespace(x)
    y = xp.tanh(x)
    return y, lambda dy: (dy * (1 - y * y),)


def _namespace(x: Array) -> Any:
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    return xp
