"""Convolution and pooling on CUDA GPUs, for CuPy arrays: a few small kernels over the whole batch, and cuBLAS.

From the ground up: `geometry`, launches and windows as whole numbers; `products` and `problems`, what cuBLAS and cuDNN
are asked for, as whole numbers; `workspace`, what is done when memory runs out; `sources`, the text of the kernels in
``kernels/``; `runtime`, through which all here call CuPy; `graphs`, hundreds of launches as one; `rows`, what becomes
of biases; `lowering`, `winograd` and `depthwise`, algorithms like those of array code, which selection gives CuPy
arrays, `implicit`, one for tensor cores, and `cudnn`, one that need not be there; and `pooling`, what operators ask for
by name.

Tests need no GPU: they compile the kernels for every generation of GPUs, and run them, compiled for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpconv.arrays.libraries import Array
from xpconv.cuda import geometry, pooling, products, rows, sources
from xpconv.cuda.runtime import dtype_name, takes_kernels


def serves(x: Array, *_: Any, **__: Any) -> bool:
    """Whether there are kernels for an array (N, C, *size), wherever its channels stand.

    They take narrow numbers as they are, and add them up in float32.
    """
    return adds_up(x) and 3 <= x.ndim <= 2 + geometry.AXES


def adds_up(x: Array, *_: Any, **__: Any) -> bool:
    """Whether there are kernels for such numbers."""
    return takes_kernels(x) and dtype_name(x.dtype) in sources.TYPES


def multiplies(x: Array, *_: Any, **__: Any) -> bool:
    """Whether cuBLAS multiplies matrices of such numbers; it adds narrow ones up in float32."""
    return takes_kernels(x) and dtype_name(x.dtype) in products.TYPES


FUSED: dict[str, tuple[Callable[..., bool], Callable[..., Any]]] = {
    "largest": (serves, pooling.largest),
    "mean": (serves, pooling.mean),
    "matmul": (multiplies, rows.matmul),
    "sum_rows": (adds_up, rows.sum_rows),
}


def fused(name: str, x: Array) -> Callable[..., Any] | None:
    """Return the function of this name that the GPU has for such an array, or None."""
    served, function = FUSED.get(name, (serves, None))
    return function if served(x) else None
