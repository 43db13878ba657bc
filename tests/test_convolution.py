"""conv: forward and every gradient by the loop oracle, by SciPy, and by properties that any convolution has."""

import inspect

import numpy as np
import pytest
import reference as ref
from applying import compiled, value_and_gradients
from cases import integers, normal

import xpconv
from xpconv.testing import assert_close, check_vjp

GEOMETRIES = {  # x, weight, options
    "the chapter's": ((2, 3, 7, 7), (4, 3, 5, 5), {}),
    "one axis, stride above kernel": ((2, 3, 11), (4, 3, 2), {"stride": 3, "pad": 1}),
    "groups, a pair for each axis": (
        (2, 4, 7, 6),
        (6, 2, 3, 2),
        {"stride": (2, 1), "pad": ((1, 2), (0, 1)), "groups": 2},
    ),
    "depthwise, stride and dilation share a factor": (
        (2, 3, 12, 9),
        (6, 1, 3, 2),
        {"stride": (4, 2), "dilation": (2, 4), "pad": "same", "groups": 3},
    ),
    "windows that lie on padding alone": ((1, 2, 2), (3, 2, 1), {"stride": 4, "pad": ((2, 0),)}),
    "three axes": ((1, 2, 5, 4, 6), (3, 2, 2, 3, 2), {"stride": (1, 2, 3), "pad": (0, 1, 1), "dilation": (2, 1, 1)}),
}
OPTIONS = ("stride", "pad", "dilation", "groups")


def draw_geometry(seed):
    """x, weight and options, of one to three axes, that fit together."""
    rng = np.random.default_rng(seed)
    axes = 1 + seed % 3
    while True:
        size, kernel, stride, dilation = (
            tuple(int(n) for n in rng.integers(low, high, axes)) for low, high in ((1, 9), (1, 5), (1, 5), (1, 4))
        )
        pad = "same" if rng.random() < 0.2 else tuple((int(a), int(b)) for a, b in rng.integers(0, 4, (axes, 2)))
        groups, width, filters = (int(n) for n in rng.integers(1, 4, 3))
        options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
        if all(ref.plan(size, kernel, stride, pad, dilation)[1]):
            return (2, groups * width, *size), (groups * filters, width, *kernel), options


def check_against_loops(geometry, backend, dtype="float64"):
    x_shape, weight_shape, options = geometry
    hosts = normal(*x_shape), normal(*weight_shape), normal(weight_shape[0])
    narrow = [host.astype(dtype) for host in hosts]
    y, dy, gradients = value_and_gradients(backend, xpconv.conv, narrow, **options)
    like = backend.asarray(0.0)
    assert_close(y, ref.conv(*hosts, **options).astype(dtype), like=like)
    for found, wanted in zip(gradients, ref.conv_gradients(dy, *hosts[:2], **options), strict=True):
        assert_close(found, wanted.astype(dtype), like=like)


# --- By the loop oracle


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_forward_and_gradients_agree_with_the_loops(backend, name, dtype):
    check_against_loops(GEOMETRIES[name], backend, dtype)


@pytest.mark.parametrize("seed", range(60))
def test_any_geometry_agrees_with_the_loops(quick_backend, seed):
    check_against_loops(draw_geometry(seed), quick_backend)


def test_without_bias_there_is_no_gradient_for_one():
    x, weight = normal(2, 3, 5), normal(4, 3, 2)
    y, pullback = xpconv.vjp(xpconv.conv, x, weight)
    assert_close(y, ref.conv(x, weight))
    assert len(pullback(y)) == 2
    y, pullback = xpconv.vjp(xpconv.conv, x, weight, None)
    assert pullback(y)[2] is None


def test_complex_numbers(backend):
    def draw(*shape):
        return normal(*shape) + 1j * normal(*shape, seed=1)

    hosts = draw(2, 4, 6, 5), draw(6, 2, 3, 2), draw(6)
    options = {"stride": 2, "pad": 1, "groups": 2}
    y, dy, gradients = value_and_gradients(backend, xpconv.conv, hosts, **options)
    like = backend.asarray(0.0)
    assert_close(y, ref.conv(*hosts, **options), like=like)
    dy = dy.astype(complex)
    for found, wanted in zip(gradients, ref.conv_gradients(dy, *hosts[:2], **options), strict=True):
        assert_close(found, wanted, like=like)


def test_whole_numbers_stay_exact(backend):
    hosts = integers(100, 2, 3, 6, 5), integers(100, 4, 3, 3, 2), integers(100, 4)
    arrays = [backend.asarray(host) for host in hosts]
    y = compiled(backend, lambda *arrays: xpconv.conv(*arrays, stride=2, pad=1))(*arrays)
    assert_close(y, ref.conv(*hosts, stride=2, pad=1), like=arrays[0])


# --- By others


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_conv_is_scipys_correlate(backend, axes):
    signal = pytest.importorskip("scipy.signal")
    x, weight = normal(2, 3, *(6, 7, 5)[:axes]), normal(4, 3, *(3, 2, 4)[:axes])
    expected = [[sum(signal.correlate(c, k, "valid") for c, k in zip(n, o, strict=True)) for o in weight] for n in x]
    moved = backend.asarray(x)
    assert_close(compiled(backend, xpconv.conv)(moved, backend.asarray(weight)), np.asarray(expected), like=moved)


def test_the_size_of_mnists_first_layer_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    x, weight, bias = normal(5, 1, 28, 28), normal(30, 1, 5, 5), normal(30)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    expected = torch.nn.functional.conv2d(*leaves)
    dy = normal(*expected.shape, seed=9)
    y, pullback = xpconv.vjp(xpconv.conv, x, weight, bias)
    assert_close(y, expected.detach().numpy())
    for found, wanted in zip(pullback(dy), torch.autograd.grad(expected, leaves, torch.tensor(dy)), strict=True):
        assert_close(found, wanted.numpy())


# --- Properties


def test_a_kernel_of_one_tap_mixes_channels(backend):
    x, weight = backend.asarray(normal(2, 3, 4, 5)), backend.asarray(normal(6, 3, 1, 1))
    expected = np.einsum("nchw,oc->nohw", normal(2, 3, 4, 5), normal(6, 3, 1, 1)[:, :, 0, 0])
    assert_close(xpconv.conv(x, weight), expected, like=x)


def test_an_impulse_gives_the_turned_kernel(backend):
    impulse = np.zeros((1, 1, 5, 5))
    impulse[0, 0, 2, 2] = 1
    weight = normal(1, 1, 3, 3)
    x = backend.asarray(impulse)
    expected = np.zeros((1, 1, 5, 5))
    expected[0, 0, 1:4, 1:4] = weight[0, 0, ::-1, ::-1]
    assert_close(xpconv.conv(x, backend.asarray(weight), pad=1), expected, like=x, rtol=0)


def test_the_gradients_are_adjoints_at_the_size_of_a_layer(backend):
    """Larger than the loops can go: <conv(x), dy> == <x, dx> == <w, dw>."""
    hosts = normal(4, 16, 28, 28), normal(32, 16, 3, 3)
    y, dy, (dx, dw) = value_and_gradients(backend, xpconv.conv, hosts, stride=2, pad=1)
    wanted = np.vdot(xpconv.to_numpy(y), dy)
    tolerance = 1e-10 * np.linalg.norm(xpconv.to_numpy(y)) * np.linalg.norm(dy)
    for host, gradient in zip(hosts, (dx, dw), strict=True):
        assert_close(np.vdot(host, xpconv.to_numpy(gradient)), wanted, rtol=0, atol=tolerance)


def test_windows_that_miss_elements_give_them_no_gradient(backend):
    y, _, (dx, _) = value_and_gradients(backend, xpconv.conv, [normal(1, 1, 8), normal(1, 1, 2)], stride=3)
    assert y.shape == (1, 1, 3)
    assert (xpconv.to_numpy(dx)[0, 0, [2, 5]] == 0).all()
    assert (xpconv.to_numpy(dx)[0, 0, [0, 1, 3, 4, 6, 7]] != 0).all()


def test_no_images_give_none(backend):
    y, _, (dx, dw) = value_and_gradients(backend, xpconv.conv, [np.ones((0, 3, 5, 5)), np.ones((4, 3, 3, 3))])
    like = backend.asarray(0.0)
    assert_close(y, np.ones((0, 4, 3, 3)), like=like)
    assert_close(dx, np.ones((0, 3, 5, 5)), like=like)
    assert_close(dw, np.zeros((4, 3, 3, 3)), like=like)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_the_windows_that_see_it(backend, value):
    host = np.ones((1, 1, 6))
    host[0, 0, 0] = value
    x = backend.asarray(host)
    y = xpconv.conv(x, backend.asarray(np.ones((1, 1, 2))))
    assert_close(y, np.array([[[value, 2.0, 2, 2, 2]]]), like=x)


def test_options_are_named():
    parameters = inspect.signature(xpconv.conv).parameters
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in OPTIONS)
    with pytest.raises(TypeError, match="too many positional"):
        xpconv.conv(normal(1, 1, 3), normal(1, 1, 1), None, 2)


def test_gradients_at_the_size_of_a_layer():
    check_vjp(xpconv.conv, normal(2, 8, 20, 20), normal(16, 8, 3, 3), normal(16), stride=2, pad=1)
