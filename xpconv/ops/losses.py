"""Losses: how far an output is from what was wanted, as one number."""

from __future__ import annotations

from typing import Any

from array_api_compat import device

from xpconv.arrays import namespace, one_dtype
from xpconv.backends import Array, Pullback, at_hand
from xpconv.operators import operator


@operator
def softmax_cross_entropy(x: Array, t: Array) -> tuple[Array, Pullback]:
    """Mean over the batch of the cross entropy between softmax(x) and the labels.

    Parameters
    ----------
    x : array, shape (N, K)
        Scores of K classes, of a real floating dtype.
    t : array of int, shape (N,), or array, shape (N, K)
        Labels from 0 to K-1, or what softmax(x) should be: one-hot rows or probabilities.

    Returns
    -------
    array, shape ()
        The loss, in nats, in the dtype of `x`. Where looking at the labels would mean waiting for a device or break a
        trace, a label out of range makes it NaN.

    Raises
    ------
    TypeError
        When the arrays are of several libraries, `x` is not real floating, or the labels are no integers.
    ValueError
        When the batch is empty, shapes or devices do not fit, or a label is out of range.

    References
    ----------
    Saito, *Deep Learning from Scratch*, sections 4.2 and 5.6.3.
    """
    xp = namespace(x=x, t=t)
    one_dtype(xp, "real floating", x=x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}; give (N, K), N and K at least 1")
    wanted = _probabilities(xp, x, t)
    z = x - xp.max(x, axis=1, keepdims=True)
    log_softmax = z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True, dtype=x.dtype))
    loss = -xp.sum(wanted * log_softmax, dtype=x.dtype) / x.shape[0]

    def pullback(dy: Array) -> tuple[Array, None]:
        mass = xp.sum(wanted, axis=1, keepdims=True, dtype=x.dtype)
        return (xp.exp(log_softmax) * mass - wanted) * (dy / x.shape[0]), None

    return loss, pullback


def _probabilities(xp: Any, x: Array, t: Array) -> Array:
    """Return what softmax(x) should be, (N, K) in the dtype of x, from labels or from rows."""
    batch, classes = x.shape
    if tuple(t.shape) == (batch, classes):
        return xp.astype(t, x.dtype)
    if tuple(t.shape) != (batch,):
        raise ValueError(f"t has shape {tuple(t.shape)}; give ({batch},) labels or ({batch}, {classes}) rows")
    if not xp.isdtype(t.dtype, "integral"):
        raise TypeError(f"t has dtype {t.dtype}; give labels as integers")
    inside = (t >= 0) & (t < classes)
    if at_hand(t) and not bool(xp.all(inside)):
        raise ValueError(f"t has labels from {int(xp.min(t))} to {int(xp.max(t))}; give 0 to {classes - 1}")
    hot = xp.expand_dims(t, axis=1) == xp.arange(classes, dtype=t.dtype, device=device(t))
    nan = xp.full(hot.shape, float("nan"), dtype=x.dtype, device=device(x))
    return xp.where(xp.expand_dims(inside, axis=1), xp.astype(hot, x.dtype), nan)
