"""Pooling of every kind, over any number of axes: against loops, its gradients, and what it refuses."""

import numpy as np
import pytest
import reference as ref
from applying import value_and_gradients
from cases import integers, normal, spread

import xpconv
from xpconv.arrays.libraries import at_hand
from xpconv.testing import assert_close, check_vjp

WINDOWS = [
    # size, kernel, options
    ((9,), 3, {}),
    ((8,), 3, {"stride": 2, "pad": ((2, 1),), "dilation": 2}),
    ((7, 6), (3, 2), {"stride": 2, "pad": (1, 0)}),
    ((8, 7), 3, {"stride": (3, 2), "pad": 1, "ceil_mode": True}),
    ((6, 5), (2, 3), {"stride": 2, "pad": "same"}),
    ((5, 6), 3, {"stride": 1, "pad": 2}),  # more than half a window
    ((7, 7), 2, {"stride": 3, "pad": ((0, 1), (1, 0)), "dilation": (3, 2), "ceil_mode": True}),
    ((4, 3, 5), (2, 3, 2), {"stride": (1, 2, 2), "pad": 1}),
    ((3, 3, 2, 4), 2, {"stride": 1, "ceil_mode": True}),
]
MORE = [WINDOWS[i] for i in (5, 6, 8)]  # what the tests of these two alone do not have
pytestmark = pytest.mark.filterwarnings("error")


def tied(*shape):
    """Few values, so that many maxima come twice."""
    return np.round(normal(*shape) * 1.5)


@pytest.mark.parametrize(("size", "kernel", "options"), MORE)
def test_max_pool(backend, size, kernel, options):
    x = tied(2, 3, *size)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.max_pool, [x], kernel=kernel, return_indices=True, **options)
    like = backend.asarray(x)
    values, indices = ref.max_pool(x, kernel, **options)
    assert_close(y[0], values, like=like)
    assert_close(y[1], indices, like=like)
    assert_close(dx, ref.max_pool_gradient(dy, indices, size), like=like)


@pytest.mark.parametrize("more", [{}, {"count_include_pad": False}, {"divisor": 5}])
@pytest.mark.parametrize(("size", "kernel", "options"), MORE)
def test_avg_pool(backend, size, kernel, options, more):
    x, options = normal(2, 3, *size), {**options, **more}
    y, dy, (dx,) = value_and_gradients(backend, xpconv.avg_pool, [x], kernel=kernel, **options)
    like = backend.asarray(x)
    assert_close(y, ref.avg_pool(x, kernel, **options), like=like)
    assert_close(dx, ref.avg_pool_gradient(dy, size, kernel, **options), like=like)


@pytest.mark.parametrize("p", [1, 2, 3.5])
@pytest.mark.parametrize(("size", "kernel", "options"), WINDOWS)
def test_lp_pool(backend, size, kernel, options, p):
    x = normal(2, 3, *size)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.lp_pool, [x], kernel=kernel, p=p, **options)
    like = backend.asarray(x)
    assert_close(y, ref.lp_pool(x, kernel, p, **options), like=like)
    assert_close(dx, ref.lp_pool_gradient(dy, x, kernel, p, **options), like=like)


ADAPTIVE = [((7,), 3), ((8,), 4), ((7, 5), (3, 5)), ((3, 6), (5, 1)), ((5, 4, 6), (2, 3, 4)), ((3, 2, 4, 3), 2)]


@pytest.mark.parametrize(("size", "output_size"), ADAPTIVE)
def test_adaptive_max_pool(backend, size, output_size):
    x = tied(2, 3, *size)
    y, dy, (dx,) = value_and_gradients(
        backend, xpconv.adaptive_max_pool, [x], output_size=output_size, return_indices=True
    )
    like = backend.asarray(x)
    values, indices = ref.adaptive_max_pool(x, output_size)
    assert_close(y[0], values, like=like)
    assert_close(y[1], indices, like=like)
    assert_close(dx, ref.max_pool_gradient(dy, indices, size), like=like)


@pytest.mark.parametrize(("size", "output_size"), ADAPTIVE)
def test_adaptive_avg_pool(backend, size, output_size):
    x = normal(2, 3, *size)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.adaptive_avg_pool, [x], output_size=output_size)
    like = backend.asarray(x)
    assert_close(y, ref.adaptive_avg_pool(x, output_size), like=like)
    assert_close(dx, ref.adaptive_avg_pool_gradient(dy, size), like=like)


@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 2), (2, 1, 2, 3)])
def test_global_pools(backend, size):
    x, axes = tied(2, 3, *size), tuple(range(2, 2 + len(size)))
    like = backend.asarray(x)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.global_avg_pool, [x])
    assert_close(y, x.mean(axis=axes, keepdims=True), like=like)
    assert_close(dx, np.broadcast_to(dy / np.prod(size), x.shape), like=like)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.global_max_pool, [x])
    assert_close(y, x.max(axis=axes, keepdims=True), like=like)
    assert_close(dx, ref.max_pool_gradient(dy, ref.adaptive_max_pool(x, 1)[1], size), like=like)


UNPOOLED = [
    # size, kernel, options
    ((4,), 2, {}),
    ((3, 4), 3, {"stride": 3, "pad": 1}),
    ((3, 2), 2, {"output_size": (7, 5)}),
    ((2, 3), 2, {"stride": 3, "pad": ((0, 1), (1, 0)), "output_size": (6, 7)}),
    ((3, 3), 3, {"stride": 2, "pad": "same", "output_size": (5, 6)}),
    ((2, 3, 2), (1, 2, 3), {"stride": 2}),
    ((1, 2, 1, 1), 2, {"output_size": (2, 4, 2, 3)}),
]


def indices_for(shape, kernel, options):
    """Indices in any order, none of them twice in a channel."""
    places = ref.max_unpool(np.zeros(shape), np.zeros(shape, int), kernel, **options)[0, 0].size
    counting = np.broadcast_to(np.arange(places), (*shape[:2], places))
    chosen = np.random.default_rng(0).permuted(counting, axis=-1)[..., : np.prod(shape[2:])]
    return chosen.reshape(shape)


@pytest.mark.parametrize(("size", "kernel", "options"), UNPOOLED)
def test_max_unpool(backend, size, kernel, options):
    x, indices = normal(2, 3, *size), indices_for((2, 3, *size), kernel, options)
    y, dy, (dx, none) = value_and_gradients(backend, xpconv.max_unpool, [x, indices], kernel=kernel, **options)
    like = backend.asarray(x)
    assert_close(y, ref.max_unpool(x, indices, kernel, **options), like=like)
    assert_close(dx, ref.max_unpool_gradient(dy, indices), like=like)
    assert none is None


def test_max_unpool_undoes_max_pool(backend):
    host = spread(2, 3, 7, 6)
    x = backend.asarray(host)
    y = xpconv.max_unpool(*xpconv.max_pool(x, 2, return_indices=True), 2, output_size=(7, 6))
    values, indices = ref.max_pool(host, 2)
    assert_close(y, ref.max_pool_gradient(values, indices, (7, 6)), like=x)


def test_of_elements_with_one_index_the_last_stays(backend):
    x = backend.asarray(np.array([[[1.0, 2, 3], [4, 5, 6]]]))
    indices = backend.asarray(np.array([[[5, 2, 5], [0, 0, 0]]]))
    y, pullback = xpconv.vjp(xpconv.max_unpool, x, indices, kernel=2)
    assert_close(y, np.array([[[0.0, 0, 2, 0, 0, 3], [6, 0, 0, 0, 0, 0]]]), like=x)
    dx, _ = pullback(backend.asarray(np.arange(1.0, 13).reshape(1, 2, 6)))
    assert_close(dx, np.array([[[0.0, 3, 6], [0, 0, 7]]]), like=x)
    check_vjp(xpconv.max_unpool, x, indices, kernel=2)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_max_unpool_of_whole_numbers_and_narrow_indices(backend, dtype):
    x = integers(100, 1, 2, 10, 10).astype(dtype)
    indices = integers(100, 1, 2, 10, 10).astype(dtype) + np.asarray(27, dtype)  # 127 is int8's largest
    moved = backend.asarray(x)
    y = xpconv.max_unpool(moved, backend.asarray(indices), 2)  # 400 places: more than uint8 holds
    assert_close(y, ref.max_unpool(x, indices.astype(int), 2), like=moved)


def test_indices_that_cannot_be_looked_at_are_passed_over():
    jax = pytest.importorskip("jax")
    x, indices = jax.numpy.asarray([[[1.0, 2, 3]]], dtype="float32"), jax.numpy.asarray([[[-1, 6, 4]]])
    unpool = jax.jit(lambda x, indices: xpconv.max_unpool(x, indices, 2))
    y, pullback = jax.vjp(lambda x: unpool(x, indices), x)
    assert_close(y, np.array([[[0, 0, 0, 0, 3, 0]]], "float32"))
    assert_close(pullback(jax.numpy.ones_like(y))[0], np.array([[[0, 0, 1]]], "float32"))


# --- Where a norm has a kink or a limit


def test_the_gradient_of_a_norm_at_zero_is_zero(backend):
    x = backend.asarray(np.array([[[0.0, 0, 0, 3]]]))
    for p, slope in ((0.5, 7.0), (1, 7.0), (2, 7.0), (4, 7.0)):
        _, pullback = xpconv.vjp(xpconv.lp_pool, x, 2, p)
        dx = pullback(backend.asarray(np.array([[[5.0, 7]]])))[0]
        assert_close(dx, np.array([[[0.0, 0, 0, slope]]]), like=x)


def test_a_gradient_that_is_not_finite_stays_where_it_goes(backend):
    inf, nan = np.inf, np.nan
    x, dy = backend.asarray(np.array([[[1.0, 2, 4, 3, 5, 6]]])), backend.asarray(np.array([[[inf, nan, 7.0]]]))
    for op, options in ((xpconv.max_pool, {"kernel": 2}), (xpconv.adaptive_max_pool, {"output_size": 3})):
        _, pullback = xpconv.vjp(op, x, **options)
        assert_close(pullback(dy)[0], np.array([[[0, inf, nan, 0, 0, 7]]]), like=x)


# --- What they refuse

POOLS = {
    "max_pool": {},
    "avg_pool": {},
    "lp_pool": {"p": 3},
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"kernel": 0}, ValueError, "kernel is 0; give a whole number of at least 1"),
        ({"kernel": (2, 2, 2)}, ValueError, r"kernel is .* 3 numbers for 2 spatial axes"),
        ({"kernel": 2.0}, TypeError, r"kernel is 2\.0 \(float\); give a whole number"),
        ({"stride": 0}, ValueError, "stride is 0"),
        ({"stride": (1,)}, ValueError, "stride is"),
        ({"pad": -1}, ValueError, "pad is -1"),
        ({"pad": ((1, 1), (1, 1, 1))}, ValueError, r"pad has the entry \(1, 1, 1\)"),
        ({"pad": "full"}, ValueError, "pad is 'full'"),
        ({"dilation": 0}, ValueError, "dilation is 0"),
        ({"kernel": 6}, ValueError, "a kernel of 6 .* spans 6 elements"),
        ({"pad": 2, "stride": 1}, ValueError, r"with a pad of \(2, 2\) on axis 0, of 4 elements, .* sees none of them"),
        ({"pad": ((0, 0), (0, 2))}, ValueError, r"with a pad of \(0, 2\) on axis 1"),
    ],
)
def test_windows_that_do_not_fit(backend, name, wrong, error, message):
    x = backend.asarray(normal(1, 2, 4, 4))
    with pytest.raises(error, match=message):
        getattr(xpconv, name)(x, **{"kernel": 2, **POOLS[name], **wrong})


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("avg_pool", {"kernel": 2, "divisor": 0}, ValueError, "divisor is 0"),
        ("avg_pool", {"kernel": 2, "divisor": 1.5}, TypeError, r"divisor is 1\.5"),
        ("lp_pool", {"kernel": 2, "p": 0}, ValueError, "p is 0; give a finite number above 0"),
        ("lp_pool", {"kernel": 2, "p": -1.5}, ValueError, r"p is -1\.5"),
        ("lp_pool", {"kernel": 2, "p": float("inf")}, ValueError, "p is inf"),
        ("lp_pool", {"kernel": 2, "p": float("nan")}, ValueError, "p is nan"),
        ("lp_pool", {"kernel": 2, "p": "2"}, TypeError, "p is '2'"),
        ("adaptive_max_pool", {"output_size": 0}, ValueError, "output_size is 0"),
        ("adaptive_avg_pool", {"output_size": (2, 2, 2)}, ValueError, r"output_size is \(2, 2, 2\)"),
        ("adaptive_avg_pool", {"output_size": 2.5}, TypeError, r"output_size is 2\.5"),
    ],
)
def test_options_that_do_not_fit(backend, name, options, error, message):
    with pytest.raises(error, match=message):
        getattr(xpconv, name)(backend.asarray(normal(1, 2, 4, 4)), **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"kernel": 2}) for name in POOLS),
        ("adaptive_max_pool", {"output_size": 2}),
        ("adaptive_avg_pool", {"output_size": 2}),
        ("global_max_pool", {}),
        ("global_avg_pool", {}),
    ],
)
def test_arrays_that_do_not_fit(backend, name, options):
    op = getattr(xpconv, name)
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\).* at least one spatial axis"):
        op(backend.asarray(normal(2, 3)), **options)
    with pytest.raises(TypeError, match=r"x has dtype .*bool"):
        op(backend.asarray(normal(1, 2, 4, 4) > 0), **options)
    with pytest.raises(TypeError, match="x is a list"):
        op([[[1.0, 2.0]]], **options)
    with pytest.raises(ValueError, match="0"):
        op(backend.asarray(np.zeros((1, 2, 0, 4))), **options)
    if "max" not in name:
        with pytest.raises(TypeError, match=r"x has dtype .*int64; give a real floating dtype"):
            op(backend.asarray(integers(9, 1, 2, 4, 4)), **options)


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((1, 2, 3), {}, ValueError, r"indices has shape \(1, 2, 3\); give \(1, 2, 2, 2\)"),
        ((1, 2, 2, 2), {"output_size": (6, 4)}, ValueError, "output_size is 6 on axis 0; give 3 to 5"),
        ((1, 2, 2, 2), {"output_size": (4, 2)}, ValueError, "output_size is 2 on axis 1; give 3 to 5"),
        ((1, 2, 2, 2), {"output_size": (4, 4, 4)}, ValueError, "3 numbers for 2 spatial axes"),
        ((1, 2, 2, 2), {"pad": 2}, ValueError, r"padding of \(2, 2\) leaves 0"),
        ((1, 2, 2, 2), {"stride": 0}, ValueError, "stride is 0"),
    ],
)
def test_max_unpool_refuses(backend, shape, options, error, message):
    x, indices = backend.asarray(normal(1, 2, 2, 2)), backend.asarray(np.zeros(shape, int))
    with pytest.raises(error, match=message):
        xpconv.max_unpool(x, indices, 2, **options)


@pytest.mark.parametrize("index", [-1, 16])
def test_max_unpool_refuses_an_index_that_is_not_in_the_result(backend, index):
    x, indices = backend.asarray(normal(1, 1, 2, 2)), backend.asarray(np.array([[[[0, 1], [2, index]]]]))
    if not at_hand(indices):
        pytest.skip("nobody waits for a device to look at its indices")
    with pytest.raises(ValueError, match=r"indices go from .*; give 0 to 15"):
        xpconv.max_unpool(x, indices, 2)
    with pytest.raises(TypeError, match=r"indices has dtype .*float64; give a integral dtype"):
        xpconv.max_unpool(x, x, 2)
