"""An algorithm for narrow floating numbers, made of one for wide ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xpconv.algorithms import Algorithm, Plan
from xpconv.arrays.libraries import Array
from xpconv.arrays.precision import cast, wide
from xpconv.windows import Window


@dataclass(frozen=True)
class Widened:
    """An algorithm that would round narrow numbers on its way, and is given them as float32."""

    way: Algorithm

    def supports(self, window: Window, groups: int) -> bool:
        """As the algorithm says."""
        return self.way.supports(window, groups)

    def prepare(self, weight: Array, plan: Plan) -> Any:
        """Lay out the weight, in float32 where it is narrower."""
        (weight,) = wide(weight)
        return self.way.prepare(weight, plan)

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Any = None) -> Array:
        """Sum over the taps and channels of every window, and round the sums alone."""
        dtype, (x, weight, bias) = x.dtype, wide(x, weight, bias)
        return cast(dtype, self.way.convolve(x, weight, bias, plan, prepared))[0]

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy, and round the sums alone."""
        dtype, (x, dy) = x.dtype, wide(x, dy)
        return cast(dtype, self.way.weight_gradient(x, dy, plan))[0]
