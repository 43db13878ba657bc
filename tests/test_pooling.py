"""max_pool and avg_pool: values and gradients by the loop oracle, by PyTorch, and where their ancestors went wrong."""

import math

import numpy as np
import pytest
import reference as ref
from applying import compiled, value_and_gradients
from cases import integers, normal, spread

import xpconv
from xpconv.compiled import compiler
from xpconv.execution import tasks
from xpconv.testing import assert_close
from xpconv.windows import reductions

GEOMETRIES = {  # shape, kernel, options
    "side by side": ((2, 3, 6, 4), 2, {}),
    "no square": ((2, 3, 7, 6), (2, 3), {"stride": (2, 1), "pad": (1, 0)}),
    "overhanging": ((2, 3, 8, 6), 3, {"stride": 2, "pad": 1, "ceil_mode": True}),
    "dilated, one axis": ((2, 3, 11), 3, {"stride": 2, "pad": ((2, 0),), "dilation": 2}),
    "three axes": ((1, 2, 5, 4, 6), (2, 3, 2), {"stride": (2, 1, 3), "pad": "same"}),
}


def draw_geometry(seed):
    """Any number of axes up to three, and windows that hold at least one element each."""
    rng = np.random.default_rng(seed)
    axes = 1 + seed % 3
    while True:
        size, kernel, stride, dilation = (
            tuple(int(n) for n in rng.integers(low, high, axes)) for low, high in ((1, 9), (1, 5), (1, 5), (1, 4))
        )
        half = [((k - 1) * d + 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
        pad = tuple((int(rng.integers(0, h + 1)), int(rng.integers(0, h + 1))) for h in half)
        options = {"stride": stride, "pad": pad, "dilation": dilation, "ceil_mode": bool(rng.random() < 0.5)}
        if all(ref.plan(size, kernel, stride, pad, dilation)[1]) and sees_elements(size, kernel, options):
            return (2, 2, *size), kernel, options


def sees_elements(size, kernel, options):
    """Whether there is an element, and not padding alone, in every window."""
    pad, _, places = ref.plan(size, kernel, **options)
    real = ref.zero_pad(np.ones(size), pad)
    return all(real[window].any() for _, window in places)


def check_max(x, backend, kernel, options, dtype="float64"):
    expected, numbers = ref.max_pool(x, kernel, **options)
    narrow = x.astype(dtype)
    (y, indices), dy, (dx,) = value_and_gradients(
        backend, xpconv.max_pool, [narrow], kernel=kernel, return_indices=True, **options
    )
    like = backend.asarray(0.0)
    assert_close(y, expected.astype(dtype), like=like, rtol=0)
    assert_close(indices, numbers, like=like)
    assert_close(dx, ref.max_pool_gradient(dy, numbers, x.shape[2:]).astype(dtype), like=like)


def check_average(x, backend, kernel, options, dtype="float64"):
    y, dy, (dx,) = value_and_gradients(backend, xpconv.avg_pool, [x.astype(dtype)], kernel=kernel, **options)
    like = backend.asarray(0.0)
    assert_close(y, ref.avg_pool(x, kernel, **options).astype(dtype), like=like)
    wanted = ref.avg_pool_gradient(dy, x.shape[2:], kernel, **options)
    assert_close(dx, wanted.astype(dtype), like=like)


# --- By the loop oracle


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_both_agree_with_the_loops(backend, name, dtype):
    shape, kernel, options = GEOMETRIES[name]
    check_max(spread(*shape), backend, kernel, options, dtype)
    check_average(normal(*shape), backend, kernel, options, dtype)


@pytest.mark.parametrize("counting", [{"count_include_pad": False}, {"divisor": 5}], ids=str)
@pytest.mark.parametrize("name", ["no square", "overhanging", "three axes"])
def test_what_a_mean_divides_by(backend, name, counting):
    shape, kernel, options = GEOMETRIES[name]
    check_average(normal(*shape), backend, kernel, options | counting)


@pytest.mark.parametrize("seed", range(60))
def test_any_geometry_agrees_with_the_loops(quick_backend, seed):
    shape, kernel, options = draw_geometry(seed)
    counting = [{}, {"count_include_pad": False}, {"divisor": 3}][seed // 3 % 3]
    check_max(spread(*shape), quick_backend, kernel, options)
    check_max(integers(3, *shape).astype(float), quick_backend, kernel, options)  # ties: the first of them
    check_average(normal(*shape), quick_backend, kernel, options | counting)


def test_both_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    x = spread(2, 3, 9, 8)
    leaf = torch.tensor(x, requires_grad=True)
    common = {"stride": 2, "ceil_mode": True}
    expected, indices = torch.nn.functional.max_pool2d(leaf, 3, padding=1, return_indices=True, **common)
    (y, found), pullback = xpconv.vjp(xpconv.max_pool, x, 3, pad=1, return_indices=True, **common)
    assert_close(y, expected.detach().numpy(), rtol=0)
    assert_close(found, indices.numpy())
    dy = normal(*y.shape, seed=9)
    assert_close(pullback(dy)[0], torch.autograd.grad(expected, leaf, torch.tensor(dy))[0].numpy())
    for include in (True, False):
        average = torch.nn.functional.avg_pool2d(leaf, 3, padding=1, count_include_pad=include, **common)
        y, pullback = xpconv.vjp(xpconv.avg_pool, x, 3, pad=1, count_include_pad=include, **common)
        assert_close(y, average.detach().numpy())
        assert_close(pullback(dy)[0], torch.autograd.grad(average, leaf, torch.tensor(dy))[0].numpy())


# --- Maxima


def pulled_back(backend, op, host, dy, **options):
    """y and the gradient of x for this dy, and an array of the backend."""

    def both(x, dy):
        y, pullback = xpconv.vjp(op, x, **options)
        return y, pullback(dy)[0]

    x = backend.asarray(host)
    return *compiled(backend, both)(x, backend.asarray(np.asarray(dy))), x


def test_the_gradient_goes_to_the_first_maximum(backend):
    dy = np.array([[[[1.0, 2], [3, 4]]]])
    (y, indices), found, x = pulled_back(
        backend, xpconv.max_pool, np.ones((1, 1, 4, 4)), dy, kernel=2, return_indices=True
    )
    dx = np.zeros((1, 1, 4, 4))
    dx[0, 0, ::2, ::2] = dy
    assert_close(y, np.ones((1, 1, 2, 2)), like=x)
    assert_close(indices, np.array([[[[0, 2], [8, 10]]]]), like=x)
    assert_close(found, dx, like=x)
    assert_close(xpconv.max_pool(x, 2), np.ones((1, 1, 2, 2)), like=x)  # without return_indices an array alone


def test_of_equal_maxima_of_overlapping_windows_each_takes_its_first(backend):
    host, dy = np.array([[[0.0, 5, 5, 0, 5]]]), np.array([[[1.0, 10, 100]]])
    (_, indices), dx, x = pulled_back(backend, xpconv.max_pool, host, dy, kernel=3, stride=1, return_indices=True)
    assert_close(indices, np.array([[[1, 1, 2]]]), like=x)
    assert_close(dx, np.array([[[0.0, 11, 100, 0, 0]]]), like=x)


def test_a_nan_is_above_everything(backend):
    nan = math.nan
    host, dy = np.array([[[1.0, nan, 3, 2, nan, nan, math.inf, 0]]]), np.array([[[5.0, 6, 7, 8]]])
    (y, indices), dx, x = pulled_back(backend, xpconv.max_pool, host, dy, kernel=2, return_indices=True)
    assert_close(y, np.array([[[nan, 3, nan, math.inf]]]), like=x)
    assert_close(indices, np.array([[[1, 2, 4, 6]]]), like=x)
    assert_close(dx, np.array([[[0.0, 5, 6, 0, 7, 0, 8, 0]]]), like=x)
    assert_close(xpconv.avg_pool(x, 2), np.array([[[nan, 2.5, nan, math.inf]]]), like=x)


@pytest.mark.parametrize("value", [-1.0, -math.inf])
def test_padding_never_wins(backend, value):  # DeZero pads with 0, and a pool of -1s gives 0
    host, dy = np.full((1, 1, 3, 3), value), np.array([[[[1.0, 2], [3, 4]]]])
    options = {"kernel": 3, "stride": 2, "pad": 1, "return_indices": True}
    (y, indices), found, x = pulled_back(backend, xpconv.max_pool, host, dy, **options)
    assert_close(y, np.full((1, 1, 2, 2), value), like=x)
    assert_close(indices, np.array([[[[0, 1], [3, 4]]]]), like=x)
    dx = np.zeros((1, 1, 3, 3))
    dx[0, 0, :2, :2] = dy
    assert_close(found, dx, like=x)


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_whole_numbers(backend, dtype):
    host = integers(100, 2, 3, 5, 5) - (0 if dtype == "uint8" else 50)
    host = host.astype(dtype)
    x = backend.asarray(host)
    options = {"kernel": 3, "stride": 2, "pad": 1, "return_indices": True}
    y, indices = compiled(backend, lambda x: xpconv.max_pool(x, **options))(x)
    expected, numbers = ref.max_pool(host, 3, stride=2, pad=1)
    assert_close(y, expected, like=x)
    assert_close(indices, numbers, like=x)


@pytest.mark.parametrize("op", [xpconv.max_pool, xpconv.avg_pool])
def test_an_empty_batch(backend, op):
    y, dx, x = pulled_back(backend, op, np.ones((0, 3, 4, 4)), np.ones((0, 3, 2, 2)), kernel=2)
    assert_close(y, np.ones((0, 3, 2, 2)), like=x)
    assert_close(dx, np.ones((0, 3, 4, 4)), like=x)


# --- Means, and the shell


def test_the_mean_of_a_window_that_is_no_square_has_a_gradient(backend):  # DeZero swaps height and width here
    host, dy = np.arange(24.0).reshape(1, 1, 4, 6), np.array([[[[6.0, 12], [18, 24]]]])
    y, dx, x = pulled_back(backend, xpconv.avg_pool, host, dy, kernel=(2, 3))
    assert_close(y, np.array([[[[4.0, 7], [16, 19]]]]), like=x)
    assert_close(dx, np.kron(dy / 6, np.ones((2, 3))), like=x)


def test_the_shell_pads(backend):  # the book's forgets pad in the size of its result, and raises
    host = -1 - integers(9, 2, 3, 4, 4).astype(float)
    x = backend.asarray(host)
    layer = xpconv.Pooling(2, 2, stride=2, pad=1)
    expected, indices = ref.max_pool(host, 2, stride=2, pad=1)
    assert_close(layer.forward(x), expected, like=x)
    dy = normal(*expected.shape, seed=9)
    assert_close(layer.backward(backend.asarray(dy)), ref.max_pool_gradient(dy, indices, (4, 4)), like=x)


def test_without_a_stride_windows_lie_side_by_side():
    x = spread(1, 1, 6, 9)
    assert_close(xpconv.max_pool(x, (2, 3)), ref.max_pool(x, (2, 3), (2, 3))[0], rtol=0)
    assert_close(xpconv.avg_pool(x, (2, 3)), ref.avg_pool(x, (2, 3), (2, 3)))


# --- Bands


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("numbers", [1, 60])
def test_bands_of_any_size_give_the_same(monkeypatch, numbers, seed):
    """On NumPy, where there are no compiled loops, the work is cut into bands; where the cuts lie must not matter."""
    monkeypatch.setattr(compiler, "available", lambda: False)
    monkeypatch.setattr(tasks, "TASK", 4 * numbers)
    monkeypatch.setattr(tasks, "ALONE", 0)
    monkeypatch.setattr(reductions, "LEAST", 0)
    shape, kernel, options = draw_geometry(300 + seed)
    numpy = xpconv.backend("numpy")
    check_max(spread(*shape), numpy, kernel, options)
    check_max(integers(3, *shape).astype(float), numpy, kernel, options)
    check_average(normal(*shape), numpy, kernel, options | [{}, {"count_include_pad": False}, {"divisor": 3}][seed % 3])
