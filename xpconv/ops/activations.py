"""Activations: functions of one element."""

from __future__ import annotations

from xpconv.arrays import namespace, one_dtype
from xpconv.backends import Array, Pullback
from xpconv.operators import operator


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
    xp = namespace(x=x)
    one_dtype(xp, "real floating", x=x)
    y = xp.maximum(x, xp.zeros_like(x))
    above = y > 0
    return y, lambda dy: (xp.where(above, dy, xp.zeros_like(dy)),)
