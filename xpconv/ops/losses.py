"""Losses: how far an output is from what was wanted, as one number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from array_api_compat import device

from xpconv.arrays.arguments import namespace, one_dtype, shaped
from xpconv.arrays.broadcasting import total_like
from xpconv.arrays.libraries import Array, Pullback, at_hand
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.ops.distributions import log_softmax, logistic, softplus

REDUCTIONS = ("mean", "sum", "none")


@operator
@accumulated
def softmax_cross_entropy(
    x: Array,
    t: Array,
    weight: Array | None = None,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Pullback]:
    """Cross entropy between softmax(x) and the labels.

    Parameters
    ----------
    x : array, shape (N, K) or (N, K, *size)
        Scores of K classes, of a real floating dtype.
    t : array of int, shape (N,) or (N, *size), or array, the shape of x
        Labels from 0 to K-1, or what softmax(x) should be: one-hot rows, or probabilities in the dtype of `x`.
    weight : array, shape (K,), optional
        How much each class counts.
    ignore_index : int, optional
        A label, inside the classes or not, of places that do not count.
    label_smoothing : float
        Share of what is wanted that is spread evenly over all classes, from 0 to 1.
    reduction : str
        "mean", "sum" or "none". The mean of labels is weighted: the sum, divided by the weights of the labels that
        count.

    Returns
    -------
    array, shape (), or with reduction="none" (N,) or (N, *size)
        The loss, in nats, in the dtype of `x`; NaN for the mean of nothing. Where looking at the labels would mean
        waiting for a device or break a trace, a label out of range makes it NaN.

    Raises
    ------
    TypeError
        When the arrays are of several libraries, `x` is not real floating, `weight` or probabilities are of another
        dtype, or the labels are no integers.
    ValueError
        When the batch is empty, shapes or devices do not fit, an option is out of range, or a label that can be looked
        at is.

    References
    ----------
    Saito, *Deep Learning from Scratch*, sections 4.2 and 5.6.3; Szegedy et al., "Rethinking the Inception architecture"
    (2016), for label smoothing.
    """
    xp = _scores(x, t, weight)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing!r}; give a number from 0 to 1")
    log_p = log_softmax(x, 1)
    loss, to_log_p = _cross_entropy(xp, log_p, t, weight, ignore_index, label_smoothing, reduction)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dlog_p, dt, dweight = to_log_p(dy)
        dx = dlog_p - xp.exp(log_p) * xp.sum(dlog_p, axis=1, keepdims=True, dtype=x.dtype)
        return dx, dt, dweight

    return loss, pullback


@operator
@accumulated
def nll_loss(
    x: Array, t: Array, weight: Array | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Negative log likelihood of the labels, from logarithms of probabilities.

    Parameters
    ----------
    x : array, shape (N, K) or (N, K, *size)
        Logarithms of probabilities, as `log_softmax` gives them, of a real floating dtype.
    t, weight, ignore_index, reduction
        As in `softmax_cross_entropy`.

    Returns
    -------
    array, shape (), or with reduction="none" (N,) or (N, *size)
        As from `softmax_cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As in `softmax_cross_entropy`.
    """
    xp = _scores(x, t, weight)
    return _cross_entropy(xp, x, t, weight, ignore_index, 0.0, reduction)


@operator
@accumulated
def mean_squared_error(x: Array, t: Array, *, reduction: str = "mean") -> tuple[Array, Pullback]:
    """Squared difference of two arrays.

    Parameters
    ----------
    x, t : array
        What is and what should be, of one shape and real floating dtype.
    reduction : str
        "mean" (over all elements), "sum" or "none".

    Returns
    -------
    array, shape (), or with reduction="none" the shape of x
        The dtype of `x`.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or not real floating.
    ValueError
        When shapes or devices do not fit, there is nothing to take the mean of, or `reduction` is none of the three.

    Notes
    -----
    The book's sum of squares, section 4.2.1, is half of ``reduction="sum"``.
    """
    xp = namespace(x=x, t=t)
    one_dtype(xp, "real floating", x=x, t=t)
    shaped("t", t, tuple(x.shape), "the shape of x")
    reduce, spread = _reduction(xp, reduction, math.prod(x.shape))
    apart = x - t

    def pullback(dy: Array) -> tuple[Array, Array]:
        dx = 2 * apart * spread(dy)
        return dx, -dx

    return reduce(apart * apart), pullback


@operator
@accumulated
def binary_cross_entropy_with_logits(
    x: Array, t: Array, weight: Array | None = None, pos_weight: Array | None = None, *, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Cross entropy between sigmoid(x) and probabilities, element by element.

    Parameters
    ----------
    x : array
        Scores, of any shape and real floating dtype.
    t : array, the shape of x
        What sigmoid(x) should be, from 0 to 1.
    weight : array, optional
        How much each element counts; of a shape that broadcasts to that of x.
    pos_weight : array, optional
        How much ``t`` counts, where ``1 - t`` counts 1; of a shape that broadcasts to that of x.
    reduction : str
        "mean" (over all elements), "sum" or "none".

    Returns
    -------
    array, shape (), or with reduction="none" the shape of x
        The loss, in nats, in the dtype of `x`.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or not real floating.
    ValueError
        When shapes or devices do not fit, there is nothing to take the mean of, or `reduction` is none of the three.
    """
    xp = namespace(x=x, t=t, weight=weight, pos_weight=pos_weight)
    one_dtype(xp, "real floating", x=x, t=t, weight=weight, pos_weight=pos_weight)
    shaped("t", t, tuple(x.shape), "the shape of x")
    for name, array in (("weight", weight), ("pos_weight", pos_weight)):
        _broadcasts(name, array, tuple(x.shape))
    reduce, spread = _reduction(xp, reduction, math.prod(x.shape))
    missed, false = softplus(-x), softplus(x)  # -log(sigmoid(x)), -log(1 - sigmoid(x))
    w = 1 if weight is None else weight
    p = 1 if pos_weight is None else pos_weight
    losses = p * t * missed + (1 - t) * false

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        share = spread(dy)
        dx = share * (w * ((1 - t) * logistic(x) - p * t * logistic(-x)))
        dt = share * (w * (p * missed - false))
        dweight = None if weight is None else total_like(share * losses, tuple(weight.shape))
        dpos = None if pos_weight is None else total_like(share * (w * t * missed), tuple(pos_weight.shape))
        return dx, dt, dweight, dpos

    return reduce(w * losses), pullback


def _scores(x: Array, t: Array, weight: Array | None) -> Any:
    """Return the namespace of scores of classes, once they are known to be that."""
    xp = namespace(x=x, t=t, weight=weight)
    one_dtype(xp, "real floating", x=x, weight=weight)
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}; give (N, K) or (N, K, ...), every length at least 1")
    shaped("weight", weight, (x.shape[1],), "one number for each class")
    return xp


def _cross_entropy(
    xp: Any,
    log_p: Array,
    t: Array,
    weight: Array | None,
    ignore_index: int | None,
    smoothing: float,
    reduction: str,
) -> tuple[Array, Pullback]:
    """Weigh what was wanted and reduce: pulled back to log_p, t and the weights of the classes."""
    classes, rows = log_p.shape[1], tuple(t.shape) == tuple(log_p.shape)
    if rows and ignore_index is not None:
        raise ValueError(f"t has the shape of x and ignore_index is {ignore_index}; give labels to ignore one of them")
    weighted_mean = reduction == "mean" and not rows
    reduce, spread = _reduction(xp, "sum" if weighted_mean else reduction, math.prod(log_p.shape) // classes)
    wanted = _probabilities(xp, log_p, t) if rows else _one_hot(xp, log_p, t, ignore_index)  # (N, K, *size)
    mass = 1 if rows else xp.sum(wanted, axis=1, keepdims=True, dtype=log_p.dtype)  # 0 where nothing counts
    share = (1 - smoothing) * wanted + smoothing / classes * mass
    information = -xp.where(share != 0, log_p, 0)  # what is not wanted may be impossible
    w = 1 if weight is None else xp.reshape(weight, (classes,) + (1,) * (log_p.ndim - 2))
    loss = reduce(xp.sum(w * share * information, axis=1, dtype=log_p.dtype))
    counted = xp.sum(w * wanted, dtype=log_p.dtype) if weighted_mean else 1
    loss = loss / counted

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        d = spread(dy) / counted
        if d.ndim:
            d = xp.expand_dims(d, axis=1)
        dt = (1 - smoothing) * -log_p * (w * d) if xp.isdtype(t.dtype, "real floating") else None
        if weight is None:
            return -w * share * d, dt, None
        surplus = share * information * d
        if weighted_mean:
            surplus = surplus - wanted * (loss * d)
        return -w * share * d, dt, xp.sum(surplus, axis=(0, *range(2, log_p.ndim)), dtype=log_p.dtype)

    return loss, pullback


def _probabilities(xp: Any, x: Array, t: Array) -> Array:
    """Return rows of what should be, in the dtype of x."""
    if xp.isdtype(t.dtype, "real floating"):
        one_dtype(xp, "real floating", x=x, t=t)
    return xp.astype(t, x.dtype)


def _one_hot(xp: Any, x: Array, t: Array, ignore_index: int | None) -> Array:
    """Return rows of what should be, in the dtype of x, from labels: zeros where they are to be ignored."""
    batch, classes, *size = x.shape
    if tuple(t.shape) != (batch, *size):
        raise ValueError(f"t has shape {tuple(t.shape)}; give {(batch, *size)} labels or {tuple(x.shape)} rows")
    if not xp.isdtype(t.dtype, "integral"):
        raise TypeError(f"t has dtype {t.dtype}; give labels as integers")
    t = xp.astype(t, xp.__array_namespace_info__().default_dtypes(device=device(t))["indexing"])
    counts = xp.ones_like(t, dtype=xp.bool) if ignore_index is None else t != ignore_index
    known = ((t >= 0) & (t < classes)) | ~counts
    if at_hand(t) and not bool(xp.all(known)):
        raise ValueError(f"t has labels from {int(xp.min(t))} to {int(xp.max(t))}; give 0 to {classes - 1}")
    labels = xp.reshape(xp.arange(classes, dtype=t.dtype, device=device(t)), (classes,) + (1,) * len(size))
    hot = xp.astype((xp.expand_dims(t, axis=1) == labels) & xp.expand_dims(counts, axis=1), x.dtype)
    return hot if at_hand(t) else xp.where(xp.expand_dims(known, axis=1), hot, float("nan"))


def _reduction(xp: Any, name: str, count: int) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return the reduction of this name over so many losses, and its pullback, as far as it does not broadcast."""
    if name not in REDUCTIONS:
        raise ValueError(f"reduction is {name!r}; choose one of {', '.join(REDUCTIONS)}")
    if name == "none":
        return lambda losses: losses, lambda dy: dy
    if name == "sum":
        return lambda losses: xp.sum(losses, dtype=losses.dtype), lambda dy: dy
    if count == 0:
        raise ValueError("x is empty and has no mean; give reduction='sum' or 'none', or at least one element")
    return lambda losses: xp.sum(losses, dtype=losses.dtype) / count, lambda dy: dy / count


def _broadcasts(name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the array, where one is given, broadcasts to this shape."""
    if array is None:
        return
    lengths = tuple(array.shape)
    if len(lengths) > len(shape) or any(n not in (1, m) for n, m in zip(lengths[::-1], shape[::-1], strict=False)):
        raise ValueError(f"{name} has shape {lengths}; give one that broadcasts to {shape}, the shape of x")
