"""Distribution functions, safe from overflow and accurate in their tails: logistic, normal, categorical.

The symmetric ones are computed in the lower tail, from ``-|x|``, where nothing cancels. Results are put together with
products in place of `where`, which takes NumPy a branch for each element.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from array_api_compat import array_namespace

from xpconv.arrays.libraries import Array, erfc_of

# exp(u*u/2) * P(X < -u) for u >= 0 and a normal X, in Chebyshev polynomials of (u - 3) / (u + 3): the form of J. L.
# Schonfelder, "Chebyshev expansions for the error and related functions", Mathematics of Computation 32 (1978).
TAIL = (
    1.85149572012096243e-1,
    -2.39407615941335682e-1,
    6.42669283398569792e-2,
    -1.07403146378494953e-2,
    6.06624186532228228e-4,
    1.51429202766272001e-4,
    -2.38788458917432362e-5,
    -3.64016810956319577e-6,
    7.77571181934959815e-7,
    1.48987600966305403e-7,
    -2.36996248898647499e-8,
    -7.84110721682170759e-9,
    4.12145066380562199e-10,
    4.15939269018408097e-10,
    2.75649472868102016e-11,
    -1.83277433513313405e-11,
    -4.16079856042839379e-12,
    3.95382935768480834e-13,
    3.13742511918623944e-13,
    3.23712108713878532e-14,
    -1.36694850736111736e-14,
    -4.86603087671853498e-15,
    -1.12846486955636019e-16,
    3.09649251342343116e-16,
    7.90864984464685038e-17,
)


def logistic(x: Array) -> Array:
    """``1 / (1 + exp(-x))``."""
    xp = array_namespace(x)
    tail = xp.exp(-xp.abs(x))
    tail /= 1 + tail
    return _both_sides(xp, x, tail)


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``, the integral of `logistic`."""
    xp = array_namespace(x)
    y = xp.log1p(xp.exp(-xp.abs(x)))
    y += xp.maximum(x, 0)
    return y


def normal(x: Array) -> Array:
    """``P(X < x)`` for a normally distributed X, to a few units in the last place."""
    xp = array_namespace(x)
    erfc = erfc_of(x)
    if erfc is not None:
        return erfc(x * -math.sqrt(0.5)) / 2
    u = xp.abs(x)
    t = 1 - 6 / (u + 3)
    highest, *between, last = _tail_polynomial(xp.finfo(x.dtype).eps)
    tail = highest * t
    for coefficient in between:
        tail += coefficient
        tail *= t
    tail += last
    u *= u
    tail *= xp.exp(u / -2)
    return _both_sides(xp, x, tail)


def log_softmax(x: Array, axis: int) -> Array:
    """``log(exp(x) / sum(exp(x)))`` along an axis."""
    xp = array_namespace(x)
    y = x - xp.max(x, axis=axis, keepdims=True)
    y -= xp.log(xp.sum(xp.exp(y), axis=axis, keepdims=True, dtype=x.dtype))
    return y


def _both_sides(xp: Any, x: Array, tail: Array) -> Array:
    """Return a symmetric distribution's function from that of ``-|x|``: the tail itself, or 1 less the tail."""
    y = xp.astype(x > 0, x.dtype)
    y -= tail
    return xp.abs(y)


@functools.cache
def _tail_polynomial(eps: float) -> tuple[float, ...]:
    """Powers of t, from the highest, with as many terms as the precision can tell from zero."""
    from numpy.polynomial import chebyshev  # here, because it takes long and few programs come by

    terms = [c for c in TAIL if abs(c) > eps / 16]
    return tuple(float(c) for c in reversed(chebyshev.cheb2poly(terms)))
