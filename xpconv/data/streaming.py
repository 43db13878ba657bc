"""Sources of batches that stay on the host, or in files, until they are wanted: data larger than memory.

Batches are read, and copied to where the parameters are, in the background (`prefetching`); there floats take the
parameters' dtype, and uint8 becomes brightness from 0 to 1, in steps of 1/255.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from xpconv.arrays.libraries import Array
from xpconv.data.prefetching import delivered
from xpconv.data.sources import Order, Ordered, check_samples, check_targets
from xpconv.networks.network import Network
from xpconv.windows import whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Batch = tuple[NDArray[Any], NDArray[Any]]


class Indexed(Ordered):
    """Samples that can be read by their index, in an `Order`: NumPy's arrays, or `xpconv.data.files.MappedArray`.

    The same samples, batch size and seed give the same batches as in memory.

    Parameters
    ----------
    network : Network
        Says where the batches go.
    x : array_like, shape (N, ...)
        Of floats or uint8: anything with a shape and a dtype of NumPy's whose ``x[indices]`` are NumPy arrays, which
        another thread may ask for.
    t : array_like, shape (N,) or (N, K)
        Labels as integers, which are read at once, or rows.
    batch_size : int
        Samples a step; the last step of an epoch takes what is left.
    rng : numpy.random.Generator or int, optional
        Draws the order: the same seed gives the same order on every backend. Others may draw from it too.

    Raises
    ------
    TypeError, ValueError
        When the samples do not fit the network, or `batch_size` is no whole number of at least 1.
    """

    def __init__(
        self, network: Network, x: Any, t: Any, batch_size: int = 100, rng: np.random.Generator | int | None = None
    ) -> None:
        _check_form("x", x, "f", "floats or uint8")
        _check_form("t", t, "iuf", "numbers")
        scores = check_samples(network, "the data", x, t)
        self.x, self.t = x, (t[:] if len(t.shape) == 1 else t)
        check_targets("the data", self.t, scores)
        self.order = Order(int(x.shape[0]), batch_size, rng)
        self._like = next(iter(network.params.values()))

    def epoch(self, done: int = 0) -> Generator[tuple[Array, Array]]:
        """Yield the batches of a new epoch or, where some are `done`, the others of the epoch begun last."""
        order = self.order.epoch(done)  # drawn here and now, not on the thread that reads
        return _arriving(((self.x[chosen], self.t[chosen]) for chosen in order), self._like)

    def sample(self, count: int) -> tuple[Array, Array]:
        """Return up to `count` samples, drawn at random."""
        chosen = self.order.sample(count)
        (batch,) = _arriving([(self.x[chosen], self.t[chosen])], self._like)
        return batch


class Iterated:
    """Batches from any iterable, in the order in which it gives them.

    A resumed run passes over the batches that it has had, and goes on as if it had never stopped if the iterable gives
    the same ones again. It is asked for no more than two batches ahead of the step, on another thread.

    Parameters
    ----------
    network : Network
        Says where the batches go.
    batches : iterable, or function of no arguments that returns one
        Of (x, t) on the host, in the forms that `Indexed` takes: anything that NumPy makes arrays of. Every epoch goes
        through it anew: a list, a loader, a generator function.
    steps : int, optional
        Batches of an epoch, the first ones; all of them where the iterable knows its length.

    Raises
    ------
    TypeError
        When `batches` cannot be gone through, or only once; or has no length and `steps` is not given.
    ValueError
        When the first batch does not fit the network, here. When another one differs from it in more than the number of
        samples, or there are too few, as that batch is trained on.
    """

    def __init__(
        self, network: Network, batches: Iterable[Any] | Callable[[], Iterable[Any]], steps: int | None = None
    ) -> None:
        if isinstance(batches, Iterator) or not (isinstance(batches, Iterable) or callable(batches)):
            raise TypeError(
                f"batches is a {type(batches).__name__}; give what every epoch can go through anew: a list, a loader, "
                "or a function that returns an iterable"
            )
        if steps is None:
            if not isinstance(batches, Sized):
                raise TypeError(f"batches is a {type(batches).__name__}, which has no length; give steps")
            steps = len(batches)
        self.batches, self.steps = batches, whole_number("steps", steps, least=1)
        self._first: Batch | None = None
        self._first = x, t = next(self._read(0))
        self._scores = check_samples(network, "batch 0", x, t)
        check_targets("batch 0", t, self._scores)
        self._like = next(iter(network.params.values()))

    def __len__(self) -> int:
        return self.steps

    def epoch(self, done: int = 0) -> Generator[tuple[Array, Array]]:
        """Yield the batches of another epoch, from the one on before which as many are `done`."""
        return _arriving(self._read(done), self._like)

    def sample(self, count: int) -> tuple[Array, Array]:
        """Return up to `count` samples of the first batch."""
        assert self._first is not None
        (batch,) = _arriving([(self._first[0][:count], self._first[1][:count])], self._like)
        return batch

    @property
    def state(self) -> dict[str, Any]:
        """How many batches make an epoch."""
        return {"steps": self.steps}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if state["steps"] != self.steps:
            raise ValueError(f"steps was {state['steps']} and is {self.steps} now; give what it was, or start anew")

    def _read(self, done: int) -> Generator[Batch]:
        found = self.batches if isinstance(self.batches, Iterable) else self.batches()
        step = -1
        for step, batch in enumerate(itertools.islice(found, self.steps)):
            if step >= done:
                yield self._checked(f"batch {step}", batch)
        if step + 1 < self.steps:
            raise ValueError(
                f"batches ended after {step + 1} of {self.steps}; give as many every epoch, or other steps"
            )

    def _checked(self, name: str, batch: Any) -> Batch:
        try:
            x, t = (np.asarray(part) for part in batch)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} is a {type(batch).__name__}; give (x, t), arrays on the host: {error}") from error
        _check_form(f"x of {name}", x, "f", "floats or uint8")
        _check_form(f"t of {name}", t, "iuf", "numbers")
        if self._first is not None:
            for part, array, first in zip("xt", (x, t), self._first, strict=True):
                if (array.dtype, array.shape[1:]) != (first.dtype, first.shape[1:]) or len(t) != len(x) or not len(x):
                    raise ValueError(
                        f"{part} of {name} is {array.dtype} of shape {array.shape}, that of batch 0 {first.dtype} of "
                        f"shape {first.shape}; give the same but for the number of samples, a label each"
                    )
            check_targets(name, t, self._scores)
        return x, t


def _check_form(name: str, array: Any, kinds: str, wanted: str) -> None:
    """Raise TypeError unless this is an array of a dtype of these kinds, or of uint8."""
    dtype = getattr(array, "dtype", None)
    if not isinstance(dtype, np.dtype) or (dtype.kind not in kinds and dtype != np.uint8):
        raise TypeError(f"{name} is a {type(array).__name__} of {dtype or 'no dtype'}; give an array of {wanted}")


def _arriving(batches: Iterable[Batch], like: Array) -> Generator[tuple[Array, Array]]:
    """Yield batches where the parameters are: floats in their dtype, labels as int64."""
    xp = array_api_compat.array_namespace(like)
    on_host = ((x, t.astype(np.int64) if t.ndim == 1 else t) for x, t in batches)
    with contextlib.closing(delivered(on_host, like)) as arriving:
        for x, t in arriving:
            brightness = xp.isdtype(x.dtype, "integral")
            x = xp.astype(x, like.dtype) / 255 if brightness else xp.astype(x, like.dtype, copy=False)
            yield x, t if t.ndim == 1 else xp.astype(t, like.dtype, copy=False)
