"""The book's layers: parameters, forward, backward, and no mathematics.

A layer owns its parameters (`W`, `b`, `gamma`, `beta`), calls one operator, and keeps that operator's pullback until
`backward`, which leaves the gradients in `dW`, `db`, `dgamma`, `dbeta`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from xpconv.backends import Array, Pullback
from xpconv.operators import vjp
from xpconv.ops.activations import relu
from xpconv.ops.affine import affine
from xpconv.ops.convolution import conv
from xpconv.ops.losses import softmax_cross_entropy
from xpconv.ops.normalization import batch_norm
from xpconv.ops.pooling import max_pool
from xpconv.ops.regularization import dropout
from xpconv.windows import Pad


class Layer:
    """One operator with its parameters.

    Attributes
    ----------
    parameters : tuple of str
        Names of the attributes that are trained; ``backward`` leaves the gradient of ``W`` in ``dW``.
    buffers : tuple of str
        Names of the attributes that are arrays and belong to the layer's state, but are not trained.
    """

    parameters: ClassVar[tuple[str, ...]] = ()
    buffers: ClassVar[tuple[str, ...]] = ()
    _pullback: Pullback | None = None

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradients of x and of every parameter, in order."""
        raise NotImplementedError

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return the layer's output for x; `train_flg` tells training from evaluation where the two differ."""
        y, self._pullback = self.apply(x, train_flg)
        return y

    def backward(self, dout: Array) -> Array:
        """Return the gradient of the input from that of the output, and keep those of the parameters.

        Raises
        ------
        ValueError
            When `forward` was not called before.
        """
        dx, *gradients = _ready(self, self._pullback)(dout)
        for name, gradient in zip(self.parameters, gradients, strict=False):
            setattr(self, f"d{name}", gradient)
        return dx


def _ready(layer: object, pullback: Pullback | None) -> Pullback:
    if pullback is None:
        raise ValueError(f"{type(layer).__name__}.backward was called before forward; call forward(x) first")
    return pullback


class Convolution(Layer):
    """Convolution, with any number of spatial axes.

    Parameters
    ----------
    W : array, shape (O, C/groups, *kernel)
    b : array, shape (O,), optional
    stride, pad, dilation, groups, algorithm
        As in `xpconv.conv`.
    """

    parameters = ("W", "b")

    def __init__(
        self, W: Array, b: Array | None = None, stride: int | Sequence[int] = 1, pad: Pad = 0, **options: Any
    ) -> None:
        self.W, self.b = W, b
        self.dW: Array | None = None
        self.db: Array | None = None
        self.options = {"stride": stride, "pad": pad, **options}

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradients of x, W and b."""
        return vjp(conv, x, self.W, self.b, **self.options)


class Affine(Layer):
    """A matrix product and a bias.

    Parameters
    ----------
    W : array, shape (D, M)
    b : array, shape (M,), optional
    """

    parameters = ("W", "b")

    def __init__(self, W: Array, b: Array | None = None) -> None:
        self.W, self.b = W, b
        self.dW: Array | None = None
        self.db: Array | None = None

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradients of x, W and b."""
        return vjp(affine, x, self.W, self.b)


class BatchNormalization(Layer):
    """Batch normalization by channel, with running statistics for evaluation.

    Parameters
    ----------
    gamma, beta : array, shape (C,)
        Scale and shift.
    momentum : float
        How much of the running statistics is kept at each step, from 0 to 1.
    running_mean, running_var : array, shape (C,), optional
        Statistics for evaluation; gathered in training if not given.
    eps : float
        Added to the variance; the book's number if not given.
    """

    parameters = ("gamma", "beta")
    buffers = ("running_mean", "running_var")

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
        *,
        eps: float = 1e-6,
    ) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum is {momentum!r}; give a number from 0 to 1")
        self.gamma, self.beta, self.momentum, self.eps = gamma, beta, momentum, eps
        self.running_mean = gamma * 0 if running_mean is None else running_mean
        self.running_var = gamma * 0 if running_var is None else running_var
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradients of x, gamma and beta."""
        if not train_flg:
            return vjp(batch_norm, x, self.gamma, self.beta, self.running_mean, self.running_var, eps=self.eps)
        (y, mean, var), pullback = vjp(batch_norm, x, self.gamma, self.beta, eps=self.eps, return_statistics=True)
        self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mean
        self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
        return y, pullback


class _Plain(Layer):
    """A layer without parameters: an operator and its options."""

    def __init__(self, op: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self.op, self.arguments, self.options = op, arguments, options

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradient of x."""
        return vjp(self.op, x, *self.arguments, **self.options)


class Pooling(_Plain):
    """Max pooling with the book's signature.

    Parameters
    ----------
    pool_h, pool_w : int
        Height and width of a window.
    stride, pad
        As in `xpconv.max_pool`.
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int | Sequence[int] = 1, pad: Pad = 0) -> None:
        super().__init__(max_pool, (pool_h, pool_w), stride=stride, pad=pad)


class Relu(_Plain):
    """Keep what is above zero."""

    def __init__(self) -> None:
        super().__init__(relu)


class Dropout(_Plain):
    """Drop elements at random in training; scale by what is left on average otherwise.

    Parameters
    ----------
    dropout_ratio : float
        Probability that an element is dropped.
    rng : numpy.random.Generator, optional
        Where the random numbers come from; a fresh generator if not given.
    """

    def __init__(self, dropout_ratio: float = 0.5, rng: np.random.Generator | None = None) -> None:
        super().__init__(dropout, ratio=dropout_ratio)
        self.rng = np.random.default_rng() if rng is None else rng

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradient of x."""
        return vjp(dropout, x, rng=self.rng if train_flg else None, **self.options)


class SoftmaxWithLoss:
    """Softmax and cross entropy, the last layer of a classifier in training."""

    _pullback: Pullback | None = None

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss of the scores x (N, K) against labels t (N,) or rows t (N, K)."""
        self.loss, self._pullback = vjp(softmax_cross_entropy, x, t)
        return self.loss

    def backward(self, dout: Array | float = 1) -> Array:
        """Return the gradient of the scores.

        Raises
        ------
        ValueError
            When `forward` was not called before.
        """
        pullback = _ready(self, self._pullback)
        dx, _ = pullback(self.loss * 0 + dout)
        return dx
