"""Normalization: subtract a mean, divide by a standard deviation, scale and shift."""

from __future__ import annotations

import math
from typing import Any

from xpconv.arrays import namespace, one_dtype, shaped
from xpconv.backends import Array, Pullback
from xpconv.operators import operator


@operator
def batch_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    mean: Array | None = None,
    var: Array | None = None,
    *,
    eps: float = 1e-5,
    return_statistics: bool = False,
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
    xp = namespace(x=x, gamma=gamma, beta=beta, mean=mean, var=var)
    one_dtype(xp, "real floating", x=x, gamma=gamma, beta=beta, mean=mean, var=var)
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; give (N, C) or (N, C, ...)")
    for name, array in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        shaped(name, array, (x.shape[1],), "one number for each channel")
    if (mean is None) != (var is None):
        raise ValueError("one of mean and var is given; give both, or neither to use those of x")
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}; give a number above 0")
    others = (0, *range(2, x.ndim))
    count = math.prod(x.shape[i] for i in others)
    own = mean is None
    if own and count == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; give at least one element a channel, or mean and var")

    def channelwise(values: Array) -> Array:
        """(C,) as an array that broadcasts over x."""
        return xp.reshape(values, (1, -1) + (1,) * (x.ndim - 2))

    def total(values: Array) -> Array:
        return xp.sum(values, axis=others, dtype=values.dtype)

    if own:
        mean = total(x) / count
        centred = x - channelwise(mean)
        var = total(centred * centred) / count
    else:
        centred = x - channelwise(mean)
    scale = 1 / xp.sqrt(var + eps)  # type: ignore[operator]  # (C,)
    normal = centred * channelwise(scale)
    y = normal
    if gamma is not None:
        y = y * channelwise(gamma)
    if beta is not None:
        y = y + channelwise(beta)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dgamma, dbeta = total(dy * normal), total(dy)
        weight = scale if gamma is None else scale * gamma
        dx, dmean, dvar = dy * channelwise(weight), None, None
        if own:
            dx = dx - channelwise(weight / count) * (channelwise(dbeta) + normal * channelwise(dgamma))
        else:
            dmean = -dbeta * weight
            dvar = -dgamma * weight * scale / 2
        return dx, None if gamma is None else dgamma, None if beta is None else dbeta, dmean, dvar

    return ((y, mean, var) if return_statistics else y), pullback
