"""Layers that pool, pad and resize: they change the spatial axes and have no parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from xpconv.arrays.libraries import Array, Pullback
from xpconv.layers.layer import Layer
from xpconv.operators import vjp
from xpconv.ops.adaptive_pooling import adaptive_avg_pool, adaptive_max_pool
from xpconv.ops.interpolation import interpolate
from xpconv.ops.padding import pad as pad_op
from xpconv.ops.pooling import avg_pool, global_avg_pool, global_max_pool, lp_pool, max_pool
from xpconv.ops.unpooling import max_unpool
from xpconv.windows import Pad


class MaxPooling(Layer):
    """The largest element of every window; arguments as in `xpconv.max_pool`.

    With ``return_indices=True`` it keeps `indices`, where each maximum stood, for `MaxUnpooling`.
    """

    op: ClassVar[Callable[..., Any]] = staticmethod(max_pool)
    indices: Array | None = None
    size: tuple[int, ...] = ()

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradient of x."""
        y, pullback = super().apply(x, train_flg)
        if self.options.get("return_indices"):
            y, self.indices = y
            self.size = tuple(x.shape[2:])
        return y, pullback


class Pooling(MaxPooling):
    """Max pooling with the book's signature.

    Parameters
    ----------
    pool_h, pool_w : int
        Height and width of a window.
    stride, pad
        As in `xpconv.max_pool`.
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int | Sequence[int] = 1, pad: Pad = 0) -> None:
        super().__init__((pool_h, pool_w), stride=stride, pad=pad)


class MaxUnpooling(Layer):
    """Put maxima back where a pooling layer found them, among zeros.

    Parameters
    ----------
    pooling : MaxPooling
        A layer made with ``return_indices=True``. What it saw last says where, and how large the result is.
    """

    op = staticmethod(max_unpool)

    def __init__(self, pooling: MaxPooling) -> None:
        if pooling.op is not max_pool or not pooling.options.get("return_indices"):
            raise ValueError(f"pooling is a {type(pooling).__name__}; give a MaxPooling made with return_indices=True")
        self.pooling = pooling
        given = inspect.signature(max_pool).bind(None, *pooling.arguments, **pooling.options).arguments
        self.options = {name: given[name] for name in ("kernel", "stride", "pad") if name in given}

    def apply(self, x: Array, train_flg: bool) -> tuple[Array, Pullback]:
        """Return ``y`` and a pullback to the gradient of x.

        Raises
        ------
        ValueError
            When the pooling layer has seen nothing yet, or x does not fit what it saw.
        """
        if self.pooling.indices is None:
            raise ValueError("the pooling layer has no indices yet; call its forward first")
        return vjp(self.op, x, self.pooling.indices, output_size=self.pooling.size, **self.options)


class AdaptiveMaxPooling(MaxPooling):
    """The largest element of as many windows as asked for; arguments as in `xpconv.adaptive_max_pool`."""

    op = staticmethod(adaptive_max_pool)


class AveragePooling(Layer):
    """The mean of every window; arguments as in `xpconv.avg_pool`."""

    op = staticmethod(avg_pool)


class LpPooling(Layer):
    """The p-norm of every window; arguments as in `xpconv.lp_pool`."""

    op = staticmethod(lp_pool)


class AdaptiveAveragePooling(Layer):
    """The mean of as many windows as asked for; arguments as in `xpconv.adaptive_avg_pool`."""

    op = staticmethod(adaptive_avg_pool)


class GlobalMaxPooling(Layer):
    """The largest element of every channel."""

    op = staticmethod(global_max_pool)


class GlobalAveragePooling(Layer):
    """The mean of every channel."""

    op = staticmethod(global_avg_pool)


class Padding(Layer):
    """More elements before and after the spatial axes; arguments as in `xpconv.pad`."""

    op = staticmethod(pad_op)


class Interpolation(Layer):
    """Another size of the spatial axes; arguments as in `xpconv.interpolate`."""

    op = staticmethod(interpolate)
