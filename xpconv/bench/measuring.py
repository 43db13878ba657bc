"""Timing side by side: in one process, in turns, in an order drawn anew each round.

Everyone brings the clock that its calls need, and garbage is not collected meanwhile. What is computed is checked
before it is timed, and there where it is: from a device come numbers, and no arrays.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import statistics
import time
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from xpconv.arrays.libraries import Array
from xpconv.bench import problems
from xpconv.bench.clocks import Call, Clock, Timing
from xpconv.bench.contenders import BOTH, FORWARD, Contender
from xpconv.bench.frameworks import PyTorch
from xpconv.bench.layers import NETWORKS, Case
from xpconv.bench.results import Result
from xpconv.execution.blas import openblas
from xpconv.execution.workers import processors


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
    for gauge in filter(None, dict.fromkeys(contender.gauge for contender in contenders)):
        gauge.release()  # what the layer before has left
    made = {
        (contender, layout): contender.make(case, layout)
        for contender in contenders
        for layout in contender.layouts(case)
    }
    wanted = expected(case, contenders[0])
    results = []
    for direction in (FORWARD, BOTH):
        if not all(direction in calls for (contender, _), calls in made.items() if contender in rivals):
            continue
        entrants = {key: calls[direction] for key, calls in made.items() if direction in calls}
        errors = [_error(contender, layout, call, wanted) for (contender, layout), call in entrants.items()]
        clocks = [contender.clock(case) for contender, _ in entrants]
        timings = in_turns(list(entrants.values()), clocks, rounds, rng)
        for (contender, layout), error, turns in zip(entrants, errors, timings, strict=True):
            seconds, hosts, waited = map(list, zip(*turns, strict=True))
            found = Result(case, direction, contender.name, layout, seconds, error, statistics.fmean(waited))
            found.precision, found.host = contender.precision, None if None in hosts else statistics.median(hosts)
            results.append(found)
    return results


def expected(case: Case, contender: Contender) -> Sequence[Sequence[Array]]:
    """Return what must come out of two calls, in float64: of an operator twice the same, of a network two steps."""
    if case.operator in NETWORKS:
        return [[contender.xp.asarray(array) for array in step] for step in PyTorch().two_steps(case)]
    return [problems.expected(case, contender.problem(case))] * 2


def _error(contender: Contender, layout: str, call: Call, wanted: Sequence[Sequence[Array]]) -> float:
    """Return how far two calls are off: the worst of all outputs."""
    errors = []
    for arrays in wanted:
        for a, b in zip(contender.arrays(call(), layout), arrays, strict=False):
            errors.append(float(abs(a - b).max() / abs(b).max()) if a.shape == b.shape else math.inf)
    return float(np.max(errors))  # not a number, if one is none


def in_turns(
    calls: Sequence[Call], clocks: Sequence[Clock], rounds: int, rng: np.random.Generator
) -> list[list[Timing]]:
    """Time calls against each other, each by its clock; return for each of them what every round has found."""
    timings: list[list[Timing]] = [[] for _ in calls]
    with _no_collection():
        for _ in range(rounds):
            for i in rng.permutation(len(calls)).tolist():
                time.sleep(clocks[i].silence)
                calls[i]()  # wakes threads, fills caches
                timings[i].append(clocks[i].turn(calls[i]))
    return timings


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
