"""The book's two convolutional networks, so that weights in its names and shapes can be put in and taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpconv.arrays.backends import Backend
from xpconv.arrays.backends import backend as find
from xpconv.arrays.libraries import Array
from xpconv.layers import Affine, Convolution, Dropout, Layer, Pooling, Relu
from xpconv.networks.initializers import initial
from xpconv.networks.network import Network
from xpconv.windows import whole_number, whole_numbers, window


class _Source:
    """Initial parameters, drawn on the host in the order they are asked for, and moved once."""

    def __init__(self, backend: Backend | str, dtype: str, rng: Any, weight_init_std: float | str) -> None:
        if np.dtype(dtype).kind != "f":
            raise TypeError(f"dtype is {dtype!r}; give the name of a real floating dtype, such as 'float32'")
        self.backend = backend if isinstance(backend, Backend) else find(backend)
        self.dtype, self.std = str(np.dtype(dtype)), weight_init_std
        self.rng = np.random.default_rng(rng)

    def __call__(self, *shape: int) -> tuple[Array, Array]:
        """Return a weight of this shape, (O, C, *kernel) or (D, M), and a bias of zeros, one for each output."""
        outputs = shape[0] if len(shape) > 2 else shape[1]
        weight = initial(self.rng, shape, self.std)
        return self.backend.asarray(weight, self.dtype), self.backend.asarray(np.zeros(outputs), self.dtype)


def _sizes(hidden_size: int, output_size: int) -> tuple[int, int]:
    hidden = whole_number("hidden_size", hidden_size, least=1)
    return hidden, whole_number("output_size", output_size, least=1)


class SimpleConvNet(Network):
    """The book's small network: conv - relu - pool 2x2 - affine - relu - affine, with its names and shapes.

    Parameters
    ----------
    input_dim : (int, int, int)
        Channels, height and width of an image.
    conv_param : mapping, optional
        'filter_num', 'filter_size', 'pad' and 'stride' of the convolution; where not given 30, 5, 0 and 1.
    hidden_size, output_size : int
        Outputs of the two affine layers.
    weight_init_std : float or str
        Standard deviation of the initial weights; "he" or "relu", "xavier" or "sigmoid".
    backend : Backend or str
        Where the parameters are made, and with them all that follows.
    dtype : str
        Of the parameters; a real floating one.
    rng : numpy.random.Generator or int, optional
        Where the weights are drawn from, or its seed. The same seed gives the same weights on every backend.

    Raises
    ------
    TypeError, ValueError
        When a number is not whole, out of range or unknown, or no window fits the image.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 7.5.
    """

    def __init__(
        self,
        input_dim: Sequence[int] = (1, 28, 28),
        conv_param: Mapping[str, Any] | None = None,
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float | str = 0.01,
        *,
        backend: Backend | str = "numpy",
        dtype: str = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        channels, *image = whole_numbers("input_dim", tuple(input_dim), 3, least=1)
        conv = {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1}
        if unknown := set(conv_param or {}) - set(conv):
            raise ValueError(f"conv_param has {', '.join(map(repr, sorted(unknown)))}; give {', '.join(conv)}")
        conv |= conv_param or {}
        filters = whole_number("filter_num", conv["filter_num"], least=1)
        kernel = whole_number("filter_size", conv["filter_size"], least=1)
        hidden, outputs = _sizes(hidden_size, output_size)
        size = window(image, kernel, stride=conv["stride"], pad=conv["pad"]).output
        height, width = window(size, 2, stride=2).output
        draw = _Source(backend, dtype, rng, weight_init_std)
        super().__init__(
            {
                "Conv1": Convolution(*draw(filters, channels, kernel, kernel), conv["stride"], conv["pad"]),
                "Relu1": Relu(),
                "Pool1": Pooling(2, 2, stride=2),
                "Affine1": Affine(*draw(filters * height * width, hidden)),
                "Relu2": Relu(),
                "Affine2": Affine(*draw(hidden, outputs)),
            }
        )


class DeepConvNet(Network):
    """The book's deep network: six 3x3 convolutions, a pool after each pair, two affine layers with dropout.

    (conv 16 - relu) x 2 - pool - (conv 32 - relu) x 2 - pool - (conv 64 - relu) x 2 - pool - affine 50 - relu -
    dropout - affine 10 - dropout, with the book's names, shapes and He's initial weights.

    Parameters
    ----------
    input_dim : (int, int, int)
        Channels, height and width of an image.
    hidden_size, output_size : int
        Outputs of the two affine layers.
    dropout_ratio : float
        Probability that an element is dropped in training, at least 0 and below 1.
    backend, dtype
        As in `SimpleConvNet`.
    rng : numpy.random.Generator or int, optional
        Where the weights and then the elements to drop are drawn from, or its seed.

    Raises
    ------
    TypeError, ValueError
        When a number is not whole or out of range, or no window fits the image.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 8.1.
    """

    def __init__(
        self,
        input_dim: Sequence[int] = (1, 28, 28),
        hidden_size: int = 50,
        output_size: int = 10,
        *,
        dropout_ratio: float = 0.5,
        backend: Backend | str = "numpy",
        dtype: str = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        channels, *image = whole_numbers("input_dim", tuple(input_dim), 3, least=1)
        hidden, outputs = _sizes(hidden_size, output_size)
        draw = _Source(backend, dtype, rng, "he")
        layers: list[Layer] = []
        size: tuple[int, ...] = tuple(image)
        for filters, pads in ((16, (1, 1)), (32, (1, 2)), (64, (1, 1))):  # the 2 makes 14 to 16, which halves twice
            for pad in pads:
                layers += [Convolution(*draw(filters, channels, 3, 3), pad=pad), Relu()]
                channels, size = filters, window(size, 3, pad=pad).output
            layers.append(Pooling(2, 2, stride=2))
            size = window(size, 2, stride=2).output
        layers += [Affine(*draw(channels * size[0] * size[1], hidden)), Relu(), Dropout(dropout_ratio, draw.rng)]
        layers += [Affine(*draw(hidden, outputs)), Dropout(dropout_ratio, draw.rng)]
        super().__init__(layers)
