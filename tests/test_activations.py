"""Activations and softmax, element by element against Python's own math, and in their tails; gradients by PyTorch."""

import math

import numpy as np
import pytest
import reference_norms as norms
from cases import normal, spread

import xpconv
from xpconv.testing import assert_close

GRID = np.concatenate([np.linspace(-30, 30, 241), [-1e-300, 0.0, 1e-300, -700.0, 700.0]])


def logistic(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def gelu_by_tanh(x):
    """With (1 + tanh(z)) / 2 = logistic(2 z), which keeps its digits below zero."""
    return x * logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


# name, options, the function of one number, its namesake in PyTorch
ELEMENTWISE = [
    ("leaky_relu", {}, lambda x: x if x > 0 else 0.01 * x, lambda t, x: t.leaky_relu(x)),
    ("leaky_relu", {"slope": 1.5}, lambda x: x if x > 0 else 1.5 * x, lambda t, x: t.leaky_relu(x, 1.5)),
    ("leaky_relu", {"slope": -0.5}, lambda x: x if x > 0 else -0.5 * x, lambda t, x: t.leaky_relu(x, -0.5)),
    ("elu", {}, lambda x: x if x > 0 else math.expm1(x), lambda t, x: t.elu(x)),
    ("elu", {"alpha": 0.4}, lambda x: x if x > 0 else 0.4 * math.expm1(x), lambda t, x: t.elu(x, 0.4)),
    ("gelu", {}, lambda x: x * math.erfc(-x / math.sqrt(2)) / 2, lambda t, x: t.gelu(x)),
    ("gelu", {"approximate": "tanh"}, gelu_by_tanh, lambda t, x: t.gelu(x, approximate="tanh")),
    ("silu", {}, lambda x: x * logistic(x), lambda t, x: t.silu(x)),
    ("sigmoid", {}, logistic, lambda t, x: t.sigmoid(x)),
    ("tanh", {}, math.tanh, lambda t, x: t.tanh(x)),
]
NAMES = ["-".join([name, *map(str, options.values())]) for name, options, _, _ in ELEMENTWISE]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "options", "function", "_"), ELEMENTWISE, ids=NAMES)
def test_values_keep_their_digits_in_the_tails(backend, name, options, function, _, dtype):
    """Each element by itself, as a share of itself: what is small is as precise as what is large."""
    host = GRID.astype(dtype)
    x = backend.asarray(host)
    y = getattr(xpconv, name)(x, **options)
    expected = np.array([function(float(v)) for v in host]).astype(dtype)
    assert_close(y, expected, like=x)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    there = np.abs(expected) > tiny / eps  # libraries may flush what is smaller to zero
    expected = expected[there].astype(float)
    # exp(z) is as uncertain as z, which is rounded, here and in the libraries
    bound = eps * np.abs(expected) * (8 + 4 * np.abs(np.log(np.abs(expected))))
    assert np.all(np.abs(xpconv.to_numpy(y)[there] - expected) <= bound)


@pytest.mark.parametrize(("name", "options", "_", "function"), ELEMENTWISE, ids=NAMES)
def test_gradients_agree_with_pytorch(name, options, _, function):
    torch = pytest.importorskip("torch")
    hosts = [6 * spread(5, 4, 3)]
    leaf = torch.tensor(hosts[0], requires_grad=True)
    expected = function(torch.nn.functional, leaf)
    y, pullback = xpconv.vjp(getattr(xpconv, name), *hosts, **options)
    assert_close(y, expected.detach().numpy())
    dy = normal(*y.shape, seed=9)
    assert_close(pullback(dy)[0], torch.autograd.grad(expected, leaf, torch.tensor(dy))[0].numpy())


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3, 1, 2, 2)], ids=str)
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh"])
def test_any_shape(backend, name, shape):
    x = backend.asarray(np.zeros(shape))
    y, pullback = xpconv.vjp(getattr(xpconv, name), x)
    assert_close(y, np.full(shape, 0.5 if name == "sigmoid" else 0.0), like=x)
    assert pullback(y)[0].shape == shape


@pytest.mark.parametrize("name", ["leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh"])
def test_what_is_not_a_number_stays_that_and_infinity_has_its_limit(backend, name):
    lowest = {"leaky_relu": -math.inf, "elu": -1.0, "sigmoid": 0.0, "tanh": -1.0}
    highest = 1.0 if name in ("sigmoid", "tanh") else math.inf
    ends = [math.inf, -math.inf] if name in lowest else [math.inf]
    x = backend.asarray(np.array([math.nan, *ends]))
    expected = np.array([math.nan, highest, lowest.get(name, 0)])[: x.shape[0]]
    assert_close(getattr(xpconv, name)(x), expected, like=x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "options", "function", "_"), ELEMENTWISE, ids=NAMES)
def test_narrow_dtypes_are_rounded_once(backend, name, options, function, _, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    xp = backend.xp
    x = xp.astype(backend.asarray(np.linspace(-9, 9, 61)), getattr(xp, dtype))
    exact = xpconv.to_numpy(xp.astype(x, xp.float64))
    y = getattr(xpconv, name)(x, **options)
    assert y.dtype == x.dtype
    expected = np.array([function(v) for v in exact])
    # float16 has no normal numbers below 6e-5
    np.testing.assert_allclose(
        xpconv.to_numpy(xp.astype(y, xp.float64)), expected, rtol=0.51 * float(xp.finfo(y.dtype).eps), atol=1e-7
    )


# --- PReLU


@pytest.mark.parametrize("slopes", [4, 1])
@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 5), (2, 4, 3, 2)], ids=str)
def test_prelu(backend, shape, slopes):
    hosts = spread(*shape), normal(slopes)
    x, slope = map(backend.asarray, hosts)
    y, pullback = xpconv.vjp(xpconv.prelu, x, slope)
    dy = normal(*shape, seed=9)
    dx, dslope = np.zeros(shape), np.zeros(slopes)
    expected = np.zeros(shape)
    for at in np.ndindex(shape):
        a = at[1] % slopes
        above = hosts[0][at] > 0
        expected[at] = hosts[0][at] * (1 if above else hosts[1][a])
        dx[at] = dy[at] * (1 if above else hosts[1][a])
        dslope[a] += 0 if above else dy[at] * hosts[0][at]
    assert_close(y, expected, like=x)
    for gradient, wanted in zip(pullback(backend.asarray(dy)), (dx, dslope), strict=True):
        assert_close(gradient, wanted, like=x)


# --- Softmax


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 3, 2, 2)], ids=str)
def test_softmax_and_its_logarithm(backend, shape, axis):
    host = 3 * normal(*shape)
    x = backend.asarray(host)
    expected = np.moveaxis(norms.softmax(np.moveaxis(host, axis, -1)), -1, axis)
    assert_close(xpconv.softmax(x, axis=axis), expected, like=x)
    assert_close(xpconv.log_softmax(x, axis=axis), np.log(expected), like=x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_agrees_with_pytorch(name):
    torch = pytest.importorskip("torch")
    host = 3 * normal(2, 5, 3)
    leaf = torch.tensor(host, requires_grad=True)
    expected = getattr(torch.nn.functional, name)(leaf, dim=1)
    y, pullback = xpconv.vjp(getattr(xpconv, name), host)
    assert_close(y, expected.detach().numpy())
    dy = normal(*y.shape, seed=9)
    assert_close(pullback(dy)[0], torch.autograd.grad(expected, leaf, torch.tensor(dy))[0].numpy())


def test_softmax_of_large_scores(backend):
    x = backend.asarray(np.array([[1000.0, 1000.0, -1000.0, -math.inf]]))
    assert_close(xpconv.softmax(x), np.array([[0.5, 0.5, 0.0, 0.0]]), like=x)
    expected = np.array([[-math.log(2), -math.log(2), -2000 - math.log(2), -math.inf]])
    assert_close(xpconv.log_softmax(x), expected, like=x)


# --- What does not fit


@pytest.mark.parametrize(
    ("name", "arrays", "options", "error", "says"),
    [
        ("gelu", [normal(3)], {"approximate": "erf"}, ValueError, "approximate is 'erf'"),
        ("gelu", [np.arange(3)], {}, TypeError, "int64"),
        ("silu", [3.0], {}, TypeError, "x is a float"),
        ("tanh", [normal(3).astype("complex128")], {}, TypeError, "complex128"),
        ("leaky_relu", [normal(3)], {"alpha": 1}, TypeError, "alpha"),
        ("prelu", [normal(2, 3), normal(2)], {}, ValueError, "slope (2,); give x (N, C, ...) and slope (C,) or (1,)"),
        ("prelu", [normal(3), normal(1)], {}, ValueError, "x has shape (3,)"),
        ("prelu", [normal(2, 3), normal(3).astype("float32")], {}, TypeError, "float32"),
        ("softmax", [normal(3)], {}, ValueError, "x has shape (3,) and axis is 1"),
        ("softmax", [normal(3, 0)], {}, ValueError, "at least 1 element"),
        ("log_softmax", [normal(3, 2)], {"axis": -3}, ValueError, "axis is -3"),
    ],
)
def test_bad_input(name, arrays, options, error, says):
    with pytest.raises(error) as caught:
        getattr(xpconv, name)(*arrays, **options)
    assert says in str(caught.value)
