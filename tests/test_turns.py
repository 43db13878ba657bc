"""Loops that threads share: who takes which job, who comes, and that nobody is waited for in vain."""

import contextlib
import threading

import numpy as np
import pytest

from xpconv.compiled import turns
from xpconv.compiled.compiler import available, loop
from xpconv.compiled.counters import add, pause, read
from xpconv.compiled.turns import claim, each, share
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
def _count(board, mine, taken):
    job = claim(board, mine)
    while job >= 0:
        taken[mine, job] += 1
        job = claim(board, mine)


@loop
def _count_all(turn, *given):
    each(_count, turn, given)


def counted(jobs, shares):
    taken = np.zeros((2, jobs), np.int64)
    share(lambda turn: _count_all(turn, taken), jobs, shares)
    return taken


@loop
def _meet(board, mine, came):
    add(came, mine, 1)
    waited = 0
    while waited < 1000 and (read(came, 0) == 0 or read(came, 1) == 0):
        waited += 1
        pause()


@loop
def _meet_all(turn, *given):
    each(_meet, turn, given)


def met():
    """Share a loop until both have come, which a thread does not that is about to sleep; return who was called last."""
    for _ in range(1000):
        came, turn = np.zeros(2, np.int64), []
        share(lambda given, came=came, turn=turn: (turn.append(given), _meet_all(given, came)), 2, 2)
        if came.tolist() == [1, 1]:
            return turn[0]
    raise AssertionError("they never met")


@loop
def _fail(board, mine, came, who):
    _meet(board, mine, came)
    if mine == who:
        raise ZeroDivisionError


@loop
def _all_but_one(turn, *given):
    each(_fail, turn, given)


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
        assert met().mine == (1 if cpu == 7 else 0)


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
    with pytest.raises(MemoryError, match="no room"):
        for _ in range(1000):
            share(lambda turn: _all_but_one(turn, np.zeros(2, np.int64), who), 2, 2)
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


def test_a_loop_within_another_one_runs_alone():
    inside = []
    share(lambda turn: inside.append(counted(5, 2)), 2, 2)
    assert inside[0].sum(axis=1).tolist() == [5, 0]


def test_after_a_failure_before_the_loop_the_next_one_is_shared():
    with pytest.raises(ZeroDivisionError):
        share(lambda turn: 1 // 0, 2, 2)
    turn = []
    share(turn.append, 2, 2)
    assert turn[0].others == 2
