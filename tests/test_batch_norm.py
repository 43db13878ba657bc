"""batch_norm: every channel by its own statistics or by given ones, by the oracle."""

import math

import numpy as np
import pytest
import reference_norms as norms
from applying import value_and_gradients
from cases import normal, positive

import xpconv
from xpconv.testing import assert_close, check_vjp

SHAPES = [(6, 3), (4, 3, 5), (2, 3, 4, 3)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_by_its_own_statistics(backend, shape, dtype):
    hosts = 3 + 2 * normal(*shape), positive(3), normal(3)
    (y, mean, var), dy, gradients = value_and_gradients(
        backend, xpconv.batch_norm, hosts, dtype=dtype, return_statistics=True
    )
    like = backend.asarray(0.0)
    assert_close(y, norms.batch_norm(*hosts).astype(dtype), like=like)
    found = norms.batch_norm_statistics(hosts[0])
    assert_close(mean, found[0].astype(dtype), like=like)
    assert_close(var, found[1].astype(dtype), like=like)  # the biased one, which normalizes
    for gradient, expected in zip(gradients, norms.batch_norm_gradients(dy, *hosts[:2]), strict=True):
        assert_close(gradient, expected.astype(dtype), like=like)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_by_given_statistics(backend, shape):
    x, gamma, beta, mean, var = hosts = normal(*shape), positive(3), normal(3), normal(3, seed=1), positive(3, seed=1)
    y, dy, (dx, dgamma, dbeta, *_) = value_and_gradients(backend, xpconv.batch_norm, hosts, eps=0.1)
    like = backend.asarray(0.0)
    assert_close(y, norms.batch_norm_inference(x, mean, var, gamma, beta, eps=0.1), like=like)
    others = (0, *range(2, len(shape)))
    scale = (gamma / np.sqrt(var + 0.1)).reshape(-1, *[1] * (len(shape) - 2))
    assert_close(dx, dy * scale, like=like)
    assert_close(dbeta, dy.sum(axis=others), like=like)
    normalized = norms.batch_norm_inference(x, mean, var, eps=0.1)
    assert_close(dgamma, (dy * normalized).sum(axis=others), like=like)


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    hosts = normal(4, 3, 5, 2), positive(3), normal(3)
    x, gamma, beta = (torch.tensor(a, requires_grad=True) for a in hosts)
    expected = torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-3)
    y, pullback = xpconv.vjp(xpconv.batch_norm, *hosts, eps=1e-3)
    assert_close(y, expected.detach().numpy())
    dy = normal(*y.shape, seed=9)
    for gradient, wanted in zip(
        pullback(dy), torch.autograd.grad(expected, (x, gamma, beta), torch.tensor(dy)), strict=True
    ):
        assert_close(gradient, wanted.numpy())


@pytest.mark.parametrize(("gamma", "beta"), [(None, None), (positive(3), None), (None, normal(3))], ids=str)
def test_scale_and_shift_are_optional(gamma, beta):
    x = normal(4, 3, 5)
    y, pullback = xpconv.vjp(xpconv.batch_norm, x, gamma, beta)
    assert_close(y, norms.batch_norm(x, gamma, beta))
    gradients = pullback(normal(4, 3, 5, seed=9))
    assert [g is None for g in gradients[1:]] == [gamma is None, beta is None]
    check_vjp(xpconv.batch_norm, x, gamma, beta)


def test_the_result_has_mean_zero_and_variance_one(backend):
    x = backend.asarray(100 + normal(8, 2, 10))
    y = xpconv.to_numpy(xpconv.batch_norm(x, eps=1e-12))
    np.testing.assert_allclose(y.mean(axis=(0, 2)), 0, atol=1e-10)
    np.testing.assert_allclose(y.var(axis=(0, 2)), 1, rtol=1e-9)


def test_one_element_a_channel_is_its_own_mean(backend):
    x = backend.asarray(normal(1, 3))
    y, pullback = xpconv.vjp(xpconv.batch_norm, x)
    assert_close(y, np.zeros((1, 3)), like=x)
    assert_close(pullback(backend.asarray(normal(1, 3)))[0], np.zeros((1, 3)), like=x)


def test_a_large_mean_takes_no_digits_from_the_variance():
    x = (1e3 + normal(64, 2)).astype(np.float32)
    expected = norms.batch_norm(x.astype(np.float64)).astype(np.float32)
    assert_close(xpconv.batch_norm(x), expected, rtol=1e-3)


def test_no_samples_with_given_statistics(backend):
    x, mean, var = (backend.asarray(a) for a in (np.ones((0, 3, 2)), normal(3), positive(3)))
    y, pullback = xpconv.vjp(xpconv.batch_norm, x, None, None, mean, var)
    assert_close(y, np.ones((0, 3, 2)), like=x)
    assert_close(pullback(y)[0], np.ones((0, 3, 2)), like=x)


def test_what_is_no_number_stays_in_its_channel(backend):
    host = normal(4, 2)
    host[0, 0] = math.nan
    x = backend.asarray(host)
    y = xpconv.to_numpy(xpconv.batch_norm(x))
    assert np.isnan(y[:, 0]).all()
    assert np.isfinite(y[:, 1]).all()
