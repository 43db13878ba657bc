"""The GPU as CuPy and PyTorch each have it: its time, and the memory that their allocators have given out."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from xpconv.bench.clocks import Call

HERTZ = 2e9  # of a GPU, about
SPIN = """
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""


@functools.cache
def _spin() -> Any:
    return importlib.import_module("cupy").RawKernel(SPIN, "spin")


class CupyDevice:
    """What CuPy has on its current stream and in its pool."""

    @property
    def _cupy(self) -> Any:
        return importlib.import_module("cupy")

    def event(self) -> Any:
        """Make something to record."""
        return self._cupy.cuda.Event()

    def spin(self, seconds: float) -> None:
        """Do nothing useful for so long."""
        _spin()((1,), (1,), (np.int64(seconds * HERTZ),))

    def happened(self, event: Any) -> bool:
        """Whether it has come to an event that was recorded."""
        return bool(event.done)

    def between(self, start: Any, stop: Any) -> float:
        """Return the seconds from one event to another, once both have happened."""
        return float(self._cupy.cuda.get_elapsed_time(start, stop)) / 1e3

    def synchronize(self) -> None:
        """Wait until all is done."""
        self._cupy.cuda.Device().synchronize()

    def used(self) -> int:
        """Return the bytes that are out now."""
        return int(self._cupy.get_default_memory_pool().used_bytes())

    def most(self, call: Call) -> int:
        """Call, and return the most bytes that were out meanwhile."""
        used, taken = self.used, [self.used()]

        class Watch(self._cupy.cuda.MemoryHook):  # type: ignore[misc,name-defined]
            def malloc_postprocess(self, **_: Any) -> None:
                taken.append(used())

        with Watch():
            call()
        return max(taken)

    def release(self) -> None:
        """Give back what is kept and not out."""
        self._cupy.get_default_memory_pool().free_all_blocks()


class TorchDevice:
    """What PyTorch has on its current stream and in its allocator."""

    @property
    def _cuda(self) -> Any:
        return importlib.import_module("torch").cuda

    def event(self) -> Any:
        """Make something to record."""
        return self._cuda.Event(enable_timing=True)

    def spin(self, seconds: float) -> None:
        """Do nothing useful for so long."""
        self._cuda._sleep(int(seconds * HERTZ))

    def happened(self, event: Any) -> bool:
        """Whether it has come to an event that was recorded."""
        return bool(event.query())

    def between(self, start: Any, stop: Any) -> float:
        """Return the seconds from one event to another, once both have happened."""
        return float(start.elapsed_time(stop)) / 1e3

    def synchronize(self) -> None:
        """Wait until all is done."""
        self._cuda.synchronize()

    def used(self) -> int:
        """Return the bytes that are out now."""
        return int(self._cuda.memory_allocated())

    def most(self, call: Call) -> int:
        """Call, and return the most bytes that were out meanwhile."""
        self._cuda.reset_peak_memory_stats()
        call()
        return int(self._cuda.max_memory_allocated())

    def release(self) -> None:
        """Give back what is kept and not out."""
        self._cuda.empty_cache()
