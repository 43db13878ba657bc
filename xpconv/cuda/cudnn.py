"""cuDNN as one more algorithm, where it is installed: the extra `xpconv[cudnn]`.

The one file that calls cuDNN. A convolution of some shapes, dtype and precision is planned once on each device: the
first plan of cuDNN's own ranking that is allowed and fits the workspace. Nothing is measured, so the same plan is taken
each time.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from xpconv.algorithms import Plan
from xpconv.arrays.libraries import Array
from xpconv.cuda import problems
from xpconv.cuda.lowering import Lowering
from xpconv.cuda.problems import Problem, countable
from xpconv.cuda.runtime import Pool, current_device, current_stream, empty, pointer, settled
from xpconv.cuda.workspace import halving
from xpconv.windows import Window

_lock = threading.RLock()  # of the plans, and of the handles, which serve one thread at a time


@functools.cache
def library() -> Any:
    """Import cuDNN's Python interface and show that cuDNN is there; ImportError names the extra."""
    try:
        module = importlib.import_module("cudnn")
        module.backend_version()
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ImportError(
            f'algorithm "cudnn" needs cuDNN, which cannot be used ({reason}): pip install "xpconv[cudnn]" '
            '(or "xpconv[cudnn12]" beside CUDA 12)'
        ) from error
    return module


@functools.cache
def _handle(device: int) -> Any:
    return library().create_handle()


@functools.cache
def available() -> bool:
    """Whether cuDNN can be used on the current device, and is not switched off: XPCONV_CUDNN is not 0."""
    if switched_off():
        return False
    try:
        with _lock:
            _handle(current_device())
    except (ImportError, RuntimeError):
        return False
    return True


def switched_off() -> bool:
    """Whether nobody is to have cuDNN unasked."""
    return os.environ.get("XPCONV_CUDNN") == "0"


def survey() -> tuple[str, str]:
    """Return the version of cuDNN and what it is taken for; or "-" and how to get it."""
    try:
        module = library()
    except ImportError as error:
        return "-", str(error)
    taken = "asked for by name alone" if switched_off() else "for CuPy arrays in TF32, float16 and bfloat16"
    return module.backend_version_string(), f"by nvidia-cudnn-frontend {module.__version__}, {taken}"


class Computation:
    """A graph of one operation, and of a bias where it has one, with its plan on the current device."""

    def __init__(self, problem: Problem, limit: int, handle: Any) -> None:
        cudnn = library()
        kind = getattr(cudnn.data_type, problems.TYPES[problem.dtype])
        wide = cudnn.data_type.DOUBLE if problem.dtype == "float64" else cudnn.data_type.FLOAT
        graph = cudnn.pygraph(
            io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide, handle=handle, name="xpconv"
        )
        layouts, (operands, name) = problem.layouts(), problems.OPERANDS[problem.direction]
        given = {theirs: graph.tensor(**layouts[ours]._asdict(), data_type=kind) for theirs, ours in operands.items()}
        made = getattr(graph, problem.direction)(**given, **problem.options(), compute_data_type=wide)
        made.set_dim(layouts[name].dim).set_stride(layouts[name].stride)
        if problem.bias:
            given["bias"] = graph.tensor(**layouts["bias"]._asdict(), data_type=kind)
            made = graph.bias(input=made, bias=given["bias"], compute_data_type=wide)
            made.set_dim(layouts[name].dim).set_stride(layouts[name].stride)
        made.set_output(True).set_data_type(kind)
        for uid, tensor in enumerate((*given.values(), made), 1):
            tensor.set_uid(uid)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.deselect_numeric_notes([getattr(cudnn.numerical_note, note) for note in problem.barred()])
        graph.deselect_workspace_greater_than(limit)
        graph.check_support()
        graph.build_plans()
        self.graph, self.handle, self.workspace = graph, handle, int(graph.get_workspace_size())

    def run(self, arrays: Sequence[Array]) -> None:
        """Compute the last of the arrays of the others, on the current stream."""
        space = empty((self.workspace,), "uint8")
        library().set_stream(handle=self.handle, stream=current_stream())
        pointers = {uid: pointer(array) for uid, array in enumerate(arrays, 1)}
        self.graph.execute(pointers, pointer(space), handle=self.handle)


@functools.lru_cache(maxsize=4096)
def _planned(problem: Problem, limit: int, device: int) -> Computation | None:
    """Plan what takes no more workspace than this, or return None where cuDNN does not compute it."""
    try:
        return Computation(problem, limit, _handle(device))
    except library().cudnnGraphNotSupportedError as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(f"cuDNN has no plan for {problem} ({reason}): it is lowered", RuntimeWarning, stacklevel=2)
    return None


def _computed(problem: Problem, workspace: int, *given: Array) -> Array | None:
    """Compute what the problem says of some arrays, or return None where cuDNN does not."""
    if not problem.batch:
        return None
    dtype, device = given[0].dtype, current_device()
    with _lock:
        first = _planned(problem, workspace, device)
        if first is None:
            return None
        arrays = [_aligned(array) for array in given]

        def work(limit: int) -> Array | None:
            plan = first if first.workspace <= limit else _planned(problem, limit, device)
            if plan is None:
                return None
            made = empty(problem.shape(), dtype)
            plan.run([*arrays, made])
            return made

        return halving(work, problem.count() * dtype.itemsize, Pool(), first.workspace)


def _aligned(array: Array) -> Array:
    """Lay an array in memory in the order of its axes, where plans can read it."""
    array = settled(array)
    return array if pointer(array) % problems.ALIGNMENT == 0 else array.copy()


class CuDnn:
    """A convolution in each direction as one plan of cuDNN; what it has none for is lowered."""

    otherwise = Lowering()

    def supports(self, window: Window, groups: int) -> bool:
        """Whether there are at most three axes, and windows that sizes and paddings tell."""
        return countable(window)

    def adjoins(self, window: Window) -> bool:
        """Whether its own way is the better one, which it is where there is one."""
        return countable(window)

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C/G, O) to (O, *kernel, C/G)."""
        return settled(weight.transpose(-1, *range(weight.ndim - 1)))

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        arrays = [x, self.prepare(weight, plan) if prepared is None else prepared]
        fused = bias is not None and _narrow(x)  # so that it is rounded once
        problem = _problem(problems.FORWARD, x, plan, x.shape[-1], weight.shape[-1], fused)
        y = _computed(problem, plan.workspace, *arrays, *([bias] if fused else []))
        if y is None:
            return self.otherwise.convolve(x, weight, bias, plan)
        return y if fused else _plus(y, bias)

    def input_gradient(self, dy: Array, weight: Array, plan: Plan, bias: Array | None = None) -> Array:
        """Give every element its share of dy: (N, *output, O) and (*kernel, C/G, O) to (N, *size, C).

        A bias of narrow numbers, with which cuDNN rounds them twice, has it lowered.
        """
        dx = None
        if bias is None or not _narrow(dy):
            problem = _problem(problems.INPUT_GRADIENT, dy, plan, weight.shape[-2] * plan.groups, dy.shape[-1])
            dx = _computed(problem, plan.workspace, dy, self.prepare(weight, plan))
        return self.otherwise.input_gradient(dy, weight, plan, bias) if dx is None else _plus(dx, bias)

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
        dw = _computed(_problem(problems.WEIGHT_GRADIENT, x, plan, x.shape[-1], dy.shape[-1]), plan.workspace, x, dy)
        return self.otherwise.weight_gradient(x, dy, plan) if dw is None else dw.transpose(*range(1, dw.ndim), 0)


def _problem(direction: str, array: Array, plan: Plan, channels: int, filters: int, bias: bool = False) -> Problem:
    numbers = array.shape[0], channels, filters, plan.groups
    return Problem(direction, plan.window, *numbers, array.dtype.name, plan.precision, bias)


def _narrow(array: Array) -> bool:
    return array.dtype.name in problems.NARROW


def _plus(array: Array, bias: Array | None) -> Array:
    if bias is not None:
        array += bias
    return array
