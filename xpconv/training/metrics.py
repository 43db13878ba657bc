"""Metrics: the numbers of a training, written down while it runs, for people and programs that look on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xpconv.training.trainer import Callback, Trainer

STEPS_BETWEEN_LOOKS = 20  # a look at the losses waits for the device


class Metrics(Callback):
    """Writes down loss and learning rate of each step, and what an epoch has shown. A subclass says where to.

    A training that is resumed takes up its records where it takes up its steps: what was written of later ones, before
    it died, is gone.
    """

    looks_on = True

    def open(self, trainer: Trainer) -> int:
        """Get ready to write, and return how many steps are written down already."""
        raise NotImplementedError

    def write(self, step: int, epoch: int | None, numbers: Mapping[str, float]) -> None:
        """Write numbers down: of a step, from 1 on, or of the epoch that ended with it."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what `open` has opened."""
        raise NotImplementedError

    def on_start(self, trainer: Trainer) -> None:
        """Open, and see what is there."""
        self._written, self._rates = self.open(trainer), dict[int, float]()

    def on_step(self, trainer: Trainer) -> None:
        """Remember the learning rate, and now and then write steps down."""
        self._rates[trainer.steps_done] = trainer.optimizer.lr
        if trainer.steps_done % STEPS_BETWEEN_LOOKS == 0:
            self._write_steps(trainer)

    def on_epoch(self, trainer: Trainer) -> None:
        """Write down what the epoch has shown."""
        self._write_steps(trainer)
        history = trainer.history
        numbers = {"train_accuracy": history.train_accuracy[-1], "images_per_second": history.images_per_second}
        if history.test_accuracy:
            numbers["test_accuracy"] = history.test_accuracy[-1]
        self.write(trainer.steps_done, trainer.epochs_done, numbers)

    def on_end(self, trainer: Trainer) -> None:
        """Write down the last steps, and close."""
        try:
            self._write_steps(trainer)
        finally:
            self.close()

    def _write_steps(self, trainer: Trainer) -> None:
        losses = trainer.history.loss
        for step in range(self._written + 1, len(losses) + 1):
            rate = {"lr": self._rates.pop(step)} if step in self._rates else {}  # unknown of steps before a resumption
            self.write(step, None, {"loss": losses[step - 1], **rate})
        self._written = len(losses)


class JsonLines(Metrics):
    """Metrics as lines of JSON: one an object, whole at any moment, even after a kill.

    ``{"step": 1, "loss": 2.3, "lr": 0.001}`` of a step, and of an epoch ``{"step": 600, "epoch": 1, "train_accuracy":
    0.98, ...}``. What is not a finite number is null.

    Parameters
    ----------
    path : path
        Replaced by a new training, and continued by one that is resumed.

    Raises
    ------
    OSError
        At the start of the training, or in its midst, when the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def open(self, trainer: Trainer) -> int:
        """Keep the lines of steps and epochs that the training has behind it."""
        kept = []
        if trainer.steps_done and self.path.exists():
            for line in self.path.read_text().splitlines():
                numbers = _parsed(line)
                if numbers and numbers["step"] <= trainer.steps_done and numbers.get("epoch", 0) <= trainer.epochs_done:
                    kept.append((numbers["step"], line))
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for _, line in kept))
        os.replace(temporary, self.path)
        self._file = open(self.path, "a", buffering=1)  # noqa: SIM115, it is closed in `close`; a line at a time
        return max((step for step, _ in kept), default=0)

    def write(self, step: int, epoch: int | None, numbers: Mapping[str, float]) -> None:
        """Write a line."""
        where = {"step": step} if epoch is None else {"step": step, "epoch": epoch}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._file.write(json.dumps({**where, **finite}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard(Metrics):
    """Metrics as event files that TensorBoard shows.

    Parameters
    ----------
    directory : path
        Made where it is missing. Each run adds a file of its own.

    Raises
    ------
    ImportError
        When tensorboardX is not installed.
    OSError
        At the start of the training, when the directory cannot be written.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError('TensorBoard needs tensorboardX: pip install "xpconv[tensorboard]"') from error
        self.directory, self._writer_of = directory, SummaryWriter

    def open(self, trainer: Trainer) -> int:
        """Begin an event file, which hides what earlier ones say of the steps to come."""
        done = trainer.steps_done
        options = {"purge_step": done + 1 if done else None, "filename_suffix": f".{done}"}  # two names in one second
        self._writer: Any = self._writer_of(os.fspath(self.directory), **options)
        return done

    def write(self, step: int, epoch: int | None, numbers: Mapping[str, float]) -> None:
        """Add one point a number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        if epoch is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        numbers = json.loads(line)
    except ValueError:
        return None
    return numbers if isinstance(numbers, dict) and isinstance(numbers.get("step"), int) else None
