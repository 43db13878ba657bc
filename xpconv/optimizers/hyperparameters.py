"""Hyper-parameters that are real numbers, and what is said of those that are out of range."""

from __future__ import annotations

import math
import numbers


def number(name: str, value: object, *, below: float = math.inf) -> float:
    """Return a number of at least 0 as a float, or raise TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); give a number")
    found = float(value)
    if not 0 <= found < below:
        wanted = "a finite number of at least 0" if below == math.inf else f"a number of at least 0 and below {below}"
        raise ValueError(f"{name} is {value!r}; give {wanted}")
    return found
