"""Early stopping: a training ends when samples that it does not learn from say that it no longer gets better."""

from __future__ import annotations

import contextlib
from typing import Any

from array_api_compat import array_namespace

from xpconv.arrays.libraries import Array
from xpconv.data.sources import Samples, placed
from xpconv.training.trainer import Callback, Trainer
from xpconv.windows import whole_number


class EarlyStopping(Callback):
    """Stops a training some epochs after its best one; the weights of that one are then those to measure and keep.

    They are had from `Trainer.evaluating`.

    Parameters
    ----------
    held_out : Dataset or (x, t)
        NumPy arrays, as `Trainer` takes them. Neither to train on, nor to report the accuracy on in the end: the best
        epoch is chosen by them, so they speak too well of it.
    patience : int
        Epochs in a row without a better accuracy on `held_out`, after which it stops; at least 1.

    Attributes
    ----------
    best : float
        The largest accuracy so far; -1 before the first epoch.

    Raises
    ------
    TypeError, ValueError
        When `patience` is out of range; at the start of the training, when the samples do not fit the network.

    References
    ----------
    Prechelt, "Early stopping - but when?" (1998), criterion UP, after epochs and with the accuracy.
    """

    def __init__(self, held_out: Samples, patience: int = 5) -> None:
        self.held_out, self.patience = held_out, whole_number("patience", patience, least=1)
        self.best, self.waited, self.over = -1.0, 0, False
        self.weights: dict[str, Array] = {}

    @property
    def state(self) -> dict[str, Any]:
        """The best epoch's accuracy and weights, and how many there were since."""
        return {"best": self.best, "waited": self.waited, "over": self.over, "weights": self.weights}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.over = state["best"], state["waited"], state["over"]
        self.weights = state["weights"]

    def on_start(self, trainer: Trainer) -> None:
        """Copy the samples to where the parameters are, and let a training that was stopped stay so."""
        self._samples = placed(trainer.network, "held_out", self.held_out)
        if self.over:
            trainer.stop()

    def on_epoch(self, trainer: Trainer) -> None:
        """Compare with the best epoch."""
        with trainer.evaluating():
            accuracy = trainer.network.accuracy(*self._samples, batch_size=trainer.batch_size)
            if accuracy > self.best:
                self.best, self.waited = accuracy, 0
                self.weights = {name: _copied(array) for name, array in trainer.network.state.items()}
            else:
                self.waited += 1
        if self.waited == self.patience:
            trainer.stop()
        self.over = self.waited == self.patience or trainer.epochs_done == trainer.epochs

    def evaluating(self, trainer: Trainer) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the network, once its training is over, has the best epoch's weights."""
        return trainer.network.holding(self.weights if self.over else {})


def _copied(array: Array) -> Array:
    return array_namespace(array).asarray(array, copy=True)
