"""What windows, patches, convolution and pooling mean, as loops that can be checked by eye.

This is the oracle: it imports nothing of the library and is written to be right at a glance, not to be fast.
Arrays are NumPy's, (N, C, *spatial) with any number of spatial axes. Every window operator is the same loop:

    for at, window in places:        # at: a position in the output; window: its slices of the padded input
        y[..., *at] = something of padded[..., *window]

and its gradient is the same loop turned round, adding into padded[..., *window]. The sums inside the loop run
over N and C and the taps of one window, never over positions.
"""

import math

import numpy as np

# --- Whole numbers: where the windows are


def each(value, axes):
    """One whole number for every axis."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def starts(size, kernel, stride=1, pad=(0, 0), dilation=1, ceil_mode=False):
    """Where each window begins along one axis, counted from the first padded element, by walking along it."""
    before, after = pad
    end = before + size + after
    span = (kernel - 1) * dilation + 1
    found, start = [], 0
    while start + span <= end:
        found.append(start)
        start += stride
    # ceil_mode adds one window where elements are left over behind the last one, but only if it begins in the
    # input or in the padding before it.
    left_over = end - (start - stride + span)
    if ceil_mode and left_over > 0 and start < before + size:
        found.append(start)
    return found


def pairs(pad, size, kernel=1, stride=1, dilation=1):
    """The (before, after) of every axis."""
    axes = len(size)
    if isinstance(pad, str):
        assert pad in ("same", "valid"), pad
        found = []
        for n, k, s, d in zip(size, *(each(v, axes) for v in (kernel, stride, dilation)), strict=True):
            total = 0
            if pad == "same":  # the least padding that gives ceil(n / s) windows, the odd one at the end
                while len(starts(n, k, s, (0, total), d)) < math.ceil(n / s):
                    total += 1
            found.append((total // 2, total - total // 2))
        return found
    pad = each(pad, axes)
    assert len(pad) == axes, f"{pad} does not name {axes} axes"
    return [(p, p) if isinstance(p, int) else tuple(p) for p in pad]


def plan(size, kernel, stride=None, pad=0, dilation=1, ceil_mode=False):
    """The pads, the output's size, and each window: its place in the output, its slices of the padded x.

    Slices stop at the end of an array, so a window that ceil_mode lets hang over simply has fewer taps.
    Without a stride the windows lie side by side.
    """
    stride = kernel if stride is None else stride
    kernel, stride, dilation = (each(v, len(size)) for v in (kernel, stride, dilation))
    pad = pairs(pad, size, kernel, stride, dilation)
    slices = []  # of each axis, those of each window
    for n, k, s, p, d in zip(size, kernel, stride, pad, dilation, strict=True):
        slices.append([slice(i, i + (k - 1) * d + 1, d) for i in starts(n, k, s, p, d, ceil_mode)])
    output = tuple(len(windows) for windows in slices)
    places = [(at, tuple(slices[axis][i] for axis, i in enumerate(at))) for at in np.ndindex(output)]
    return pad, output, places


def zero_pad(x, pad):
    """Zeros around the last axes, those that pad names."""
    return np.pad(x, [(0, 0)] * (x.ndim - len(pad)) + list(pad))


def crop(x, pad):
    """Take padding off again: the adjoint of zero_pad."""
    size = x.shape[x.ndim - len(pad) :]
    return x[(..., *(slice(before, n - after) for n, (before, after) in zip(size, pad, strict=True)))]


# --- Patches


def unfold(x, kernel, stride=1, pad=0, dilation=1):
    """(N, C*prod(kernel), L): one column for each window."""
    pad, _, places = plan(x.shape[2:], kernel, stride, pad, dilation)
    padded = zero_pad(x, pad)
    return np.stack([padded[(..., *window)].reshape(len(x), -1) for _, window in places], axis=-1)


def fold(col, output_size, kernel, stride=1, pad=0, dilation=1):
    """Add every column back where unfold read it: (N, C, *output_size)."""
    output_size, kernel = tuple(output_size), each(kernel, len(output_size))
    pad, _, places = plan(output_size, kernel, stride, pad, dilation)
    n, c = col.shape[0], col.shape[1] // math.prod(kernel)
    padded = zero_pad(np.zeros((n, c, *output_size), col.dtype), pad)
    for number, (_, window) in enumerate(places):
        padded[(..., *window)] += col[:, :, number].reshape(n, c, *kernel)
    return crop(padded, pad)


def im2col(x, filter_h, filter_w, stride=1, pad=0):
    """(N*OH*OW, C*FH*FW): one row for each window."""
    columns = unfold(x, (filter_h, filter_w), stride, pad)
    return columns.transpose(0, 2, 1).reshape(-1, columns.shape[1])


def col2im(col, input_shape, filter_h, filter_w, stride=1, pad=0):
    columns = col.reshape(input_shape[0], -1, col.shape[1]).transpose(0, 2, 1)
    return fold(columns, input_shape[2:], (filter_h, filter_w), stride, pad)


# --- Convolution. In the sums: n batch, g group, c and o a group's channels in and out, t tap of the window.
# Gradients are adjoints, <conv(x), dy> == <x, dx>, so for complex numbers the other factor is conjugated.


def conv(x, weight, bias=None, stride=1, pad=0, dilation=1, groups=1):
    """weight: (O, C/groups, *kernel)."""
    n, o = x.shape[0], weight.shape[0]
    pad, output, places = plan(x.shape[2:], weight.shape[2:], stride, pad, dilation)
    padded = zero_pad(x, pad)
    taps = weight.reshape(groups, o // groups, weight.shape[1], -1)
    y = np.zeros((n, o, *output), np.result_type(x, weight))
    for at, window in places:
        patch = padded[(..., *window)].reshape(n, groups, *taps.shape[2:])
        y[(..., *at)] = np.einsum("ngct,goct->ngo", patch, taps).reshape(n, o)
    return y if bias is None else y + bias.reshape(-1, *[1] * len(output))


def conv_gradients(dy, x, weight, stride=1, pad=0, dilation=1, groups=1):
    """dx, dw, db: y adds up x * w over taps, so dy goes to each x times its w and to each w times its x."""
    n, o = dy.shape[:2]
    pad, _, places = plan(x.shape[2:], weight.shape[2:], stride, pad, dilation)
    padded = zero_pad(x, pad)
    taps = weight.reshape(groups, o // groups, weight.shape[1], -1)
    dpadded = np.zeros(padded.shape, np.result_type(dy, weight))
    dtaps = np.zeros(taps.shape, np.result_type(dy, x))
    for at, window in places:
        patch = padded[(..., *window)]
        grouped = patch.reshape(n, groups, *taps.shape[2:])
        dy_at = dy[(..., *at)].reshape(n, groups, o // groups)
        dpadded[(..., *window)] += np.einsum("ngo,goct->ngct", dy_at, taps.conj()).reshape(patch.shape)
        dtaps += np.einsum("ngo,ngct->goct", dy_at, grouped.conj())
    return crop(dpadded, pad), dtaps.reshape(weight.shape), dy.sum(axis=(0, *range(2, dy.ndim)))


def transpose_plan(size, kernel, stride, pad, output_pad, dilation):
    """Each input element paints a window on a canvas: the canvas's size, the pads to crop, the windows."""
    values = kernel, kernel if stride is None else stride, output_pad, dilation
    kernel, stride, output_pad, dilation = (each(v, len(size)) for v in values)
    # "same" is the padding that a convolution from size * stride to size has.
    pad = pairs(pad, [n * s for n, s in zip(size, stride, strict=True)], kernel, stride, dilation)
    reach = [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    _, positions, places = plan(reach, kernel, stride, 0, dilation)
    assert positions == tuple(size)
    return [r + extra for r, extra in zip(reach, output_pad, strict=True)], pad, places


def conv_transpose(x, weight, bias=None, stride=1, pad=0, output_pad=0, dilation=1, groups=1):
    """weight: (C, O/groups, *kernel). pad is cropped from the result, output_pad adds to its end."""
    n, c, *size = x.shape
    o = weight.shape[1] * groups
    canvas, pad, places = transpose_plan(size, weight.shape[2:], stride, pad, output_pad, dilation)
    taps = weight.reshape(groups, c // groups, weight.shape[1], -1)
    painted = np.zeros((n, o, *canvas), np.result_type(x, weight))
    for at, window in places:
        x_at = x[(..., *at)].reshape(n, groups, c // groups)
        paint = np.einsum("ngc,gcot->ngot", x_at, taps)
        painted[(..., *window)] += paint.reshape(n, o, *weight.shape[2:])
    y = crop(painted, pad)
    return y if bias is None else y + bias.reshape(-1, *[1] * len(size))


def conv_transpose_gradients(dy, x, weight, stride=1, pad=0, output_pad=0, dilation=1, groups=1):
    """dx, dw, db: every element looks at the window that it painted."""
    n, c, *size = x.shape
    _, pad, places = transpose_plan(size, weight.shape[2:], stride, pad, output_pad, dilation)
    dpainted = zero_pad(dy, pad)
    taps = weight.reshape(groups, c // groups, weight.shape[1], -1)
    dx = np.zeros(x.shape, np.result_type(dy, weight))
    dtaps = np.zeros(taps.shape, np.result_type(dy, x))
    for at, window in places:
        x_at = x[(..., *at)].reshape(n, groups, c // groups)
        dpaint = dpainted[(..., *window)].reshape(n, groups, weight.shape[1], -1)
        dx[(..., *at)] = np.einsum("ngot,gcot->ngc", dpaint, taps.conj()).reshape(n, c)
        dtaps += np.einsum("ngot,ngc->gcot", dpaint, x_at.conj())
    return dx, dtaps.reshape(weight.shape), dy.sum(axis=(0, *range(2, dy.ndim)))


# --- Pooling. An index counts the unpadded spatial elements of one channel in row-major order.


def numbered(size):
    """Every element's index."""
    return np.arange(math.prod(size)).reshape(size)


def max_of_windows(x, output, places, pad):
    """The largest real element of each window and its index: of equals the first, and NaN beats numbers.

    Padding is not in the running at all. A window of nothing but padding has the lowest value and index -1.
    """
    padded = zero_pad(x, pad)
    number = zero_pad(numbered(x.shape[2:]) + 1, pad) - 1  # -1 marks padding
    lowest = -np.inf if np.issubdtype(x.dtype, np.inexact) else np.iinfo(x.dtype).min
    y = np.full((*x.shape[:2], *output), lowest, x.dtype)
    indices = np.full(y.shape, -1)
    for at, window in places:
        real = number[window] >= 0
        if real.any():
            runners = padded[(..., *window)][..., real]  # (N, C, taps)
            y[(..., *at)] = runners.max(axis=-1)
            indices[(..., *at)] = number[window][real][runners.argmax(axis=-1)]
    return y, indices


def max_pool(x, kernel, stride=None, pad=0, dilation=1, ceil_mode=False):
    """values, indices"""
    pad, output, places = plan(x.shape[2:], kernel, stride, pad, dilation, ceil_mode)
    return max_of_windows(x, output, places, pad)


def max_pool_gradient(dy, indices, size):
    """dx of max_pool and adaptive_max_pool: each dy goes to the winner of its window."""
    dx = np.zeros((*dy.shape[:2], math.prod(size)), dy.dtype)
    for at in np.ndindex(dy.shape):
        if indices[at] >= 0:
            dx[at[0], at[1], indices[at]] += dy[at]
    return dx.reshape(*dy.shape[:2], *size)


def max_unpool(x, indices, kernel=None, stride=None, pad=0, output_size=None):
    """Each x goes to its index, zeros elsewhere."""
    if output_size is None:
        canvas, pad, _ = transpose_plan(x.shape[2:], kernel, stride, pad, 0, 1)
        output_size = crop(np.zeros(canvas), pad).shape
    y = np.zeros((*x.shape[:2], math.prod(output_size)), x.dtype)
    for at in np.ndindex(x.shape):
        y[at[0], at[1], indices[at]] = x[at]
    return y.reshape(*x.shape[:2], *output_size)


def max_unpool_gradient(dy, indices):
    flat = dy.reshape(*dy.shape[:2], -1)
    dx = np.zeros(indices.shape, dy.dtype)
    for at in np.ndindex(indices.shape):
        dx[at] = flat[at[0], at[1], indices[at]]
    return dx


def divisor_at(real, window, count_include_pad, divisor):
    """What one window's sum is divided by. `real` is a padded array: ones at elements, zeros at padding."""
    if divisor is not None:
        return divisor
    # The padding counts; what hangs over behind the padding is not in the slice, so it never does.
    return real[window].size if count_include_pad else max(real[window].sum(), 1)


def avg_pool(x, kernel, stride=None, pad=0, dilation=1, ceil_mode=False, count_include_pad=True, divisor=None):
    size = x.shape[2:]
    pad, output, places = plan(size, kernel, stride, pad, dilation, ceil_mode)
    padded, real = zero_pad(x, pad), zero_pad(np.ones(size), pad)
    y = np.zeros((*x.shape[:2], *output), np.result_type(x, np.float32))
    for at, window in places:
        total = padded[(..., *window)].sum(axis=tuple(range(2, x.ndim)))
        y[(..., *at)] = total / divisor_at(real, window, count_include_pad, divisor)
    return y


def avg_pool_gradient(
    dy, size, kernel, stride=None, pad=0, dilation=1, ceil_mode=False, count_include_pad=True, divisor=None
):
    pad, _, places = plan(size, kernel, stride, pad, dilation, ceil_mode)
    real = zero_pad(np.ones(size), pad)
    dpadded = np.zeros((*dy.shape[:2], *real.shape), dy.dtype)
    for at, window in places:
        share = dy[(..., *at)] / divisor_at(real, window, count_include_pad, divisor)
        dpadded[(..., *window)] += share.reshape(*share.shape, *[1] * len(size))
    return crop(dpadded, pad)


def lp_pool(x, kernel, p=2, stride=None, pad=0, dilation=1, ceil_mode=False):
    """(sum |x|^p)^(1/p)"""
    pad, output, places = plan(x.shape[2:], kernel, stride, pad, dilation, ceil_mode)
    powers = zero_pad(np.abs(x) ** p, pad)
    y = np.zeros((*x.shape[:2], *output), np.result_type(powers, np.float32))
    for at, window in places:
        y[(..., *at)] = powers[(..., *window)].sum(axis=tuple(range(2, x.ndim))) ** (1 / p)
    return y


def lp_pool_gradient(dy, x, kernel, p=2, stride=None, pad=0, dilation=1, ceil_mode=False):
    """dy sign(x) (|x| / y)^(p-1), and nothing to a window of zeros."""
    y = lp_pool(x, kernel, p, stride, pad, dilation, ceil_mode)
    pad, _, places = plan(x.shape[2:], kernel, stride, pad, dilation, ceil_mode)
    padded = zero_pad(x, pad)
    dpadded = np.zeros(padded.shape, np.result_type(dy, x))
    for at, window in places:
        patch = padded[(..., *window)]
        y_at, dy_at = (a[(..., *at)].reshape(*a.shape[:2], *[1] * (x.ndim - 2)) for a in (y, dy))
        ratio = np.divide(np.abs(patch), y_at, out=np.zeros(patch.shape), where=y_at != 0)
        dpadded[(..., *window)] += dy_at * np.sign(patch) * ratio ** (p - 1)
    return crop(dpadded, pad)


def adaptive_places(size, output_size):
    """Window i of m over n elements runs from floor(i n / m) to ceil((i + 1) n / m)."""
    slices = []
    for n, m in zip(size, output_size, strict=True):
        slices.append([slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)])
    return [(at, tuple(slices[axis][i] for axis, i in enumerate(at))) for at in np.ndindex(*output_size)]


def adaptive_max_pool(x, output_size):
    """values, indices"""
    size = x.shape[2:]
    output_size = each(output_size, len(size))
    return max_of_windows(x, output_size, adaptive_places(size, output_size), pairs(0, size))


def adaptive_avg_pool(x, output_size):
    output_size = each(output_size, x.ndim - 2)
    y = np.zeros((*x.shape[:2], *output_size), np.result_type(x, np.float32))
    for at, window in adaptive_places(x.shape[2:], output_size):
        y[(..., *at)] = x[(..., *window)].mean(axis=tuple(range(2, x.ndim)))
    return y


def adaptive_avg_pool_gradient(dy, size):
    dx = np.zeros((*dy.shape[:2], *size), dy.dtype)
    for at, window in adaptive_places(size, dy.shape[2:]):
        share = dy[(..., *at)] / dx[(0, 0, *window)].size
        dx[(..., *window)] += share.reshape(*share.shape, *[1] * len(size))
    return dx
