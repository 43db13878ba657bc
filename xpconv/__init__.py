"""Convolution and pooling layers with their gradients, written once against the array API standard.

The arrays decide where the work happens: NumPy on the CPU, CuPy on a CUDA GPU, and PyTorch, JAX or any other library
of the standard.
"""

from xpconv.backends import Backend, backend, to_numpy
from xpconv.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Layer,
    Pooling,
    Relu,
    SoftmaxWithLoss,
)
from xpconv.operators import operator, vjp
from xpconv.ops.activations import relu
from xpconv.ops.affine import affine
from xpconv.ops.convolution import conv
from xpconv.ops.losses import softmax_cross_entropy
from xpconv.ops.normalization import batch_norm
from xpconv.ops.pooling import avg_pool, max_pool
from xpconv.ops.regularization import dropout
from xpconv.patches import col2im, fold, im2col, unfold

__version__ = "0.1.0"

__all__ = [
    "Affine",
    "Backend",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Layer",
    "Pooling",
    "Relu",
    "SoftmaxWithLoss",
    "affine",
    "avg_pool",
    "backend",
    "batch_norm",
    "col2im",
    "conv",
    "dropout",
    "fold",
    "im2col",
    "max_pool",
    "operator",
    "relu",
    "softmax_cross_entropy",
    "to_numpy",
    "unfold",
    "vjp",
]
