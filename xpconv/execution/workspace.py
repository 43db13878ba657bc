"""Memory that tasks work in, on NumPy: taken from one buffer of the thread, and taken again by the next task.

Fresh memory costs more than what is written to it: the system hands it out page by page, cleared, and lets one thread
at a time ask for it. An array from `empty` is good until the task that asked for it is done; outside of tasks it is an
array like any other.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

WORKSPACE = 1 << 28  # bytes that the intermediate arrays of an operator take at most, unless it is told otherwise
KEPT = 1 << 25  # bytes that a thread keeps at most
LINE = 64  # bytes of a cache line, on which every array begins


class _Buffer(threading.local):
    memory = np.empty(0, np.uint8)
    start = 0  # of the first cache line
    used = 0
    wanted = 0  # by the task that wanted most
    tasks = 0  # under way, one inside the other


_buffer = _Buffer()


def in_task(function: Callable[[T], object], task: T) -> None:
    """Call the function; what it takes from the buffer is free again afterwards."""
    buffer = _buffer
    mark = buffer.used
    if not buffer.tasks and buffer.memory.size < buffer.wanted + LINE:
        buffer.memory = np.empty(buffer.wanted + LINE, np.uint8)
        buffer.start = -buffer.memory.ctypes.data % LINE
    buffer.tasks += 1
    try:
        function(task)
    finally:
        buffer.tasks -= 1
        buffer.used = mark


def empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Make an array that is not filled, in the thread's buffer where a task is under way and there is room."""
    buffer = _buffer
    if not buffer.tasks:
        return np.empty(shape, dtype)
    first, size = buffer.used, math.prod(shape) * dtype.itemsize
    after = first + size + -size % LINE
    if after <= KEPT:
        buffer.used = after
        buffer.wanted = max(buffer.wanted, after)
        if after + LINE <= buffer.memory.size:
            return np.ndarray(shape, dtype, buffer.memory, buffer.start + first)
    return np.empty(shape, dtype)


def apart(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Make an array like `empty`, whose parts along the first axis lie an odd number of cache lines apart.

    Who works on the same place of all parts would find them in few places of a cache if that were a power of two.
    """
    numbers = math.prod(shape[1:])
    lines = -(-numbers * dtype.itemsize // LINE) | 1
    return empty((shape[0], lines * LINE // dtype.itemsize), dtype)[:, :numbers].reshape(shape)


@contextlib.contextmanager
def scratch() -> Iterator[None]:
    """Give back at the end what is taken from the buffer meanwhile."""
    mark = _buffer.used
    try:
        yield
    finally:
        _buffer.used = mark


def memory() -> tuple[np.ndarray[Any, Any] | None, int]:
    """Return the thread's buffer, where a task is under way, and how much of it is taken."""
    return (_buffer.memory if _buffer.tasks else None), _buffer.used
