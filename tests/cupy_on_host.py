"""As much of CuPy as this library calls, on NumPy's memory: what runs in the tests is all but the GPU.

Arrays are no arrays of NumPy and are not taken for one: they have CuPy's functions, and to look at a value is written
down. Kernels are those of the library, compiled by the host's C++ compiler and run thread by thread. cuBLAS is read
from its manual: memory column by column, with leading dimensions and strides, and what it refuses is refused.

``PYTHONPATH=tests python -m pytest -p cupy_on_host --backend cupy`` runs any tests on it.
"""

import contextlib
import ctypes
import functools
import math
import operator
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import types
import weakref

import array_api_compat
import numpy as np
import pytest

from xpconv.cuda import graphs, runtime, sources

FENCE = 64  # numbers

COMPILER = shutil.which("g++") or shutil.which("clang++")


def host_of(value):
    """What stands for a value on the host; what CuPy would have to copy there first is refused."""
    if isinstance(value, Array):
        return value._host
    if isinstance(value, tuple | list):
        return type(value)(host_of(part) for part in value)
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def wrapped(result):
    """What a function of NumPy gives, as CuPy would: a number too is an array."""
    if isinstance(result, np.ndarray | np.generic):
        return Array(np.asarray(result))
    return type(result)(map(wrapped, result)) if isinstance(result, tuple | list) else result


def on_arrays(function):
    """A function of NumPy as one of CuPy."""

    @functools.wraps(function)
    def call(*given, **options):
        hosts, named = [host_of(value) for value in given], {name: host_of(value) for name, value in options.items()}
        with np.errstate(all="ignore"):
            result = function(*hosts, **named)
        return wrapped(result) if Capture.now is None else Capture.now.result(function, hosts, named, result)

    return call


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    """CuPy's array: `reads` counts how often values were looked at."""

    reads = 0
    __module__ = "cupy"

    def __init__(self, host):
        self._host = host

    for name in ("shape", "dtype", "ndim", "size", "strides", "itemsize", "nbytes", "flags"):
        locals()[name] = property(operator.attrgetter(f"_host.{name}"))
    for name in ("T", "mT"):
        locals()[name] = property(lambda self, name=name: Array(getattr(self._host, name)))
    for name in (
        "all",
        "any",
        "argmax",
        "astype",
        "copy",
        "max",
        "min",
        "ravel",
        "reshape",
        "sum",
        "transpose",
        "view",
    ):
        locals()[name] = on_arrays(getattr(np.ndarray, name))
    del name

    @property
    def device(self):
        return Device(0)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self._host.ctypes.data)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            done(lambda *hosts, to: getattr(ufunc, method)(*hosts, out=to, **options), inputs, {"to": out})
            return out[0]
        return on_arrays(getattr(ufunc, method))(*inputs, **options)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __len__(self):
        return len(self._host)

    def __getitem__(self, where):
        part = self._host[host_of(where)]
        if Capture.now is not None and isinstance(part, np.ndarray) and not np.may_share_memory(part, self._host):
            return on_arrays(operator.getitem)(self, where)
        if isinstance(part, np.generic):  # of CuPy's arrays it is a view
            part = self._host[(*where, ...) if isinstance(where, tuple) else (where, ...)]
        return Array(part)

    def __setitem__(self, where, value):
        done(lambda to, value: operator.setitem(to, host_of(where), value), (self, value))

    def get(self):
        """The host's copy."""
        Array.reads += 1
        refused_in_capture("D2H transfers are disallowed")
        return self._host.copy()

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    __index__ = __int__

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __repr__(self):
        return f"array({self._host!r} of CuPy)"


class Device:
    """The one GPU; None is the current one. Like CuPy's it has an equality and so no hash."""

    __module__ = "cupy.cuda.device"

    def __init__(self, index=None):
        self.id = index or 0

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Stream:
    """A stream, on which everything is done at once, unless it is captured."""

    ptr = 11

    def __init__(self, non_blocking=False):
        self.non_blocking = non_blocking

    def __enter__(self):
        cupy.streams.append(self)
        return self

    def __exit__(self, *_):
        assert cupy.streams.pop() is self

    def begin_capture(self):
        assert self.non_blocking and cupy.streams[-1] is self and cupy.pools
        Capture.now = Capture(cupy.pools[-1])

    def end_capture(self):
        capture, Capture.now = Capture.now, None
        return capture

    def synchronize(self):
        refused_in_capture("synchronize is disallowed")

    def is_capturing(self):
        return False

    def record(self):
        return self

    def wait_event(self, event):
        pass


def refused_in_capture(reason):
    if Capture.now is not None:
        raise RuntimeError(f"the current stream is capturing: {reason}")


def done(function, given, options=None):
    """Do what writes to arrays or, in a capture, write it down alone."""
    hosts, named = [host_of(value) for value in given], {n: host_of(value) for n, value in (options or {}).items()}
    if Capture.now is not None:
        return Capture.now.note(function, hosts, named)
    with np.errstate(all="ignore"):
        return function(*hosts, **named)


class MemoryPool:
    """Memory that is given out again as soon as it is free, which on a GPU is while work on it is still to be done."""

    def __init__(self):
        self.blocks, self.unused = [], {}

    def malloc(self, size):
        raise NotImplementedError

    def array(self, like):
        """An array of this form, with no numbers in it yet; its memory is kept when it goes."""
        size = max(1, like.nbytes)
        free = self.unused.setdefault(size, [])
        block = free.pop() if free else bytearray(size)
        self.blocks.append(block)
        owner = np.frombuffer(block, np.uint8)
        owner[...] = 255
        weakref.finalize(owner, free.append, block)
        order = sorted(range(like.ndim), key=lambda axis: -like.strides[axis])
        laid = owner[: like.nbytes].view(like.dtype).reshape([like.shape[axis] for axis in order])
        return laid.transpose(np.argsort(order))

    def owns(self, array):
        owner = owner_of(array).base
        owner = owner.obj if isinstance(owner, memoryview) else owner
        return any(owner is block for block in self.blocks)


def owner_of(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Place:
    """Where an array lies, which may be gone before work on it is done; then that is an error."""

    def __init__(self, array, pool):
        self.at, self.form = array.ctypes.data, (array.shape, array.dtype, array.strides)
        self.owner = None if pool.owns(array) else weakref.ref(owner_of(array))

    def array(self):
        assert self.owner is None or self.owner() is not None, "captured work is done on memory that is gone"
        shape, dtype, strides = self.form
        if 0 in shape:
            return np.empty(shape, dtype)
        last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True) if step > 0) + dtype.itemsize
        first = sum((n - 1) * step for n, step in zip(shape, strides, strict=True) if step < 0)
        memory = (ctypes.c_byte * (last - first)).from_address(self.at + first)
        return np.ndarray(shape, dtype, memory, -first, strides)


class Capture:
    """Work that was written down, and is done on the same memory by each launch."""

    now = None

    def __init__(self, pool):
        self._pool, self.work = weakref.ref(pool), []

    @property
    def pool(self):
        pool = self._pool()
        assert pool is not None, "captured work is done on memory that was given back"
        return pool

    def placed(self, value):
        if isinstance(value, np.ndarray):
            return Place(value, self.pool)
        return type(value)(map(self.placed, value)) if isinstance(value, tuple | list) else value

    def note(self, function, hosts, named):
        """Write down what is to be done; nothing has happened to any array yet."""
        self.work.append((function, self.placed(hosts), {n: self.placed(value) for n, value in named.items()}))

    def result(self, function, hosts, named, found):
        """What stands for a result: a view of what was given as it is, anything else without its numbers."""
        given = [array for array in flat((hosts, list(named.values()))) if isinstance(array, np.ndarray)]
        hosts, named = self.placed(hosts), {n: self.placed(value) for n, value in named.items()}

        def standing(part):
            if isinstance(part, tuple | list):
                return type(part)(map(standing, part))
            if not isinstance(part, np.ndarray | np.generic):
                return part
            part = np.asarray(part)
            if part.size and any(np.may_share_memory(part, array) for array in given):
                return part
            return self.pool.array(part)

        result = standing(found)
        if any(isinstance(part, np.ndarray) and self.pool.owns(part) for part in flat((result,))):
            self.work.append((copying(function), (self.placed(result), hosts), named))
        return wrapped(result)

    def launch(self):
        cupy.graphs += 1
        assert self.pool
        before = list(cupy.products)
        with np.errstate(all="ignore"):
            for function, hosts, named in self.work:
                function(*(laid(value) for value in hosts), **{name: laid(value) for name, value in named.items()})
        cupy.products = before  # they were asked for when they were written down


def laid(value):
    if isinstance(value, Place):
        return value.array()
    return type(value)(map(laid, value)) if isinstance(value, tuple | list) else value


def flat(tree):
    for part in tree:
        yield from flat(part) if isinstance(part, tuple | list) else (part,)


def copying(function):
    def run(to, hosts, **named):
        for place, found in zip(flat((to,)), flat((function(*hosts, **named),)), strict=True):
            if isinstance(place, np.ndarray) and not np.may_share_memory(place, np.asarray(found)):
                place[...] = found

    return run


class Event:
    """An event, which has happened when it is recorded; `recorded` is when, in milliseconds."""

    def record(self):
        self.recorded = time.perf_counter() * 1e3

    def synchronize(self):
        assert self.recorded


class MemoryHook:
    """What is called whenever memory is taken, between ``with`` and its end."""

    entered = ()

    def __enter__(self):
        MemoryHook.entered = (self,)

    def __exit__(self, *_):
        MemoryHook.entered = ()


def elementwise(inputs, output, operation, name):
    """An elementwise kernel as CuPy's manual has it: arguments by type and name, ``raw`` ones indexed, i counting."""
    types_of = {"e": "_Float16", "f": "float", "d": "double"}
    words = [text.split() for text in (*inputs.split(", "), output)]

    def run(*arguments):
        *given, out = (host_of(argument) for argument in arguments)
        kind = types_of[out.dtype.char]
        taken = ", ".join(f"{kind} *{w[-1]}" if w[0] == "raw" else f"int {w[-1]}" for w in words[:-1])
        made = words[-1][-1]
        body = f"for (int i = 0; i < count; i++) {{ T {made}; {operation} to[i] = {made}; }}"
        library = built(f'typedef {kind} T; extern "C" void run(int count, {taken}, T *to) {{ {body} }}')
        pointers = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in (*given, out)]
        library.run(out.size, *pointers)
        return Array(out)

    return run


def asarray(array, layout=None, dtype=None, shift=0):
    """An array whose axes lie in memory in this order, so many numbers behind a NaN, with NaNs all around."""
    array = np.asarray(array, dtype)
    order = tuple(range(array.ndim)) if layout is None else layout
    whole = np.full(array.size + 2 * FENCE + shift, np.nan, array.dtype)
    laid = whole[FENCE + shift : FENCE + shift + array.size].reshape([array.shape[i] for i in order])
    laid = laid.transpose(np.argsort(order))
    laid[...] = array
    return Array(laid)


@functools.cache
def compiled(file):
    """The kernels of a file as a library: functions of grid, threads, shared bytes and arguments, one an instance."""
    runs = (
        f'extern "C" void run_{i}(unsigned x, unsigned y, unsigned z, unsigned t, unsigned s, void **a) '
        f"{{ launch({instance}, {{x, y, z}}, t, s, a); }}\n"
        for i, instance in enumerate(sources.expressions(file))
    )
    return built(f'#include "cuda_on_host.h"\n{sources.source(file)}\n{"".join(runs)}')


@functools.cache
def built(text):
    """A library of the host's from this text."""
    with tempfile.TemporaryDirectory() as folder:
        code, library = pathlib.Path(folder, "kernels.cpp"), pathlib.Path(folder, "kernels.so")
        code.write_text(text)
        options = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", f"-I{pathlib.Path(__file__).parent}"]
        subprocess.run([COMPILER, *options, code, "-o", library], check=True)
        return ctypes.CDLL(str(library))


class Cupy(types.ModuleType):
    """The module: `launches` are the kernels that were run, `made` the arrays, `room` bytes for each of them."""

    def __init__(self):
        super().__init__("cupy")
        self.used = 0
        for name in dir(np):
            member = getattr(np, name)
            plain = name.startswith("_") or isinstance(member, type | types.ModuleType) or not callable(member)
            if not name.startswith("__") and not hasattr(Cupy, name):
                setattr(self, name, member if plain else on_arrays(member))
        for name in ("dtype", "isdtype", "issubdtype", "finfo", "iinfo", "result_type", "broadcast_shapes"):
            setattr(self, name, getattr(np, name))
        self.ElementwiseKernel = elementwise
        self.ndarray, self.__file__, self.__version__ = Array, __file__, "on the host"
        self.linalg, self.fft = (
            self._submodule(name, {n: on_arrays(getattr(getattr(np, name), n)) for n in getattr(np, name).__all__})
            for name in ("linalg", "fft")
        )
        properties = {"name": b"none, but the host", "major": 9, "minor": 0, "multiProcessorCount": 2}
        self.cuda = self._submodule(
            "cuda",
            {
                "Device": Device,
                "Event": Event,
                "MemoryHook": MemoryHook,
                "Stream": Stream,
                "cublas": types.SimpleNamespace(
                    gemmStridedBatchedEx=self.eager_gemm,
                    create=lambda: 7,
                    destroy=lambda handle: None,
                    setStream=lambda handle, stream: refused_in_capture("setStream"),
                ),
                "device": self._submodule("cuda.device", {"Device": Device}),
                "get_cublas_handle": lambda: 7,
                "get_elapsed_time": lambda start, stop: stop.recorded - start.recorded,
                "get_current_stream": lambda *_: self.streams[-1],
                "MemoryPool": MemoryPool,
                "using_allocator": self.using_allocator,
                "runtime": types.SimpleNamespace(
                    memGetInfo=lambda: (1000, 2000),
                    getDeviceCount=lambda: 1,
                    runtimeGetVersion=lambda: 0,
                    getDeviceProperties=lambda _: properties,
                ),
            },
        )
        strided = {
            "as_strided": lambda a, shape, strides: Array(np.lib.stride_tricks.as_strided(a._host, shape, strides))
        }
        self.lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(**strided))
        self.cupyx = types.ModuleType("cupyx")
        self.cupyx.empty_pinned = np.empty
        self.special = types.ModuleType("cupyx.scipy.special")
        self.special.erfc = on_arrays(lambda x: np.vectorize(math.erfc, otypes="d")(x).astype(x.dtype))
        self.reset()

    def _submodule(self, name, members):
        module = types.ModuleType(f"cupy.{name}")
        vars(module).update(members)
        return module

    @contextlib.contextmanager
    def using_allocator(self, allocator):
        self.pools.append(allocator.__self__)
        yield
        self.pools.pop()

    def modules(self):
        """The module and those in it, by name."""
        inside = (self.cuda, self.cuda.device, self.linalg, self.fft, self.cupyx, self.special)
        return {m.__name__: m for m in (self, *inside)}

    def reset(self):
        """Forget what was done."""
        self.launches, self.products, self.sent, self.made = [], [], [], []
        self.released, self.room, self.graphs = 0, math.inf, 0
        self.streams, self.pools = [Stream()], []
        Array.reads = 0

    def asarray(self, array, dtype=None, order=None, copy=None):
        """From the host too, which is where arrays come from; `sent` has their shapes."""
        if not isinstance(array, Array):
            refused_in_capture("H2D transfers are disallowed")
            self.sent.append(np.shape(array))
        elif Capture.now is not None:
            return on_arrays(np.asarray)(array, dtype, order=order, copy=copy)
        return Array(np.asarray(array._host if isinstance(array, Array) else array, dtype, order=order, copy=copy))

    def array(self, array, dtype=None, copy=True):
        return self.asarray(array, dtype, copy=copy)

    def empty(self, shape, dtype=float):
        """Full of NaNs, so that what nobody writes shows, and with a fence on both sides; too large is refused."""
        dtype, shape = np.dtype(dtype), (shape,) if isinstance(shape, int) else tuple(shape)
        count = math.prod(shape)
        if count * dtype.itemsize > self.room:
            raise MemoryError(f"Out of memory allocating {count * dtype.itemsize} bytes")
        if Capture.now is not None:
            return Array(Capture.now.pool.array(np.empty(shape, dtype)))
        whole = np.full(count + 2 * FENCE, 99 if dtype.kind in "iu" else np.nan, dtype)
        self.made.append((whole, whole.tobytes()))
        made = Array(whole[FENCE : FENCE + count].reshape(shape))
        self.used += made.nbytes
        weakref.finalize(made, self._freed, made.nbytes)
        for hook in MemoryHook.entered:
            hook.malloc_postprocess(device_id=0, size=made.nbytes, mem_size=made.nbytes, mem_ptr=1, pmem_id=1)
        return made

    def _freed(self, size):
        self.used -= size

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
        """A pool that counts what `empty` has made for as long as it lives."""

        def release():
            self.released += 1

        return types.SimpleNamespace(free_bytes=lambda: 24, free_all_blocks=release, used_bytes=lambda: self.used)

    def RawModule(self, *, code, options, name_expressions):
        assert code in [sources.source(file) for file in sources.FILES] and all(o.startswith("-") for o in options)

        def get_function(name):
            assert name in name_expressions
            file = next(file for file in sources.FILES if sources.source(file) == code)
            function = getattr(compiled(file), f"run_{sources.expressions(file).index(name)}")

            def launch(grid, block, arguments, shared_mem=0):
                assert shared_mem <= launch.max_dynamic_shared_size_bytes
                self.launches.append(name)
                values = [by_value(argument) for argument in arguments]

                def run(*arrays):
                    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
                    function(*grid, *(1,) * (3 - len(grid)), block[0], shared_mem, pointers)

                done(run, [argument for argument in arguments if isinstance(argument, Array)])

            launch.max_dynamic_shared_size_bytes = 48 << 10
            return launch

        return types.SimpleNamespace(get_function=get_function)

    def eager_gemm(self, handle, *given):
        refused_in_capture("cuBLAS is not called")
        self.gemm(handle, *given)

    def captured_gemm(self, handle, *given):
        """What cuBLAS does when it is asked past CuPy: the factors are taken at once, the matrices at each launch."""
        assert len(given) + 1 == len(graphs.SIGNATURE) and Capture.now is not None
        factors = {place: np.array((ctypes.c_byte * 16).from_address(given[place])) for place in (5, 14)}
        given = [factors[place].ctypes.data if place in factors else part for place, part in enumerate(given)]
        Capture.now.work.append((lambda *_, kept=factors: self.gemm(handle, *given), (), {}))
        return 0

    def gemm(self, handle, *given):
        """C = alpha op(A) op(B) + beta C for a stack of matrices, as cuBLAS's manual says it."""
        transa, transb, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb, stride_b, beta, *rest = given
        c, c_type, ldc, stride_c, batch, compute, algorithm = rest
        assert handle == 7 and algorithm == -1 and a_type == b_type
        assert lda >= max(1, k if transa else m) and ldb >= max(1, n if transb else k) and ldc >= max(1, m)
        wide = {68: np.float32, 77: np.float32, 70: np.float64}[compute]
        if a_type in (4, 5):
            wide = np.result_type(wide, np.complex64)
        self.products.append((np.dtype(KINDS[a_type]).name, compute))

        def matrices(at, kind, rows, columns, leading, stride):
            dtype = np.dtype(KINDS[kind])
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


class Library:
    """A function of a library that ctypes has loaded."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)


KINDS = {0: "f4", 1: "f8", 2: "f2", 4: "c8", 5: "c16", 14: "bfloat16"}  # by cudaDataType


def by_value(argument):
    """What a kernel gets: a pointer for an array, the bytes of a structure."""
    if argument is None or isinstance(argument, Array):
        return ctypes.c_void_p(None if argument is None else argument.data.ptr)
    assert argument.size == 1 and argument.dtype.names
    return (ctypes.c_byte * argument.nbytes).from_buffer_copy(argument.tobytes())


cupy = Cupy()


def install(monkeypatch):
    """Let it be CuPy, and the namespace of the standard that array-api-compat makes of CuPy be made of it."""
    for name in [name for name in sys.modules if f"{name}.".startswith(("cupy.", "array_api_compat.cupy."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(array_api_compat, "cupy", raising=False)
    for name, module in (cupy.modules() | _namespace).items():
        monkeypatch.setitem(sys.modules, name, module)
    if not _namespace:
        array_api_compat.array_namespace(Array(np.ones(1)))
        _namespace.update({n: m for n, m in sys.modules.items() if f"{n}.".startswith("array_api_compat.cupy.")})
    monkeypatch.setattr(array_api_compat, "cupy", _namespace["array_api_compat.cupy"], raising=False)
    runtime._kernel.cache_clear()
    library = types.SimpleNamespace(cublasGemmStridedBatchedEx=Library(cupy.captured_gemm))
    library.cublasSetWorkspace_v2 = lambda handle, place, size: 0
    monkeypatch.setattr(graphs, "_library", lambda: library)
    cupy.reset()
    return cupy


_namespace = {}


@pytest.hookimpl(tryfirst=True)
def pytest_configure():
    """Install it for a whole run."""
    install(pytest.MonkeyPatch())
