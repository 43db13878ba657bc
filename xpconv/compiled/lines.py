"""Lines: as many numbers, side by side in memory, as a loop takes at a time.

To machine code a line is a value in registers, and stays there for as long as the loop computes with it; to the
interpreter it is a small array. One source serves both, with the operators ``+``, ``*``, ``/`` and ``==`` and with the
functions of this file. Compilers make lines of plain loops by themselves, but only of innermost ones: sums that run over
the taps of a window would go to memory and back at every tap, and each loop begins by asking which arrays overlap.
"""

from __future__ import annotations

import functools
import importlib
import operator
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
    ir, types, extending, models = (
        importlib.import_module(name)
        for name in ("llvmlite.ir", "numba.core.types", "numba.extending", "numba.core.datamodel.models")
    )

    class Vector(types.Type):  # type: ignore[misc, name-defined]
        """So many numbers of one type."""

        def __init__(self, number: Any, count: int) -> None:
            self.number, self.count = number, count
            super().__init__(f"{count} x {number}")

    @extending.register_model(Vector)
    class VectorModel(models.PrimitiveModel):  # type: ignore[misc, name-defined]
        def __init__(self, manager: Any, vector: Any) -> None:
            number = manager.lookup(vector.number).get_value_type() if vector.number != types.boolean else ir.IntType(1)
            super().__init__(manager, vector, ir.VectorType(number, vector.count))

    def place(context: Any, builder: Any, kind: Any, array: Any, first: Any, count: int) -> Any:
        start = builder.gep(context.make_array(kind)(context, builder, array).data, [first])
        return builder.bitcast(start, ir.VectorType(context.get_data_type(kind.dtype), count).as_pointer())

    @extending.type_callable(load)
    def type_of_load(context: Any) -> Any:
        return lambda array, first, width: Vector(array.dtype, len(width))

    @extending.lower_builtin(load, types.Array, types.Integer, types.BaseTuple)
    def load_code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, first, width = signature.args
        address = place(context, builder, array, *values[:2], len(width))
        return builder.load(address, align=array.dtype.bitwidth // 8)

    @extending.type_callable(store)
    def type_of_store(context: Any) -> Any:
        return lambda array, first, line: types.void

    @extending.lower_builtin(store, types.Array, types.Integer, Vector)
    def store_code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, first, line = signature.args
        address = place(context, builder, array, *values[:2], line.count)
        builder.store(values[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    @extending.type_callable(repeat)
    def type_of_repeat(context: Any) -> Any:
        return lambda number, width: Vector(number, len(width))

    @extending.lower_builtin(repeat, types.Number, types.BaseTuple)
    def repeat_code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = ir.VectorType(values[0].type, len(signature.args[1]))
        nowhere, first = ir.Constant(line, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        places = ir.Constant(ir.VectorType(ir.IntType(32), line.count), [0] * line.count)
        return builder.shuffle_vector(builder.insert_element(nowhere, values[0], first), nowhere, places)

    @extending.type_callable(exceeds)
    def type_of_exceeds(context: Any) -> Any:
        return lambda a, b: Vector(types.boolean, a.count)

    @extending.lower_builtin(exceeds, Vector, Vector)
    def exceeds_code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, b = values
        return builder.and_(builder.fcmp_unordered(">", a, b), builder.fcmp_ordered("ord", b, b))

    @extending.type_callable(where)
    def type_of_where(context: Any) -> Any:
        return lambda condition, a, b: a

    @extending.lower_builtin(where, Vector, Vector, Vector)
    def where_code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(*values)

    def teach(function: Any, instruction: str, result: Any, *more: Any, **options: Any) -> None:
        @extending.type_callable(function)
        def type_of(context: Any) -> Any:
            return lambda a, b: result(a) if isinstance(a, Vector) and a == b else None

        @extending.lower_builtin(function, Vector, Vector)
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, instruction)(*more, *values, **options)

    for function, instruction in ((operator.add, "fadd"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
        teach(function, instruction, lambda vector: vector, flags=["contract"])
    teach(operator.eq, "icmp_unsigned", lambda vector: Vector(types.boolean, vector.count), "==")


if available():
    _teach()
