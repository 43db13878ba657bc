"""Convolution and pooling layers with their gradients, written once against the array API standard.

The arrays decide where the work happens: NumPy on the CPU, CuPy on a CUDA GPU, and PyTorch, JAX or any other library
of the standard.
"""

from xpconv.arrays import Backend, backend, freeze, to_numpy
from xpconv.layers import (
    AdaptiveAveragePooling,
    AdaptiveMaxPooling,
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    Dropout,
    Elu,
    Gelu,
    GlobalAveragePooling,
    GlobalMaxPooling,
    GroupNormalization,
    InstanceNormalization,
    Interpolation,
    Layer,
    LayerNormalization,
    LeakyRelu,
    LocalResponseNormalization,
    LogSoftmax,
    Loss,
    LpPooling,
    MaxPooling,
    MaxUnpooling,
    MeanSquaredError,
    NegativeLogLikelihood,
    Padding,
    Pooling,
    PRelu,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    Silu,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
    TransposedConvolution,
)
from xpconv.networks import DeepConvNet, Network, SimpleConvNet
from xpconv.operators import operator, vjp
from xpconv.ops.activations import elu, gelu, leaky_relu, prelu, relu, sigmoid, silu, tanh
from xpconv.ops.adaptive_pooling import adaptive_avg_pool, adaptive_max_pool
from xpconv.ops.affine import affine
from xpconv.ops.convolution import conv, conv_transpose
from xpconv.ops.interpolation import interpolate
from xpconv.ops.local_response import local_response_norm
from xpconv.ops.losses import binary_cross_entropy_with_logits, mean_squared_error, nll_loss, softmax_cross_entropy
from xpconv.ops.normalization import batch_norm, group_norm, instance_norm, layer_norm
from xpconv.ops.padding import pad
from xpconv.ops.pooling import avg_pool, global_avg_pool, global_max_pool, lp_pool, max_pool
from xpconv.ops.regularization import dropout
from xpconv.ops.softmax import log_softmax, softmax
from xpconv.ops.unpooling import max_unpool
from xpconv.optimizers import SGD, SGDW, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSProp
from xpconv.selection.tuning import tune, untune
from xpconv.windows.patches import col2im, fold, im2col, unfold

__version__ = "0.1.0"

__all__ = [
    "AdaGrad",
    "Adam",
    "AdamW",
    "AdaptiveAveragePooling",
    "AdaptiveMaxPooling",
    "Affine",
    "AveragePooling",
    "Backend",
    "BatchNormalization",
    "Convolution",
    "DeepConvNet",
    "Dropout",
    "Elu",
    "Gelu",
    "GlobalAveragePooling",
    "GlobalMaxPooling",
    "GroupNormalization",
    "InstanceNormalization",
    "Interpolation",
    "Layer",
    "LayerNormalization",
    "LeakyRelu",
    "LocalResponseNormalization",
    "LogSoftmax",
    "Loss",
    "LpPooling",
    "MaxPooling",
    "MaxUnpooling",
    "MeanSquaredError",
    "Momentum",
    "NegativeLogLikelihood",
    "Nesterov",
    "Network",
    "PRelu",
    "Padding",
    "Pooling",
    "RMSProp",
    "Relu",
    "SGD",
    "SGDW",
    "Sigmoid",
    "SigmoidWithLoss",
    "Silu",
    "SimpleConvNet",
    "Softmax",
    "SoftmaxWithLoss",
    "Tanh",
    "TransposedConvolution",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "affine",
    "avg_pool",
    "backend",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "col2im",
    "conv",
    "conv_transpose",
    "dropout",
    "elu",
    "fold",
    "freeze",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "im2col",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "leaky_relu",
    "local_response_norm",
    "log_softmax",
    "lp_pool",
    "max_pool",
    "max_unpool",
    "mean_squared_error",
    "nll_loss",
    "operator",
    "pad",
    "prelu",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "tanh",
    "to_numpy",
    "tune",
    "unfold",
    "untune",
    "vjp",
]
