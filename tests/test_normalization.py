"""Layer, group, instance and local response normalization, by the oracle and by PyTorch; precision of all of them."""

import functools

import numpy as np
import pytest
import reference_norms as norms
from applying import compiled, value_and_gradients
from cases import normal, positive

import xpconv
from xpconv.testing import assert_close

PER_CHANNEL = [(3, 6), (2, 6, 5), (2, 6, 3, 4), (2, 6, 2, 3, 2), (2, 6, 2, 1, 3, 2)]


def scale_and_shift(shape, which):
    return positive(*shape) if "gamma" in which else None, normal(*shape) if "beta" in which else None


def agrees_with_pytorch(op, function, hosts, **options):
    """Value and every gradient, in float64."""
    torch = pytest.importorskip("torch")
    leaves = [torch.tensor(host, requires_grad=True) for host in hosts]
    expected = function(torch.nn.functional, *leaves)
    y, pullback = xpconv.vjp(op, *hosts, **options)
    assert_close(y, expected.detach().numpy())
    dy = normal(*y.shape, seed=9)
    for gradient, wanted in zip(pullback(dy), torch.autograd.grad(expected, leaves, torch.tensor(dy)), strict=True):
        assert_close(gradient, wanted.numpy())


# --- Group and instance normalization


@pytest.mark.parametrize("which", ["gamma and beta", "gamma", "beta", ""])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("shape", PER_CHANNEL, ids=str)
def test_group_norm(backend, shape, groups, which):
    hosts = normal(*shape), *scale_and_shift((6,), which)
    arrays = [None if host is None else backend.asarray(host) for host in hosts]
    y = compiled(backend, functools.partial(xpconv.group_norm, groups=groups, eps=1e-3))(*arrays)
    assert_close(y, norms.group_norm(hosts[0], groups, *hosts[1:], eps=1e-3), like=arrays[0])


@pytest.mark.parametrize("shape", PER_CHANNEL[1:], ids=str)
def test_instance_norm(backend, shape):
    hosts = normal(*shape), positive(6), normal(6)
    arrays = [backend.asarray(host) for host in hosts]
    assert_close(xpconv.instance_norm(*arrays), norms.instance_norm(*hosts), like=arrays[0])


@pytest.mark.parametrize("shape", PER_CHANNEL[:4], ids=str)
def test_group_norm_agrees_with_pytorch(shape):
    hosts = normal(*shape), positive(6), normal(6)
    agrees_with_pytorch(xpconv.group_norm, lambda f, x, g, b: f.group_norm(x, 3, g, b, 1e-5), hosts, groups=3)


@pytest.mark.parametrize("shape", PER_CHANNEL[1:4], ids=str)
def test_instance_norm_agrees_with_pytorch(shape):
    hosts = normal(*shape), positive(6), normal(6)
    agrees_with_pytorch(
        xpconv.instance_norm, lambda f, x, g, b: f.instance_norm(x, weight=g, bias=b, eps=0.1), hosts, eps=0.1
    )


# --- Layer normalization


@pytest.mark.parametrize("axis", [-1, 1, -2])
@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 5), (2, 3, 4, 2)], ids=str)
def test_layer_norm(backend, shape, axis):
    behind = shape[axis:]
    hosts = normal(*shape), positive(*behind), normal(*behind)
    x, gamma, beta = (backend.asarray(host) for host in hosts)
    assert_close(xpconv.layer_norm(x, gamma, beta, axis=axis), norms.layer_norm(hosts[0], behind, *hosts[1:]), like=x)
    assert_close(xpconv.layer_norm(x, axis=axis, eps=0.1), norms.layer_norm(hosts[0], behind, eps=0.1), like=x)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_layer_norm_agrees_with_pytorch(axis):
    shape = (2, 3, 4, 5)
    hosts = normal(*shape), positive(*shape[axis:]), normal(*shape[axis:])
    agrees_with_pytorch(
        xpconv.layer_norm, lambda f, x, g, b: f.layer_norm(x, shape[axis:], g, b, 1e-5), hosts, axis=axis
    )


# --- Local response normalization


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 15])
@pytest.mark.parametrize("shape", [(3, 7), (2, 7, 3), (2, 7, 2, 3), (2, 1, 3)], ids=str)
def test_local_response_norm(backend, shape, size):
    host = 2 * normal(*shape)
    x = backend.asarray(host)
    options = {"alpha": 0.3, "beta": 0.6, "k": 1.5}
    expected = norms.local_response_norm(host, size, **options)
    assert_close(xpconv.local_response_norm(x, size, **options), expected, like=x)


@pytest.mark.parametrize("size", [2, 3, 15])
def test_local_response_norm_agrees_with_pytorch(size):
    agrees_with_pytorch(
        xpconv.local_response_norm,
        lambda f, x: f.local_response_norm(x, size, 0.3, 0.6, 1.5),
        [2 * normal(2, 7, 4)],
        size=size,
        alpha=0.3,
        beta=0.6,
        k=1.5,
    )


# --- Precision


@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_a_mean_far_from_zero_costs_little(backend, mean):
    """Float32 numbers of unit variance around a large mean, 40,000 a channel; the oracle takes the same numbers."""
    host = (mean + normal(4, 2, 100, 100)).astype("float32")
    x = backend.asarray(host)
    y, _, var = xpconv.batch_norm(x, return_statistics=True)
    exact = host.astype("float64")
    assert_close(var, exact.var(axis=(0, 2, 3)).astype("float32"), like=x, rtol=1e-4)
    assert_close(y, norms.batch_norm(exact).astype("float32"), like=x, rtol=0, atol=2e-6 * mean)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "group_norm", "instance_norm", "local_response_norm"])
def test_narrow_dtypes_add_up_in_float32(backend, name, dtype):
    """The sums overflow float16 and drown in bfloat16; the result is that of the oracle, rounded once."""
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    xp = backend.xp
    x = xp.astype(backend.asarray((100 + 10 * normal(2, 4, 30, 40)).astype("float32")), getattr(xp, dtype))
    exact = xpconv.to_numpy(xp.astype(x, xp.float32)).astype("float64")  # the numbers as this dtype has them
    expected = {
        "batch_norm": lambda: norms.batch_norm(exact),
        "layer_norm": lambda: norms.layer_norm(exact, exact.shape[1:]),
        "group_norm": lambda: norms.group_norm(exact, 2),
        "instance_norm": lambda: norms.instance_norm(exact),
        "local_response_norm": lambda: norms.local_response_norm(exact, 3),
    }[name]()
    options = {"group_norm": {"groups": 2}, "local_response_norm": {"size": 3}}.get(name, {})
    y, pullback = xpconv.vjp(getattr(xpconv, name), x, **options)
    assert y.dtype == x.dtype and pullback(y)[0].dtype == x.dtype
    eps = float(xp.finfo(y.dtype).eps)
    assert_close(xp.astype(y, xp.float32), expected.astype("float32"), like=x, rtol=0.51 * eps)


@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "instance_norm"])
def test_memory_is_channels_last_and_the_order_given_does_not_matter(name):
    first = normal(2, 4, 3, 5)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(first, 1, -1)), -1, 1)
    options = {"groups": 2} if name == "group_norm" else {}
    hosts = positive(4), normal(4)
    y, dy, gradients = value_and_gradients(xpconv.backend("numpy"), getattr(xpconv, name), (first, *hosts), **options)
    other, pullback = xpconv.vjp(getattr(xpconv, name), last, *hosts, **options)
    assert_close(other, y)
    for gradient, expected in zip(pullback(np.asfortranarray(dy)), gradients, strict=True):
        assert_close(gradient, expected)
    assert np.moveaxis(y, 1, -1).flags.c_contiguous and np.moveaxis(other, 1, -1).flags.c_contiguous


# --- What does not fit

X = normal(2, 6, 4)


@pytest.mark.parametrize(
    ("name", "arrays", "options", "error", "says"),
    [
        ("group_norm", [X], {"groups": 4}, ValueError, "6 channels and groups is 4; give a divisor of 6"),
        ("group_norm", [X], {"groups": 0}, ValueError, "groups is 0"),
        ("group_norm", [X], {"groups": 2.0}, TypeError, "groups is 2.0"),
        ("group_norm", [X], {}, TypeError, "groups"),
        ("group_norm", [X, normal(2)], {"groups": 2}, ValueError, "gamma has shape (2,); give (6,)"),
        ("group_norm", [normal(6)], {"groups": 2}, ValueError, "x has shape (6,); give (N, C)"),
        ("group_norm", [normal(2, 6, 0)], {"groups": 2}, ValueError, "x has shape (2, 6, 0); give at least"),
        (
            "instance_norm",
            [normal(2, 6)],
            {},
            ValueError,
            "x has shape (2, 6)",
        ),
        ("instance_norm", [X], {"eps": -1}, ValueError, "eps is -1"),
        ("instance_norm", [X.astype("int64")], {}, TypeError, "int64"),
        ("layer_norm", [X, normal(6)], {}, ValueError, "gamma has shape (6,); give (6, 4)"),
        ("layer_norm", [X, None, normal(6)], {"axis": -1}, ValueError, "beta has shape (6,); give (4,)"),
        ("layer_norm", [X], {"axis": 3}, ValueError, "axis is 3"),
        ("layer_norm", [X], {"eps": 0}, ValueError, "eps is 0"),
        ("layer_norm", [X, normal(6, 4).astype("float32")], {}, TypeError, "float32"),
        ("layer_norm", [normal(2, 0)], {}, ValueError, "x has shape (2, 0); give at least one element"),
        ("local_response_norm", [normal(6)], {"size": 3}, ValueError, "x has shape (6,)"),
        ("local_response_norm", [X], {"size": 0}, ValueError, "size is 0"),
        ("local_response_norm", [X], {"size": 1.5}, TypeError, "size is 1.5"),
        ("local_response_norm", [X], {"size": 3, "k": 0}, ValueError, "k is 0"),
        ("local_response_norm", [X], {"size": 3, "alpha": -1}, ValueError, "alpha -1"),
    ],
)
def test_bad_input(name, arrays, options, error, says):
    with pytest.raises(error) as caught:
        getattr(xpconv, name)(*arrays, **options)
    assert says in str(caught.value)


def test_an_empty_batch_gives_an_empty_result(backend):
    x, gamma = backend.asarray(np.zeros((0, 4, 3))), backend.asarray(positive(4))
    for op, options in ((xpconv.group_norm, {"groups": 2}), (xpconv.instance_norm, {})):
        y, pullback = xpconv.vjp(op, x, gamma, **options)
        assert y.shape == (0, 4, 3)
        assert_close(pullback(y)[1], np.zeros(4), like=x)
    assert xpconv.layer_norm(x).shape == (0, 4, 3)
