"""The house: on which floor each file lives, who names array libraries, and how long a file may be.

Imports are drawn from the code, those inside functions too. A file imports from lower floors only, never from its own.
"""

import ast
import fnmatch
import pathlib
import re

import pytest

import xpconv

ROOT = pathlib.Path(xpconv.__file__).parent

FLOORS = [  # from the ground up; a star stands for every file of a folder
    ["algorithms.toom_cook", "compiled.compiler", "durability", "optimizers.hyperparameters", "windows.axis"],
    [
        "arrays.libraries",
        "compiled.calls",
        "compiled.counters",
        "execution.blas",
        "execution.workspace",
        "windows.geometry",
    ],
    ["arrays.arguments", "arrays.backends", "arrays.layout", "execution.steps", "shards", "windows.transposition"],
    ["arrays.broadcasting", "arrays.frozen", "arrays.precision", "execution.recording", "execution.workers"],
    ["arrays", "compiled.turns", "execution.elementwise", "execution.tasks", "windows"],
    ["execution.products", "operators", "windows.frames"],
    ["execution", "algorithms", "windows.patches", "windows.reductions"],
    [
        "algorithms.depthwise",
        "algorithms.direct",
        "algorithms.fourier",
        "algorithms.widened",
        "algorithms.winograd",
        "compiled.lines",
        "cuda.collectives",
        "cuda.geometry",
        "cuda.products",
        "cuda.workspace",
        "testing.comparison",
    ],
    ["algorithms.fft", "compiled.meetings", "compiled.registers", "testing.gradients"],
    ["compiled.padding", "compiled.slides", "compiled.sweeps", "compiled.tiles", "cuda.problems", "cuda.sources"],
    ["compiled.laying", "cuda.runtime"],
    ["compiled.*"],
    ["cuda.graphs", "cuda.pooling", "cuda.rows", "cuda.winograd"],
    ["cuda.lowering"],
    ["compiled", "cuda.cudnn", "cuda.depthwise", "cuda.implicit"],
    ["cuda"],
    ["fusions", "selection", "selection.model", "testing"],
    ["selection.choices"],
    ["selection.tuning"],
    ["selection.adjoint", "testing.plugin"],
    ["ops.distributions", "ops.resampling", "ops.standardization"],
    ["ops.*"],
    ["ops"],
    ["layers.layer"],
    ["layers.*"],
    ["layers"],
    ["networks.initializers", "networks.weights", "optimizers.rules"],
    ["networks.network", "optimizers.weight_decay"],
    ["networks.convnets"],
    ["networks", "optimizers"],
    ["data.augmentation", "data.files", "data.prefetching", "distributed.ranks"],
    ["data.datasets", "training.history", "training.replaying", "training.schedules", "training.states"],
    ["data.sources"],
    ["data.streaming", "training.trainer"],
    ["data", "distributed.data_parallel", "training.*"],
    ["distributed", "training"],
    [""],  # xpconv itself: the public names
    ["catalogue"],
    ["bench", "bench.book", "bench.clocks", "bench.layers"],
    ["bench.devices", "bench.problems", "bench.results"],
    ["bench.contenders"],
    ["bench.frameworks", "bench.memory", "bench.plots"],
    ["bench.gpu", "bench.measuring"],
    ["bench.gpu_table"],
    ["bench.growth", "bench.report"],
    ["bench.command"],
    ["cli"],
    ["__main__"],
]

ARRAY_LIBRARIES = r"cupy|cupyx|torch|jax|jaxlib"
NAMING = ["arrays.libraries"]  # the library; what one of them has beyond arrays; and, to be measured against them:
NAMING += ["cuda.runtime", "cuda.collectives"]
NAMING += ["bench.devices", "bench.frameworks", "bench.gpu"]


def modules():
    """Every module of the package by its name behind "xpconv."."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def floor_of(module):
    """The one floor whose names fit; an exact name goes before a star."""
    exact = [i for i, names in enumerate(FLOORS) if module in names]
    starred = [i for i, names in enumerate(FLOORS) for n in names if "*" in n and fnmatch.fnmatchcase(module, n)]
    found = exact or starred
    assert len(found) == 1, f"{module or 'xpconv'} is on {len(found)} floors: add it to one of FLOORS"
    return found[0]


def imported(name, path):
    """The modules of the package that a file imports, at its head or anywhere else."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join(["xpconv", *above, *filter(None, [node.module])])
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            parts = target.split(".")
            if parts[0] != "xpconv":
                continue
            inside = ".".join(parts[1:])
            found.add(inside if inside in MODULES else ".".join(parts[1:-1]))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    mine = floor_of(name)
    wrong = {other: floor_of(other) for other in imported(name, MODULES[name]) if floor_of(other) >= mine}
    assert not wrong, f"{name or 'xpconv'} on floor {mine} imports from {wrong}"


def test_every_floor_is_lived_on():
    for names in FLOORS:
        for name in names:
            assert any(fnmatch.fnmatchcase(module, name) for module in MODULES), f"nothing is called {name}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import xpconv.ops.pooling", {"ops.pooling"}),
        ("from xpconv.ops.pooling import max_pool", {"ops.pooling"}),
        ("from xpconv.ops import pooling", {"ops.pooling"}),
        ("from xpconv import conv", {""}),
        ("from xpconv import windows, conv", {"windows", ""}),
        ("from .direct import lower", {"algorithms.direct"}),
        ("from ..windows import window", {"windows"}),
        ("from .. import windows", {"windows"}),
        ("def f():\n    from xpconv import windows", {"windows"}),
        ("import numpy", set()),
    ],
)
def test_no_import_is_overlooked(tmp_path, code, expected):
    path = tmp_path / "direct.py"
    path.write_text(code)
    assert imported("algorithms.direct", path) == expected


# --- Who names array libraries


def named_libraries(tree):
    """Names of array libraries in the code: imported, as variables and attributes, or as strings that are modules."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        if node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        texts = []
        if isinstance(node, ast.Import):
            texts = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom):
            texts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            texts = re.split(r"[^A-Za-z_]+", node.value)  # a library's module is lower case, its name in prose is not
        for text in texts:
            if re.fullmatch(rf"(is_)?({ARRAY_LIBRARIES})(_array|_namespace)?", text):
                yield text


def test_one_file_names_array_libraries():
    naming = {name: sorted(set(named_libraries(ast.parse(path.read_text())))) for name, path in MODULES.items()}
    assert sorted(name for name, found in naming.items() if found) == sorted(NAMING), naming


@pytest.mark.parametrize(
    "code",
    [
        "import torch.nn",
        "from jax import numpy",
        "from array_api_compat import cupy",
        "array_api_compat.is_torch_array(x)",
        "importlib.import_module('jax.numpy')",
        "if 'cupy' in sys.modules: pass",
        "xp = torch",
    ],
)
def test_no_name_of_a_library_is_overlooked(code):
    assert list(named_libraries(ast.parse(code)))


def test_prose_may_name_libraries():
    assert not list(named_libraries(ast.parse('"""Like torch."""\nprint("CuPy and PyTorch arrays")  # not jax')))


# --- Files


@pytest.mark.parametrize("name", MODULES)
def test_a_file_can_be_read_in_one_sitting(name):
    assert len(MODULES[name].read_text().splitlines()) <= 300


@pytest.mark.parametrize("name", MODULES)
def test_every_file_says_what_it_is(name):
    assert ast.get_docstring(ast.parse(MODULES[name].read_text()))


def test_no_drawer_for_odds_and_ends():
    assert not {"utils", "util", "helpers", "misc", "common"} & {part for name in MODULES for part in name.split(".")}
