"""The adjoint of a convolution, whatever computes it: again convolutions, one for each phase of the stride."""

from __future__ import annotations

import itertools

import array_api_extra as xpx
from array_api_compat import array_namespace, device

from xpconv.algorithms.selection import choose
from xpconv.libraries import Array
from xpconv.windows import Window


def input_gradient(algorithm: str, dy: Array, weight: Array, window: Window, groups: int) -> Array:
    """Give every input element its share of dy: (N, *output, O) and (*kernel, C/G, O) to (N, *size, C).

    The elements in one phase of the stride get theirs from a convolution of dy with the taps they meet, turned round
    and with input and output channels exchanged.
    """
    xp, axes = array_namespace(dy), len(window.axes)
    turned = xp.flip(exchanged(weight, groups), axis=tuple(range(axes)))
    shape = (dy.shape[0], *window.size, turned.shape[-1])
    if all(span.stride == 1 for span in window.axes):
        (phase,) = itertools.product(*(axis.phases() for axis in window.axes))
        return convolve(algorithm, dy, turned, None, Window(tuple(part.axis for part in phase)), groups)
    dx = xp.zeros(shape, dtype=dy.dtype, device=device(dy))
    for phase in itertools.product(*(axis.phases() for axis in window.axes)):
        if not all(part.axis.kernel for part in phase):
            continue  # these elements lie between the windows
        taps = tuple(_from_the_end(part.taps, k) for part, k in zip(phase, window.kernel, strict=True))
        opposite = Window(tuple(part.axis for part in phase))
        share = convolve(algorithm, dy, turned[*taps, ...], None, opposite, groups)
        dx = xpx.at(dx)[:, *(part.elements for part in phase), :].set(share)
    return dx


def convolve(algorithm: str, x: Array, weight: Array, bias: Array | None, window: Window, groups: int) -> Array:
    """Convolve once, by the algorithm that suits: (N, *size, C) and (*kernel, C/G, O) to (N, *output, O)."""
    way = choose(algorithm, x, weight.shape[-1], window, groups)
    return way.convolve(x, way.prepare(weight, groups), bias, window, groups)


def weight_gradient(algorithm: str, x: Array, dy: Array, window: Window, groups: int) -> Array:
    """Correlate the input with dy, by the algorithm that suits: to (*kernel, C/G, O)."""
    return choose(algorithm, x, dy.shape[-1], window, groups).weight_gradient(x, dy, window, groups)


def exchanged(weight: Array, groups: int) -> Array:
    """(*kernel, C/G, O) to (*kernel, O/G, C): the filters of the opposite direction."""
    xp = array_namespace(weight)
    *kernel, width, filters = weight.shape
    axes = len(kernel)
    parts = xp.reshape(weight, (*kernel, width, groups, filters // groups))
    parts = xp.permute_dims(parts, (*range(axes), axes + 2, axes + 1, axes))
    return xp.reshape(parts, (*kernel, filters // groups, width * groups))


def _from_the_end(taps: slice, kernel: int) -> slice:
    """Where these taps stand once the kernel is turned round."""
    chosen = range(kernel)[taps]
    return slice(kernel - 1 - chosen[-1], kernel - chosen[0], taps.step)
