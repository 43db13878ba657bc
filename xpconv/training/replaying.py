"""Work on arrays that is done many times over: recorded as a CUDA graph where it can be, and then done by a launch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from array_api_compat import array_namespace

from xpconv.arrays.libraries import Array, on_device
from xpconv.cuda.graphs import Graph
from xpconv.execution.recording import Recording

Work = Callable[[Mapping[str, Array]], Any]


class Replayed:
    """A function of CuPy arrays, by name, that is recorded.

    The first call computes as ever, so that all that is kept from call to call is there. The second is a rehearsal: it
    finds out what the host feeds, and loads every kernel. The third is recorded, and from then on each is a launch. Its
    results are the same arrays each time, with other numbers. A call with other names, shapes or dtypes than the first
    one's is computed as ever. What cannot be recorded is too, with a warning that says why.

    Parameters
    ----------
    work : callable
        It may take numbers from the host by `execution.recording.fed` alone, and keep arrays by `replaced` alone.
    kept : callable
        Returns the arrays that are kept from call to call. When somebody puts other ones there, all begins anew.
    after : Replayed, optional
        Whose results this one is given: it is recorded where they stay. The arrays of any other are copied, each time,
        to where they were recorded.

    Attributes
    ----------
    replayed, hopeless : bool
        Whether the last call was a launch, and whether none will ever be.
    """

    def __init__(self, work: Work, kept: Callable[[], Iterable[Array]], after: Replayed | None = None) -> None:
        self.work, self.kept, self.after = work, kept, after
        self.replayed = self.hopeless = False
        self._begin()

    def _begin(self) -> None:
        self._form: dict[str, Any] = {}
        self._graph: Graph[Any] | None = None
        self._places: dict[str, Array] = {}
        self._recording: Recording | None = None
        self._arrays = list[Array]()

    def __call__(self, arrays: Mapping[str, Array]) -> Any:
        """Do the work."""
        self.replayed = False
        if not arrays or self.hopeless or (self.after is not None and self.after.hopeless):
            staying = self.after is not None and not self.after.hopeless
            return self._rehearsed(Recording(), arrays) if staying else self.work(arrays)
        if self._graph is not None and not _same(self._arrays, self.kept()):
            self._begin()
        form = {name: (tuple(array.shape), array.dtype) for name, array in arrays.items()}
        if not self._form:
            self._form = form
            return self.work(arrays)
        with on_device(next(iter(arrays.values()))):
            if form != self._form:
                return self._rehearsed(Recording(), arrays)
            if self._graph is None:
                if self._recording is None or not (self.after is None or self.after.replayed):
                    return self._rehearse(arrays)
                self._record(arrays, self._recording)
            return self(arrays) if self._graph is None else self._launched(self._graph, arrays)

    def _rehearse(self, arrays: Mapping[str, Array]) -> Any:
        before, self._recording = list(self.kept()), Recording()
        result = self._rehearsed(self._recording, arrays)
        self._arrays = list(self.kept())
        if not _same(before, self._arrays):
            self._give_up("it puts other arrays in the place of those that are kept")
        return result

    def _rehearsed(self, recording: Recording, arrays: Mapping[str, Array]) -> Any:
        with recording.rehearsing():
            return self.work(arrays)

    def _record(self, arrays: Mapping[str, Array], recording: Recording) -> None:
        self._places = dict(arrays) if self.after else {name: _copied(array) for name, array in arrays.items()}
        try:
            with recording.writing():
                self._graph = Graph(lambda: self.work(self._places))
        except (MemoryError, OSError, RuntimeError) as error:
            self._give_up(f"{type(error).__name__}: {error}")
        else:
            self._arrays = list(self.kept())

    def _give_up(self, reason: str) -> None:
        warnings.warn(f"this is computed without a CUDA graph: {reason}", stacklevel=4)
        self.hopeless = True

    def _launched(self, graph: Graph[Any], arrays: Mapping[str, Array]) -> Any:
        for name, place in self._places.items():
            if arrays[name] is not place:
                place[...] = arrays[name]
        assert self._recording is not None
        self._recording.feed()
        graph.launch()
        self.replayed = True
        return graph.result


def _same(some: Iterable[Array], others: Iterable[Array]) -> bool:
    some, others = list(some), list(others)
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _copied(array: Array) -> Array:
    return array_namespace(array).asarray(array, copy=True)
