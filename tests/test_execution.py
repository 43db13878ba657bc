"""Threads, BLAS, and weights that cannot change: what NumPy is helped with."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import reference as ref

import xpconv
from xpconv.arrays.frozen import _kept, immutable
from xpconv.execution import blas, workers
from xpconv.testing import assert_close


@pytest.fixture
def two_workers(monkeypatch):
    """Two workers whatever the machine has, and none left behind for other tests."""
    monkeypatch.setattr(workers, "processors", lambda: (0, 0))
    monkeypatch.setattr(workers, "openblas", lambda: True)
    monkeypatch.setattr(workers, "_hired", [])


def test_tasks_run_once_each_on_workers(two_workers):
    seen = []
    workers.run(lambda task: seen.append((task, threading.current_thread().name)), range(50))
    assert sorted(task for task, _ in seen) == list(range(50))
    assert {name for _, name in seen} <= {"xpconv-0"}


def test_the_first_exception_reaches_the_caller_and_the_workers_go_on(two_workers):
    def fail(task):
        if task == 3:
            raise ValueError("task 3")

    with pytest.raises(ValueError, match="task 3"):
        workers.run(fail, range(10))
    done = []
    workers.run(done.append, range(10))
    assert sorted(done) == list(range(10))


def test_a_task_may_stop_an_iteration_of_its_own(two_workers):
    with pytest.raises(StopIteration):
        workers.run(lambda task: next(iter(())), range(2))


def test_a_worker_that_is_given_tasks_does_them_itself(two_workers):
    names = []
    workers.run(lambda task: workers.run(lambda _: names.append(threading.current_thread().name), [0]), range(4))
    assert names == ["xpconv-0"] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="tells Linux's own name for it")
def test_the_system_tells_the_processor_that_a_thread_is_on():
    assert workers._current_processor()() in os.sched_getaffinity(0)


def test_several_callers_at_once(two_workers):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((8, 8, 20, 20)), rng.standard_normal((8, 8, 3, 3))
    wanted, results = ref.conv(x, weight), {}

    def call(i):
        results[i] = xpconv.conv(x, weight)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(results) == [0, 1, 2, 3]
    for y in results.values():
        assert_close(y, wanted, atol=1e-10)


@pytest.mark.skipif(blas.openblas() is None, reason="NumPy does not call an OpenBLAS here")
def test_the_callers_buffers_stay_as_long_as_they_were(two_workers):
    before, seen = np.getbufsize(), []
    for tasks in [0], [0, 1, 2]:
        workers.run(lambda _: seen.append(np.getbufsize()), tasks)
    assert set(seen) == {workers.RUN}
    assert np.getbufsize() == before


def test_blas_is_given_back(two_workers):
    found = blas.openblas()
    before, inside = found.get_threads(), []
    workers.run(lambda task: inside.append(found.get_threads()), range(4))
    assert set(inside) == {1}
    assert found.get_threads() == before
    with pytest.raises(ZeroDivisionError):
        workers.run(lambda task: 1 // task, [0])
    assert found.get_threads() == before


@pytest.mark.skipif(blas.openblas() is None, reason="NumPy does not call an OpenBLAS here")
def test_the_last_holder_gives_blas_back():
    found = blas.openblas()
    before = found.get_threads()
    with blas.one_thread():
        with blas.one_thread():
            assert found.get_threads() == 1
        assert found.get_threads() == 1
    assert found.get_threads() == before


@pytest.mark.skipif(blas.openblas() is None, reason="NumPy does not call an OpenBLAS here")
@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
@pytest.mark.parametrize("size", [4, 24])
def test_no_product_is_left_to_the_threads_of_blas(two_workers, monkeypatch, algorithm, size):
    """Once called they spin for a while, and take the processors from the workers."""
    monkeypatch.setattr("xpconv.selection.model.fused", lambda *_: None)  # loops make no products
    found, matmul, threads = blas.openblas(), np.matmul, []
    monkeypatch.setattr(
        np, "matmul", lambda *args, **kwargs: threads.append(found.get_threads()) or matmul(*args, **kwargs)
    )
    before = found.get_threads()
    found.set_threads(2)
    try:
        rng = np.random.default_rng(0)
        x, weight = rng.standard_normal((2, 40, size, size)), rng.standard_normal((40, 40, 3, 3))
        y, pullback = xpconv.vjp(xpconv.conv, x, weight, pad=1, algorithm=algorithm)
        pullback(y)
        assert found.get_threads() == 2
    finally:
        found.set_threads(before)
    assert set(threads) == {1}


def test_without_a_known_blas_nothing_is_held_and_tasks_run_here(monkeypatch):
    monkeypatch.setattr(workers, "openblas", lambda: None)
    monkeypatch.setattr(blas, "openblas", lambda: None)
    names = []
    with blas.one_thread():
        workers.run(lambda task: names.append(threading.current_thread()), range(3))
    assert names == [threading.current_thread()] * 3
    blas.small_product.cache_clear()
    assert blas.small_product() == 0
    monkeypatch.undo()
    blas.small_product.cache_clear()


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_the_number_of_threads_can_be_set():
    code = "from xpconv.execution.workers import processors; print(len(processors()))"
    assert python(code, XPCONV_NUM_THREADS="1").stdout.strip() == "1"
    refused = python(code, XPCONV_NUM_THREADS="many")
    assert "XPCONV_NUM_THREADS is 'many'; give a whole number of at least 1" in refused.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_the_same():
    code = """
import os
import numpy as np, xpconv
x, w = np.ones((8, 8, 30, 30)), np.ones((8, 8, 3, 3))
y = xpconv.conv(x, w)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(xpconv.conv(x, w), y) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    run = python(code)
    assert run.stdout.strip() == "0", run.stderr


def test_nothing_starts_at_import():
    assert python("import threading, xpconv; print(threading.active_count())").stdout.strip() == "1"


def test_a_frozen_weight_cannot_change_and_keeps_its_layout():
    weight = np.random.default_rng(0).standard_normal((3, 3, 8, 4)).transpose(3, 2, 0, 1)
    frozen = xpconv.freeze(weight)
    assert_close(frozen, weight, rtol=0, atol=0)
    assert frozen.strides == weight.strides
    assert immutable(frozen) and not immutable(weight)
    assert xpconv.freeze(frozen) is frozen
    with pytest.raises(ValueError, match="read-only"):
        frozen[...] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        frozen.flags.writeable = True
    locked = weight.copy()
    locked.flags.writeable = False  # its owner could unlock it again
    assert not immutable(locked)


def test_what_is_kept_serves_and_goes_with_its_weight():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 12, 12)), rng.standard_normal((8, 4, 3, 3))
    wanted, frozen = ref.conv(x, weight, pad=1), xpconv.freeze(weight)
    before = len(_kept)
    for algorithm in ("direct", "winograd", "direct", "winograd"):
        assert_close(xpconv.conv(x, frozen, pad=1, algorithm=algorithm), wanted, atol=1e-10)
    assert len(_kept) == before + 1
    del frozen
    assert len(_kept) == before


def test_a_weight_that_changes_is_never_stale():
    x, weight = np.ones((1, 1, 5, 5)), np.ones((1, 1, 3, 3))
    first = xpconv.conv(x, weight)
    weight *= 2
    assert_close(xpconv.conv(x, weight), first * 2)


def test_freezing_leaves_other_libraries_arrays_as_they_are(backend):
    array = backend.asarray(np.ones((1, 1, 3, 3)))
    frozen = xpconv.freeze(array)
    assert_close(frozen, np.ones((1, 1, 3, 3)), like=array)
    with pytest.raises(TypeError, match="array is a list"):
        xpconv.freeze([1.0])
