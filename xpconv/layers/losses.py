"""Losses as layers: ``forward(x, t)`` gives the loss, ``backward()`` the gradient of x."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from xpconv.arrays.arguments import namespace
from xpconv.arrays.libraries import Array, Pullback
from xpconv.execution.recording import fed
from xpconv.layers.layer import ready
from xpconv.operators import vjp
from xpconv.ops.losses import binary_cross_entropy_with_logits, mean_squared_error, nll_loss, softmax_cross_entropy


class Loss:
    """The last layer of a network in training.

    Parameters
    ----------
    **options
        What the operator takes after x and t, by name: weights too, which are not trained.

    Attributes
    ----------
    op : callable
        The operator.
    loss : array
        What `forward` returned last.
    scale : float
        What `backward` multiplies by, for gradients that would be too small for their dtype.

    Raises
    ------
    TypeError
        When the operator has no such options.
    """

    op: ClassVar[Callable[..., Any]]
    loss: Array | None = None
    scale: float = 1.0
    _pullback: Pullback | None = None

    def __init__(self, **options: Any) -> None:
        inspect.signature(self.op).bind(None, None, **options)
        self.options = options

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss of x against t."""
        self.loss, self._pullback = vjp(self.op, x, t, **self.options)
        return self.loss

    def backward(self, dout: Array | float = 1) -> Array:
        """Return the gradient of x.

        Raises
        ------
        ValueError
            When `forward` was not called before.
        """
        pullback, scale = ready(self, self._pullback), fed(lambda: self.scale, self.loss)
        return pullback(namespace(loss=self.loss).ones_like(self.loss) * dout * scale)[0]


class SoftmaxWithLoss(Loss):
    """Softmax and cross entropy, the last layer of a classifier; options as in `xpconv.softmax_cross_entropy`."""

    op = staticmethod(softmax_cross_entropy)


class NegativeLogLikelihood(Loss):
    """The loss after `LogSoftmax`; options as in `xpconv.nll_loss`."""

    op = staticmethod(nll_loss)


class MeanSquaredError(Loss):
    """The mean of squared differences; options as in `xpconv.mean_squared_error`."""

    op = staticmethod(mean_squared_error)


class SigmoidWithLoss(Loss):
    """Sigmoid and binary cross entropy; options as in `xpconv.binary_cross_entropy_with_logits`."""

    op = staticmethod(binary_cross_entropy_with_logits)
