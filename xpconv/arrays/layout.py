"""Where channels stand. Arrays come as (N, C, ...) and are worked on as (N, ..., C): views, so that nothing is copied.

A result is made with its channels last in memory and handed on as a view, so the next operator finds them there again.
"""

from __future__ import annotations

from xpconv.arrays.libraries import Array, namespace_of


def channels_last(x: Array) -> Array:
    """(N, C, *size) to (N, *size, C)."""
    return namespace_of(x).permute_dims(x, (0, *range(2, x.ndim), 1))


def channels_second(x: Array) -> Array:
    """(N, *size, C) to (N, C, *size)."""
    return namespace_of(x).permute_dims(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def taps_first(weight: Array) -> Array:
    """(O, C/G, *kernel) to (*kernel, C/G, O)."""
    return namespace_of(weight).permute_dims(weight, (*range(2, weight.ndim), 1, 0))


def taps_last(weight: Array) -> Array:
    """(*kernel, C/G, O) to (O, C/G, *kernel)."""
    axes = weight.ndim - 2
    return namespace_of(weight).permute_dims(weight, (axes + 1, axes, *range(axes)))
