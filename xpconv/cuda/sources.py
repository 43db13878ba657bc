"""The kernels' text: what is in ``kernels/``, with Winograd's matrices written in front as lines of code.

A kernel is a template; it is asked for by an expression such as ``lower<float, 4>``, and `expressions` lists all that
there are.
"""

from __future__ import annotations

import functools
import importlib.resources
import itertools

import numpy as np

from xpconv.algorithms.toom_cook import transforms
from xpconv.cuda.geometry import PACK

OPTIONS = ("-std=c++17", "--fmad=true")
TYPES = {"float32": "float", "float64": "double", "float16": "Float16", "bfloat16": "BFloat16"}
ITEMSIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
BYTE = 255  # taps that a byte counts

PACKED = {  # kernels that take packs of channels, by their file
    "lowering": ("lower", "lower_adjoint"),
    "pooling": ("avg_pool", "avg_pool_gradient"),
    "rows": ("repeat_row", "sum_rows"),
    "depthwise": ("depthwise", "depthwise_input_gradient", "depthwise_weight_gradient"),
}
MARKED = {"pooling": ("max_pool", "max_pool_gradient")}  # and say besides in what a tap is counted
SIZES = 2, 4  # of Winograd's tiles
TILED = {  # kernels that take the m of Winograd's F(m, 3); a tile of float16 would lose too much between transforms
    "winograd": (
        "winograd_inputs",
        "winograd_outputs",
        "winograd_output_gradients",
        "winograd_filters",
        "winograd_filter_gradients",
    )
}
TENSOR_CORES = ("implicit",)  # files of kernels whose blocks make tiles of results by the tensor cores
TENSOR_TYPES = ("float32", "float16", "bfloat16")  # what those multiply, float32 as TF32
TILES = ((2, 2), (2, 1), (1, 1))  # of results of a block, in 64 rows and 64 columns


@functools.cache
def expression(kernel: str, dtype: str, *parameters: int | str) -> str:
    """Name the instance of a template for a dtype and its other parameters."""
    return f"{kernel}<{', '.join(map(str, (TYPES[dtype], *parameters)))}>"


def expressions(file: str) -> list[str]:
    """List the instances of all kernels in a file that may be asked for."""
    found = []
    for dtype, itemsize in ITEMSIZES.items():
        widths = (1, PACK // itemsize)
        found += [expression(kernel, dtype, v) for kernel in PACKED.get(file, ()) for v in widths]
        marks = itertools.product(MARKED.get(file, ()), widths, (tap_type(1), tap_type(BYTE + 1)))
        found += [expression(kernel, dtype, v, mark) for kernel, v, mark in marks]
        if itemsize >= 4:
            found += [expression(kernel, dtype, m) for kernel in TILED.get(file, ()) for m in SIZES]
        if file in TENSOR_CORES and dtype in TENSOR_TYPES:
            for tile in TILES:
                found += [expression("implicit", dtype, along, *tile) for along in ("false", "true")]
                made = dict.fromkeys((TYPES[dtype], "float"))
                found += [expression("implicit_weight_gradient", dtype, out, *tile) for out in made]
    return found


def tap_type(taps: int) -> str:
    """Return the type that holds the number of one of so many taps."""
    return "unsigned char" if taps <= BYTE else "int"


FILES = sorted({*PACKED, *MARKED, *TILED, *TENSOR_CORES})


@functools.cache
def source(file: str) -> str:
    """Return the whole text of a file of kernels, as a compiler takes it."""
    texts = [_text("common.cuh"), _text(f"{file}.cu")]
    if file in TILED:
        texts[1:1] = [transform_code(m) for m in SIZES]
    if file in TENSOR_CORES:
        texts[1:1] = [_text("tensor_cores.cuh")]
    return "\n".join(texts)


def transform_code(m: int) -> str:
    """Write what the matrices of F(m, 3), and the transposes of two of them, do to one line."""
    matrices = transforms(m)
    lines = {
        "Inputs": matrices.inputs,
        "Filters": matrices.filters,
        "Outputs": matrices.outputs,
        "OutputsBack": matrices.outputs.T,
        "FiltersBack": matrices.filters.T,
    }
    templates = "".join(f"template <int M> struct {name};\n" for name in lines) if m == min(SIZES) else ""
    return templates + "".join(_line_code(name, m, matrix) for name, matrix in lines.items())


def _line_code(name: str, m: int, matrix: np.ndarray) -> str:
    rows = "".join(f"        y[{i}] = {_sum_code(row)};\n" for i, row in enumerate(matrix))
    return (
        f"template <> struct {name}<{m}> {{\n"
        f"    static const int from = {matrix.shape[1]}, to = {matrix.shape[0]};\n"
        "    template <typename A>\n"
        f"    static __device__ __forceinline__ void apply(const A (&x)[{matrix.shape[1]}], A (&y)[{matrix.shape[0]}])"
        f" {{\n{rows}    }}\n}};\n"
    )


def _sum_code(row: np.ndarray) -> str:
    """Write a row of a matrix times a line: nothing for a 0, and no product for a 1."""
    terms = [
        ("-" if factor < 0 else "+") + (f"x[{j}]" if abs(factor) == 1 else f"A({abs(float(factor))!r}) * x[{j}]")
        for j, factor in enumerate(row)
        if factor
    ]
    return " ".join(terms).removeprefix("+")


def _text(name: str) -> str:
    return (importlib.resources.files("xpconv.cuda") / "kernels" / name).read_text()
