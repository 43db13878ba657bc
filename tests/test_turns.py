"""Loops that threads share: who takes which job, who comes, and that nobody is waited for in vain."""

import contextlib
import threading
from typing import NamedTuple

import numpy as np
import pytest

from xpconv.compiled import turns
from xpconv.compiled.calls import taken, told
from xpconv.compiled.compiler import available, loop
from xpconv.compiled.counters import add, pause, read
from xpconv.compiled.turns import claim, share
from xpconv.execution import workers

compiled = pytest.mark.skipif(not available(), reason="the interpreter calls no other thread")


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    """Two workers whatever the machine has, and none left behind for other tests."""
    monkeypatch.setattr(workers, "processors", lambda: (0, 7))
    monkeypatch.setattr(workers, "openblas", lambda: True)
    monkeypatch.setattr(workers, "one_thread", contextlib.nullcontext)
    monkeypatch.setattr(workers, "_hired", [])
    yield
    for hired in workers._hired:  # lets those go to sleep that linger for a day
        for i in range(2):
            hired.give(i, lambda: None)


@loop
def _count(board, mine, given, kind):
    counts, jobs = taken(given, kind)
    job = claim(board, mine)
    while job >= 0:
        counts[mine * jobs + job] += 1
        job = claim(board, mine)


def counted(jobs, shares):
    counts = np.zeros(2 * jobs, np.int64)
    share(_count, jobs, shares, counts, jobs)
    return counts.reshape(2, jobs)


@loop
def _wait(came, mine):
    """Wait a while until both have come."""
    add(came, mine, 1)
    waited = 0
    while waited < 1000 and (read(came, 0) == 0 or read(came, 1) == 0):
        waited += 1
        pause()


@loop
def _meet(board, mine, given, kind):
    (came,) = taken(given, kind)
    _wait(came, mine)


def met():
    """Share a loop until both have come, which a thread does not that is about to sleep."""
    for _ in range(1000):
        came = np.zeros(2, np.int64)
        share(_meet, 2, 2, came)
        if came.tolist() == [1, 1]:
            return
    raise AssertionError("they never met")


@loop
def _fail(board, mine, given, kind):
    came, who = taken(given, kind)
    _wait(came, mine)
    if mine == who:
        raise ZeroDivisionError


@pytest.mark.parametrize("jobs", [0, 1, 2, 7, 500])
@pytest.mark.parametrize("shares", [0, 1, 2])
def test_each_job_is_taken_once(jobs, shares):
    for _ in range(20):
        assert (counted(jobs, shares).sum(axis=0) == 1).all()


@compiled
@pytest.mark.parametrize("cpu", [-1, 0, 7])
def test_threads_share_at_the_same_time_and_one_of_them_is_this_one(monkeypatch, cpu):
    monkeypatch.setattr(workers, "_current_processor", lambda: lambda: cpu)
    for _ in range(20):
        met()
    leave = threading.Event()
    workers.hired().give(0 if cpu == 7 else 1, lambda: leave.wait(60))
    try:
        assert counted(9, 2).sum(axis=1).tolist() == ([0, 9] if cpu == 7 else [9, 0])
    finally:
        leave.set()


@compiled
def test_the_jobs_of_a_thread_that_does_not_come_are_taken_by_the_other():
    leave = threading.Event()
    for i in range(2):
        workers.hired().give(i, lambda: leave.wait(60))
    try:
        taken = counted(9, 2)
        assert taken.sum(axis=1).tolist() in ([9, 0], [0, 9])
    finally:
        leave.set()


@pytest.mark.parametrize("who", [0, 1])
@compiled
def test_failures_reach_the_caller_and_the_next_loop_runs(monkeypatch, who):
    monkeypatch.setattr(turns, "PATIENCE", 1 << 30)
    met()  # now the other one lingers
    with pytest.raises(MemoryError, match="_fail was not given the memory"):
        for _ in range(1000):
            share(_fail, 2, 2, np.zeros(2, np.int64), who)
    assert counted(3, 2).sum() == 3


@pytest.mark.parametrize("patience", [0, 1 << 30])
def test_who_sleeps_is_woken_and_who_lingers_is_called(monkeypatch, patience):
    """However long they look out; with the patience of a day nothing below would end if nobody called them."""
    monkeypatch.setattr(turns, "PATIENCE", patience)
    for _ in range(3):
        tasks = []
        assert (counted(50, 2).sum(axis=0) == 1).all()
        if available():
            met()
        workers.run(tasks.append, range(5))
        assert sorted(tasks) == [0, 1, 2, 3, 4]


@compiled
def test_what_tasks_held_is_let_go_while_workers_linger(monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE", 1 << 30)
    met()
    gone = threading.Event()

    class Held:
        def __del__(self):
            gone.set()

    held = Held()
    workers.run(lambda task, held=held: None, range(4))
    del held
    assert gone.wait(60)


def test_several_callers_share_the_workers():
    wrong = []

    def call():
        for _ in range(50):
            if not (counted(300, 2).sum(axis=0) == 1).all():
                wrong.append(threading.current_thread())

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


class _Pair(NamedTuple):
    numbers: np.ndarray
    factor: int


@loop
def _add_up(board, mine, given, kind):
    total, pair, width, (bytes_, count) = taken(given, kind)
    total[0] += pair.factor * pair.numbers.sum() + len(width) + bytes_[1] + count


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arguments_arrive_as_they_were(dtype):
    for width in range(3):
        total, numbers = np.zeros(1, dtype), np.array([1.5, 2, 3], dtype)
        more = told((np.array([7, 200], np.uint8), 1 << 20))
        share(_add_up, 1, 1, total, told(_Pair(numbers, -2)), (None,) * width, more)
        assert total[0] == -13 + width + 200 + (1 << 20)


@compiled
def test_while_a_loop_is_on_the_board_others_run_alone():
    met()
    with turns._team(workers.hired()).lock:
        assert counted(5, 2).sum(axis=1).tolist() == [5, 0]
