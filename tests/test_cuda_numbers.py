"""What kernels and cuBLAS are told, in whole numbers: division, launches, windows, products; and cutting work finer."""

import ctypes
import gc
import math
import re
import weakref

import numpy as np
import pytest
from cases import normal
from hypothesis import example, given
from hypothesis import strategies as st

from xpconv.algorithms.toom_cook import transforms
from xpconv.cuda import geometry, products, sources
from xpconv.cuda.workspace import halving, pieces
from xpconv.testing import assert_close
from xpconv.windows import Axis, Window, window

# --- Launches and windows


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
@example(2**31 - 1, 1)
@example(2**31 - 1, 2**31 - 1)
@example(2**31 - 2, 2**31 - 1)
@example(2**31 - 1, 3)
def test_division_by_multiplying(n, divisor):
    for number in (n, n - n % divisor, max(0, n - n % divisor - 1)):
        same, multiplier, shift = geometry.divider(divisor)
        assert same == divisor
        assert multiplier < 2**32
        assert ((number * multiplier >> 32) + number) >> shift == number // divisor
        assert (number * multiplier >> 32) + number < 2**32


@pytest.mark.parametrize("divisor", [0, -1, 2**31])
def test_what_cannot_be_divided_by_is_refused(divisor):
    with pytest.raises(ValueError, match=f"divisor is {divisor}; give a number from 1 to"):
        geometry.divider(divisor)


@pytest.mark.parametrize("threads", [1, 255, 256, 257, 2**31 - 1])
def test_a_launch_has_a_thread_for_each_result_and_no_block_too_many(threads):
    (blocks,), (block,) = geometry.launch(threads)
    assert blocks * block >= threads > (blocks - 1) * block
    assert blocks * block < 2**32  # what a thread's number is counted in


def test_packs_are_whole():
    assert geometry.pack(4, 8, 16, -4, 0) == 4
    assert geometry.pack(4, 8, 6) == 1
    assert geometry.pack(2, 16) == 8
    assert geometry.pack(8, 2) == 2


def test_structures_are_told_field_by_field():
    plan = Window((Axis(5, 3, 2, 1, 2, 1, 3), Axis(7, 2, 1, 0, 0, 3, 4)))
    told = geometry.windows(plan, 99, batch=6, channels=12, groups=3, pack=2, strides=(1000, 100, 10, 1), slices=5)
    assert told["strides"].tolist() == [1000, 0, 100, 10, 1]
    assert [int(told[name]) for name in ("threads", "batch", "channels", "width")] == [99, 6, 12, 4]
    assert int(told["share"]) == math.ceil(6 * 12 / 5)
    assert [int(told[f"by_{n}"]["divisor"]) for n in ("packs", "group_packs", "width", "batch")] == [6, 2, 4, 6]
    names = ("size", "kernel", "stride", "before", "after", "dilation", "output")
    axes = [[int(axis[name]) for name in names] for axis in told["axes"]]
    assert axes == [[1, 1, 1, 0, 0, 1, 1], [5, 3, 2, 1, 2, 1, 3], [7, 2, 1, 0, 0, 3, 4]]
    assert [int(told["axes"][1][f"by_{n}"]["divisor"]) for n in ("size", "kernel", "stride", "output")] == [5, 3, 2, 3]


def test_structures_lie_in_memory_as_in_c():
    class Divider(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint) for name in ("divisor", "multiplier", "shift")]

    class AxisOfC(ctypes.Structure):
        _fields_ = [(n, ctypes.c_int if t == np.int32 else Divider) for n, (t, _) in geometry.AXIS.fields.items()]

    def of_c(dtype):
        if dtype.subdtype:
            return of_c(dtype.subdtype[0]) * dtype.subdtype[1][0]
        return {geometry.DIVIDER: Divider, geometry.AXIS: AxisOfC}.get(dtype) or np.ctypeslib.as_ctypes_type(dtype)

    class WindowsOfC(ctypes.Structure):
        _fields_ = [(name, of_c(kind)) for name, (kind, _) in geometry.WINDOWS.fields.items()]

    assert ctypes.sizeof(WindowsOfC) == geometry.WINDOWS.itemsize
    for name, (_, offset) in geometry.WINDOWS.fields.items():
        assert getattr(WindowsOfC, name).offset == offset
    assert [(kind, at) for kind, at in geometry.MEAN.fields.values()] == [(np.int32, 0), (np.int32, 4)]
    assert geometry.WINDOWS.itemsize < 4096  # what a launch passes by value


def test_what_a_kernel_cannot_count_is_refused():
    with pytest.raises(ValueError, match="there are 4 spatial axes; a kernel takes at most 3"):
        geometry.windows(window((2,) * 4, (1,) * 4), 1, batch=1, channels=1)
    for threads, batch in ((2**31, 1), (1, 2**30)):
        with pytest.raises(
            ValueError, match="threads or windows are more than 2147483647; give fewer images at a time"
        ):
            geometry.windows(window((2, 2), 1), threads, batch=batch, channels=1)


# --- The text of the kernels


@pytest.mark.parametrize("m", sources.SIZES)
def test_lines_of_code_are_winograds_matrices(m):
    code, found = sources.transform_code(m), {}
    for part in code.split("template <> struct ")[1:]:
        name = part[: part.index(" ")]
        columns = int(part.split("from = ")[1].split(",")[0])
        rows = [line.split("= ", 1)[1].rstrip(";") for line in part.splitlines() if line.strip().startswith("y[")]
        found[name] = np.array([[eval(row, {"A": float, "x": unit}) for unit in np.eye(columns)] for row in rows])
    matrices = transforms(m)
    wanted = {"Inputs": matrices.inputs, "Filters": matrices.filters, "Outputs": matrices.outputs}
    wanted |= {"OutputsBack": matrices.outputs.T, "FiltersBack": matrices.filters.T}
    assert list(found) == [f"{name}<{m}>" for name in wanted]
    for name, matrix in wanted.items():
        assert_close(found[f"{name}<{m}>"], matrix, rtol=0)


def test_instances_are_listed_once_and_their_kernels_are_there():
    for file in sources.FILES:
        instances = sources.expressions(file)
        assert len(instances) == len(set(instances))
        for instance in instances:
            kernel = rf"__global__ void (__launch_bounds__\([^()]*\)\s+)?{instance.partition('<')[0]}\("
            assert re.search(kernel, sources.source(file))
    assert "lower<Float16, 8>" in sources.expressions("lowering")
    assert "max_pool<float, 4, unsigned char>" in sources.expressions("pooling")
    assert "winograd_inputs<double, 4>" in sources.expressions("winograd")


# --- Products


@st.composite
def stacks(draw, batch, rows, columns):
    """A stack of matrices somewhere in a buffer: either order, with gaps, one for all or one each."""
    across = draw(st.booleans())
    lines, length = (columns, rows) if across else (rows, columns)
    leading = length + draw(st.integers(0, 3))
    shared = draw(st.booleans())
    step = 0 if shared else lines * leading + draw(st.integers(0, 3))
    steps = (step, 1, leading) if across else (step, leading, 1)
    if 1 in (rows, columns):  # a step that is never taken may be any
        steps = (
            step,
            *(draw(st.integers(0, 9)) if n == 1 else s for n, s in zip((rows, columns), steps[1:], strict=True)),
        )
    return products.Matrices((batch, rows, columns), steps)


def viewed(buffer, matrices):
    return np.lib.stride_tricks.as_strided(buffer, matrices.shape, [8 * step for step in matrices.strides])


def as_cublas_reads(buffer, transposed, rows, columns, leading, stride, batch):
    """A stack of matrices stored column by column, as cuBLAS's manual has it."""
    stored = (columns, rows) if transposed else (rows, columns)
    assert leading >= max(1, stored[0])
    found = np.lib.stride_tricks.as_strided(buffer, (batch, *stored), (8 * stride, 8, 8 * leading))
    return found.swapaxes(1, 2) if transposed else found


@given(st.data(), st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)))
def test_cublas_is_asked_for_the_product(data, sizes):
    batch, m, n, k = sizes
    a, b = data.draw(stacks(batch, m, k)), data.draw(stacks(batch, k, n))
    c = data.draw(stacks(batch, m, n).filter(lambda c: batch == 1 or c.strides[0]))
    memory = [normal(400, seed=i) for i in range(3)]
    try:
        plan = products.gemm(a, b, c)
    except ValueError as error:  # of a matrix of one line a step that is never taken may stand in the way
        assert 1 in (m, n, k) and "one after the other" in str(error)
        return
    left, right = (memory[1], memory[0]) if plan.swapped else (memory[0], memory[1])
    first = as_cublas_reads(left, plan.transa, plan.m, plan.k, plan.lda, plan.stride_a, batch)
    second = as_cublas_reads(right, plan.transb, plan.k, plan.n, plan.ldb, plan.stride_b, batch)
    as_cublas_reads(memory[2], products.PLAIN, plan.m, plan.n, plan.ldc, plan.stride_c, batch)[...] = first @ second
    assert_close(viewed(memory[2], c), viewed(memory[0], a) @ viewed(memory[1], b))


def test_matrices_in_the_order_of_their_axes_are_multiplied_where_they_lie():
    def rows(batch, m, n):
        return products.stack((batch, m, n), (m * n, n, 1))

    assert products.gemm(rows(2, 3, 4), rows(2, 4, 5), rows(2, 3, 5)) == (True, 0, 0, 5, 3, 4, 5, 20, 4, 12, 5, 15, 2)
    turned = rows(2, 4, 3).transposed
    assert products.gemm(turned, rows(2, 4, 5), rows(2, 3, 5))[:6] == (True, 0, 1, 5, 3, 4)
    assert products.stack((3, 4), (4, 1)) == ((1, 3, 4), (0, 4, 1))


@pytest.mark.parametrize(
    ("a", "b", "c", "words"),
    [
        (
            ((1, 3, 4), (0, 4, 1)),
            ((1, 5, 2), (0, 2, 1)),
            ((1, 3, 2), (0, 2, 1)),
            "give .B, M, K., .B, K, N., .B, M, N.",
        ),
        (((1, 3, 4), (0, 8, 2)), ((1, 4, 2), (0, 2, 1)), ((1, 3, 2), (0, 2, 1)), "a has shape .* without overlapping"),
        (((1, 3, 4), (0, 2, 1)), ((1, 4, 2), (0, 2, 1)), ((1, 3, 2), (0, 2, 1)), "a has shape .* without overlapping"),
        (((1, 3, 4), (0, 4, 1)), ((1, 4, 2), (0, 4, 2)), ((1, 3, 2), (0, 2, 1)), "b has shape .* without overlapping"),
        (((1, 3, 4), (0, 4, 1)), ((1, 4, 2), (0, 2, 1)), ((1, 3, 2), (0, 4, 2)), "c has strides"),
        (((2, 3, 4), (0, 4, 1)), ((2, 4, 2), (0, 2, 1)), ((2, 3, 2), (0, 2, 1)), "c has strides"),
        (((1, 2**31, 4), (0, 4, 1)), ((1, 4, 2), (0, 2, 1)), ((1, 2**31, 2), (0, 2, 1)), "beyond 2147483647"),
    ],
)
def test_what_cublas_cannot_read_is_refused(a, b, c, words):
    with pytest.raises(ValueError, match=words):
        products.gemm(*(products.Matrices(*each) for each in (a, b, c)))


def test_float32_is_strict_unless_asked_otherwise():
    assert products.compute_type("float32", "float32") == 68
    assert products.compute_type("float32", "tf32") == 77
    assert products.compute_type("complex64", "tf32") == 77
    assert {products.compute_type(d, p) for d in ("float16", "bfloat16") for p in ("float32", "tf32")} == {68}
    assert {products.compute_type(d, p) for d in ("float64", "complex128") for p in ("float32", "tf32")} == {70}
    assert [products.scalar_type(d) for d in ("float16", "bfloat16", "float64", "complex64")] == [
        "float32",
        "float32",
        "float64",
        "complex64",
    ]
    with pytest.raises(TypeError, match="cuBLAS multiplies no int32; give one of float32"):
        products.compute_type("int32", "float32")


# --- Cutting work finer


@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 9), st.integers(1, 100))
def test_pieces_cover_everything_once_and_hold_what_they_may(batch, rows, size, limit):
    seen = np.zeros((batch, rows), int)
    for images, windows in pieces(batch, rows, size, limit):
        seen[images, windows] += 1
        taken = (images.stop - images.start) * (windows.stop - windows.start)
        assert taken * size <= max(limit, size)
        assert windows == slice(0, rows) or images.stop - images.start == 1
    assert (seen == 1).all()


class Buffer:
    """Memory that is taken while this lives."""


class Limited:
    """A device with so many bytes, and a pool that counts what it hands out and is given back."""

    def __init__(self, room):
        self.room, self.taken, self.releases = room, 0, 0

    def take(self, size):
        if self.taken + size > self.room:
            raise MemoryError(f"no room for {size}")
        buffer = Buffer()
        self.taken += size
        weakref.finalize(buffer, self._give_back, size)
        return buffer

    def _give_back(self, size):
        self.taken -= size

    def free(self):
        return self.room - self.taken

    def release(self):
        self.releases += 1


@pytest.mark.parametrize(
    ("room", "got", "releases"), [(100, 100, 0), (99, 50, 1), (50, 50, 1), (30, 25, 2), (10, 10, 4)]
)
def test_work_is_done_in_half_the_memory_until_it_fits(room, got, releases):
    memory, sizes = Limited(room), []

    def work(size):
        sizes.append(size)
        half = memory.take(size // 2), memory.take(size - size // 2)  # the first part is held when the second fails
        return len(half), size

    gc.disable()  # what a failed attempt took must be free at once, without the collector
    try:
        assert halving(work, 7, memory, 100, 10) == (2, got)
    finally:
        gc.enable()
    assert memory.releases == releases
    assert memory.taken == 0


def test_what_cannot_fit_says_what_it_needed_and_what_was_free():
    memory = Limited(9)
    with pytest.raises(MemoryError) as caught:
        halving(memory.take, 7, memory, 1000, 10)
    assert str(caught.value) == (
        "this takes 7 bytes for its result and 10 of workspace, and 9 were free (no room for 10); "
        "give fewer images at a time"
    )
    assert memory.taken == 0
    assert isinstance(halving(memory.take, 7, memory, 9, 1), Buffer)  # the pool goes on


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(ZeroDivisionError):
        halving(lambda size: size // 0, 7, Limited(9), 8, 1)
