"""Running a compiled loop over its targets, in bands, on the library's own threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.compiled.meetings import Meetings
from xpconv.workers import run

Host = np.ndarray[Any, Any]
BAND = 1 << 21  # bytes that a band reads and writes, at least: less is done before another thread has woken up


def parts(*arrays: Host) -> int:
    """Into how many bands a sweep over these arrays is cut."""
    return max(1, sum(a.nbytes for a in arrays) // BAND)


def sweep(
    function: Callable[..., None],
    plan: Meetings,
    sources: tuple[Host, ...],
    targets: tuple[Host, ...],
    *more: object,
    samples: bool = False,
) -> None:
    """Call a loop on bands of rows of the targets, or of whole samples; arrays go in as (N, rows, width, C)."""
    arrays = [_rows(a, plan.source) for a in sources] + [_rows(a, plan.target) for a in targets]
    jobs = len(arrays[0]) * (1 if samples else plan.target[0])
    bands = min(parts(*arrays), max(1, jobs))
    starts = [i * jobs // bands for i in range(bands + 1)]
    run(lambda i: function(*arrays, plan, starts[i], starts[i + 1], *more), range(bands))


def _rows(array: Host, shape: tuple[int, int]) -> Host:
    return np.ascontiguousarray(array).reshape(array.shape[0], *shape, array.shape[-1])
