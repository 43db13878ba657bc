"""Differentiation beyond a first real gradient: gradients of gradients, complex numbers, and memory given back."""

import gc
import weakref

import numpy as np
import pytest
from cases import normal, spread

import xpconv
from xpconv.arrays.libraries import strictest
from xpconv.testing import assert_close

SMOOTH = {
    "conv": ([normal(1, 2, 5, 4), normal(4, 1, 3, 2), normal(4)], {"stride": (2, 1), "pad": 1, "groups": 2}),
    "conv_transpose": ([normal(1, 2, 3, 2), normal(2, 2, 2, 3), normal(4)], {"stride": 2, "pad": 1, "groups": 2}),
    "max_pool": ([spread(1, 2, 5, 4)], {"kernel": 2, "pad": 1}),
    "avg_pool": ([normal(1, 2, 5, 4)], {"kernel": 2, "pad": 1}),
    "lp_pool": ([spread(1, 2, 5, 4)], {"kernel": 2, "p": 3}),
    "adaptive_max_pool": ([spread(1, 2, 5, 4)], {"output_size": 3}),
    "adaptive_avg_pool": ([normal(1, 2, 5, 4)], {"output_size": 3}),
    "pad": ([normal(1, 2, 3, 4)], {"pad": 2, "mode": "reflect"}),
    "interpolate": ([normal(1, 2, 3, 4)], {"output_size": 5, "mode": "linear"}),
    "batch_norm": ([normal(3, 2, 4), normal(2) ** 2 + 1, normal(2)], {}),
}


@pytest.fixture
def jax():
    module = pytest.importorskip("jax")
    with strictest(xpconv.backend("jax")):
        yield module


@pytest.mark.parametrize("name", SMOOTH)
def test_pytorch_differentiates_gradients(name):
    torch = pytest.importorskip("torch")
    hosts, options = SMOOTH[name]
    leaves = [torch.tensor(host, requires_grad=True) for host in hosts]
    op = getattr(xpconv, name)
    assert torch.autograd.gradgradcheck(lambda *arrays: op(*arrays, **options), leaves, fast_mode=True)


def test_the_gradient_of_dropouts_gradient_drops_the_same():
    torch = pytest.importorskip("torch")
    x = torch.tensor(normal(50), requires_grad=True)
    y = xpconv.dropout(x, ratio=0.5, rng=np.random.default_rng(0))
    dy = torch.ones_like(y, requires_grad=True)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    np.testing.assert_array_equal(dx.detach().numpy() != 0, y.detach().numpy() != 0)


@pytest.mark.parametrize("op", [xpconv.relu, xpconv.sigmoid, xpconv.max_pool])
def test_pytorch_frees_what_a_result_held(op):
    torch = pytest.importorskip("torch")
    x = torch.tensor(normal(1, 1, 4), requires_grad=True)
    y = op(x, 2) if op is xpconv.max_pool else op(x)
    node = weakref.ref(y.grad_fn)
    gc.disable()
    try:
        del y
        assert node() is None  # by reference counting alone: nothing refers to itself
    finally:
        gc.enable()


def complex_normal(*shape):
    return normal(*shape) + 1j * normal(*shape, seed=1)


@pytest.mark.parametrize(("name", "weight"), [("conv", (4, 1, 2, 2)), ("conv_transpose", (2, 2, 2, 2))])
def test_complex_gradients_are_the_derivatives_to_pytorch(name, weight):
    torch = pytest.importorskip("torch")
    op = getattr(xpconv, name)
    leaves = [torch.tensor(complex_normal(*s), requires_grad=True) for s in ((1, 2, 4, 3), weight, (4,))]
    assert torch.autograd.gradcheck(lambda *arrays: op(*arrays, stride=2, pad=1, groups=2), leaves)


def test_complex_gradients_are_those_of_jax(jax):
    x, w, b = (jax.numpy.asarray(complex_normal(*s)) for s in ((1, 2, 4, 3), (4, 1, 2, 2), (4,)))

    def theirs(x, w, b):
        y = jax.lax.conv_general_dilated(x, w, (2, 1), [(1, 1), (0, 2)], feature_group_count=2)
        return y + b[:, None, None]

    def ours(x, w, b):
        return xpconv.conv(x, w, b, stride=(2, 1), pad=(1, (0, 2)), groups=2)

    y, pullback = jax.vjp(ours, x, w, b)
    expected, wanted = jax.vjp(theirs, x, w, b)
    assert_close(y, np.asarray(expected), like=x)
    dy = jax.numpy.asarray(complex_normal(*y.shape))
    for found, gradient in zip(pullback(dy), wanted(dy), strict=True):
        assert_close(found, np.asarray(gradient), like=x)


def test_second_derivatives_are_those_of_jax(jax):
    x, w = jax.numpy.asarray(normal(1, 2, 4, 3)), jax.numpy.asarray(normal(3, 2, 2, 2))

    def bent(conv):
        slope = jax.grad(lambda x: jax.numpy.sum(conv(x, w) ** 3))
        return jax.grad(lambda x: jax.numpy.sum(slope(x) ** 2))(x)

    expected = bent(lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), [(1, 1), (1, 1)]))
    assert_close(bent(lambda x, w: xpconv.conv(x, w, pad=1)), np.asarray(expected), like=x)
