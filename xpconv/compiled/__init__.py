"""Loops that cannot be said in calls of the standard, compiled by Numba for NumPy arrays: the extra `xpconv[numba]`.

Who asks `fused` for the loop of a name, or for an algorithm made of loops, has array code of the same signature where
there is none, so what is computed does not depend on it. Nothing is imported and nothing compiled before a loop is
first asked for.

Windows are given to a loop as tables (`meetings`), so one source serves any number of axes, every stride, dilation and
padding, and both directions. Its jobs are shared out to the library's own threads (`sweeps`, `turns`). What cannot even
be said in a loop, sums of many vectors that stay in registers, windows that slide through them, and transforms of whole
tiles, is said to the compiler behind Numba (`registers`, `slides`, `tiles`).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.arrays.libraries import Array
from xpconv.compiled import compiler

HOMES = {"largest": "pooling", "mean": "pooling", "Depthwise": "depthwise", "Direct": "direct", "Winograd": "winograd"}


def fused(name: str, x: Array) -> Callable[..., Any] | None:
    """Return what has this name, for NumPy arrays of float32 and float64 where loops can be compiled, or None."""
    able = name in HOMES and isinstance(x, np.ndarray) and x.dtype in (np.float32, np.float64)
    return _made(name) if able and compiler.available() else None


@functools.cache
def _made(name: str) -> Callable[..., Any]:
    made: Callable[..., Any] = getattr(importlib.import_module(f"xpconv.compiled.{HOMES[name]}"), name)
    return made
