"""Stand-ins for libraries that need not be installed: what the benchmark asks of each, computed from the definition.

They take the arguments that the libraries document and no others, so that a wrong name, order or layout shows as it
would there; what is installed is put to the same tests.
"""

import contextlib
import math
import time
import types

import numpy as np
import pytest
import reference as ref


class Tensor(np.ndarray):
    """PyTorch's array, as far as functions of one node go."""

    def requires_grad_(self):
        self.leaf = True
        return self

    def contiguous(self):
        return np.asarray(self, order="C").view(Tensor)

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.view(np.ndarray)

    def copy_(self, other):
        assert self.shape == other.shape
        self[...] = other


def torch():
    """Functions of one node and their gradients, and the layers of a network, forward."""

    def convolution(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        options = {"stride": stride, "pad": padding, "dilation": dilation, "groups": groups}
        given = 2 if bias is None else 3
        return node(
            ref.conv(x, weight, bias, **options), lambda dy: ref.conv_gradients(dy, x, weight, **options)[:given]
        )

    def max_pool(x, kernel_size, stride=None, padding=0):
        y, indices = ref.max_pool(x, kernel_size, stride, padding)
        return node(y, lambda dy: [ref.max_pool_gradient(dy, indices, x.shape[2:])])

    def avg_pool(x, kernel_size, stride=None, padding=0):
        options = {"kernel": kernel_size, "stride": stride, "pad": padding}
        y = ref.avg_pool(x, **options)
        return node(y, lambda dy: [ref.avg_pool_gradient(dy, x.shape[2:], **options)])

    def adaptive_max_pool(x, output_size):
        y, indices = ref.adaptive_max_pool(x, output_size)
        return node(y, lambda dy: [ref.max_pool_gradient(dy, indices, x.shape[2:])])

    def adaptive_avg_pool(x, output_size):
        y = ref.adaptive_avg_pool(x, output_size)
        return node(y, lambda dy: [ref.adaptive_avg_pool_gradient(dy, x.shape[2:])])

    def node(y, backward):
        y = y.astype(np.float32).view(Tensor)
        y.backward = backward
        return y

    def gradients(y, arrays, dy):
        found = y.backward(dy)
        assert len(found) == len(arrays)
        assert all(array.leaf for array in arrays)
        return tuple(gradient.astype(np.float32).view(Tensor) for gradient in found)

    operators = {
        "conv": convolution,
        "max_pool": max_pool,
        "avg_pool": avg_pool,
        "adaptive_max_pool": adaptive_max_pool,
        "adaptive_avg_pool": adaptive_avg_pool,
    }
    functional = {f"{name}{axes}d": function for name, function in operators.items() for axes in (1, 2, 3)}

    class Weighted:
        """A layer's weights, of these shapes."""

        def __init__(self, weight, count):
            self.weight, self.bias = np.zeros(weight).view(Tensor), np.zeros(count).view(Tensor)

    class Conv2d(Weighted):
        def __init__(self, in_channels, out_channels, kernel_size, stride, padding):
            super().__init__((out_channels, in_channels, *kernel_size), out_channels)
            self.options = stride, padding

        def __call__(self, x):
            return convolution(x, self.weight, self.bias, *self.options)

    class Linear(Weighted):
        def __init__(self, in_features, out_features):
            super().__init__((out_features, in_features), out_features)

        def __call__(self, x):
            return x @ self.weight.T + self.bias

    nn = types.SimpleNamespace(
        functional=types.SimpleNamespace(**functional),
        Conv2d=Conv2d,
        Linear=Linear,
        Flatten=lambda: lambda x: x.reshape(len(x), -1),
        MaxPool2d=lambda *window: lambda x: max_pool(x, *window),
        ReLU=lambda: lambda x: np.maximum(x, 0),
    )

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            self.recorded = time.perf_counter() * 1e3
            timeline.append("event")

        def synchronize(self):
            assert self.recorded

        def query(self):
            return False

        def elapsed_time(self, other):
            return other.recorded - self.recorded

    def release():
        cuda.released += 1

    timeline = []
    switches = {name: types.SimpleNamespace(allow_tf32=True) for name in ("cudnn", "matmul")}
    switches["cudnn"].version = lambda: 0
    backends = types.SimpleNamespace(cudnn=switches["cudnn"], cuda=types.SimpleNamespace(matmul=switches["matmul"]))
    cuda = types.SimpleNamespace(
        Event=Event,
        _sleep=lambda cycles: timeline.append(("spin", cycles)),
        synchronize=lambda: timeline.append("synchronize"),
        timeline=timeline,
        empty_cache=release,
        released=0,
        is_available=lambda: True,
        memory_allocated=lambda: 100,
        max_memory_allocated=lambda: 1100,
        reset_peak_memory_stats=lambda: None,
    )
    return types.SimpleNamespace(
        Tensor=Tensor,
        backends=backends,
        cuda=cuda,
        autograd=types.SimpleNamespace(grad=gradients),
        from_dlpack=lambda array: array._host.view(Tensor),  # of the stand-in for CuPy
        from_numpy=lambda array: array.view(Tensor),
        inference_mode=contextlib.nullcontext,
        nn=nn,
        no_grad=contextlib.nullcontext,
        set_num_threads=lambda count: None,
    )


class JaxArray(np.ndarray):
    """JAX's array, which is waited for."""

    def block_until_ready(self):
        return self


def jax():
    """Convolution and windows over axes in any order, and gradients by central differences; all of it in float32."""

    def windows(x, taps, steps, pads, fill=0):
        padded = np.pad(x, pads, constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(padded, taps)[tuple(slice(None, None, step) for step in steps)]

    def convolution(x, weight, steps, pads, *, dimension_numbers, feature_group_count):
        *orders, out = dimension_numbers
        letters = [letter for letter in "DHW" if letter in out]
        x, weight = (
            array.transpose([order.index(letter) for letter in (*two, *letters)])
            for array, order, two in zip((x, weight), orders, ("NC", "OI"), strict=True)
        )
        groups, taps = feature_group_count, weight.shape[2:]
        patches = windows(x, (1, 1, *taps), (1, 1, *steps), [(0, 0), (0, 0), *pads])  # (N, C, *output, 1, 1, *taps)
        output = patches.shape[2 : 2 + len(taps)]
        patches = patches.reshape(len(x), groups, weight.shape[1], math.prod(output), -1)
        filters = weight.reshape(groups, -1, weight.shape[1], math.prod(taps))
        y = np.einsum("ngcpt,goct->ngop", patches, filters).reshape(len(x), len(weight), *output)
        return y.transpose([("N", "C", *letters).index(letter) for letter in out])

    def reduce_window(x, start, reduce, taps, steps, pads):
        return reduce(windows(x, taps, steps, pads, start), axis=tuple(range(x.ndim, 2 * x.ndim)))

    def vjp(function, *arrays):
        wide = [array.astype(np.float64) for array in arrays]

        def at_a_step(which, at, step):
            moved = [array.copy() for array in wide]
            moved[which][at] += step
            return function(*moved)

        def gradient(which, dy):
            slopes = np.empty_like(wide[which])
            for at in np.ndindex(slopes.shape):
                rise = at_a_step(which, at, 1e-5) - at_a_step(which, at, -1e-5)
                slopes[at] = np.sum(dy * rise) / 2e-5
            return slopes

        return function(*arrays), lambda dy: tuple(gradient(which, dy) for which in range(len(arrays)))

    def narrow(array):
        return np.asarray(array, np.float32).view(JaxArray)

    def jit(function):
        def run(*arrays):
            y = function(*arrays)
            return tuple(map(narrow, y)) if isinstance(y, tuple) else narrow(y)

        return run

    lax = {"add": np.sum, "conv_general_dilated": convolution, "max": np.max, "reduce_window": reduce_window}
    return types.SimpleNamespace(
        Array=JaxArray,
        block_until_ready=lambda arrays: arrays,
        jit=jit,
        lax=types.SimpleNamespace(**lax),
        numpy=types.SimpleNamespace(asarray=narrow),
        vjp=vjp,
    )


def onnxruntime():
    """onnx's own evaluator, which is written for nothing but to say what a graph means."""
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    return types.SimpleNamespace(
        InferenceSession=lambda model, settings, *, providers: evaluator(model),
        SessionOptions=types.SimpleNamespace,
    )
