"""Several ways to compute one convolution: rooms of equal rank behind one door, chosen by name or by a model.

Arrays are channels-last in here: x (N, *size, C), weight (*kernel, C/G, O), y (N, *output, O). Every algorithm says
what it supports and computes two things, the convolution and the gradient of its weight. The gradient of its input is
a convolution again and written once, in `adjoint`.
"""

from __future__ import annotations

from typing import Any, Protocol

from xpconv.libraries import Array
from xpconv.windows import Window


class Algorithm(Protocol):
    """A way to compute a convolution."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whether it can compute this convolution."""

    def prepare(self, weight: Array, groups: int) -> Any:
        """Lay out the weight as `convolve` wants it; it serves for any input."""

    def convolve(self, x: Array, prepared: Any, bias: Array | None, window: Window, groups: int) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""

    def weight_gradient(self, x: Array, dy: Array, window: Window, groups: int) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
