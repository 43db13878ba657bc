"""Layers that act on each element by itself, and softmax."""

from __future__ import annotations

import numpy as np

from xpconv.arrays.libraries import Array, Pullback
from xpconv.layers.layer import Layer
from xpconv.operators import vjp
from xpconv.ops.activations import elu, gelu, leaky_relu, prelu, relu, sigmoid, silu, tanh
from xpconv.ops.regularization import dropout
from xpconv.ops.softmax import log_softmax, softmax
from xpconv.shards import Shard


class Relu(Layer):
    """Keep what is above zero."""

    op = staticmethod(relu)


class LeakyRelu(Layer):
    """Keep what is above zero and scale down what is below; options as in `xpconv.leaky_relu`."""

    op = staticmethod(leaky_relu)


class PRelu(Layer):
    """Keep what is above zero and scale what is below by a slope that is learned.

    Parameters
    ----------
    slope : array, shape (C,) or (1,)
    """

    op = staticmethod(prelu)
    parameters = ("slope",)

    def __init__(self, slope: Array) -> None:
        super().__init__()
        self.slope = slope
        self.dslope: Array | None = None


class Elu(Layer):
    """Keep what is above zero and bend what is below; options as in `xpconv.elu`."""

    op = staticmethod(elu)


class Gelu(Layer):
    """Scale every element by the probability that a normal variable is below it; options as in `xpconv.gelu`."""

    op = staticmethod(gelu)


class Silu(Layer):
    """Scale every element by its sigmoid."""

    op = staticmethod(silu)


class Sigmoid(Layer):
    """Squeeze every element between 0 and 1."""

    op = staticmethod(sigmoid)


class Tanh(Layer):
    """Squeeze every element between -1 and 1."""

    op = staticmethod(tanh)


class Softmax(Layer):
    """Make probabilities of scores; options as in `xpconv.softmax`."""

    op = staticmethod(softmax)


class LogSoftmax(Layer):
    """Make logarithms of probabilities of scores; options as in `xpconv.log_softmax`."""

    op = staticmethod(log_softmax)


class Dropout(Layer):
    """Drop elements at random in training; scale by what is left on average otherwise.

    Parameters
    ----------
    dropout_ratio : float
        Probability that an element is dropped.
    rng : numpy.random.Generator, optional
        Where the random numbers come from; a fresh generator if not given.

    Attributes
    ----------
    shard : Shard, optional
        Which part of a batch the next ones in training are, where several processes share it.
    """

    op = staticmethod(dropout)
    shard: Shard | None = None

    def __init__(self, dropout_ratio: float = 0.5, rng: np.random.Generator | None = None) -> None:
        super().__init__(ratio=dropout_ratio)
        self.rng = np.random.default_rng() if rng is None else rng

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradient of x."""
        return vjp(self.op, x, rng=self.rng if train_flg else None, shard=self.shard, **self.options)
