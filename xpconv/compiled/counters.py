"""Whole numbers that several threads count with at the same time: what one has added, the others read."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.compiled.compiler import available

Table = np.ndarray[Any, np.dtype[np.int64]]

_one_at_a_time = threading.Lock()


def read(table: Table, place: int) -> int:
    """Return a number, and after it all that was written before it was."""
    return int(table[place])


def add(table: Table, place: int, count: int) -> int:
    """Add to a number, and return what it was before."""
    with _one_at_a_time:
        before = int(table[place])
        table[place] += count
    return before


def pause() -> None:
    """Let whoever else wants this processor have it."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()


def _teach() -> None:
    """Tell Numba what these are in machine code."""
    ir: Any = importlib.import_module("llvmlite.ir")
    types: Any = importlib.import_module("numba.core.types")
    cgutils: Any = importlib.import_module("numba.core.cgutils")
    extending: Any = importlib.import_module("numba.extending")
    bytes_of_one = np.dtype(np.int64).itemsize

    def address(context: Any, builder: Any, kind: Any, table: Any, place: Any) -> Any:
        return builder.gep(context.make_array(kind)(context, builder, table).data, [place])

    def reading(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(address(context, builder, signature.args[0], *values), "seq_cst", bytes_of_one)

    def adding(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        *where, count = values
        return builder.atomic_rmw("add", address(context, builder, signature.args[0], *where), count, "seq_cst")

    def pausing(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if hasattr(os, "sched_yield"):
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    def teach(function: Any, kinds: tuple[Any, ...], result: Callable[..., Any], code: Callable[..., Any]) -> None:
        extending.type_callable(function)(lambda context: result)
        extending.lower_builtin(function, *kinds)(code)

    teach(read, (types.Array, types.Integer), lambda table, place: types.int64, reading)
    teach(add, (types.Array, types.Integer, types.Integer), lambda table, place, count: types.int64, adding)
    teach(pause, (), lambda: types.void, pausing)


if available():
    _teach()
