"""The one file through which this room calls CuPy: launches, products, memory.

All work goes to the stream and the device that are current, nothing waits, and the null stream is never named: whoever
calls has entered the arrays' device.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import array_api_compat
import numpy as np

from xpconv.arrays.libraries import Array
from xpconv.cuda import geometry, products, sources
from xpconv.cuda.geometry import Struct
from xpconv.cuda.workspace import halving

T = TypeVar("T")

_products: ContextVar[Callable[..., None] | None] = ContextVar("products", default=None)

PREFERRED = -1  # cublasGemmAlgo_t: let cuBLAS choose; which units it may use is said by the compute type


def takes_kernels(array: Array) -> bool:
    """Whether kernels can read and write an array where it lies."""
    return bool(array_api_compat.is_cupy_array(array))


@functools.cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype, which NumPy makes anew each time that it is asked."""
    return dtype.name


def cupy_module() -> Any:
    """Return CuPy itself."""
    return sys.modules["cupy"]


@functools.cache
def _kernel(file: str, expression: str) -> Any:
    module = cupy_module().RawModule(code=sources.source(file), options=sources.OPTIONS, name_expressions=(expression,))
    return module.get_function(expression)


def run(file: str, expression: str, threads: int, *arguments: Array | Struct | None) -> None:
    """Launch a kernel with one thread for each result; structures go by value, None is a null pointer."""
    if threads:
        _kernel(file, expression)(*geometry.launch(threads), arguments)


def run_blocks(
    file: str, expression: str, grid: tuple[int, int, int], threads: int, shared: int, *arguments: Array | Struct | None
) -> None:
    """Launch a kernel whose blocks of so many threads share so many bytes."""
    kernel = _kernel(file, expression)
    if kernel.max_dynamic_shared_size_bytes < shared:
        kernel.max_dynamic_shared_size_bytes = shared
    kernel(grid, (threads,), arguments, shared_mem=shared)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Make an array on the current device, to be filled."""
    return cupy_module().empty(shape, dtype=dtype)


def current_device() -> int:
    """Return the number of the device that work goes to."""
    return int(cupy_module().cuda.Device().id)


def capability() -> tuple[int, int]:
    """Return the compute capability of the current device."""
    return _capability(current_device())


@functools.cache
def _capability(device: int) -> tuple[int, int]:
    properties = cupy_module().cuda.runtime.getDeviceProperties(device)
    return int(properties["major"]), int(properties["minor"])


def multiprocessors() -> int:
    """Return how many multiprocessors the current device has."""
    return _multiprocessors(current_device())


@functools.cache
def _multiprocessors(device: int) -> int:
    return int(cupy_module().cuda.runtime.getDeviceProperties(device)["multiProcessorCount"])


def current_stream() -> int:
    """Return the stream that work goes to, as a number."""
    return int(cupy_module().cuda.get_current_stream().ptr)


def accumulation(array: Array) -> np.dtype[Any]:
    """Return in what numbers like these are added up: float32 for narrower ones."""
    return array.dtype if array.itemsize >= 4 else np.dtype(np.float32)


def settled(array: Array | None) -> Array | None:
    """Return the array, if it is one, lying in memory in the order of its axes."""
    return None if array is None else cupy_module().ascontiguousarray(array)


def readable(matrices: Array) -> Array:
    """Return matrices (M, K) or stacks of them, lying so that cuBLAS can read them."""
    return matrices if _readable(matrices.shape, strides(matrices)) else settled(matrices)


@functools.lru_cache(maxsize=4096)
def _readable(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    return products.legible(products.stack(shape, strides))


def pointer(array: Array) -> int:
    """Return where an array's first element lies."""
    return int(array.data.ptr)


def strides(array: Array) -> tuple[int, ...]:
    """Return the steps along each axis, in elements."""
    return tuple(step // array.itemsize for step in array.strides)


def part_of(array: Array, *where: slice) -> Array:
    """Return the part of an array between these ends along its first axes: the array itself where that is all of it."""
    whole = all((s.start, s.stop) == (0, n) for s, n in zip(where, array.shape, strict=False))
    return array if whole else array[where]


def pack_of(*given: Array | None, groups: int = 1) -> int:
    """Return how many neighbouring channels of arrays (..., C), cut into groups, may be moved at once."""
    arrays = [array for array in given if array is not None]
    lying = [(array.shape[-1], pointer(array) % geometry.PACK, array.strides) for array in arrays]
    return _pack(arrays[0].itemsize, groups, *lying)


@functools.lru_cache(maxsize=4096)
def _pack(itemsize: int, groups: int, *lying: tuple[int, int, tuple[int, ...]]) -> int:
    if any(steps[-1] != itemsize for *_, steps in lying):
        return 1
    counts = [channels // groups for channels, *_ in lying]
    counts += [count // itemsize for _, place, steps in lying for count in (place, *steps[:-1])]
    return geometry.pack(itemsize, *counts)


def _gemm() -> Callable[..., None]:
    cuda, given = cupy_module().cuda, _products.get()
    return given or functools.partial(cuda.cublas.gemmStridedBatchedEx, cuda.get_cublas_handle())


@contextlib.contextmanager
def multiplying(products: Callable[..., None]) -> Iterator[None]:
    """Have matrices multiplied by a function that takes what ``cublasGemmStridedBatchedEx`` takes after the handle."""
    token = _products.set(products)
    try:
        yield
    finally:
        _products.reset(token)


def multiply(a: Array, b: Array, c: Array, *, add: bool = False, precision: str = "float32") -> None:
    """Write ``a @ b``, or add it, to an array: stacks of matrices, read and written where they lie.

    Parameters
    ----------
    a, b : array, shape (B, M, K) and (B, K, N), or (M, K) and (K, N)
        Of one dtype.
    c : array, shape (B, M, N) or (M, N)
        Of that dtype, or of float32 where it is narrower.
    add : bool
        Keep what `c` holds and add to it.
    precision : str
        "float32" is strict; "tf32" lets float32 be multiplied with 10 bits of fraction.

    Raises
    ------
    TypeError, ValueError
        When cuBLAS cannot do it; nothing has been written.
    """
    asked = _asked(precision, *((m.shape, m.strides, m.dtype) for m in (a, b, c)))
    plan, dtype, out = asked.plan, asked.dtype, asked.out
    if not (plan.m and plan.n and plan.batch):
        return
    left, right = (b, a) if plan.swapped else (a, b)
    _gemm()(
        plan.transa,
        plan.transb,
        plan.m,
        plan.n,
        plan.k,
        asked.factors[1],
        pointer(left),
        dtype,
        plan.lda,
        plan.stride_a,
        pointer(right),
        dtype,
        plan.ldb,
        plan.stride_b,
        asked.factors[add],
        pointer(c),
        out,
        plan.ldc,
        plan.stride_c,
        plan.batch,
        asked.compute,
        PREFERRED,
    )


class _Asked(NamedTuple):
    """What cuBLAS is asked of arrays that lie so: by its numbers, and where 0 and 1 are."""

    plan: products.Gemm
    dtype: int
    out: int
    compute: int
    factors: tuple[int, int]


@functools.lru_cache(maxsize=4096)
def _asked(precision: str, *forms: tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any]]) -> _Asked:
    dtype, out = forms[0][-1].name, forms[2][-1].name
    compute = products.compute_type(dtype, precision)
    stacks = (products.stack(shape, [step // kind.itemsize for step in steps]) for shape, steps, kind in forms)
    factors = _factors(products.scalar_type(dtype)).ctypes.data
    step = np.dtype(products.scalar_type(dtype)).itemsize
    return _Asked(
        products.gemm(*stacks), products.TYPES[dtype], products.TYPES[out], compute, (factors, factors + step)
    )


@functools.cache
def _factors(dtype: str) -> np.ndarray[Any, Any]:
    """Return 0 and 1, which stay where they are in memory."""
    return np.arange(2).astype(dtype)


class Pool:
    """The memory of the current device, through CuPy's pool."""

    def free(self) -> int:
        """Return the bytes that the device and the pool have to give."""
        free, _ = cupy_module().cuda.runtime.memGetInfo()
        return int(free) + int(cupy_module().get_default_memory_pool().free_bytes())

    def release(self) -> None:
        """Give what the pool keeps for later back to the device."""
        cupy_module().get_default_memory_pool().free_all_blocks()


def fitting(work: Callable[[], T], shape: tuple[int, ...], dtype: Any) -> T:
    """Do work that takes no memory but for its result, of this shape; where that does not fit, say what was free."""
    return halving(lambda _: work(), math.prod(shape) * np.dtype(dtype).itemsize, Pool())
