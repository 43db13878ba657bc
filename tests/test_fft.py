"""Fourier's way against the loop oracle: transforms by matrices and by the library, whatever the geometry."""

import numpy as np
import pytest
import reference as ref

import xpconv
from xpconv.algorithms import Plan
from xpconv.algorithms.fft import tiled
from xpconv.algorithms.fourier import Fast, Matrices
from xpconv.selection.model import ALGORITHMS, choose
from xpconv.testing import assert_close
from xpconv.windows import Axis, Window, window

# (x, weight), and the options
GEOMETRIES = {
    "a large kernel": ((2, 3, 20, 17), (4, 3, 9, 7), {"pad": (4, 3)}),
    "a kernel along one of two axes": ((1, 2, 3, 40), (3, 2, 1, 21), {"pad": "same"}),
    "stride": ((2, 4, 15, 16), (6, 4, 5, 4), {"stride": (2, 3), "pad": 2}),
    "stride beyond the kernel": ((1, 2, 17), (2, 2, 2), {"stride": 5, "pad": (2,)}),
    "dilation": ((2, 2, 16, 14), (3, 2, 3, 4), {"dilation": (4, 2), "pad": "same"}),
    "stride, dilation and groups": ((2, 4, 20), (6, 2, 5), {"stride": 2, "dilation": 3, "pad": 6, "groups": 2}),
    "depthwise": ((2, 3, 15, 14), (6, 1, 7, 7), {"pad": 3, "groups": 3}),
    "three axes": ((1, 2, 8, 7, 9), (2, 2, 4, 5, 3), {"pad": 2}),
    "a kernel as large as the image": ((2, 3, 6, 5), (4, 3, 6, 5), {}),
}
LONG = {  # transforms that are left to the library
    "long": ((2, 2, 90), (3, 2, 66), {"pad": 1}),
    "long, with stride, dilation and groups": ((1, 4, 400), (2, 2, 30), {"stride": 2, "dilation": 3, "groups": 2}),
    "long along one of two axes": ((1, 2, 5, 150), (2, 2, 2, 66), {"pad": (1, 9), "dilation": (2, 1)}),
}


def check(backend, shapes, **options):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape) for shape in shapes)
    bias = rng.standard_normal(weight.shape[0])
    given = [backend.asarray(a) for a in (x, weight, bias)]
    y, pullback = xpconv.vjp(xpconv.conv, *given, **options, algorithm="fft")
    options.pop("workspace", None)
    wanted = ref.conv(x, weight, bias, **options)
    assert_close(y, wanted, like=given[0], rtol=1e-11, atol=1e-11)
    dy = rng.standard_normal(wanted.shape)
    gradients = ref.conv_gradients(dy, x, weight, **options)
    for got, host, array in zip(pullback(backend.asarray(dy)), gradients, given, strict=True):
        assert_close(got, host, like=array, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_values_and_gradients(quick_backend, geometry):
    *shapes, options = geometry
    check(quick_backend, shapes, **options)


def test_values_and_gradients_on_every_backend(backend):
    check(backend, ((2, 4, 9, 11), (6, 2, 5, 4)), stride=(1, 2), dilation=(2, 1), pad=(3, 1), groups=2)


@pytest.mark.parametrize("name", LONG)
def test_values_and_gradients_of_long_kernels(backend, name):
    if backend.name == "jax" and name != "long":
        pytest.skip("compiles for long, and nothing in it is its own")
    *shapes, options = LONG[name]
    if backend.xp.__name__ == "array_api_strict":  # held to what every library has, which leaves out extensions
        with pytest.raises(ValueError, match='array_api_strict has no fft; choose algorithm "direct"'):
            check(backend, shapes, **options)
        with backend.xp.ArrayAPIStrictFlags(enabled_extensions=("fft",)):
            check(backend, shapes, **options)
    else:
        check(backend, shapes, **options)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_filters_beyond_the_workspace_are_taken_in_parts(quick_backend, groups):
    check(quick_backend, ((2, 4, 12, 11), (8, 4 // groups, 5, 5)), pad=2, groups=groups, workspace=1 << 14)


def test_the_smallest_workspace_takes_one_filter_at_a_time(quick_backend):
    check(quick_backend, ((1, 2, 9, 10), (3, 2, 5, 5)), workspace=1)


@pytest.mark.parametrize("made", [Matrices((12, 11)), Fast((12, 11))])
def test_no_image_gives_an_empty_spectrum(made):
    tiles = Window((Axis(10, 10, 4, 0, 0, 1, 1),) * 2)
    assert made.spectrum(np.zeros((0, 10, 10, 3)), tiles, (range(10),) * 2).shape == (made.numbers, 0, 3)


def test_transforms_are_of_rotations():
    """By the definition of the discrete Fourier transform, at the frequencies halfway between the usual ones."""
    x = np.random.default_rng(0).standard_normal(6)
    spectrum = Matrices((6,)).spectrum(x.reshape(1, 6, 1), Window((Axis(6, 6, 6, 0, 0, 1, 1),)), (range(6),))
    wanted = [sum(x[t] * np.exp(-2j * np.pi * (f + 0.5) * t / 6) for t in range(6)) for f in range(3)]
    got = spectrum.reshape(3, 3)
    np.testing.assert_allclose(got[0] + 1j * got[1], wanted, rtol=1e-12)
    np.testing.assert_allclose(got[2], got[0] + got[1], rtol=1e-12)


def test_a_frozen_weight_serves_inputs_of_any_size():
    rng = np.random.default_rng(0)
    weight = xpconv.freeze(rng.standard_normal((3, 2, 5, 5)))
    for options in ({}, {"stride": 2}, {"dilation": 2}):
        for size in (9, 40, 9):
            x = rng.standard_normal((2, 2, size, size))
            y = xpconv.conv(x, weight, algorithm="fft", **options)
            assert_close(y, ref.conv(x, weight, **options), atol=1e-11)


@pytest.mark.parametrize("dtype", ["complex128", "int32"])
def test_numbers_that_are_not_real_and_floating_are_refused(dtype):
    x, weight = np.ones((1, 1, 6), dtype), np.ones((1, 1, 3), dtype)
    with pytest.raises(ValueError, match=f"x has dtype {dtype}, which algorithm 'fft' does not compute"):
        xpconv.conv(x, weight, algorithm="fft")


def test_whole_numbers_are_refused_by_winograd():
    with pytest.raises(ValueError, match="x has dtype int32, which algorithm 'winograd' does not compute"):
        xpconv.conv(np.ones((1, 1, 6), "int32"), np.ones((1, 1, 3), "int32"), algorithm="winograd")


def chosen(shape, filters, kernel, groups=1, dtype=np.float32, **options):
    size = shape[1:-1]
    plan = Plan(window(size, kernel, pad="same", **options), groups)
    return next(n for n, way in ALGORITHMS.items() if way is choose("auto", np.zeros(shape, dtype), filters, plan))


def test_auto_takes_it_where_it_pays(monkeypatch):
    monkeypatch.setattr("xpconv.selection.model.fused", lambda *_: None)  # compiled loops would do its work
    monkeypatch.setattr("xpconv.execution.products.small_product", lambda: 1_000_000)
    assert chosen((8, 56, 56, 64), 64, 7) == "fft"
    assert chosen((8, 56, 56, 64), 64, 7, dtype=np.float64) == "direct"
    assert chosen((8, 56, 56, 64), 64, 3) == "winograd"
    assert chosen((8, 56, 56, 3), 64, 7, stride=2) == "direct"  # few channels to spread the transforms over
    assert chosen((1, 7, 7, 256), 256, 5) == "direct"  # few windows to spread the filters over
    assert chosen((8, 56, 56, 64), 64, 7, groups=64) == "fft"
    assert chosen((8, 56, 56, 64), 64, 3, groups=64) == "depthwise"
    assert chosen((8, 1000, 64), 64, 300) == "fft"
    monkeypatch.setattr("xpconv.execution.products.small_product", lambda: 0)
    assert chosen((8, 56, 56, 64), 64, 7) == "direct"


def test_tiles_grow_with_the_kernel_and_stay_within_the_output():
    def tiling(size, kernel):
        return tiled(Plan(window((size, size), kernel, pad="same")), 64, 64)

    small, large = tiling(200, 5), tiling(200, 15)
    assert small.lengths < large.lengths and max(large.lengths) <= 128
    assert tiling(6, 5).gives == (6, 6)
    assert all(length >= gives + 14 for length, gives in zip(large.lengths, large.gives, strict=True))
    assert isinstance(tiling(200, 65).transform, Fast)
