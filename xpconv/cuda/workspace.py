"""When memory runs out: the work is cut finer, and what cannot be cut says what it needed and what was free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T")


class Memory(Protocol):
    """A device's memory, from a pool."""

    def free(self) -> int:
        """Return the bytes that can be had."""

    def release(self) -> None:
        """Give what the pool keeps for later back to the device."""


class Piece(NamedTuple):
    """Some images, and some of the windows along their first axis."""

    images: slice
    rows: slice


def pieces(batch: int, rows: int, size: int, limit: int) -> Iterator[Piece]:
    """Cut a batch so that no piece takes more than `limit`: whole images, or some rows of windows of one image.

    Parameters
    ----------
    batch, rows : int
        Images, and windows along the first axis of each.
    size : int
        What one row of one image takes.
    limit : int
        One row of one image is taken even beyond it.
    """
    at_once = max(1, limit // max(1, size))
    if at_once >= rows:
        images = at_once // max(1, rows)
        for start in range(0, batch, images):
            yield Piece(slice(start, min(batch, start + images)), slice(0, rows))
    else:
        for n in range(batch):
            for start in range(0, rows, at_once):
                yield Piece(slice(n, n + 1), slice(start, min(rows, start + at_once)))


def halving(work: Callable[[int], T], result: int, memory: Memory, wanted: int = 0, least: int = 0) -> T:
    """Do work in a workspace of the bytes wanted, and in half of it each time memory runs out.

    Parameters
    ----------
    work : callable
        Given the bytes it may take beside what it returns. It is started anew each time, so it changes nothing else.
    result : int
        Bytes of what it returns.
    memory : Memory
    wanted, least : int
        Bytes of the first attempt, and those that the work cannot do with less.

    Raises
    ------
    MemoryError
        When it does not fit with the least either; the pool has then been given back what was taken.
    """
    size = max(wanted, least)
    while True:
        try:
            return work(size)
        except MemoryError as error:
            reason = str(error)  # alone: the error would hold on to the arrays of its frames
        memory.release()
        if size <= least:
            raise MemoryError(
                f"this takes {result} bytes for its result and {least} of workspace, and {memory.free()} were free "
                f"({reason}); give fewer images at a time"
            )
        size = max(least, size // 2)
