"""Prefetching: what is made ahead, in which order, on which thread, and that nothing of it is left."""

import gc
import threading

import numpy as np
import pytest
from cases import integers, normal

from xpconv.data.prefetching import delivered, prefetched
from xpconv.testing import assert_close


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Items:
    """Counts up to `stop`, then fails if it is to; knows what was made, where, and whether it was closed."""

    def __init__(self, stop, failure=None):
        self.made, self.threads, self.closed = [], set(), False
        self.stop, self.failure = stop, failure

    def __iter__(self):
        try:
            for i in range(self.stop):
                self.threads.add(threading.current_thread())
                self.made.append(i)
                yield i
            if self.failure:
                raise self.failure
        finally:
            self.closed = True


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_items_come_in_order_from_another_thread(count, depth):
    items = Items(count)
    assert list(prefetched(items, depth)) == list(range(count))
    assert items.closed
    assert threading.current_thread() not in items.threads
    assert len(items.threads) == min(count, 1)


def test_an_item_may_be_none():
    assert list(prefetched([None, None])) == [None, None]


def test_the_next_items_are_made_meanwhile():
    """Each item waits until the one before is being worked on: with nobody ahead this would wait for ever."""
    wanted = [threading.Event() for _ in range(4)]

    def items():
        for i in range(4):
            assert wanted[i].wait(60)
            yield i

    wanted[0].set()
    found = []
    for i in prefetched(items(), 1):
        if i < 3:
            wanted[i + 1].set()
        found.append(i)
    assert found == [0, 1, 2, 3]


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_the_depth_is_made_ahead(depth):
    items, arriving = Items(20), None
    arriving = prefetched(items, depth)
    assert items.made == []  # nothing starts before it is wanted
    for i in range(5):
        assert next(arriving) == i
        assert len(items.made) <= i + 1 + depth
    arriving.close()
    assert items.closed
    assert len(items.made) <= 5 + depth


@pytest.mark.parametrize("failure", [ValueError("a broken file"), KeyboardInterrupt()])
def test_an_exception_comes_in_its_turn(failure):
    items, found = Items(5, failure), []
    with pytest.raises(type(failure)) as caught:
        for item in prefetched(items):
            found.append(item)
    assert caught.value is failure
    assert found == [0, 1, 2, 3, 4]
    assert items.closed


def test_a_break_ends_the_thread():
    items = Items(1000)
    for item in prefetched(items):
        if item == 3:
            break
    gc.collect()
    assert items.closed
    assert len(items.made) < 10


def test_an_exception_where_items_are_used_ends_the_thread():
    items = Items(1000)
    arriving = prefetched(items)
    with pytest.raises(ZeroDivisionError):
        for _ in arriving:
            raise ZeroDivisionError
    arriving.close()
    assert items.closed


def test_what_is_not_iterable_is_refused():
    with pytest.raises(TypeError, match="not iterable"):
        list(prefetched(3))


# Batches, copied to where an array is


def test_batches_arrive_where_the_array_is(backend):
    like = backend.asarray(np.float32(0))
    x = [normal(4, 1, 3, 2, seed=i).astype(np.float32) for i in range(5)] + [(255 * normal(1, 2)).astype(np.uint8)]
    t = [integers(10, len(batch), seed=i) for i, batch in enumerate(x)]
    arrived = list(delivered(zip(x, t, strict=True), like))
    assert len(arrived) == 6
    for batch, *host in zip(arrived, x, t, strict=True):
        for array, wanted in zip(batch, host, strict=True):
            assert_close(array, wanted, like=like, rtol=0)


def test_batches_are_copies():
    buffer = np.zeros(3)

    def batches():
        for i in range(6):
            buffer[:] = i
            yield (buffer,)

    assert [batch[0].tolist() for batch in delivered(batches(), buffer)] == [[i] * 3 for i in range(6)]


def test_batches_that_are_not_wanted_end_the_thread(backend):
    items = Items(1000)
    arriving = delivered(((np.full(2, i),) for i in items), backend.asarray(np.float32(0)))
    next(arriving)
    arriving.close()
    assert items.closed
