"""Training by several processes: each takes a part of every batch, and what they find is added up.

One of them or many, with the same batches and the same seed it is the same training, up to rounding: the gradients, the
loss and the statistics of batch normalization are those of the whole batch, and dropout draws for all of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import array_api_compat

from xpconv.arrays.libraries import Array
from xpconv.data.sources import Ordered, Samples, Source
from xpconv.distributed.ranks import Ranks
from xpconv.layers import Loss
from xpconv.networks.network import Network
from xpconv.optimizers.rules import Optimizer
from xpconv.shards import Shard, bounds
from xpconv.training.history import History
from xpconv.training.states import join, split
from xpconv.training.trainer import Callback, Trainer
from xpconv.windows import whole_number


class DataParallel(Trainer):
    """A trainer of processes that take every step together; of one alone it is `Trainer`.

    All of them make it alike, and begin with the state that it has on process 0. There alone are callbacks that only
    look on, and checkpoints are written; other callbacks act on every process, and have to act alike.

    Parameters
    ----------
    ranks : Ranks
    network, optimizer, train, test, callbacks, **options
        As for `Trainer`; a batch is that of all processes together.
    bucket : int
        Bytes of gradients that are sent together, while those of earlier layers are still computed.

    Raises
    ------
    TypeError, ValueError
        As `Trainer`; and when the loss of a batch does not follow from those of its parts.
    """

    def __init__(
        self,
        ranks: Ranks,
        network: Network,
        optimizer: Optimizer,
        train: Samples | Source,
        test: Samples | None = None,
        *,
        callbacks: Sequence[Callback] = (),
        bucket: int = 1 << 20,
        **options: Any,
    ) -> None:
        self.ranks, self.leads = ranks, ranks.rank == 0
        self.bucket = whole_number("bucket", bucket, least=1)
        acting = [callback for callback in callbacks if self.leads or not callback.looks_on]
        super().__init__(network, optimizer, train, test, callbacks=acting, **options)
        if ranks.count > 1:
            if options.get("graphs"):
                raise ValueError("graphs is True, but several processes train together; leave it out")
            _share(network.last_layer, 1.0)
            self.parts = Parts(self.source, ranks)
            self.source = self.parts

    def train(self) -> History:
        """Train as `Trainer` does, all processes from the state that it has on process 0."""
        if self.ranks.count > 1:
            tree, arrays = self.ranks.shared(split(self.state) if self.leads else None)
            if not self.leads:
                self.state = join(tree, arrays)
        return super().train()

    def step(self, x: Array, t: Array) -> Array:
        """Take one step on this process's part of a batch, and return the loss of all of it."""
        loss = super().step(x, t)
        if self.ranks.count > 1:
            self._history.images += self.parts.shard.samples - int(x.shape[0])
        return loss

    def gradient(self, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
        """Return loss and gradients of the whole batch."""
        if self.ranks.count == 1:
            return super().gradient(x, t)
        shard, network, sums = self.parts.shard, self.network, Buckets(self.ranks, self.bucket)
        share = _share(network.last_layer, int(x.shape[0]) / shard.samples)
        sharing = [layer for layer in network.layers.values() if hasattr(layer, "shard")]
        try:
            for layer in sharing:
                layer.shard = shard
            arriving = network.gradients(x, t, share)
            first = next(arriving)
            loss: Any = network.last_layer.loss
            sums.add({"loss": loss * share if x.shape[0] else _zero(x)})
            sums.add(first)
            for gradients in arriving:
                sums.add(gradients)
        finally:
            for layer in sharing:
                layer.shard = None  # or a forward of one process alone would wait for the others
        found = sums.finished()
        return found["loss"], {name: found[name] for name in network.params}

    def agreed(self, number: int) -> int:
        """Return the largest of what all processes say."""
        return self.ranks.largest(number)


class Parts:
    """A source of this process's parts of the batches of another source.

    Where they come in an `Order` the other samples are not even read.

    Parameters
    ----------
    source : Source
    ranks : Ranks

    Attributes
    ----------
    shard : Shard
        Where the part given last stands in its batch.
    """

    shard: Shard

    def __init__(self, source: Source, ranks: Ranks) -> None:
        self.source, self.ranks = source, ranks
        if isinstance(source, Ordered):
            self.source = source = copy.copy(source)  # so that the one given still gives all of each batch
            source.order = copy.copy(source.order)
            source.order.part = ranks.rank, ranks.count

    def __len__(self) -> int:
        return len(self.source)

    def epoch(self, done: int = 0) -> Generator[tuple[Array, Array]]:
        """Yield the parts of the batches of a new epoch or, where some are `done`, of the epoch begun last."""
        for step, (x, t) in enumerate(self.source.epoch(done), start=done):
            ordered = isinstance(self.source, Ordered)
            samples = self.source.order.length(step) if isinstance(self.source, Ordered) else int(x.shape[0])
            start, stop = bounds(samples, self.ranks.rank, self.ranks.count)
            self.shard = Shard(start, stop, samples, self.ranks.total)
            yield (x, t) if ordered else (x[start:stop, ...], t[start:stop, ...])

    def sample(self, count: int) -> tuple[Array, Array]:
        """Return up to `count` samples, the same on every process."""
        return self.source.sample(count)

    @property
    def state(self) -> dict[str, Any]:
        """That of the source, which says nothing of parts."""
        return self.source.state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.source.state = state


class Buckets:
    """Sums over processes of arrays that come one after another, begun as soon as there are enough of them.

    Parameters
    ----------
    ranks : Ranks
    least : int
        Bytes that are worth a message.
    """

    def __init__(self, ranks: Ranks, least: int) -> None:
        self.ranks, self.least = ranks, least
        self._waiting: dict[str, Array] = {}
        self._under_way: list[tuple[dict[str, tuple[int, ...]], Callable[[], Array]]] = []

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Take arrays in, by names that all processes give in the same order."""
        for name, array in arrays.items():
            if self._waiting and next(iter(self._waiting.values())).dtype != array.dtype:
                self._send()
            self._waiting[name] = array
            if sum(math.prod(a.shape) * _bytes(a) for a in self._waiting.values()) >= self.least:
                self._send()
        self.ranks.go_on()

    def finished(self) -> dict[str, Array]:
        """Wait, and return the sums by their names."""
        self._send()
        found = {}
        for shapes, wait in self._under_way:
            sums, start = wait(), 0
            xp = array_api_compat.array_namespace(sums)
            for name, shape in shapes.items():
                stop = start + math.prod(shape)
                found[name] = xp.reshape(sums[start:stop], shape)
                start = stop
        return found

    def _send(self) -> None:
        if not self._waiting:
            return
        xp = array_api_compat.array_namespace(next(iter(self._waiting.values())))
        joined = xp.concat([xp.reshape(array, (-1,)) for array in self._waiting.values()])
        shapes = {name: tuple(array.shape) for name, array in self._waiting.items()}
        self._under_way.append((shapes, self.ranks.adding(joined)))
        self._waiting = {}


def _bytes(array: Array) -> int:
    return int(array_api_compat.array_namespace(array).finfo(array.dtype).bits) // 8


def _zero(like: Array) -> Array:
    xp = array_api_compat.array_namespace(like)
    return xp.zeros((), dtype=like.dtype, device=array_api_compat.device(like))


def _share(loss: Loss, part: float) -> float:
    """Return how much the loss of this part of the samples counts in that of all, or raise where none can say."""
    uneven = [name for name in ("weight", "ignore_index") if loss.options.get(name) is not None]
    reduction = loss.options.get("reduction", "mean")
    if reduction == "none" or (reduction == "mean" and uneven):
        given = ", ".join([f"reduction={reduction!r}", *uneven])
        raise ValueError(f"the loss has {given}, and no sum of those of parts of a batch; give reduction='sum'")
    return part if reduction == "mean" else 1.0
