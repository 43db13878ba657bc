"""In which precision an operator computes: narrow floating numbers in float32, and float32 in no less unasked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

from array_api_compat import array_namespace, is_array_api_obj

from xpconv.algorithms import Algorithm, Plan
from xpconv.arrays import accumulation_dtype, is_kind
from xpconv.libraries import Array, Pullback
from xpconv.windows import Window

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
            floats = [a for a in arrays if _is_floating(a)]
            if not floats or served(*arrays, **options):
                return body(*arrays, **options)
            narrow = floats[0].dtype
            wide = accumulation_dtype(array_namespace(floats[0]), narrow)
            if wide == narrow or any(a.dtype != narrow for a in floats):  # of several dtypes: for the body to refuse
                return body(*arrays, **options)
            y, pullback = body(*_as(wide, *arrays), **options)
            rounded = _as(narrow, *y) if isinstance(y, tuple) else _as(narrow, y)[0]
            return rounded, lambda dy: _as(narrow, *(g() if callable(g) else g for g in pullback(*_as(wide, dy))))

        return widened

    return decorated


@dataclass(frozen=True)
class Widened:
    """An algorithm that would round narrow numbers on its way, and is given them as float32."""

    way: Algorithm

    def supports(self, window: Window, groups: int) -> bool:
        """As the algorithm says."""
        return self.way.supports(window, groups)

    def prepare(self, weight: Array, plan: Plan) -> Any:
        """Lay out the weight, in float32 where it is narrower."""
        (weight,) = _wide(weight)
        return self.way.prepare(weight, plan)

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Any = None) -> Array:
        """Sum over the taps and channels of every window, and round the sums alone."""
        dtype, (x, weight, bias) = x.dtype, _wide(x, weight, bias)
        return _as(dtype, self.way.convolve(x, weight, bias, plan, prepared))[0]

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy, and round the sums alone."""
        dtype, (x, dy) = x.dtype, _wide(x, dy)
        return _as(dtype, self.way.weight_gradient(x, dy, plan))[0]


def _wide(*arrays: Any) -> tuple[Any, ...]:
    xp = array_namespace(arrays[0])
    return _as(accumulation_dtype(xp, arrays[0].dtype), *arrays)


def _is_floating(array: Any) -> bool:
    return is_array_api_obj(array) and is_kind(array_namespace(array), array.dtype, "real floating")


def _as(dtype: Any, *arrays: Any) -> tuple[Any, ...]:
    return tuple(array_namespace(a).astype(a, dtype, copy=False) if _is_floating(a) else a for a in arrays)
