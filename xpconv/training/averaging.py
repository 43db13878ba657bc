"""Averaging: weights that have settled, from those of many steps."""

from __future__ import annotations

import contextlib
from typing import Any

from xpconv.arrays.libraries import Array
from xpconv.optimizers.hyperparameters import number
from xpconv.training.trainer import Callback, Trainer


class WeightAverage(Callback):
    """Keeps an exponential moving average of a network's `state`, with which its accuracy is told.

    It is the mean of the weights after each step so far, one that is k steps old counting ``decay**k`` as much as the
    last. The weights at the very start do not count. Training itself does not see it.

    Parameters
    ----------
    decay : float
        At least 0 and below 1. The mean reaches back about ``1/(1 - decay)`` steps.

    Attributes
    ----------
    average : dict of str to array
        By the names of ``network.state``, where it is, in its dtypes or float32 where those are narrower: there they
        average what the optimizer keeps in float32. Empty before the first step.

    Raises
    ------
    TypeError, ValueError
        When `decay` is out of range.

    References
    ----------
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992); exponential, and corrected for
    its start, as the means of Kingma and Ba, "Adam: a method for stochastic optimization" (2015), section 3.
    """

    def __init__(self, decay: float = 0.998) -> None:
        self.decay, self.steps = number("decay", decay, below=1), 0
        self.average: dict[str, Array] = {}

    @property
    def state(self) -> dict[str, Any]:
        """The average, and of how many steps."""
        return {"steps": self.steps, "average": self.average}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.steps, self.average = state["steps"], state["average"]

    def on_step(self, trainer: Trainer) -> None:
        """Take in the new weights."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        for name, array in trainer.network.state.items():
            master = trainer.optimizer.master(name, array)
            kept = self.average.get(name, master)
            self.average[name] = kept + share * (master - kept)

    def evaluating(self, trainer: Trainer) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the network has the average."""
        return trainer.network.holding(self.average)
