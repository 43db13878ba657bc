"""Loops that threads share: who takes which job, what becomes of failures, and that nobody is waited for in vain."""

import threading

import numpy as np
import pytest

from xpconv.compiled import turns
from xpconv.compiled.compiler import loop
from xpconv.compiled.turns import claim, share
from xpconv.execution import workers


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    """Two workers whatever the machine has, and none left behind for other tests."""
    monkeypatch.setattr(workers, "processors", lambda: (0, 7))
    monkeypatch.setattr(workers, "_hired", [])


@loop
def _count(taken, turn):
    job = claim(turn)
    while job >= 0:
        taken[turn.mine, job] += 1
        job = claim(turn)


@pytest.mark.parametrize("jobs", [0, 1, 2, 7, 500])
@pytest.mark.parametrize("shares", [0, 1, 2])
def test_each_job_is_taken_once(jobs, shares):
    for _ in range(20):
        taken = np.zeros((2, jobs), np.int64)
        share(lambda turn, taken=taken: _count(taken, turn), jobs, shares)
        assert (taken.sum(axis=0) == 1).all()


@pytest.mark.parametrize("cpu", [-1, 0, 7])
def test_threads_share_at_the_same_time_and_one_of_them_is_this_one(monkeypatch, cpu):
    monkeypatch.setattr(workers, "_current_processor", lambda: lambda: cpu)
    threads, both = {}, threading.Barrier(2, timeout=60)

    def function(turn):
        both.wait()
        threads[turn.mine] = threading.current_thread()

    share(function, 2, 2)
    mine = 1 if cpu == 7 else 0
    assert threads.keys() == {0, 1}
    assert threads[mine] is threading.current_thread()
    assert threads[1 - mine].name == ("xpconv-0" if cpu == 7 else "xpconv-7")


def test_the_jobs_of_a_thread_that_is_late_are_taken_by_the_other():
    taken, over = np.zeros((2, 9), np.int64), threading.Event()

    def function(turn):
        here = threading.current_thread() is threading.main_thread()
        assert here or over.wait(60)
        _count(taken, turn)
        if here:
            assert taken[turn.mine].tolist() == [1] * 9
            over.set()

    share(function, 9, 2)
    assert taken.sum() == 9


@pytest.mark.parametrize("failing", ["here", "there", "both"])
def test_failures_reach_the_caller_and_the_next_loop_runs(failing):
    def function(turn):
        here = threading.current_thread() is threading.main_thread()
        if failing == "both" or here == (failing == "here"):
            raise ZeroDivisionError(turn.mine)

    with pytest.raises(ZeroDivisionError):
        share(function, 2, 2)
    taken = np.zeros((2, 3), np.int64)
    share(lambda turn: _count(taken, turn), 3, 2)
    assert taken.sum() == 3


@pytest.mark.parametrize("patience", [0, 1 << 30])
def test_who_sleeps_is_woken_and_who_lingers_is_called(monkeypatch, patience):
    """However long they look out; with the patience of a day nothing below would end if nobody called them."""
    monkeypatch.setattr(turns, "PATIENCE", patience)
    monkeypatch.setattr(workers, "openblas", lambda: True)
    for _ in range(3):
        taken, tasks = np.zeros((2, 50), np.int64), []
        share(lambda turn, taken=taken: _count(taken, turn), 50, 2)
        workers.run(tasks.append, range(5))
        assert (taken.sum(axis=0) == 1).all()
        assert sorted(tasks) == [0, 1, 2, 3, 4]
    share(lambda turn: None, 2, 2)
    for worker in workers.hired().jobs:
        worker.put(lambda: None)
    workers.hired().bells += 1  # lets those go home that would look out for a day


def test_several_callers_share_the_workers():
    taken = np.zeros((4, 2, 300), np.int64)

    def call(i):
        for _ in range(50):
            share(lambda turn: _count(taken[i], turn), 300, 2)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (taken.sum(axis=1) == 50).all()


def test_what_a_loop_was_given_is_let_go_when_it_is_done(monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE", 1 << 30)
    given = [np.zeros((2, 5), np.int64)]
    gone = threading.Event()

    class Given:
        def __del__(self):
            gone.set()

    def function(turn, held):
        _count(given[0], turn)

    held = Given()
    share(lambda turn, held=held: function(turn, held), 5, 2)
    del held
    assert gone.wait(60)
    workers.hired().bells += 1
