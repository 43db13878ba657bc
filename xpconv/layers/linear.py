"""Layers with a weight and a bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from xpconv.arrays.libraries import Array
from xpconv.layers.layer import Layer
from xpconv.ops.affine import affine
from xpconv.ops.convolution import conv, conv_transpose
from xpconv.windows import Pad


class Affine(Layer):
    """A matrix product and a bias.

    Parameters
    ----------
    W : array, shape (D, M)
    b : array, shape (M,), optional
    precision
        As in `xpconv.affine`.
    """

    op = staticmethod(affine)
    parameters = ("W", "b")

    def __init__(self, W: Array, b: Array | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.W, self.b = W, b
        self.dW: Array | None = None
        self.db: Array | None = None


class Convolution(Layer):
    """Convolution, with any number of spatial axes.

    Parameters
    ----------
    W : array, shape (O, C/groups, *kernel)
    b : array, shape (O,), optional
    stride, pad, dilation, groups, algorithm, workspace, precision
        As in `xpconv.conv`.
    """

    op: ClassVar[Callable[..., Any]] = staticmethod(conv)
    parameters = ("W", "b")

    def __init__(
        self, W: Array, b: Array | None = None, stride: int | Sequence[int] = 1, pad: Pad = 0, **options: Any
    ) -> None:
        super().__init__(stride=stride, pad=pad, **options)
        self.W, self.b = W, b
        self.dW: Array | None = None
        self.db: Array | None = None


class TransposedConvolution(Convolution):
    """A convolution run backwards, with any number of spatial axes.

    Parameters
    ----------
    W : array, shape (C, O/groups, *kernel)
    b : array, shape (O,), optional
    stride, pad, output_pad, dilation, groups, workspace, precision
        As in `xpconv.conv_transpose`.
    """

    op = staticmethod(conv_transpose)
