"""Implicit GEMM on a GPU: convolutions by the tensor cores that gather the windows themselves, without lowering.

References
----------
Chetlur et al., "cuDNN: efficient primitives for deep learning" (2014), section 3.2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from xpconv.algorithms import Plan
from xpconv.arrays.libraries import Array
from xpconv.cuda import geometry
from xpconv.cuda.lowering import Lowering
from xpconv.cuda.runtime import (
    capability,
    empty,
    fitting,
    multiprocessors,
    pack_of,
    pointer,
    run_blocks,
    settled,
    strides,
)
from xpconv.cuda.sources import TENSOR_TYPES, TILES, TYPES, expression
from xpconv.windows import Window

SPAN, CHUNK, STAGES, WARP = 64, geometry.PACK, 3, 64  # of kernels/tensor_cores.cuh
LEAST = 8  # tiles of terms that a slice of a weight gradient adds up at least
WORTH = 300  # filters whose products take as long as to lower what they are products of


class Tile(NamedTuple):
    """What a block makes: this many times 64 rows of 64 columns, by a warp each."""

    rows: int
    columns: int

    @property
    def threads(self) -> int:
        """Threads of the block."""
        return 32 * self.rows * self.columns

    def cover(self, rows: int, columns: int) -> int:
        """Return how many such tiles so many results take."""
        return math.ceil(rows / (WARP * self.rows)) * math.ceil(columns / (WARP * self.columns))

    def shared(self, itemsize: int, *along: bool) -> int:
        """Return the bytes of shared memory for the terms of rows and of columns, which lie along or across."""
        lines, terms = (WARP * self.rows, WARP * self.columns), SPAN // itemsize
        sizes = [n * (SPAN + CHUNK) if a else terms * (n + 8) * itemsize for n, a in zip(lines, along, strict=True)]
        return STAGES * sum(sizes)


def tiles(columns: int) -> list[Tile]:
    """Return the tiles that are not half empty with so many columns, from the largest."""
    return [tile for sizes in TILES if (tile := Tile(*sizes)).columns == 1 or columns > WARP]


def pays(x: Array, filters: int, plan: Plan) -> bool:
    """Whether to gather the windows is possible, and faster than to lower them.

    What is lowered goes through memory twice, which takes as long as the products with some `WORTH` filters lose here:
    cuBLAS multiplies twice as fast, and faster still where there are not two large tiles for every multiprocessor.
    """
    if plan.window.identical or not _serves(x, filters, plan):
        return False
    width = filters // plan.groups
    made = tiles(width)[0].cover(x.shape[0] * math.prod(plan.window.output), width) * plan.groups
    room = 2 * multiprocessors()
    return width * math.ceil(made / room) * room < WORTH * made


class ImplicitGemm:
    """Narrow floats, and float32 as TF32, of whole tiles of channels; all else is lowered."""

    otherwise = Lowering()

    def supports(self, window: Window, groups: int) -> bool:
        """Whether there are at most three axes."""
        return self.otherwise.supports(window, groups)

    def prepare(self, weight: Array, plan: Plan) -> Array:
        """(*kernel, C/G, O), lying so that the kernels can read it."""
        return _legible(weight, plan.groups)

    def convolve(self, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None) -> Array:
        """Sum over the taps and channels of every window: (N, *size, C) to (N, *output, O)."""
        if not _serves(x, weight.shape[-1], plan):
            return self.otherwise.convolve(x, weight, bias, plan)
        shape = (x.shape[0], *plan.window.output, weight.shape[-1])

        def work() -> Array:
            y = empty(shape, x.dtype)
            self.convolve_into(y, x, weight, bias, plan, prepared)
            return y

        return fitting(work, shape, x.dtype)

    def convolve_into(
        self, y: Array, x: Array, weight: Array, bias: Array | None, plan: Plan, prepared: Array | None = None
    ) -> None:
        """Write what `convolve` gives to an array, whose elements may lie anywhere."""
        filters = y.shape[-1] // plan.groups
        if not _serves(x, y.shape[-1], plan) or strides(y)[-1] != 1 or any(n % 2 for n in strides(y)[:-1]):
            y[...] = self.otherwise.convolve(x, weight, bias, plan)
            return
        weight = self.prepare(weight, plan) if prepared is None else prepared
        x, bias, along = _packed(x, plan.groups), settled(bias), strides(weight)[-2] == 1
        windows, able = x.shape[0] * math.prod(plan.window.output), tiles(filters)
        enough = (t for t in able if t.cover(windows, filters) * plan.groups >= 2 * multiprocessors())
        chosen = next(enough, able[-1])
        run_blocks(
            "implicit",
            expression("implicit", x.dtype.name, str(along).lower(), *chosen),
            (chosen.cover(windows, filters), plan.groups, 1),
            chosen.threads,
            chosen.shared(x.itemsize, True, along),
            x,
            weight,
            bias,
            y,
            _told(x, plan),
            geometry.filters(filters, strides(weight)),
            geometry.places(strides(y)),
        )

    def weight_gradient(self, x: Array, dy: Array, plan: Plan) -> Array:
        """Correlate the input with dy: (N, *size, C) and (N, *output, O) to (*kernel, C/G, O)."""
        if not _serves(x, dy.shape[-1], plan):
            return self.otherwise.weight_gradient(x, dy, plan)
        x, dy, window, filters = _packed(x, plan.groups), settled(dy), plan.window, dy.shape[-1] // plan.groups
        width, count = x.shape[-1] // plan.groups, x.shape[0] * math.prod(window.output)
        chosen = tiles(filters)[0]
        blocks = chosen.cover(window.taps * width, filters)
        slices = max(1, min(2 * multiprocessors() // (blocks * plan.groups), count * x.itemsize // (SPAN * LEAST)))
        shape = (slices, *window.kernel, width, dy.shape[-1])

        def work() -> Array:
            dw = empty(shape, x.dtype if slices == 1 else "float32")
            run_blocks(
                "implicit",
                expression("implicit_weight_gradient", x.dtype.name, TYPES[dw.dtype.name], *chosen),
                (blocks, plan.groups, slices),
                chosen.threads,
                chosen.shared(x.itemsize, False, False),
                x,
                dy,
                dw,
                _told(x, plan, slices),
                geometry.filters(filters, strides(dw)[1:]),
            )
            return dw[0] if slices == 1 else dw.sum(axis=0).astype(x.dtype, copy=False)

        return fitting(work, shape, "float32")


def _serves(x: Array, filters: int, plan: Plan) -> bool:
    """Whether the kernels compute this: by tensor cores that may, on whole tiles, and where there is anything to do."""
    dtype, packs = x.dtype.name, CHUNK // x.itemsize
    allowed = dtype in TENSOR_TYPES and (dtype != "float32" or plan.precision == "tf32")
    whole = x.shape[-1] % (SPAN // x.itemsize * plan.groups) == 0 and filters % (packs * plan.groups) == 0
    some = x.size > 0 and filters > 0
    return allowed and whole and some and capability() >= (8, 0)


def _packed(x: Array, groups: int) -> Array:
    """Lay an array out so that packs of its channels can be read, if it does not lie so."""
    return x if pack_of(x, groups=groups) > 1 else settled(x)


def _legible(weight: Array, groups: int) -> Array:
    """Lay filters out so that packs can be read along channels or across filters, if they do not lie so."""
    packs, steps = CHUNK // weight.itemsize, strides(weight)
    for axis in (-1, -2):
        others = [step for i, step in enumerate(steps) if i != weight.ndim + axis]
        if steps[axis] == 1 and all(n % packs == 0 for n in (pointer(weight) // weight.itemsize, *others)):
            return weight
    return settled(weight)


def _told(x: Array, plan: Plan, slices: int = 1) -> geometry.Struct:
    return geometry.windows(
        plan.window, 0, batch=x.shape[0], channels=x.shape[-1], groups=plan.groups, strides=strides(x), slices=slices
    )
