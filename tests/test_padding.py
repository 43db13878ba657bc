"""The pad operator: against loops and NumPy, its adjoint, and what it refuses."""

import functools

import numpy as np
import pytest
import reference_norms as ref
from applying import value_and_gradients
from cases import integers, normal

import xpconv
from xpconv.testing import assert_close, check_adjoint

pytestmark = pytest.mark.filterwarnings("error")
PADS = [
    # size, pad
    ((5,), 2),
    ((4,), ((9, 6),)),  # more than there is: over and over
    ((3, 4), ((0, 2), (3, 1))),
    ((3, 4), (1, 0)),
    ((2, 3, 4), ((1, 1), (0, 0), (2, 5))),
    ((2, 2, 2, 3), 1),
]
MODES = ["zeros", "reflect", "replicate", "circular"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "pad"), PADS)
def test_against_loops(backend, size, pad, mode):
    x = normal(2, 3, *size)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.pad, [x], pad=pad, mode=mode)
    like = backend.asarray(x)
    assert_close(y, ref.padding(x, pad, mode), like=like, rtol=0)
    # The gradient of an element is the sum of dy wherever it shows, which counting the elements tells.
    shows = ref.padding(np.arange(1.0, 1 + np.prod(size)).reshape(1, 1, *size), pad, mode)
    expected = np.stack([dy[..., shows[0, 0] == i].sum(axis=-1) for i in range(1, 1 + np.prod(size))], axis=-1)
    assert_close(dx, expected.reshape(x.shape), like=like)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_adjoint_to_its_gradient(backend, mode):
    op = functools.partial(xpconv.pad, pad=((5, 1), (0, 4)), mode=mode)
    x, dy = backend.asarray(normal(2, 3, 4, 3)), backend.asarray(normal(2, 3, 10, 7))
    _, pullback = xpconv.vjp(xpconv.pad, x, pad=((5, 1), (0, 4)), mode=mode)
    check_adjoint(op, lambda dy: pullback(dy)[0], x, dy)


@pytest.mark.parametrize(
    ("mode", "theirs"), [("zeros", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]
)
@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "float32", "complex128"])
def test_every_dtype_against_numpy(backend, mode, theirs, dtype):
    host = integers(100, 2, 3, 4, 3).astype(dtype)
    x = backend.asarray(host)
    expected = np.pad(host, ((0, 0), (0, 0), (2, 1), (0, 7)), mode=theirs)
    assert_close(xpconv.pad(x, ((2, 1), (0, 7)), mode=mode), expected, like=x, rtol=0)


@pytest.mark.parametrize(("dtype", "value"), [("float64", -1.5), ("float64", float("inf")), ("int16", -7)])
def test_a_constant(backend, dtype, value):
    host = integers(100, 2, 3, 4).astype(dtype)
    x = backend.asarray(host)
    expected = np.pad(host, ((0, 0), (0, 0), (2, 1)), constant_values=value)
    assert_close(xpconv.pad(x, ((2, 1),), mode="constant", value=value), expected, like=x, rtol=0)


def test_a_nan_stays_where_it_is(backend):
    host = np.array([[[np.nan, 1, 2, 3]]])
    x = backend.asarray(host)
    _, pullback = xpconv.vjp(xpconv.pad, x, pad=1, mode="reflect")
    dx = pullback(backend.asarray(np.array([[[np.nan, 1.0, 2, 3, 4, 5]]])))[0]
    assert_close(dx, np.array([[[1.0, np.nan, 8, 4]]]), like=x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pad": -1}, ValueError, "pad is -1; give a whole number of at least 0"),
        ({"pad": 1.5}, TypeError, r"pad is 1\.5"),
        ({"pad": (1, 2, 3)}, ValueError, "3 entries for 2 spatial axes"),
        ({"pad": ((1, 2, 3), 1)}, ValueError, r"pad has the entry \(1, 2, 3\)"),
        ({"pad": "same"}, ValueError, "pad is 'same', which needs windows"),
        ({"pad": 1, "mode": "mirror"}, ValueError, "mode is 'mirror'; give one of zeros, constant, reflect"),
        ({"pad": 1, "value": 2.0}, ValueError, r'value is 2\.0 with mode "zeros"; give mode "constant"'),
        ({"pad": 1, "mode": "reflect"}, ValueError, r'shape \(1, 2, 4, 1\); give at least 2 .* to pad with "reflect"'),
    ],
)
def test_options_that_do_not_fit(backend, options, error, message):
    with pytest.raises(error, match=message):
        xpconv.pad(backend.asarray(normal(1, 2, 4, 1)), **options)


def test_arrays_that_do_not_fit(backend):
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\).* at least one spatial axis"):
        xpconv.pad(backend.asarray(normal(2, 3)), 1)
    with pytest.raises(TypeError, match=r"x has dtype .*bool; give a numeric dtype"):
        xpconv.pad(backend.asarray(normal(1, 2, 3) > 0), 1)
    with pytest.raises(TypeError, match=r"value is 0\.5 and x has dtype .*int64; give a whole number"):
        xpconv.pad(backend.asarray(integers(9, 1, 2, 3)), 1, mode="constant", value=0.5)
    with pytest.raises(ValueError, match='give at least 1 along an axis to pad with "circular"'):
        xpconv.pad(backend.asarray(np.zeros((1, 2, 0))), 1, mode="circular")
