"""The interpolate operator: against loops and PyTorch, its adjoint, and what it refuses."""

import functools

import numpy as np
import pytest
import reference_norms as ref
from applying import value_and_gradients
from cases import integers, normal

import xpconv
from xpconv.testing import assert_close, check_adjoint

pytestmark = pytest.mark.filterwarnings("error")
SIZES = [
    # size, output_size
    ((5,), 8),
    ((7,), 1),
    ((1,), 4),
    ((4, 6), (8, 3)),
    ((5, 7), (7, 7)),
    ((2, 3, 4), (5, 2, 8)),
    ((2, 1, 2, 3), (3, 2, 2, 1)),
]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("size", "output_size"), SIZES)
def test_against_loops(backend, size, output_size, mode):
    x = normal(2, 3, *size)
    y, dy, (dx,) = value_and_gradients(backend, xpconv.interpolate, [x], output_size=output_size, mode=mode)
    like = backend.asarray(x)
    assert_close(y, ref.interpolate(x, output_size, mode), like=like)
    # It is linear: each element alone, interpolated, says what its gradient is.
    alone = ref.interpolate(np.eye(x[0, 0].size).reshape(1, -1, *size), output_size, mode)[0]
    expected = dy.reshape(6, -1) @ alone.reshape(len(alone), -1).T
    assert_close(dx, expected.reshape(x.shape), like=like)


@pytest.mark.parametrize(("mode", "corners"), [("nearest", None), ("linear", False), ("linear", True)])
@pytest.mark.parametrize(("size", "output_size"), SIZES)
def test_against_torch(backend, size, output_size, mode, corners):
    torch = pytest.importorskip("torch")
    if len(size) > 3:
        pytest.skip("PyTorch has no more than three axes")
    if backend.name == "jax" and not corners:
        pytest.skip("JAX compiles every geometry anew: the loops have these")
    host = normal(2, 3, *size)
    theirs = mode if mode == "nearest" else ["linear", "bilinear", "trilinear"][len(size) - 1]
    leaf = torch.tensor(host, requires_grad=True)
    expected = torch.nn.functional.interpolate(leaf, output_size, mode=theirs, align_corners=corners)
    options = {"output_size": output_size, "mode": theirs, "align_corners": bool(corners)}
    y, dy, (dx,) = value_and_gradients(backend, xpconv.interpolate, [host], **options)
    like = backend.asarray(host)
    assert_close(y, expected.detach().numpy(), like=like)
    assert_close(dx, torch.autograd.grad(expected, leaf, torch.tensor(dy))[0].numpy(), like=like)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_it_is_adjoint_to_its_gradient(backend, mode):
    options = {"output_size": (7, 2), "mode": mode}
    x, dy = backend.asarray(normal(2, 3, 4, 5)), backend.asarray(normal(2, 3, 7, 2))
    _, pullback = xpconv.vjp(xpconv.interpolate, x, **options)
    check_adjoint(functools.partial(xpconv.interpolate, **options), lambda dy: pullback(dy)[0], x, dy)


def test_whole_numbers_and_complex_ones(backend):
    host = integers(100, 2, 3, 4, 5)
    for dtype in ("int32", "uint8", "complex128"):
        x = backend.asarray(host.astype(dtype))
        expected = host.astype(dtype)[:, :, [0, 0, 1, 2, 2, 3]][..., [0, 1, 3]]
        assert_close(xpconv.interpolate(x, (6, 3)), expected, like=x, rtol=0)
    z = normal(1, 2, 3) + 1j * normal(1, 2, 3, seed=1)
    x = backend.asarray(z)
    expected = ref.interpolate(z.real, 5, "linear") + 1j * ref.interpolate(z.imag, 5, "linear")
    assert_close(xpconv.interpolate(x, 5, mode="linear"), expected, like=x)


def test_an_infinity_does_not_reach_beyond_its_neighbours(backend):
    x = backend.asarray(np.array([[[0.0, np.inf, 1, 2]]]))
    y = xpconv.interpolate(x, 8, mode="linear")
    inf = np.inf
    assert_close(y, np.array([[[0.0, inf, inf, inf, inf, 1.25, 1.75, 2]]]), like=x)
    corners = xpconv.interpolate(x, 7, mode="linear", align_corners=True)
    assert_close(corners[..., ::2], np.array([[[0.0, inf, 1, 2]]]), like=x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"output_size": 0}, ValueError, "output_size is 0; give a whole number of at least 1"),
        ({"output_size": 2.5}, TypeError, r"output_size is 2\.5"),
        ({"output_size": (2, 2, 2)}, ValueError, "3 numbers for 2 spatial axes"),
        ({"output_size": 2, "mode": "cubic"}, ValueError, "mode is 'cubic' .* give nearest or linear"),
        ({"output_size": 2, "mode": "trilinear"}, ValueError, "mode is 'trilinear' and x has 2 spatial axes"),
        ({"output_size": 2, "align_corners": True}, ValueError, "align_corners is for linear interpolation"),
    ],
)
def test_options_that_do_not_fit(backend, options, error, message):
    with pytest.raises(error, match=message):
        xpconv.interpolate(backend.asarray(normal(1, 2, 4, 5)), **options)


def test_arrays_that_do_not_fit(backend):
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\).* at least one spatial axis"):
        xpconv.interpolate(backend.asarray(normal(2, 3)), 1)
    with pytest.raises(TypeError, match=r"x has dtype .*int64; give a real floating or complex floating dtype"):
        xpconv.interpolate(backend.asarray(integers(9, 1, 2, 3)), 2, mode="linear")
    with pytest.raises(ValueError, match="give at least one element along every spatial axis"):
        xpconv.interpolate(backend.asarray(np.zeros((1, 2, 0))), 1)
