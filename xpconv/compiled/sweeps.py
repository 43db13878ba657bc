"""Running a compiled loop over its targets, shared out to the library's own threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpconv.compiled.turns import share
from xpconv.execution.workers import lanes

Host = np.ndarray[Any, Any]
ALONE = 1 << 18  # bytes that are read and written before another thread has woken up


def sweep(function: Callable[..., None], arrays: Sequence[Host], jobs: int, *more: object) -> None:
    """Call a loop on shares of its jobs: on all arrays, flat, on what tells it which jobs are its own, and on more."""
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    shares = 1 if sum(array.nbytes for array in flat) < ALONE else max(1, min(lanes(), jobs))
    share(lambda turn: function(*flat, turn, *more), jobs, shares)
