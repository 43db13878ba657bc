"""Operators on CuPy arrays as a caller has them, through selection down to the kernels, without a GPU.

The stand-in's arrays take the way that CuPy's take; what comes out is compared with the loops. What is left to a GPU is
that it computes as a processor does.
"""

import re

import cupy_on_host
import numpy as np
import pytest
import reference as ref
from applying import value_and_gradients
from cases import normal, spread

import xpconv
from xpconv.testing import assert_close

pytestmark = pytest.mark.skipif(cupy_on_host.COMPILER is None, reason="there is no C++ compiler here")

GEOMETRIES = {  # x, weight, options, and the kernels that are to be run in all three directions
    "the chapter's": ((3, 3, 7, 7), (4, 3, 5, 5), {}, "lower"),
    "many channels": ((2, 33, 10, 15), (40, 33, 3, 3), {"pad": 1}, "winograd_"),
    "F(2, 3)": ((2, 3, 9, 5), (4, 3, 3, 3), {"pad": ((2, 0), (0, 1)), "algorithm": "winograd2"}, "winograd_"),
    "one axis by Winograd": ((2, 3, 9), (4, 3, 3), {"pad": 1, "algorithm": "winograd"}, ""),
    "strides and dilation": (
        (2, 4, 11, 9),
        (6, 2, 3, 2),
        {"stride": (3, 2), "dilation": (2, 3), "pad": ((1, 2), (0, 3)), "groups": 2},
        "lower",
    ),
    "three axes": ((1, 8, 5, 4, 6), (4, 8, 2, 3, 2), {"stride": (1, 2, 3), "pad": (0, 1, 1)}, "lower"),
    "points": ((2, 8, 5, 3), (4, 8, 1, 1), {}, ""),
    "points, strided": ((2, 8, 5, 3), (4, 8, 1, 1), {"stride": 2}, "lower"),
    "depthwise": ((2, 16, 9, 7), (16, 1, 3, 3), {"stride": 2, "pad": "same", "groups": 16}, "depthwise"),
    "depthwise, several filters": ((2, 3, 9), (6, 1, 3), {"groups": 3, "algorithm": "depthwise"}, "lower"),
}

BIASES = {"repeat_row", "sum_rows"}  # kernels that are run wherever there are biases


@pytest.fixture
def cupy(monkeypatch):
    cupy_on_host.install(monkeypatch)
    place = xpconv.backend("cupy")
    cupy_on_host.cupy.reset()
    yield place
    assert cupy_on_host.cupy.fences_stand()


def rounded(dtype, *shapes):
    """Normal numbers that this dtype holds, in float64."""
    return [normal(*shape, seed=i).astype(dtype).astype("float64") for i, shape in enumerate(shapes)]


def same(actual, expected, dtype, rtol=None):
    assert type(actual) is cupy_on_host.Array
    rtol = 1e-3 if dtype == "float16" else rtol
    assert_close(actual, expected.astype(dtype), like=actual, rtol=rtol)


def stems():
    """Kernels that were run, without their parameters."""
    return {re.split("[<]", name)[0] for name in cupy_on_host.cupy.launches}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_convolution_agrees_with_the_loops_by_kernels_alone(cupy, name, dtype):
    x_shape, weight_shape, options, kernels = GEOMETRIES[name]
    x, w, b = rounded(dtype, x_shape, weight_shape, weight_shape[:1])
    y, dy, gradients = value_and_gradients(cupy, xpconv.conv, [a.astype(dtype) for a in (x, w, b)], **options)
    assert cupy_on_host.Array.reads == 0
    if name != "many channels" or dtype == "float32":  # what is wider or narrower is not transformed unasked
        launched = stems() - BIASES
        assert all(stem.startswith(kernels) for stem in launched) and bool(launched) == bool(kernels)
    assert "sum_rows" in stems()
    plain = {name: option for name, option in options.items() if name != "algorithm"}
    rtol = 1e-4 if dtype == "float32" and "winograd" in kernels else None
    same(y, ref.conv(x, w, b, **plain), dtype, rtol)
    dy = dy.astype(dtype).astype("float64")
    for found, wanted in zip(gradients, ref.conv_gradients(dy, x, w, **plain), strict=True):
        same(found, wanted, dtype, rtol)


@pytest.mark.parametrize(
    ("dtype", "options", "kinds"),
    [
        ("float32", {}, ("float32", 68)),  # CUBLAS_COMPUTE_32F
        ("float32", {"precision": "tf32"}, ("float32", 77)),  # CUBLAS_COMPUTE_32F_FAST_TF32
        ("float16", {}, ("float16", 68)),
        ("float64", {"precision": "tf32"}, ("float64", 70)),  # CUBLAS_COMPUTE_64F
    ],
)
@pytest.mark.parametrize(
    ("op", "shapes", "more"),
    [
        (xpconv.conv, [(2, 3, 6, 5), (4, 3, 3, 3), (4,)], {"stride": 2}),
        (xpconv.conv, [(2, 3, 6, 5), (4, 3, 3, 3), (4,)], {"algorithm": "winograd2"}),
        (xpconv.conv_transpose, [(2, 3, 6, 5), (3, 4, 3, 3), (4,)], {"stride": 2}),
        (xpconv.affine, [(3, 2, 4), (8, 5), (5,)], {}),
    ],
    ids=["conv", "winograd", "conv_transpose", "affine"],
)
def test_products_are_asked_for_in_the_precision_of_the_caller(cupy, dtype, options, kinds, op, shapes, more):
    arrays = rounded(dtype, *shapes)
    found = value_and_gradients(cupy, op, [a.astype(dtype) for a in arrays], **options, **more)
    asked = set(cupy_on_host.cupy.products)
    if "winograd2" in more.values() and dtype == "float16":
        kinds = ("float32", 68)  # between its transforms
    assert len(cupy_on_host.cupy.products) >= 3
    assert asked == {kinds}
    wanted, pullback = xpconv.vjp(op, *arrays, **more)
    dy = found[1].astype(dtype).astype("float64")
    for actual, exact in zip((found[0], *found[2]), (wanted, *pullback(dy)), strict=True):
        same(actual, exact, dtype, rtol=1e-4 if dtype == "float32" else None)


def test_matrices_are_copied_where_cublas_cannot_read_them(cupy):
    x, w = normal(3, 4), normal(4, 5)
    spread_out = cupy.asarray(np.repeat(np.repeat(w, 2, 0), 3, 1))[::2, ::3]
    everywhere = cupy.xp.broadcast_to(cupy.asarray(np.ones(1)), (3, 5))
    y, pullback = xpconv.vjp(xpconv.affine, cupy.asarray(x), spread_out)
    same(y, x @ w, "float64")
    dx, dw = pullback(everywhere)
    same(dx, np.ones((3, 5)) @ w.T, "float64")
    same(dw, x.T @ np.ones((3, 5)), "float64")
    nothing = xpconv.affine(cupy.asarray(np.ones((3, 0))), cupy.asarray(np.ones((0, 2))))
    same(nothing, np.zeros((3, 2)), "float64")


def test_bfloat16_is_taken_as_it_is(cupy):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x, w = normal(2, 8, 6, 5).astype(bfloat16), normal(8, 8, 3, 3).astype(bfloat16)
    given = [cupy_on_host.asarray(array) for array in (x, w)]
    y, pullback = xpconv.vjp(xpconv.conv, *given, stride=2, pad=1)
    dy = normal(*y.shape).astype(bfloat16)
    dx, dw = pullback(cupy_on_host.asarray(dy))
    pooled = xpconv.max_pool(y, 2)
    wide = [array.astype("float64") for array in (x, w, dy)]
    wanted = ref.conv(*wide[:2], stride=2, pad=1)
    gradients = ref.conv_gradients(wide[2], *wide[:2], stride=2, pad=1)
    for actual, exact in zip((y, dx, dw), (wanted, *gradients[:2]), strict=True):
        same(actual, exact, bfloat16, rtol=2**-8)
    same(pooled, ref.max_pool(wanted.astype(bfloat16).astype("float64"), 2)[0], bfloat16, rtol=2**-7)
    same(xpconv.relu(y), np.maximum(wanted, 0), bfloat16, rtol=2**-8)
    assert set(cupy_on_host.cupy.products) == {("bfloat16", 68)}


@pytest.mark.parametrize(
    ("op", "weight", "options"),
    [
        (xpconv.conv, (8, 8, 3, 3), {}),
        (xpconv.conv, (8, 8, 3, 3), {"algorithm": "winograd2"}),
        (xpconv.conv, (8, 1, 3, 3), {"groups": 8}),
        (xpconv.max_pool, None, {"kernel": 2, "stride": 1}),
        (xpconv.affine, (288, 60), {}),
    ],
)
def test_what_cannot_fit_says_what_it_needed_and_what_was_free(cupy, op, weight, options):
    arrays = [normal(2, 8, 6, 6), *([] if weight is None else [normal(*weight)])]
    given = [cupy.asarray(array) for array in arrays]
    wanted = op(*arrays, **options)
    cupy_on_host.cupy.room = 100
    with pytest.raises(MemoryError, match=rf"takes {wanted.nbytes} bytes .* 1024 were free .*; give fewer images"):
        op(*given, **options)
    assert cupy_on_host.cupy.released >= 1
    cupy_on_host.cupy.room = float("inf")
    same(op(*given, **options), wanted, "float64")


def test_an_empty_batch_launches_nothing(cupy):
    for options in ({}, {"stride": 2}, {"pad": 1, "algorithm": "winograd"}):
        x, w = cupy.asarray(normal(0, 3, 7, 7)), cupy.asarray(normal(4, 3, 3, 3))
        y, pullback = xpconv.vjp(xpconv.conv, x, w, **options)
        dx, dw = pullback(y)
        assert dx.shape == (0, 3, 7, 7)
        assert_close(dw, np.zeros((4, 3, 3, 3)), like=x)
        assert all(name.startswith("winograd_filter") for name in cupy_on_host.cupy.launches)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (2, {}),
        ((3, 2), {"stride": 2, "pad": (1, 0), "ceil_mode": True}),
        (3, {"stride": 1, "dilation": 2, "pad": 2}),
    ],
)
def test_pooling_agrees_with_the_loops_by_kernels_alone(cupy, dtype, kernel, options):
    x = spread(2, 8, 9, 7).astype(dtype)
    wide = x.astype("float64")
    y, dy, (dx,) = value_and_gradients(cupy, xpconv.max_pool, [x], kernel=kernel, **options)
    wanted, indices = ref.max_pool(wide, kernel, **options)
    same(y, wanted, dtype)
    same(dx, ref.max_pool_gradient(dy.astype(dtype).astype("float64"), indices, x.shape[2:]), dtype)
    for more in ({}, {"count_include_pad": False}, {"divisor": 3}):
        y, dy, (dx,) = value_and_gradients(cupy, xpconv.avg_pool, [x], kernel=kernel, **options, **more)
        same(y, ref.avg_pool(wide, kernel, **options, **more), dtype)
        same(dx, ref.avg_pool_gradient(dy.astype(dtype), x.shape[2:], kernel, **options, **more), dtype)
    assert stems() == {"max_pool", "max_pool_gradient", "avg_pool", "avg_pool_gradient"}


def test_whole_numbers_and_four_axes_are_left_to_array_code(cupy):
    x = np.arange(48).reshape(1, 2, 4, 6)
    assert_close(xpconv.max_pool(cupy.asarray(x), 2), ref.max_pool(x, 2)[0])
    x, w = normal(1, 1, 2, 3, 2, 2), normal(1, 1, 2, 2, 1, 1)
    assert_close(xpconv.conv(cupy.asarray(x), cupy.asarray(w)), ref.conv(x, w))
    assert cupy_on_host.cupy.launches == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_training_step_copies_nothing_from_or_to_the_host(cupy, dtype):
    network = xpconv.SimpleConvNet((1, 12, 12), hidden_size=8, rng=0, backend=cupy, dtype=dtype)
    x, t = cupy.asarray(normal(3, 1, 12, 12), dtype), cupy.asarray(np.arange(3))
    optimizer = xpconv.Adam()
    optimizer.update(network.params, network.gradient(x, t))
    cupy_on_host.cupy.reset()
    optimizer.update(network.params, network.gradient(x, t))
    assert cupy_on_host.Array.reads == 0
    assert cupy_on_host.cupy.sent == []
    assert BIASES | {"lower", "max_pool", "max_pool_gradient"} == stems()
