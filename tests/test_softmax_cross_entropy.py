"""softmax_cross_entropy: labels, one-hot rows and probabilities, by the oracle."""

import math

import numpy as np
import pytest
import reference_norms as norms
from applying import compiled
from cases import integers, normal, positive

import xpconv
from xpconv.testing import assert_close


def pulled_back(backend, scores, t, dy=1.0):
    """The loss, the gradients for this dy, and an array of the backend."""

    def both(x, t, dy):
        loss, pullback = xpconv.vjp(xpconv.softmax_cross_entropy, x, t)
        return loss, pullback(dy)

    x = backend.asarray(scores)
    return *compiled(backend, both)(x, backend.asarray(t), backend.asarray(np.asarray(dy, scores.dtype))), x


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_labels_agree_with_the_oracle(backend, dtype):
    scores, labels = 3 * normal(6, 4), integers(4, 6)
    loss, (dx, dt), x = pulled_back(backend, scores.astype(dtype), labels, 2.5)
    assert_close(loss, np.asarray(norms.softmax_cross_entropy(scores, labels), dtype), like=x)
    assert_close(dx, (2.5 * norms.softmax_cross_entropy_gradient(scores, labels)).astype(dtype), like=x)
    assert dt is None


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_one_hot_rows_are_labels(backend, dtype):
    scores, labels = normal(6, 4), integers(4, 6)
    loss, (dx, _), x = pulled_back(backend, scores, np.eye(4)[labels].astype(dtype))
    assert_close(loss, norms.softmax_cross_entropy(scores, labels), like=x)
    assert_close(dx, norms.softmax_cross_entropy_gradient(scores, labels), like=x)


def test_probabilities(backend):
    scores, wanted = normal(5, 3), positive(5, 3)
    wanted /= wanted.sum(axis=1, keepdims=True)
    x, t = backend.asarray(scores), backend.asarray(wanted)
    expected = -np.mean(np.sum(wanted * np.log(norms.softmax(scores)), axis=1))
    assert_close(xpconv.softmax_cross_entropy(x, t), expected, like=x)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_labels_of_any_whole_dtype(backend, dtype):
    labels = integers(4, 6).astype(dtype)
    x = backend.asarray(normal(6, 4))
    loss = xpconv.softmax_cross_entropy(x, backend.asarray(labels))
    assert_close(loss, norms.softmax_cross_entropy(normal(6, 4), labels), like=x)


def test_more_classes_than_the_labels_dtype_counts(backend):
    scores, labels = normal(2, 300), np.array([3, 127], dtype=np.int8)
    loss, (dx, _), x = pulled_back(backend, scores, labels)
    assert_close(loss, norms.softmax_cross_entropy(scores, labels), like=x)
    assert_close(dx, norms.softmax_cross_entropy_gradient(scores, labels), like=x)


def test_large_scores_do_not_overflow(backend):
    scores = np.array([[1000.0, 0.0, -1000.0], [-1000.0, -1000.0, -1000.0]])
    loss, (dx, _), x = pulled_back(backend, scores, np.array([1, 2]))
    assert_close(loss, (1000 + math.log(3)) / 2, like=x)
    assert_close(dx, np.array([[1.0, -1, 0], [1 / 3, 1 / 3, -2 / 3]]) / 2, like=x)


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    x, labels = torch.tensor(normal(6, 4), requires_grad=True), integers(4, 6)
    expected = torch.nn.functional.cross_entropy(x, torch.tensor(labels))
    loss, pullback = xpconv.vjp(xpconv.softmax_cross_entropy, normal(6, 4), labels)
    assert_close(loss, expected.detach().numpy())
    assert_close(pullback(np.asarray(1.0))[0], torch.autograd.grad(expected, x)[0].numpy())
