"""What every layer is: one operator, its options, and the pullback between forward and backward."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from xpconv.arrays.libraries import Array, Pullback
from xpconv.operators import vjp


class Layer:
    """One operator with its parameters.

    Parameters
    ----------
    *arguments, **options
        What the operator takes after its arrays.

    Attributes
    ----------
    op : callable
        The operator.
    parameters : tuple of str
        Names of the attributes that are trained: the operator's arrays after x, in order. ``backward`` leaves the
        gradient of ``W`` in ``dW``.
    buffers : tuple of str
        Names of the attributes that are arrays and belong to the layer's state, but are not trained.

    Raises
    ------
    TypeError
        When the operator has no such options.
    """

    op: ClassVar[Callable[..., Any]]
    parameters: ClassVar[tuple[str, ...]] = ()
    buffers: ClassVar[tuple[str, ...]] = ()
    _pullback: Pullback | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        inspect.signature(self.op).bind(*(None,) * (1 + len(self.parameters)), *arguments, **options)
        self.arguments, self.options = arguments, options

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradients of x and of every parameter, in order."""
        arrays = (getattr(self, name) for name in self.parameters)
        return vjp(self.op, x, *arrays, *self.arguments, **self.options)

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return the layer's output for x; `train_flg` tells training from evaluation where the two differ."""
        y, self._pullback = self.apply(x, train_flg)
        return y

    def backward(self, dout: Array, input_gradient: bool = True) -> Array:
        """Return the gradient of the input from that of the output, and keep those of the parameters.

        A network's first layer need not work out the `input_gradient`; None is returned then.

        Raises
        ------
        ValueError
            When `forward` was not called before.
        """
        dx, *gradients = ready(self, self._pullback)(dout, () if input_gradient else (0,))
        for name, gradient in zip(self.parameters, gradients, strict=False):
            setattr(self, f"d{name}", gradient)
        return dx


def ready(layer: object, pullback: Pullback | None) -> Pullback:
    """Return the pullback that `forward` left, or raise ValueError when it left none."""
    if pullback is None:
        raise ValueError(f"{type(layer).__name__}.backward was called before forward; call forward(x) first")
    return pullback
