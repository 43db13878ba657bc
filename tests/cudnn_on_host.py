"""As much of cuDNN's Python interface as this library calls, on the host's memory, by the loops.

What it computes follows from nothing but the dims, strides, paddings and addresses that it is told; calls come in the
order that cuDNN asks for, or they are refused. Its plans are a few that rank as cuDNN's do: the fastest may do what a
caller has not allowed.

``PYTHONPATH=tests python -m pytest -p cupy_on_host -p cudnn_on_host --backend cupy`` runs any tests on it.
"""

import ctypes
import enum
import math
import sys
import types

import numpy as np
import pytest
import reference as ref

from xpconv.cuda import cudnn

Kind = enum.Enum("data_type", "NOT_SET FLOAT DOUBLE HALF BFLOAT16")
Mode = enum.Enum("heur_mode", "A B FALLBACK OPENSOURCE")
Note = enum.Enum(
    "numerical_note",
    "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION FFT NONDETERMINISTIC WINOGRAD WINOGRAD_TILE_4x4 "
    "WINOGRAD_TILE_6x6 WINOGRAD_TILE_13x13 STRICT_NAN_PROP",
)
NUMPY = {Kind.FLOAT: "f4", Kind.DOUBLE: "f8", Kind.HALF: "f2", Kind.BFLOAT16: "bfloat16"}
PLANS = [  # in order of rank: what each does, and the bytes of its workspace
    ({"TENSOR_CORE", "NONDETERMINISTIC"}, 0),
    ({"DOWN_CONVERT_INPUTS", "TENSOR_CORE"}, 0),
    ({"WINOGRAD", "WINOGRAD_TILE_13x13"}, 0),
    ({"REDUCED_PRECISION_REDUCTION"}, 0),
    ({"TENSOR_CORE"}, 4096),
    ({"TENSOR_CORE"}, 64),
    (set(), 1024),
    (set(), 0),
]


class GraphNotSupported(Exception):
    """What cuDNN raises where it has no plan."""


class Tensor:
    """A tensor of a graph, described by calls that can be chained."""

    def __init__(self, dim=None, stride=None, data_type=None):
        self.dim, self.stride, self.data_type, self.uid, self.output = dim, stride, data_type, None, False

    def _set(self, name, value):
        setattr(self, name, value)
        return self

    def set_uid(self, uid):
        return self._set("uid", uid)

    def set_output(self, value):
        return self._set("output", value)

    def set_dim(self, value):
        return self._set("dim", value)

    def set_stride(self, value):
        return self._set("stride", value)

    def set_data_type(self, value):
        return self._set("data_type", value)

    def at(self, address):
        """The array (N, C, ...) at an address."""
        dtype = np.dtype(NUMPY[self.data_type])
        count = 1 + sum((n - 1) * step for n, step in zip(self.dim, self.stride, strict=True))
        memory = np.frombuffer((ctypes.c_byte * (count * dtype.itemsize)).from_address(address), dtype)
        return np.lib.stride_tricks.as_strided(memory, self.dim, [step * dtype.itemsize for step in self.stride])


class Graph:
    """A graph of one convolution, and of a bias if there is one.

    `graphs` are all that were made, `runs` those that were executed, one entry each.
    """

    graphs, runs = [], []
    refused = staticmethod(lambda graph: False)
    STEPS = ("tensor", "operation", "validate", "build_operation_graph", "create_execution_plans", "build_plans")

    def __init__(self, *, name, io_data_type, intermediate_data_type, compute_data_type, handle):
        wide = Kind.DOUBLE if io_data_type is Kind.DOUBLE else Kind.FLOAT
        assert compute_data_type is intermediate_data_type is wide
        self.kind, self.wide, self.handle, self.barred, self.limit = io_data_type, wide, handle, set(), math.inf
        self.step, self.given, self.made, self.sum = 0, [], None, None
        self.graphs.append(self)

    def _follows(self, name, *before):
        at = self.STEPS.index(name)
        assert self.step in ({at - 1, at} if before else {at - 1}), f"{name} after {self.STEPS[self.step]}"
        self.step = at

    def tensor(self, *, dim, stride, data_type):
        assert self.step < self.STEPS.index("validate") and data_type is self.kind and len(dim) == len(stride) in (4, 5)
        self.given.append(Tensor(dim, stride, data_type))
        return self.given[-1]

    def _operation(self, direction, given, pre_padding, post_padding, stride, dilation, compute_data_type):
        self._follows("operation")
        assert given == self.given and compute_data_type is self.wide
        self.direction, self.made = direction, Tensor()
        self.options = {
            "pad": list(zip(pre_padding, post_padding, strict=True)),
            "stride": stride,
            "dilation": dilation,
        }
        assert min(map(min, self.options["pad"])) >= 0
        return self.made

    def conv_fprop(self, *, image, weight, **options):
        return self._operation("forward", [image, weight], **options)

    def conv_dgrad(self, *, loss, filter, **options):
        return self._operation("input gradient", [loss, filter], **options)

    def conv_wgrad(self, *, image, loss, **options):
        return self._operation("weight gradient", [image, loss], **options)

    def bias(self, *, input, bias, compute_data_type):
        assert self.direction == "forward" and input is self.made and bias is self.given[2]
        assert compute_data_type is self.wide
        self.sum, self.made = input, Tensor()
        return self.made

    def validate(self):
        """What is told must be one convolution, of arrays that lie channels last without gaps."""
        self._follows("validate")
        assert self.made.output and self.made.data_type is self.kind
        (first, second, *bias), made = [tensor.dim for tensor in self.given], self.made.dim
        if self.sum is not None:
            assert not self.sum.output and self.sum.dim == made and self.sum.stride == self.made.stride
            assert bias == [[1, made[1], *[1] * len(made[2:])]]
        x, w, y = {
            "forward": (first, second, made),
            "input gradient": (made, second, first),
            "weight gradient": (first, made, second),
        }[self.direction]
        self.groups = x[1] // w[1]
        assert (x[1], y[0], y[1]) == (w[1] * self.groups, x[0], w[0]) and w[0] % self.groups == 0
        assert tuple(y[2:]) == ref.plan(x[2:], w[2:], **self.options)[1]
        for tensor in (*self.given, self.made):
            order = [0, *range(2, len(tensor.dim)), 1]
            shape = [tensor.dim[i] for i in order]
            assert [tensor.stride[i] for i in order] == [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        self.sizes = x, w

    def build_operation_graph(self):
        self._follows("build_operation_graph")
        assert [tensor.uid for tensor in (*self.given, self.made)] == list(range(1, len(self.given) + 2))

    def create_execution_plans(self, modes):
        self._follows("create_execution_plans")
        assert modes == [Mode.A, Mode.FALLBACK]

    def deselect_numeric_notes(self, notes):
        assert self.step == self.STEPS.index("create_execution_plans")
        self.barred |= {note.name for note in notes}

    def deselect_workspace_greater_than(self, limit):
        self.limit = limit

    def check_support(self):
        if self.refused(self):
            raise GraphNotSupported("no engine\nsupports it")

    def build_plans(self):
        self._follows("build_plans")
        plans = [(notes, size) for notes, size in PLANS if not notes & self.barred and size <= self.limit]
        if not plans:
            raise GraphNotSupported("no plan is left")
        self.notes, self.workspace = plans[0]

    def get_workspace_size(self):
        return self.workspace

    def execute(self, arrays, workspace, handle):
        assert self.step == self.STEPS.index("build_plans") and handle is self.handle
        assert all(type(address) is int and address % 16 == 0 for address in arrays.values())
        ctypes.memset(workspace, 255, self.workspace)
        given = [tensor.at(arrays[tensor.uid]).astype("f8") for tensor in self.given]
        with np.errstate(all="ignore"):
            self.made.at(arrays[self.made.uid])[...] = self._result(*given)
        self.runs.append((self.direction, frozenset(self.notes), self.workspace, handle.stream))

    def _result(self, first, second, bias=None):
        options = {**self.options, "groups": self.groups}
        if self.direction == "forward":
            return ref.conv(first, second, None if bias is None else bias.ravel(), **options)
        x, w = map(np.zeros, self.sizes)
        if self.direction == "input gradient":
            return ref.conv_gradients(first, x, second, **options)[0]
        return ref.conv_gradients(second, first, w, **options)[1]


def set_stream(*, handle, stream):
    handle.stream = stream


def module():
    """cuDNN's module, on which nothing was computed yet."""
    Graph.graphs, Graph.runs, Graph.refused = [], [], staticmethod(lambda graph: False)
    made = types.ModuleType("cudnn")
    made.__version__, made.backend_version, made.backend_version_string = "1.0", lambda: 90000, lambda: "9.0.0"
    made.data_type, made.heur_mode, made.numerical_note = Kind, Mode, Note
    made.pygraph, made.cudnnGraphNotSupportedError = Graph, GraphNotSupported
    made.create_handle, made.set_stream = types.SimpleNamespace, set_stream
    return made


def forget():
    """Let cuDNN be found anew, and all be planned anew."""
    for function in (cudnn.library, cudnn.available, cudnn._handle, cudnn._planned):
        function.cache_clear()


def install(monkeypatch):
    """Let it be cuDNN."""
    made = module()
    monkeypatch.setitem(sys.modules, "cudnn", made)
    forget()
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_configure():
    """Install it for a whole run."""
    install(pytest.MonkeyPatch())
