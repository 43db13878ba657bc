"""The oracle, held to others: PyTorch in float64, SciPy, finite differences and examples done by hand."""

import functools
import math

import numpy as np
import pytest
import reference as ref
import reference_norms as norms

close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
equal = np.testing.assert_array_equal


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def draw(*shape, seed=0, dtype=float):
    rng = np.random.default_rng((seed, *shape))
    real = rng.standard_normal(shape)
    return real + 1j * rng.standard_normal(shape) if dtype is complex else real


def by_torch(torch, f, *arrays):
    """f's value, a dy to go with it, and f's gradients by autograd."""
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves)
    dy = draw(*y.shape, seed=9, dtype=complex if y.is_complex() else float)
    return y.detach().numpy(), dy, [g.numpy() for g in torch.autograd.grad(y, leaves, torch.tensor(dy))]


def named(torch, name, axes):
    """max_pool, 2 -> torch.nn.functional.max_pool2d"""
    return getattr(torch.nn.functional, f"{name}{axes}d")


def zeros_around(torch, x, pad):
    """PyTorch's own zero padding, which takes pairs from the last axis to the first."""
    return torch.nn.functional.pad(x, [p for pair in reversed(pad) for p in pair])


# --- By hand


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "dilation", "ceil_mode", "expected"),
    [
        (5, 3, 1, (0, 0), 1, False, [0, 1, 2]),
        (5, 2, 2, (0, 0), 1, False, [0, 2]),
        (5, 2, 2, (0, 0), 1, True, [0, 2, 4]),
        (6, 2, 2, (0, 0), 1, True, [0, 2, 4]),  # nothing is left over
        (3, 2, 2, (1, 1), 1, True, [0, 2]),  # a third would begin in the padding behind
        (5, 2, 1, (1, 0), 3, False, [0, 1, 2]),
        (2, 3, 1, (0, 0), 1, False, []),
        (2, 3, 2, (0, 0), 1, True, [0]),  # as in PyTorch, even the first may hang over
    ],
)
def test_where_windows_start(size, kernel, stride, pad, dilation, ceil_mode, expected):
    assert ref.starts(size, kernel, stride, pad, dilation, ceil_mode) == expected


@pytest.mark.parametrize(
    ("pad", "size", "window", "expected"),
    [
        (2, (5, 5), (3, 1, 1), [(2, 2), (2, 2)]),
        ((1, 2), (5, 5), (3, 1, 1), [(1, 1), (2, 2)]),
        (((1, 2), (0, 3)), (5, 5), (3, 1, 1), [(1, 2), (0, 3)]),
        (((1, 2),), (5,), (3, 1, 1), [(1, 2)]),
        ("valid", (5, 5), (3, 1, 1), [(0, 0), (0, 0)]),
        ("same", (5, 5), ((3, 4), 1, 1), [(1, 1), (1, 2)]),
        ("same", (5, 6), (3, 2, 1), [(1, 1), (0, 1)]),
        ("same", (5, 6), (3, 1, 2), [(2, 2), (2, 2)]),
        ("same", (5, 6), (1, 4, 1), [(0, 0), (0, 0)]),
    ],
)
def test_pad_grammar(pad, size, window, expected):
    assert ref.pairs(pad, size, *window) == expected


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("kernel", range(1, 5))
@pytest.mark.parametrize("stride", range(1, 5))
@pytest.mark.parametrize("dilation", (1, 2))
def test_same_keeps_the_size(size, kernel, stride, dilation):
    pad, output, _ = ref.plan((size,), kernel, stride, "same", dilation)
    before, after = pad[0]
    assert output == (math.ceil(size / stride),)
    assert after - before in (0, 1)


def test_patches_by_hand():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    rows = np.array([[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]])
    equal(ref.im2col(x, 2, 2), rows)
    equal(ref.unfold(x, 2)[0], rows.T)
    counts = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]  # how many windows hold each element
    equal(ref.col2im(np.ones((4, 4)), x.shape, 2, 2)[0, 0], counts)
    equal(ref.fold(np.ones((1, 4, 4)), (3, 3), 2)[0, 0], counts)


def test_im2col_is_in_book_order():
    n, c, h, w = 2, 3, 4, 5
    x = np.arange(n * c * h * w).reshape(n, c, h, w)
    rows = ref.im2col(x, 2, 3, stride=(2, 1)).reshape(n, 2, 3, c, 2, 3)
    for i, oh, ow, j, fh, fw in np.ndindex(rows.shape):
        assert rows[i, oh, ow, j, fh, fw] == x[i, j, 2 * oh + fh, ow + fw]


def test_convolution_by_hand():
    x, w = np.array([[[1.0, 2, 3, 4]]]), np.array([[[10.0, 1]]])
    equal(ref.conv(x, w), [[[12, 23, 34]]])  # a correlation: the kernel is not flipped
    equal(ref.conv(x, w, np.array([5.0]), stride=2, pad=((1, 0),)), [[[6, 28]]])
    equal(ref.conv_transpose(x, w), [[[10, 21, 32, 43, 4]]])
    equal(ref.conv_transpose(x, w, stride=2, pad="same"), [[[10, 1, 20, 2, 30, 3, 40, 4]]])
    dx, dw, db = ref.conv_gradients(np.array([[[1.0, 0, 2]]]), x, w)
    equal(dx, [[[10, 1, 20, 2]]])
    equal(dw, [[[1 + 2 * 3, 2 + 2 * 4]]])
    equal(db, [3])


def test_max_pool_by_hand():
    minus = np.full((1, 1, 2, 2), -1.0)
    y, indices = ref.max_pool(minus, 2, stride=1, pad=1)
    equal(y, np.full((1, 1, 3, 3), -1.0))  # padding never wins
    equal(indices[0, 0], [[0, 0, 1], [0, 0, 1], [2, 2, 3]])  # the first of equals does
    y, indices = ref.max_pool(np.full((1, 1, 2), -np.inf), 2, stride=1, pad=1)
    equal(y, [[[-np.inf] * 3]])
    equal(indices, [[[0, 0, 1]]])
    y, indices = ref.max_pool(np.array([[[1, np.nan, 3, 4]]]), 2)
    equal(y, [[[np.nan, 4]]])
    equal(indices, [[[1, 3]]])
    y, indices = ref.max_pool(np.array([[[-5, -7]]]), 2, pad=1, dilation=3)  # both taps fall on padding
    equal(y, [[[np.iinfo(np.int64).min]]])
    equal(indices, [[[-1]]])
    equal(ref.max_pool_gradient(np.ones((1, 1, 1)), indices, (2,)), [[[0, 0]]])


def test_average_by_hand():
    x = np.array([[[2.0, 4, 6]]])
    equal(ref.avg_pool(x, 2, pad=1), [[[1, 5]]])
    equal(ref.avg_pool(x, 2, pad=1, count_include_pad=False), [[[2, 5]]])
    equal(ref.avg_pool(x, 2, ceil_mode=True), [[[3, 6]]])  # what hangs over does not count
    equal(ref.avg_pool(x, 2, ceil_mode=True, divisor=4), [[[1.5, 1.5]]])
    equal(ref.avg_pool(x, 2, dilation=2), [[[4]]])
    equal(ref.adaptive_avg_pool(x, 2), [[[3, 5]]])
    equal(ref.lp_pool(np.array([[[3, 4, -5]]]), 2, stride=1), [[[5, math.sqrt(41)]]])


def test_resampling_by_hand():
    x = np.array([[[1.0, 2, 3]]])
    equal(norms.padding(x, 2), [[[0, 0, 1, 2, 3, 0, 0]]])
    equal(norms.padding(x, 2, "reflect"), [[[3, 2, 1, 2, 3, 2, 1]]])
    equal(norms.padding(x, 2, "replicate"), [[[1, 1, 1, 2, 3, 3, 3]]])
    equal(norms.padding(x, ((0, 2),), "circular"), [[[1, 2, 3, 1, 2]]])
    equal(norms.interpolate(x, 6), [[[1, 1, 2, 2, 3, 3]]])
    equal(norms.interpolate(x, 6, "linear"), [[[1, 1.25, 1.75, 2.25, 2.75, 3]]])


def test_losses_and_norms_by_hand():
    close(norms.softmax_cross_entropy(np.array([[0.0, 0], [0, math.log(3)]]), [0, 1]), math.log(8 / 3) / 2)
    equal(norms.batch_norm(np.array([[1.0], [3]]), eps=0), [[-1], [1]])
    equal(norms.batch_norm_inference(np.array([[7.0]]), [1], [4], eps=0), [[3]])
    equal(norms.local_response_norm(np.ones((1, 3, 1)), 2, alpha=2, beta=1, k=1), [[[1 / 2], [1 / 3], [1 / 3]]])
    equal(norms.relu(np.array([-1, 0, 2, np.nan])), [0, 0, 2, np.nan])


# --- Convolution against SciPy and PyTorch

CONVOLUTIONS = [
    # size, kernel, channels in and out, options
    ((9,), (3,), (4, 6), {}),
    ((9,), (4,), (4, 6), {"stride": 3, "pad": 2, "groups": 2}),
    ((7, 6), (3, 3), (3, 2), {"pad": 1}),
    ((7, 6), (3, 2), (4, 6), {"stride": (2, 1), "pad": (1, 0), "dilation": (1, 2), "groups": 2}),
    ((7, 6), (3, 2), (4, 8), {"stride": 2, "pad": ((0, 3), (2, 1)), "groups": 4}),
    ((6, 5), (2, 3), (2, 3), {"pad": "same", "dilation": (3, 2)}),
    ((6, 5), (1, 1), (2, 3), {"pad": "valid", "stride": 2}),
    ((5, 4, 6), (2, 3, 2), (2, 4), {"stride": (1, 2, 2), "pad": 1, "groups": 2}),
]


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("size", "kernel", "channels", "options"), CONVOLUTIONS)
def test_conv_against_torch(torch, size, kernel, channels, options, dtype):
    c, o = channels
    x = draw(2, c, *size, dtype=dtype)
    w = draw(o, c // options.get("groups", 1), *kernel, seed=1, dtype=dtype)
    b = draw(o, seed=2, dtype=dtype)

    def theirs(x, w, b):
        theirs = dict(options)
        pad = theirs.pop("pad", 0)
        if isinstance(pad, tuple) and isinstance(pad[0], tuple):
            x, pad = zeros_around(torch, x, pad), 0
        return named(torch, "conv", len(size))(x, w, b, padding=pad, **theirs)

    y, dy, gradients = by_torch(torch, theirs, x, w, b)
    close(ref.conv(x, w, b, **options), y)
    for mine, other in zip(ref.conv_gradients(dy, x, w, **options), gradients, strict=True):
        close(mine, other)


@pytest.mark.parametrize(
    ("size", "kernel"), [((9,), (4,)), ((7, 6), (3, 2)), ((4, 5, 6), (2, 3, 2)), ((3,) * 4, (2,) * 4)]
)
def test_conv_against_scipy(size, kernel):
    signal = pytest.importorskip("scipy.signal")
    x, w = draw(2, 3, *size), draw(4, 3, *kernel, seed=1)
    y = [[signal.correlate(image, filt, mode="valid")[0] for filt in w] for image in x]
    close(ref.conv(x, w), y)
    every_other = (..., *[slice(None, None, 2)] * len(size))
    close(ref.conv(x, w, stride=2), np.array(y)[every_other])


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize(
    ("size", "kernel", "channels", "options"),
    [
        ((5,), (3,), (4, 6), {}),
        ((5,), (4,), (4, 6), {"stride": 3, "pad": 2, "output_pad": 2, "groups": 2}),
        ((3, 4), (3, 2), (4, 2), {"stride": (2, 3), "pad": (1, 0), "output_pad": (1, 2), "groups": 2}),
        ((3, 4), (2, 3), (2, 3), {"stride": 2, "pad": (0, 1), "dilation": (3, 2), "output_pad": 1}),
        ((3, 2, 3), (2, 1, 3), (2, 4), {"stride": (1, 2, 2), "output_pad": (0, 1, 0), "groups": 2}),
    ],
)
def test_conv_transpose_against_torch(torch, size, kernel, channels, options, dtype):
    c, o = channels
    x = draw(2, c, *size, dtype=dtype)
    w = draw(c, o // options.get("groups", 1), *kernel, seed=1, dtype=dtype)
    b = draw(o, seed=2, dtype=dtype)
    renamed = {{"pad": "padding", "output_pad": "output_padding"}.get(k, k): v for k, v in options.items()}
    f = functools.partial(named(torch, "conv_transpose", len(size)), **renamed)
    y, dy, gradients = by_torch(torch, f, x, w, b)
    close(ref.conv_transpose(x, w, b, **options), y)
    for mine, other in zip(ref.conv_transpose_gradients(dy, x, w, **options), gradients, strict=True):
        close(mine, other)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", ["same", ((0, 1), (2, 0))])
def test_conv_transpose_is_the_adjoint_of_conv(stride, pad):
    big, w = draw(2, 3, 6, 12), draw(4, 3, 3, 4, seed=1)
    small = ref.conv(big, w, stride=stride, pad=pad)
    dy = draw(*small.shape, seed=2)
    # The elements that conv's last window did not reach are output_pad's.
    reached = ref.conv_transpose(dy, w, stride=stride, pad=pad).shape[2:]
    extra = tuple(n - r for n, r in zip(big.shape[2:], reached, strict=True))
    dx, _, _ = ref.conv_gradients(dy, big, w, stride=stride, pad=pad)
    close(ref.conv_transpose(dy, w, stride=stride, pad=pad, output_pad=extra), dx)


@pytest.mark.parametrize(
    "options", [{}, {"stride": (2, 1), "padding": 1}, {"dilation": (1, 2), "padding": (2, 1), "stride": 2}]
)
def test_patches_against_torch(torch, options):
    x, kernel = draw(2, 3, 6, 7), (3, 2)
    mine = {"pad" if k == "padding" else k: v for k, v in options.items()}
    col = torch.nn.functional.unfold(torch.tensor(x), kernel, **options)
    close(ref.unfold(x, kernel, **mine), col)
    close(
        ref.fold(col.numpy(), (6, 7), kernel, **mine),
        torch.nn.functional.fold(col, (6, 7), kernel, **options),
    )


def test_im2col_and_col2im_are_adjoint():
    x = draw(2, 3, 6, 5)
    col = ref.im2col(x, 3, 2, 2, 1)
    other = draw(*col.shape, seed=1)
    close((col * other).sum(), (x * ref.col2im(other, x.shape, 3, 2, 2, 1)).sum())


# --- Pooling against PyTorch and finite differences

POOLS = [
    # size, kernel, options that both sides know
    ((9,), 2, {}),
    ((8,), 3, {"stride": 2, "pad": 1}),
    ((9, 7), 3, {"stride": 2, "pad": 1}),
    ((8, 7), (2, 3), {"stride": (3, 2), "pad": (1, 0)}),
    ((8, 10), (4, 3), {"stride": (3, 4), "pad": (2, 1)}),
    ((5, 6, 7), (2, 3, 2), {"stride": 2, "pad": 1}),
]


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("size", "kernel", "options"), POOLS)
def test_max_pool_against_torch(torch, size, kernel, options, ceil_mode, dilation):
    x = np.round(draw(2, 3, *size) * 2)  # with many ties
    mine = {**options, "ceil_mode": ceil_mode, "dilation": dilation}
    f = functools.partial(named(torch, "max_pool", len(size)), kernel_size=kernel, return_indices=True)
    theirs = {"padding" if k == "pad" else k: v for k, v in mine.items()}
    y, dy, (dx,) = by_torch(torch, lambda x: f(x, **theirs)[0], x)
    values, indices = ref.max_pool(x, kernel, **mine)
    equal(values, y)
    equal(indices, f(torch.tensor(x), **theirs)[1])
    close(ref.max_pool_gradient(dy, indices, size), dx)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("more", [{}, {"count_include_pad": False}, {"divisor": 5}])
@pytest.mark.parametrize(("size", "kernel", "options"), POOLS)
def test_avg_pool_against_torch(torch, size, kernel, options, more, ceil_mode):
    if "divisor" in more and len(size) == 1:
        pytest.skip("PyTorch has no divisor for one axis")
    x, mine = draw(2, 3, *size), {**options, **more, "ceil_mode": ceil_mode}
    names = {"pad": "padding", "divisor": "divisor_override"}
    theirs = {names.get(k, k): v for k, v in mine.items()}
    f = functools.partial(named(torch, "avg_pool", len(size)), kernel_size=kernel, **theirs)
    y, dy, (dx,) = by_torch(torch, f, x)
    close(ref.avg_pool(x, kernel, **mine), y)
    close(ref.avg_pool_gradient(dy, size, kernel, **mine), dx)


@pytest.mark.parametrize("p", [1, 2, 3.5])
@pytest.mark.parametrize(("size", "kernel", "stride"), [((9,), 3, 2), ((8, 7), (2, 3), None), ((4, 5, 6), 2, 1)])
def test_lp_pool_against_torch(torch, size, kernel, stride, p):
    x = np.abs(draw(2, 3, *size))  # PyTorch adds up x^p, not |x|^p
    f = functools.partial(named(torch, "lp_pool", len(size)), norm_type=p, kernel_size=kernel, stride=stride)
    y, dy, (dx,) = by_torch(torch, f, x)
    close(ref.lp_pool(x, kernel, p, stride), y)
    close(ref.lp_pool_gradient(dy, x, kernel, p, stride), dx)


GRADIENTS = {
    "max": lambda dy, x, *window, **options: ref.max_pool_gradient(
        dy, ref.max_pool(x, *window, **options)[1], x.shape[2:]
    ),
    "avg": lambda dy, x, *window, **options: ref.avg_pool_gradient(dy, x.shape[2:], *window, **options),
    "lp": ref.lp_pool_gradient,
}


@pytest.mark.parametrize("options", [{"pad": "same", "stride": 2}, {"pad": ((0, 2), (1, 0)), "dilation": 2}])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kind", "more"),
    [("max", {}), ("avg", {}), ("avg", {"count_include_pad": False}), *[("lp", {"p": p}) for p in (1, 2, 3)]],
)
def test_pool_gradients_against_finite_differences(options, ceil_mode, kind, more):
    x, options = draw(1, 2, 6, 5), {**options, **more, "ceil_mode": ceil_mode}

    def f(x):
        y = getattr(ref, f"{kind}_pool")(x, 3, **options)
        return y[0] if kind == "max" else y

    dy = draw(*f(x).shape, seed=1)
    dx = GRADIENTS[kind](dy, x, 3, **options)
    np.testing.assert_allclose(dx, norms.numerical_gradient(f, x, dy), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "output_size"), [((7,), 3), ((7, 5), (3, 5)), ((3, 6), (5, 1)), ((5, 4, 6), (2, 3, 4))]
)
def test_adaptive_pools_against_torch(torch, size, output_size):
    x = np.round(draw(2, 3, *size) * 2)
    average = functools.partial(named(torch, "adaptive_avg_pool", len(size)), output_size=output_size)
    y, dy, (dx,) = by_torch(torch, average, x)
    close(ref.adaptive_avg_pool(x, output_size), y)
    close(ref.adaptive_avg_pool_gradient(dy, size), dx)

    maximum = functools.partial(named(torch, "adaptive_max_pool", len(size)), output_size=output_size)
    y, dy, (dx,) = by_torch(torch, maximum, x)
    values, indices = ref.adaptive_max_pool(x, output_size)
    equal(values, y)
    equal(indices, maximum(torch.tensor(x), return_indices=True)[1])
    close(ref.max_pool_gradient(dy, indices, size), dx)


@pytest.mark.parametrize(
    ("size", "options"),
    [((8,), {}), ((6, 8), {"stride": 2}), ((7, 10), {"stride": 3, "pad": 1}), ((4, 6, 4), {"stride": 2}),
     ((7, 5), {"output_size": (7, 5)})],
)  # fmt: skip
def test_max_unpool_against_torch(torch, size, options):
    pooling = {k: v for k, v in options.items() if k != "output_size"}
    kernel = pooling.get("stride", 2)  # windows side by side, so that no index comes twice
    x, indices = ref.max_pool(draw(2, 3, *size), kernel, **pooling)
    theirs = {"padding" if k == "pad" else k: v for k, v in options.items()}
    unpool = named(torch, "max_unpool", len(size))
    y, dy, (dx,) = by_torch(torch, lambda x: unpool(x, torch.tensor(indices), kernel, **theirs), x)
    equal(ref.max_unpool(x, indices, kernel, **options), y)
    equal(ref.max_unpool_gradient(dy, indices), dx)


# --- Resampling, normalization, losses against PyTorch


@pytest.mark.parametrize(
    ("mode", "theirs"), [("zeros", "constant"), *[(m, m) for m in ("reflect", "replicate", "circular")]]
)
@pytest.mark.parametrize("pad", [((2, 1),), ((0, 2), (3, 1)), ((1, 1), (0, 2), (2, 0))])
def test_padding_against_torch(torch, mode, theirs, pad):
    x = draw(2, 3, *(4, 5, 6)[: len(pad)])
    flat = [p for pair in reversed(pad) for p in pair]
    equal(norms.padding(x, pad, mode), torch.nn.functional.pad(torch.tensor(x), flat, mode=theirs))


@pytest.mark.parametrize(
    ("size", "output_size"), [((5,), (8,)), ((4, 6), (8, 3)), ((5, 7), (7, 7)), ((2, 3, 4), (5, 2, 8))]
)
def test_interpolate_against_torch(torch, size, output_size):
    x = draw(2, 3, *size)
    interpolate = functools.partial(torch.nn.functional.interpolate, torch.tensor(x), output_size)
    equal(norms.interpolate(x, output_size), interpolate(mode="nearest"))
    linear = ("linear", "bilinear", "trilinear")[len(size) - 1]
    close(norms.interpolate(x, output_size, "linear"), interpolate(mode=linear, align_corners=False))


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 5), (3, 4, 5, 2)])
def test_norms_against_torch(torch, shape):
    f, c = torch.nn.functional, shape[1]
    x, weight, bias = draw(*shape), draw(c, seed=1), draw(c, seed=2)
    training = lambda x, w, b: f.batch_norm(x, None, None, w, b, training=True)  # noqa: E731
    y, dy, gradients = by_torch(torch, training, x, weight, bias)
    close(norms.batch_norm(x, weight, bias), y)
    for mine, other in zip(norms.batch_norm_gradients(dy, x, weight), gradients, strict=True):
        close(mine, other)

    X, W, B = torch.tensor(x), torch.tensor(weight), torch.tensor(bias)
    mean, var, unbiased = norms.batch_norm_statistics(x)
    running = torch.zeros(c, dtype=X.dtype), torch.zeros(c, dtype=X.dtype)
    f.batch_norm(X, *running, training=True, momentum=1.0)
    close(mean, running[0])
    close(unbiased, running[1])
    close(norms.batch_norm_inference(x, mean, var, weight, bias), norms.batch_norm(x, weight, bias))
    inference = f.batch_norm(X, torch.tensor(mean), torch.tensor(unbiased), W, B)
    close(norms.batch_norm_inference(x, mean, unbiased, weight, bias), inference)

    close(norms.group_norm(x, 2, weight, bias, eps=0.1), f.group_norm(X, 2, W, B, eps=0.1))
    if len(shape) > 2:
        close(norms.instance_norm(x, weight, bias), f.instance_norm(X, weight=W, bias=B))
        for size in (1, 2, 3, 6):
            close(
                norms.local_response_norm(x, size, alpha=0.5, beta=0.6, k=2.0),
                f.local_response_norm(X, size, alpha=0.5, beta=0.6, k=2.0),
            )
    for last in range(1, len(shape)):
        tail = shape[-last:]
        weight, bias = draw(*tail, seed=1), draw(*tail, seed=2)
        close(
            norms.layer_norm(x, tail, weight, bias),
            f.layer_norm(X, tail, torch.tensor(weight), torch.tensor(bias)),
        )


def test_affine_relu_and_loss_against_torch(torch):
    f = torch.nn.functional
    x, w, b = draw(5, 2, 3), draw(6, 4, seed=1), draw(4, seed=2)
    y, dy, gradients = by_torch(torch, lambda x, w, b: x.flatten(1) @ w + b, x, w, b)
    close(norms.affine(x, w, b), y)
    for mine, other in zip(norms.affine_gradients(dy, x, w), gradients, strict=True):
        close(mine, other)

    x[0] = 0
    y, dy, (dx,) = by_torch(torch, f.relu, x)
    equal(norms.relu(x), y)
    equal(norms.relu_gradient(dy, x), dx)

    scores, labels = draw(5, 4) * 300, np.array([0, 3, 1, 1, 2])  # large: a naive exp would overflow
    loss = torch.tensor(scores, requires_grad=True)
    value = f.cross_entropy(loss, torch.tensor(labels))
    value.backward()
    close(norms.softmax_cross_entropy(scores, labels), value.item())
    close(norms.softmax_cross_entropy_gradient(scores, labels), loss.grad)
