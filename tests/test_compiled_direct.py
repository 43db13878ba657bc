"""Convolution by sums in registers, where loops are compiled, and the array code that is taken elsewhere."""

import numpy as np
import pytest
import reference as ref
from cases import normal

import xpconv
from xpconv.compiled import compiler
from xpconv.testing import assert_close

# batch, channels, filters, size, kernel, options
GEOMETRIES = {
    "one channel": (3, 1, 30, (12, 11), (5, 5), {}),
    "filters that fill no register": (2, 5, 9, (7, 9), (3, 3), {"pad": 1}),
    "several registers, and some filters more": (2, 16, 70, (6, 29), (3, 3), {"pad": "same"}),
    "more windows than registers, and some more": (1, 3, 16, (2, 61), (1, 3), {}),
    "one tap": (2, 20, 33, (5, 6), (1, 1), {"stride": 2}),
    "strided": (2, 4, 17, (11, 14), (3, 2), {"stride": (2, 3), "pad": ((0, 2), (1, 0))}),
    "dilated": (2, 6, 8, (12, 13), (2, 3), {"stride": (1, 2), "dilation": (3, 2), "pad": 2}),
    "padding alone": (1, 2, 8, (2, 2), (2, 2), {"pad": 3}),
    "one axis": (2, 7, 24, (101,), (5,), {"pad": 2}),
    "three axes": (2, 3, 12, (4, 5, 6), (2, 1, 3), {"stride": (1, 2, 1), "pad": "same"}),
}


def check(name, dtype="float64", **more):
    batch, channels, filters, size, kernel, options = GEOMETRIES[name]
    x, weight, bias = normal(batch, channels, *size), normal(filters, channels, *kernel), normal(filters)
    given = [a.astype(dtype) for a in (x, weight, bias)]
    tolerance = 1e-10 if dtype == "float64" else 2e-4
    y, pullback = xpconv.vjp(xpconv.conv, *given, algorithm="direct", **options, **more)
    assert_close(y, ref.conv(x, weight, bias, **options).astype(dtype), atol=tolerance, rtol=tolerance)
    dy = normal(*y.shape, seed=9)
    wanted = ref.conv_gradients(dy, x, weight, **options)
    for found, gradient in zip(pullback(dy.astype(dtype)), wanted, strict=True):
        assert_close(found, gradient.astype(dtype), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_values_and_gradients(way, name, dtype):
    check(name, dtype)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_few_rows_of_windows_at_a_time(way, monkeypatch, name):
    if compiler.available():
        from xpconv.compiled import direct

        monkeypatch.setattr(direct, "TASK", 0)
        monkeypatch.setattr(direct, "NEAR", 0)
    check(name, workspace=1)


def test_arrays_may_lie_anyhow(way):
    x, weight, dy = normal(2, 3, 7, 6), normal(8, 3, 2, 2), normal(2, 8, 6, 5)
    expected, back = xpconv.vjp(xpconv.conv, x, weight)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for laid in (last, np.asfortranarray(x), np.stack([x, x], axis=-1)[..., 1], x[::-1, :, ::-1][::-1, :, ::-1]):
        y, pullback = xpconv.vjp(xpconv.conv, laid, np.asfortranarray(weight))
        assert_close(y, expected)
        for a, b in zip(pullback(np.asfortranarray(dy)), back(dy), strict=True):
            assert_close(a, b)


def test_an_empty_batch(way):
    y, pullback = xpconv.vjp(xpconv.conv, np.ones((0, 3, 4, 4)), np.ones((8, 3, 3, 3)))
    assert_close(y, np.ones((0, 8, 2, 2)))
    for gradient, shape in zip(pullback(y), ((0, 3, 4, 4), (8, 3, 3, 3)), strict=True):
        assert_close(gradient, np.zeros(shape))


def test_what_goes_in_stays_what_it_was(way):
    arrays = normal(2, 3, 7, 6), normal(8, 3, 2, 2), normal(8)
    before = [a.copy() for a in arrays]
    y, pullback = xpconv.vjp(xpconv.conv, *arrays)
    pullback(y)
    for array, kept in zip(arrays, before, strict=True):
        assert_close(array, kept, rtol=0)
