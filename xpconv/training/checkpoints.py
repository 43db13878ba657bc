"""Checkpoints: what a training needs to go on as if it had never stopped, in directories that are whole or not there.

A checkpoint is called by its position, ``<epochs done>-<steps of the next>``, and has four files: weights.safetensors,
which `Network.load` reads too; state.safetensors and state.json, the other arrays and the tree of `Trainer.state`; and
manifest.json, which says the format's version, what network and optimizer it is of, the size and SHA-256 of each of the
others, and its own SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from xpconv.durability import clear_leftovers, discard, replacing
from xpconv.networks.weights import load_weights, save_weights
from xpconv.training.states import join, split
from xpconv.training.trainer import Callback, Trainer
from xpconv.windows import whole_number

FORMAT = 1
SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGUSR1") if (number := getattr(signal, name, None))]
MANIFEST, TREE, WEIGHTS, ARRAYS = "manifest.json", "state.json", "weights.safetensors", "state.safetensors"


class DamagedCheckpointError(ValueError):
    """A checkpoint is not as it was written."""


def save_checkpoint(path: str | os.PathLike[str], trainer: Trainer) -> None:
    """Write a trainer's state to a new directory, which is there when all of it is on the disk.

    Raises
    ------
    FloatingPointError
        When a weight is NaN or infinite, which nobody wants to go on from.
    ImportError
        When safetensors is not installed.
    OSError
        When the disk is full or the directory exists and is not empty: nothing has changed then.
    """
    path = Path(path)
    tree, arrays = split(trainer.state)
    weights = {name.removeprefix("network/"): a for name, a in arrays.items() if name.startswith("network/")}
    if bad := [name for name, array in weights.items() if not np.isfinite(array).all()]:
        raise FloatingPointError(f"{', '.join(bad)} not finite after step {trainer.steps_done}: not saved")
    with replacing(path) as directory:
        directory.mkdir()
        save_weights(directory / WEIGHTS, weights, {"network": type(trainer.network).__name__})
        save_weights(directory / ARRAYS, {n: a for n, a in arrays.items() if not n.startswith("network/")})
        _write(directory / TREE, tree)
        files = {name: _fingerprint(directory / name) for name in (WEIGHTS, ARRAYS, TREE)}
        content = {"format": FORMAT, **_identity(trainer), "files": files}
        _write(directory / MANIFEST, {**content, "sha256": _digest(content)})


def load_checkpoint(path: str | os.PathLike[str], trainer: Trainer) -> None:
    """Set a trainer, made as the one that was saved, to the state in a checkpoint.

    The arrays go to where the trainer's parameters are, on whatever backend they were saved.

    Raises
    ------
    DamagedCheckpointError
        When a file is missing, truncated or changed.
    ImportError
        When safetensors is not installed.
    ValueError
        When it is in another version of the format, or of another network, optimizer, data or callbacks. In all of
        these cases the trainer has not changed.
    """
    path = Path(path)
    manifest = _manifest(path)
    if manifest["format"] != FORMAT:
        raise ValueError(f"{path} has format {manifest['format']}; this version of the library reads format {FORMAT}")
    for name, written in manifest["files"].items():
        if (found := _fingerprint(path / name)) != written:
            raise DamagedCheckpointError(f"{path / name} is damaged: {found} found, {written} written")
    own = _identity(trainer)
    for what in ("network", "layers", "optimizer"):
        if manifest[what] != own[what]:
            raise ValueError(f"{path} is of another {what}: {manifest[what]} there, {own[what]} here")
    arrays = load_weights(path / ARRAYS)
    arrays |= {f"network/{name}": array for name, array in load_weights(path / WEIGHTS).items()}
    try:
        trainer.state = join(json.loads((path / TREE).read_bytes()), arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class Checkpoints(Callback):
    """Saves the training every so often, after each epoch if not told otherwise, and keeps the last few checkpoints.

    On SIGINT (Ctrl-C), SIGTERM and SIGUSR1 it lets the step finish, saves, and ends the training by KeyboardInterrupt
    or ``SystemExit(128 + number)``, 143 after SIGTERM; a second signal acts at once. It goes last among the callbacks,
    for it saves what they have done.

    Parameters
    ----------
    directory : path
        Where the checkpoints are; it is made if need be.
    every : int, optional
        Steps between checkpoints, instead of an epoch. One is saved at the end in any case.
    keep : int
        How many to keep.

    Raises
    ------
    TypeError, ValueError
        When a number is not whole or less than 1; at the start of a training that was not resumed, when there are
        checkpoints already.
    """

    def __init__(self, directory: str | os.PathLike[str], *, every: int | None = None, keep: int = 3) -> None:
        self.directory = Path(directory)
        self.every = None if every is None else whole_number("every", every, least=1)
        self.keep = whole_number("keep", keep, least=1)
        self._signal = 0
        self._handlers: dict[int, Any] = {}

    @property
    def found(self) -> list[Path]:
        """The checkpoints that there are, from the first to the last."""
        named = [path for path in self.directory.glob("*-*") if re.fullmatch(r"\d+-\d+", path.name)]
        return sorted(named, key=_position)

    def resume(self, trainer: Trainer) -> Path | None:
        """Set a trainer to the last checkpoint and return its path, None where there is none and all starts anew.

        A damaged one is passed over for the one before, with a warning.

        Raises
        ------
        DamagedCheckpointError
            When all of them are damaged.
        ValueError
            As in `load_checkpoint`.
        """
        found = self.found
        for path in reversed(found):
            try:
                load_checkpoint(path, trainer)
            except DamagedCheckpointError as error:
                warnings.warn(f"{error}; going on from the one before", stacklevel=2)
            else:
                return path
        if found:
            raise DamagedCheckpointError(f"every checkpoint in {self.directory} is damaged; start anew elsewhere")
        return None

    def save(self, trainer: Trainer) -> None:
        """Save now, and remove the oldest beyond those to keep; raises as `save_checkpoint`.

        Of processes that train together the one that leads does it.
        """
        if not trainer.leads:
            return
        position = trainer.epochs_done, trainer.steps_of_epoch
        path = self.directory / f"{position[0]:04}-{position[1]:06}"
        later = [other for other in self.found if _position(other) >= position]
        for other in later:  # of a training that has not been there yet: passed over by `resume` as damaged
            discard(other)
        save_checkpoint(path, trainer)
        for other in self.found[: -self.keep]:
            discard(other)

    def on_start(self, trainer: Trainer) -> None:
        """See that the directory fits, and listen for signals."""
        if trainer.callbacks[-1] is not self:
            raise ValueError("Checkpoints is not the last of the callbacks; it goes there to save what they have done")
        if trainer.leads:
            if not trainer.steps_done and self.found:
                raise ValueError(f"{self.directory} has checkpoints; resume from them, or give another directory")
            self.directory.mkdir(parents=True, exist_ok=True)
            clear_leftovers(self.directory)
        self._signal = 0
        if threading.current_thread() is threading.main_thread():  # the only one that may
            self._handlers = {number: signal.signal(number, self._notice) for number in SIGNALS}

    def on_step(self, trainer: Trainer) -> None:
        """Save when it is time; after the last step of an epoch its accuracy is to come first."""
        due = self.every is not None and trainer.steps_done % self.every == 0
        number = trainer.agreed(self._signal)
        if number or trainer.stopped or (due and trainer.steps_of_epoch < len(trainer.source)):
            self.save(trainer)
        self._end_by(number, trainer)

    def on_epoch(self, trainer: Trainer) -> None:
        """Save when it is time, and at the end."""
        due = self.every is None or trainer.steps_done % self.every == 0 or trainer.epochs_done == trainer.epochs
        number = trainer.agreed(self._signal)
        if number or trainer.stopped or due:
            self.save(trainer)
        self._end_by(number, trainer)

    def on_end(self, trainer: Trainer) -> None:
        """Listen no more."""
        self._listen_no_more()
        self._end_by(self._signal)  # one that came after the last step

    def _notice(self, number: int, frame: object) -> None:
        self._signal = number
        self._listen_no_more()

    def _listen_no_more(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _end_by(self, number: int, trainer: Trainer | None = None) -> None:
        if number == 0:
            return
        self._signal = 0
        if trainer is not None:
            trainer.agreed(0)  # that all is saved: where processes train together, the first to end ends all
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def _position(path: Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.split("-")))


def _identity(trainer: Trainer) -> dict[str, Any]:
    network = trainer.network
    return {
        "network": type(network).__name__,
        "layers": {name: type(layer).__name__ for name, layer in network.layers.items()},
        "shapes": {name: list(array.shape) for name, array in network.state.items()},
        "optimizer": type(trainer.optimizer).__name__,
    }


def _manifest(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
        written = content.pop("sha256")
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path / MANIFEST} is damaged: {error}") from error
    if (found := _digest(content)) != written:
        raise DamagedCheckpointError(f"{path / MANIFEST} is damaged: SHA-256 {found} found, {written} written")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fingerprint(path: Path) -> str:
    """Return size and SHA-256 of a file in words, so that a message can say both."""
    if not path.is_file():
        return "no file"
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"{file.tell()} bytes of SHA-256 {digest}"


def _write(path: Path, content: object) -> None:
    with replacing(path) as file:
        file.write_text(json.dumps(content, indent=1))
