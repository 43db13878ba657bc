"""Clipping: gradients that are too long are shortened, where they are, without a look at them on the host."""

from __future__ import annotations

from collections.abc import Mapping

from xpconv.arrays.arguments import accumulation_dtype, namespace, one_dtype
from xpconv.arrays.libraries import Array
from xpconv.optimizers.hyperparameters import number
from xpconv.training.trainer import Callback, Trainer


def clip_norm(grads: Mapping[str, Array], largest: float) -> dict[str, Array]:
    """Shorten all gradients by one factor, so that together, as one long vector, they are no longer than `largest`.

    Parameters
    ----------
    grads : mapping of str to array
        Of one library and device, each of a real floating dtype and with at least one element.
    largest : float
        Above 0.

    Returns
    -------
    dict of str to array
        New arrays of the same dtypes and shapes. The length is computed in float32 for narrower dtypes, and from
        numbers of at most 1, so that no square overflows. A NaN or an infinity makes all of them NaN.

    Raises
    ------
    TypeError, ValueError
        When `largest` is out of range, or the gradients are not such arrays.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (2013), algorithm 1.
    """
    limit, xp = _positive(largest), namespace(**grads)
    for name, g in grads.items():
        one_dtype(xp, "real floating", **{name: g})
    wide = [xp.astype(g, accumulation_dtype(xp, g.dtype), copy=False) for g in grads.values()]
    peak = xp.max(xp.stack([xp.max(xp.abs(g)) for g in wide]))
    unit = xp.where(peak == 0, xp.ones_like(peak), peak)
    norm = unit * xp.sqrt(xp.sum(xp.stack([xp.sum((g / unit) ** 2) for g in wide])))
    factor = limit / xp.where(norm <= limit, limit * xp.ones_like(norm), norm)
    return {name: xp.astype(g * factor, grads[name].dtype) for name, g in zip(grads, wide, strict=True)}


def clip_value(grads: Mapping[str, Array], largest: float) -> dict[str, Array]:
    """Bring every element of the gradients between ``-largest`` and `largest`, which may change their direction.

    Parameters
    ----------
    grads : mapping of str to array
        Of one library and device, each of a real floating dtype.
    largest : float
        Above 0.

    Returns
    -------
    dict of str to array
        New arrays of the same dtypes and shapes.

    Raises
    ------
    TypeError, ValueError
        When `largest` is out of range, or the gradients are not such arrays.
    """
    limit, xp = _positive(largest), namespace(**grads)
    for name, g in grads.items():
        one_dtype(xp, "real floating", **{name: g})
    return {name: xp.clip(g, -limit, limit) for name, g in grads.items()}


class ClipNorm(Callback):
    """Has each step taken with gradients that `clip_norm` has shortened."""

    def __init__(self, largest: float) -> None:
        self.largest = _positive(largest)

    def on_gradients(self, trainer: Trainer, grads: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the gradients, shortened."""
        return clip_norm(grads, self.largest) if grads else {}


class ClipValue(ClipNorm):
    """Has each step taken with gradients that `clip_value` has cut off."""

    def on_gradients(self, trainer: Trainer, grads: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the gradients, cut off."""
        return clip_value(grads, self.largest) if grads else {}


def _positive(largest: float) -> float:
    if number("largest", largest) == 0:
        raise ValueError("largest is 0, and nothing would be learned; give a number above 0")
    return float(largest)
