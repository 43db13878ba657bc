"""What work that is recorded, to be done again without Python, has of the host: numbers fed to it, arrays that stay.

Recorded work reads and writes the same memory each time. What it takes from the host goes through `fed`, and what the
next time starts from through `replaced`. Where nothing is recorded, both pass on what they are given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import array_api_compat
import numpy as np

from xpconv.arrays.libraries import Array

_under_way: ContextVar[Recording | None] = ContextVar("recording", default=None)


def fed(make: Callable[[], Any], like: Array) -> Any:
    """Return what `make` gives now: floats, in lists, or an array of NumPy, that may be others the next time.

    Where work is recorded it is an array where `like` is, and floats have the dtype of that one.
    """
    recording = _under_way.get()
    return make() if recording is None else recording.fed(make, like)


def replaced(old: Array | None, new: Array) -> Array:
    """Return the array that the next time is to find in the place of `old`: the new one.

    Where work is recorded it is the old one, with the numbers of the new.
    """
    if _under_way.get() is None:
        return new
    if old is None:
        raise RuntimeError("what is kept from step to step has to be there before it is recorded")
    old[...] = new
    return old


class Recording:
    """What some work is fed, in order: found when it is rehearsed, and asked for again before each time it is done."""

    def __init__(self) -> None:
        self._feeds: list[tuple[Callable[[], Any], Array]] = []
        self._next: int | None = None

    @contextlib.contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Do work for the first time, and make an array for all that it is fed."""
        token = _under_way.set(self)
        try:
            yield
        finally:
            _under_way.reset(token)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Write work down, which is given those arrays and asks the host for nothing."""
        self._next = 0
        with self.rehearsing():
            yield

    def feed(self) -> None:
        """Fill the arrays with what the host has to say now."""
        for make, array in self._feeds:
            array[...] = _moved(make(), array)

    def fed(self, make: Callable[[], Any], like: Array) -> Array:
        """Return the array for what `make` gives."""
        if self._next is None:
            self._feeds.append((make, _moved(make(), like)))
            return self._feeds[-1][1]
        place, self._next = self._next, self._next + 1
        if place == len(self._feeds):
            raise RuntimeError("this asks the host for more than when it was rehearsed")
        array = self._feeds[place][1]
        self._feeds[place] = make, array
        return array


def _moved(numbers: Any, like: Array) -> Array:
    xp = array_api_compat.array_namespace(like)
    host = numbers if isinstance(numbers, np.ndarray) else np.asarray(numbers, dtype=float)
    dtype = like.dtype if host.dtype.kind == "f" else None
    return xp.asarray(host, dtype=dtype, device=array_api_compat.device(like))
