"""The kernels for CUDA, compiled for the host and run thread by thread, against the loops; and what calls them.

Inputs lie among NaNs, results are made full of NaNs with a fence around them: what is read or written where it should
not be shows, and so does what is not written at all.
"""

import cupy_on_host
import numpy as np
import pytest
import reference as ref
from cases import normal, spread
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_geometry import BATCHES, SEEDS, geometries

from xpconv.algorithms import Plan
from xpconv.arrays import to_numpy
from xpconv.cuda import depthwise, pooling, sources
from xpconv.cuda import rows as cuda_rows
from xpconv.cuda.lowering import Lowering, lower, raise_to
from xpconv.cuda.runtime import accumulation
from xpconv.cuda.winograd import Winograd
from xpconv.testing import assert_close
from xpconv.windows import window

pytestmark = pytest.mark.skipif(cupy_on_host.COMPILER is None, reason="there is no C++ compiler here")
DTYPES = st.sampled_from(["float64", "float32", "float16"])
WIDTHS = st.sampled_from([1, 2, 3, 4, 8])  # of these some are whole packs
LAYOUTS = st.sampled_from(["channels last", "channels first", "misaligned"])
several = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def cupy(monkeypatch):
    yield cupy_on_host.install(monkeypatch)
    assert cupy_on_host.cupy.fences_stand()


def placed(host, dtype, layout="channels last"):
    """An array (N, C, ...) of the host as (N, ..., C), wherever it lies in memory."""
    array = np.moveaxis(host, 1, -1)
    axes = range(array.ndim)
    order = (0, axes[-1], *axes[1:-1]) if layout == "channels first" else None
    return cupy_on_host.asarray(array, order, dtype, shift=layout == "misaligned")


def weights(host, dtype):
    """Filters (O, C/G, *kernel) as (*kernel, C/G, O)."""
    return cupy_on_host.asarray(np.moveaxis(host, (0, 1), (-1, -2)), None, dtype)


def rounded(dtype, *shape, seed=0):
    """Normal numbers that this dtype holds, in float64: the loops and the kernels then start from the same."""
    return normal(*shape, seed=seed).astype(dtype).astype("float64")


def same(actual, expected, dtype, first=1):
    """Compare (N, ..., C), or with `first` 0 (..., C, O), with an array that has its channels in front."""
    host = np.moveaxis(to_numpy(actual), (-1, -2)[: 2 - first], (first, 1)[: 2 - first])
    assert type(actual) is cupy_on_host.Array
    assert_close(host, expected.astype(dtype), atol=1e-30)


def planned(size, kernel, options):
    assume(all(ref.plan(size, kernel, **options)[1]))
    return window(size, ref.each(kernel, len(size)), **options)


# --- Lowering


@several
@given(geometry=geometries(), batch=BATCHES, width=WIDTHS, groups=st.integers(1, 3), dtype=DTYPES, layout=LAYOUTS)
def test_lowering_and_its_adjoint(cupy, geometry, batch, width, groups, dtype, layout):
    size, kernel, options = geometry
    plan, channels = planned(size, kernel, options), width * groups
    x = rounded(dtype, batch, channels, *size)
    rows = lower(placed(x, dtype, layout), plan, groups)
    columns = ref.unfold(x, kernel, **options)  # (N, C*taps, L)
    wanted = columns.reshape(batch, groups, width, plan.taps, -1).transpose(1, 0, 4, 3, 2)
    assert_close(to_numpy(rows), wanted.reshape(rows.shape).astype(dtype), rtol=0)
    given_rows = rounded(dtype, *rows.shape, seed=1)
    dx = cupy.empty((batch, *size, channels), dtype)
    raise_to(dx, cupy_on_host.asarray(given_rows, None, accumulation(dx)), plan, groups)
    columns = given_rows.reshape(groups, batch, -1, plan.taps, width).transpose(1, 0, 4, 3, 2)
    same(dx, ref.fold(columns.reshape(batch, channels * plan.taps, -1), size, kernel, **options), dtype)
    assert cupy.fences_stand()


@several
@given(
    geometry=geometries(),
    batch=st.integers(1, 3),
    counts=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
    dtype=DTYPES,
    layout=LAYOUTS,
    workspace=st.sampled_from([1, 2000, 1 << 30]),
)
def test_convolutions_by_lowering(cupy, geometry, batch, counts, bias, dtype, layout, workspace):
    (size, kernel, options), (groups, width, filters) = geometry, counts
    plan, way = Plan(planned(size, kernel, options), groups, workspace), Lowering()
    assert way.supports(plan.window, groups)
    x, w = (
        rounded(dtype, batch, width * groups, *size),
        rounded(dtype, filters * groups, width, *plan.window.kernel, seed=1),
    )
    b = rounded(dtype, filters * groups, seed=2) if bias else None
    wanted = ref.conv(x, w, b, **options, groups=groups)
    last, kernels = placed(x, dtype, layout), weights(w, dtype)
    given_bias = None if b is None else cupy_on_host.asarray(b, None, dtype)
    same(way.convolve(last, kernels, given_bias, plan), wanted, dtype)
    dy = rounded(dtype, *wanted.shape, seed=3)
    dx, dw, _ = ref.conv_gradients(dy, x, w, **options, groups=groups)
    same(way.weight_gradient(last, placed(dy, dtype, layout), plan), dw, dtype, first=0)
    same(way.input_gradient(placed(dy, dtype, layout), kernels, plan), dx, dtype)
    assert cupy.fences_stand()


def test_windows_of_one_element_are_not_lowered(cupy):
    way, plan = Lowering(), Plan(window((5, 4), (1, 1)), groups=2)
    x, w = normal(2, 6, 5, 4), normal(4, 3, 1, 1)
    y = way.convolve(placed(x, "float64"), weights(w, "float64"), None, plan)
    same(y, ref.conv(x, w, groups=2), "float64")
    assert cupy.launches == []


# --- Biases


@several
@given(
    rows=st.integers(0, 700),
    channels=WIDTHS,
    dtype=st.sampled_from(["float64", "float32", "float16", "complex64"]),
    layout=LAYOUTS,
    threads=st.sampled_from([1, 40, 1 << 16]),
)
def test_a_row_repeated_and_the_sum_of_rows(cupy, monkeypatch, rows, channels, dtype, layout, threads):
    monkeypatch.setattr(cuda_rows, "THREADS", threads)
    row = cupy_on_host.asarray(normal(channels), None, dtype, shift=layout == "misaligned")
    y = cupy.empty((rows, channels), dtype)
    cuda_rows.repeat_row(row, y)
    assert_close(to_numpy(y), np.tile(to_numpy(row), (rows, 1)), rtol=0)
    if dtype != "complex64":
        x = rounded(dtype, rows, channels, 1, seed=1)
        sums = cuda_rows.sum_rows(placed(x, dtype, layout))
        assert_close(to_numpy(sums), x.sum(axis=(0, 2)).astype(dtype), atol=1e-5)
    assert cupy.fences_stand()


def test_the_sum_of_many_rows_is_added_up_in_stages_without_looking_at_it(cupy):
    x = np.ones((2**15 + 1, 8, 1))
    sums = cuda_rows.sum_rows(placed(x, "float16"))
    assert_close(to_numpy(sums), np.full(8, 2**15, "float16"), rtol=0)
    assert cupy.launches == ["sum_rows<Float16, 8>", "sum_rows<float, 4>", "sum_rows<float, 4>"]
    assert cupy_on_host.Array.reads == 1


# --- Winograd


@several
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    pad=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
    batch=st.integers(1, 3),
    counts=st.tuples(WIDTHS, WIDTHS),
    bias=st.booleans(),
    m=st.sampled_from([2, 4]),
    dtype=st.sampled_from(["float64", "float32"]),
    layout=LAYOUTS,
    workspace=st.sampled_from([1, 10000, 1 << 30]),
)
def test_winograd(cupy, size, pad, batch, counts, bias, m, dtype, layout, workspace):
    (channels, filters), way = counts, Winograd(m)
    plan = Plan(planned(size, 3, {"pad": pad}), workspace=workspace)
    x, w = rounded(dtype, batch, channels, *size), rounded(dtype, filters, channels, 3, 3, seed=1)
    b = rounded(dtype, filters, seed=2) if bias else None
    wanted = ref.conv(x, w, b, pad=pad)
    last, given_bias = placed(x, dtype, layout), None if b is None else cupy_on_host.asarray(b, None, dtype)
    close = {"float64": 1e-12, "float32": 1e-4}[dtype]
    y = way.convolve(last, weights(w, dtype), given_bias, plan)
    assert_close(np.moveaxis(to_numpy(y), -1, 1), wanted.astype(dtype), rtol=close)
    dy = rounded(dtype, *wanted.shape, seed=3)
    _, dw, _ = ref.conv_gradients(dy, x, w, pad=pad)
    dw_here = way.weight_gradient(last, placed(dy, dtype, layout), plan)
    assert_close(np.moveaxis(to_numpy(dw_here), (-1, -2), (0, 1)), dw.astype(dtype), rtol=close, atol=close)
    assert cupy.fences_stand()


# --- Depthwise


@several
@given(
    geometry=geometries(),
    batch=st.integers(1, 3),
    channels=WIDTHS,
    bias=st.booleans(),
    dtype=DTYPES,
    layout=LAYOUTS,
    threads=st.sampled_from([1, 50, 1 << 16]),
)
def test_depthwise(cupy, monkeypatch, geometry, batch, channels, bias, dtype, layout, threads):
    size, kernel, options = geometry
    monkeypatch.setattr(depthwise, "THREADS", threads)
    plan, way = Plan(planned(size, kernel, options), channels), depthwise.Depthwise()
    x, w = rounded(dtype, batch, channels, *size), rounded(dtype, channels, 1, *plan.window.kernel, seed=1)
    b = rounded(dtype, channels, seed=2) if bias else None
    wanted = ref.conv(x, w, b, **options, groups=channels)
    last, filters = placed(x, dtype, layout), weights(w, dtype)
    given_bias = None if b is None else cupy_on_host.asarray(b, None, dtype)
    same(way.convolve(last, filters, given_bias, plan), wanted, dtype)
    dy = rounded(dtype, *wanted.shape, seed=3)
    dx, dw, _ = ref.conv_gradients(dy, x, w, **options, groups=channels)
    last_dy = placed(dy, dtype, layout)
    same(way.input_gradient(last_dy, filters, plan), dx, dtype)
    same(way.weight_gradient(last, last_dy, plan), dw, dtype, first=0)
    assert {name.partition("<")[0].partition("_")[0] for name in cupy.launches} == {"depthwise"}
    assert cupy.fences_stand()


# --- Pooling


@several
@given(
    geometry=geometries(least=3, most_pad=2),
    batch=BATCHES,
    channels=WIDTHS,
    ceil_mode=st.booleans(),
    count=st.one_of(st.booleans(), st.integers(1, 9)),
    dtype=DTYPES,
    layout=LAYOUTS,
    seed=SEEDS,
)
def test_pooling(cupy, geometry, batch, channels, ceil_mode, count, dtype, layout, seed):
    size, kernel, options = geometry
    options, rng = {**options, "ceil_mode": ceil_mode}, np.random.default_rng(seed)
    assume(all(ref.plan(size, kernel, **geometry[2])[1]))
    plan = window(size, ref.each(kernel, len(size)), **options)
    assume(not any(axis.padding_alone for axis in plan.axes))
    x = np.round(rng.standard_normal((batch, channels, *size)) * 2)  # of few values: many are equal
    x[rng.random(x.shape) < 0.1] = np.nan
    last = placed(x, dtype, layout)
    wanted, indices = ref.max_pool(x, kernel, **options)
    dy = rounded(dtype, *wanted.shape, seed=3)
    last_dy = placed(dy, dtype, layout)
    y, pullback = pooling.largest(last, plan)
    same(y, wanted, dtype)
    same(*pullback(last_dy), ref.max_pool_gradient(dy, indices, size), dtype)
    assert all(name.endswith("unsigned char>") for name in cupy.launches[-2:])
    x = rounded(dtype, *x.shape)
    given_mean, members = {"divisor": count}, [(count,) * plan.output[0], *((1,) * n for n in plan.output[1:])]
    if isinstance(count, bool):
        given_mean, members = {"count_include_pad": count}, [a.members(include_pad=count) for a in plan.axes]
    y, pullback = pooling.mean(placed(x, dtype, layout), plan, members)
    same(y, ref.avg_pool(x, kernel, **options, **given_mean), dtype)
    same(*pullback(last_dy), ref.avg_pool_gradient(dy, size, kernel, **options, **given_mean), dtype)
    assert cupy.fences_stand()


def test_more_taps_than_a_byte_counts(cupy):
    x = spread(1, 4, 17, 16)
    plan = window((17, 16), (17, 16))
    y, pullback = pooling.largest(placed(x, "float32"), plan)
    wanted, indices = ref.max_pool(x, (17, 16))
    same(y, wanted.astype("float32"), "float32")
    same(*pullback(placed(wanted, "float32")), ref.max_pool_gradient(wanted, indices, (17, 16)), "float32")
    assert all(name.endswith(" int>") for name in cupy.launches)


# --- Narrow numbers


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_narrow_number_is_itself_and_sums_are_rounded_to_the_nearest(cupy, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    every = np.arange(2**16, dtype=np.uint16).view(np.dtype(dtype))
    given_every, one = cupy_on_host.asarray(every.reshape(1, -1, 1)), window((2**16,), (1,))
    for divisor in (1, 2, 3):  # halves of the smallest are half way; thirds are on every side
        y = to_numpy(pooling.mean(given_every, one, [(divisor,) * len(every)])[0]).ravel()
        with np.errstate(invalid="ignore"):
            wanted = (every.astype("float32") / np.float32(divisor)).astype(dtype)
        assert y.dtype == wanted.dtype
        assert np.array_equal(y.astype("float32"), wanted.astype("float32"), equal_nan=True)


@pytest.mark.parametrize(("dtype", "places"), [("float16", 10), ("bfloat16", 7)])
def test_what_is_half_way_between_two_narrow_numbers_goes_to_the_even_one(cupy, dtype, places):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    numbers = 1 + np.arange(2**places) * 2.0**-places
    pairs = np.stack([numbers, np.full(len(numbers), 2.0 ** -(places + 1))], axis=1)
    plan = window((pairs.size,), (2,), stride=2)
    y, _ = pooling.mean(cupy_on_host.asarray(pairs.reshape(1, -1, 1), None, dtype), plan, [(1,) * len(pairs)])
    assert_close(to_numpy(y).ravel().astype("float32"), pairs.sum(axis=1).astype(dtype).astype("float32"), rtol=0)


def test_bfloat16_convolves(cupy):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, w = (normal(*s).astype(ml_dtypes.bfloat16) for s in ((2, 8, 6, 5), (16, 8, 3, 3)))
    y = Lowering().convolve(placed(x, x.dtype), weights(w, x.dtype), None, Plan(window((6, 5), (3, 3), pad=1)))
    assert y.dtype == x.dtype
    wanted = ref.conv(x.astype("float64"), w.astype("float64"), pad=1)
    assert np.max(np.abs(np.moveaxis(to_numpy(y), -1, 1).astype("float64") - wanted)) < 2**-8 * np.max(np.abs(wanted))


# --- Launches and memory


def test_whole_packs_are_moved_at_once(cupy):
    plan = window((4, 4), (3, 3), pad=1)
    for dtype, width in (("float32", 4), ("float16", 8), ("float64", 2)):
        for channels, layout, pack in ((8, "channels last", width), (8, "misaligned", 1), (8, "channels first", 1)):
            cupy.launches.clear()
            lower(placed(normal(1, channels, 4, 4), dtype, layout), plan, 1)
            assert cupy.launches == [sources.expression("lower", dtype, pack)]
    cupy.launches.clear()
    lower(placed(normal(1, 8, 4, 16), "float32", "channels first")[:, :, ::4], plan, 1)
    lower(placed(normal(1, 8, 4, 4), "float32"), plan, 4)
    assert cupy.launches == ["lower<float, 1>"] * 2  # channels that are apart; a group of two, half a pack


def test_nothing_is_launched_for_an_empty_batch(cupy):
    x, w = placed(normal(0, 2, 4, 4), "float32"), weights(normal(3, 2, 3, 3), "float32")
    y = Lowering().convolve(x, w, None, Plan(window((4, 4), (3, 3))))
    assert y.shape == (0, 2, 2, 3)
    assert cupy.launches == []


def test_a_workspace_that_does_not_fit_is_halved(cupy):
    x, w, plan = normal(4, 4, 8, 8), normal(4, 4, 3, 3), Plan(window((8, 8), (3, 3)))
    row = 6 * 9 * 4 * 8  # bytes
    last, kernels, wanted = placed(x, "float64"), weights(w, "float64"), ref.conv(x, w)
    cupy.room = wanted.nbytes  # fewer than all rows take
    way = Lowering()
    same(way.convolve(last, kernels, None, plan), wanted, "float64")
    assert cupy.released == 4  # 24 rows, 12, 6, 3; one of them fits
    cupy.room = row - 1
    words = f"takes {wanted.nbytes} bytes for its result and {row} of workspace, and 1024 were free"
    with pytest.raises(MemoryError, match=words):
        way.convolve(last, kernels, None, plan)
    cupy.room = float("inf")
    same(way.convolve(last, kernels, None, plan), wanted, "float64")
