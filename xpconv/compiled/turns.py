"""Loops that several threads share: each takes the next job when it is done with one, and looks out for the next loop.

A thread that sleeps wakes up later than many a loop is done, and one that needs the interpreter waits for it. So a
worker that has nothing to do lingers, outside of the interpreter, until a loop is written on a board, by its address.
Nobody has to come: a loop is done when its jobs are, and those who came have left. A while later workers sleep after
all.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xpconv.compiled.compiler import available, loop
from xpconv.compiled.counters import Table, add, pause, read
from xpconv.execution.workers import LINE, Workers, hired

PATIENCE = 512  # times that a processor is offered to others before a thread sleeps: some 200 us

# Places on a board, whose first line tells of the loop and whose second one how many threads are at it. For every
# worker a line follows, and for every worker another one, with a thread's share of the jobs.
OPEN, FUNCTION, GIVEN, FAILED = range(4)
INSIDE = LINE
AHEAD = 2  # lines
CALLED, AWAKE = range(2)
NEXT, END = range(2)


class Turn(NamedTuple):
    """A thread's part of a loop: the board, the number of the thread, and up to which one the others are to be called.

    None are where that is 0; then the board is its own.
    """

    board: Table
    mine: int
    others: int


@loop
def claim(board: Table, mine: int) -> int:
    """Return a job that no other thread has: of this one's share or, after that, of those that are late; else -1."""
    count = (len(board) // LINE - AHEAD) // 2
    for i in range(mine, mine + count):
        share = (AHEAD + count + i % count) * LINE
        if read(board, share + NEXT) < board[share + END]:
            job = add(board, share + NEXT, 1)
            if job < board[share + END]:
                return job
    return -1


def each(function: Any, turn: Any, given: Any) -> None:
    """Call a loop on the board, the number of this thread and what is given, here and in the threads of its turn.

    A compiled loop alone can call it, and the loop has to be one, too; the interpreter calls nobody else.
    """
    function(turn.board, turn.mine, *given)


@loop
def _linger(board: Table, mine: int, jobs: Table, before: int, patience: int) -> None:
    """Do what is written on the board, and wait a while for more of it or for another job."""
    line, called, waited = (AHEAD + mine) * LINE, -1, 0
    board[line + AWAKE] = 1
    while waited <= patience * LINE and read(jobs, mine * LINE) == before:
        waited += 1
        if read(board, line + CALLED) != called:
            called, waited = read(board, line + CALLED), 0
            _join(board, mine)
        elif waited % LINE == 0:
            pause()
    board[line + AWAKE] = 0


@loop
def _join(board: Table, mine: int) -> None:
    add(board, INSIDE, 1)
    if read(board, OPEN):
        add(board, FAILED, invoke(board[FUNCTION], board[GIVEN], mine))
    add(board, INSIDE, -1)


class _Team:
    """Workers who linger between their jobs, and their board."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.count, self.lock = workers, len(workers.cpus), threading.Lock()
        self.board = np.zeros((AHEAD + 2 * self.count) * LINE, np.int64)
        self.by_line = self.board.reshape(-1, LINE)
        workers.between = self.linger

    def linger(self, i: int) -> None:
        """Let a worker linger, unless there is a job for it already."""
        before = self.workers.given[i * LINE]
        if self.workers.jobs[i].empty():
            _linger(self.board, i, self.workers.given, before, PATIENCE)

    def share(self, lead: Callable[[Turn], object], jobs: int, shares: int) -> None:
        """Share out the jobs and call the loop, while no other is on the board."""
        here = self.workers.nearest(shares)
        self.by_line[AHEAD + self.count :, NEXT : END + 1] = _shared_out(jobs, shares, self.count)
        for i in range(shares):
            if i != here and not self.by_line[AHEAD + i, AWAKE]:
                self.workers.give(i, _nothing)
        lead(Turn(self.board, here, shares))


@functools.cache
def _team(workers: Workers) -> _Team:
    return _Team(workers)


@functools.lru_cache(maxsize=1024)
def _shared_out(jobs: int, shares: int, count: int) -> Table:
    """Return the first job and the end of each share, some of which are nothing."""
    starts = np.array([min(i, shares) * jobs // shares for i in range(count + 1)], np.int64)
    return np.stack([starts[:-1], starts[1:]], axis=1)


def _nothing() -> None:
    """Be a job that wakes a worker."""


def share(lead: Callable[[Turn], object], jobs: int, shares: int) -> None:
    """Call what shares out a loop by `each`, to as many threads as there are shares, which are no more than lanes.

    The jobs are shared out evenly at first, so that each thread has those whose data may be in its cache; this thread
    takes a share too. It takes them all where another one shares out a loop at the same time.
    """
    if jobs == 0:
        return
    team = _team(hired()) if shares > 1 else None
    if team is not None and team.lock.acquire(blocking=False):
        try:
            team.share(lead, jobs, shares)
        finally:
            team.lock.release()
        return
    alone = np.zeros((AHEAD + 2, LINE), np.int64)
    alone[-1, END] = jobs
    lead(Turn(alone.reshape(-1), 0, 0))


if available():
    from xpconv.compiled.calls import invoke, outlined

    extending: Any = importlib.import_module("numba.extending")

    @extending.overload(each, inline="always")  # type: ignore[untyped-decorator]
    def _each(function: Any, turn: Any, given: Any) -> Callable[..., None]:
        def each(function: Any, turn: Any, given: Any) -> None:
            board = turn.board
            address, data = outlined(function, (board, *given))
            if turn.others:
                board[FUNCTION], board[GIVEN], board[FAILED] = address, data, 0
                add(board, OPEN, 1)
                for i in range(turn.others):
                    if i != turn.mine:
                        add(board, (AHEAD + i) * LINE + CALLED, 1)
            failed = invoke(address, data, turn.mine)
            if turn.others:
                add(board, OPEN, -1)
                waited = 0
                while read(board, INSIDE):
                    waited += 1
                    if waited % LINE == 0:
                        pause()
                failed += board[FAILED]
            if failed:
                raise MemoryError("a loop found no room for its tables")

        return each
