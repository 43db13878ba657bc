"""What a kernel is told, in whole numbers: how many threads, which windows, and where an array's elements lie.

The structures here are those of ``kernels/common.cuh``, field for field. There are no arrays, so all of it is tested
without a GPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from xpconv.windows import Axis, Window

THREADS = 256  # of a block
PACK = 16  # bytes that a thread reads at once
AXES = 3
MOST = 2**31 - 1  # threads of a launch: what Divider divides

DIVIDER = np.dtype([("divisor", np.uint32), ("multiplier", np.uint32), ("shift", np.uint32)])
AXIS = np.dtype(
    [(name, np.int32) for name in ("size", "kernel", "stride", "before", "after", "dilation", "output")]
    + [(name, DIVIDER) for name in ("by_size", "by_kernel", "by_stride", "by_output")]
)
WINDOWS = np.dtype(
    [("strides", np.int64, (2 + AXES,))]
    + [(name, np.int32) for name in ("threads", "batch", "channels", "width", "share")]
    + [(name, DIVIDER) for name in ("by_packs", "by_group_packs", "by_width", "by_batch")]
    + [("axes", AXIS, (AXES,))],
    align=True,
)
FILTERS = np.dtype([("strides", np.int64, (AXES + 2,)), ("count", np.int32)], align=True)
PLACES = np.dtype([("strides", np.int64, (1 + AXES,))])
ROWS = np.dtype([("packs", np.int64), ("threads", np.int32), ("row", np.int32)])
MEAN = np.dtype([("divisor", np.int32), ("with_padding", np.int32)])

Struct = np.ndarray[tuple[()], np.dtype[np.void]]


def divider(divisor: int) -> tuple[int, int, int]:
    """Return divisor, multiplier and shift, with which ``((n*multiplier >> 32) + n) >> shift`` is ``n // divisor``.

    It is right for n below 2**31.

    References
    ----------
    Granlund and Montgomery, "Division by invariant integers using multiplication" (1994), figure 4.1.
    """
    if not 0 < divisor <= MOST:
        raise ValueError(f"divisor is {divisor}; give a number from 1 to {MOST}")
    shift = (divisor - 1).bit_length()
    return divisor, (2**32 * (2**shift - divisor)) // divisor + 1, shift


def launch(threads: int) -> tuple[tuple[int], tuple[int]]:
    """Return the grid and the block that so many threads make, the last block being filled up."""
    return (math.ceil(threads / THREADS),), (THREADS,)


def pack(itemsize: int, *counts: int) -> int:
    """Return how many neighbouring numbers to move at once: all counts (of channels, strides, addresses) allow it."""
    width = PACK // itemsize
    return width if all(count % width == 0 for count in counts) else 1


@functools.lru_cache(maxsize=4096)
def windows(
    window: Window,
    threads: int,
    *,
    batch: int,
    channels: int,
    groups: int = 1,
    pack: int = 1,
    strides: tuple[int, ...] | None = None,
    slices: int = 1,
) -> Struct:
    """Tell a kernel of windows on an array (N, *size, C); the same is told again of the same, and not to be changed.

    Parameters
    ----------
    window : Window
        Over at most three axes.
    threads : int
        Results, each made by one thread.
    batch, channels, groups : int
        Of the array.
    pack : int
        Channels that a thread takes at once, of which a group has a multiple.
    strides : tuple of int, optional
        From one element to the next along each axis of the array, counted in elements; those of an array that lies in
        memory in the order of its axes if not given.
    slices : int
        Into how many slices a sum over all windows is cut.

    Raises
    ------
    ValueError
        When there are more axes, threads, or windows than a kernel counts.
    """
    missing = AXES - len(window.axes)
    if missing < 0:
        raise ValueError(f"there are {len(window.axes)} spatial axes; a kernel takes at most {AXES}")
    count = batch * math.prod(window.output)
    if max(threads, count, batch * math.prod(window.size)) > MOST:
        raise ValueError(f"{max(threads, count)} threads or windows are more than {MOST}; give fewer images at a time")
    strides = contiguous((batch, *window.size, channels)) if strides is None else strides
    told = np.zeros((), WINDOWS)
    told["strides"] = (strides[0], *(0,) * missing, *strides[1:])
    told["threads"], told["batch"], told["channels"], told["width"] = threads, batch, channels, channels // groups
    told["share"] = math.ceil(count / slices)
    told["by_packs"] = divider(max(1, channels // pack))
    told["by_group_packs"] = divider(max(1, channels // groups // pack))
    told["by_width"], told["by_batch"] = divider(max(1, channels // groups)), divider(max(1, batch))
    for axis, span in zip(told["axes"], (*[Axis(1, 1, 1, 0, 0, 1, 1)] * missing, *window.axes), strict=True):
        for name in ("size", "kernel", "stride", "before", "after", "dilation", "output"):
            axis[name] = getattr(span, name)
        for name in ("size", "kernel", "stride", "output"):
            axis[f"by_{name}"] = divider(max(1, getattr(span, name)))
    return told


@functools.lru_cache(maxsize=4096)
def filters(count: int, strides: Sequence[int]) -> Struct:
    """Tell a kernel where filters (*kernel, C/G, O) lie, in elements, and how many a group has."""
    told = np.zeros((), FILTERS)
    told["strides"] = (*(0,) * (AXES + 2 - len(strides)), *strides)
    told["count"] = count
    return told


@functools.lru_cache(maxsize=4096)
def places(strides: Sequence[int]) -> Struct:
    """Tell a kernel where the elements of an array (N, *output, O) lie, in elements, whose channels are neighbours."""
    told = np.zeros((), PLACES)
    told["strides"] = (strides[0], *(0,) * (AXES + 2 - len(strides)), *strides[1:-1])
    return told


@functools.lru_cache(maxsize=4096)
def rows(packs: int, threads: int, row: int) -> Struct:
    """Tell a kernel of a matrix of so many packs, and of a row's, of which the threads are a multiple."""
    return np.array((packs, threads, row), ROWS)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of an array that lies in memory in the order of its axes."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
