"""What holds for every operator: its gradients, and that it keeps to its arguments' library, device and dtype."""

import copy
import functools
import importlib
import inspect

import numpy as np
import pytest
from applying import value_and_gradients
from cases import CASES, FIRST, normal

import xpconv
from xpconv.arrays import Array
from xpconv.testing import assert_close, check_vjp
from xpconv.testing.comparison import same_form, same_place

# On JAX every call that it meets first is compiled: these run call by call, all of them as one program elsewhere.
CALL_BY_CALL = ("im2col", "conv", "max_pool", "avg_pool", "affine", "relu", "batch_norm", "softmax_cross_entropy")


def leading(y):
    """y, without what an operator may give beside it."""
    return y[0] if isinstance(y, tuple) else y


def test_every_operator_has_a_case():
    operators = {name for name in xpconv.__all__ if hasattr(getattr(xpconv, name), "with_pullback")}
    assert operators == {case.name for case in CASES}


def test_every_option_has_a_case():
    """One at least that gives it another value than the one it has without."""
    for name in {case.name for case in CASES}:
        for option, parameter in inspect.signature(getattr(xpconv, name)).parameters.items():
            if not str(parameter.annotation).startswith("Array"):
                given = [case.options[option] for case in CASES if case.name == name and option in case.options]
                assert any(value != parameter.default for value in given), f"{option} of {name}"


def as_one_program(op, **options):
    """The operator on JAX, its values and its gradients compiled each."""
    jax = importlib.import_module("jax")
    value = jax.jit(lambda *arrays: op(*arrays, **copy.deepcopy(options)))
    gradients = jax.jit(lambda dy, *arrays: xpconv.vjp(op, *arrays, **copy.deepcopy(options))[1](dy))
    compiled = functools.wraps(op)(lambda *arrays: value(*arrays))
    compiled.with_pullback = lambda *arrays: (value(*arrays), lambda dy, without: gradients(dy, *arrays))
    return compiled


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_the_derivatives(backend, case):
    if backend.name == "jax" and not (case in FIRST and case.name in CALL_BY_CALL):
        check_vjp(as_one_program(case.op, **case.options), *case.on(backend))
    else:
        check_vjp(case.op, *case.on(backend), **case.options)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", FIRST, ids=str)
def test_library_device_and_dtype_stay(backend, case, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    if backend.name == "jax" and case.name not in CALL_BY_CALL:
        pytest.skip("on JAX traced instead: test_autodiff.py")
    hosts = [a.astype(dtype) if a is not None and a.dtype.kind == "f" else a for a in case.arrays]
    y, _, gradients = value_and_gradients(backend, case.op, hosts, **case.options)
    like = backend.asarray(0.0)
    same_place("y", leading(y), like)
    same_form("y", leading(y), hosts[0].dtype, leading(y).shape)
    for gradient, host in zip(gradients, hosts, strict=True):
        if host is not None and host.dtype.kind == "f":
            same_place("gradient", gradient, like)
            same_form("gradient", gradient, host.dtype, host.shape)


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_memory_may_lie_in_any_order(backend, case):
    xp = backend.xp

    def laid_otherwise(array):
        """The same array, seen through a view: axes exchanged, or every second element."""
        if array is None:
            return None
        doubled = xp.permute_dims(xp.stack([array, array], axis=-1), (*range(array.ndim - 1, -1, -1), array.ndim))
        return xp.permute_dims(doubled[..., 0], tuple(range(array.ndim - 1, -1, -1)))

    if backend.name == "jax":
        pytest.skip("on JAX memory has no order to see")
    arrays = case.on(backend)
    y, pullback = xpconv.vjp(case.op, *arrays, **case.options)
    options = dict(case.options)
    if "rng" in options:  # it has moved on
        pytest.skip("draws other numbers each time")
    other, other_pullback = xpconv.vjp(case.op, *map(laid_otherwise, arrays), **options)
    assert_close(other, xpconv.to_numpy(y), like=y)
    dy = backend.asarray(normal(*y.shape))
    for gradient, expected in zip(other_pullback(laid_otherwise(dy)), pullback(dy), strict=True):
        if expected is not None:
            assert_close(gradient, xpconv.to_numpy(expected), like=y)


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_the_public_function_gives_what_vjp_gives(case):
    arrays, options = case.arrays, case.options
    seeded = [{k: np.random.default_rng(1) if k == "rng" else v for k, v in options.items()} for _ in range(2)]
    y, _ = xpconv.vjp(case.op, *arrays, **seeded[0])
    assert_close(case.op(*arrays, **seeded[1]), y, rtol=0)


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_gradients_can_be_left_out(case):
    y, pullback = xpconv.vjp(case.op, *case.arrays, **case.options)
    dy = np.asarray(normal(*leading(y).shape))
    whole = pullback(dy)
    for i in range(len(whole)):
        for k, (part, gradient) in enumerate(zip(pullback(dy, without=(i,)), whole, strict=True)):
            if k == i or gradient is None:
                assert part is None
            else:
                assert_close(part, gradient)
    assert pullback(dy, without=range(len(whole))) == (None,) * len(whole)


# --- The pullback sees to its argument


def pulled_back(backend):
    x = backend.asarray(normal(1, 2, 4))
    return xpconv.vjp(xpconv.relu, x)


def test_a_pullback_names_what_does_not_fit(backend):
    y, pullback = pulled_back(backend)
    with pytest.raises(ValueError, match=r"dy has shape \(1, 2, 5\); give \(1, 2, 4\)"):
        pullback(backend.asarray(normal(1, 2, 5)))
    with pytest.raises(TypeError, match=r"dy has dtype .*float32 and y .*float64"):
        pullback(backend.asarray(normal(1, 2, 4), "float32"))
    with pytest.raises(TypeError, match="dy is a list"):
        pullback([0.0])
    dx, _ = *pullback(y), None
    assert dx.shape == y.shape


def test_a_pullback_refuses_another_library():
    strict = pytest.importorskip("array_api_strict")
    _, pullback = pulled_back(xpconv.backend("numpy"))
    with pytest.raises(TypeError, match=r"dy is an array of array_api_strict and y of array_api_compat\.numpy"):
        pullback(strict.zeros((1, 2, 4)))


def test_a_pullback_refuses_another_device():
    strict = pytest.importorskip("array_api_strict")
    _, pullback = pulled_back(xpconv.backend("array-api-strict:device1"))
    with pytest.raises(ValueError, match=r"dy is on device .*CPU_DEVICE.* and y on .*device1"):
        pullback(strict.zeros((1, 2, 4)))


def test_vjp_takes_operators_only():
    with pytest.raises(TypeError, match=r"is no operator; give one of xpconv's"):
        xpconv.vjp(np.sin, np.zeros(3))


def test_an_operator_of_ones_own(backend):
    @xpconv.operator
    def scale(x: "Array", factor: float = 2.0):
        """Multiply by a number."""
        return x * factor, lambda dy: (dy * factor,)

    x = backend.asarray(normal(2, 3))
    assert_close(scale(x, 3.0), normal(2, 3) * 3, like=x)
    check_vjp(scale, x, factor=4.0)
    check_vjp(scale, x, 4.0)
    assert scale.__doc__ == "Multiply by a number."
    assert leading(xpconv.vjp(scale, x)).shape == (2, 3)


def test_an_operator_must_say_which_arguments_are_arrays():
    with pytest.raises(TypeError, match=r'double has no array argument; annotate those it has "Array"'):

        @xpconv.operator
        def double(x):
            return 2 * x, lambda dy: (2 * dy,)
