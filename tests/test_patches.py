"""im2col and col2im, unfold and fold: values by the loop oracle, and each the exact adjoint of the other."""

import numpy as np
import pytest
import reference as ref
from applying import compiled, value_and_gradients
from cases import integers, normal

import xpconv
from xpconv.testing import assert_close, check_adjoint

IMAGES = [  # shape, filter_h, filter_w, stride, pad
    ((2, 3, 7, 6), 3, 2, 1, 0),
    ((2, 3, 7, 6), 3, 4, (2, 3), ((1, 0), (0, 2))),
    ((1, 2, 8, 5), 2, 2, 3, 0),  # elements that no window touches
    ((2, 1, 5, 5), 4, 3, 2, "same"),
]
VOLUMES = [  # shape, kernel, options
    ((2, 3, 9), 3, {"stride": 2, "pad": ((2, 0),), "dilation": 2}),
    ((2, 2, 7, 6), (3, 2), {"stride": (2, 1), "pad": ((1, 0), (0, 2)), "dilation": (1, 3)}),
    ((1, 2, 4, 5, 4), (2, 3, 2), {"stride": (1, 2, 3), "pad": "same"}),
]


def draw_volume(seed):
    """Any number of axes up to three, and windows over them that fit."""
    rng = np.random.default_rng(seed)
    axes = 1 + seed % 3
    while True:
        size, kernel, stride, dilation = (
            tuple(int(n) for n in rng.integers(low, high, axes)) for low, high in ((1, 8), (1, 5), (1, 5), (1, 4))
        )
        pad = "same" if rng.random() < 0.2 else tuple((int(a), int(b)) for a, b in rng.integers(0, 4, (axes, 2)))
        if all(ref.plan(size, kernel, stride, pad, dilation)[1]):
            return (2, 3, *size), kernel, {"stride": stride, "pad": pad, "dilation": dilation}


# --- im2col


@pytest.mark.parametrize(("batch", "shape"), [(1, (9, 75)), (10, (90, 75))])
def test_the_shapes_of_the_chapter(batch, shape):
    x = np.random.default_rng(0).random((batch, 3, 7, 7))
    assert xpconv.im2col(x, 5, 5, stride=1, pad=0).shape == shape


def test_rows_are_windows_and_columns_run_over_channels_then_taps():
    x = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
    col = xpconv.im2col(x, 2, 3)
    assert col.shape == (2 * 2 * 2, 2 * 2 * 3)
    for row, (n, i, j) in zip(col, np.ndindex(2, 2, 2), strict=True):
        assert row.tolist() == [x[n, c, i + k, j + m] for c, k, m in np.ndindex(2, 2, 3)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int8", "bool"])
def test_im2col_only_moves_elements(backend, dtype):
    host = (normal(2, 3, 5, 4) * 100).astype(dtype)
    x = backend.asarray(host)
    assert_close(xpconv.im2col(x, 2, 3, pad=1), ref.im2col(host, 2, 3, pad=1), like=x, rtol=0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("geometry", IMAGES, ids=str)
def test_im2col_and_col2im_agree_with_the_loops(backend, geometry, dtype):
    shape, *window = geometry
    options = dict(zip(("filter_h", "filter_w", "stride", "pad"), window, strict=True))
    x, like = normal(*shape).astype(dtype), backend.asarray(0.0)
    expected = ref.im2col(x, *window)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.im2col, [x], **options)
    assert_close(y, expected, like=like, rtol=0)
    assert_close(dx, ref.col2im(dy.astype(dtype), shape, *window), like=like)
    col = normal(*expected.shape).astype(dtype)
    y, dy, (dcol,) = value_and_gradients(backend, xpconv.col2im, [col], input_shape=shape, **options)
    assert_close(y, ref.col2im(col, shape, *window), like=like)
    assert_close(dcol, ref.im2col(dy.astype(dtype), *window), like=like, rtol=0)


def test_col2im_is_the_adjoint_of_im2col(backend):
    shape, window = (2, 3, 7, 6), (3, 4, (2, 3), ((1, 0), (0, 2)))
    x, col = backend.asarray(normal(*shape)), backend.asarray(normal(12, 36))
    check_adjoint(
        compiled(backend, lambda x: xpconv.im2col(x, *window)),
        compiled(backend, lambda col: xpconv.col2im(col, shape, *window)),
        x,
        col,
    )


def test_col2im_of_whole_numbers_stays_whole(backend):
    col = integers(9, 18, 18)
    moved = backend.asarray(col)
    assert_close(xpconv.col2im(moved, (2, 2, 5, 5), 3, 3), ref.col2im(col, (2, 2, 5, 5), 3, 3), like=moved)


# --- unfold


@pytest.mark.parametrize("geometry", VOLUMES, ids=str)
def test_unfold_and_fold_agree_with_the_loops(backend, geometry):
    shape, kernel, options = geometry
    x, like = normal(*shape), backend.asarray(0.0)
    expected = ref.unfold(x, kernel, **options)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.unfold, [x], kernel=kernel, **options)
    assert_close(y, expected, like=like, rtol=0)
    assert_close(dx, ref.fold(dy, shape[2:], kernel, **options), like=like)
    col, options = normal(*expected.shape), {"output_size": shape[2:], "kernel": kernel, **options}
    y, dy, (dcol,) = value_and_gradients(backend, xpconv.fold, [col], **options)
    assert_close(y, ref.fold(col, **options), like=like)
    del options["output_size"]
    assert_close(dcol, ref.unfold(dy, **options), like=like, rtol=0)


def test_fold_is_the_adjoint_of_unfold(backend):
    dtype = "float32"
    options = {"stride": (1, 2, 3), "pad": "same"}
    x = backend.asarray(normal(1, 2, 4, 5, 4), dtype)
    col = backend.asarray(normal(1, 24, 24), dtype)
    check_adjoint(
        compiled(backend, lambda x: xpconv.unfold(x, (2, 3, 2), **options)),
        compiled(backend, lambda col: xpconv.fold(col, (4, 5, 4), (2, 3, 2), **options)),
        x,
        col,
    )


@pytest.mark.parametrize("seed", range(60))
def test_any_geometry_agrees_with_the_loops(quick_backend, seed):
    shape, kernel, options = draw_volume(seed)
    x = quick_backend.asarray(normal(*shape))
    expected = ref.unfold(normal(*shape), kernel, **options)
    assert_close(xpconv.unfold(x, kernel, **options), expected, like=x, rtol=0)
    col = normal(*expected.shape)
    folded = xpconv.fold(quick_backend.asarray(col), shape[2:], kernel, **options)
    assert_close(folded, ref.fold(col, shape[2:], kernel, **options), like=x)


def test_unfold_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    x, options = normal(2, 3, 7, 6), {"stride": (2, 1), "dilation": (1, 2)}
    expected = torch.nn.functional.unfold(torch.tensor(x), (3, 2), padding=(1, 2), **options)
    assert_close(xpconv.unfold(x, (3, 2), pad=(1, 2), **options), expected.numpy(), rtol=0)


def test_fold_of_unfold_counts_the_windows_of_every_element(backend):
    ones = backend.asarray(np.ones((1, 1, 5)))
    counted = xpconv.fold(xpconv.unfold(ones, 3), 5, 3)
    assert_close(counted, np.array([[[1.0, 2, 3, 2, 1]]]), like=ones)
