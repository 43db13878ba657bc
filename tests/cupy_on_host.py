"""As much of CuPy as `xpconv.cuda` calls, on NumPy's memory: what runs in the tests is all but the GPU.

Kernels are those of the library, compiled by the host's C++ compiler and run thread by thread. cuBLAS is read from its
manual: memory column by column, with leading dimensions and strides, and what it refuses is refused.
"""

import ctypes
import functools
import math
import pathlib
import shutil
import subprocess
import tempfile
import types

import numpy as np

from xpconv.cuda import sources

FENCE = 64  # numbers

COMPILER = shutil.which("g++") or shutil.which("clang++")


class Array(np.ndarray):
    """NumPy's array with the parts of CuPy's that NumPy's lacks."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)


def asarray(array, layout=None, dtype=None, shift=0):
    """An array whose axes lie in memory in this order, so many numbers behind a NaN, with NaNs all around."""
    array = np.asarray(array, dtype)
    order = tuple(range(array.ndim)) if layout is None else layout
    whole = np.full(array.size + 2 * FENCE + shift, np.nan, array.dtype).view(Array)
    laid = whole[FENCE + shift : FENCE + shift + array.size].reshape([array.shape[i] for i in order])
    laid = laid.transpose(np.argsort(order))
    laid[...] = array
    return laid


@functools.cache
def compiled(file):
    """The kernels of a file as a library of functions (blocks, threads, arguments), one for each instance."""
    runs = (
        f'extern "C" void run_{i}(unsigned b, unsigned t, void **a) {{ launch({instance}, b, t, a); }}\n'
        for i, instance in enumerate(sources.expressions(file))
    )
    with tempfile.TemporaryDirectory() as folder:
        code, library = pathlib.Path(folder, "kernels.cpp"), pathlib.Path(folder, "kernels.so")
        code.write_text(f'#include "cuda_on_host.h"\n{sources.source(file)}\n{"".join(runs)}')
        options = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", f"-I{pathlib.Path(__file__).parent}"]
        subprocess.run([COMPILER, *options, code, "-o", library], check=True)
        return ctypes.CDLL(str(library))


class Cupy(types.ModuleType):
    """The module: `launches` are the kernels that were run, `made` the arrays, `room` bytes for each of them."""

    def __init__(self):
        super().__init__("cupy")
        self.launches, self.made, self.released, self.room = [], [], 0, math.inf
        self.cuda = types.SimpleNamespace(
            cublas=types.SimpleNamespace(gemmStridedBatchedEx=self.gemm),
            get_cublas_handle=lambda: 7,
            runtime=types.SimpleNamespace(memGetInfo=lambda: (1000, 2000)),
        )

    ascontiguousarray = staticmethod(lambda array: np.ascontiguousarray(array).view(Array))

    def empty(self, shape, dtype):
        """Full of NaNs, so that what nobody writes shows, and with a fence on both sides; too large is refused."""
        dtype, count = np.dtype(dtype), math.prod(shape)
        if count * dtype.itemsize > self.room:
            raise MemoryError(f"Out of memory allocating {count * dtype.itemsize} bytes")
        whole = np.full(count + 2 * FENCE, 99 if dtype.kind in "iu" else np.nan, dtype)
        self.made.append((whole, whole.tobytes()))
        return whole[FENCE : FENCE + count].reshape(shape).view(Array)

    def fences_stand(self):
        """Whether nothing was written beside any array that was made."""
        untouched = True
        for whole, before in self.made:
            edge = FENCE * whole.itemsize
            now = whole.tobytes()
            untouched = untouched and now[:edge] == before[:edge] and now[-edge:] == before[-edge:]
        self.made.clear()
        return untouched

    def get_default_memory_pool(self):
        def release():
            self.released += 1

        return types.SimpleNamespace(free_bytes=lambda: 24, free_all_blocks=release)

    def RawModule(self, *, code, options, name_expressions):
        assert code in [sources.source(file) for file in sources.FILES] and all(o.startswith("-") for o in options)

        def get_function(name):
            assert name in name_expressions
            file = next(file for file in sources.FILES if sources.source(file) == code)
            function = getattr(compiled(file), f"run_{sources.expressions(file).index(name)}")

            def launch(grid, block, arguments):
                self.launches.append(name)
                values = [by_value(argument) for argument in arguments]
                pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
                function(grid[0], block[0], pointers)

            return launch

        return types.SimpleNamespace(get_function=get_function)

    def gemm(self, handle, *given):
        """C = alpha op(A) op(B) + beta C for a stack of matrices, as cuBLAS's manual says it."""
        transa, transb, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb, stride_b, beta, *rest = given
        c, c_type, ldc, stride_c, batch, compute, algorithm = rest
        assert handle == 7 and algorithm == -1 and a_type == b_type
        assert lda >= max(1, k if transa else m) and ldb >= max(1, n if transb else k) and ldc >= max(1, m)
        wide = {68: np.float32, 77: np.float32, 70: np.float64}[compute]
        if a_type in (4, 5):
            wide = np.result_type(wide, np.complex64)

        def matrices(at, kind, rows, columns, leading, stride):
            dtype = np.dtype({0: "f4", 1: "f8", 2: "f2", 4: "c8", 5: "c16", 14: "bfloat16"}[kind])
            size = 1 + (batch - 1) * abs(stride) + (columns - 1) * leading + rows - 1
            memory = np.frombuffer((ctypes.c_byte * (size * dtype.itemsize)).from_address(at), dtype)
            steps = (stride * dtype.itemsize, dtype.itemsize, leading * dtype.itemsize)
            return np.lib.stride_tricks.as_strided(memory, (batch, rows, columns), steps)

        left = matrices(a, a_type, *((k, m) if transa else (m, k)), lda, stride_a)
        right = matrices(b, b_type, *((n, k) if transb else (k, n)), ldb, stride_b)
        left = left.swapaxes(1, 2) if transa else left
        right = right.swapaxes(1, 2) if transb else right
        out = matrices(c, c_type, m, n, ldc, stride_c)
        factors = [
            np.frombuffer((ctypes.c_byte * np.dtype(wide).itemsize).from_address(p), wide)[0] for p in (alpha, beta)
        ]
        product = factors[0] * np.matmul(left.astype(wide), right.astype(wide))
        out[...] = product if factors[1] == 0 else product + factors[1] * out.astype(wide)


def by_value(argument):
    """What a kernel gets: a pointer for an array, the bytes of a structure."""
    if argument is None or isinstance(argument, Array):
        return ctypes.c_void_p(argument.ctypes.data if isinstance(argument, Array) else None)
    assert argument.size == 1 and argument.dtype.names
    return (ctypes.c_byte * argument.nbytes).from_buffer_copy(argument.tobytes())
