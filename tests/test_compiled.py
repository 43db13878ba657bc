"""Compiled loops of pooling, run by the interpreter and, where Numba is installed, as machine code."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import reference as ref
from cases import integers, normal, spread
from test_pooling import GEOMETRIES, check_average, check_max, draw_geometry

import xpconv
from xpconv import compiled
from xpconv.compiled import compiler, fused, lines, pooling, sweeps
from xpconv.testing import assert_close

HAS_NUMBA = importlib.util.find_spec("numba") is not None
COMPILED = pytest.param(
    "compiled", marks=pytest.mark.skipif(not compiler.available(), reason="xpconv[numba] is not there or switched off")
)


@contextlib.contextmanager
def loops(way):
    """Let NumPy take the loops, as machine code or (way "interpreted") as the functions that they are made of."""
    with contextlib.ExitStack() as stack:
        if way == "interpreted":
            stack.enter_context(mock.patch.object(compiler, "available", lambda: True))
            stack.enter_context(mock.patch.object(lines, "vector_bytes", lambda: 32))  # what a compiler would be asked
            for name, function in vars(pooling).copy().items():
                if hasattr(function, "py_func"):
                    stack.enter_context(mock.patch.object(pooling, name, function.py_func))
        yield


@pytest.fixture(params=["interpreted", COMPILED])
def way(request):
    with loops(request.param):
        yield request.param


NUMPY = xpconv.backend("numpy")


@pytest.mark.parametrize("name", GEOMETRIES)
def test_pooling_agrees_with_the_loops(way, name):
    shape, kernel, options = GEOMETRIES[name]
    for dtype in ("float64", "float32"):
        check_max(spread(*shape), NUMPY, kernel, options, dtype)
        check_average(normal(*shape), NUMPY, kernel, options, dtype)


@pytest.mark.parametrize("seed", range(12))
def test_pooling_of_any_geometry_agrees_with_the_loops(way, seed):
    shape, kernel, options = draw_geometry(100 + seed)
    check_max(integers(3, *shape).astype(float), NUMPY, kernel, options)  # ties: the first of them
    check_average(normal(*shape), NUMPY, kernel, options | [{}, {"count_include_pad": False}, {"divisor": 3}][seed % 3])


def test_windows_that_lie_side_by_side(way):
    check_max(spread(2, 3, 6, 9), NUMPY, (2, 3), {})
    check_average(normal(2, 3, 6, 9), NUMPY, (2, 3), {})


def test_maxima_that_are_no_numbers(way):
    nan, inf = np.nan, np.inf
    x, dy = np.array([[[1.0, nan, 3, 2, nan, nan, -inf, -inf]]]), np.array([[[5.0, 6, 7, 8]]])
    y, pullback = xpconv.vjp(xpconv.max_pool, x, 2)
    assert_close(y, np.array([[[nan, 3, nan, -inf]]]))
    assert_close(pullback(dy)[0], np.array([[[0.0, 5, 6, 0, 7, 0, 8, 0]]]))


@pytest.mark.parametrize("reduce", ["max", "avg"])
def test_one_window_over_everything(way, reduce):
    x, dy = spread(2, 3, 5, 4), normal(2, 3, 1, 1)
    y, pullback = xpconv.vjp(getattr(xpconv, f"global_{reduce}_pool"), x)
    expected, wanted = getattr(x, "max" if reduce == "max" else "mean")(axis=(2, 3), keepdims=True), dy / 20
    if reduce == "max":
        wanted = np.where(x == expected, dy, 0)
    assert_close(y, expected)
    assert_close(pullback(dy)[0], np.broadcast_to(wanted, x.shape).copy())


def test_a_window_of_more_taps_than_a_byte_counts(way):
    x = spread(1, 2, 300)
    y, pullback = xpconv.vjp(xpconv.max_pool, x, 299, stride=1)
    assert_close(y, ref.max_pool(x, 299, 1)[0], rtol=0)
    assert_close(
        pullback(np.ones_like(y))[0], ref.max_pool_gradient(np.ones_like(y), ref.max_pool(x, 299, 1)[1], (300,))
    )


def test_bands_on_several_threads_make_the_same(way, monkeypatch):
    x = normal(3, 2, 9, 8)

    def all_of_it():
        found = []
        for op, options in ((xpconv.max_pool, {"kernel": 3, "stride": 2, "pad": 1}), (xpconv.avg_pool, {"kernel": 2})):
            y, pullback = xpconv.vjp(op, x, **options)
            found += [y, *pullback(y)]
        return found

    whole = all_of_it()
    monkeypatch.setattr(sweeps, "ALONE", 0)
    for a, b in zip(all_of_it(), whole, strict=True):
        assert_close(a, b, rtol=0, atol=0)


def test_arrays_may_lie_anyhow(way):
    x, dy = spread(2, 3, 7, 6), normal(2, 3, 3, 3)
    y, winners = ref.max_pool(x, 2)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for laid in (last, np.asfortranarray(x), np.stack([x, x], axis=-1)[..., 1], x[::-1, :, ::-1][::-1, :, ::-1]):
        found, pullback = xpconv.vjp(xpconv.max_pool, laid, 2)
        assert_close(found, y, rtol=0)
        assert_close(pullback(np.asfortranarray(dy))[0], ref.max_pool_gradient(dy, winners, (7, 6)))


@pytest.mark.parametrize("op", [xpconv.max_pool, xpconv.avg_pool])
def test_an_empty_batch(way, op):
    y, pullback = xpconv.vjp(op, np.ones((0, 3, 4, 4)), 2)
    assert_close(y, np.ones((0, 3, 2, 2)))
    assert_close(pullback(y)[0], np.ones((0, 3, 4, 4)))


# --- Where there are loops


def test_what_has_loops(monkeypatch):
    monkeypatch.setattr(compiler, "available", lambda: True)
    names = list(compiled.HOMES) if HAS_NUMBA else ["largest", "mean"]  # Numba alone can read the others
    assert [fused(name, np.ones(3)).__name__ for name in names] == names
    assert fused("mean", np.ones(3, np.float32)) is pooling.mean
    assert fused("mean", np.ones(3, int)) is fused("mean", np.ones(3, complex)) is None
    monkeypatch.setattr(compiler, "available", lambda: False)
    assert fused("mean", np.ones(3)) is None


@pytest.mark.parametrize("switch", ["0", "1", ""])
def test_the_switch(monkeypatch, switch):
    monkeypatch.setenv("XPCONV_NUMBA", switch)
    compiler.available.cache_clear()
    try:
        assert compiler.available() == (HAS_NUMBA and switch != "0")
        if switch == "0":
            assert compiler.loop(len) is len
    finally:
        compiler.available.cache_clear()


@pytest.mark.parametrize("writable", [True, False])
def test_machine_code_is_kept_where_there_is_a_place_for_it(monkeypatch, writable):
    asked = []

    class Numba:
        @staticmethod
        def njit(function, **options):
            asked.append(options.pop("cache", False))
            if asked[-1] and not writable:
                raise RuntimeError("cannot cache function: no locator available")
            return function, options

    monkeypatch.setattr(compiler, "available", lambda: True)
    monkeypatch.setitem(sys.modules, "numba", Numba)
    function, options = compiler.loop(len)
    assert function is len
    assert options["nogil"]
    assert asked == ([True] if writable else [True, False])


@pytest.mark.skipif(not HAS_NUMBA, reason="xpconv[numba] is not installed")
def test_numba_is_imported_when_a_loop_is_first_asked_for():
    code = """
import sys, numpy as np, xpconv
xpconv.conv(np.ones((1, 1, 4, 4)), np.ones((2, 1, 3, 3)))
print("numba" in sys.modules)
xpconv.max_pool(np.ones((1, 1, 4, 4)), 2)
print("numba" in sys.modules)
"""
    for switch, expected in (("1", "False\nTrue\n"), ("0", "False\nFalse\n")):
        environment = {**os.environ, "XPCONV_NUMBA": switch}
        command = [sys.executable, "-c", code]
        assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == expected
