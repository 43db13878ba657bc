"""Initial weights, drawn on the host: the same numbers for every backend and, but for rounding, every dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv.windows import whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray


def normal(rng: np.random.Generator, shape: Sequence[int], std: float = 0.01) -> NDArray[np.float64]:
    """Draw from a normal distribution of mean 0.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : sequence of int
    std : float
        Standard deviation, at least 0.

    Returns
    -------
    numpy.ndarray of float64

    Raises
    ------
    TypeError
        When `rng` is no generator.
    ValueError
        When `std` is not a number of at least 0.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a {type(rng).__name__}; give a numpy.random.Generator")
    if isinstance(std, bool | str) or not 0 <= std < math.inf:
        raise ValueError(f"std is {std!r}; give a number of at least 0")
    return rng.normal(0, std, tuple(shape))


def he(rng: np.random.Generator, shape: Sequence[int], fan_in: int | None = None) -> NDArray[np.float64]:
    """Draw weights that keep the variance of activations through layers with ReLU: std ``sqrt(2 / fan_in)``.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : sequence of int
        (O, C, *kernel) of a convolution or (D, M) of an affine layer.
    fan_in : int, optional
        Inputs to each output; that of the shape, C*prod(kernel) or D, if not given.

    Returns
    -------
    numpy.ndarray of float64

    References
    ----------
    He et al., "Delving deep into rectifiers" (2015), equation 10.
    """
    return normal(rng, shape, math.sqrt(2 / _inputs(shape, fan_in)))


def xavier(rng: np.random.Generator, shape: Sequence[int], fan_in: int | None = None) -> NDArray[np.float64]:
    """Draw weights that keep the variance of activations through linear layers: std ``sqrt(1 / fan_in)``.

    This is the book's form. Glorot and Bengio average fan_in with the number of outputs, for the gradients' sake.

    Parameters
    ----------
    rng, shape, fan_in
        As in `he`.

    Returns
    -------
    numpy.ndarray of float64

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010); Saito, *Deep
    Learning from Scratch*, section 6.2.2.
    """
    return normal(rng, shape, math.sqrt(1 / _inputs(shape, fan_in)))


BY_NAME = {"he": he, "relu": he, "xavier": xavier, "sigmoid": xavier}


def initial(rng: np.random.Generator, shape: Sequence[int], weight_init_std: float | str) -> NDArray[np.float64]:
    """Draw weights as the book's networks are told to: with a standard deviation, or with a rule by its name.

    Parameters
    ----------
    rng, shape
        As in `he`.
    weight_init_std : float or str
        A standard deviation; "he" or "relu"; "xavier" or "sigmoid".

    Returns
    -------
    numpy.ndarray of float64

    Raises
    ------
    TypeError, ValueError
        When there is no such rule, or the number is not at least 0.
    """
    if not isinstance(weight_init_std, str):
        return normal(rng, shape, weight_init_std)
    rule = BY_NAME.get(weight_init_std.lower())
    if rule is None:
        raise ValueError(f"weight_init_std is {weight_init_std!r}; give a number or one of {', '.join(BY_NAME)}")
    return rule(rng, shape)


def _inputs(shape: Sequence[int], fan_in: Any) -> int:
    if fan_in is not None:
        return whole_number("fan_in", fan_in, least=1)
    if len(shape) < 2 or math.prod(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}; give (O, C, *kernel) or (D, M), all at least 1, or fan_in")
    return int(shape[0] if len(shape) == 2 else math.prod(shape[1:]))
