"""What compiles loops: Numba, where it is installed and not switched off, when a loop is first wanted."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@functools.cache
def available() -> bool:
    """Whether loops can be compiled: `xpconv[numba]` is installed and XPCONV_NUMBA is not 0."""
    return os.environ.get("XPCONV_NUMBA") != "0" and importlib.util.find_spec("numba") is not None


@functools.cache
def vector_bytes() -> int:
    """Return what the registers of this processor hold that loops compute in."""
    if not available():
        return 16
    features: Any = importlib.import_module("llvmlite.binding").get_host_cpu_features()
    return 64 if features.get("avx512f") else 32


def loop(function: F) -> F:
    """Compile a loop for each kind of arguments, at its first call; without Numba it stays what it is, and slow.

    The interpreter is let go meanwhile. Machine code is kept on disk, where the package or else the user's cache can
    be written to.
    """
    if not available():
        return function
    numba: Any = importlib.import_module("numba")
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(function, cache=True, **options)  # type: ignore[no-any-return]
    except RuntimeError:  # there is no place that can be written to
        return numba.njit(function, **options)  # type: ignore[no-any-return]
