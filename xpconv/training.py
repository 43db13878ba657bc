"""Training: epochs of shuffled batches, their losses, and the accuracy after each."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import array_api_compat
import numpy as np

from xpconv.data import Dataset, batches
from xpconv.libraries import Array, synchronize, to_numpy
from xpconv.networks import Network, beside
from xpconv.optimizers import Optimizer
from xpconv.windows import whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

Samples: TypeAlias = "Dataset | tuple[NDArray[Any], NDArray[Any]]"

STEPS_BETWEEN_REPORTS = 20  # a report of the loss waits for the device


@dataclass
class History:
    """What a training has shown so far, in numbers on the host.

    Attributes
    ----------
    loss : list of float
        Of each step, in training.
    train_accuracy, test_accuracy : list of float
        After each epoch: on a fixed sample of the images trained on, and on all that are for the test.
    images : int
        Images trained on, each time counted.
    seconds : float
        Spent on steps, evaluation left out.
    """

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Images trained on in a second."""
        return self.images / self.seconds if self.seconds else 0.0


class Trainer:
    """Trains a network, where its parameters are: the data is copied there once, in their dtype.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
    train : Dataset, or (x, t)
        NumPy arrays: x (N, ...) of floats, and t (N,) labels as integers or (N, K) rows.
    test : Dataset or (x, t), optional
        To measure the accuracy on after each epoch.
    epochs : int
        How many times each sample is seen.
    batch_size : int
        Samples a step; the last step of an epoch takes what is left.
    rng : numpy.random.Generator or int, optional
        Shuffles the samples of each epoch, on the host: the same seed gives the same order on every backend.
    schedule : callable, optional
        ``schedule(step, steps)`` gives the factor of the learning rate at each of the steps, from 0 on: `cosine`, for
        one.
    sample : int
        How many of the images trained on tell the accuracy on them, the same ones after each epoch.
    on_epoch : callable, optional
        Called with the trainer after each epoch.
    progress : bool
        Show a progress bar, which needs tqdm.

    Attributes
    ----------
    history : History
    steps : int
        Steps of the whole training.

    Raises
    ------
    ImportError
        When a progress bar is asked for and tqdm is not installed.
    TypeError, ValueError
        When a number is out of range, or the samples do not fit the network: before the first step.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        train: Samples,
        test: Samples | None = None,
        *,
        epochs: int,
        batch_size: int = 100,
        rng: np.random.Generator | int | None = None,
        schedule: Callable[[int, int], float] | None = None,
        sample: int = 1000,
        on_epoch: Callable[[Trainer], object] | None = None,
        progress: bool = True,
    ) -> None:
        if not network.params:
            raise ValueError("the network has no parameters; there is nothing to train")
        self.network, self.optimizer, self.schedule, self.on_epoch = network, optimizer, schedule, on_epoch
        self.epochs = whole_number("epochs", epochs, least=1)
        self.batch_size = whole_number("batch_size", batch_size, least=1)
        sample = whole_number("sample", sample, least=1)
        self.rng = np.random.default_rng(rng)
        self.x, self.t = self._placed("train", train)
        self.test = None if test is None else self._placed("test", test)
        chosen = beside(self.x, self.rng.permutation(self.x.shape[0])[:sample])
        self.seen = self._taken(chosen)
        self.steps = self.epochs * math.ceil(self.x.shape[0] / self.batch_size)
        self.history = History()
        self._tqdm = _tqdm() if progress else None

    def train(self) -> History:
        """Train for all epochs and return the history. The optimizer has its own learning rate again afterwards."""
        base = self.optimizer.lr
        try:
            with self._bar() as report:
                for _ in range(self.epochs):
                    self._epoch(base, report)
        finally:
            self.optimizer.lr = base
        return self.history

    def _epoch(self, base: float, report: Callable[..., object]) -> None:
        history = self.history
        losses: list[Array] = []
        start = time.perf_counter()
        for chosen in batches(self.x.shape[0], self.batch_size, self.rng):
            if self.schedule is not None:
                self.optimizer.lr = base * self.schedule(len(history.loss) + len(losses), self.steps)
            losses.append(self.step(*self._taken(beside(self.x, chosen))))
            report(losses)
        synchronize(next(iter(self.network.params.values())))
        history.seconds += time.perf_counter() - start
        history.images += self.x.shape[0]
        history.loss += to_numpy(array_api_compat.array_namespace(self.x).stack(losses)).tolist()
        history.train_accuracy.append(self.network.accuracy(*self.seen, batch_size=self.batch_size))
        if self.test is not None:
            history.test_accuracy.append(self.network.accuracy(*self.test, batch_size=self.batch_size))
        if self.on_epoch is not None:
            self.on_epoch(self)

    def step(self, x: Array, t: Array) -> Array:
        """Take one step on one batch, and return its loss, which stays on the device."""
        grads = self.network.gradient(x, t)
        self.optimizer.update(self.network.params, grads)
        return self.network.last_layer.loss

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Callable[..., object]]:
        """Show a progress bar, to be called after each step with the losses of the epoch."""
        if self._tqdm is None:
            yield lambda losses: None
            return
        with self._tqdm(total=self.steps, unit="step", mininterval=0.5) as bar:

            def report(losses: list[Array]) -> None:
                bar.update()
                if bar.n % STEPS_BETWEEN_REPORTS == 0:
                    reached = self.history.test_accuracy[-1:] or self.history.train_accuracy[-1:]
                    shown = {"accuracy": f"{reached[0]:.4f}"} if reached else {}
                    bar.set_postfix(loss=f"{float(losses[-1]):.4f}", **shown, refresh=False)

            yield report

    def _taken(self, chosen: Array) -> tuple[Array, Array]:
        xp = array_api_compat.array_namespace(self.x)
        return xp.take(self.x, chosen, axis=0), xp.take(self.t, chosen, axis=0)

    def _placed(self, name: str, samples: Samples) -> tuple[Array, Array]:
        """Check samples on the host, while looking at them is free, and copy them to where the parameters are."""
        x, t = (samples.images, samples.labels) if isinstance(samples, Dataset) else samples
        for part, array, kinds, wanted in (("x", x, "f", "floats"), ("t", t, "iuf", "numbers")):
            if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
                given = f"{type(array).__name__} of {getattr(array, 'dtype', 'no dtype')}"
                raise TypeError(f"{part} of {name} is a {given}; give a NumPy array of {wanted}")
        if x.ndim < 2 or x.shape[0] == 0 or t.shape[:1] != x.shape[:1]:
            raise ValueError(f"{name} has x of shape {x.shape} and t {t.shape}; give at least one sample, a label each")
        parameter = next(iter(self.network.params.values()))
        scores = tuple(self.network.predict(beside(parameter, x[:1], parameter.dtype)).shape)
        if t.ndim == 1:
            if t.dtype.kind == "f":
                raise TypeError(f"t of {name} has dtype {t.dtype}; give labels as integers")
            if len(scores) != 2 or t.min() < 0 or t.max() >= scores[1]:
                raise ValueError(f"t of {name} goes from {t.min()} to {t.max()}; the network's scores are {scores}")
            return beside(parameter, x, parameter.dtype), beside(parameter, t.astype(np.int64))
        if t.shape[1:] != scores[1:]:
            raise ValueError(f"t of {name} has shape {t.shape}; give (N,) labels or ({len(t)}, {scores[1]}) rows")
        return beside(parameter, x, parameter.dtype), beside(parameter, t, parameter.dtype)


def cosine(step: int, steps: int) -> float:
    """Let the learning rate fall from 1 to 0 times its value, along half a period of the cosine.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), equation 5, without restarts.
    """
    return (1 + math.cos(math.pi * step / steps)) / 2


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        message = 'a progress bar needs tqdm: pip install "xpconv[examples]", or give progress=False'
        raise ImportError(message) from error
    return tqdm
