"""Clocks: how the calls of one turn are timed, on the host and on a device.

A call to a GPU returns when its work is queued, which often takes the host longer than the device then takes to do it.
Between two events around such a call one would time the host. So the device is first given something to spin on, for
longer than the host needs, and the events enclose the device's work alone; the host's own time is kept beside it. A
training step is timed as its user has it, idle gaps included: many are queued, and waited for together.
"""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

BLOCK = 0.05  # seconds that the calls of one turn shall take
CALLS = 3, 15  # at least and at most as many of them
AHEAD = 2.5  # times as long as the host has needed for a call, the device spins before the next
LONGEST = 0.02  # seconds that it spins at most, for who waits within a call waits for that too

Call = Callable[[], tuple[Any, ...]]


class Timing(NamedTuple):
    """What a turn found: seconds of a call.

    Attributes
    ----------
    seconds : float
    host : float or None
        Those that the host needs to queue it, where that is not all there is to do.
    waited : float
        Share of the turn that threads were ready to run and had no processor.
    """

    seconds: float
    host: float | None = None
    waited: float = 0.0


class Clock(Protocol):
    """What times turns, and how long it must be silent before each."""

    silence: ClassVar[float]

    def turn(self, call: Call) -> Timing:
        """Time the calls of one turn."""


class Device(Protocol):
    """What a device does for a clock, in the order in which it is asked."""

    def event(self) -> Any:
        """Make something to record."""

    def spin(self, seconds: float) -> None:
        """Do nothing useful for so long."""

    def happened(self, event: Any) -> bool:
        """Whether it has come to an event that was recorded."""

    def between(self, start: Any, stop: Any) -> float:
        """Return the seconds from one event to another, once both have happened."""

    def synchronize(self) -> None:
        """Wait until all is done."""


class OnHost:
    """Calls one by one, each of which has nothing under way when it returns; the median of them.

    The silence is there because the threads of OpenBLAS, OpenMP and others spin for up to 140 ms after their work is
    done, and would take the processors from whoever comes next.
    """

    silence: ClassVar[float] = 0.14

    def turn(self, call: Call) -> Timing:
        """Time the calls of one turn."""
        count = _count(BLOCK, took(call))
        start, before = time.perf_counter(), _waiting()
        seconds = statistics.median(took(call) for _ in range(count))
        return Timing(seconds, None, (_waiting() - before) / (time.perf_counter() - start))


@dataclass(frozen=True)
class OnDevice:
    """Calls one by one, and of each what the device does for it; the median of those that the host was ahead of."""

    device: Device
    silence: ClassVar[float] = 0.0
    block: ClassVar[float] = 0.005

    def turn(self, call: Call) -> Timing:
        """Time the calls of one turn."""
        self.device.synchronize()
        hosts = [took(call)]
        self.device.synchronize()
        found: dict[bool, list[float]] = {True: [], False: []}
        begun, count = time.perf_counter(), CALLS[0]
        while len(hosts) <= count:
            start, stop = self.device.event(), self.device.event()
            self.device.spin(min(AHEAD * hosts[-1], LONGEST))
            start.record()
            hosts.append(took(call))
            stop.record()
            ahead = not self.device.happened(start)
            stop.synchronize()
            found[ahead].append(self.device.between(start, stop))
            if len(hosts) == 2:
                count = _count(self.block, time.perf_counter() - begun)
        return Timing(statistics.median(found[True] or found[False]), statistics.median(hosts))


@dataclass(frozen=True)
class Queued:
    """Many calls, queued one behind the other and waited for together: what one takes when nobody looks at it."""

    device: Device
    silence: ClassVar[float] = 0.0
    calls: ClassVar[int] = 10  # times as many as else

    def turn(self, call: Call) -> Timing:
        """Time the calls of one turn."""
        self.device.synchronize()
        count = self.calls * _count(BLOCK / self.calls, took(call, self.device.synchronize))
        start = time.perf_counter()
        for _ in range(count):
            call()
        queued = time.perf_counter()
        self.device.synchronize()
        return Timing((time.perf_counter() - start) / count, (queued - start) / count)


def took(*calls: Callable[[], Any]) -> float:
    """Return the seconds that calls take until they return."""
    start = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - start


def _count(block: float, seconds: float) -> int:
    """Return how many calls to time, of which each takes so long."""
    return min(max(CALLS[0], int(block / max(seconds, 1e-9))), CALLS[1])


def _waiting() -> float:
    """Return the seconds that all threads of this process have been ready to run and waited; 0 where nobody counts."""
    nanoseconds = 0
    for thread in pathlib.Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has just ended
            nanoseconds += int(thread.read_text().split()[1])
    return nanoseconds / 1e9
