"""Loss scaling: what lets gradients in float16 be small without being zero.

The loss is multiplied before it is differentiated, and every gradient divided afterwards. How far is found by trying:
the scale grows while all gradients are finite, and falls, leaving out a step, when one is not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import array_api_compat

from xpconv.arrays.arguments import accumulation_dtype, namespace, one_dtype
from xpconv.arrays.libraries import Array
from xpconv.training.trainer import Callback, Trainer
from xpconv.windows import whole_number


class LossScaler:
    """A factor for the loss that follows the gradients.

    Parameters
    ----------
    scale : float
        The first factor; a power of two rounds nothing.
    growth, backoff : float
        What the factor is multiplied by after `interval` steps that were all finite, and after one that was not.
    interval : int

    Attributes
    ----------
    scale : float
        The factor now.
    finite_steps : int
        Steps since it last changed.

    Raises
    ------
    TypeError, ValueError
        When a number is of another kind or out of range.

    References
    ----------
    Micikevicius et al., "Mixed precision training" (2018), section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> scaler = LossScaler(1024.0)
    >>> dloss = np.float16(1) * np.float16(scaler.scale)  # goes where the gradient of the loss, 1, would go
    >>> scaler.unscaled({"W": np.asarray([dloss])})
    {'W': array([1.], dtype=float32)}
    >>> scaler.unscaled({"W": np.asarray([np.inf])}), scaler.scale
    (None, 512.0)
    """

    def __init__(
        self, scale: float = 2.0**16, *, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000
    ) -> None:
        self.scale = _number("scale", scale, 0, math.inf)
        self.growth = _number("growth", growth, 1, math.inf)
        self.backoff = _number("backoff", backoff, 0, 1)
        self.interval = whole_number("interval", interval, least=1)
        self.finite_steps = 0

    def unscaled(self, grads: Mapping[str, Array]) -> dict[str, Array] | None:
        """Divide gradients by the factor that their loss was multiplied by, and choose the next one.

        Parameters
        ----------
        grads : mapping of str to array
            Of a real floating dtype, by the name of their parameter.

        Returns
        -------
        dict of str to array, or None
            The gradients of the loss itself, float16 and bfloat16 as float32, in which optimizers take steps. None
            when one of them is not finite: this step is to be left out.

        Raises
        ------
        TypeError
            When a gradient is no array of floating numbers; the factor has not changed.

        Notes
        -----
        Whether all are finite is found where they are, and one truth value is read from there.
        """
        if not grads:
            return {}
        for name, g in grads.items():
            one_dtype(namespace(**{name: g}), "real floating", **{name: g})
        xp = namespace(**grads)
        finite = bool(functools.reduce(xp.logical_and, (xp.all(xp.isfinite(g)) for g in grads.values())))
        self.finite_steps = self.finite_steps + 1 if finite else 0
        scale = self.scale
        if not finite:
            self.scale *= self.backoff
            return None
        if self.finite_steps == self.interval:
            self.scale, self.finite_steps = self.scale * self.growth, 0
        return {name: _wide(g) / scale for name, g in grads.items()}


class LossScaling(Callback):
    """Has each step taken with gradients of a scaled loss, divided again; one that is not finite is left out.

    It stands before callbacks that clip gradients or look at them, which are given them in float32 where a network has
    float16 or bfloat16.

    Parameters
    ----------
    scaler : LossScaler, optional
        One that starts at 2**15, which float16 holds, if not given.
    """

    def __init__(self, scaler: LossScaler | None = None) -> None:
        self.scaler = LossScaler(2.0**15) if scaler is None else scaler

    @property
    def state(self) -> dict[str, Any]:
        """The factor, and since when it is that."""
        return {"scale": self.scaler.scale, "finite_steps": self.scaler.finite_steps}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.scaler.scale, self.scaler.finite_steps = state["scale"], state["finite_steps"]

    def on_start(self, trainer: Trainer) -> None:
        """Have the loss scaled."""
        trainer.network.last_layer.scale = self.scaler.scale

    def on_gradients(self, trainer: Trainer, grads: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the gradients of the loss itself, or none."""
        unscaled = self.scaler.unscaled(grads)
        trainer.network.last_layer.scale = self.scaler.scale
        return unscaled or {}

    def on_end(self, trainer: Trainer) -> None:
        """Let the loss be itself again."""
        trainer.network.last_layer.scale = 1.0


def _wide(array: Array) -> Array:
    xp = array_api_compat.array_namespace(array)
    return xp.astype(array, accumulation_dtype(xp, array.dtype), copy=False)


def _number(name: str, value: float, above: float, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); give a number")
    if not above < value < below:
        raise ValueError(
            f"{name} is {value!r}; give a number above {above}" + f" and below {below}" * (below < math.inf)
        )
    return float(value)
