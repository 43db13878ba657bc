"""Implicit GEMM by the tensor cores, whose threads work together, on the host and against the loops.

Copies are made as late as they may be, shared memory begins as NaN, and so does what lies around the arrays.
"""

import math

import cupy_on_host
import numpy as np
import pytest
import reference as ref
from cases import normal

import xpconv
from xpconv.algorithms import Plan
from xpconv.arrays import to_numpy
from xpconv.cuda import implicit, sources
from xpconv.selection.adjoint import input_gradient
from xpconv.selection.model import choose
from xpconv.testing import assert_close
from xpconv.windows import window

pytestmark = pytest.mark.skipif(cupy_on_host.COMPILER is None, reason="there is no C++ compiler here")

WAY = implicit.ImplicitGemm()
GEOMETRIES = {  # batch, channels, filters, groups, size, kernel, options
    "3x3": (2, 64, 16, 1, (9, 7), (3, 3), {"pad": 1}),
    "more filters than a tile, not a whole one": (1, 32, 136, 1, (20, 11), (3, 3), {"pad": 1}),
    "groups, strides, dilation": (
        (3, 64, 48, 2, (8, 9), (3, 2), {"stride": (2, 1), "pad": ((1, 2), (0, 1)), "dilation": (1, 2)})
    ),
    "one axis": (2, 96, 72, 1, (12,), (3,), {"pad": 1}),
    "three axes": (1, 64, 16, 2, (4, 5, 6), (2, 3, 2), {"stride": (1, 2, 3)}),
    "points between": (2, 32, 8, 1, (7, 6), (1, 1), {"stride": 2}),
    "elements that no window sees": (1, 32, 8, 1, (6, 7), (2, 2), {"stride": 4}),
}
DTYPES = ["float16", "float32"]


@pytest.fixture
def cupy(monkeypatch):
    yield cupy_on_host.install(monkeypatch)
    assert cupy_on_host.cupy.fences_stand()


def rounded(dtype, *shape, seed=0):
    """Normal numbers, in float64, that the tensor cores take as they are: of float32 they see 10 bits of fraction."""
    numbers = normal(*shape, seed=seed).astype(dtype)
    if dtype == "float32":
        numbers = (numbers.view(np.uint32) & ~np.uint32(0x1FFF)).view(np.float32)
    return numbers.astype("float64")


def placed(host, dtype, order=None, shift=0):
    """(N, C, ...) as (N, ..., C), whose axes lie in memory in this order."""
    return cupy_on_host.asarray(np.moveaxis(host, 1, -1), order, dtype, shift=shift)


def filters(host, dtype, along):
    """(O, C/G, *kernel) as (*kernel, C/G, O): in memory channels are neighbours, or filters."""
    array = np.moveaxis(host, (0, 1), (-1, -2))
    *taps, channels, count = range(array.ndim)
    return cupy_on_host.asarray(array, (*taps, count, channels) if along else None, dtype)


def same(actual, expected, dtype):
    assert type(actual) is cupy_on_host.Array
    assert_close(to_numpy(actual), expected.astype(dtype), rtol=1e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("tile", sources.TILES, ids=lambda tile: "x".join(map(str, tile)))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_all_directions_agree_with_the_loops_in_every_tile(cupy, monkeypatch, geometry, dtype, tile):
    monkeypatch.setattr(implicit, "tiles", lambda columns: [implicit.Tile(*tile)])
    monkeypatch.setattr(WAY, "otherwise", None)
    batch, channels, count, groups, size, kernel, options = GEOMETRIES[geometry]
    plan = Plan(window(size, kernel, **options), groups, precision="tf32")
    x, w = rounded(dtype, batch, channels, *size), rounded(dtype, count, channels // groups, *kernel, seed=1)
    b = rounded(dtype, count, seed=2)
    wanted = ref.conv(x, w, b, **options, groups=groups)
    dy = rounded(dtype, *wanted.shape, seed=3)
    dx, dw, _ = ref.conv_gradients(dy, x, w, **options, groups=groups)
    last, shares, bias = placed(x, dtype), placed(dy, dtype), cupy_on_host.asarray(b, None, dtype)
    for along in (False, True):
        y = WAY.convolve(last, filters(w, dtype, along), bias, plan)
        same(y, np.moveaxis(wanted, 1, -1), dtype)
    if (count // groups) % 32 == 0:
        same(input_gradient("implicit", shares, filters(w, dtype, False), plan), np.moveaxis(dx, 1, -1), dtype)
    same(WAY.weight_gradient(last, shares, plan), np.moveaxis(dw, (0, 1), (-1, -2)), dtype)
    assert {name.partition("<")[0] for name in cupy.launches} == {"implicit", "implicit_weight_gradient"}
    assert not cupy.products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_input_gradient_is_written_where_it_belongs(cupy, dtype, stride):
    options = {"stride": stride, "pad": (1, 0)}
    x, w = (2, 16, 9, 8), rounded(dtype, 64, 16, 3, 2, seed=1)
    plan = Plan(window(x[2:], w.shape[2:], **options), precision="tf32")
    dy = rounded(dtype, *ref.conv(np.zeros(x), w, **options).shape, seed=3)
    dx = ref.conv_gradients(dy, np.zeros(x), w, **options)[0]
    copies = len(cupy.made)
    found = input_gradient("implicit", placed(dy, dtype), filters(w, dtype, False), plan)
    same(found, np.moveaxis(dx, 1, -1), dtype)
    assert {name.partition("<")[0] for name in cupy.launches} == {"implicit"}
    assert len(cupy.made) - copies <= 1  # nothing but the result, which begins with zeros where windows leave gaps


@pytest.mark.parametrize("slices", [1, 3, 100])
def test_a_weight_gradient_in_slices(cupy, monkeypatch, slices):
    monkeypatch.setattr(implicit, "LEAST", 1)
    monkeypatch.setattr(implicit, "multiprocessors", lambda: math.ceil(1.5 * slices))
    x, dy, plan = (
        rounded("float16", 3, 32, 9, 7),
        rounded("float16", 3, 8, 9, 7, seed=1),
        Plan(window((9, 7), (3, 3), pad=1)),
    )
    dw = ref.conv_gradients(dy, x, np.zeros((8, 32, 3, 3)), pad=1)[1]
    same(
        WAY.weight_gradient(placed(x, "float16"), placed(dy, "float16"), plan),
        np.moveaxis(dw, (0, 1), (-1, -2)),
        "float16",
    )
    (name,) = cupy.launches
    assert ("float," in name) == (slices > 1)  # slices are added up before they are rounded


@pytest.mark.parametrize(
    ("dtype", "precision", "channels", "count", "capability"),
    [
        ("float32", "float32", 32, 8, (9, 0)),  # strict
        ("float64", "tf32", 32, 8, (9, 0)),
        ("float16", "float32", 24, 8, (9, 0)),  # no whole tile of channels
        ("float16", "float32", 32, 9, (9, 0)),  # nor pack of filters
        ("float16", "float32", 32, 8, (7, 5)),  # copies past the registers came with the next generation
    ],
)
def test_what_the_kernels_cannot_compute_is_lowered(cupy, monkeypatch, dtype, precision, channels, count, capability):
    monkeypatch.setattr(implicit, "capability", lambda: capability)
    x, w = rounded(dtype, 2, channels, 5, 4), rounded(dtype, count, channels, 3, 3, seed=1)
    dy = rounded(dtype, 2, count, 5, 4, seed=2)
    plan, last, kernel = (
        Plan(window((5, 4), (3, 3), pad=1), precision=precision),
        placed(x, dtype),
        filters(w, dtype, False),
    )
    same(WAY.convolve(last, kernel, None, plan), np.moveaxis(ref.conv(x, w, pad=1), 1, -1), dtype)
    y = cupy.empty((2, 5, 4, count), dtype)
    WAY.convolve_into(y, last, kernel, None, plan)
    same(y, np.moveaxis(ref.conv(x, w, pad=1), 1, -1), dtype)
    same(
        WAY.weight_gradient(last, placed(dy, dtype), plan),
        np.moveaxis(ref.conv_gradients(dy, x, w, pad=1)[1], (0, 1), (-1, -2)),
        dtype,
    )
    assert {name.partition("<")[0] for name in cupy.launches} == {"lower"}
    assert choose("auto", last, count, plan) is not choose("implicit", last, count, plan)


@pytest.mark.parametrize("shift", [0, 1])
def test_arrays_that_lie_badly_are_laid_out(cupy, shift):
    x, w = rounded("float16", 2, 32, 5, 4), rounded("float16", 8, 32, 3, 3, seed=1)
    arrays = [placed(x, "float16", shift=shift), placed(x, "float16", (0, 3, 1, 2))]
    kernels = [
        filters(w, "float16", False),
        cupy_on_host.asarray(np.moveaxis(w, (0, 1), (-1, -2)), (3, 2, 0, 1), "float16", shift),
    ]
    plan, wanted = Plan(window((5, 4), (3, 3), pad=1)), np.moveaxis(ref.conv(x, w, pad=1), 1, -1)
    for last in arrays:
        for kernel in kernels:
            same(WAY.convolve(last, kernel, None, plan), wanted, "float16")


def test_it_is_taken_where_lowering_would_cost_more(cupy, monkeypatch):
    monkeypatch.setenv("XPCONV_CUDNN", "0")
    monkeypatch.setattr(implicit, "multiprocessors", lambda: 132)

    def taken(batch, channels, count, size, kernel, dtype="float16", precision="float32", **options):
        x = cupy.empty((batch, size, size, channels), dtype)
        plan = Plan(window((size, size), (kernel, kernel), **options), precision=precision)
        return choose("auto", x, count, plan)

    gathered = choose("implicit", cupy.empty((1, 3, 3, 32), "float16"), 8, Plan(window((3, 3), (3, 3))))
    assert taken(32, 64, 64, 56, 3, pad=1) is gathered
    assert taken(32, 128, 128, 28, 3, pad=1, dtype="float32", precision="tf32") is gathered
    assert taken(32, 512, 512, 7, 3, pad=1) is not gathered  # too few tiles for so many multiprocessors
    assert taken(32, 512, 512, 28, 3, pad=1) is not gathered  # products enough to pay for lowering
    assert taken(32, 64, 64, 56, 1) is not gathered  # there is nothing to gather
    assert taken(32, 64, 64, 56, 3, pad=1, dtype="float32") is not gathered  # strict


def test_tf32_is_rounded_to_the_nearest_and_keeps_what_is_no_number(cupy):
    x, w = np.ones((1, 32, 3, 3)), np.zeros((8, 32, 1, 1))
    x[0, 0] = [[1 + 2**-11, 1 + 3 * 2**-12, -1 - 2**-11], [np.nan, np.inf, 1 + 2**-12], [2**-130, 1e38, 0]]
    w[:, 0] = 1
    plan = Plan(window((3, 3), (1, 1)), precision="tf32")
    y = to_numpy(WAY.convolve(placed(x, "float32"), filters(w, "float32", False), None, plan))[0, ..., 0]
    wanted = [[1 + 2**-10, 1 + 2**-10, -1 - 2**-10], [np.nan, np.inf, 1], [2**-130, float(np.float32(1e38)), 0]]
    np.testing.assert_allclose(y, wanted, rtol=2**-11)
    assert y[0].tolist() == wanted[0] and y[1, 2] == 1
    assert cupy.launches


def test_it_is_asked_for_by_name(cupy):
    x, w = rounded("float16", 2, 32, 6, 5), rounded("float16", 8, 32, 3, 3, seed=1)
    y = xpconv.conv(*(cupy_on_host.asarray(a, None, "float16") for a in (x, w)), pad=1, algorithm="implicit")
    same(y, ref.conv(x, w, pad=1), "float16")
    assert [name.partition("<")[0] for name in cupy.launches] == ["implicit"]
