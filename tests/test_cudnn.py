"""cuDNN as an algorithm, on stand-ins: that it is told the truth, does no more than is allowed, can be missing."""

import sys
import threading
import time

import cudnn_on_host
import cupy_on_host
import numpy as np
import pytest
import reference as ref
from applying import value_and_gradients
from cases import normal
from hypothesis import given
from hypothesis import strategies as st
from test_cuda_kernels import DTYPES, LAYOUTS, placed, planned, rounded, same, several, weights
from test_geometry import geometries

import xpconv
from xpconv.algorithms import Plan
from xpconv.cuda import cudnn
from xpconv.cuda.cudnn import CuDnn
from xpconv.cuda.problems import Layout, countable, layout
from xpconv.selection.model import BY_KERNELS, choose
from xpconv.testing import assert_close
from xpconv.windows import Axis, Window, window

pytestmark = pytest.mark.skipif(cupy_on_host.COMPILER is None, reason="there is no C++ compiler here")
Graph, STREAM = cudnn_on_host.Graph, cupy_on_host.Stream.ptr


@pytest.fixture
def cupy(monkeypatch):
    cupy_on_host.install(monkeypatch)
    cudnn_on_host.install(monkeypatch)
    place = xpconv.backend("cupy")
    cupy_on_host.cupy.reset()
    yield place
    assert cupy_on_host.cupy.fences_stand()
    cudnn_on_host.forget()


# --- What it computes


@several
@given(
    geometry=geometries(),
    batch=st.integers(1, 2),
    counts=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
    dtype=DTYPES,
    layout=LAYOUTS,
)
def test_all_directions(cupy, geometry, batch, counts, bias, dtype, layout):
    (size, kernel, options), (groups, width, filters) = geometry, counts
    plan, way = Plan(planned(size, kernel, options), groups), CuDnn()
    assert way.supports(plan.window, groups)
    x = rounded(dtype, batch, width * groups, *size)
    w = rounded(dtype, filters * groups, width, *plan.window.kernel, seed=1)
    b = rounded(dtype, filters * groups, seed=2) if bias else None
    y = ref.conv(x, w, b, **options, groups=groups)
    last, kernels = placed(x, dtype, layout), weights(w, dtype)
    given_bias = None if b is None else cupy_on_host.asarray(b, None, dtype)
    Graph.runs.clear()
    for prepared in (None, way.prepare(kernels, plan)):
        found = way.convolve(last, kernels, given_bias, plan, prepared)
        same(found, y, dtype)
        assert dtype != "float16" or np.array_equal(np.moveaxis(found.get(), -1, 1), y.astype(dtype))  # rounded once
    dy = rounded(dtype, *y.shape, seed=3)
    dx, dw, _ = ref.conv_gradients(dy, x, w, **options, groups=groups)
    same(way.weight_gradient(last, placed(dy, dtype, layout), plan), dw, dtype, first=0)
    same(way.input_gradient(placed(dy, dtype, layout), kernels, plan), dx, dtype)
    directions = ["forward", "forward", "weight gradient", "input gradient"]
    assert [(direction, stream) for direction, _, _, stream in Graph.runs] == [(d, STREAM) for d in directions]
    assert cupy_on_host.cupy.fences_stand()


def test_weights_with_channels_last_are_read_where_they_are(cupy):
    weight = cupy.asarray(normal(4, 3, 2, 8)).transpose(0, 3, 1, 2)  # (O, C, KH, KW)
    laid = CuDnn().prepare(weight.transpose(2, 3, 1, 0), Plan(window((5, 5), (3, 2))))
    assert (laid.shape, laid.data.ptr) == ((4, 3, 2, 8), weight.data.ptr)


def test_nothing_is_planned_for_an_empty_batch(cupy):
    x, w = cupy.asarray(normal(0, 3, 7, 7), "float16"), cupy.asarray(normal(4, 3, 3, 3), "float16")
    y, pullback = xpconv.vjp(xpconv.conv, x, w, algorithm="cudnn")
    dx, dw = pullback(y)
    assert (y.shape, dx.shape) == ((0, 4, 5, 5), (0, 3, 7, 7))
    assert_close(dw, np.zeros((4, 3, 3, 3), "float16"), like=x)
    assert Graph.graphs == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("stride", [1, 2])
def test_operators_take_it_unasked_where_tensor_cores_may_multiply(cupy, dtype, stride):
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    x, w, b = rounded(kind, 2, 4, 7, 6), rounded(kind, 6, 2, 3, 3, seed=1), rounded(kind, 6, seed=2)
    options = {"stride": stride, "pad": ((0, 1), (2, 0)), "groups": 2}
    more = {"precision": "tf32"} if dtype == "float32" else {}
    arrays = [cupy_on_host.asarray(a, None, kind) for a in (x, w, b)]
    y, pullback = xpconv.vjp(xpconv.conv, *arrays, **options, **more)
    dy = rounded(kind, *y.shape, seed=3)
    gradients = pullback(cupy_on_host.asarray(dy, None, kind))
    rtol = {"float32": 1e-6, "float16": 2**-9, "bfloat16": 2**-6}[dtype]
    wanted = ref.conv(x, w, b, **options), *ref.conv_gradients(dy, x, w, **options)
    for actual, exact in zip((y, *gradients), wanted, strict=True):
        assert_close(actual, exact.astype(kind), like=arrays[0], rtol=rtol, atol=rtol)
    assert [direction for direction, *_ in Graph.runs] == ["forward", "input gradient", "weight gradient"]
    assert {frozenset(notes) for _, notes, *_ in Graph.runs} == {frozenset({"TENSOR_CORE"})}
    assert {name.partition("<")[0] for name in cupy_on_host.cupy.launches} == {"sum_rows"}  # the bias's gradient
    if dtype != "bfloat16":
        transposed = [a.astype(dtype) for a in (rounded(kind, 2, 6, 3, 3, seed=4), w, rounded(kind, 4, seed=5))]
        Graph.runs.clear()
        found, dy, gradients = value_and_gradients(cupy, xpconv.conv_transpose, transposed, stride=2, groups=2, **more)
        host = [a.astype("f8") for a in transposed]
        exact = ref.conv_transpose(*host, stride=2, groups=2)
        assert_close(found, exact.astype(dtype), like=found, rtol=rtol, atol=rtol)
        dy = dy.astype(dtype).astype("f8")
        exact = ref.conv_transpose_gradients(dy, *host[:2], stride=2, groups=2)
        for actual, wanted in zip(gradients, exact, strict=True):
            assert_close(actual, wanted.astype(dtype), like=found, rtol=rtol, atol=rtol)
        lowered = ["input gradient"] if dtype == "float32" else []
        assert [direction for direction, *_ in Graph.runs] == [*lowered, "forward", "weight gradient"]


# --- What it is asked for


@pytest.mark.parametrize(
    ("dtype", "options", "notes", "workspace"),
    [
        ("float32", {}, set(), 1024),
        ("float32", {"workspace": 1000}, set(), 0),
        ("float32", {"precision": "tf32"}, {"TENSOR_CORE"}, 4096),
        ("float32", {"precision": "tf32", "workspace": 4095}, {"TENSOR_CORE"}, 64),
        ("float16", {}, {"TENSOR_CORE"}, 4096),
        ("float64", {"precision": "tf32"}, {"TENSOR_CORE"}, 4096),  # which multiply float64 as it is
    ],
)
def test_a_plan_does_what_is_allowed_in_the_workspace_there_is(cupy, dtype, options, notes, workspace):
    x, w = (cupy.asarray(normal(*shape), dtype) for shape in ((2, 3, 6, 5), (4, 3, 3, 3)))
    y, pullback = xpconv.vjp(xpconv.conv, x, w, algorithm="cudnn", **options)
    pullback(y)
    assert [run[1:3] for run in Graph.runs] == [(frozenset(notes), workspace)] * 3


def test_narrow_numbers_are_not_transformed(cupy, monkeypatch):
    monkeypatch.setattr(cudnn_on_host, "PLANS", [({"FFT"}, 1), ({"WINOGRAD"}, 2), (set(), 3)])
    for dtype, size in (("float32", 1), ("float16", 3)):
        x, w = (cupy.asarray(normal(*shape), dtype) for shape in ((1, 2, 4, 4), (2, 2, 3, 3)))
        xpconv.conv(x, w, algorithm="cudnn")
        assert Graph.runs[-1][2] == size


def test_a_problem_is_planned_once_on_each_device(cupy, monkeypatch):
    x, w = (cupy.asarray(normal(*shape), "float16") for shape in ((2, 3, 6, 5), (4, 3, 3, 3)))
    for _ in range(3):
        y, pullback = xpconv.vjp(xpconv.conv, x, w)
        pullback(y)
    assert (len(Graph.graphs), len(Graph.runs)) == (3, 9)
    assert len({id(graph.handle) for graph in Graph.graphs}) == 1
    xpconv.conv(x[:1, ...], w)
    assert len(Graph.graphs) == 4
    monkeypatch.setattr(cudnn, "current_device", lambda: 1)
    xpconv.conv(x, w)
    assert len(Graph.graphs) == 5
    assert Graph.graphs[-1].handle is not Graph.graphs[0].handle


def test_threads_take_turns(cupy, monkeypatch):
    inside, together = [], []
    execute = Graph.execute

    def slow(self, *given, **options):
        inside.append(self)
        together.append(len(inside))
        time.sleep(0.01)
        execute(self, *given, **options)
        inside.remove(self)

    monkeypatch.setattr(Graph, "execute", slow)
    x, w = (cupy.asarray(normal(*shape), "float16") for shape in ((2, 3, 6, 5), (4, 3, 3, 3)))
    found = [None] * 4

    def work(i):
        found[i] = xpconv.conv(x, w)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1] * 4
    assert len(Graph.graphs) == 1
    for y in found:
        assert_close(y, found[0].get(), like=x, rtol=0)


# --- Who gets it unasked


def chosen(x, filters, groups=1, **options):
    plan = Plan(window(x.shape[1:-1], 3, pad=1), groups, **options)
    return next(name for name, way in BY_KERNELS.items() if way is choose("auto", x, filters, plan))


def test_auto_takes_it_for_what_tensor_cores_may_multiply(cupy, monkeypatch):
    def image(dtype, axes=2):
        return cupy.asarray(np.zeros((2, *(8,) * axes, 16)), dtype)

    assert chosen(image("float16"), 16) == "cudnn"
    assert chosen(image("float16", axes=1), 16) == "cudnn"
    assert chosen(image("float16"), 16, groups=4) == "cudnn"
    assert chosen(image("float32"), 16, precision="tf32") == "cudnn"
    assert chosen(image("float16"), 16, groups=16) == "depthwise"
    assert chosen(image("float32"), 16) == "direct"
    assert chosen(image("float64"), 16, precision="tf32") == "direct"
    monkeypatch.setenv("XPCONV_CUDNN", "0")
    cudnn_on_host.forget()
    assert chosen(image("float16"), 16) == "direct"
    monkeypatch.delenv("XPCONV_CUDNN")
    monkeypatch.setattr(sys.modules["cudnn"], "create_handle", lambda: exec("raise RuntimeError('no driver')"))
    cudnn_on_host.forget()
    assert chosen(image("float16"), 16) == "direct"
    monkeypatch.setitem(sys.modules, "cudnn", None)
    cudnn_on_host.forget()
    assert chosen(image("float16"), 16) == "direct"
    assert Graph.graphs == []


def test_what_it_has_no_plan_for_is_lowered_and_said_once(cupy):
    Graph.refused = staticmethod(lambda graph: graph.direction != "input gradient")
    x, w, b = rounded("float16", 2, 3, 6, 5), rounded("float16", 4, 3, 3, 3, seed=1), rounded("float16", 4, seed=2)
    given_arrays = [a.astype("float16") for a in (x, w, b)]
    with pytest.warns(RuntimeWarning, match=r"has no plan for conv_.* groups 1 \(no engine\): it is lowered") as said:
        for _ in range(2):
            y, dy, gradients = value_and_gradients(cupy, xpconv.conv, given_arrays, stride=2)
    assert len(said) == 2  # forward, and the weight's gradient
    assert [direction for direction, *_ in Graph.runs] == ["input gradient"] * 2
    wanted = ref.conv(x, w, b, stride=2), *ref.conv_gradients(dy.astype("float16").astype("f8"), x, w, stride=2)
    for actual, exact in zip((y, *gradients), wanted, strict=True):
        assert_close(actual, exact.astype("float16"), like=y, rtol=1e-3, atol=1e-3)


# --- Memory


def test_where_its_workspace_does_not_fit_another_plan_is_taken(cupy):
    x, w = (cupy.asarray(normal(*shape), "float16") for shape in ((2, 4, 8, 8), (4, 4, 3, 3)))
    y = xpconv.conv(x, w)
    assert Graph.runs[-1][2] == 4096
    cupy_on_host.cupy.room = y.nbytes
    assert_close(xpconv.conv(x, w), y.get(), like=x, rtol=0)
    assert Graph.runs[-1][2] == 64
    cupy_on_host.cupy.room = y.nbytes - 1
    with pytest.raises(MemoryError, match=f"takes {y.nbytes} bytes for its result and .* 1024 were free"):
        xpconv.conv(x, w)
    cupy_on_host.cupy.room = float("inf")


def test_where_no_plan_fits_it_is_lowered(cupy, monkeypatch):
    monkeypatch.setattr(cudnn_on_host, "PLANS", [(set(), 4096)])
    x, w = (cupy.asarray(normal(*shape), "float16") for shape in ((2, 4, 8, 8), (4, 4, 3, 3)))
    y = xpconv.conv(x, w, algorithm="direct")
    cupy_on_host.cupy.room = 1000
    with pytest.warns(RuntimeWarning, match="it is lowered"):
        found = xpconv.conv(x, w)
    assert_close(found, y.get(), like=x, rtol=1e-3)  # from products of other sizes
    cupy_on_host.cupy.room = float("inf")


# --- By name


def test_by_name_it_must_be_there(cupy, monkeypatch):
    x, w = cupy.asarray(np.ones((1, 2, 4, 4))), cupy.asarray(np.ones((2, 2, 3, 3)))
    monkeypatch.setitem(sys.modules, "cudnn", None)
    cudnn_on_host.forget()
    with pytest.raises(ImportError, match=r'needs cuDNN, which cannot be used \(.*\): pip install "xpconv\[cudnn\]"'):
        xpconv.conv(x, w, algorithm="cudnn")


def test_what_it_cannot_compute_is_refused(cupy):
    def ones(*shape, dtype="float32", make=cupy.asarray):
        return make(np.ones(shape, dtype))

    alone = "algorithm is 'cudnn', which computes CuPy arrays of up to 3 spatial axes alone; choose one of auto, direct"
    for make, axes, dtype in ((np.asarray, 2, "float32"), (cupy.asarray, 4, "float32"), (cupy.asarray, 2, "int64")):
        x, w = ones(1, 2, *(3,) * axes, dtype=dtype, make=make), ones(1, 2, *(2,) * axes, dtype=dtype, make=make)
        with pytest.raises(ValueError, match=alone):
            xpconv.conv(x, w, algorithm="cudnn")
    assert Graph.graphs == []


def test_a_survey_says_whether_it_is_there(cupy, monkeypatch):
    told = "by nvidia-cudnn-frontend 1.0, for CuPy arrays in TF32, float16 and bfloat16"
    assert cudnn.survey() == ("9.0.0", told)
    monkeypatch.setenv("XPCONV_CUDNN", "0")
    assert cudnn.survey() == ("9.0.0", "by nvidia-cudnn-frontend 1.0, asked for by name alone")
    monkeypatch.setattr(sys.modules["cudnn"], "backend_version", lambda: exec("raise RuntimeError('gone')"))
    cudnn_on_host.forget()
    version, told = cudnn.survey()
    assert version == "-"
    assert '(gone): pip install "xpconv[cudnn]"' in told


# --- In whole numbers


def test_channels_are_listed_second():
    assert layout((2, 5, 7, 3)) == Layout([2, 3, 5, 7], [105, 1, 21, 3])
    assert layout((4, 6, 5, 7, 3)) == Layout([4, 3, 6, 5, 7], [630, 1, 105, 21, 3])


@pytest.mark.parametrize(
    ("axis", "wanted"),
    [
        (Axis(8, 3, 1, 1, 1, 1, 8), True),
        (Axis(8, 3, 2, 0, 0, 1, 3), True),  # the last element is left over
        (Axis(8, 3, 1, -1, 0, 1, 5), False),  # the first one is taken away
        (Axis(8, 3, 1, 0, 0, 1, 4), False),  # there are two more windows
        (Axis(8, 3, 1, 0, 0, 1, 8), True),  # padded by as much as the windows reach
    ],
)
def test_windows_that_it_counts_alike(axis, wanted):
    assert countable(Window((axis,))) == wanted
    assert countable(Window((axis,) * 4)) is False
