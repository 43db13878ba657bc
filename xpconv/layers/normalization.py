"""Layers that normalize."""

from __future__ import annotations

from typing import Any

from xpconv.arrays.libraries import Array, Pullback
from xpconv.execution.recording import replaced
from xpconv.layers.layer import Layer
from xpconv.operators import vjp
from xpconv.ops.local_response import local_response_norm
from xpconv.ops.normalization import batch_norm, group_norm, instance_norm, layer_norm
from xpconv.shards import Shard


class _Scaled(Layer):
    """A normalization with a scale `gamma` and a shift `beta`."""

    parameters = ("gamma", "beta")

    def __init__(self, gamma: Array | None = None, beta: Array | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.gamma, self.beta = gamma, beta
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None


class BatchNormalization(_Scaled):
    """Batch normalization by channel, with running statistics for evaluation.

    Parameters
    ----------
    gamma, beta : array, shape (C,)
        Scale and shift.
    momentum : float
        How much of the running statistics is kept at each step, from 0 to 1.
    running_mean, running_var : array, shape (C,), optional
        Statistics for evaluation; gathered in training, from zeros, if not given.
    eps : float
        Added to the variance; the book's number if not given.

    Attributes
    ----------
    shard : Shard, optional
        Which part of a batch the next ones in training are, where several processes share it.
    """

    op = staticmethod(batch_norm)
    buffers = ("running_mean", "running_var")
    shard: Shard | None = None

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
        super().__init__(gamma, beta)
        self.momentum, self.eps = momentum, eps
        self.running_mean = gamma * 0 if running_mean is None else running_mean
        self.running_var = gamma * 0 if running_var is None else running_var

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradients of x, gamma and beta."""
        if not train_flg:
            return vjp(self.op, x, self.gamma, self.beta, self.running_mean, self.running_var, eps=self.eps)
        (y, mean, var), pullback = vjp(
            self.op, x, self.gamma, self.beta, eps=self.eps, return_statistics=True, shard=self.shard
        )
        for name, found in (("running_mean", mean), ("running_var", var)):
            old = getattr(self, name)
            setattr(self, name, replaced(old, self.momentum * old + (1 - self.momentum) * found))
        return y, pullback


class LayerNormalization(_Scaled):
    """Layer normalization: `gamma` and `beta` of shape x.shape[axis:]; options as in `xpconv.layer_norm`."""

    op = staticmethod(layer_norm)


class GroupNormalization(_Scaled):
    """Group normalization: `gamma` and `beta` of shape (C,); ``groups=`` and options as in `xpconv.group_norm`."""

    op = staticmethod(group_norm)


class InstanceNormalization(_Scaled):
    """Instance normalization: `gamma` and `beta` of shape (C,); options as in `xpconv.instance_norm`."""

    op = staticmethod(instance_norm)


class LocalResponseNormalization(Layer):
    """Local response normalization over `size` channels; options as in `xpconv.local_response_norm`."""

    op = staticmethod(local_response_norm)
