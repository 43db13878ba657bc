"""Loops that several threads share: each takes the next job when it is done with one, and looks out for the next loop.

A thread that sleeps wakes up later than many a loop is done, and one that needs the interpreter waits for it. So a
worker that has nothing to do lingers, outside of the interpreter, until a loop is written on a board, by its address.
Nobody has to come: a loop is done when its jobs are, and those who came have left. A while later workers sleep after
all.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.compiled.calls import address, invoke, written
from xpconv.compiled.compiler import loop
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
        add(board, FAILED, invoke(board[FUNCTION], board, mine, board[GIVEN]))
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

    def share(self, function: int, given: int, jobs: int, shares: int) -> int:
        """Share out the jobs and call the loop, while no other is on the board; return how many threads failed."""
        here = self.workers.nearest(shares)
        self.by_line[AHEAD + self.count :, NEXT : END + 1] = _shared_out(jobs, shares, self.count)
        for i in range(shares):
            if i != here and not self.by_line[AHEAD + i, AWAKE]:
                self.workers.give(i, _nothing)
        return _lead(self.board, here, shares, function, given)


@loop
def _lead(board: Table, mine: int, shares: int, function: int, given: int) -> int:
    """Write a loop on the board, call the others, and take part until all have left."""
    board[FUNCTION], board[GIVEN], board[FAILED] = function, given, 0
    add(board, OPEN, 1)
    for i in range(shares):
        if i != mine:
            add(board, (AHEAD + i) * LINE + CALLED, 1)
    failed, waited = invoke(function, board, mine, given), 0
    add(board, OPEN, -1)
    while read(board, INSIDE):
        waited += 1
        if waited % LINE == 0:
            pause()
    return failed + read(board, FAILED)


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


def share(function: Callable[..., None], jobs: int, shares: int, *given: Any) -> None:
    """Call a loop with what is given, in as many threads as there are shares, which are no more than lanes.

    The jobs are shared out evenly at first, so that each thread has those whose data may be in its cache; this thread
    takes a share too. It takes them all where another one shares out a loop at the same time.

    Raises
    ------
    MemoryError
        If a loop cannot have the memory that it asks for.
    """
    if jobs == 0:
        return
    if not hasattr(function, "py_func"):  # the interpreter runs it
        function(_board_of_one(jobs), 0, given, None)
        return
    kinds, words = written(given)
    code, (place, _) = address(function, kinds), words.buffer_info()
    team = _team(hired()) if shares > 1 else None
    if team is not None and team.lock.acquire(blocking=False):
        try:
            failed = team.share(code, place, jobs, shares)
        finally:
            team.lock.release()
    else:
        failed = _lead(_board_of_one(jobs), 0, 0, code, place)
    if failed:
        raise MemoryError(f"{function.__name__} was not given the memory that it asked for")


def _board_of_one(jobs: int) -> Table:
    board = np.zeros((AHEAD + 2) * LINE, np.int64)
    board[-LINE + END] = jobs
    return board
