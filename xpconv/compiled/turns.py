"""Loops that several threads share: each takes the next job when it is done with one, and looks out for the next loop.

A thread that sleeps wakes up later than many a loop is done. So a worker that is done lingers, outside of the
interpreter, until it is called by the next loop, which does so where it has let the interpreter go itself; and who
waits for the others waits like that. A while later they sleep after all.
"""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from xpconv.compiled.compiler import loop
from xpconv.compiled.counters import Table, add, pause, read
from xpconv.execution import workers
from xpconv.execution.workers import LINE

PATIENCE = 512  # times that a processor is offered to others before a thread sleeps: some 200 us
NOBODY = np.zeros(0, np.int64)


class Turn(NamedTuple):
    """A thread's part of a loop.

    Attributes
    ----------
    shares : table
        In a line for each thread: the next of its jobs and where they end. In the first one also how many threads
        are done, and whether they were called.
    bells : table
        In a line for each worker: how often it was called.
    mine : int
        The number of this thread among those that share the loop.
    calls : bool
        Whether it shall call the others.
    """

    shares: Table
    bells: Table
    mine: int
    calls: bool


@loop
def call(turn: Turn) -> None:
    """Call the others that share the loop, if that is for this thread to do, and not yet done."""
    if turn.calls and turn.shares[3] == 0:
        turn.shares[3] = 1
        for i in range(len(turn.shares) // LINE):
            if i != turn.mine:
                add(turn.bells, i * LINE, 1)


@loop
def claim(turn: Turn) -> int:
    """Return a job that no other thread has: of this one's share or, after that, of those that are late; else -1."""
    call(turn)
    count = len(turn.shares) // LINE
    for i in range(turn.mine, turn.mine + count):
        share = i % count * LINE
        if read(turn.shares, share) < turn.shares[share + 1]:
            job = add(turn.shares, share, 1)
            if job < turn.shares[share + 1]:
                return job
    return -1


@loop
def _changes(table: Table, place: int, before: int, patience: int) -> bool:
    """Wait a while for a number to be another one."""
    for _ in range(patience):
        for _ in range(LINE):
            if read(table, place) != before:
                return True
        pause()
    return False


@loop
def _linger(shares: Table, bells: Table, bell: int, heard: int, patience: int) -> None:
    """Say that this thread is done, and wait a while to be called."""
    add(shares, 2, 1)
    _changes(bells, bell, heard, patience)


@loop
def _join(shares: Table, others: int, patience: int) -> None:
    """Wait a while for others to be done."""
    done = read(shares, 2)
    while done < others and _changes(shares, 2, done, patience):
        done = read(shares, 2)


def share(function: Callable[[Turn], object], jobs: int, shares: int) -> None:
    """Call a function that runs a loop, in as many threads as there are shares, which are no more than lanes.

    Its jobs are shared out evenly at first, so that each thread has those whose data may be in its cache; this thread
    takes a share too. The first exception is raised once all are done.
    """
    if jobs == 0:
        return
    state = np.zeros((max(shares, 1), LINE), np.int64)
    starts = [i * jobs // len(state) for i in range(len(state) + 1)]
    state[:, 0], state[:, 1] = starts[:-1], starts[1:]
    table = state.reshape(-1)
    if shares <= 1:
        function(Turn(table, NOBODY, 0, False))
        return
    team, done = workers.hired(), queue.SimpleQueue[BaseException | None]()
    here = team.nearest(shares)

    def take(i: int) -> Callable[[], None]:
        failure = None
        try:
            function(Turn(table, team.bells, i, i == here))
        except BaseException as raised:
            failure = raised
        done.put(failure)
        heard = int(team.bells[i * LINE])
        return functools.partial(_linger, table, team.bells, i * LINE, heard, PATIENCE if team.jobs[i].empty() else 0)

    for i in range(shares):
        if i != here:
            team.jobs[i].put(functools.partial(take, i))
    take(here)
    _join(table, shares - 1, PATIENCE)
    failures = [failure for failure in [done.get() for _ in range(shares)] if failure is not None]
    if failures:
        raise failures[0]
