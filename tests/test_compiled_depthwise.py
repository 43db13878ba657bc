"""Depthwise convolution by windows that slide through registers, where loops are compiled, and the array code."""

import numpy as np
import pytest
import reference as ref
from cases import normal
from test_pooling import draw_geometry

import xpconv
from xpconv.compiled import sweeps
from xpconv.testing import assert_close

GEOMETRIES = {  # channels, size, kernel, options; blocks of 32 or 64 channels of float32, tiles of up to 7 windows
    "beside each other": (3, (5, 11), (3, 3), {"pad": 1}),
    "several blocks, and some channels more": (70, (4, 9), (3, 3), {"pad": 1}),
    "several tiles": (5, (3, 25), (3, 3), {"pad": 1}),
    "strided": (3, (6, 14), (3, 3), {"stride": 2, "pad": 1}),
    "strided, and some windows and channels more": (70, (6, 43), (3, 3), {"stride": 2, "pad": 1}),
    "in between": (3, (7, 9), (2, 2), {"stride": 3}),
    "dilated": (3, (12, 6), (4, 2), {"stride": (2, 1), "dilation": (1, 3), "pad": ((0, 2), (1, 0))}),
    "dilated by more than the stride": (2, (5, 23), (2, 3), {"stride": 2, "dilation": (1, 3), "pad": 3}),
    "dilated by a multiple of the stride": (2, (5, 23), (2, 3), {"stride": 2, "dilation": (1, 4), "pad": 3}),
    "one tap": (3, (4, 9), (3, 1), {"stride": (1, 2)}),
    "a long window": (3, (3, 40), (1, 17), {"pad": (0, 8)}),
    "padding alone": (2, (2, 2), (2, 2), {"pad": 3}),
    "one axis": (3, (13,), (5,), {"pad": 2}),
    "three axes": (3, (3, 4, 5), (2, 1, 3), {"stride": (1, 2, 1), "pad": "same"}),
}


@pytest.fixture
def swept(way, monkeypatch):
    """A list that grows with every sweep of a loop, and how many a convolution and each gradient should make."""
    made = []
    if way == "loops":
        from xpconv.compiled import depthwise

        monkeypatch.setattr(depthwise, "sweep", lambda *given: made.append(given) or sweeps.sweep(*given))
    return made, way == "loops"


def check(swept, channels, size, kernel, options, dtype="float64"):
    made, each = swept
    x, weight, bias = normal(2, channels, *size), normal(channels, 1, *kernel), normal(channels)
    given = [a.astype(dtype) for a in (x, weight, bias)]
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    y, pullback = xpconv.vjp(xpconv.conv, *given, groups=channels, **options)
    wanted = ref.conv(x, weight, bias, groups=channels, **options)
    assert_close(y, wanted.astype(dtype), atol=tolerance, rtol=tolerance)
    dy = normal(*y.shape, seed=9)
    gradients = ref.conv_gradients(dy, x, weight, groups=channels, **options)
    for found, gradient in zip(pullback(dy.astype(dtype)), gradients, strict=True):
        assert_close(found, gradient.astype(dtype), atol=tolerance, rtol=tolerance)
    assert len(made) == 3 * each
    (dweight,) = pullback(dy.astype(dtype), without=(0, 2))[1:2]
    assert_close(dweight, gradients[1].astype(dtype), atol=tolerance, rtol=tolerance)
    assert len(made) == 4 * each


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_values_and_gradients(swept, name, dtype):
    check(swept, *GEOMETRIES[name], dtype)


@pytest.mark.parametrize("seed", range(24))
def test_any_geometry(swept, seed):
    shape, kernel, options = draw_geometry(200 + seed)
    check(swept, 3, shape[2:], kernel, {k: v for k, v in options.items() if k != "ceil_mode"})


def test_several_threads_make_the_same(way, monkeypatch):
    x, weight = normal(3, 2, 9, 8), normal(2, 1, 3, 3)

    def all_of_it():
        y, pullback = xpconv.vjp(xpconv.conv, x, weight, groups=2, pad=1)
        return y, *pullback(y)

    whole = all_of_it()
    monkeypatch.setattr(sweeps, "ALONE", 0)
    for a, b in zip(all_of_it(), whole, strict=True):
        assert_close(a, b, rtol=0, atol=0)


def test_arrays_may_lie_anyhow(way):
    x, weight, dy = normal(2, 3, 7, 6), normal(3, 1, 2, 2), normal(2, 3, 6, 5)
    expected, gradients = ref.conv(x, weight, groups=3), ref.conv_gradients(dy, x, weight, groups=3)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for laid in (last, np.asfortranarray(x), np.stack([x, x], axis=-1)[..., 1], x[::-1, :, ::-1][::-1, :, ::-1]):
        y, pullback = xpconv.vjp(xpconv.conv, laid, np.asfortranarray(weight), groups=3)
        assert_close(y, expected)
        for found, gradient in zip(pullback(np.asfortranarray(dy)), gradients[:2], strict=True):
            assert_close(found, gradient)


def test_an_empty_batch(way):
    y, pullback = xpconv.vjp(xpconv.conv, np.ones((0, 3, 4, 4)), np.ones((3, 1, 3, 3)), groups=3)
    dx, dweight = pullback(y)
    assert_close(y, np.ones((0, 3, 2, 2)))
    assert_close(dx, np.ones((0, 3, 4, 4)))
    assert_close(dweight, np.zeros((3, 1, 3, 3)))
