"""The book's layers: parameters, forward, backward, and no mathematics.

A layer owns its parameters (`W`, `b`, `gamma`, `beta`), calls one operator, and keeps that operator's pullback until
`backward`, which leaves the gradients in `dW`, `db`, `dgamma`, `dbeta`.
"""

from xpconv.layers.activations import (
    Dropout,
    Elu,
    Gelu,
    LeakyRelu,
    LogSoftmax,
    PRelu,
    Relu,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)
from xpconv.layers.layer import Layer
from xpconv.layers.linear import Affine, Convolution, TransposedConvolution
from xpconv.layers.losses import Loss, MeanSquaredError, NegativeLogLikelihood, SigmoidWithLoss, SoftmaxWithLoss
from xpconv.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
    LocalResponseNormalization,
)
from xpconv.layers.pooling import (
    AdaptiveAveragePooling,
    AdaptiveMaxPooling,
    AveragePooling,
    GlobalAveragePooling,
    GlobalMaxPooling,
    Interpolation,
    LpPooling,
    MaxPooling,
    MaxUnpooling,
    Padding,
    Pooling,
)

__all__ = [
    "AdaptiveAveragePooling",
    "AdaptiveMaxPooling",
    "Affine",
    "AveragePooling",
    "BatchNormalization",
    "Convolution",
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
    "NegativeLogLikelihood",
    "PRelu",
    "Padding",
    "Pooling",
    "Relu",
    "Sigmoid",
    "SigmoidWithLoss",
    "Silu",
    "Softmax",
    "SoftmaxWithLoss",
    "Tanh",
    "TransposedConvolution",
]
