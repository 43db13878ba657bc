"""In which precision an operator computes: narrow floating numbers in float32, and float32 in no less unasked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from xpconv.arrays.arguments import accumulation_dtype, is_kind
from xpconv.arrays.libraries import Pullback, namespace_of

P = ParamSpec("P")
Body = Callable[P, tuple[Any, Pullback]]


PRECISIONS = ("float32", "tf32")


def known(precision: str) -> str:
    """Return the precision to multiply float32 in, or raise ValueError when there is none of that name."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    return precision


def accumulated(body: Body[P]) -> Body[P]:
    """Let an operator's body see float16 and bfloat16 arrays as float32, and round only what it gives back."""
    return accumulated_unless(lambda *_, **__: False)(body)


def accumulated_unless(served: Callable[..., bool]) -> Callable[[Body[P]], Body[P]]:
    """Do the same, unless the body adds up in float32 by itself: `served` says so of what the body is given."""

    def decorated(body: Body[P]) -> Body[P]:
        @functools.wraps(body)
        def widened(*arrays: Any, **options: Any) -> tuple[Any, Pullback]:
            floats = [] if served(*arrays, **options) else [a for a in arrays if _is_floating(a)]
            if not floats:
                return body(*arrays, **options)
            narrow = floats[0].dtype
            broad = accumulation_dtype(namespace_of(floats[0]), narrow)
            if broad == narrow or any(a.dtype != narrow for a in floats):  # of several dtypes: for the body to refuse
                return body(*arrays, **options)
            y, pullback = body(*cast(broad, *arrays), **options)
            rounded = cast(narrow, *y) if isinstance(y, tuple) else cast(narrow, y)[0]
            return rounded, lambda dy: cast(narrow, *(g() if callable(g) else g for g in pullback(*cast(broad, dy))))

        return widened

    return decorated


def wide(*arrays: Any) -> tuple[Any, ...]:
    """Return the arrays in the dtype that the first is added up in."""
    xp = namespace_of(arrays[0])
    return cast(accumulation_dtype(xp, arrays[0].dtype), *arrays)


def _is_floating(array: Any) -> bool:
    try:
        return array is not None and is_kind(namespace_of(array), array.dtype, "real floating")
    except TypeError:  # it is no array
        return False


def cast(dtype: Any, *arrays: Any) -> tuple[Any, ...]:
    """Return floating arrays in a dtype, and everything else as it is."""
    return tuple(namespace_of(a).astype(a, dtype, copy=False) if _is_floating(a) else a for a in arrays)
