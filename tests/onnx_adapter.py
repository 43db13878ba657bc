"""ONNX nodes, carried out by the library: attributes on one side, options on the other.

Only what the two say differently is here. ONNX strides are 1 where none are given; its pads list all the befores and
then all the afters; its indices count through the batch and the channels too; its optimizers are given their state.
"""

import math

from array_api_compat import array_namespace, device

import xpconv
from xpconv.optimizers import AdaGrad, Adam, Momentum, Nesterov
from xpconv.windows.transposition import transposed_window

# The inputs that say how, not what: they are read on the host.
ON_THE_HOST = {
    "Col2Im": (1, 2),
    "Pad": (1, 2, 3),
    "MaxUnpool": (2,),
    "Momentum": (0, 1),
    "Adam": (0, 1),
    "Adagrad": (0, 1),
}


def evaluate(graph, arrays, hosts):
    """The graph's outputs. arrays: every input, by name, on a backend; hosts: the same on the host."""
    import onnx

    named = dict(arrays)
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
        of_host = ON_THE_HOST.get(node.op_type, ())
        inputs = [(hosts if i in of_host else named)[name] if name else None for i, name in enumerate(node.input)]
        outputs = NODES[node.op_type](attributes, len(node.output), *inputs)
        named.update(zip(node.output, outputs if isinstance(outputs, tuple) else (outputs,), strict=False))
    return [named[output.name] for output in graph.output]


# --- Windows


def window(a, size, kernel):
    """stride, pad and dilation."""
    axes = len(size)
    stride, dilation = a.get("strides", [1] * axes), a.get("dilations", [1] * axes)
    flat, auto = a.get("pads", [0] * (2 * axes)), a.get("auto_pad", "NOTSET")
    pad = {"SAME_UPPER": "same", "VALID": "valid"}.get(auto) or tuple(zip(flat[:axes], flat[axes:], strict=True))
    if auto == "SAME_LOWER":  # the odd element goes to the beginning
        extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        missing = [max(0, (math.ceil(n / s) - 1) * s + e - n) for n, s, e in zip(size, stride, extents, strict=True)]
        pad = tuple((m - m // 2, m // 2) for m in missing)
    return {"stride": tuple(stride), "pad": pad, "dilation": tuple(dilation)}


def conv(a, outputs, x, weight, bias=None):
    return xpconv.conv(x, weight, bias, groups=a.get("group", 1), **window(a, x.shape[2:], weight.shape[2:]))


def conv_transpose(a, outputs, x, weight, bias=None):
    size, kernel = x.shape[2:], weight.shape[2:]
    options = window(a, size, kernel)
    extra = a.get("output_padding", [0] * len(size))
    if "output_shape" in a:  # says what the pads are
        touched = [
            (n - 1) * s + (k - 1) * d + 1 + e
            for n, k, s, d, e in zip(size, kernel, options["stride"], options["dilation"], extra, strict=True)
        ]
        surplus = [t - wanted for t, wanted in zip(touched, a["output_shape"], strict=True)]
        # A negative pad adds to the end: the elements behind the last window.
        extra = [e + max(0, -t) for e, t in zip(extra, surplus, strict=True)]
        options["pad"] = tuple((max(0, t) // 2, max(0, t) - max(0, t) // 2) for t in surplus)
    return xpconv.conv_transpose(x, weight, bias, output_pad=tuple(extra), groups=a.get("group", 1), **options)


def pooling(a, x):
    kernel = tuple(a["kernel_shape"])
    return {"kernel": kernel, "ceil_mode": bool(a.get("ceil_mode", 0)), **window(a, x.shape[2:], kernel)}


def max_pool(a, outputs, x):
    if outputs == 1:
        return xpconv.max_pool(x, **pooling(a, x))
    y, indices = xpconv.max_pool(x, return_indices=True, **pooling(a, x))
    if a.get("storage_order"):  # columns first
        height, width = x.shape[2:]
        indices = indices % width * height + indices // width
    return y, indices + planes(indices, x.shape)


def planes(indices, shape):
    """Where each channel of each image starts, counting through the whole array."""
    xp = array_namespace(indices)
    numbers = xp.arange(shape[0] * shape[1], dtype=indices.dtype, device=device(indices))
    return xp.reshape(numbers * math.prod(shape[2:]), (*shape[:2], *(1 for _ in shape[2:])))


def avg_pool(a, outputs, x):
    return xpconv.avg_pool(x, count_include_pad=bool(a.get("count_include_pad", 0)), **pooling(a, x))


def lp_pool(a, outputs, x):
    return xpconv.lp_pool(x, p=a.get("p", 2), **pooling(a, x))


def max_unpool(a, outputs, x, indices, output_shape=None):
    options = window(a, x.shape[2:], a["kernel_shape"])
    window_ = {"kernel": tuple(a["kernel_shape"]), "stride": options["stride"], "pad": options["pad"]}
    touched = transposed_window(x.shape[2:], **window_).size
    y = xpconv.max_unpool(x, indices - planes(indices, (*x.shape[:2], *touched)), **window_)
    if output_shape is not None:  # the indices are those of the smallest result; what is more stands behind it
        y = xpconv.pad(y, tuple((0, int(n) - m) for n, m in zip(output_shape[2:], y.shape[2:], strict=True)))
    return y


def col2im(a, outputs, col, image_shape, block_shape):
    size, kernel = tuple(map(int, image_shape)), tuple(map(int, block_shape))
    return xpconv.fold(col, size, kernel, **window(a, size, kernel))


def pad(a, outputs, x, pads=None, value=None, axes=None):
    pads = [int(p) for p in (a["pads"] if pads is None else pads)]
    axes = [int(i) % x.ndim for i in (range(x.ndim) if axes is None else axes)]
    pairs = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        pairs[axis] = (pads[i], pads[i + len(axes)])
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[a["mode"]]
    options = {"value": float(a.get("value", 0) if value is None else value)} if mode == "constant" else {}
    xp = array_namespace(x)
    x = xp.expand_dims(xp.expand_dims(x, axis=0), axis=0)  # ours leaves the first two axes alone
    return xp.squeeze(xpconv.pad(x, tuple(pairs), mode=mode, **options), axis=(0, 1))


# --- Norms and losses


def batch_norm(a, outputs, x, gamma, beta, mean, var):
    eps = a.get("epsilon", 1e-5)
    if not a.get("training_mode", 0):
        return xpconv.batch_norm(x, gamma, beta, mean, var, eps=eps)
    keep = a.get("momentum", 0.9)
    y, of_x, var_of_x = xpconv.batch_norm(x, gamma, beta, eps=eps, return_statistics=True)
    return y, keep * mean + (1 - keep) * of_x, keep * var + (1 - keep) * var_of_x


def instance_norm(a, outputs, x, gamma, beta):
    return xpconv.instance_norm(x, gamma, beta, eps=a.get("epsilon", 1e-5))


def group_norm(a, outputs, x, gamma, beta):
    return xpconv.group_norm(x, gamma, beta, groups=a["num_groups"], eps=a.get("epsilon", 1e-5))


def local_response_norm(a, outputs, x):
    assert a["size"] % 2, "of an even number of channels, ONNX has the odd one after the element, PyTorch and we before"
    options = {"alpha": a.get("alpha", 1e-4), "beta": a.get("beta", 0.75), "k": a.get("bias", 1.0)}
    return xpconv.local_response_norm(x, a["size"], **options)


def losses(a):
    return {"reduction": a.get("reduction", "mean"), "ignore_index": a.get("ignore_index")}


def softmax_cross_entropy(a, outputs, scores, labels, weight=None):
    loss = xpconv.softmax_cross_entropy(scores, labels, weight, **losses(a))
    return (loss, xpconv.log_softmax(scores, axis=1))[:outputs]


def nll_loss(a, outputs, x, t, weight=None):
    return xpconv.nll_loss(x, t, weight, **losses(a))


# --- Optimizers: (R, T, then every X, every G, and of each thing that is remembered all of them)


def optimize(a, make, remembered, x, g, state, back):
    """New parameters and new states, each parameter by an optimizer of its own."""
    new = []
    for i in range(len(x)):
        optimizer = make()
        optimizer.state["p"] = state(*(s[i] for s in remembered))
        params = {"p": x[i]}
        optimizer.update(params, {"p": g[i] + a["norm_coefficient"] * x[i]})
        new.append((params["p"], *back(optimizer.state["p"])))
    return tuple(value for group in zip(*new, strict=True) for value in group)


def grouped(arrays, groups):
    count = len(arrays) // groups
    return [arrays[i * count : (i + 1) * count] for i in range(groups)]


def momentum(a, outputs, rate, time, *arrays):
    rate, beta = float(rate), a["beta"] if time > 0 else 1.0
    assert beta == 1, "ONNX scales the gradient by beta from the second step on, which is a learning rate of its own"
    kind = {"standard": Momentum, "nesterov": Nesterov}[a["mode"]]
    x, g, v = grouped(arrays, 3)
    # Ours has the learning rate inside the velocity, and the sign of a step.
    return optimize(a, lambda: kind(rate, a["alpha"]), [v], x, g, lambda v: -rate * v, lambda v: (v / -rate,))


def adam(a, outputs, rate, time, *arrays):
    x, g, v, h = grouped(arrays, 4)
    step, beta1, beta2 = max(int(time), 1), a["alpha"], a["beta"]
    root = math.sqrt(1 - beta2**step)
    # ONNX adds epsilon after the correction of h, and corrects nothing at time 0.
    rate = float(rate) * (1 if time > 0 else (1 - beta1) / root)
    optimizer = lambda: Adam(rate, beta1, beta2, eps=a["epsilon"] / root)  # noqa: E731
    return optimize(a, optimizer, [v, h], x, g, lambda v, h: (step - 1, v, h), lambda state: state[1:])


def adagrad(a, outputs, rate, time, *arrays):
    x, g, h = grouped(arrays, 3)
    rate = float(rate) / (1 + int(time) * a["decay_factor"])
    return optimize(a, lambda: AdaGrad(rate, eps=a["epsilon"]), [h], x, g, lambda h: h, lambda h: (h,))


NODES = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": avg_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": lambda a, outputs, x: xpconv.global_avg_pool(x),
    "GlobalMaxPool": lambda a, outputs, x: xpconv.global_max_pool(x),
    "MaxUnpool": max_unpool,
    "Col2Im": col2im,
    "Pad": pad,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LRN": local_response_norm,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
    "NegativeLogLikelihoodLoss": nll_loss,
    "Momentum": momentum,
    "Adam": adam,
    "Adagrad": adagrad,
    # around the one-dimensional average pools that PyTorch made two-dimensional
    "Unsqueeze": lambda a, outputs, x: array_namespace(x).expand_dims(x, axis=a["axes"][0]),
    "Squeeze": lambda a, outputs, x: array_namespace(x).squeeze(x, axis=a["axes"][0]),
}
