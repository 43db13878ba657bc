"""Normalization: subtract a mean, divide by a standard deviation, scale and shift.

The four operators differ in which elements share their statistics; `xpconv.ops.standardization` does the arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

from xpconv.arrays.arguments import namespace, one_dtype, shaped
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.ops.standardization import by_channel, standardize
from xpconv.shards import Shard
from xpconv.windows import whole_number


@operator
@accumulated
def batch_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    mean: Array | None = None,
    var: Array | None = None,
    *,
    eps: float = 1e-5,
    return_statistics: bool = False,
    shard: Shard | None = None,
) -> tuple[Any, Pullback]:
    """Normalize every channel over the batch and the spatial axes, or by statistics that are given.

    Parameters
    ----------
    x : array, shape (N, C) or (N, C, *size)
        Of a real floating dtype.
    gamma, beta : array, shape (C,), optional
        Scale and shift after normalization.
    mean, var : array, shape (C,), optional
        Statistics to normalize by, both or neither; those of `x` (the biased variance) if not given.
    eps : float
        Added to the variance; above 0.
    return_statistics : bool
        Give also the mean and variance that were used.
    shard : Shard, optional
        Which samples `x` has of a batch that several processes share: the statistics are those of all of them, and so
        is the gradient of `x`; those of `gamma` and `beta` are to be added up.

    Returns
    -------
    y : array
        The shape and dtype of `x`.
    mean, var : array, shape (C,), only with `return_statistics`
        The statistics that were used; no gradient flows through them.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or not real floating.
    ValueError
        When shapes or devices do not fit, only one of `mean` and `var` is given, `eps` is not above 0, or the
        statistics of an empty batch are asked for.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization" (2015); Saito, *Deep Learning from Scratch*, section 6.3.
    """
    _fitting(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
    if (mean is None) != (var is None):
        raise ValueError("one of mean and var is given; give both, or neither to use those of x")
    statistics = None if mean is None else (mean, var)
    y, mean, var, pullback = by_channel(x, 1, x.shape[1], gamma, beta, statistics, eps, shard)
    return ((y, mean, var) if return_statistics else y), pullback


@operator
@accumulated
def group_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, *, groups: int, eps: float = 1e-5
) -> tuple[Array, Pullback]:
    """Normalize every group of neighbouring channels of every sample, over its channels and the spatial axes.

    Parameters
    ----------
    x : array, shape (N, C) or (N, C, *size)
        Of a real floating dtype.
    gamma, beta : array, shape (C,), optional
        Scale and shift after normalization.
    groups : int
        How many groups to make of the channels; a divisor of C.
    eps : float
        Added to the variance; above 0.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or not real floating.
    ValueError
        When shapes or devices do not fit, `groups` does not divide the channels, `eps` is not above 0, or a sample is
        empty.

    References
    ----------
    Wu and He, "Group normalization" (2018).
    """
    _fitting(x, eps, gamma=gamma, beta=beta)
    batch, channels = x.shape[:2]
    if channels % whole_number("groups", groups, least=1):
        raise ValueError(f"x has {channels} channels and groups is {groups}; give a divisor of {channels}")
    y, _, _, pullback = by_channel(x, batch, groups, gamma, beta, None, eps)
    return y, pullback


@operator
@accumulated
def instance_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, *, eps: float = 1e-5
) -> tuple[Array, Pullback]:
    """Normalize every channel of every sample over the spatial axes.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of a real floating dtype.
    gamma, beta : array, shape (C,), optional
        Scale and shift after normalization.
    eps : float
        Added to the variance; above 0.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or not real floating.
    ValueError
        When shapes or devices do not fit, `x` has no spatial axis, `eps` is not above 0, or a sample is empty.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky, "Instance normalization" (2016).
    """
    _fitting(x, eps, gamma=gamma, beta=beta)
    batch, channels = x.shape[:2]
    if x.ndim < 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; give (N, C, ...) with at least one spatial axis")
    y, _, _, pullback = by_channel(x, batch, channels, gamma, beta, None, eps)
    return y, pullback


@operator
@accumulated
def layer_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, *, axis: int = 1, eps: float = 1e-5
) -> tuple[Array, Pullback]:
    """Normalize over all axes from one on: by default every sample by itself.

    Parameters
    ----------
    x : array
        Of a real floating dtype.
    gamma, beta : array, shape x.shape[axis:], optional
        Scale and shift after normalization.
    axis : int
        The first axis to normalize over; -1 is the last alone.
    eps : float
        Added to the variance; above 0.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or not real floating.
    ValueError
        When shapes or devices do not fit, `x` has no such axis, `eps` is not above 0, or there is nothing to normalize
        over.

    References
    ----------
    Ba, Kiros and Hinton, "Layer normalization" (2016).
    """
    xp = namespace(x=x, gamma=gamma, beta=beta)
    one_dtype(xp, "real floating", x=x, gamma=gamma, beta=beta)
    shape = tuple(x.shape)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"x has shape {shape} and axis is {axis}; give an axis of x")
    _above_zero(eps)
    behind = shape[axis:]
    if 0 in behind:
        raise ValueError(f"x has shape {shape}; give at least one element to normalize over from axis {axis} on")
    for name, array in (("gamma", gamma), ("beta", beta)):
        shaped(name, array, behind, f"what x has from axis {axis} on")
    width = math.prod(behind)
    blocks = (math.prod(shape[: axis % x.ndim]), 1, 1, 1, 1, width)

    def laid_out(values: Array | None) -> Array | None:
        return None if values is None else xp.reshape(values, (1, 1, 1, 1, 1, width))

    y, _, _, to_blocks = standardize(xp.reshape(x, blocks), laid_out(gamma), laid_out(beta), None, eps)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dx, dgamma, dbeta, _, _ = to_blocks(xp.reshape(dy, blocks))
        return (
            xp.reshape(dx, shape),
            None if gamma is None else xp.reshape(dgamma, behind),
            None if beta is None else xp.reshape(dbeta, behind),
        )

    return xp.reshape(y, shape), pullback


def _fitting(x: Array, eps: float, **by_name: Array | None) -> None:
    """Raise unless x is (N, C, ...), the others hold one number for each channel, and eps keeps the root from zero."""
    one_dtype(namespace(x=x, **by_name), "real floating", x=x, **by_name)
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; give (N, C) or (N, C, ...)")
    for name, array in by_name.items():
        shaped(name, array, (x.shape[1],), "one number for each channel")
    _above_zero(eps)


def _above_zero(eps: float) -> None:
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}; give a number above 0")
