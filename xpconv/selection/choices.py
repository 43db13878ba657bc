"""Which algorithm was found to be fastest for which task, and files that keep it from one process to the next.

A file is JSON: for each machine, said in words, its tasks and the algorithm of each. So a file may travel: the choices
of another machine stay in it and are not taken.
"""

from __future__ import annotations

import json
import pathlib
import platform
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xpconv.algorithms import Plan
from xpconv.cuda.problems import NARROW
from xpconv.durability import replacing
from xpconv.execution.blas import openblas
from xpconv.selection.model import ALGORITHMS, BY_KERNELS
from xpconv.windows import Axis, Window

HEAD = "choices of xpconv.tune, by machine"

KERNELS, CUDNN = " and kernels", " and cuDNN"  # behind the name of a library where they are there
SUMS = {"direct", "depthwise"}  # that add up what there is to add up, in one order or another
FEW = 8  # channels of a group up to which one tap and channel at a time may be worth a try


@dataclass(frozen=True)
class Task:
    """What is to be computed, and where: equal tasks are computed in the same way.

    Attributes
    ----------
    work : str
        "convolve", "convolve, weight prepared", "input gradient" or "weight gradient".
    library, device, dtype : str
        Of the arrays; with the library's version, and what computes beside it.
    shape : tuple of int
        (N, *size, C) of the input, or (N, *output, O) of what an input gradient is of.
    filters : int
        O, or C of an input gradient.
    plan : Plan
    threads : int
        Of this library's own.
    """

    work: str
    library: str
    device: str
    dtype: str
    shape: tuple[int, ...]
    filters: int
    plan: Plan
    threads: int


Choices = dict[Task, str]


def candidates(task: Task) -> list[str]:
    """Name the algorithms that compute a task within the documented errors, and may be worth a try."""
    window, groups = task.plan.window, task.plan.groups
    ways, kernels = BY_KERNELS | ALGORITHMS, KERNELS in task.library
    tensor_cores = kernels and (task.dtype in NARROW or (task.dtype, task.plan.precision) == ("float32", "tf32"))
    allowed = SUMS | {"implicit", "cudnn"} if tensor_cores else ways.keys() if task.dtype == "float32" else SUMS
    out = {"winograd"} if len(window.axes) > 2 else set()
    out |= {"depthwise"} if task.shape[-1] // groups > FEW else set()
    out |= {"fft"} if window.taps == 1 else set()
    out |= {"implicit"} if not tensor_cores else set()
    out |= {"cudnn"} if CUDNN not in task.library else set()
    return [name for name in ways if name in allowed - out and ways[name].supports(window, groups)]


def read(path: pathlib.Path) -> Choices:
    """Return what a file keeps for this machine; nothing where there is no file yet.

    Raises
    ------
    OSError
        When it cannot be read, or there is no directory for it.
    ValueError
        When it is another kind of file, or damaged.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no directory for {path}")
    try:
        return dict(map(_choice, _everything(path).get(machine(), [])))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no file of choices, or damaged ({type(error).__name__}: {error}); name another, or remove it"
        ) from error


def add(path: pathlib.Path, choices: Choices) -> None:
    """Add choices to what a file keeps for this machine and for others, unless it has them already."""
    known = read(path)
    if known | choices != known:
        kept = [asdict(task) | {"algorithm": name} for task, name in (known | choices).items()]
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({HEAD: _everything(path) | {machine(): kept}}, indent=1) + "\n")


def machine() -> str:
    """Say in words what times depend on besides the task: versions, the BLAS, the processor."""
    version, blas = sys.modules["xpconv"].__version__, openblas()
    kernels = f"OpenBLAS for {blas.core}" if blas else "another BLAS than OpenBLAS"
    return f"xpconv {version}, NumPy {np.__version__}, {kernels}, {_processor()}"


def _processor() -> str:
    try:
        models = re.findall(r"^model name\s*: (.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def _everything(path: pathlib.Path) -> dict[str, Any]:
    """Return the choices of every machine, as they stand in the file."""
    machines: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))[HEAD] if path.exists() else {}
    return machines


def _choice(record: dict[str, Any]) -> tuple[Task, str]:
    plan = record["plan"]
    window = Window(tuple(Axis(**axis) for axis in plan["window"]["axes"]))
    changed = {"plan": Plan(**plan | {"window": window}), "shape": tuple(record["shape"])}
    name = record["algorithm"]
    task = Task(**{key: value for key, value in record.items() if key != "algorithm"} | changed)
    if name not in candidates(task):
        raise ValueError(f"algorithm {name!r} for a task that takes one of {', '.join(candidates(task))}")
    return task, name
