"""Weights laid out as loops read them, in blocks of filters, whichever way they lay before."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from xpconv.compiled.calls import taken
from xpconv.compiled.compiler import loop
from xpconv.compiled.counters import Table
from xpconv.compiled.lines import load, store
from xpconv.compiled.sweeps import shares
from xpconv.compiled.turns import claim, share

Host = np.ndarray[Any, Any]
SIDE = 16  # of a tile that is copied at a time: numbers of a cache line, whichever way they lie


def in_blocks(weight: Host, width: int) -> Host:
    """(*kernel, C, O) to (B, taps*C, width): filters in blocks, the last one filled up with zeros.

    Weights of the opposite direction lie with their last axes exchanged, and NumPy would copy them number by number
    from as many pages of memory.
    """
    *kernel, channels, filters = weight.shape
    *outer, down, along = (stride // weight.itemsize for stride in weight.strides)
    steps = (np.arange(count) * stride for count, stride in zip(kernel, outer, strict=True))
    starts = functools.reduce(np.add.outer, steps, np.zeros((), np.int64)).reshape(-1)
    laid = np.zeros((math.ceil(filters / width), len(starts) * channels, width), weight.dtype)
    jobs, sides = len(starts) * math.ceil(channels / SIDE), (channels, filters, width)
    share(_lay, jobs, min(jobs, shares(weight, laid)), weight, laid.reshape(-1), starts, sides, (down, along))
    return laid


@loop
def _lay(board: Table, mine: int, given: Any, kind: Any) -> None:
    x, y, starts, (channels, filters, width), (down, along) = taken(given, kind)
    depth, tiles, one = len(starts) * channels, (channels + SIDE - 1) // SIDE, (None,)
    job = claim(board, mine)
    while job >= 0:
        tap, tile = divmod(job, tiles)
        for block in range(0, filters, width):
            for first in range(block, min(block + width, filters), SIDE):
                for c in range(tile * SIDE, min(channels, (tile + 1) * SIDE)):
                    source, place = starts[tap] + c * down, block * depth + (tap * channels + c) * width - block
                    for o in range(first, min(first + SIDE, block + width, filters)):
                        store(y, place + o, load(x, source + o * along, one))
        job = claim(board, mine)
