"""Networks: layers in a row, with a loss after the last, and their parameters by the book's names."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import array_api_compat

from xpconv.arrays.arguments import namespace
from xpconv.arrays.libraries import Array, to_numpy
from xpconv.layers import Layer, Loss, SoftmaxWithLoss
from xpconv.layers.parameters import LayerArrays
from xpconv.networks.weights import check_fit, load_weights, placed, save_weights
from xpconv.windows import whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpconv.networks.weights import Names


class Network:
    """Layers in a row, and a loss after the last.

    Parameters
    ----------
    layers : mapping of str to Layer, or sequence of Layer
        In order. Without names they are called after their class: Convolution1, Relu1, Convolution2, ...
    last_layer : Loss, optional
        `SoftmaxWithLoss` if not given.

    Attributes
    ----------
    layers : dict of str to Layer
    params : LayerArrays
        The trained arrays by the book's names: W1, b1, W2, ... Setting one sets it in its layer.
    state : LayerArrays
        All that a trained network is: `params`, and what else its layers have learned (running_mean1, ...).

    Raises
    ------
    TypeError, ValueError
        When there are no layers, one is no `Layer`, or one appears twice.
    """

    def __init__(self, layers: Mapping[str, Layer] | Sequence[Layer], last_layer: Loss | None = None) -> None:
        self.layers = dict(layers) if isinstance(layers, Mapping) else _named(layers)
        if not self.layers:
            raise ValueError("layers is empty; give at least one")
        for name, layer in self.layers.items():
            if not isinstance(layer, Layer):
                raise TypeError(f"layer {name!r} is a {type(layer).__name__}; give an xpconv.Layer")
        if len({id(layer) for layer in self.layers.values()}) < len(self.layers):
            raise ValueError("a layer appears twice, and keeps what backward needs of one input only; give another one")
        self.last_layer: Loss = SoftmaxWithLoss() if last_layer is None else last_layer
        self.params = LayerArrays(self.layers.values())
        self.state = LayerArrays(self.layers.values(), ("parameters", "buffers"))

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Return the scores of x, and keep nothing for `backward`."""
        for layer in self.layers.values():
            x, _ = layer.apply(x, train_flg)
        return x

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return the scores of x, and keep in each layer what `backward` needs."""
        for layer in self.layers.values():
            x = layer.forward(x, train_flg)
        return x

    def backward(self, dout: Array, *, input_gradient: bool = True) -> Array:
        """Return the gradient of x from that of the scores, and leave those of the parameters in their layers.

        Parameters
        ----------
        dout : array
            Gradient of the scores.
        input_gradient : bool
            Whether that of x is wanted, which costs much after large images; None is returned without it.

        Raises
        ------
        ValueError
            When `forward` was not called before.
        """
        ((_, dx),) = deque(self._backward(dout, input_gradient), maxlen=1)
        return dx

    def loss(self, x: Array, t: Array, train_flg: bool = False) -> Array:
        """Return the loss of x against what its scores should say, as an array of one number."""
        return self.last_layer.forward(self.forward(x, train_flg), t)

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of the loss in training, by the names of `params`.

        The loss itself is then in ``last_layer.loss``, so that nothing need be computed twice.
        """
        found = {name: gradient for part in self.gradients(x, t) for name, gradient in part.items()}
        return {name: found[name] for name in self.params}

    def gradients(self, x: Array, t: Array, dloss: float = 1) -> Iterator[dict[str, Array]]:
        """Yield what `gradient` returns, each layer's as soon as it is there, from the last layer on.

        They are those of `dloss` times the loss, and zeros where there are no samples, which have no loss.
        """
        dscores = scores = self.forward(x)
        if x.shape[0]:
            self.last_layer.forward(scores, t)
            dscores = self.last_layer.backward(dloss)
        places = [(name, *self.params.place(name)) for name in self.params]
        for layer, _ in self._backward(dscores, input_gradient=False):
            yield {name: getattr(layer, f"d{attribute}") for name, owner, attribute in places if owner is layer}

    def _backward(self, dout: Array, input_gradient: bool) -> Iterator[tuple[Layer, Array]]:
        """Yield the layers, from the last on, each when its backward is done, with the gradient of its input."""
        first, *others = self.layers.values()
        for layer in reversed(others):
            dout = layer.backward(dout)
            yield layer, dout
        yield first, first.backward(dout, input_gradient=input_gradient)

    def classify(self, x: Array, batch_size: int = 100) -> Array:
        """Return the class with the largest score for each sample of x, shape (N, ...), `batch_size` of them at a time.

        Raises
        ------
        TypeError, ValueError
            When `batch_size` is no whole number of at least 1, or there are no samples.
        """
        xp, step = namespace(x=x), whole_number("batch_size", batch_size, least=1)
        if x.shape[0] == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}; give at least one sample")
        parts = (x[start : min(start + step, x.shape[0]), ...] for start in range(0, x.shape[0], step))
        return xp.concat([xp.argmax(self.predict(part), axis=1) for part in parts], axis=0)

    def accuracy(self, x: Array, t: Array, batch_size: int = 100) -> float:
        """Return the share of samples whose largest score is that of their class.

        Parameters
        ----------
        x : array, shape (N, ...)
        t : array, shape (N,) or (N, K)
            Labels, or rows whose largest entry is that of the class.
        batch_size : int
            Samples to predict at a time; all are counted, whether or not it divides their number.

        Raises
        ------
        TypeError, ValueError
            As in `classify`, or when there are not as many labels.
        """
        xp = namespace(x=x, t=t)
        if t.ndim not in (1, 2) or t.shape[0] != x.shape[0]:
            raise ValueError(
                f"x has shape {tuple(x.shape)} and t {tuple(t.shape)}; give t as (N,) labels or (N, K) rows"
            )
        labels = xp.argmax(t, axis=1) if t.ndim == 2 else t
        right = xp.count_nonzero(self.classify(x, batch_size) == labels)
        return int(right) / int(x.shape[0])

    @contextlib.contextmanager
    def holding(self, arrays: Mapping[str, Array]) -> Iterator[None]:
        """Have other arrays, by the names of `state`, instead of its own, as long as a with statement lasts.

        Those of another dtype are rounded to that of its own.
        """
        own = {name: self.state[name] for name in arrays}
        try:
            for name, array in arrays.items():
                xp = array_api_compat.array_namespace(array)
                self.state[name] = xp.astype(array, own[name].dtype, copy=False)
            yield
        finally:
            for name, array in own.items():
                self.state[name] = array

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write `state` to a safetensors file, whole or not at all, with notes on where it comes from."""
        notes = {"network": type(self).__name__, **(metadata or {})}
        save_weights(path, {name: to_numpy(array) for name, array in self.state.items()}, notes)

    def load(self, path: str | os.PathLike[str], names: Names | None = None) -> None:
        """Read `state` from a safetensors file, to the library, device and dtype that it has now.

        Parameters
        ----------
        path : path
        names : mapping or callable, optional
            For a file that was made elsewhere: from each name in it to a name in `state`, to a pair of that and a
            function that lays the array out anew, or to None to leave it out. A dict must have every name in the file;
            its ``.get`` leaves out what it has not.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        TypeError
            When `names` leads to something else.
        ValueError
            When the file is damaged, or its names, shapes and kinds of numbers are not those of `state`: the message
            lists all that do not fit, and nothing has changed.

        Notes
        -----
        A PyTorch module's convolutions and normalizations have the layouts of ours. A Linear's weight, (M, D), is the
        transpose of ours, and where M is D no shape shows it; D after a flattening is in the order (C, H, W) in both::

            network.load("model.safetensors", names={
                "conv1.weight": "W1",
                "bn1.weight": "gamma1", "bn1.bias": "beta1",
                "bn1.running_mean": "running_mean1", "bn1.running_var": "running_var1", "bn1.num_batches_tracked": None,
                "prelu1.weight": "slope1",
                "fc1.weight": ("W2", np.transpose), "fc1.bias": "b2",
            })
        """
        given, own = load_weights(path), self.state
        given, problems = (given, []) if names is None else placed(given, names)
        problems += [
            f"dtype of {name!r}: {array.dtype} given, a floating one wanted"
            for name, array in given.items()
            if array.dtype.kind != "f"
        ]
        check_fit(
            {name: array.shape for name, array in given.items()},
            {name: tuple(array.shape) for name, array in own.items()},
            problems,
        )
        moved = {name: beside(own[name], array, own[name].dtype) for name, array in given.items()}
        for name, array in moved.items():
            own[name] = array


def beside(like: Array, host: NDArray[Any], dtype: Any = None) -> Array:
    """Copy a host array to the library and device of another array, in a dtype of that library or its own."""
    xp = array_api_compat.array_namespace(like)
    return xp.asarray(host, dtype=dtype, device=array_api_compat.device(like), copy=True)


def _named(layers: Sequence[Layer]) -> dict[str, Layer]:
    seen: Counter[str] = Counter()
    named = {}
    for layer in layers:
        kind = type(layer).__name__
        seen[kind] += 1
        named[f"{kind}{seen[kind]}"] = layer
    return named
