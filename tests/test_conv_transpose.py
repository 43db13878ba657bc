"""Transposed convolution: against loops and PyTorch, as the adjoint of convolution, and what it refuses."""

import functools

import numpy as np
import pytest
import reference as ref
from applying import compiled, value_and_gradients
from cases import normal

import xpconv
from xpconv.testing import assert_close, check_adjoint

GEOMETRIES = [
    # size, kernel, channels in and out, options
    ((5,), (3,), (4, 6), {}),
    ((5,), (4,), (4, 6), {"stride": 3, "pad": 2, "output_pad": 2, "groups": 2}),
    ((1, 1), (1, 1), (1, 1), {"stride": 4}),
    ((3, 4), (3, 2), (4, 2), {"stride": (2, 3), "pad": (1, 0), "output_pad": (1, 2), "groups": 2}),
    ((3, 4), (2, 3), (2, 3), {"stride": 2, "pad": ((0, 1), (3, 0)), "dilation": (3, 2), "output_pad": 1}),
    ((3, 4), (3, 3), (4, 4), {"groups": 4, "pad": "same"}),
    ((3, 4), (4, 3), (2, 3), {"stride": (2, 3), "pad": "same"}),
    ((3, 4), (2, 2), (2, 3), {"stride": 4, "pad": "same", "output_pad": 2}),  # windows that leave gaps
    ((4, 4), (2, 2), (1, 2), {"dilation": 2, "output_pad": 1}),  # less than the dilation, not than the stride
    ((2, 3, 2), (2, 1, 3), (2, 4), {"stride": (1, 2, 2), "output_pad": (0, 1, 0), "groups": 2, "pad": "valid"}),
    ((2, 2, 1, 2), (2, 1, 2, 2), (2, 2), {"stride": 2, "pad": ((1, 0),) * 4}),
]


def arrays(size, kernel, channels, options, dtype=float):
    c, o = channels
    draws = normal(2, c, *size), normal(c, o // options.get("groups", 1), *kernel, seed=1), normal(o, seed=2)
    if dtype is complex:
        draws = [d + 1j * normal(*d.shape, seed=3) for d in draws]
    return draws


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize(("size", "kernel", "channels", "options"), GEOMETRIES)
def test_against_loops(backend, size, kernel, channels, options, dtype):
    x, w, b = hosts = arrays(size, kernel, channels, options, dtype)
    like = backend.asarray(x)
    y, dy, gradients = value_and_gradients(backend, xpconv.conv_transpose, hosts, **options)
    assert_close(y, ref.conv_transpose(x, w, b, **options), like=like)
    for found, expected in zip(gradients, ref.conv_transpose_gradients(dy, x, w, **options), strict=True):
        assert_close(found, expected, like=like)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", ["same", ((0, 1), (2, 0)), 1])
def test_it_is_the_adjoint_of_conv(backend, stride, pad):
    w = backend.asarray(normal(4, 3, 3, 2, seed=1))
    options = {"stride": stride, "pad": pad, "dilation": (1, 2)}
    convolved = compiled(backend, functools.partial(xpconv.conv, weight=w, **options))
    small = convolved(backend.asarray(normal(2, 3, 6, 12)))
    reached = compiled(backend, functools.partial(xpconv.conv_transpose, weight=w, **options))(small).shape[2:]
    extra = tuple(n - r for n, r in zip((6, 12), reached, strict=True))
    check_adjoint(
        convolved,
        compiled(backend, functools.partial(xpconv.conv_transpose, weight=w, output_pad=extra, **options)),
        backend.asarray(normal(2, 3, 6, 12)),
        backend.asarray(normal(*small.shape)),
    )


def test_same_gives_size_times_stride(backend):
    x, w = backend.asarray(normal(1, 2, 5, 3)), backend.asarray(normal(2, 4, 5, 4, seed=1))
    assert xpconv.conv_transpose(x, w, stride=(3, 2), pad="same").shape == (1, 4, 15, 6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stride": 0}, "stride is 0; give a whole number of at least 1"),
        ({"stride": (1, 2, 3)}, "stride is .* 3 numbers for 2 spatial axes"),
        ({"dilation": -1}, "dilation is -1"),
        ({"pad": -1}, "pad is -1"),
        ({"pad": "full"}, 'pad is \'full\'; as a word it is "same" or "valid"'),
        ({"output_pad": -1}, "output_pad is -1"),
        ({"output_pad": 2, "stride": 2}, "output_pad is 2 on axis 0; give less than the stride 2 or the dilation 1"),
        ({"pad": 3}, r"padding of \(3, 3\) leaves -1"),
        ({"groups": 0}, "groups is 0"),
        ({"groups": 3}, "x has 4 channels .* 3 groups"),
    ],
)
def test_numbers_that_do_not_fit(backend, wrong, message):
    x, w = backend.asarray(normal(1, 4, 3, 3)), backend.asarray(normal(4, 2, 3, 3))
    with pytest.raises(ValueError, match=message):
        xpconv.conv_transpose(x, w, **wrong)


@pytest.mark.parametrize("wrong", [{"stride": 1.5}, {"output_pad": True}, {"dilation": "2"}, {"groups": 1.0}])
def test_numbers_that_are_not_whole(backend, wrong):
    x, w = backend.asarray(normal(1, 4, 3, 3)), backend.asarray(normal(4, 2, 3, 3))
    with pytest.raises(TypeError, match=f"{next(iter(wrong))} is .* give a whole number"):
        xpconv.conv_transpose(x, w, **wrong)


def test_arrays_that_do_not_fit(backend):
    x, w, b = (backend.asarray(normal(*shape)) for shape in ((1, 4, 3, 3), (4, 2, 3, 3), (2,)))
    with pytest.raises(ValueError, match=r"x has 4 channels and weight has shape \(3, 2, 3, 3\)"):
        xpconv.conv_transpose(x, backend.asarray(normal(3, 2, 3, 3)))
    with pytest.raises(ValueError, match=r"bias has shape \(4,\); give \(2,\)"):
        xpconv.conv_transpose(x, w, backend.asarray(normal(4)))
    with pytest.raises(ValueError, match=r"weight has shape .* 2 spatial axes"):
        xpconv.conv_transpose(x, backend.asarray(normal(4, 2, 3)))
    with pytest.raises(ValueError, match=r"x has shape \(1, 4\).* at least one spatial axis"):
        xpconv.conv_transpose(backend.asarray(normal(1, 4)), w)
    with pytest.raises(ValueError, match="0 windows"):
        xpconv.conv_transpose(backend.asarray(normal(1, 4, 0, 3)), w)
    with pytest.raises(TypeError, match=r"x has dtype .*float64 and bias .*float32"):
        xpconv.conv_transpose(x, w, backend.asarray(normal(2), "float32"))
    with pytest.raises(TypeError, match="weight is a list"):
        xpconv.conv_transpose(x, [[1.0]], b)


def test_an_empty_batch_stays_empty(backend):
    x, w = backend.asarray(np.zeros((0, 4, 3, 3))), backend.asarray(normal(4, 2, 3, 3))
    y, pullback = xpconv.vjp(xpconv.conv_transpose, x, w, stride=2)
    assert_close(y, np.zeros((0, 2, 7, 7)), like=x)
    dx, dw = pullback(y)
    assert_close(dx, np.zeros((0, 4, 3, 3)), like=x)
    assert_close(dw, np.zeros((4, 2, 3, 3)), like=x)
