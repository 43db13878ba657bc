"""What a contender is, and those that need nothing but NumPy: this library and the book's own way.

Every contender says in which layouts its arrays may lie for a case, and makes what is to be timed: for each direction a
function without arguments that computes, waits until all is done, and returns y and the gradients as arrays.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

import xpconv
from xpconv.algorithms import Algorithm
from xpconv.arrays.backends import Backend
from xpconv.arrays.libraries import Array, synchronize, to_numpy
from xpconv.bench import book
from xpconv.bench.clocks import Call, Clock, OnHost
from xpconv.bench.layers import NETWORKS, Case
from xpconv.bench.problems import Problem, problem
from xpconv.execution.workspace import WORKSPACE
from xpconv.selection.model import ALGORITHMS
from xpconv.training.trainer import Callback, Trainer

FORWARD, BOTH = "forward", "forward + backward"
LAST, FIRST = "channels last", "channels first"
LEARNING_RATE = 1e-5  # of training steps: after hundreds of them the network still learns

Calls = dict[str, Call]


def layout_order(layout: str, axes: int) -> tuple[int, ...]:
    """Return the order in which the axes of an array (N, C, ...) lie in memory."""
    return (0, *range(2, axes), 1) if layout == LAST and axes > 2 else tuple(range(axes))


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """Return the order that undoes an order of axes."""
    return tuple(order.index(axis) for axis in range(len(order)))


def laid_out(array: Array, order: Sequence[int]) -> Array:
    """Copy so that the axes lie in memory in this order, and stand where they stood."""
    return array.transpose(order).copy().transpose(inverse(order))


_place = functools.lru_cache(xpconv.backend)


class Gauge(Protocol):
    """What tells how much memory is taken."""

    def used(self) -> int:
        """Return the bytes that are taken now."""

    def most(self, call: Call) -> int:
        """Call, and return the most bytes that were taken meanwhile."""

    def release(self) -> None:
        """Give back what is kept for later and not taken."""


class Contender:
    """One way to compute a case.

    Attributes
    ----------
    name : str
    precision : str
        What it multiplies in: "float32", "tf32" or "float16".
    libraries : tuple of str
        What it imports.
    gauge : Gauge, optional
        Of the device that it computes on; None for the memory of the process.
    """

    name: str
    precision: str = "float32"
    libraries: ClassVar[tuple[str, ...]] = ()
    gauge: ClassVar[Gauge | None] = None

    def versions(self) -> dict[str, str]:
        """Return the version of each library; raise ImportError when one is not installed."""
        return {library: importlib.metadata.version(library) for library in self.libraries}

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Return in which layouts it computes this case; none when it does not."""
        raise NotImplementedError

    def make(self, case: Case, layout: str) -> Calls:
        """Return what is to be timed, by direction."""
        raise NotImplementedError

    def clock(self, case: Case) -> Clock:
        """Return what times its calls."""
        return OnHost()

    @property
    def xp(self) -> Any:
        """Whose arrays it is given and compared by: NumPy's."""
        return np

    @property
    def dtype(self) -> str:
        """The dtype of those arrays."""
        return "float16" if self.precision == "float16" else "float32"

    def problem(self, case: Case) -> Problem:
        """Return what it is given of an operator."""
        return problem(case, self.xp, self.dtype)

    def arrays(self, outputs: Sequence[Any], layout: str) -> list[Array]:
        """Return outputs as such arrays, (N, C, ...), (O, C/G, ...) and (O,)."""
        return [to_numpy(array) for array in outputs]


@dataclass(frozen=True)
class XpConv(Contender):
    """xpconv, by its public operators. For the forward direction alone its weights are frozen."""

    algorithm: str = "auto"
    backend: str = "numpy"
    workspace: int = WORKSPACE
    precision: str = "float32"
    ways: ClassVar[Mapping[str, Algorithm]] = ALGORITHMS
    graphs: ClassVar[bool] = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its algorithm, and its backend, precision and workspace where they are not the default."""
        more = (self.backend, "numpy"), (self.precision, "float32")
        limit = f" in {self.workspace / (1 << 20):.3g} MiB" if self.workspace != WORKSPACE else ""
        return " ".join(["xpconv", self.algorithm, *(word for word, usual in more if word != usual)]) + limit

    @property
    def place(self) -> Backend:
        """Where its arrays are."""
        return _place(self.backend)

    def waited(self, *outputs: Any) -> tuple[Any, ...]:
        """Give the outputs once they are there."""
        for array in outputs:
            synchronize(array)
        return outputs

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Pooling and networks have no algorithm to choose, so there is only the one of "auto"."""
        if case.operator in NETWORKS and self.precision != "float32":
            return ()
        if self.algorithm == "auto":
            return (LAST,) if case.operator in NETWORKS else (LAST, FIRST)
        able = case.operator == "conv" and self.ways[self.algorithm].supports(case.window, case.groups)
        return (LAST, FIRST) if able else ()

    def weight_order(self, layout: str, axes: int) -> tuple[int, ...]:
        """Return the order in which the axes of a weight lie in memory: taps first beside arrays with channels last."""
        return (*range(2, axes), 1, 0) if layout == LAST and axes > 1 else tuple(range(axes))

    def moved(self, array: Array, order: Sequence[int]) -> Any:
        """Copy to its place, so that the axes lie in memory in this order."""
        buffer = self.place.asarray(array.transpose(order))
        return self.place.xp.permute_dims(buffer, inverse(order))

    def make(self, case: Case, layout: str) -> Calls:
        """Return both directions."""
        if case.operator in NETWORKS:
            return {BOTH: self._step(case, self.place)}
        given, operator = self.problem(case), getattr(xpconv, case.operator)
        options = case.options
        if case.operator == "conv":
            options |= {"algorithm": self.algorithm, "workspace": self.workspace}
            options |= {"precision": "tf32"} if self.precision == "tf32" else {}
        x, *weights = given.arrays
        x, dy = (self.moved(array, layout_order(layout, array.ndim)) for array in (x, given.dy))
        weights = [self.moved(w, self.weight_order(layout, w.ndim)) for w in weights]
        frozen = [xpconv.freeze(w) for w in weights]

        def forward() -> tuple[Any, ...]:
            return self.waited(operator(x, *frozen, **options))

        def both() -> tuple[Any, ...]:
            y, pullback = xpconv.vjp(operator, x, *weights, **options)
            return self.waited(y, *pullback(dy))

        return {FORWARD: forward, BOTH: both}

    def _step(self, case: Case, place: Backend) -> Call:
        """Return a whole training step: forward, loss, backward and Adam."""
        given, network, seen = problem(case), network_of(case, place), _Gradients()
        samples, optimizer = (given.arrays[0], given.dy), xpconv.Adam(LEARNING_RATE)
        trainer = Trainer(network, optimizer, samples, epochs=1, callbacks=[seen], graphs=self.graphs)
        x, labels = (place.asarray(array) for array in samples)

        def step() -> tuple[Any, ...]:
            loss = trainer.step(x, labels)
            self.waited(*network.params.values())
            return (loss, *seen.found.values())

        return step


class _Gradients(Callback):
    """Keeps those of the last step."""

    found: Mapping[str, Array]

    def on_gradients(self, trainer: Trainer, grads: Mapping[str, Array]) -> Mapping[str, Array]:
        self.found = grads
        return grads


def network_of(case: Case, place: Backend | str = "numpy") -> xpconv.Network:
    """Make a network that drops nothing, so that all can be compared; with the same weights each time."""
    options: dict[str, Any] = {"dropout_ratio": 0.0} if case.operator == "DeepConvNet" else {"weight_init_std": "he"}
    network: xpconv.Network = getattr(xpconv, case.operator)(case.shape[1:], rng=0, backend=place, **options)
    return network


class Book(Contender):
    """The book's own way, which has two axes, no groups, and no padding in pooling."""

    name = "the book"

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Channels first is all it has."""
        convolves = case.operator == "conv" and len(case.kernel) == 2 and case.groups == 1
        return (FIRST,) if convolves or (case.operator == "max_pool" and not case.pad) else ()

    def make(self, case: Case, layout: str) -> Calls:
        """Return both directions."""
        given = problem(case)

        def run() -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
            if case.operator == "conv":
                return book.convolution(given.arrays, case.stride, case.pad)
            return book.max_pooling(given.arrays[0], case.kernel, case.stride)

        def both() -> tuple[Any, ...]:
            y, backward = run()
            return (y, *backward(given.dy))

        return {FORWARD: lambda: (run()[0],), BOTH: both}
