"""The steps of a task on NumPy: taken the first time, written down, and from then on taken again from the script.

Threads share one interpreter. One that wants it while another holds it is put to sleep and woken, which takes as long
as a small product; so what counts is not how long Python takes between two calls of NumPy, but how often it is in the
way. Tasks of one convolution take the same steps on the same views, but for where their arrays begin. A script is these
steps with the views in the thread's own memory as they were, and the others made anew where the arrays are this time.

What a task does depends on its code, on what that has captured, and on the part of the work it is given. Arrays among
the captured are told apart by shape and layout, all else by value: a task with the same of everything has the same
script. It may do with arrays only what goes through `step`, and may not decide by their values.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import byte_bounds

from xpconv.execution import workspace

Array = np.ndarray[Any, Any]

SCRIPTS = 1024  # that a thread keeps at most


class View(NamedTuple):
    """A view of an array that is another one each time."""

    array: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def of(self, arrays: Sequence[Array], origins: Sequence[int]) -> Array:
        """Make the view on arrays whose parts begin so many bytes from their start."""
        return np.ndarray(self.shape, self.dtype, arrays[self.array], origins[self.array] + self.offset, self.strides)


class Step(NamedTuple):
    """A call, with the operands that stay the same and those that are views made anew."""

    function: Callable[..., object]
    operands: tuple[Any, ...]
    views: tuple[tuple[int, View], ...]


class _Thread(threading.local):
    def __init__(self) -> None:
        self.taken: list[tuple[Callable[..., object], tuple[Any, ...]]] | None = None
        self.scripts: dict[Hashable, Script] = {}
        self.memory: Array | None = None  # that the scripts work in


_thread = _Thread()
_kinds: dict[Hashable, int] = {}
_numbers = itertools.count()


def copied(x: Array | float, place: Array) -> None:
    """Copy to a place, the last operand as in every step."""
    place[...] = x


def step(function: Callable[..., object], *operands: Any) -> None:
    """Call a function that writes to the last of its operands, and note that where a script is being written."""
    function(*operands)
    if _thread.taken is not None:
        _thread.taken.append((function, operands))


@dataclass(frozen=True)
class Script:
    """The steps of a task, and the array in the thread's memory that it returned, if it did."""

    steps: tuple[Step, ...]
    result: Array | None

    def follow(self, arrays: Sequence[Array], origins: Sequence[int]) -> Array | None:
        """Take the steps on arrays whose parts begin so many bytes from their start."""
        for function, operands, views in self.steps:
            if views:
                changed = list(operands)
                for position, view in views:
                    changed[position] = view.of(arrays, origins)
                function(*changed)
            else:
                function(*operands)
        return self.result


class Repeated:
    """A function that is called again and again, each time for another part of the arrays that it has captured.

    Parameters
    ----------
    function : callable
        Keeps to what this module asks of tasks. It returns None or an array that it has just made.
    moving : sequence of array
        Those of the captured arrays that it takes a part of along the first axis.
    """

    def __init__(self, function: Callable[..., Array | None], moving: Sequence[Array]) -> None:
        self.function = function
        self.kind: int | None = None
        arrays: list[Array] = []
        captured = _captured(function, arrays)
        self.pitches = [a.strides[0] if any(a is other for other in moving) else 0 for a in arrays]
        self.arrays = [a.transpose(sorted(range(a.ndim), key=lambda axis: -a.strides[axis])) for a in arrays]
        if all(a.flags.c_contiguous and a.size for a in self.arrays):
            if len(_kinds) >= SCRIPTS:
                _kinds.clear()
            with contextlib.suppress(TypeError):  # what cannot be hashed may be changed, and then there is no script
                self.kind = _kinds.setdefault((captured, tuple(self.pitches)), next(_numbers))

    def __call__(self, part: Hashable, start: int, *given: Any) -> Array | None:
        """Call the function with what is given, or follow the script for this part, which starts there."""
        memory, used = workspace.memory()
        if self.kind is None or memory is None:
            return self.function(*given)
        if _thread.memory is not memory or len(_thread.scripts) >= SCRIPTS:
            _thread.memory = memory
            _thread.scripts.clear()
        origins = [start * pitch for pitch in self.pitches]
        key = self.kind, part, used
        script = _thread.scripts.get(key)
        if script is not None:
            return script.follow(self.arrays, origins)
        _thread.taken = []
        try:
            made = self.function(*given)
            script = written(_thread.taken, made, self.arrays, origins, memory)
        finally:
            _thread.taken = None
        if script is not None:
            _thread.scripts[key] = script
        return made


def _captured(function: Any, arrays: list[Array]) -> Hashable:
    """Return all that a function depends on, and add the arrays among it to those known so far."""
    values: list[Hashable] = [function.__code__]
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        if isinstance(value, FunctionType):
            value = _captured(value, arrays)
        elif isinstance(value, np.ndarray):
            if not any(value is array for array in arrays):
                arrays.append(value)
            place = next(i for i, array in enumerate(arrays) if array is value)
            value = place, value.shape, value.strides, value.dtype
        values.append(value)
    return tuple(values)


def written(
    taken: Sequence[tuple[Callable[..., object], tuple[Any, ...]]],
    made: Array | None,
    arrays: Sequence[Array],
    origins: Sequence[int],
    memory: Array,
) -> Script | None:
    """Make a script of the steps that were taken; None where it cannot be told what one of their operands is."""
    bounds = [byte_bounds(array) for array in arrays]
    own = byte_bounds(memory)
    if any(a[0] < b[1] and b[0] < a[1] for a, b in itertools.combinations(bounds, 2)):
        return None  # arrays that share memory would be told apart by chance

    def located(operand: Array) -> View | Array | None:
        low, high = byte_bounds(operand)
        for i, (first, last) in enumerate(bounds):
            if first <= low and high <= last:
                offset = operand.__array_interface__["data"][0] - first - origins[i]
                return View(i, offset, operand.shape, operand.strides, operand.dtype)
        fixed = (own[0] <= low and high <= own[1]) or not operand.flags.writeable
        return operand if fixed else None

    steps = []
    for function, operands in taken:
        if not operands[-1].size:
            continue  # there is nothing to do, and such an array can lie anywhere
        found = [located(o) if isinstance(o, np.ndarray) else o for o in operands]
        if any(f is None and o is not None for f, o in zip(found, operands, strict=True)):
            return None
        views = tuple((i, f) for i, f in enumerate(found) if isinstance(f, View))
        steps.append(Step(function, tuple(None if isinstance(f, View) else f for f in found), views))
    result = None if made is None else located(made)
    if isinstance(result, View) or (result is None) != (made is None):
        return None
    return Script(tuple(steps), result)
