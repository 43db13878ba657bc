"""Running a compiled loop over its targets, shared out to the library's own threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.compiled.lines import width_for
from xpconv.compiled.meetings import Meetings
from xpconv.compiled.turns import share
from xpconv.execution.workers import lanes

Host = np.ndarray[Any, Any]
ALONE = 1 << 18  # bytes that are read and written before another thread has woken up


def sweep(
    function: Callable[..., None],
    plan: Meetings,
    sources: tuple[Host, ...],
    targets: tuple[Host, ...],
    *more: object,
    jobs: int | None = None,
) -> None:
    """Call a loop on shares of its jobs, the rows of all targets if not told.

    It is given the arrays (N, ..., C) flat, how many channels they have and in what lines to take them, the plan, and
    what tells which jobs are claimed for it.
    """
    channels = sources[0].shape[-1]
    arrays = [np.ascontiguousarray(array).reshape(-1) for array in (*sources, *targets)]
    width = width_for(channels, max(array.itemsize for array in arrays))
    jobs = len(sources[0]) * plan.target[0] if jobs is None else jobs
    shares = 1 if sum(array.nbytes for array in arrays) < ALONE else max(1, min(lanes(), jobs))
    share(lambda turn: function(*arrays, channels, width, plan, turn, *more), jobs, shares)
