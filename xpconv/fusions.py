"""What no call of the standard does in one sweep over memory: loops compiled for NumPy, kernels for CuPy, by name.

An operator asks `fused` for one, and has array code of the same signature where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpconv import compiled, cuda
from xpconv.arrays.libraries import Array


def fused(name: str, x: Array) -> Callable[..., Any] | None:
    """Return the function of this name for an array of this library and dtype, or None."""
    return compiled.fused(name, x) or cuda.fused(name, x)
