"""Dropout: regularization by forgetting."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import device

from xpconv.arrays.arguments import namespace, one_dtype
from xpconv.arrays.libraries import Array, Pullback
from xpconv.execution.recording import fed
from xpconv.operators import operator
from xpconv.shards import Shard


@operator
def dropout(
    x: Array, *, ratio: float = 0.5, rng: np.random.Generator | None = None, shard: Shard | None = None
) -> tuple[Array, Pullback]:
    """Set elements to zero at random in training; scale all of them by what is left on average otherwise.

    Parameters
    ----------
    x : array
        Of any shape and real floating dtype.
    ratio : float
        Probability that an element is dropped, at least 0 and below 1.
    rng : numpy.random.Generator, optional
        Where the random numbers come from: drawn on the host, so that every backend drops the same elements. Without
        it nothing is drawn and ``x * (1 - ratio)`` is returned, which is what evaluation wants.
    shard : Shard, optional
        Which samples `x` has of a batch that several processes share: numbers are drawn for all of them, so that
        together they drop what one process would.

    Returns
    -------
    array
        The shape and dtype of `x`.

    Raises
    ------
    TypeError
        When `x` is no array of real floating numbers or `rng` no generator.
    ValueError
        When `ratio` is not in [0, 1).

    Notes
    -----
    A compiler that traces, such as `jax.jit`, draws while it traces, and then drops the same elements at each call.

    References
    ----------
    Srivastava et al., "Dropout: A simple way to prevent neural networks from overfitting" (2014); Saito, *Deep Learning
    from Scratch*, section 6.4.3.
    """
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio is {ratio!r}; give a probability of at least 0 and below 1")
    if rng is None:
        return x * (1 - ratio), lambda dy: (dy * (1 - ratio),)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a {type(rng).__name__}; give a numpy.random.Generator")
    shape = tuple(x.shape)

    def draw() -> Any:
        if shard is None:
            return rng.random(shape, dtype=np.float32) >= ratio
        return rng.random((shard.samples, *shape[1:]), dtype=np.float32)[shard.start : shard.stop] >= ratio

    kept = xp.asarray(fed(draw, x), device=device(x))
    return xp.where(kept, x, 0), lambda dy: (xp.where(kept, dy, 0),)
