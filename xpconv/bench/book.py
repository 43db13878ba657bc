"""The book's own convolution and pooling, forward and backward: what a reader of the chapter starts from.

Its im2col, col2im and layers as they stand there, but for float32 staying float32.

References
----------
Saito, *Deep Learning from Scratch*, sections 7.4.3, 7.4.4 and `common/layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Backward = Callable[[Array], tuple[Array, ...]]


def im2col(x: Array, fh: int, fw: int, stride: int, pad: int) -> Array:
    """(N, C, H, W) to (N*OH*OW, C*FH*FW)."""
    n, c, h, w = x.shape
    oh, ow = (h + 2 * pad - fh) // stride + 1, (w + 2 * pad - fw) // stride + 1
    image = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    col = np.zeros((n, c, fh, fw, oh, ow), x.dtype)
    for i in range(fh):
        for j in range(fw):
            col[:, :, i, j] = image[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)


def col2im(col: Array, shape: tuple[int, ...], fh: int, fw: int, stride: int, pad: int) -> Array:
    """(N*OH*OW, C*FH*FW) to (N, C, H, W), adding up."""
    n, c, h, w = shape
    oh, ow = (h + 2 * pad - fh) // stride + 1, (w + 2 * pad - fw) // stride + 1
    col = col.reshape(n, oh, ow, c, fh, fw).transpose(0, 3, 4, 5, 1, 2)
    image = np.zeros((n, c, h + 2 * pad + stride - 1, w + 2 * pad + stride - 1), col.dtype)
    for i in range(fh):
        for j in range(fw):
            image[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride] += col[:, :, i, j]
    return image[:, :, pad : h + pad, pad : w + pad]


def convolution(arrays: tuple[Array, ...], stride: int, pad: int) -> tuple[Array, Backward]:
    """Convolve x (N, C, H, W) with a weight (O, C, FH, FW) and perhaps a bias (O,), and return the backward too."""
    x, weight, *biases = arrays
    n, _, h, w = x.shape
    filters, c, fh, fw = weight.shape
    oh, ow = (h + 2 * pad - fh) // stride + 1, (w + 2 * pad - fw) // stride + 1
    col = im2col(x, fh, fw, stride, pad)
    col_weight = weight.reshape(filters, -1).T
    y = sum(biases, np.dot(col, col_weight)).reshape(n, oh, ow, -1).transpose(0, 3, 1, 2)

    def backward(dy: Array) -> tuple[Array, ...]:
        dy = dy.transpose(0, 2, 3, 1).reshape(-1, filters)
        dw = np.dot(col.T, dy).transpose(1, 0).reshape(filters, c, fh, fw)
        dcol = np.dot(dy, col_weight.T)
        return (col2im(dcol, x.shape, fh, fw, stride, pad), dw, *(np.sum(dy, axis=0) for _ in biases))

    return y, backward


def max_pooling(x: Array, kernel: tuple[int, ...], stride: int) -> tuple[Array, Backward]:
    """Take the largest element of every window, and return the backward pass too."""
    n, c, h, w = x.shape
    ph, pw = kernel
    oh, ow = (h - ph) // stride + 1, (w - pw) // stride + 1
    col = im2col(x, ph, pw, stride, 0).reshape(-1, ph * pw)
    largest = np.argmax(col, axis=1)
    y = np.max(col, axis=1).reshape(n, oh, ow, c).transpose(0, 3, 1, 2)

    def backward(dy: Array) -> tuple[Array, ...]:
        dy = dy.transpose(0, 2, 3, 1)
        dmax = np.zeros((dy.size, ph * pw), dy.dtype)
        dmax[np.arange(largest.size), largest.flatten()] = dy.flatten()
        dcol = dmax.reshape(n * oh * ow, -1)
        return (col2im(dcol, x.shape, ph, pw, stride, 0),)

    return y, backward
