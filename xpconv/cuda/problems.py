"""What cuDNN is told of a convolution, in whole numbers: dims, strides, paddings, and which plans are not to be taken.

There are no arrays and no cuDNN here, so all of it is tested without them. Arrays lie in memory in the order of their
axes: x (N, *size, C), y (N, *output, O), and the filters (O, *kernel, C/G); cuDNN lists channels second wherever they
lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from xpconv.cuda.geometry import AXES, contiguous
from xpconv.windows import Axis, Window

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "conv_fprop", "conv_dgrad", "conv_wgrad"  # methods of cuDNN's graphs
OPERANDS = {  # by the direction: the two that are given and the one that is made, by cuDNN's names and ours
    FORWARD: ({"image": "x", "weight": "filters"}, "y"),
    INPUT_GRADIENT: ({"loss": "y", "filter": "filters"}, "x"),
    WEIGHT_GRADIENT: ({"image": "x", "loss": "y"}, "filters"),
}
TYPES = {"float64": "DOUBLE", "float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}  # cudnn.data_type
NARROW = ("float16", "bfloat16")
ALIGNMENT = 16  # bytes that an address is a multiple of, as plans take for granted


class Layout(NamedTuple):
    """An array as cuDNN lists its axes: channels second."""

    dim: list[int]
    stride: list[int]


def layout(shape: tuple[int, ...]) -> Layout:
    """Return the layout of an array (N, *size, C) that lies in memory in the order of its axes."""
    order = (0, len(shape) - 1, *range(1, len(shape) - 1))
    strides = contiguous(shape)
    return Layout([shape[i] for i in order], [strides[i] for i in order])


def after(axis: Axis) -> int:
    """Return the padding behind an axis that its windows reach into."""
    return max(0, axis.margin[1])


def countable(window: Window) -> bool:
    """Whether cuDNN, told of sizes and paddings, finds the same windows: it takes no elements away."""
    return len(window.axes) <= AXES and all(
        axis.before >= 0 and (axis.size + axis.before + after(axis) - axis.extent) // axis.stride + 1 == axis.output
        for axis in window.axes
    )


@dataclass(frozen=True)
class Problem:
    """One direction of a convolution of arrays that are not empty: what a plan is made for, and kept under."""

    direction: str
    window: Window
    batch: int
    channels: int
    filters: int
    groups: int
    dtype: str
    precision: str
    bias: bool = False  # added before what is made is rounded

    def __str__(self) -> str:
        told = {"size": self.window.size, "kernel": self.window.kernel, **self.options(), "groups": self.groups}
        numbers = ", ".join(f"{name} {number}" for name, number in told.items())
        plus = " and a bias" if self.bias else ""
        return (
            f"{self.direction} of {self.batch} x {self.channels} {self.dtype}, {self.filters} filters{plus}, {numbers}"
        )

    def layouts(self) -> dict[str, Layout]:
        """Return how all arrays lie; one axis counts as the second of two, as cuDNN knows two and three."""
        one = (1,) * (2 - len(self.window.axes))
        shapes = {
            "x": (self.batch, *one, *self.window.size, self.channels),
            "filters": (self.filters, *one, *self.window.kernel, self.channels // self.groups),
            "y": (self.batch, *one, *self.window.output, self.filters),
            "bias": (1, *one, *(1 for _ in self.window.axes), self.filters),
        }
        return {name: layout(shape) for name, shape in shapes.items()}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of what is made."""
        return {
            FORWARD: (self.batch, *self.window.output, self.filters),
            INPUT_GRADIENT: (self.batch, *self.window.size, self.channels),
            WEIGHT_GRADIENT: (self.filters, *self.window.kernel, self.channels // self.groups),
        }[self.direction]

    def count(self) -> int:
        """Return how many numbers are made."""
        return math.prod(self.shape())

    def options(self) -> dict[str, list[int]]:
        """Return paddings, strides and dilations, by cuDNN's names."""
        axes, missing = self.window.axes, 2 - len(self.window.axes)
        return {
            "pre_padding": [*[0] * missing, *(axis.before for axis in axes)],
            "post_padding": [*[0] * missing, *(after(axis) for axis in axes)],
            "stride": [*[1] * missing, *(axis.stride for axis in axes)],
            "dilation": [*[1] * missing, *(axis.dilation for axis in axes)],
        }

    def barred(self) -> list[str]:
        """Name what a plan may not do (cudnn.numerical_note): give other bits each time, or round where nobody asked.

        The tensor cores multiply float32 as TF32. Winograd's and Fourier's transforms of narrow numbers would be
        rounded on the way.
        """
        notes = ["NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "WINOGRAD_TILE_13x13"]
        if self.dtype == "float32" and self.precision == "float32":
            notes.append("TENSOR_CORE")
        return [*notes, "WINOGRAD", "FFT"] if self.dtype in NARROW else notes
