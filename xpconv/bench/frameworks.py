"""Other libraries as contenders: the one place of the benchmark that names them. Each is imported when it competes."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

import xpconv
from xpconv.arrays.libraries import Array, to_numpy
from xpconv.bench.clocks import Call
from xpconv.bench.contenders import (
    BOTH,
    FIRST,
    FORWARD,
    LAST,
    LEARNING_RATE,
    Book,
    Calls,
    Contender,
    inverse,
    laid_out,
    layout_order,
    network_of,
)
from xpconv.bench.layers import NETWORKS, Case
from xpconv.bench.problems import problem
from xpconv.execution.workers import processors
from xpconv.layers import Affine, Convolution, Dropout, Pooling, Relu


class PyTorch(Contender):
    """PyTorch's functions, by itself in inference mode and with `torch.autograd.grad`."""

    name = "PyTorch"
    libraries = ("torch",)
    where: ClassVar[str] = "cpu"

    def tensor(self, array: Array) -> Any:
        """Make a tensor of an array, its axes in memory as they lie there."""
        return importlib.import_module("torch").from_numpy(array)

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Both, for everything."""
        return (LAST, FIRST)

    def make(self, case: Case, layout: str) -> Calls:
        """Return both directions; channels last in memory is what PyTorch itself calls so, also along one axis."""
        torch = importlib.import_module("torch")
        torch.set_num_threads(len(processors()))
        if case.operator in NETWORKS:
            return {BOTH: self._step(case, layout, "float32")}
        given, axes = self.problem(case), len(case.shape) - 2
        arrays, dy = [
            [self.tensor(laid_out(a, layout_order(layout, a.ndim))) for a in part]
            for part in (given.arrays, (given.dy,))
        ]
        for array in arrays:
            array.requires_grad_()
        name = case.operator.replace("global_", "adaptive_")
        function = getattr(torch.nn.functional, f"{name}{axes}d")
        options = {{"kernel": "kernel_size", "pad": "padding"}.get(k, k): v for k, v in case.options.items()}
        function = functools.partial(function, **(options or {"output_size": 1}))

        def forward() -> tuple[Any, ...]:
            with torch.inference_mode():
                return (function(*arrays),)

        def both() -> tuple[Any, ...]:
            y = function(*arrays)
            return (y, *torch.autograd.grad(y, arrays, *dy))

        return {FORWARD: forward, BOTH: both}

    def two_steps(self, case: Case) -> list[list[Array]]:
        """Return what two training steps of a network give in float64: loss and gradients, then the loss.

        Adam makes a whole step of the mere sign of a gradient near zero, so those that follow do not compare.
        """
        step = self._step(case, FIRST, "float64")
        return [self.arrays(step(), FIRST), self.arrays(step()[:1], FIRST)]

    def _step(self, case: Case, layout: str, dtype: str) -> Call:
        """Return a whole training step, with the fused Adam."""
        torch = importlib.import_module("torch")
        form = torch.channels_last if layout == LAST else torch.contiguous_format
        place = {"dtype": getattr(torch, dtype), "memory_format": form, "device": self.where}
        model = torch.nn.Sequential(*torch_modules(torch, network_of(case))).to(**place)
        given = problem(case)
        x, labels = torch.from_numpy(given.arrays[0]).to(**place), torch.from_numpy(given.dy).to(self.where)
        parameters = list(model.parameters())
        optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)

        def step() -> tuple[Any, ...]:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return (loss, *(p.grad.T if p.ndim == 2 else p.grad for p in parameters))

        return step


def torch_modules(torch: Any, network: xpconv.Network) -> list[Any]:
    """Translate a network to PyTorch, layer by layer, weights included."""
    modules: list[Any] = []
    for layer in network.layers.values():
        if isinstance(layer, Convolution):
            filters, channels, *kernel = layer.W.shape
            modules.append(torch.nn.Conv2d(channels, filters, kernel, layer.options["stride"], layer.options["pad"]))
        elif isinstance(layer, Affine):
            modules += [torch.nn.Flatten(), torch.nn.Linear(*layer.W.shape)]
        elif isinstance(layer, Pooling):
            modules.append(torch.nn.MaxPool2d(layer.arguments[0], layer.options["stride"], layer.options["pad"]))
        elif isinstance(layer, Relu):
            modules.append(torch.nn.ReLU())
        elif not isinstance(layer, Dropout):
            raise TypeError(f"{type(layer).__name__} has no translation to PyTorch")
        if isinstance(layer, (Affine, Convolution)):
            with torch.no_grad():
                modules[-1].weight.copy_(torch.from_numpy(layer.W.T if isinstance(layer, Affine) else layer.W))
                modules[-1].bias.copy_(torch.from_numpy(layer.b))
    return modules


class Jax(Contender):
    """JAX, each direction compiled by `jax.jit`; its layouts are those of the arrays' axes."""

    name = "JAX"
    libraries = ("jax",)

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Both, for every operator."""
        return () if case.operator in NETWORKS else (LAST, FIRST)

    def make(self, case: Case, layout: str) -> Calls:
        """Return both directions, compiled at their first call."""
        jax = importlib.import_module("jax")
        given, axes = problem(case), len(case.shape) - 2
        orders = self._orders(layout, axes)
        *arrays, dy = [
            jax.numpy.asarray(a.transpose(order) if a.ndim > 1 else a)
            for a, order in zip((*given.arrays, given.dy), (*orders[: len(given.arrays)], orders[0]), strict=True)
        ]
        letters, steps, pads = "DHW"[-axes:], [case.stride] * axes, [(case.pad, case.pad)] * axes
        names = ["".join(("NC" + letters)[i] for i in orders[0]), "".join(("OI" + letters)[i] for i in orders[1])]
        taps = case.window.kernel

        def convolve(x: Any, weight: Any, *biases: Any) -> Any:
            y = jax.lax.conv_general_dilated(
                x, weight, steps, pads, dimension_numbers=(*names, names[0]), feature_group_count=case.groups
            )
            return sum((b if layout == LAST else b.reshape(-1, *(1,) * axes) for b in biases), y)

        def pool(x: Any) -> Any:
            largest = case.operator in ("max_pool", "global_max_pool")
            if not case.kernel:
                places = tuple(i for i, axis in enumerate(orders[0]) if axis > 1)
                return (x.max if largest else x.mean)(axis=places, keepdims=True)

            def spread(inner: Sequence[Any], outer: Any) -> list[Any]:
                return [[outer, outer, *inner][i] for i in orders[0]]

            start, reduce = (-np.inf, jax.lax.max) if largest else (0.0, jax.lax.add)
            y = jax.lax.reduce_window(x, start, reduce, spread(taps, 1), spread(steps, 1), spread(pads, (0, 0)))
            return y if largest else y / np.prod(taps)

        function = convolve if case.operator == "conv" else pool

        def with_gradients(dy: Any, *arrays: Any) -> tuple[Any, ...]:
            y, pullback = jax.vjp(function, *arrays)
            return (y, *pullback(dy))

        forward, both = jax.jit(function), jax.jit(with_gradients)
        return {
            FORWARD: lambda: (forward(*arrays).block_until_ready(),),
            BOTH: lambda: jax.block_until_ready(both(dy, *arrays)),
        }

    def arrays(self, outputs: Sequence[Any], layout: str) -> list[Array]:
        """Bring outputs to the host, with their axes in the order that all others have."""
        orders = self._orders(layout, outputs[0].ndim - 2)
        orders = [orders[0], *orders]  # of y, and of the gradients
        hosts = [to_numpy(array) for array in outputs]
        return [a.transpose(inverse(o)) if a.ndim > 1 else a for a, o in zip(hosts, orders, strict=False)]

    def _orders(self, layout: str, axes: int) -> list[tuple[int, ...]]:
        """Orders of the axes of x, weight and bias."""
        weight = (*range(2, axes + 2), 1, 0) if layout == LAST else tuple(range(axes + 2))
        return [layout_order(layout, axes + 2), weight, (0,)]


class OnnxRuntime(Contender):
    """onnxruntime on a graph of one node, whose weights it lays out for itself; forward alone."""

    name = "onnxruntime"
    libraries = ("onnxruntime", "onnx")

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Channels first is all it has."""
        return () if case.operator in NETWORKS else (FIRST,)

    def make(self, case: Case, layout: str) -> Calls:
        """Return the forward direction."""
        onnxruntime, onnx = (importlib.import_module(name) for name in self.libraries)
        x, *weights = problem(case).arrays
        axes, names = len(case.shape) - 2, ["x", "weight", "bias"]
        kind = {"conv": "Conv", "max_pool": "MaxPool", "avg_pool": "AveragePool"}.get(case.operator)
        kind = kind or {"global_max_pool": "GlobalMaxPool", "global_avg_pool": "GlobalAveragePool"}[case.operator]
        options: dict[str, Any] = {}
        if case.kernel:
            options = {"kernel_shape": case.kernel, "strides": [case.stride] * axes, "pads": [case.pad] * 2 * axes}
        options |= {"Conv": {"group": case.groups}, "AveragePool": {"count_include_pad": 1}}.get(kind, {})
        floats = onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node(kind, names[: 1 + len(weights)], ["y"], **options)],
            "layer",
            [onnx.helper.make_tensor_value_info("x", floats, case.shape)],
            [onnx.helper.make_tensor_value_info("y", floats, None)],
            [onnx.numpy_helper.from_array(a, name) for a, name in zip(weights, names[1:], strict=False)],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = len(processors())
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        return {FORWARD: lambda: tuple(session.run(None, {"x": x}))}


AGAINST: dict[str, type[Contender]] = {"pytorch": PyTorch, "jax": Jax, "onnxruntime": OnnxRuntime, "book": Book}
