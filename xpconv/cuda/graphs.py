"""CUDA graphs: work on CuPy arrays, captured once, and done again by one launch instead of hundreds.

CuPy does not call cuBLAS while a stream is captured, though cuBLAS allows it: with a workspace of its own, its products
become nodes like any other kernel. So those are asked of the library itself, by a handle that serves one graph.

References
----------
https://docs.nvidia.com/cuda/cublas/#cuda-graphs-support, and cublasSetWorkspace there.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from xpconv.cuda.runtime import cupy_module, empty, multiplying, pointer

T = TypeVar("T")

WORKSPACE = 32 << 20  # bytes: what cuBLAS takes for itself on the GPUs that take most

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
_MATRIX = [_POINTER, _INT, _INT, _LONG]  # where it lies, its type, leading dimension and stride
# Of cublasGemmStridedBatchedEx: handle; transa, transb, m, n, k; alpha, A, B; beta, C; batch, compute type, algorithm.
SIGNATURE = [_POINTER, *[_INT] * 5, _POINTER, *_MATRIX, *_MATRIX, _POINTER, *_MATRIX, _INT, _INT, _INT]


class Graph(Generic[T]):
    """Work that is captured, and not done yet.

    The memory that it takes is its own as long as the graph lives: nothing else is ever laid where it reads or writes.

    Parameters
    ----------
    work : callable
        Launches kernels on the current stream and device, and neither waits for any nor copies from or to the host.

    Attributes
    ----------
    result : object
        What the work returned; its arrays are filled by each launch.

    Raises
    ------
    RuntimeError, OSError
        When the work cannot be captured, or cuBLAS is not found; nothing has been done then.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        cuda = cupy_module().cuda
        stream = cuda.Stream(non_blocking=True)
        self._pool, self._products = cuda.MemoryPool(), Products(stream)
        with stream, cuda.using_allocator(self._pool.malloc), multiplying(self._products):
            stream.begin_capture()  # by default in the mode that lets the pool grow meanwhile
            try:
                self.result = work()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # which says once more that it failed
                    stream.end_capture()
                raise
            self._graph = stream.end_capture()

    def launch(self) -> None:
        """Do the work, on the current stream."""
        self._graph.launch()


class Products:
    """cuBLAS on a stream that is captured."""

    def __init__(self, stream: Any) -> None:
        cublas, library = cupy_module().cuda.cublas, _library()
        self.handle = cublas.create()
        weakref.finalize(self, cublas.destroy, self.handle).atexit = False
        cublas.setStream(self.handle, stream.ptr)  # which takes the workspace away that was set before
        self._workspace = empty((WORKSPACE,), "uint8")
        place = _POINTER(self.handle), _POINTER(pointer(self._workspace)), ctypes.c_size_t(WORKSPACE)
        _checked(library.cublasSetWorkspace_v2(*place))
        self._gemm = library.cublasGemmStridedBatchedEx
        self._gemm.argtypes = SIGNATURE

    def __call__(self, *arguments: int) -> None:
        """Multiply, as ``cublasGemmStridedBatchedEx`` does."""
        _checked(self._gemm(self.handle, *arguments))


def _library() -> Any:
    """Return cuBLAS, which CuPy has loaded: of the CUDA that it was made for."""
    return ctypes.CDLL(f"libcublas.so.{cupy_module().cuda.runtime.runtimeGetVersion() // 1000}")


def _checked(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS answers with status {status}")
