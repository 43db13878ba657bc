"""Choices by measurement, for those who ask: every way is timed on the arrays of the first call, the fastest is kept.

Measuring is what the `model` does without, so that results repeat from run to run. Here they repeat once
the choices are kept: in the process, or in a file.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pathlib
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from types import MappingProxyType
from typing import Any

from array_api_compat import device

from xpconv.algorithms import Algorithm, Plan
from xpconv.arrays.libraries import Array, device_name, namespace_of, synchronize
from xpconv.cuda import cudnn
from xpconv.execution.workers import lanes
from xpconv.selection.choices import CUDNN, KERNELS, SUMS, Choices, Task, add, candidates, read
from xpconv.selection.model import ALGORITHMS, BY_KERNELS, choose, rooms

APART = 5e-5  # root mean squares of the model's result, the error that it may have itself
ROUNDS = 3, 15  # at least and at most
ENOUGH = 0.3  # seconds of rounds
HOPELESS = 3  # times the time of the fastest
WORTH = 0.97  # of the time of the model's choice, for another to take its place

Call = Callable[[], Array]

_kept: Choices = {}
_devices: dict[str, str] = {}
_lock = threading.RLock()  # one measures at a time; who waits for it may find its task done
_open = 0


@contextlib.contextmanager
def tune(file: str | os.PathLike[str] | None = None) -> Iterator[Mapping[Task, str]]:
    """Measure which algorithm is fastest, in this block, and keep to it afterwards.

    The first time that "auto" is to choose for a task, such as a convolution of these shapes, every way to compute it
    is timed on the arrays at hand. What is fastest stays chosen, in this block and after it, until `untune`; what is
    not measured is left to the model. Blocks may be nested, and all threads of the process take part in one.

    Parameters
    ----------
    file : path, optional
        JSON that keeps the choices. Those that it has for this machine are taken, so that results repeat bit for bit,
        and those that are new are added at the end. ``with xpconv.tune(file): pass`` measures nothing.

    Yields
    ------
    mapping
        All choices that hold now, by task.

    Raises
    ------
    OSError
        When the file cannot be read or written, or there is no directory for it.
    ValueError
        When it is another kind of file, damaged, or of other algorithms than there are. It is left as it is.

    Notes
    -----
    What `conv` promises of its errors holds: float64, complex and whole numbers are only added up in another order,
    Winograd's F(4, 3) is left out on more than two axes, and no result is taken that differs from that of the model's
    choice by more than 5e-5 root mean squares. Another way has to be 3 % faster to be taken.

    While a CUDA graph is being captured nothing can be timed, and what is kept already holds. What `jax.jit` compiles
    is no sequence of calls that could be timed, and left to the model.
    """
    global _open
    path = None if file is None else pathlib.Path(file)
    if path is not None:
        _kept.update(read(path))
    with _lock:
        _open += 1
    try:
        yield MappingProxyType(_kept)
    finally:
        with _lock:
            _open -= 1
        if path is not None:
            add(path, dict(_kept))


def untune() -> None:
    """Forget what `tune` has kept, so that the model chooses; files stay as they are."""
    _kept.clear()


def way_to_convolve(
    name: str, x: Array, weight: Array, bias: Array | None, plan: Plan, *, cached: bool = False
) -> Algorithm:
    """Return the algorithm of this name or, for "auto", the one that is fastest as far as is known."""
    filters = weight.shape[-1]
    if name != "auto" or not (_kept or _open):
        return choose(name, x, filters, plan, cached=cached)

    def by(way: Algorithm) -> Call:
        laid = way.prepare(weight, plan) if cached else None
        return lambda: way.convolve(x, weight, bias, plan, laid)

    return _fastest("convolve, weight prepared" if cached else "convolve", x, filters, plan, by, cached=cached)


def way_to_adjoin(name: str, dy: Array, channels: int, plan: Plan, adjoined: Callable[[Algorithm], Array]) -> Algorithm:
    """Return the algorithm for the gradient of so many channels, which `adjoined` computes."""
    if name != "auto" or not (_kept or _open):
        return choose(name, dy, channels, plan)
    return _fastest("input gradient", dy, channels, plan, lambda way: lambda: adjoined(way))


def way_to_correlate(name: str, x: Array, dy: Array, plan: Plan) -> Algorithm:
    """Return the algorithm for the gradient of a weight."""
    filters = dy.shape[-1]
    if name != "auto" or not (_kept or _open):
        return choose(name, x, filters, plan)
    return _fastest("weight gradient", x, filters, plan, lambda way: lambda: way.weight_gradient(x, dy, plan))


def _fastest(
    work: str, x: Array, filters: int, plan: Plan, by: Callable[[Algorithm], Call], *, cached: bool = False
) -> Algorithm:
    """Return the algorithm that is kept for a task, or found now, or the model's."""
    ways = rooms(x, filters, plan)
    where = _library(x, ways), _device(device(x)), _dtype(namespace_of(x), x.dtype)
    task = Task(work, *where, tuple(x.shape), filters, plan, lanes())
    kept = _kept.get(task)
    if kept is not None:
        return ways[kept]
    usual = choose("auto", x, filters, plan, cached=cached)
    names = [name for name in candidates(task) if ways[name].supports(plan.window, plan.groups)]
    first = next((name for name in names if ways[name] == usual), None)
    if not _open or first is None or len(names) == 1 or 0 in x.shape or not synchronize(x):
        return usual
    with _lock:
        found = _kept.get(task) or measured({name: functools.partial(by, ways[name]) for name in names}, first)
        _kept[task] = found
    return ways[found]


def measured(trials: Mapping[str, Callable[[], Call]], usual: str) -> str:
    """Return the name of the trial that is fastest, or of the usual one where that is about as fast.

    A trial is made ready by calling it. One that fails, as for want of memory, is out, unless it is the usual one.
    """
    calls = {usual: trials[usual]()}
    wanted = calls[usual]()
    for name in [name for name in trials if name != usual]:
        with contextlib.suppress(MemoryError, RuntimeError, ValueError):
            call = trials[name]()
            made = call()
            if name in SUMS or _close(made, wanted):
                calls[name] = call
    synchronize(wanted)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    began = perf_counter()
    for turn in range(ROUNDS[1]):
        for name in calls if turn % 2 else reversed(calls):
            synchronize(calls[name]())  # wakes threads, fills caches
            start = perf_counter()
            synchronize(calls[name]())
            seconds[name].append(perf_counter() - start)
        best = min(min(seconds[name]) for name in calls)
        calls = {name: call for name, call in calls.items() if min(seconds[name]) <= HOPELESS * best}
        if len(calls) == 1 or (turn + 1 >= ROUNDS[0] and perf_counter() - began > ENOUGH):
            break
    medians = {name: statistics.median(seconds[name]) for name in calls}
    found = min(medians, key=medians.__getitem__)
    return found if medians[found] <= WORTH * medians.get(usual, math.inf) else usual


def _close(a: Array, b: Array) -> bool:
    """Whether two results differ by no more than their rounding explains."""
    xp = namespace_of(a)
    limit = max(APART, 8 * float(xp.finfo(a.dtype).eps))
    a, b = (xp.astype(array, xp.float32, copy=False) for array in (a, b))
    return bool(xp.max(xp.abs(a - b)) <= limit * xp.sqrt(xp.mean(b * b)))


def _library(x: Array, ways: Mapping[str, Algorithm]) -> str:
    """Name the library that has this array, its version, and what computes beside it."""
    name = namespace_of(x).__name__.removeprefix("array_api_compat.").partition(".")[0]
    beside = "" if ways is ALGORITHMS else " and Numba"
    if ways is BY_KERNELS:
        beside = KERNELS + (CUDNN if cudnn.available() else "")
    return f"{name} {getattr(sys.modules[name], '__version__', '')}{beside}"


def _device(place: Any) -> str:
    """Name a device; asked once for each, by what it is printed as, since those of CuPy have no hash."""
    printed = repr(place)
    if printed not in _devices:
        _devices[printed] = device_name(place)
    return _devices[printed]


@functools.lru_cache
def _dtype(xp: Any, dtype: Any) -> str:
    """Name a dtype of a library without the library's name."""
    return str(dtype).rpartition(".")[2]


def _in_child() -> None:
    """Hold nothing in a forked child that its parent's threads held."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
