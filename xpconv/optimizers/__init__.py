"""Optimizers: how parameters learn."""

from xpconv.optimizers.rules import SGD, AdaGrad, Adam, Momentum, Nesterov, Optimizer, RMSProp
from xpconv.optimizers.weight_decay import SGDW, AdamW

__all__ = ["SGD", "SGDW", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "Optimizer", "RMSProp"]
