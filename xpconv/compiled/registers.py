"""Sums of products that stay in a processor's registers until they are done: what no loop over numbers says.

A compiler brings a loop over the numbers of a vector into registers, but not the sums of many vectors over a loop
around it. So these are written down in the language of Numba's own compiler, LLVM, which makes of them the instructions
of whatever processor there is.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from xpconv.compiled.compiler import vector_bytes

numba: Any = importlib.import_module("numba")
cgutils: Any = importlib.import_module("numba.core.cgutils")
extending: Any = importlib.import_module("numba.extending")
ir: Any = importlib.import_module("llvmlite.ir")

REGISTERS = 32 if vector_bytes() == 64 else 16
Count = tuple[None, ...]  # its length, which is part of its type, so machine code is made for it
UNROLLED = 4  # steps that share the arithmetic of addresses
INT = ir.IntType(32)


class Writer:
    """Writes down what is done with vectors of one dtype, of which only the first `columns` numbers are there."""

    def __init__(self, compiler: Any, builder: Any, dtype: Any, columns: Any, vectors: int) -> None:
        self.builder, self.size = builder, dtype.bitwidth // 8
        self.number, self.integer, self.lanes = (
            compiler.get_value_type(dtype),
            columns.type,
            vector_bytes() // self.size,
        )
        self.vector, self.name = ir.VectorType(self.number, self.lanes), f"v{self.lanes}f{dtype.bitwidth}.p0"
        self.some = ir.VectorType(ir.IntType(1), self.lanes)
        places = [[v * self.lanes + i for i in range(self.lanes)] for v in range(vectors)]
        places = [ir.Constant(ir.VectorType(self.integer, self.lanes), numbers) for numbers in places]
        self.there = [builder.icmp_signed("<", numbers, self.repeated(columns)) for numbers in places]

    def word(self, count: int) -> Any:
        """Return a whole number, as pointers are counted on by."""
        return ir.Constant(self.integer, count)

    def after(self, pointer: Any, count: Any) -> Any:
        """Return the pointer so many numbers on."""
        return self.builder.gep(pointer, [count], source_etype=self.number)

    def repeated(self, value: Any) -> Any:
        """Return a vector of one number."""
        nothing = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(nothing, value, ir.Constant(INT, 0))
        return self.builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(INT, self.lanes), None))

    def load(self, pointer: Any, v: int) -> Any:
        """Read the v-th vector from here."""
        return self._masked("load", self.vector, [], pointer, v, [ir.Constant(self.vector, None)])

    def store(self, value: Any, pointer: Any, v: int) -> None:
        """Write the v-th vector from here."""
        self._masked("store", ir.VoidType(), [value], pointer, v, [])

    def _masked(self, what: str, result: Any, first: list[Any], pointer: Any, v: int, last: list[Any]) -> Any:
        place = self.after(pointer, self.word(v * self.lanes))
        given = [*first, place, ir.Constant(INT, self.size), self.there[v], *last]
        kind = ir.FunctionType(result, [value.type for value in given])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.masked.{what}.{self.name}")
        return self.builder.call(function, given)

    def combined(self, factors: Sequence[float], vectors: Sequence[Any]) -> Any:
        """Return the sum of vectors times factors, not all of which are 0."""
        total = None
        for factor, vector in sorted(zip(factors, vectors, strict=True), key=lambda pair: -pair[0]):
            if abs(factor) not in (0, 1):
                many = ir.Constant(self.vector, [factor] * self.lanes)
                vector = self.builder.fmul(vector, many, flags=("contract",))
            if factor == -1:
                total = self.builder.fneg(vector) if total is None else self.builder.fsub(total, vector)
            elif factor:
                total = vector if total is None else self.builder.fadd(total, vector, flags=("contract",))
        return total

    def add_product(self, place: Any, a: Any, b: Any) -> None:
        """Add ``a*b`` to a sum, with or without rounding in between."""
        product = self.builder.fmul(a, b, flags=("contract",))
        self.builder.store(self.builder.fadd(self.builder.load(place), product, flags=("contract",)), place)


@extending.intrinsic  # type: ignore[untyped-decorator]
def sum_products(
    context: Any,
    tile: Any,
    places: Any,
    start: Any,
    start_row: Any,
    a: Any,
    a_row: Any,
    a_step: Any,
    jumps: Any,
    runs: Any,
    length: Any,
    b: Any,
    b_step: Any,
    y: Any,
    y_row: Any,
    columns: Any,
) -> Any:
    """Write ``y[r] = start[r] + sum of a[r]*b`` over the steps of some runs, a tile of some rows of some vectors.

    `places` say where `start`, `a`, `b` and `y` begin in their arrays, which have one axis: rows and steps are so many
    numbers apart as `_row` and `_step` say. Of the runs there are those from which up to which `runs` say. Run i begins
    ``jumps[i]`` numbers into `a`, and in `b` after the run before; each has `length` steps. Of the vectors' numbers, in
    `start`, `b` and `y`, there are so many `columns`, and the others are left alone.
    """
    tall, wide = map(len, tile)

    def write(compiler: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = (compiler.make_array(signature.args[i])(compiler, builder, given[i]).data for i in (2, 4, 10, 12))
        jumps = compiler.make_array(signature.args[7])(compiler, builder, given[7]).data
        start_row, a_row, a_step, length, b_step, y_row, columns = (given[i] for i in (3, 5, 6, 9, 11, 13, 14))
        writer = Writer(compiler, builder, start.dtype, columns, wide)
        begun = zip(arrays, cgutils.unpack_tuple(builder, given[1], 4), strict=True)
        begin, a, b, y = (writer.after(*each) for each in begun)
        in_a, in_b = cgutils.alloca_once_value(builder, a), cgutils.alloca_once_value(builder, b)

        def row(pointer: Any, pitch: Any, r: int) -> Any:
            return writer.after(pointer, builder.mul(pitch, writer.word(r)))

        firsts = [row(begin, start_row, r) for r in range(tall)]
        sums = [[cgutils.alloca_once_value(builder, writer.load(f, v)) for v in range(wide)] for f in firsts]

        def take(steps: int) -> None:
            p, q = builder.load(in_a), builder.load(in_b)
            for _ in range(steps):
                shared = [writer.load(q, v) for v in range(wide)]
                for r in range(tall):
                    factor = writer.repeated(builder.load(row(p, a_row, r)))
                    for v in range(wide):
                        writer.add_product(sums[r][v], factor, shared[v])
                p, q = writer.after(p, a_step), writer.after(q, b_step)
            builder.store(p, in_a)
            builder.store(q, in_b)

        first, last = cgutils.unpack_tuple(builder, given[8], 2)
        with cgutils.for_range_slice(builder, first, last, writer.word(1)) as (run, _):
            jump = builder.load(builder.gep(jumps, [run]))
            builder.store(writer.after(a, jump), in_a)
            with cgutils.for_range(builder, builder.sdiv(length, writer.word(UNROLLED))):
                take(UNROLLED)
            with cgutils.for_range(builder, builder.srem(length, writer.word(UNROLLED))):
                take(1)
        for r in range(tall):
            for v in range(wide):
                writer.store(builder.load(sums[r][v]), row(y, y_row, r), v)
        return compiler.get_dummy_value()

    word = numba.types.intp
    kinds = (tile, places, start, word, a, word, word, jumps, runs, word, b, word, y, word, word)
    return numba.types.void(*kinds), write
