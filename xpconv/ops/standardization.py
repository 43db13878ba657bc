"""The arithmetic under every normalization, and its pullback.

Arrays are laid out as blocks (B, M, R, W, G, K): B blocks, M samples in each, R rows of W elements, G groups of K
channels. Statistics belong to a block and a group, scale and shift to a channel; the normalizations differ only in
what they take for a block and for a group.

========  ==========================  ==============================
batch     (1, N, R, W, C, 1)          one block of all the samples
group     (N, 1, R, W, G, C/G)        a block for every sample
instance  (N, 1, R, W, C, 1)          with as many groups as channels
layer     (B, 1, 1, 1, 1, K)          all that stands behind an axis
========  ==========================  ==============================
"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from xpconv.arrays.broadcasting import along, total
from xpconv.arrays.layout import channels_last, channels_second
from xpconv.arrays.libraries import Array, Pullback
from xpconv.shards import Shard

BLOCK, SAMPLES, PLACES, WIDTH, CHANNELS = 0, 1, (1, 2, 3), 3, 5


def by_channel(
    x: Array,
    blocks: int,
    groups: int,
    gamma: Array | None,
    beta: Array | None,
    statistics: tuple[Array, Array] | None,
    eps: float,
    shard: Shard | None = None,
) -> tuple[Array, Array, Array, Pullback]:
    """Standardize (N, C, *size) in so many blocks of samples and groups of channels, with (C,) parameters.

    The mean and variance, given or computed, are (C,) where there is one block and C groups. That block may be a shard.
    """
    xp = array_namespace(x)
    batch, channels, *size = x.shape
    samples, each = batch // blocks if blocks else 1, channels // groups if groups else 0
    last = channels_last(x)
    shape = (blocks, samples, math.prod(size[:-1]), math.prod(size[-1:]), groups, each)
    shared = samples if shard is None else shard.samples
    if statistics is None and shared * math.prod(size) * each == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; give at least one element a channel to take statistics of")

    def laid_out(values: Array) -> Array:
        return xp.reshape(values, (1, 1, 1, 1, groups, each))

    def back(values: Array | None) -> Array | None:
        return None if values is None else xp.reshape(values, (-1,))

    y, mean, var, to_blocks = standardize(
        xp.reshape(last, shape),
        None if gamma is None else laid_out(gamma),
        None if beta is None else laid_out(beta),
        None if statistics is None else (laid_out(statistics[0]), laid_out(statistics[1])),
        eps,
        shard,
    )

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dx, *rest = to_blocks(xp.reshape(channels_last(dy), shape))
        return channels_second(xp.reshape(dx, last.shape)), *map(back, rest)

    return channels_second(xp.reshape(y, last.shape)), back(mean), back(var), pullback


def standardize(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    statistics: tuple[Array, Array] | None,
    eps: float,
    shard: Shard | None = None,
) -> tuple[Array, Array, Array, Pullback]:
    """Standardize blocks by their own mean and variance or by those given, scale and shift.

    Of a single block other processes may have samples, too.

    Returns
    -------
    y, mean, var, pullback
        The pullback gives dx, dgamma, dbeta, dmean and dvar, each None where its array was not given.

    References
    ----------
    Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), on why there are two passes.
    """
    xp = array_namespace(x)
    shared = (*PLACES, CHANNELS)
    count = math.prod(x.shape[i] for i in shared[1:]) * (x.shape[SAMPLES] if shard is None else shard.samples)

    def everywhere(*sums: Array) -> tuple[Array, ...]:
        if shard is None:
            return sums
        whole = shard.total(xp.concat(sums, axis=BLOCK))
        return tuple(whole[i : i + 1, ...] for i in range(len(sums)))

    def spread(values: Array) -> Array:
        return along(values, WIDTH, x.shape[WIDTH])

    mean = everywhere(total(x, shared))[0] / count if statistics is None else statistics[0]
    centred = x - spread(mean)
    var = everywhere(total(centred * centred, shared))[0] / count if statistics is None else statistics[1]
    scale = 1 / xp.sqrt(var + eps)  # (B, 1, 1, 1, G, 1)
    weight = scale if gamma is None else scale * gamma
    y = centred * spread(weight)
    if beta is not None:
        y += spread(beta)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        level, tilt = total(dy, PLACES), total(dy * centred, PLACES)  # (B, 1, 1, 1, G, K)
        dgamma = None if gamma is None else total(tilt * scale, (BLOCK,))
        dbeta = None if beta is None else total(level, (BLOCK,))
        if gamma is not None:
            level, tilt = level * gamma, tilt * gamma
        level, tilt = everywhere(total(level, (CHANNELS,)), total(tilt, (CHANNELS,)))
        dmean = -scale * level
        dvar = -(scale**3) / 2 * tilt
        dx = dy * spread(weight)
        if statistics is not None:
            return dx, dgamma, dbeta, dmean, dvar
        dx += centred * spread(2 / count * dvar)  # what the statistics pass on to the elements they are taken of
        dx += spread(dmean / count)
        return dx, dgamma, dbeta, None, None

    return y, mean, var, pullback
