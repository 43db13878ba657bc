"""Every algorithm against the loop oracle, the model that chooses between them, and bands of any size."""

import itertools

import numpy as np
import pytest
import reference as ref
from applying import value_and_gradients

import xpconv
from xpconv.algorithms import Plan
from xpconv.algorithms.toom_cook import transforms
from xpconv.compiled import compiler
from xpconv.execution import products, tasks
from xpconv.selection.model import ALGORITHMS, choose, rooms
from xpconv.testing import assert_close
from xpconv.windows import window

# (x, weight), for kernels of three taps an axis: what every algorithm can compute
SHAPES = {
    "1 axis": ((2, 3, 11), (4, 3, 3)),
    "2 axes": ((2, 3, 7, 9), (5, 3, 3, 3)),
    "2 axes, whole tiles": ((1, 4, 8, 8), (2, 4, 3, 3)),
    "2 axes, smaller than a tile": ((2, 2, 3, 3), (3, 2, 3, 3)),
    "3 axes": ((1, 2, 5, 4, 6), (3, 2, 3, 3, 3)),
}

UNGROUPED = [name for name in ALGORITHMS if name != "depthwise"]


def arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    x, weight = (rng.standard_normal(shape) for shape in shapes)
    return x, weight, rng.standard_normal(weight.shape[0])


def check(backend, hosts, algorithm, **options):
    """Hold y and every gradient to the loops'."""
    y, dy, gradients = value_and_gradients(backend, xpconv.conv, hosts, algorithm=algorithm, **options)
    like = backend.asarray(hosts[0])
    assert_close(y, ref.conv(*hosts, **options), like=like, rtol=1e-9, atol=1e-10)
    for got, host in zip(gradients, ref.conv_gradients(dy, *hosts[:2], **options), strict=True):
        assert_close(got, host, like=like, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("pad", [0, "same"], ids=str)
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("algorithm", UNGROUPED)
def test_values_and_gradients(backend, algorithm, shapes, pad):
    check(backend, arrays(shapes), algorithm, pad=pad)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_empty_batch(backend, algorithm, groups):
    if algorithm == "depthwise" if groups == 1 else algorithm.startswith("winograd"):
        pytest.skip("it does not compute such groups")
    check(backend, arrays(((0, 4, 7, 6), (4, 4 // groups, 3, 3))), algorithm, groups=groups)


# Channels, filters, groups: one channel a group, several filters of each, several channels; then other numbers of axes
@pytest.mark.parametrize(
    ("channels", "filters", "groups", "size"),
    [(4, 4, 4, (7, 9)), (3, 6, 3, (7, 9)), (6, 4, 2, (7, 9)), (3, 6, 3, (9,)), (3, 6, 3, (4, 5, 6))],
)
@pytest.mark.parametrize("options", [{"pad": 1}, {"stride": 2, "pad": 1}, {"dilation": 2, "pad": "same"}], ids=str)
def test_depthwise_values_and_gradients(backend, channels, filters, groups, size, options):
    hosts = arrays(((2, channels, *size), (filters, channels // groups, *(3 for _ in size))))
    check(backend, hosts, "depthwise", groups=groups, **options)


def test_a_frozen_depthwise_weight_serves_inputs_of_any_size():
    rng = np.random.default_rng(0)
    weight = xpconv.freeze(rng.standard_normal((3, 1, 3, 3)))
    for size in (5, 8):
        x = rng.standard_normal((2, 3, size, size))
        assert_close(xpconv.conv(x, weight, groups=3), ref.conv(x, weight, groups=3), atol=1e-10)


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
def test_a_frozen_weight_serves_any_stride(backend, algorithm):
    x, weight, _ = arrays(((2, 3, 9, 8), (8, 3, 3, 3)))
    given, frozen = backend.asarray(x), xpconv.freeze(backend.asarray(weight))
    for stride in (1, 2, 1):
        y = xpconv.conv(given, frozen, stride=stride, algorithm=algorithm)
        assert_close(y, ref.conv(x, weight, stride=stride), like=given, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("workspace", [1, 1 << 14])
@pytest.mark.parametrize("algorithm", UNGROUPED)
def test_a_small_workspace_gives_the_same(backend, algorithm, workspace):
    x, weight, bias = arrays(((2, 4, 11, 9), (8, 4, 3, 3)))
    given = [backend.asarray(a) for a in (x, weight, bias)]
    y, pullback = xpconv.vjp(xpconv.conv, *given, pad=1, algorithm=algorithm, workspace=workspace)
    wanted = ref.conv(x, weight, bias, pad=1)
    assert_close(y, wanted, like=given[0], atol=1e-9)
    for got, array, host in zip(pullback(y), given, ref.conv_gradients(wanted, x, weight, pad=1), strict=True):
        assert_close(got, host, like=array, rtol=1e-9, atol=1e-9)


def test_a_workspace_of_nothing_is_refused():
    with pytest.raises(ValueError, match="workspace is 0; give a whole number of at least 1"):
        xpconv.conv(np.ones((1, 2, 8, 8)), np.ones((2, 2, 3, 3)), workspace=0)


@pytest.mark.parametrize(("stride", "places"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("m", [2, 4])
def test_winograd_matrices_filter_exactly(m, stride, places):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((m - 1) * stride + 3), rng.standard_normal(3)
    matrices = transforms(m, stride)
    assert (matrices.places, matrices.span) == (stride * m + places, len(x))
    y = matrices.outputs @ ((matrices.filters @ w) * (matrices.inputs @ x))
    np.testing.assert_allclose(y, np.correlate(x, w, "valid")[::stride], rtol=1e-12, atol=1e-12)


# Filters enough for loops and too few, channels that fill no vector, tiles that reach beyond the image
@pytest.mark.parametrize("algorithm", ["winograd", "winograd2"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "filters", "size"),
    [(3, 8, (11,)), (17, 33, (7, 9)), (2, 3, (4, 5, 6))],
    ids=str,
)
def test_winograd_of_any_stride_and_size(backend, channels, filters, size, stride, algorithm):
    hosts = arrays(((2, channels, *size), (filters, channels, *(3 for _ in size))))
    check(backend, hosts, algorithm, stride=stride, pad=1)


# The largest error for outputs of unit variance, of 128 channels
@pytest.mark.parametrize(("algorithm", "bound"), [("direct", 1e-5), ("winograd2", 1e-5), ("winograd", 5e-5)])
def test_float32_error_stays_below_the_documented_bound(algorithm, bound):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 128, 14, 14))
    weight = rng.standard_normal((16, 128, 3, 3)) / (9 * 128) ** 0.5
    narrow = x.astype(np.float32), weight.astype(np.float32)
    wanted = ref.conv(*(a.astype(np.float64) for a in narrow), pad=1)
    y = xpconv.conv(*narrow, pad=1, algorithm=algorithm)
    assert y.dtype == np.float32
    assert 0 < abs(y - wanted).max() < bound


@pytest.mark.parametrize("algorithm", ["auto", "direct", "winograd"])
def test_two_runs_give_identical_bits(algorithm):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 32, 28, 28), dtype=np.float32)
    weight = rng.standard_normal((32, 32, 3, 3), dtype=np.float32)
    runs = []
    for _ in range(2):
        y, pullback = xpconv.vjp(xpconv.conv, x, weight, pad=1, algorithm=algorithm)
        runs.append((y, *pullback(y)))
    for first, second in zip(*runs, strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("cache", [1 << 10, 1 << 14, 1 << 30])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (3, 2, 1), (5, 3, 2), (1, 1, 1), (2, 1, 4)])
def test_bands_of_any_size_give_the_same(monkeypatch, cache, kernel, stride, groups):
    """On NumPy the work is cut to fit a cache, elsewhere to fit a workspace; where the cuts lie must not matter."""
    monkeypatch.setattr(tasks, "TASK", cache)
    monkeypatch.setattr(tasks, "ALONE", 0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 4, 19, 17))
    weight = rng.standard_normal((8, 4 // groups, kernel, kernel))
    options = {"stride": stride, "pad": 1, "groups": groups}
    wanted = ref.conv(x, weight, **options)
    dy = rng.standard_normal(wanted.shape)
    gradients = ref.conv_gradients(dy, x, weight, **options)[:2]
    for flag in ("numpy", "array-api-strict"):
        if flag != "numpy":
            pytest.importorskip("array_api_strict")
        make = xpconv.backend(flag).asarray
        y, pullback = xpconv.vjp(xpconv.conv, make(x), make(weight), **options)
        assert_close(y, wanted, like=make(x))
        for got, host in zip(pullback(make(dy)), gradients, strict=True):
            assert_close(got, host, like=make(x), atol=1e-10)


@pytest.mark.parametrize("algorithm", ["auto", "direct", "fft", "winograd", "depthwise"])
@pytest.mark.parametrize("size", [(401,), (19, 17), (7, 6, 5)], ids=len)
def test_bands_of_any_number_of_axes_get_their_bias(monkeypatch, algorithm, size):
    """Of one axis the bands are parts of what is otherwise a whole row."""
    monkeypatch.setattr(tasks, "TASK", 1 << 10)
    monkeypatch.setattr(tasks, "ALONE", 0)
    groups = 4 if algorithm == "depthwise" else 1
    x, weight, bias = arrays(((2, 4, *size), (8, 4 // groups, *(3 for _ in size))))
    y = xpconv.conv(x, weight, bias, pad=1, groups=groups, algorithm=algorithm)
    assert_close(y, ref.conv(x, weight, bias, pad=1, groups=groups))


@pytest.mark.parametrize("layout", list(itertools.permutations(range(4))), ids=str)
def test_any_layout_in_memory_gives_the_same(layout):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 9, 8)), rng.standard_normal((6, 4, 3, 3))

    def laid(array):
        return np.ascontiguousarray(array.transpose(layout)).transpose(np.argsort(layout))

    for algorithm in ("direct", "winograd"):
        y, pullback = xpconv.vjp(xpconv.conv, laid(x), laid(weight), pad=1, algorithm=algorithm)
        wanted = ref.conv(x, weight, pad=1)
        assert_close(y, wanted, atol=1e-10)
        for got, host in zip(pullback(laid(wanted)), ref.conv_gradients(wanted, x, weight, pad=1)[:2], strict=True):
            assert_close(got, host, atol=1e-9)


def test_results_lie_channels_last_in_memory():
    y = xpconv.conv(np.ones((2, 3, 6, 6)), np.ones((4, 3, 3, 3)))
    assert y.shape == (2, 4, 4, 4)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def chosen(x, filters, kernel, **options):
    plan = Plan(window(x.shape[1:-1], kernel, **options))
    return next(name for name, way in rooms(x, filters, plan).items() if way == choose("auto", x, filters, plan))


def test_auto_takes_winograd_where_it_pays(monkeypatch):
    monkeypatch.setattr(products, "small_product", lambda: 1_000_000)
    large = np.zeros((8, 28, 28, 64), np.float32)
    assert chosen(large, 64, 3, pad=1) == "winograd"
    assert chosen(large, 64, 3, pad=1, stride=2) == "direct"
    assert chosen(large, 64, 5, pad=1) == "fft"
    assert chosen(large[..., :8], 64, 3, pad=1) == "direct"
    assert type(choose("auto", large, 64, Plan(window((28, 28), 3), groups=64))).__name__ == "Depthwise"
    assert chosen(large[:, :4, :4], 64, 3, pad=1) == "direct"
    assert chosen(large.astype(np.float64), 64, 3, pad=1) == "direct"
    monkeypatch.setattr(products, "small_product", lambda: 0)
    assert chosen(large, 64, 3, pad=1) == "direct"


def test_a_blas_without_a_small_kernel_gives_the_same(monkeypatch):
    x, weight, bias = arrays(((3, 8, 12, 12), (64, 8, 3, 3)))
    y = ref.conv(x, weight, bias, pad=1)
    wanted = y, *ref.conv_gradients(y, x, weight, pad=1)
    for limit in (0, 2_000, 20_000, 1_000_000):
        monkeypatch.setattr(products, "small_product", lambda limit=limit: limit)
        for algorithm in ("direct", "winograd"):
            found, pullback = xpconv.vjp(xpconv.conv, x, weight, bias, pad=1, algorithm=algorithm)
            for array, expected in zip((found, *pullback(y)), wanted, strict=True):
                assert_close(array, expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "magic"}, r"algorithm is 'magic'; choose one of auto, direct"),
        (
            {"algorithm": "winograd", "stride": 3},
            r"'winograd' does not compute .* stride \(3, 3\).* choose one of auto",
        ),
        ({"algorithm": "winograd", "dilation": 2}, r"dilation \(2, 2\)"),
    ],
)
def test_an_algorithm_that_does_not_serve_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        xpconv.conv(np.ones((1, 2, 8, 8)), np.ones((2, 2, 3, 3)), **options)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_bands_that_are_parts_of_a_row(monkeypatch, stride):
    monkeypatch.setattr(tasks, "TASK", 1 << 9)
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 4, 101)), rng.standard_normal((4, 1, 3)), rng.standard_normal(4)
    options = {"stride": stride, "pad": 1, "groups": 4}
    monkeypatch.setenv("XPCONV_NUMBA", "0")
    compiler.available.cache_clear()
    try:
        y, pullback = xpconv.vjp(xpconv.conv, x, weight, bias, **options)
        assert_close(y, ref.conv(x, weight, bias, **options), atol=1e-10)
        dy = rng.standard_normal(y.shape)
        for got, wanted in zip(pullback(dy), ref.conv_gradients(dy, x, weight, **options), strict=True):
            assert_close(got, wanted, atol=1e-10)
    finally:
        monkeypatch.undo()
        compiler.available.cache_clear()
