"""Calling a loop by its address, with arguments that are written down as whole numbers, so that any thread can do it.

A loop so called has the parameters `(board, mine, given, kind)`, and begins with ``taken(given, kind)``.
"""

from __future__ import annotations

import array
import functools
import importlib
import itertools
from collections.abc import Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from xpconv.compiled.compiler import available

T = TypeVar("T")


class Kind:
    """What an argument is, quickly told apart: the dtype of an array, a type, or a tuple of those."""

    def __init__(self, of: Hashable) -> None:
        self.of = of


class Told(NamedTuple, Generic[T]):
    """An argument that is written down once for many calls: a number, an array of one axis, or a tuple of those."""

    value: T
    kind: Kind
    words: tuple[int, ...]


def told(value: T) -> Told[T]:
    """Write an argument down."""
    kind, words = _written(value)
    return Told(value, _kinds(kind), tuple(words))


_kinds = functools.cache(Kind)
_of_numbers = functools.lru_cache(maxsize=1024)(told)


def written(given: tuple[Any, ...]) -> tuple[tuple[Hashable, ...], array.array[int]]:
    """Return what kinds of arguments are given, and the arguments as whole numbers.

    Tuples among them hold numbers and None alone, unless they are told.
    """
    kinds: list[Hashable] = []
    words: list[int] = []
    for value in given:
        if isinstance(value, np.ndarray | int):
            kind, more = _written(value)
        else:
            _, kind, more = value if isinstance(value, Told) else _of_numbers(value)
        kinds.append(kind)
        words += more
    return tuple(kinds), array.array("q", words)


def _written(value: Any) -> tuple[Any, Sequence[int]]:
    if isinstance(value, np.ndarray):
        return value.dtype, (value.__array_interface__["data"][0], value.size)
    if isinstance(value, tuple):
        kinds, words = zip(*map(_written, value), strict=True) if value else ((), ())
        return (type(value), *kinds), list(itertools.chain(*words))
    return type(value), () if value is None else (int(value),)


def taken(given: Any, kind: Any) -> Any:
    """Return the arguments that are given to a loop; the interpreter has them as they are."""
    return tuple(value.value if isinstance(value, Told) else value for value in given)


def invoke(function: int, board: Any, mine: int, given: int) -> int:
    """Call the loop with this address, as thread `mine`; return whether it failed, as 0 or 1."""
    raise NotImplementedError("only machine code calls by address")


@functools.lru_cache(maxsize=1024)
def address(function: Any, kinds: tuple[Hashable, ...]) -> int:
    """Compile a loop for these kinds of arguments, and return where its machine code is."""
    types: Any = importlib.import_module("numba.core.types")
    signature = types.int64[::1], types.int64, types.int64, types.TypeRef(_type((tuple, *kinds)))
    function.compile(signature)
    made = function.overloads[signature]
    found: int = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
    return found


def _type(kind: Any) -> Any:
    """Return Numba's type of a kind."""
    types: Any = importlib.import_module("numba.core.types")
    if isinstance(kind, Kind):
        return _type(kind.of)
    if isinstance(kind, np.dtype):
        return types.Array(importlib.import_module("numba.np.numpy_support").from_dtype(kind), 1, "C")
    if isinstance(kind, tuple):
        made, *of = kind
        return types.BaseTuple.from_types([_type(each) for each in of], None if made is tuple else made)
    return types.none if kind is type(None) else types.int64


def _teach() -> None:
    """Tell Numba what these are in machine code."""
    ir: Any = importlib.import_module("llvmlite.ir")
    types: Any = importlib.import_module("numba.core.types")
    arrays: Any = importlib.import_module("numba.np.arrayobj")
    extending: Any = importlib.import_module("numba.extending")
    number, opaque = ir.IntType(64), types.TypeRef(types.none)

    def taking(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        words = builder.inttoptr(values[0], number.as_pointer())
        count = 0

        def word() -> Any:
            nonlocal count
            count += 1
            return builder.load(builder.gep(words, [ir.Constant(number, count - 1)], source_etype=number))

        def value(kind: Any) -> Any:
            if isinstance(kind, types.BaseTuple):
                return context.make_tuple(builder, kind, [value(each) for each in kind])
            if isinstance(kind, types.Array):
                made, size = context.make_array(kind)(context, builder), ir.Constant(number, kind.dtype.bitwidth // 8)
                data = builder.inttoptr(word(), made.data.type)
                arrays.populate_array(made, data, [word()], [size], size, meminfo=None)
                return made._getvalue()
            return context.get_dummy_value() if kind is types.none else word()

        return value(signature.return_type)

    def invoking(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function, board, mine, given = values
        kinds, convention = (*signature.args[1:], opaque), context.call_conv
        pointer = builder.inttoptr(function, convention.get_function_type(types.none, kinds).as_pointer())
        arguments = [board, mine, given, context.get_dummy_value()]
        status, _ = convention.call_function(builder, pointer, types.none, kinds, arguments)
        return builder.zext(status.is_error, number)

    extending.type_callable(taken)(lambda context: lambda given, kind: kind.instance_type)
    extending.lower_builtin(taken, types.Integer, types.TypeRef)(taking)
    extending.type_callable(invoke)(lambda context: lambda function, board, mine, given: types.int64)
    extending.lower_builtin(invoke, types.Integer, types.Array, types.Integer, types.Integer)(invoking)


if available():
    _teach()
