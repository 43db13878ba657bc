"""Training: epochs of batches, their losses, and the accuracy after each; and what takes part in it, as callbacks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import array_api_compat
import numpy as np

from xpconv.arrays.libraries import Array, synchronize, to_numpy
from xpconv.cuda.runtime import takes_kernels
from xpconv.data.sources import InMemory, Samples, Source, placed
from xpconv.networks.network import Network, beside
from xpconv.networks.weights import check_fit
from xpconv.optimizers.rules import Optimizer
from xpconv.training.history import History
from xpconv.training.replaying import Replayed, Work
from xpconv.training.schedules import Schedule
from xpconv.training.states import leaves, moved
from xpconv.windows import whole_number


class Callback:
    """Takes part in a training: it changes gradients, watches, shows, saves, stops. Here it does none of that.

    A step is ``gradient``, then the `on_gradients` of each callback in turn, then ``optimizer.update``, then the
    `on_step` of each. An exception raised by any of them ends the training; so does `Trainer.stop`, after what is under
    way. What is raised in `on_gradients` leaves the weights as they were before the step.

    Attributes
    ----------
    looks_on : bool
        Whether it only shows or writes down, with no state: of processes that train together one does that.
    state : dict
        What a resumed run must have back: a tree of dicts with names as keys and of lists, with arrays, numbers, texts,
        booleans and None as leaves. A callback that has such a thing overrides this property and its setter. The setter
        is given the same tree, its arrays where the parameters are, floating ones in their dtype; beside parameters in
        float16, those that were wider in float32.
    """

    looks_on = False

    @property
    def state(self) -> dict[str, Any]:
        """Nothing, which needs no setting."""
        return {}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        raise TypeError(f"{type(self).__name__} has no state to set")

    def on_start(self, trainer: Trainer) -> None:
        """Get ready, before the first step of this run, which need not be the first of the training."""

    def on_gradients(self, trainer: Trainer, grads: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the gradients to take the step with: the given ones, which stay as they are, or others."""
        return grads

    def on_step(self, trainer: Trainer) -> None:
        """Act after a step."""

    def evaluating(self, trainer: Trainer) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the network has other weights, for them to be measured and kept."""
        return contextlib.nullcontext()

    def on_epoch(self, trainer: Trainer) -> None:
        """Act after an epoch and the measuring of its accuracy."""

    def on_end(self, trainer: Trainer) -> None:
        """Clean up, however the training ended. It is called when `on_start` has returned."""


class Trainer:
    """Trains a network, where its parameters are.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
    train : Dataset, (x, t) or Source
        NumPy arrays, copied to the parameters once and in their dtype: x (N, ...) of floats, and t (N,) labels as
        integers or (N, K) rows. Or where else batches come from: `xpconv.data.streaming.Indexed` reads them from files.
    test : Dataset or (x, t), optional
        To measure the accuracy on after each epoch.
    epochs : int
        How many times each sample is seen.
    batch_size : int
        Samples a step; the last step of an epoch takes what is left. A `Source` decides that itself.
    rng : numpy.random.Generator or int, optional
        Shuffles the samples of each epoch, on the host: the same seed gives the same order on every backend.
    schedule : callable, optional
        ``schedule(step, steps)`` gives the factor of the learning rate at each of the steps, from 0 on: one of
        `xpconv.training.schedules`, say.
    sample : int
        How many of the images trained on tell the accuracy on them, the same ones after each epoch.
    callbacks : sequence of Callback
        What else takes part, in the order in which it does.
    graphs : bool
        Whether to take the steps by two CUDA graphs: one up to the gradients, and after the callbacks one that updates.
        From the third step on the weights, the gradients, and what the optimizer remembers are then the same arrays at
        each step: who keeps them must copy them. Layers, the loss and the optimizer keep to `execution.recording`.

    Attributes
    ----------
    steps, steps_done : int
        Steps of the whole training, and those taken.
    epochs_done, steps_of_epoch : int
        The position: whole epochs, and steps of the one under way.
    batch : (x, t)
        Of the step under way, or the last one.
    leads : bool
        Whether this process is the one that reports and saves, of those that train together.

    Raises
    ------
    TypeError, ValueError
        When a number is out of range, or the samples do not fit the network: before the first step.
    """

    leads = True

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        train: Samples | Source,
        test: Samples | None = None,
        *,
        epochs: int,
        batch_size: int = 100,
        rng: np.random.Generator | int | None = None,
        schedule: Schedule | None = None,
        sample: int = 1000,
        callbacks: Sequence[Callback] = (),
        graphs: bool = False,
    ) -> None:
        if not network.params:
            raise ValueError("the network has no parameters; there is nothing to train")
        self.network, self.optimizer, self.schedule, self.callbacks = network, optimizer, schedule, list(callbacks)
        self.epochs = whole_number("epochs", epochs, least=1)
        self.batch_size = whole_number("batch_size", batch_size, least=1)
        sample = whole_number("sample", sample, least=1)
        if isinstance(train, Source):
            self.source = train
        else:
            self.source = InMemory(*placed(network, "train", train), batch_size, rng)
        self.test = None if test is None else placed(network, "test", test)
        self.seen = self.source.sample(sample)
        self.steps = self.epochs * len(self.source)
        self.epochs_done = self.steps_of_epoch = 0
        self.batch: tuple[Array, Array] | None = None
        self.stopped = False
        self._history, self._losses, self._since = History(), list[Array](), 0.0
        self._gradient: Work = lambda batch: self.gradient(batch["x"], batch["t"])
        self._update: Work = lambda grads: self.optimizer.update(self.network.params, grads)
        if graphs:
            if not takes_kernels(next(iter(network.params.values()))):
                raise ValueError("graphs is True, but the parameters are no arrays of CuPy's; make them there")
            state = network.state
            self._gradient = first = Replayed(self._gradient, state.values)
            self._update = Replayed(self._update, lambda: (*state.values(), *leaves(self.optimizer.state)), first)

    @property
    def steps_done(self) -> int:
        """Steps taken so far."""
        return self.epochs_done * len(self.source) + self.steps_of_epoch

    @property
    def history(self) -> History:
        """What the training has shown so far; to look at it in the midst of an epoch waits for the device."""
        if self._losses:
            losses = to_numpy(array_api_compat.array_namespace(self._losses[0]).stack(self._losses)).tolist()
            synchronize(next(iter(self.network.params.values())))
            now = time.perf_counter()
            self._history.loss += losses
            self._history.seconds += now - self._since
            self._losses, self._since = [], now
        return self._history

    def train(self) -> History:
        """Train for the epochs that are left and return the history. Afterwards the learning rate is what it was."""
        base, self.stopped = self.optimizer.lr, False
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self.optimizer, "lr", base)
            for callback in self.callbacks:
                callback.on_start(self)
                stack.callback(callback.on_end, self)
            while self.epochs_done < self.epochs and not self.stopped:
                self._epoch(base)
        return self.history

    def stop(self) -> None:
        """Let the training end after the step or the epoch under way."""
        self.stopped = True

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let the network have the weights that its accuracy is told of: where callbacks average them, the averages.

        Afterwards it has those again that training goes on with.
        """
        with contextlib.ExitStack() as stack:
            for callback in self.callbacks:
                stack.enter_context(callback.evaluating(self))
            yield

    def step(self, x: Array, t: Array) -> Array:
        """Take one step on one batch, and return its loss, which stays on the device."""
        self.batch = x, t
        grads: Mapping[str, Array]
        loss, grads = self._gradient({"x": x, "t": t})
        loss = array_api_compat.array_namespace(loss).asarray(loss, copy=True)  # a graph writes over it
        for callback in self.callbacks:
            grads = callback.on_gradients(self, grads)
        self._update(grads)
        self._history.images += int(x.shape[0])
        return loss

    def gradient(self, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
        """Return the loss of a batch and its gradients, by the names of the parameters."""
        grads = self.network.gradient(x, t)
        return self.network.last_layer.loss, grads

    def agreed(self, number: int) -> int:
        """Return the largest of what all processes that train together say, each calling this: here of one."""
        return number

    def _epoch(self, base: float) -> None:
        self._since = time.perf_counter()
        with contextlib.closing(batch for batch in self.source.epoch(self.steps_of_epoch)) as arriving:
            for x, t in arriving:
                if self.schedule is not None:
                    self.optimizer.lr = base * self.schedule(self.steps_done, self.steps)
                self._losses.append(self.step(x, t))
                self.steps_of_epoch += 1
                for callback in self.callbacks:
                    callback.on_step(self)
                if self.stopped:
                    return
        history = self.history
        with self.evaluating():
            history.train_accuracy.append(self.network.accuracy(*self.seen, batch_size=self.batch_size))
            if self.test is not None:
                history.test_accuracy.append(self.network.accuracy(*self.test, batch_size=self.batch_size))
        self.epochs_done, self.steps_of_epoch = self.epochs_done + 1, 0
        for callback in self.callbacks:
            callback.on_epoch(self)

    @property
    def state(self) -> dict[str, Any]:
        """All that a training which is to go on from here as if it had never stopped must know.

        A tree as in `Callback`. It is set on a trainer made as this one was; its arrays are then NumPy's, and are moved
        to where the parameters are. ValueError says what does not fit, and then nothing has changed.
        """
        return {
            "network": dict(self.network.state),
            "optimizer": self.optimizer.state,
            "generators": {name: rng.bit_generator.state for name, rng in self._generators().items()},
            "source": self.source.state,
            "callbacks": [[type(callback).__name__, callback.state] for callback in self._stateful()],
            "history": {**asdict(self.history), "loss": np.asarray(self.history.loss)},
            "position": [self.epochs_done, self.steps_of_epoch],
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        arrays, generators, callbacks = self.network.state, self._generators(), self._stateful()
        check_fit(*({name: tuple(array.shape) for name, array in each.items()} for each in (state["network"], arrays)))
        for what, given, own in (
            ("layers with a generator", list(state["generators"]), list(generators)),
            ("callbacks with a state", [name for name, _ in state["callbacks"]], [type(c).__name__ for c in callbacks]),
        ):
            if given != own:
                raise ValueError(f"the {what} were {given} and are {own} now; give what they were, or start anew")
        self.source.state = state["source"]  # which refuses what does not fit
        for name, array in state["network"].items():
            arrays[name] = beside(arrays[name], array, arrays[name].dtype)
        like = next(iter(self.network.params.values()))
        self.optimizer.state = moved(state["optimizer"], like)
        for name, rng in generators.items():
            rng.bit_generator.state = state["generators"][name]
        for callback, (_, kept) in zip(callbacks, state["callbacks"], strict=True):
            callback.state = moved(kept, like)
        self._history = History(**{**state["history"], "loss": state["history"]["loss"].tolist()})
        self._losses = []
        self.epochs_done, self.steps_of_epoch = state["position"]

    def _generators(self) -> dict[str, np.random.Generator]:
        """Return the generators that layers draw from, by the name of the layer."""
        return {name: layer.rng for name, layer in self.network.layers.items() if hasattr(layer, "rng")}

    def _stateful(self) -> list[Callback]:
        return [callback for callback in self.callbacks if type(callback).state is not Callback.state]
