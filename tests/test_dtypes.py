"""Dtypes: what is narrow adds up in float32, complex and whole numbers stay exact, no default ever comes in."""

import functools

import numpy as np
import pytest
import reference as ref
from applying import compiled, value_and_gradients
from cases import CASES, FIRST, integers, normal

import xpconv
from xpconv.arrays.libraries import strictest
from xpconv.testing import assert_close
from xpconv.testing.comparison import dtype_name, on_host

HALF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half of the distance between 1 and its neighbour


@pytest.fixture(params=HALF)
def dtype(request, backend):
    if not hasattr(backend.xp, request.param):
        pytest.skip(f"{backend.name} has no {request.param}")
    return request.param


def leading(y):
    return y[0] if isinstance(y, tuple) else y


def rounded(backend, host, dtype):
    """What is left of a host array in a dtype that NumPy may not know: still float64 and on the host."""
    if host is None or host.dtype.kind != "f":
        return host
    return on_host(backend.xp.astype(backend.asarray(host), getattr(backend.xp, dtype))).astype(float)


# --- float16 and bfloat16


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.name)
def test_what_is_narrow_is_rounded_once(backend, dtype, case):
    """Whatever an operator does between, it does in float32: only the last rounding is to be seen."""
    if "rng" in case.options:
        pytest.skip("draws other numbers each time")
    hosts = [rounded(backend, host, dtype) for host in case.arrays]
    y, dy, gradients = value_and_gradients(backend, case.op, hosts, dtype=dtype, **case.options)
    wanted, pullback = xpconv.vjp(case.op, *hosts, **case.options)
    for found, exact in zip(
        (leading(y), *gradients), (leading(wanted), *pullback(rounded(backend, dy, dtype))), strict=True
    ):
        if exact is None:
            assert found is None
            continue
        assert dtype_name(found.dtype) == dtype
        apart, scale = np.abs(on_host(found).astype(float) - exact), np.max(np.abs(exact), initial=0)
        tiny = 2.0**-24 if dtype == "float16" else 0.0  # float16 runs out of exponents
        allowed = HALF[dtype] * np.abs(exact) * (1 + 1e-3) + 1e-5 * scale + tiny
        assert np.all(apart <= allowed), f"{np.max(apart - allowed)} beyond one rounding of at most {scale}"


def line(*values):
    return np.array([[values]], float)


ACROSS = np.fliplr(np.eye(3))  # where the taps of three windows lie that see one element alone
BIG = {"float16": 2048.0, "bfloat16": 256.0}  # there, one more is lost: added up term by term, 1 + BIG + 1 is BIG
# From big: the arrays, the options, and dy where it is a gradient that adds up 1, big and 1; then what comes out.
SUMS = {
    "conv": lambda big: ([line(1, big, 1), line(1, 1, 1)], {}, None, big + 2),
    "conv of many channels": lambda big: ([np.array([[[1], [big], [1]]]), np.ones((1, 3, 1))], {}, None, big + 2),
    "conv_transpose": lambda big: ([np.array([[[1], [big], [1]]]), np.ones((3, 1, 1))], {}, None, big + 2),
    "avg_pool": lambda big: ([line(1, big, 1, 0)], {"kernel": 4}, None, (big + 2) / 4),
    "lp_pool": lambda big: ([line(1, big, 1)], {"kernel": 3, "p": 1}, None, big + 2),
    "adaptive_avg_pool": lambda big: ([line(1, big, 1, 0)], {"output_size": 1}, None, (big + 2) / 4),
    "global_avg_pool": lambda big: ([line(1, big, 1, 0)], {}, None, (big + 2) / 4),
    "fold": lambda big: (
        [(ACROSS * [1, big, 1])[None]],
        {"output_size": 1, "kernel": 3, "pad": 2},
        None,
        big + 2,
    ),
    "affine": lambda big: ([line(1, big, 1)[0], np.ones((3, 1))], {}, None, big + 2),
    "max_pool": lambda big: ([line(0, 0, 5, 0, 0)], {"kernel": 3, "stride": 1}, line(1, big, 1), [0, 0, big + 2, 0, 0]),
    "unfold": lambda big: ([line(7)], {"kernel": 3, "pad": 2}, (ACROSS * [1, big, 1])[None], big + 2),
    "pad": lambda big: ([line(7)], {"pad": ((0, 2),), "mode": "circular"}, line(1, big, 1), big + 2),
    "interpolate": lambda big: ([line(7)], {"output_size": 3}, line(1, big, 1), big + 2),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_do_not_stop_growing(backend, dtype, name):
    hosts, options, dy, expected = SUMS[name](BIG[dtype])

    def cast(host):
        return backend.xp.astype(backend.asarray(host), getattr(backend.xp, dtype))

    y, pullback = xpconv.vjp(getattr(xpconv, name.partition(" ")[0]), *map(cast, hosts), **options)
    found = y if dy is None else pullback(cast(dy))[0]
    assert dtype_name(found.dtype) == dtype
    np.testing.assert_array_equal(on_host(found).reshape(-1), np.reshape(expected, -1))


def test_the_gradient_of_a_weight_does_not_stop_growing(backend, dtype):
    x, w = line(1, BIG[dtype], 1), line(1)
    arrays = [backend.xp.astype(backend.asarray(host), getattr(backend.xp, dtype)) for host in (x, w)]
    y, pullback = xpconv.vjp(xpconv.conv, *arrays)
    np.testing.assert_array_equal(on_host(pullback(backend.xp.ones_like(y))[1]), line(BIG[dtype] + 2))


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bfloat16_convolution(name):
    """Against the loops in float64, of the very numbers that bfloat16 holds."""
    pytest.importorskip(name)
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    backend = xpconv.backend(name)
    hosts = [normal(*shape).astype(bfloat16).astype("float32") for shape in ((2, 4, 6, 5), (6, 2, 3, 3), (6,))]
    options = {"stride": 2, "pad": 1, "groups": 2}
    y, dy, gradients = value_and_gradients(backend, xpconv.conv, hosts, dtype="bfloat16", **options)
    exact, dy = [host.astype(float) for host in hosts], dy.astype(bfloat16).astype(float)
    wanted = ref.conv(*exact, **options), *ref.conv_gradients(dy, *exact[:2], **options)
    for found, expected in zip((y, *gradients), wanted, strict=True):
        assert found.dtype == backend.xp.bfloat16
        # as rounding the exact result gives it, or the neighbour where float32's own error tips the scales
        nearest = expected.astype(bfloat16).astype(float)
        assert np.mean(on_host(found) == nearest) > 0.97
        np.testing.assert_allclose(on_host(found), nearest, rtol=2.0**-7, atol=1e-6)


def test_narrow_and_wide_do_not_mix(backend, dtype):
    x = backend.xp.ones((1, 1, 3), dtype=getattr(backend.xp, dtype), device=backend.device)
    with pytest.raises(TypeError, match=rf"x has dtype .*{dtype} and weight .*float32"):
        xpconv.conv(x, backend.asarray(np.ones((1, 1, 2)), "float32"))


# --- Complex and whole numbers


def test_complex_convolution_over_four_axes_is_scipys(backend):
    signal = pytest.importorskip("scipy.signal")
    shape, kernel = (4, 3, 5, 4), (2, 3, 2, 3)
    x, w = (normal(*s) + 1j * normal(*s, seed=1) for s in ((2, 2, *shape), (3, 2, *kernel)))
    turned = np.flip(w, axis=(2, 3, 4, 5))
    expected = [[sum(signal.convolve(c, k, "valid") for c, k in zip(n, o, strict=True)) for o in turned] for n in x]
    moved = backend.asarray(x)
    y = xpconv.conv(moved, backend.asarray(w), stride=(1, 1, 2, 1))
    assert_close(y, np.asarray(expected)[:, :, :, :, ::2], like=moved)


def test_convolution_over_four_axes(backend):
    """With everything that a geometry can have, and its gradients, against the loops."""
    hosts = normal(2, 4, 3, 4, 3, 4), normal(4, 2, 2, 1, 2, 3), normal(4)
    options = {"stride": (1, 2, 1, 2), "pad": ((1, 0), 1, (0, 1), 2), "dilation": (1, 2, 2, 1), "groups": 2}
    y, dy, gradients = value_and_gradients(backend, xpconv.conv, hosts, **options)
    like = backend.asarray(hosts[0])
    assert_close(y, ref.conv(*hosts, **options), like=like)
    for found, expected in zip(gradients, ref.conv_gradients(dy, *hosts[:2], **options), strict=True):
        assert_close(found, expected, like=like)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_convolution_of_whole_numbers_is_scipys(backend, dtype):
    """Beyond what floating numbers hold exactly, and in uint8 modulo 256."""
    signal = pytest.importorskip("scipy.signal")
    high = {"int32": 2**14, "int64": 2**30, "uint8": 2**8}[dtype]
    x, w = integers(high, 2, 3, 6, 5).astype(dtype), integers(high, 4, 3, 3, 2).astype(dtype)
    c, k = x.astype("int64"), w.astype("int64")
    expected = [[signal.correlate(image, filt, "valid", "direct")[0] for filt in k] for image in c]
    moved = backend.asarray(x)
    assert_close(xpconv.conv(moved, backend.asarray(w)), np.asarray(expected).astype(dtype), like=moved)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_transposed_convolution_and_fold_of_whole_numbers(backend, dtype):
    x, w, b = (integers(1000, *s).astype(dtype) for s in ((2, 4, 3, 2), (4, 2, 3, 2), (4,)))
    moved = backend.asarray(x)
    options = {"stride": 2, "pad": 1, "groups": 2}
    transposed = compiled(backend, functools.partial(xpconv.conv_transpose, **options))
    y = transposed(moved, backend.asarray(w), backend.asarray(b))
    assert_close(y, ref.conv_transpose(x, w, b, **options), like=moved)
    col = integers(1000, 2, 12, 6).astype(dtype)
    moved = backend.asarray(col)
    assert_close(xpconv.fold(moved, (3, 4), 2), ref.fold(col, (3, 4), 2), like=moved)
    image = integers(1000, 2, 3, 3, 4).astype(dtype)
    assert_close(xpconv.unfold(backend.asarray(image), 2), ref.unfold(image, (2, 2)), like=moved)


# --- Devices that lack a dtype


@pytest.mark.parametrize("device", ["device1", "no_float64", "no_x64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_default_dtype_comes_in(case, device):
    """Not where the default is wider than the arguments' dtype, nor where what is wider cannot be made."""
    strict = pytest.importorskip("array_api_strict")
    if device == "no_x64" and case.name in ("adaptive_max_pool", "global_max_pool", "max_unpool"):
        pytest.skip("that library's argmax and argsort give int64 on every device")
    backend = xpconv.backend(f"array-api-strict:{device}")
    hosts = [None if h is None else h.astype("float32" if h.dtype.kind == "f" else "int32") for h in case.arrays]
    with strictest(backend):
        arrays = [None if h is None else backend.asarray(h) for h in hosts]
        y, pullback = xpconv.vjp(case.op, *arrays, **case.options)
        assert leading(y).dtype == strict.float32
        assert leading(y).device == backend.device
        dy = backend.asarray(normal(*leading(y).shape).astype("float32"))
        for gradient, array in zip(pullback(dy), arrays, strict=True):
            if gradient is not None:
                assert gradient.dtype == array.dtype
                assert gradient.device == backend.device
    if "rng" not in case.options:
        assert_close(leading(y), leading(case.op(*hosts, **case.options)), like=arrays[0])
