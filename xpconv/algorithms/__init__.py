"""Several ways to compute one convolution, of equal rank and with one door.

Arrays are channels-last in here: x (N, *size, C), weight (*kernel, C/G, O), y (N, *output, O). Every algorithm says
what it supports and computes two things, the convolution and the gradient of its weight. The gradient of its input is
a convolution again and written once, in `selection.adjoint`; an algorithm that does better is an `Adjoining` one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from xpconv.arrays.libraries import Array
from xpconv.execution.workspace import WORKSPACE
from xpconv.windows import Window


@dataclass(frozen=True)
class Plan:
    """What is to be computed, in whole numbers, and in how much memory.

    Attributes
    ----------
    window : Window
    groups : int
    workspace : int
        Bytes that intermediate arrays may take, unless the smallest piece of work takes more.
    precision : str
        In what float32 may be multiplied.
    """

    window: Window
    groups: int = 1
    workspace: int = WORKSPACE
    precision: str = "float32"


class Algorithm(Protocol):
    """A way to compute a convolution."""

    def supports(self, window: Window, groups: int) -> bool:
        """Whether it can compute this convolution."""

    def prepare(self, weight: Array, plan: Plan) -> Any:
        """Lay out the weight as `convolve` wants it; it serves for any input."""

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Any = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O).

        Without a `prepared` weight, which is kept for weights that cannot change, it lays the weight out as it goes.
        """

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""


@runtime_checkable
class Adjoining(Protocol):
    """An algorithm with a way of its own to the gradient of its input."""

    def adjoins(self, window: Window) -> bool:
        """Whether that way is better here than the convolutions that the gradient is otherwise."""

    def input_gradient(self, dy: Array, weight: Array, plan: Plan, bias: Array | None = None) -> Array:
        """Give every element its share of dy, and a bias: (N, *output, O) and (*kernel, C/G, O) to (N, *size, C)."""


@runtime_checkable
class Placing(Protocol):
    """An algorithm that can write its result where it is wanted."""

    def convolve_into(
        self, y: Array, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Any = None
    ) -> None:
        """Write what `convolve` gives to an array (N, *output, O), whose elements may lie anywhere."""
