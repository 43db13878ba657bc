"""Scripts of tasks: when one is written, what it is followed on, and when there is none."""

import numpy as np
import pytest

from xpconv.execution.steps import Repeated, step
from xpconv.execution.workspace import empty, in_task


class Calls(list):
    """A list that a task may capture and yet have a script: it is told apart by identity."""

    __hash__ = object.__hash__


@pytest.fixture
def calls():
    return Calls()


def doubling(calls, x, y, factor=2.0):
    """A task that makes y of x, image by image, and counts how often it is called itself."""

    def task(images):
        calls.append(images)
        between = empty(x[images].shape, x.dtype)
        step(np.multiply, x[images], factor, between)
        step(np.add, between, x[images], y[images])

    return task


def carry_out(task, moving, count):
    repeated = Repeated(task, moving)
    for i in range(count):
        in_task(lambda i: repeated("one image", i, slice(i, i + 1)), i)


def images(seed=0, count=4):
    return np.random.default_rng(seed).standard_normal((count, 5, 3))


def test_one_script_serves_all_parts_and_other_arrays(calls):
    for seed in range(3):
        x = images(seed)
        y = np.empty_like(x)
        carry_out(doubling(calls, x, y), (x, y), 4)
        np.testing.assert_array_equal(y, 3 * x)
    assert len(calls) <= 2  # the second, where the first made the thread's memory grow


def test_a_script_keeps_to_what_was_captured(calls):
    x = images()
    for factor in (2.0, 5.0):
        y = np.empty_like(x)
        carry_out(doubling(calls, x, y, factor), (x, y), 4)
        np.testing.assert_allclose(y, (factor + 1) * x)
    for other in (x.astype(np.float32), x[:, ::-1, :].transpose(0, 2, 1).copy().transpose(0, 2, 1), x[:, :2]):
        y = np.zeros_like(other)
        carry_out(doubling(calls, other, y), (other, y), 4)
        np.testing.assert_allclose(y, 3 * other, rtol=1e-6)


@pytest.mark.parametrize("layout", ["reversed", "with gaps", "overlapping result", "another array", "a list"])
def test_no_script_where_arrays_do_not_tell_what_they_are(calls, layout):
    x = images()
    y = np.empty_like(x)
    if layout == "reversed":
        x = x[:, ::-1]
    if layout == "with gaps":
        x = np.repeat(x, 2, axis=2)[..., ::2]
    if layout == "overlapping result":
        y = x[:]
    if layout == "a list":
        calls = list(calls)
    task = doubling(calls, x, y)
    if layout == "another array":

        def task(images):
            calls.append(images)
            made = x[images] * 2
            step(np.add, made, x[images], y[images])

    wanted = 3 * x
    carry_out(task, (x, y), 4)
    np.testing.assert_array_equal(y, wanted)
    assert len(calls) == 4


def test_an_exception_leaves_no_script(calls):
    x = images()
    y = np.empty_like(x)
    good = doubling(calls, x, y)

    def task(images):
        good(images)
        if len(calls) < 4:
            raise ZeroDivisionError

    repeated = Repeated(task, (x, y))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            in_task(lambda i: repeated("one image", i, slice(0, 1)), 0)
    carry_out(task, (x, y), 4)
    np.testing.assert_array_equal(y, 3 * x)


def test_what_is_returned_lies_in_the_memory_of_the_thread(calls):
    x, sums = images(), Calls()

    def task(images):
        calls.append(images)
        made = empty(x[images].shape, x.dtype)
        step(np.negative, x[images], made)
        return made

    repeated = Repeated(task, (x,))
    for i in range(4):
        in_task(lambda i: sums.append(repeated("one image", i, slice(i, i + 1)).copy()), i)
    np.testing.assert_array_equal(np.concatenate(sums), -x)
    assert len(calls) <= 2
