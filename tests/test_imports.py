"""What `import xpconv` brings along: itself, NumPy and the two libraries of the standard."""

import os
import pathlib
import subprocess
import sys

import pytest

import xpconv

ELSEWHERE = {"cupy", "torch", "jax", "array_api_strict", "matplotlib", "sklearn", "scipy", "pytest", "tqdm", "pooch"}
ELSEWHERE |= {"safetensors", "hypothesis"}


def run(code):
    path = pathlib.Path(xpconv.__file__).parents[1]
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(path)}, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("statement", ["import xpconv", "import xpconv.testing", "from xpconv import *"])
def test_importing_imports_no_more_than_needed(statement):
    loaded = set(run(f"{statement}; import sys; print(*(name.partition('.')[0] for name in sys.modules))").split())
    assert {"xpconv", "numpy", "array_api_compat", "array_api_extra"} <= loaded
    assert loaded.isdisjoint(ELSEWHERE)


def test_computing_with_numpy_imports_no_other_library_either(monkeypatch):
    monkeypatch.setenv("XPCONV_NUMBA", "0")  # which is an extra, and imports more
    code = """
import sys, numpy as np, xpconv
y, pullback = xpconv.vjp(xpconv.conv, np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), pad=1)
pullback(y)
xpconv.to_numpy(xpconv.max_pool(y, 2))
xpconv.backend("numpy").asarray([1.0])
print(*(name.partition('.')[0] for name in sys.modules))
"""
    assert set(run(code).split()).isdisjoint(ELSEWHERE)


def test_the_public_names_are_there():
    assert all(hasattr(xpconv, name) for name in xpconv.__all__)
    assert sorted(set(xpconv.__all__)) == sorted(xpconv.__all__)
    assert xpconv.__version__


def test_every_public_name_is_documented():
    assert not [name for name in xpconv.__all__ if not (getattr(xpconv, name).__doc__ or "").strip()]
