"""Which algorithm computes a convolution."""

from __future__ import annotations

from types import ModuleType

from xpconv.algorithms import direct

ALGORITHMS = {"direct": direct}


def choose(name: str) -> ModuleType:
    """Return the algorithm of this name; "auto" leaves the choice to the library."""
    if name == "auto":
        return direct
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm is {name!r}; choose one of auto, {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]
