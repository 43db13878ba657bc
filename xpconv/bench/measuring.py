"""Timing side by side: in one process, in turns, in an order drawn anew each round, with silence between.

The silence is there because the threads of OpenBLAS, OpenMP and others spin for up to 140 ms after their work is done,
and would take the processors from whoever comes next. Calls are timed one by one; garbage is not collected meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from xpconv.bench import problems
from xpconv.bench.contenders import BOTH, FORWARD, Call, Contender
from xpconv.bench.frameworks import PyTorch
from xpconv.bench.layers import NETWORKS, Case
from xpconv.bench.results import Result
from xpconv.execution.blas import openblas
from xpconv.execution.workers import processors

SILENCE = 0.14  # seconds
BLOCK = 0.05  # seconds that the calls of one turn shall take
CALLS = 3, 15  # at least and at most as many of them

Clock = Callable[[Call], float]


def hold_threads(count: int | None) -> int:
    """Give this process, and all that it loads from now on, this many threads; as many as xpconv takes if None.

    What keeps every library to it is that the process is bound to so many processors; NPROC serves JAX where it cannot
    be bound.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    count = len(processors()) if count is None else count
    if not 0 < count <= len(usable):
        raise ValueError(f"threads is {count}; give 1 to {len(usable)}, the processors that there are")
    if count != len(processors()):
        os.environ["XPCONV_NUM_THREADS"] = str(count)
        processors.cache_clear()
    if count < len(usable):
        os.environ["NPROC"] = str(count)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, usable[:count])
    blas = openblas()
    if blas is not None:
        blas.set_threads(count)
    return count


def measure(
    case: Case, contenders: Sequence[Contender], rivals: Collection[Contender], rounds: int, rng: np.random.Generator
) -> list[Result]:
    """Check and time all contenders that compute this case, in all their layouts, where the rivals among them do."""
    made = {
        (contender, layout): contender.make(case, layout)
        for contender in contenders
        for layout in contender.layouts(case)
    }
    wanted = expected(case)
    results = []
    for direction in (FORWARD, BOTH):
        if not all(direction in calls for (contender, _), calls in made.items() if contender in rivals):
            continue
        entrants = {key: calls[direction] for key, calls in made.items() if direction in calls}
        errors = [_error(contender, layout, call, wanted) for (contender, layout), call in entrants.items()]
        clocks = [contender.timed for contender, _ in entrants]
        seconds, waited = in_turns(list(entrants.values()), rounds, rng, clocks)
        for (contender, layout), error, times, share in zip(entrants, errors, seconds, waited, strict=True):
            found = Result(case, direction, contender.name, layout, times, error, share, precision=contender.precision)
            results.append(found)
    return results


def expected(case: Case) -> Sequence[Sequence[problems.Host]]:
    """Return what must come out of two calls, in float64: of an operator twice the same, of a network two steps."""
    return PyTorch().two_steps(case) if case.operator in NETWORKS else [problems.expected(case)] * 2


def _error(
    contender: Contender, layout: str, call: Callable[[], Sequence[Any]], wanted: Sequence[Sequence[problems.Host]]
) -> float:
    """Return how far two calls are off: the worst of all outputs."""
    errors = []
    for arrays in wanted:
        for a, b in zip(contender.hosts(call(), layout), arrays, strict=False):
            errors.append(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) if a.shape == b.shape else math.inf)
    return float(np.max(errors))  # not a number, if one is none


def in_turns(
    calls: Sequence[Call], rounds: int, rng: np.random.Generator, clocks: Sequence[Clock] | None = None
) -> tuple[list[list[float]], list[float]]:
    """Time calls against each other, each by its clock if there are such.

    Returns
    -------
    seconds : list of list of float
        For each of the calls the median of every round.
    waited : list of float
        For each of them the share of the time that threads of this process waited for a processor.
    """
    clocks = [Contender().timed] * len(calls) if clocks is None else clocks
    seconds: list[list[float]] = [[] for _ in calls]
    waited, elapsed = [0.0] * len(calls), [0.0] * len(calls)
    with _no_collection():
        for _ in range(rounds):
            for i in rng.permutation(len(calls)).tolist():
                time.sleep(SILENCE)
                calls[i]()  # wakes threads, fills caches
                count = min(max(CALLS[0], int(BLOCK / max(clocks[i](calls[i]), 1e-9))), CALLS[1])
                start, before = time.perf_counter(), _waiting()
                seconds[i].append(statistics.median(clocks[i](calls[i]) for _ in range(count)))
                waited[i] += _waiting() - before
                elapsed[i] += time.perf_counter() - start
    return seconds, [share / total for share, total in zip(waited, elapsed, strict=True)]


def _waiting() -> float:
    """Return the seconds that all threads of this process have been ready to run and waited; 0 where nobody counts."""
    nanoseconds = 0
    for thread in pathlib.Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has just ended
            nanoseconds += int(thread.read_text().split()[1])
    return nanoseconds / 1e9


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
