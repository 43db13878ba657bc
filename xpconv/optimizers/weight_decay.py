"""Optimizers with decoupled weight decay: the parameters shrink beside the rule, which sees nothing of it.

In a rule that divides by what it remembers of the gradients, a penalty on the loss would be divided too, and hardly act
on parameters whose gradients are large.

References
----------
Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), algorithms 1 and 2. There the decay scales with
the schedule alone; here, as in PyTorch, with the learning rate.
"""

from __future__ import annotations

from typing import Any

from xpconv.arrays.libraries import Array
from xpconv.optimizers.rules import Adam, Momentum, Optimizer


class _Decoupled(Optimizer):
    def numbers(self, name: str) -> tuple[float, ...]:
        """Return the share that the decay takes of the parameter, and the numbers of the rule."""
        return self.lr * self.weight_decay, *super().numbers(name)

    def decayed(self, p: Array, g: Array, share: float, *numbers: Any) -> tuple[Any, ...]:
        """Return the parameter, shrunk, its gradient as it was, and the numbers of the rule."""
        return p - share * p, g, *numbers


class SGDW(_Decoupled, Momentum):
    """`Momentum` with decoupled weight decay: ``v = momentum*v - lr*g``, ``p - lr*weight_decay*p + v``.

    Parameters
    ----------
    lr, momentum
        As in `Momentum`.
    weight_decay : float
        At least 0.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, *, weight_decay: float = 0.01) -> None:
        super().__init__(lr, momentum, weight_decay=weight_decay)


class AdamW(_Decoupled, Adam):
    """`Adam` with decoupled weight decay: ``p - lr*weight_decay*p``, and from there Adam's step.

    Parameters
    ----------
    lr, beta1, beta2, eps
        As in `Adam`.
    weight_decay : float
        At least 0.
    """

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        *,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps=eps, weight_decay=weight_decay)
