"""Peak memory of a call: what is taken above what was before the first, inputs included in what was before.

On a GPU it is what its allocator has given out. Elsewhere it is what is resident, and each measurement has a process of
its own, forked from one that has imported all libraries and computed nothing. There the allocator gives every larger
block back at once, and the kernel is asked to forget earlier peaks.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import multiprocessing
import pathlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from xpconv.bench.clocks import Call
from xpconv.bench.contenders import Contender
from xpconv.bench.layers import NETWORKS, Case
from xpconv.bench.results import Result

STATUS, FORGET = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of the C library's mallopt


def measure(contenders: Sequence[Contender], results: Sequence[Result]) -> None:
    """Fill in the memory of results."""
    by_name = {contender.name: contender for contender in contenders}
    context = multiprocessing.get_context("forkserver")
    libraries = [library for contender in contenders for library in contender.libraries]
    context.set_forkserver_preload(["xpconv.bench.frameworks", *libraries])
    for result in results:
        task = by_name[result.contender], result.case, result.layout, result.direction
        if task[0].gauge is not None:
            result.memory = peak(*task)
            continue
        with contextlib.suppress(BrokenProcessPool), ProcessPoolExecutor(1, mp_context=context) as executor:
            result.memory = executor.submit(peak, *task).result()  # or it wanted more than there is


class Resident:
    """The memory of this process that is resident, as the system tells."""

    @staticmethod
    def known() -> bool:
        """Whether it does."""
        return FORGET.exists() and hasattr(ctypes.CDLL(None), "mallopt")

    def __init__(self) -> None:
        allocator = ctypes.CDLL(None)
        allocator.mallopt(M_MMAP_THRESHOLD, 1 << 16)
        allocator.mallopt(M_TRIM_THRESHOLD, 1 << 16)

    def used(self) -> int:
        """Return the bytes that are resident now."""
        return _resident("VmRSS")

    def most(self, call: Call) -> int:
        """Call, and return the most bytes that were resident meanwhile."""
        FORGET.write_text("5")
        call()
        return _resident("VmHWM")

    def release(self) -> None:
        """There is nothing: what is freed is given back at once."""


def peak(contender: Contender, case: Case, layout: str, direction: str) -> int | None:
    """Return the bytes of the second call's peak above those before the first; None where the system does not tell.

    The first call may compile, and start threads. What it leaves behind counts, for it is kept.
    """
    if contender.gauge is None and not Resident.known():
        return None
    gauge = contender.gauge or Resident()
    contender.make(_small(case), layout)[direction]()  # what a library sets up once is no part of it
    gauge.release()
    call = contender.make(case, layout)[direction]
    before = gauge.used()
    call()
    return max(0, gauge.most(call) - before)


def _small(case: Case) -> Case:
    """Return the same layer on one small image."""
    if case.operator in NETWORKS:
        return dataclasses.replace(case, shape=(1, *case.shape[1:]))
    size = (min(length, 2 * max(case.kernel, default=2)) for length in case.shape[2:])
    return dataclasses.replace(case, shape=(1, case.shape[1], *size))


def _resident(line: str) -> int:
    (found,) = (row for row in STATUS.read_text().splitlines() if row.startswith(line))
    return int(found.split()[1]) << 10
