"""Calling a loop by its address: what one thread tells the others, who need not know what kind of arguments it has."""

from __future__ import annotations

import importlib
from typing import Any

numba: Any = importlib.import_module("numba")
cgutils: Any = importlib.import_module("numba.core.cgutils")
extending: Any = importlib.import_module("numba.extending")
ir: Any = importlib.import_module("llvmlite.ir")

NUMBER, ANYTHING = ir.IntType(64), ir.IntType(8).as_pointer()
CALLED = ir.FunctionType(NUMBER, [ANYTHING, NUMBER])  # with the arguments, and the number of a thread


@extending.intrinsic  # type: ignore[untyped-decorator]
def outlined(context: Any, loop: Any, given: Any) -> Any:
    """Return two addresses, of a function that calls a loop and of its arguments: valid until the caller returns.

    Parameters
    ----------
    loop : function
        A compiled one, of a board, the number of a thread, and more.
    given : tuple
        The board and what more it is called with.
    """
    board, *more = given
    called = loop.get_call_type(context, (board, numba.int64, *more), {})
    result = numba.types.UniTuple(numba.int64, 2)

    def write(compiler: Any, builder: Any, signature: Any, values: Any) -> Any:
        made = loop.dispatcher.overloads[called.args]
        compiler.active_code_library.add_linking_library(made.library)
        data = cgutils.alloca_once_value(builder, values[1])
        function = ir.Function(builder.module, CALLED, f"call.{made.fndesc.llvm_func_name}")
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block())
        place = inner.bitcast(function.args[0], values[1].type.as_pointer())
        board, *more = cgutils.unpack_tuple(inner, inner.load(place))
        status, _ = compiler.call_conv.call_function(
            inner,
            compiler.declare_function(builder.module, made.fndesc),
            called.return_type,
            called.args,
            [board, function.args[1], *more],
        )
        inner.ret(inner.zext(status.is_error, NUMBER))
        addresses = [builder.ptrtoint(pointer, NUMBER) for pointer in (function, data)]
        return compiler.make_tuple(builder, signature.return_type, addresses)

    return result(loop, given), write


@extending.intrinsic  # type: ignore[untyped-decorator]
def invoke(context: Any, function: Any, given: Any, mine: Any) -> Any:
    """Call what was outlined, by its two addresses, as thread `mine`; return whether it failed, as 0 or 1."""

    def write(compiler: Any, builder: Any, signature: Any, values: Any) -> Any:
        called = builder.inttoptr(values[0], CALLED.as_pointer())
        return builder.call(called, [builder.inttoptr(values[1], ANYTHING), values[2]])

    return numba.int64(numba.int64, numba.int64, numba.int64), write
