"""Running a compiled loop over its targets, shared out to the library's own threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpconv.compiled.turns import share
from xpconv.execution.workers import lanes

Host = np.ndarray[Any, Any]
ALONE = 1 << 17  # bytes that are read and written before another thread has come to help
WORTH = 4  # multiply-adds that take as long as a byte


def shares(*arrays: Host, work: int = 0) -> int:
    """Choose how many threads sweep over arrays, with so many multiply-adds."""
    return 1 if sum(array.nbytes for array in arrays) + work // WORTH < ALONE else lanes()


def sweep(function: Callable[..., None], arrays: Sequence[Host], jobs: int, *more: object, work: int = 0) -> None:
    """Call a loop on shares of its jobs: on all arrays, flat, and on more."""
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    share(function, jobs, min(jobs, shares(*arrays, work=work)), *flat, *more)
