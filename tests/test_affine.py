"""affine and relu, by the oracle."""

import math

import numpy as np
import pytest
import reference_norms as norms
from applying import value_and_gradients
from cases import normal, spread

import xpconv
from xpconv.testing import assert_close


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(3, 8), (3, 2, 2, 2), (1, 8, 1)], ids=str)
def test_affine_agrees_with_the_oracle(backend, shape, dtype):
    hosts = normal(*shape), normal(8, 5), normal(5)
    y, dy, gradients = value_and_gradients(backend, xpconv.affine, hosts, dtype=dtype)
    like = backend.asarray(0.0)
    assert_close(y, norms.affine(*hosts).astype(dtype), like=like)
    for found, expected in zip(gradients, norms.affine_gradients(dy, *hosts[:2]), strict=True):
        assert_close(found, expected.astype(dtype), like=like)


def test_affine_without_bias(backend):
    x, weight = backend.asarray(normal(3, 4)), backend.asarray(normal(4, 2))
    y, pullback = xpconv.vjp(xpconv.affine, x, weight)
    assert_close(y, normal(3, 4) @ normal(4, 2), like=x)
    assert len(pullback(y)) == 2
    assert xpconv.vjp(xpconv.affine, x, weight, None)[1](y)[2] is None


def test_affine_of_complex_numbers(backend):
    hosts = [normal(*shape) + 1j * normal(*shape, seed=1) for shape in ((3, 4), (4, 2), (2,))]
    y, dy, gradients = value_and_gradients(backend, xpconv.affine, hosts)
    like = backend.asarray(0.0)
    assert_close(y, norms.affine(*hosts), like=like)
    for found, expected in zip(gradients, norms.affine_gradients(dy, *hosts[:2]), strict=True):
        assert_close(found, expected, like=like)


def test_affine_of_no_samples(backend):
    x, weight = backend.asarray(np.ones((0, 4))), backend.asarray(normal(4, 2))
    y, pullback = xpconv.vjp(xpconv.affine, x, weight)
    assert_close(y, np.ones((0, 2)), like=x)
    dx, dw = pullback(y)
    assert_close(dx, np.ones((0, 4)), like=x)
    assert_close(dw, np.zeros((4, 2)), like=x)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (7,), ()], ids=str)
def test_relu_agrees_with_the_oracle(backend, shape, dtype):
    host = spread(*shape)
    x = backend.asarray(host, dtype)
    y, pullback = xpconv.vjp(xpconv.relu, x)
    assert_close(y, norms.relu(host).astype(dtype), like=x)
    dy = normal(*shape, seed=9).astype(dtype)
    assert_close(pullback(backend.asarray(dy))[0], norms.relu_gradient(dy, host).astype(dtype), like=x)


def test_relu_at_its_kink_and_beyond_numbers(backend):
    x = backend.asarray(np.array([0.0, -0.0, math.nan, math.inf, -math.inf]))
    y, pullback = xpconv.vjp(xpconv.relu, x)
    assert_close(y, np.array([0.0, 0, math.nan, math.inf, 0]), like=x)
    assert_close(pullback(backend.asarray(np.ones(5)))[0], np.array([0.0, 0, 0, 1, 0]), like=x)
