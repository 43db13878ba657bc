"""What the operators without windows mean: padding, resampling, normalization, affine, activations, losses.

The second half of the oracle, under the same rules as the first: NumPy only, nothing of the library, and
written to be right at a glance.
"""

import math

import numpy as np
from reference import each, pairs


def numerical_gradient(f, x, dy=1.0, eps=1e-6):
    """The gradient of sum(f(x) * dy) by central differences, one element of x at a time."""
    dx = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[at] = eps
        dx[at] = np.sum((f(x + step) - f(x - step)) * dy) / (2 * eps)
    return dx


# --- Padding and resampling, one axis after the other


def source(i, n, mode):
    """Which of an axis's n elements stands at place i, where the padding before them has negative places."""
    if mode == "zeros":
        return i if 0 <= i < n else None
    if mode == "reflect":  # to the last element and back again; the edge is not repeated
        there_and_back = 2 * (n - 1)
        return min(i % there_and_back, -i % there_and_back)
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    if mode == "circular":
        return i % n
    raise ValueError(mode)


def padding(x, pad, mode="zeros"):
    for axis, (before, after) in enumerate(pairs(pad, x.shape[2:]), start=2):
        n = x.shape[axis]
        found = [source(i, n, mode) for i in range(-before, n + after)]
        blank = np.zeros_like(x.take(0, axis))
        x = np.stack([blank if i is None else x.take(i, axis) for i in found], axis)
    return x


def interpolate(x, output_size, mode="nearest"):
    """nearest, or linear along each axis between the centres of the elements (align_corners=False)."""
    assert mode in ("nearest", "linear"), mode
    for axis, m in enumerate(each(output_size, x.ndim - 2), start=2):
        n, found = x.shape[axis], []
        for i in range(m):
            if mode == "nearest":
                found.append(x.take(i * n // m, axis))
                continue
            centre = min(max((i + 0.5) * n / m - 0.5, 0), n - 1)  # of element i, on x's own scale
            left = math.floor(centre)
            share, right = centre - left, min(left + 1, n - 1)
            found.append((1 - share) * x.take(left, axis) + share * x.take(right, axis))
        x = np.stack(found, axis)
    return x


# --- Normalization


def standardize(x, eps):
    """All elements of x to mean 0 and (biased) variance 1."""
    return (x - x.mean()) / math.sqrt(x.var() + eps)


def scale_and_shift(y, weight, bias):
    """One weight and one bias for each channel."""
    shape = (1, -1, *[1] * (y.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def batch_norm(x, weight=None, bias=None, eps=1e-5):
    """Training: each channel by its own statistics over the batch and all positions."""
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        y[:, c] = standardize(x[:, c], eps)
    return scale_and_shift(y, weight, bias)


def batch_norm_gradients(dy, x, weight=None, eps=1e-5):
    """dx, dweight, dbias of batch_norm in training."""
    channels = x.shape[1]
    weight = np.ones(channels) if weight is None else weight
    dx, dweight, dbias = np.zeros_like(x), np.zeros(channels), np.zeros(channels)
    for c in range(channels):
        normal = standardize(x[:, c], eps)
        dweight[c] = (dy[:, c] * normal).sum()
        dbias[c] = dy[:, c].sum()
        # The mean and the variance move with every x: take out what they absorb.
        free = dy[:, c] - dy[:, c].mean() - normal * (dy[:, c] * normal).mean()
        dx[:, c] = weight[c] * free / math.sqrt(x[:, c].var() + eps)
    return dx, dweight, dbias


def batch_norm_statistics(x):
    """mean, biased variance (it normalizes), unbiased variance (running averages keep it) of each channel."""
    channels = [x[:, c] for c in range(x.shape[1])]
    mean = np.array([c.mean() for c in channels])
    return mean, np.array([c.var() for c in channels]), np.array([c.var(ddof=1) for c in channels])


def batch_norm_inference(x, mean, var, weight=None, bias=None, eps=1e-5):
    """Each channel by statistics kept from training."""
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        y[:, c] = (x[:, c] - mean[c]) / math.sqrt(var[c] + eps)
    return scale_and_shift(y, weight, bias)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Each element of the leading axes by itself; weight and bias have the shape that is normalized."""
    leading = x.shape[: x.ndim - len(normalized_shape)]
    y = np.zeros_like(x)
    for at in np.ndindex(leading):
        y[at] = standardize(x[at], eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    """Each image, each group of neighbouring channels."""
    width = x.shape[1] // groups
    y = np.zeros_like(x)
    for n, g in np.ndindex(len(x), groups):
        group = slice(g * width, (g + 1) * width)
        y[n, group] = standardize(x[n, group], eps)
    return scale_and_shift(y, weight, bias)


def instance_norm(x, weight=None, bias=None, eps=1e-5):
    """Each image, each channel."""
    return group_norm(x, x.shape[1], weight, bias, eps)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """x / (k + alpha * mean of squares over `size` channels around) ** beta, zeros for channels outside."""
    y = np.zeros_like(x)
    channels = x.shape[1]
    for c in range(channels):
        first = c - size // 2
        near = [i for i in range(first, first + size) if 0 <= i < channels]
        y[:, c] = x[:, c] / (k + alpha * (x[:, near] ** 2).sum(axis=1) / size) ** beta
    return y


# --- Affine, activations and losses


def affine(x, weight, bias=None):
    """x: (N, ...), flattened; weight: (D, O)."""
    y = x.reshape(len(x), -1) @ weight
    return y if bias is None else y + bias


def affine_gradients(dy, x, weight):
    """dx, dweight, dbias"""
    return (dy @ weight.T.conj()).reshape(x.shape), x.reshape(len(x), -1).T.conj() @ dy, dy.sum(axis=0)


def relu(x):
    return np.where(x < 0, 0, x)  # this way round a NaN stays one


def relu_gradient(dy, x):
    return np.where(x > 0, dy, 0)


def softmax(scores):
    """Along the last axis."""
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_cross_entropy(scores, labels):
    """The batch's mean of -log(probability of the label). scores: (N, classes), labels: (N,) integers."""
    loss = 0.0
    for row, label in zip(scores, labels, strict=True):
        row = row - row.max()
        loss += math.log(np.exp(row).sum()) - row[label]
    return loss / len(labels)


def softmax_cross_entropy_gradient(scores, labels):
    """(softmax - one hot) / N"""
    ds = softmax(scores)
    for n, label in enumerate(labels):
        ds[n, label] -= 1
    return ds / len(labels)
