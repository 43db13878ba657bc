"""Where the batches of a training come from, with a position that can be saved and found again."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import array_api_compat
import numpy as np

from xpconv.arrays.libraries import Array
from xpconv.data.datasets import Dataset, batches
from xpconv.networks.network import Network, beside
from xpconv.shards import bounds
from xpconv.windows import whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

Samples: TypeAlias = "Dataset | tuple[NDArray[Any], NDArray[Any]]"


@runtime_checkable
class Source(Protocol):
    """What a `Trainer` asks of its data.

    All that is random in an epoch follows from the generator's state at its start: then an epoch that was left in its
    midst can be given again from there, whatever the generator has been asked for since, and by whom.

    Attributes
    ----------
    state : dict
        What a resumed run needs to go on here, as a tree of numbers, texts and NumPy arrays. Setting it raises
        ValueError, and changes nothing, when it is that of other data.
    """

    state: dict[str, Any]

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""

    def epoch(self, done: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield the batches of a new epoch or, where some are `done`, the others of the epoch begun last."""

    def sample(self, count: int) -> tuple[Array, Array]:
        """Return up to `count` samples to tell the accuracy on."""


class Order:
    """An order of samples that a generator on the host draws for each epoch, cut into batches.

    Parameters
    ----------
    samples, batch_size : int
        How many there are, and how many a step takes; the last step of an epoch takes what is left.
    rng : numpy.random.Generator or int, optional
        Draws the order: the same seed gives the same order on every backend. Others may draw from it too.

    Attributes
    ----------
    part : (int, int)
        Which part of each batch is wanted, of how many: (0, 1) is all of it.

    Raises
    ------
    TypeError, ValueError
        When `batch_size` is no whole number of at least 1.
    """

    part = 0, 1

    def __init__(self, samples: int, batch_size: int, rng: np.random.Generator | int | None = None) -> None:
        self.samples = samples
        self.batch_size = whole_number("batch_size", batch_size, least=1)
        self.rng = np.random.default_rng(rng)
        self._start = self.rng.bit_generator.state

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def epoch(self, done: int = 0) -> Iterator[NDArray[np.int64]]:
        """Draw a new epoch's batches of indices or, where some are `done`, give the others of the epoch begun last."""
        rng = self.rng
        if done:
            rng = copy.deepcopy(rng)
            rng.bit_generator.state = self._start
        else:
            self._start = rng.bit_generator.state
        whole = itertools.islice(batches(self.samples, self.batch_size, rng), done, None)
        return (chosen[slice(*bounds(len(chosen), *self.part))] for chosen in whole)

    def length(self, step: int) -> int:
        """Return how many samples a step of an epoch has, in all parts together."""
        return min(self.batch_size, self.samples - step * self.batch_size)

    def sample(self, count: int) -> NDArray[np.int64]:
        """Draw up to `count` indices."""
        return self.rng.permutation(self.samples)[:count]

    @property
    def state(self) -> dict[str, Any]:
        """The generator, now and at the start of the epoch begun last, and what the order is of."""
        order = {"samples": self.samples, "batch_size": self.batch_size}
        return {**order, "start": self._start, "now": self.rng.bit_generator.state}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        own = self.state
        for name in ("samples", "batch_size"):
            if state[name] != own[name]:
                raise ValueError(f"{name} was {state[name]} and is {own[name]} now; give what it was, or start anew")
        self.rng.bit_generator.state = state["now"]
        self._start = state["start"]


class Ordered:
    """What sources share whose samples come in an `Order`: it tells their length and their state."""

    order: Order

    def __len__(self) -> int:
        return len(self.order)

    @property
    def state(self) -> dict[str, Any]:
        """That of the order."""
        return self.order.state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.order.state = state


class InMemory(Ordered):
    """Samples that all lie where the parameters are, in an `Order`.

    Parameters
    ----------
    x, t : array, shape (N, ...)
        Of one library and device; N at least 1.
    batch_size, rng
        As in `Order`.
    """

    def __init__(self, x: Array, t: Array, batch_size: int, rng: np.random.Generator | int | None = None) -> None:
        self.x, self.t = x, t
        self.order = Order(int(x.shape[0]), batch_size, rng)

    def epoch(self, done: int = 0) -> Generator[tuple[Array, Array]]:
        """Yield the batches of a new epoch or, where some are `done`, the others of the epoch begun last."""
        return (self._taken(chosen) for chosen in self.order.epoch(done))

    def sample(self, count: int) -> tuple[Array, Array]:
        """Return up to `count` samples, drawn at random."""
        return self._taken(self.order.sample(count))

    def _taken(self, chosen: NDArray[np.int64]) -> tuple[Array, Array]:
        xp, where = array_api_compat.array_namespace(self.x), beside(self.x, chosen)
        return xp.take(self.x, where, axis=0), xp.take(self.t, where, axis=0)


class Augmented:
    """A source whose images differ a little each time they come.

    Parameters
    ----------
    source : Source
    augment : callable
        ``augment(x, rng=rng)`` gives a batch of as many images, where `x` is: ``functools.partial(shift, most=2)`` of
        `xpconv.data`, for one, or a function that calls several. With ``rng=None``, for the samples to tell
        the accuracy on, it draws nothing.
    rng : numpy.random.Generator or int, optional
        Draws a seed for each epoch. What a step draws follows from the seed and the step's number alone.

    Raises
    ------
    TypeError
        When `source` is none.
    """

    def __init__(
        self, source: Source, augment: Callable[..., Array], rng: np.random.Generator | int | None = None
    ) -> None:
        if not isinstance(source, Source):
            raise TypeError(f"source is a {type(source).__name__}; give an InMemory, Indexed or other Source")
        self.source, self.augment, self.rng = source, augment, np.random.default_rng(rng)
        self._seed = 0

    def __len__(self) -> int:
        return len(self.source)

    def epoch(self, done: int = 0) -> Generator[tuple[Array, Array]]:
        """Yield the batches of a new epoch or, where some are `done`, the others of the epoch begun last."""
        if not done:
            self._seed = int(self.rng.integers(2**63))
        seed, steps = self._seed, enumerate(self.source.epoch(done), start=done)
        return ((self.augment(x, rng=np.random.default_rng((seed, step))), t) for step, (x, t) in steps)

    def sample(self, count: int) -> tuple[Array, Array]:
        """Return up to `count` samples, with nothing drawn."""
        x, t = self.source.sample(count)
        return self.augment(x, rng=None), t

    @property
    def state(self) -> dict[str, Any]:
        """That of the source, the seed of the epoch begun last, and the generator of seeds."""
        return {"source": self.source.state, "seed": self._seed, "rng": self.rng.bit_generator.state}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.source.state = state["source"]  # which refuses what does not fit
        self.rng.bit_generator.state, self._seed = state["rng"], state["seed"]


def placed(network: Network, name: str, samples: Samples) -> tuple[Array, Array]:
    """Check samples on the host, while looking at them is free, and copy them to where the parameters are.

    Parameters
    ----------
    network : Network
    name : str
        What the messages call them.
    samples : Dataset, or (x, t)
        NumPy arrays: x (N, ...) of floats, and t (N,) labels as integers or (N, K) rows.

    Returns
    -------
    x, t : array
        Floats in the parameters' dtype, labels as int64.

    Raises
    ------
    TypeError, ValueError
        When the samples do not fit the network.
    """
    x, t = (samples.images, samples.labels) if isinstance(samples, Dataset) else samples
    for part, array, kinds, wanted in (("x", x, "f", "floats"), ("t", t, "iuf", "numbers")):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
            given = f"{type(array).__name__} of {getattr(array, 'dtype', 'no dtype')}"
            raise TypeError(f"{part} of {name} is a {given}; give a NumPy array of {wanted}")
    check_targets(name, t, check_samples(network, name, x, t))
    like = next(iter(network.params.values()))
    if t.ndim == 1:
        return beside(like, x, like.dtype), beside(like, t.astype(np.int64))
    return beside(like, x, like.dtype), beside(like, t, like.dtype)


def check_samples(network: Network, name: str, x: Any, t: Any) -> tuple[int, ...]:
    """Return the shape of the scores of one of the samples, or raise ValueError where there is none with its label."""
    if len(x.shape) < 2 or x.shape[0] == 0 or tuple(t.shape[:1]) != tuple(x.shape[:1]):
        raise ValueError(f"{name} has x of shape {x.shape} and t {t.shape}; give at least one sample, a label each")
    like = next(iter(network.params.values()))
    return tuple(network.predict(beside(like, x[:1], like.dtype)).shape)


def check_targets(name: str, t: Any, scores: tuple[int, ...]) -> None:
    """Raise TypeError or ValueError unless `t` are labels of these scores, or rows like them."""
    if len(t.shape) == 1:
        if t.dtype.kind == "f":
            raise TypeError(f"t of {name} has dtype {t.dtype}; give labels as integers")
        if len(scores) != 2 or t.min() < 0 or t.max() >= scores[1]:
            raise ValueError(f"t of {name} goes from {t.min()} to {t.max()}; the network's scores are {scores}")
    elif tuple(t.shape[1:]) != scores[1:]:
        raise ValueError(f"t of {name} has shape {t.shape}; give (N,) labels or ({t.shape[0]}, {scores[1]}) rows")
