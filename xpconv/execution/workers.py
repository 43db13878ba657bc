"""A small pool of threads for tasks that NumPy computes without holding the interpreter.

Each worker is bound to one processor, where its share of the data stays in cache, and the caller waits: threads that
hand the interpreter to each other otherwise tend to land on one processor. Nothing is started at import; a forked child
starts its own workers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from xpconv.execution.blas import one_thread, openblas
from xpconv.execution.workspace import in_task

T = TypeVar("T")
Job = Callable[[], object]
LINE = 8  # numbers of a table in a cache line: threads that write to different ones do not wait for each other
RUN = 1024  # numbers in a row from which NumPy reads them where they lie; it would copy rows up to eight times as long


@functools.cache
def processors() -> tuple[int, ...]:
    """Processors to work on: those this process may use, at most XPCONV_NUM_THREADS of them."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    wanted = os.environ.get("XPCONV_NUM_THREADS", "")
    if wanted and not (wanted.isdigit() and int(wanted) > 0):
        raise ValueError(f"XPCONV_NUM_THREADS is {wanted!r}; give a whole number of at least 1")
    return tuple(usable[: int(wanted or len(usable))])


@functools.cache
def _current_processor() -> Callable[[], int]:
    """Return what tells the processor that a thread is on, or -1 where the system does not say."""
    return getattr(ctypes.CDLL(None), "sched_getcpu", lambda: -1) if os.name == "posix" else lambda: -1


def bind(cpus: Iterable[int]) -> None:
    """Let this process work on these processors alone; to be said before any work is done."""
    os.sched_setaffinity(0, cpus)
    processors.cache_clear()


class Workers:
    """Threads that take jobs, one for each processor.

    Attributes
    ----------
    cpus : tuple of int
        Their processors.
    jobs : list of queue
        What each is given to do.
    given : table
        In a cache line for each, a number that changes after it is given a job, for those that look out for it.
    between : function
        What each calls with its number when it is done with a job, before it sleeps until there is another one.
    """

    def __init__(self, cpus: Iterable[int]) -> None:
        self.cpus = tuple(cpus)
        self.jobs: list[queue.SimpleQueue[Job]] = [queue.SimpleQueue() for _ in self.cpus]
        self.given = np.zeros(len(self.cpus) * LINE, np.int64)
        self.between: Callable[[int], object] = lambda i: None
        for i, cpu in enumerate(self.cpus):
            threading.Thread(target=self._work, args=(i, cpu), name=f"xpconv-{cpu}", daemon=True).start()

    def _work(self, i: int, cpu: int) -> None:
        _here.working = True
        np.setbufsize(RUN)
        with contextlib.suppress(AttributeError, OSError):  # no binding on this system: work wherever we are put
            os.sched_setaffinity(threading.get_native_id(), {cpu})
        while True:
            self.jobs[i].get()()  # after which nothing holds the job any more, nor what it held
            self.between(i)

    def give(self, i: int, job: Job) -> None:
        """Give a worker a job."""
        self.jobs[i].put(job)
        self.given[i * LINE] += 1

    def run(self, function: Callable[[T], object], tasks: Iterable[T]) -> None:
        """Call the function on every task and wait; raise the first exception once all workers have stopped."""
        rest, lock = iter(tasks), threading.Lock()
        done: queue.SimpleQueue[None] = queue.SimpleQueue()
        failures: list[BaseException] = []

        def job() -> None:
            try:
                while not failures:
                    with lock:
                        task = next(rest, _END)
                    if task is _END:
                        break
                    in_task(function, task)  # type: ignore[arg-type]
            except BaseException as failure:
                failures.append(failure)
            finally:
                done.put(None)

        for i in range(len(self.jobs)):
            self.give(i, job)
        for _ in self.jobs:
            done.get()
        if failures:
            raise failures[0]

    def nearest(self, count: int) -> int:
        """Return which of the first workers is on the processor that the caller is on, or the first of all."""
        cpu = _current_processor()()
        return self.cpus.index(cpu) if cpu in self.cpus[:count] else 0


_END = object()
_here = threading.local()
_hiring = threading.Lock()
_hired: list[Workers] = []


def hired() -> Workers:
    """Return the workers of this process."""
    with _hiring:
        if not _hired:
            _hired.append(Workers(processors()))
        return _hired[0]


def _forget() -> None:
    global _hiring
    _hiring = threading.Lock()
    _hired.clear()
    processors.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def lanes() -> int:
    """How many tasks run at a time here: 1 on a worker, and where BLAS cannot be held at one thread."""
    return 1 if getattr(_here, "working", False) or openblas() is None else len(processors())


def run(function: Callable[[T], object], tasks: Iterable[T]) -> None:
    """Call the function on every task, side by side where that can be done."""
    tasks = list(tasks)
    if lanes() > 1:
        with one_thread():
            if len(tasks) > 1:
                hired().run(function, tasks)
            elif tasks:
                _here.working = True
                try:
                    _alone(function, tasks)
                finally:
                    _here.working = False
        return
    _alone(function, tasks)


def _alone(function: Callable[[T], object], tasks: Iterable[T]) -> None:
    """Call the function on every task, one after the other."""
    before = np.setbufsize(RUN)
    try:
        for task in tasks:
            in_task(function, task)
    finally:
        np.setbufsize(before)
