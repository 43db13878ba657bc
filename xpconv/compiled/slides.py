"""Windows that slide along an axis, their taps side by side, so that what one of them reads serves its neighbours.

Targets whose windows follow each other so are one slide: all of them; or, with dilation or for elements that get their
share of a gradient back, those of one residue. Some of a slide's targets at a time stay in registers, and what a
column of the source has for them is read once.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from xpconv.compiled.calls import Told, told
from xpconv.compiled.counters import Table
from xpconv.compiled.registers import REGISTERS, Count, Writer
from xpconv.windows import Axis

numba: Any = importlib.import_module("numba")
cgutils: Any = importlib.import_module("numba.core.cgutils")
extending: Any = importlib.import_module("numba.extending")
ir: Any = importlib.import_module("llvmlite.ir")

MOST = 7  # targets that are taken at a time


class Slides(NamedTuple):
    """Where slides lie, a number for each.

    Attributes
    ----------
    first, step, length : table
        Of their targets.
    start, pitch : table
        Where the first column of the first target is, which may be beside the source, and how far columns are apart.
    low, high : table
        From which column up to which there is a source.
    taps : table
        Columns of a target.
    """

    first: Table
    step: Table
    length: Table
    start: Table
    pitch: Table
    low: Table
    high: Table
    taps: Table


Shape = tuple[Count, Count, Count]  # of a tile: its targets, their stride in columns, and vectors of each column


class Course(NamedTuple):
    """The slides of an axis, which taps each has in the order of its columns, and their stride in columns."""

    slides: Told[Slides]
    taps: tuple[tuple[int, ...], ...]
    stride: int

    @property
    def most(self) -> int:
        """Return the largest number of taps; all slides have as many or one less, or none."""
        return max(map(len, self.taps), default=0)

    @property
    def columns(self) -> Count:
        """Return as many as the largest number of taps."""
        return (None,) * self.most

    def shape(self, vectors: int) -> Shape:
        """Choose how many targets to take at a time, of those that fit into registers with one tap of each column."""
        tall = max(2, min(MOST, (REGISTERS - 2) // vectors - self.most - 1))
        return (None,) * tall, (None,) * self.stride, (None,) * vectors


@functools.lru_cache(maxsize=256)
def course(axis: Axis, *, adjoint: bool = False) -> Course:
    """Tell how the windows of an axis slide over its elements; or its elements over its windows."""
    if not adjoint:
        return _course([(axis, range(axis.output), range(axis.kernel))])
    phases = axis.phases()
    return _course([(p.axis, range(axis.size)[p.elements], range(axis.kernel)[p.taps][::-1]) for p in phases])


def _course(parts: list[tuple[Axis, range, range]]) -> Course:
    """Cut parts, each with its targets and taps, into slides; they have one stride in common."""
    rows, taps, strides = [], [], {1}
    for axis, targets, numbers in parts:
        common = math.gcd(axis.stride, axis.dilation)
        strides = {axis.stride // common}
        for some in (targets[r :: axis.dilation // common] for r in range(axis.dilation // common)):
            if some:
                start = targets.index(some[0]) * axis.stride - axis.before
                low, high = -(start // axis.dilation), -((start - axis.size) // axis.dilation)
                rows.append((some[0], some.step, len(some), start, axis.dilation, low, high, len(numbers)))
                taps.append(tuple(numbers))
    (stride,) = strides
    return Course(told(Slides(*np.array(rows, np.int64).reshape(-1, 8).T.copy())), tuple(taps), stride)


class Tile:
    """Some targets side by side, and what they meet in a row: written down for those columns that are there."""

    def __init__(self, builder: Any, writer: Writer, shape: Any, taps: int, bounds: Any) -> None:
        self.builder, self.writer, self.taps = builder, writer, taps
        self.tall, self.stride, self.wide = map(len, shape)
        self.low, self.high, self.live = cgutils.unpack_tuple(builder, bounds, 3)

    def columns(self, row: Any, pitch: Any) -> Iterator[tuple[list[Any], list[tuple[int, int]]]]:
        """Give what is read of each column, with the targets that meet it and by which taps."""
        for j in range((self.tall - 1) * self.stride + self.taps):
            met = [(t, j - t * self.stride) for t in range(self.tall) if 0 <= j - t * self.stride < self.taps]
            if met:
                column = self.writer.word(j)
                above = self.builder.icmp_signed("<=", self.low, column)
                with self.builder.if_then(self.builder.and_(above, self.builder.icmp_signed("<", column, self.high))):
                    yield self.vectors(self.writer.after(row, self.builder.mul(pitch, column))), met

    def targets(self, first: Any, step: Any) -> Iterator[tuple[int, Any]]:
        """Give each target that is there, and its place."""
        for t in range(self.tall):
            with self.builder.if_then(self.builder.icmp_signed("<", self.writer.word(t), self.live)):
                yield t, self.writer.after(first, self.builder.mul(step, self.writer.word(t)))

    def vectors(self, pointer: Any) -> list[Any]:
        """Read all vectors from here."""
        return [self.writer.load(pointer, v) for v in range(self.wide)]


@extending.intrinsic  # type: ignore[untyped-decorator]
def weigh(
    context: Any,
    shape: Any,
    taps: Any,
    places: Any,
    bias: Any,
    x: Any,
    pitch: Any,
    bounds: Any,
    rows: Any,
    sources: Any,
    numbers: Any,
    weight: Any,
    y: Any,
    step: Any,
    columns: Any,
) -> Any:
    """Write to a tile of targets the bias and the sum over their taps, for some vectors of channels.

    Parameters
    ----------
    shape : (count, count, count)
        Of the tile.
    taps : count
        Columns of each target.
    places : (int, int, int, int)
        Where in the arrays begin the bias, row 0 of the source with its first column, the weight, and the first target.
    bias, weight : array
        So many vectors; and as many for each row and column.
    x, pitch
        The source, and how far its columns are apart.
    bounds : (int, int, int)
        From which column up to which there is a source, and how many of the targets are there.
    rows : (int, int, int)
        From which up to which of the entries below to add up, and how far rows are apart.
    sources, numbers : table
        Rows of the source, and by which row of the weight they are met.
    y, step, columns
        The targets, how far they are apart, and how many channels there are.
    """
    kinds = (shape, taps, places, bias, x, pitch, bounds, rows, sources, numbers, weight, y, step, columns)

    *_, wide = map(len, shape)

    def write(compiler: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = {
            i: compiler.make_array(kind)(compiler, builder, given[i]).data
            for i, kind in enumerate(signature.args)
            if isinstance(kind, numba.types.Array)
        }
        writer = Writer(compiler, builder, x.dtype, given[13], wide)
        tile = Tile(builder, writer, shape, len(taps), given[6])
        arrays = zip((data[3], data[4], data[10], data[11]), cgutils.unpack_tuple(builder, given[2], 4), strict=True)
        begin, origin, kernels, target = (writer.after(*each) for each in arrays)
        sums = [[cgutils.alloca_once_value(builder, value) for value in tile.vectors(begin)] for _ in range(tile.tall)]
        first, last, row = cgutils.unpack_tuple(builder, given[7], 3)
        size = writer.word(len(taps) * wide * writer.lanes)
        with cgutils.for_range_slice(builder, first, last, writer.word(1)) as (i, _):
            source, number = (builder.load(builder.gep(data[table], [i])) for table in (8, 9))
            kernel = writer.after(kernels, builder.mul(number, size))
            factors = [
                tile.vectors(writer.after(kernel, writer.word(k * wide * writer.lanes))) for k in range(len(taps))
            ]
            for values, met in tile.columns(writer.after(origin, builder.mul(source, row)), given[5]):
                for (t, k), v in itertools.product(met, range(wide)):
                    writer.add_product(sums[t][v], values[v], factors[k][v])
        for t, place in tile.targets(target, given[12]):
            for v in range(wide):
                writer.store(builder.load(sums[t][v]), place, v)
        return compiler.get_dummy_value()

    return numba.types.void(*kinds), write


@extending.intrinsic  # type: ignore[untyped-decorator]
def correlate(
    context: Any,
    shape: Any,
    taps: Any,
    places: Any,
    sums: Any,
    x: Any,
    pitch: Any,
    bounds: Any,
    dy: Any,
    step: Any,
    columns: Any,
) -> Any:
    """Add to the sums of some taps, a few vectors each, the products of their columns and a tile of targets `dy`.

    `places` say where the sums, the columns and the targets begin; the other parameters are those of `weigh`.
    """
    kinds = (shape, taps, places, sums, x, pitch, bounds, dy, step, columns)

    *_, wide = map(len, shape)

    def write(compiler: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = (compiler.make_array(signature.args[i])(compiler, builder, given[i]).data for i in (3, 4, 7))
        writer = Writer(compiler, builder, x.dtype, given[9], wide)
        begun = zip(arrays, cgutils.unpack_tuple(builder, given[2], 3), strict=True)
        into, source, found = (writer.after(*each) for each in begun)
        tile, size = Tile(builder, writer, shape, len(taps), given[6]), writer.word(wide * writer.lanes)
        lines = [writer.after(into, builder.mul(size, writer.word(k))) for k in range(len(taps))]
        totals = [[cgutils.alloca_once_value(builder, value) for value in tile.vectors(line)] for line in lines]
        nothing = ir.Constant(writer.vector, None)
        factors = [[cgutils.alloca_once_value(builder, nothing) for _ in range(wide)] for _ in range(tile.tall)]
        for t, place in tile.targets(found, given[8]):
            for v, value in enumerate(tile.vectors(place)):
                builder.store(value, factors[t][v])
        for values, met in tile.columns(source, given[5]):
            for (t, k), v in itertools.product(met, range(wide)):
                writer.add_product(totals[k][v], values[v], builder.load(factors[t][v]))
        for k, line in enumerate(lines):
            for v in range(wide):
                writer.store(builder.load(totals[k][v]), line, v)
        return compiler.get_dummy_value()

    return numba.types.void(*kinds), write
