"""Running a compiled loop over its targets, in bands, on the library's own threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.compiled.meetings import Meetings
from xpconv.execution.workers import lanes, run

Host = np.ndarray[Any, Any]
ALONE = 1 << 20  # bytes that are read and written before another thread has woken up
BANDS = 4  # for each thread: who is late takes fewer of them


def sweep(
    function: Callable[..., None],
    plan: Meetings,
    sources: tuple[Host, ...],
    targets: tuple[Host, ...],
    *more: object,
    jobs: int | None = None,
) -> None:
    """Call a loop on bands of its jobs, the rows of all targets if not told; arrays go in as (N, rows, width, C)."""
    arrays = [_rows(a, plan.source) for a in sources] + [_rows(a, plan.target) for a in targets]
    jobs = len(arrays[0]) * plan.target[0] if jobs is None else jobs
    alone = sum(a.nbytes for a in arrays) < ALONE
    bands = 1 if alone else max(1, min(BANDS * lanes(), jobs))
    starts = [i * jobs // bands for i in range(bands + 1)]
    run(lambda i: function(*arrays, plan, starts[i], starts[i + 1], *more), range(bands))


def _rows(array: Host, shape: tuple[int, int]) -> Host:
    return np.ascontiguousarray(array).reshape(array.shape[0], *shape, array.shape[-1])
