"""Softmax and its logarithm: probabilities of scores."""

from __future__ import annotations

from typing import Any

from xpconv.arrays.arguments import namespace, one_dtype
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.ops import distributions


@operator
@accumulated
def softmax(x: Array, *, axis: int = 1) -> tuple[Array, Pullback]:
    """Make probabilities of scores: ``exp(x) / sum(exp(x))`` along an axis.

    Parameters
    ----------
    x : array
        Of a real floating dtype.
    axis : int
        Where the classes stand; by default where channels do.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.
    ValueError
        When `x` has no such axis, or nothing along it.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 3.5.
    """
    xp = _namespace(x, axis)
    y = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    y /= xp.sum(y, axis=axis, keepdims=True, dtype=y.dtype)
    return y, lambda dy: (y * (dy - xp.sum(y * dy, axis=axis, keepdims=True, dtype=dy.dtype)),)


@operator
@accumulated
def log_softmax(x: Array, *, axis: int = 1) -> tuple[Array, Pullback]:
    """Make logarithms of probabilities of scores: ``x - log(sum(exp(x)))`` along an axis.

    Parameters
    ----------
    x : array
        Of a real floating dtype.
    axis : int
        Where the classes stand; by default where channels do.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers.
    ValueError
        When `x` has no such axis, or nothing along it.
    """
    xp = _namespace(x, axis)
    y = distributions.log_softmax(x, axis)
    return y, lambda dy: (dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True, dtype=dy.dtype),)


def _namespace(x: Array, axis: int) -> Any:
    """Return the namespace of scores, once they are known to be that."""
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    if not -x.ndim <= axis < x.ndim or x.shape[axis] == 0:
        raise ValueError(f"x has shape {tuple(x.shape)} and axis is {axis}; give an axis of x with at least 1 element")
    return xp
