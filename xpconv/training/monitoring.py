"""What a training shows of itself while it runs."""

from __future__ import annotations

import sys
import time
from typing import Any

from xpconv.training.trainer import Callback, Trainer

STEPS_BETWEEN_REPORTS = 20  # a report of the loss waits for the device
SECONDS_BETWEEN_LINES = 60


class Progress(Callback):
    """How far a training is, with the last loss and accuracy, on stderr: a bar on a terminal, and lines in a log file.

    There is a line after each epoch, but at most one a minute, and one after the last.

    Raises
    ------
    ImportError
        When stderr is a terminal and tqdm is not installed.
    """

    looks_on = True

    def __init__(self) -> None:
        self._tqdm = _tqdm() if sys.stderr.isatty() else None

    def on_start(self, trainer: Trainer) -> None:
        """Show the bar, as far as the training already is."""
        self._bar: Any = None
        self._last = time.monotonic()
        if self._tqdm is not None:
            self._bar = self._tqdm(total=trainer.steps, initial=trainer.steps_done, unit="step", mininterval=0.5)

    def on_step(self, trainer: Trainer) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update()
            if self._bar.n % STEPS_BETWEEN_REPORTS == 0:
                self._bar.set_postfix(_report(trainer), refresh=False)

    def on_epoch(self, trainer: Trainer) -> None:
        """Write a line to a log file."""
        last = trainer.stopped or trainer.epochs_done == trainer.epochs
        if self._bar is None and (last or time.monotonic() - self._last >= SECONDS_BETWEEN_LINES):
            numbers = ", ".join(f"{name} {value}" for name, value in _report(trainer).items())
            print(f"epoch {trainer.epochs_done} of {trainer.epochs}: {numbers}", file=sys.stderr, flush=True)
            self._last = time.monotonic()

    def on_end(self, trainer: Trainer) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _report(trainer: Trainer) -> dict[str, str]:
    history = trainer.history
    reached = history.test_accuracy[-1:] or history.train_accuracy[-1:]
    return {"loss": f"{history.loss[-1]:.4f}", **({"accuracy": f"{reached[0]:.4f}"} if reached else {})}


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('a progress bar needs tqdm: pip install "xpconv[examples]"') from error
    return tqdm
