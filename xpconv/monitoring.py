"""What a training shows of itself while it runs."""

from __future__ import annotations

from typing import Any

from xpconv.training import Callback, Trainer

STEPS_BETWEEN_REPORTS = 20  # a report of the loss waits for the device


class ProgressBar(Callback):
    """A progress bar over all steps, with the last loss and accuracy.

    Raises
    ------
    ImportError
        When tqdm is not installed.
    """

    def __init__(self) -> None:
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise ImportError('a progress bar needs tqdm: pip install "xpconv[examples]"') from error
        self._tqdm: Any = tqdm

    def on_start(self, trainer: Trainer) -> None:
        """Show the bar, as far as the training already is."""
        self._bar = self._tqdm(total=trainer.steps, initial=trainer.steps_done, unit="step", mininterval=0.5)

    def on_step(self, trainer: Trainer) -> None:
        """Move the bar."""
        self._bar.update()
        if self._bar.n % STEPS_BETWEEN_REPORTS == 0:
            history = trainer.history
            reached = history.test_accuracy[-1:] or history.train_accuracy[-1:]
            shown = {"accuracy": f"{reached[0]:.4f}"} if reached else {}
            self._bar.set_postfix(loss=f"{history.loss[-1]:.4f}", **shown, refresh=False)

    def on_end(self, trainer: Trainer) -> None:
        """Leave the bar as it is."""
        self._bar.close()
