"""dropout: what is kept is kept as it is, in training; all of it is scaled in evaluation."""

import numpy as np
import pytest
from cases import normal, positive

import xpconv
from xpconv.testing import assert_close


def generator():
    return np.random.default_rng(5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_elements_are_kept_or_dropped(backend, dtype):
    host = positive(4, 5, 6).astype(dtype)
    x = backend.asarray(host)
    y, pullback = xpconv.vjp(xpconv.dropout, x, ratio=0.3, rng=generator())
    kept = xpconv.to_numpy(y) != 0
    assert 0 < kept.sum() < kept.size
    assert_close(y, np.where(kept, host, 0).astype(dtype), like=x, rtol=0)
    dy = normal(4, 5, 6).astype(dtype)
    assert_close(pullback(backend.asarray(dy))[0], np.where(kept, dy, 0).astype(dtype), like=x, rtol=0)


def test_every_backend_drops_the_same_elements(backend):
    host = positive(4, 50)
    on_numpy = xpconv.dropout(host, ratio=0.3, rng=generator())
    x = backend.asarray(host)
    assert_close(xpconv.dropout(x, ratio=0.3, rng=generator()), on_numpy, like=x, rtol=0)


def test_what_is_not_a_number_can_be_dropped(backend):
    x = backend.asarray(np.full((1000,), np.inf))
    y = xpconv.to_numpy(xpconv.dropout(x, ratio=0.5, rng=generator()))
    assert set(y) == {0.0, np.inf}


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(ratio):
    y = xpconv.dropout(np.ones((100, 1000)), ratio=ratio, rng=generator())
    assert abs(np.mean(y == 0) - ratio) < 5 * np.sqrt(ratio * (1 - ratio) / y.size)


def test_a_ratio_of_zero_drops_nothing(backend):
    x = backend.asarray(normal(3, 4))
    assert_close(xpconv.dropout(x, ratio=0, rng=generator()), normal(3, 4), like=x, rtol=0)


def test_a_generator_moves_on_and_the_same_seed_drops_the_same():
    x, rng = np.ones((10, 10)), generator()
    first, second = xpconv.dropout(x, rng=rng), xpconv.dropout(x, rng=rng)
    assert (first != second).any()
    assert_close(xpconv.dropout(x, rng=generator()), first, rtol=0)


def test_evaluation_scales_by_what_is_left_on_average(backend):  # as in the book
    x = backend.asarray(normal(3, 4))
    y, pullback = xpconv.vjp(xpconv.dropout, x, ratio=0.3)
    assert_close(y, normal(3, 4) * 0.7, like=x)
    assert_close(pullback(x)[0], normal(3, 4) * 0.7, like=x)
