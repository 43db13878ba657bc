"""The direct way: lower the windows to a matrix (im2col) and multiply once.

Arrays are channels-last here: x (N, *size, C), weight (*kernel, C/G, O), y (N, *output, O).
"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from xpconv.backends import Array
from xpconv.frames import cut
from xpconv.windows import Window


def lower(x: Array, window: Window, groups: int) -> Array:
    """(N, *size, C) to (G, N*L, taps*C/G): each row a window of one group's channels."""
    xp, axes = array_namespace(x), len(window.axes)
    batch, channels = x.shape[0], x.shape[-1]
    count, width = batch * math.prod(window.output), channels // groups
    patches = cut(x, window, first=1)  # (N, OH, KH, OW, KW, C)
    outputs, taps = range(1, 1 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
    patches = xp.permute_dims(patches, (0, *outputs, *taps, 1 + 2 * axes))  # (N, OH, OW, KH, KW, C)
    if groups == 1:
        return xp.reshape(patches, (1, count, window.taps * channels))
    patches = xp.reshape(patches, (count, window.taps, groups, width))
    return xp.reshape(xp.permute_dims(patches, (2, 0, 1, 3)), (groups, count, window.taps * width))


def by_group(x: Array, groups: int) -> Array:
    """(..., O) to (G, prod(...), O/G)."""
    xp = array_namespace(x)
    count, width = math.prod(x.shape[:-1]), x.shape[-1] // groups
    return xp.permute_dims(xp.reshape(x, (count, groups, width)), (1, 0, 2))


def convolve(x: Array, weight: Array, window: Window, groups: int) -> Array:
    """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
    xp = array_namespace(x)
    y = xp.matmul(lower(x, window, groups), by_group(weight, groups))  # (G, N*L, O/G)
    return xp.reshape(xp.permute_dims(y, (1, 0, 2)), (x.shape[0], *window.output, weight.shape[-1]))


def weight_gradient(x: Array, dy: Array, window: Window, groups: int) -> Array:
    """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
    xp = array_namespace(x)
    rows = xp.matrix_transpose(lower(x, window, groups))
    dw = xp.matmul(rows, by_group(dy, groups))  # (G, taps*C/G, O/G)
    shape = (*window.kernel, x.shape[-1] // groups, dy.shape[-1])
    return xp.reshape(xp.permute_dims(dw, (1, 0, 2)), shape)
