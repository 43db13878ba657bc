"""Parts of batches: what one of several processes must know of the others, in whole numbers, and their sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xpconv.arrays.libraries import Array


@dataclass(frozen=True)
class Shard:
    """The part of a batch that one process has, while others have the rest.

    Attributes
    ----------
    start, stop, samples : int
        It has the samples from `start` up to `stop` of as many as `samples`; there may be none.
    total : callable
        Adds an array up, element by element, over all the processes: each calls it, and each is given the sum.
    """

    start: int
    stop: int
    samples: int
    total: Callable[[Array], Array]


def bounds(samples: int, rank: int, count: int) -> tuple[int, int]:
    """Return where the part of one of `count` processes starts and stops; the parts differ by one sample at most."""
    return samples * rank // count, samples * (rank + 1) // count
