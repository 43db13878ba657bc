"""Lines: as many numbers, side by side in memory, as a loop takes at a time.

To machine code a line is a value in registers, and stays there while the loop computes with it; to the interpreter it
is a small array. One source serves both, with ``+``, ``*``, ``/`` and ``==`` and the functions of this file.

A compiler makes lines of a plain loop by itself, but of the innermost one alone: sums over the taps of a window would
go to memory and back at every tap, and each such loop would begin by asking which of its arrays overlap.
"""

from __future__ import annotations

import functools
import importlib
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpconv.compiled.compiler import available, vector_bytes

Host = np.ndarray[Any, Any]
Line = Any
Width = tuple[None, ...]  # of a line; its length is part of its type, so machine code is made for it

REGISTERS = 2  # that a line takes: two sums each, under way at the same time, for every one that is written


@functools.cache
def width_for(channels: int, itemsize: int) -> Width:
    """Return the width of lines that channels are cut into, the last of which may overlap the one before it."""
    most = max(1, min(REGISTERS * vector_bytes() // itemsize, channels))
    return (None,) * (1 << most.bit_length() - 1)


def load(array: Host, first: int, width: Width) -> Line:
    """Read the line that begins here, in an array of one axis."""
    return array[first : first + len(width)].copy()


def store(array: Host, first: int, line: Line) -> None:
    """Write a line to where it shall begin."""
    array[first : first + len(line)] = line


def repeat(number: Any, width: Width) -> Line:
    """Make a line of one number."""
    return np.full(len(width), number)


def exceeds(a: Line, b: Line) -> Line:
    """Say where a is above b; NaN is above all numbers and not above itself."""
    return ~(a <= b) & (b == b)


def where(condition: Line, a: Line, b: Line) -> Line:
    """Take numbers of a where the condition holds, and of b elsewhere."""
    return np.where(condition, a, b)


def _teach() -> None:
    """Tell Numba what these are in machine code."""
    ir: Any = importlib.import_module("llvmlite.ir")
    types: Any = importlib.import_module("numba.core.types")
    models: Any = importlib.import_module("numba.core.datamodel.models")
    extending: Any = importlib.import_module("numba.extending")

    class Vector(types.Type):  # type: ignore[misc]
        """So many numbers of one type."""

        def __init__(self, number: Any, count: int) -> None:
            self.number, self.count = number, count
            super().__init__(f"{count} x {number}")

    class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, vector: Any) -> None:
            bits = ir.IntType(1) if vector.number == types.boolean else manager.lookup(vector.number).get_value_type()
            super().__init__(manager, vector, ir.VectorType(bits, vector.count))

    extending.register_model(Vector)(VectorModel)

    def teach(function: Any, kinds: Sequence[Any], result: Callable[..., Any], code: Callable[..., Any]) -> None:
        extending.type_callable(function)(lambda context: result)
        extending.lower_builtin(function, *kinds)(code)

    def address(context: Any, builder: Any, kind: Any, array: Any, first: Any, count: int) -> Any:
        start = builder.gep(context.make_array(kind)(context, builder, array).data, [first])
        return builder.bitcast(start, ir.VectorType(context.get_data_type(kind.dtype), count).as_pointer())

    def loaded(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind, _, width = signature.args
        place = address(context, builder, kind, values[0], values[1], len(width))
        return builder.load(place, align=kind.dtype.bitwidth // 8)

    def stored(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind, _, line = signature.args
        place = address(context, builder, kind, values[0], values[1], line.count)
        builder.store(values[2], place, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    def repeated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line, integer = ir.VectorType(values[0].type, len(signature.args[1])), ir.IntType(32)
        nowhere, first = ir.Constant(line, ir.Undefined), ir.Constant(integer, 0)
        everywhere = ir.Constant(ir.VectorType(integer, line.count), [0] * line.count)
        return builder.shuffle_vector(builder.insert_element(nowhere, values[0], first), nowhere, everywhere)

    def exceeding(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, b = values
        return builder.and_(builder.fcmp_unordered(">", a, b), builder.fcmp_ordered("ord", b, b))

    def same(a: Any, b: Any) -> Any:
        return a if isinstance(a, Vector) and a == b else None

    def answer(a: Any, b: Any) -> Any:
        return Vector(types.boolean, a.count) if same(a, b) else None

    def one(instruction: str, *more: Any, **options: Any) -> Callable[..., Any]:
        return lambda context, builder, signature, values: getattr(builder, instruction)(*more, *values, **options)

    teach(
        load, (types.Array, types.Integer, types.BaseTuple), lambda a, first, width: Vector(a.dtype, len(width)), loaded
    )
    teach(store, (types.Array, types.Integer, Vector), lambda array, first, line: types.void, stored)
    teach(repeat, (types.Number, types.BaseTuple), lambda number, width: Vector(number, len(width)), repeated)
    teach(exceeds, (Vector, Vector), answer, exceeding)
    teach(where, (Vector, Vector, Vector), lambda condition, a, b: same(a, b), one("select"))
    teach(operator.eq, (Vector, Vector), answer, one("icmp_unsigned", "=="))
    for function, instruction in ((operator.add, "fadd"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
        teach(function, (Vector, Vector), same, one(instruction, flags=["contract"]))


if available():
    _teach()
