"""In which precision an operator computes: narrow floating numbers in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from array_api_compat import array_namespace, is_array_api_obj

from xpconv.arrays import accumulation_dtype
from xpconv.libraries import Pullback

P = ParamSpec("P")


def accumulated(body: Callable[P, tuple[Any, Pullback]]) -> Callable[P, tuple[Any, Pullback]]:
    """Let an operator's body see float16 and bfloat16 arrays as float32, and round only what it gives back."""

    @functools.wraps(body)
    def widened(*arrays: Any, **options: Any) -> tuple[Any, Pullback]:
        floats = [a for a in arrays if _is_floating(a)]
        if not floats:
            return body(*arrays, **options)
        narrow = floats[0].dtype
        wide = accumulation_dtype(array_namespace(floats[0]), narrow)
        if wide == narrow or any(a.dtype != narrow for a in floats):  # of several dtypes: for the body to refuse
            return body(*arrays, **options)
        y, pullback = body(*_as(wide, *arrays), **options)
        rounded = _as(narrow, *y) if isinstance(y, tuple) else _as(narrow, y)[0]
        return rounded, lambda dy: _as(narrow, *(g() if callable(g) else g for g in pullback(*_as(wide, dy))))

    return widened


def _is_floating(array: Any) -> bool:
    return is_array_api_obj(array) and bool(array_namespace(array).isdtype(array.dtype, "real floating"))


def _as(dtype: Any, *arrays: Any) -> tuple[Any, ...]:
    return tuple(array_namespace(a).astype(a, dtype) if _is_floating(a) else a for a in arrays)
