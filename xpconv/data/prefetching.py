"""Prefetching: the next batches are read, and copied to the device, while the one before is worked on."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from xpconv.arrays.libraries import Array, transport

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

DEPTH = 2  # one batch being copied, one ready


def prefetched(items: Iterable[T], depth: int = DEPTH) -> Generator[T]:
    """Yield the items, up to `depth` of them made ahead on a thread of their own.

    The thread starts with the first item. It has ended, and the items' iterator is closed where it can be, when the
    last was given, when making one has failed (its exception is raised here, in its turn), and when this generator is
    closed, which waits for the item being made.
    """
    iterator = iter(items)
    with contextlib.ExitStack() as stack:
        if isinstance(iterator, Generator):
            stack.callback(iterator.close)
        thread = ThreadPoolExecutor(1, "xpconv-prefetch")
        stack.callback(thread.shutdown, cancel_futures=True)
        coming = deque(thread.submit(next, iterator, _END) for _ in range(depth))
        while (item := coming.popleft().result()) is not _END:
            coming.append(thread.submit(next, iterator, _END))
            yield item  # type: ignore[misc]


_END = object()


def delivered(batches: Iterable[tuple[NDArray[Any], ...]], like: Array, depth: int = DEPTH) -> Generator[Any]:
    """Yield batches of host arrays as arrays where another one is, in their own dtype; they are `prefetched`."""
    send, receive = transport(like)
    with contextlib.closing(prefetched((tuple(map(send, batch)) for batch in batches), depth)) as arriving:
        for batch in arriving:
            yield tuple(map(receive, batch))
