"""Which operators there are and what each takes, found by applying it, so that nothing is said that is not so."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import xpconv
from xpconv import layers
from xpconv.arrays.backends import Backend
from xpconv.arrays.libraries import Array

DTYPES = {
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "complex64": "c64",
    "int32": "i32",
}
AXES = range(5)

# What is given for a parameter of this name that must be given: the shape of an array, with as many 6es and 3s as
# there are spatial axes, or an option. A name with an operator before it is for that operator alone.
ARGUMENTS: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "x": lambda size: (2, 4, *size),
    "t": lambda size: (2, 4, *size),
    "softmax_cross_entropy.t": lambda size: [2, *size],
    "nll_loss.t": lambda size: [2, *size],
    "weight": lambda size: (4, 4, *(3 for _ in size)),
    "affine.weight": lambda size: (4 * math.prod(size), 3),
    "slope": lambda size: (4,),
    "indices": lambda size: [2, 4, *size],
    "col": lambda size: (2 * 5 ** len(size), 4 * 2 ** len(size)),
    "fold.col": lambda size: (2, 4 * 2 ** len(size), 5 ** len(size)),
    "input_shape": lambda size: (2, 4, *size),
    "kernel": lambda size: 2,
    "filter_h": lambda size: 2,
    "filter_w": lambda size: 2,
    "output_size": lambda size: size or 6,
    "pad": lambda size: 1,
    "size": lambda size: 3,
    "groups": lambda size: 2,
}


@dataclass(frozen=True)
class Entry:
    """An operator: its name, the layers that are made of it, what it does, and the spatial axes it was seen to take."""

    name: str
    layers: tuple[str, ...]
    summary: str
    axes: tuple[int, ...]


def operators(on: Backend) -> list[Entry]:
    """List the public operators, by name; their axes are tried on this backend in float32."""
    found = {name: getattr(xpconv, name) for name in sorted(xpconv.__all__)}
    shells = [layer for layer in vars(layers).values() if hasattr(layer, "op")]
    return [
        Entry(
            name,
            tuple(layer.__name__ for layer in shells if layer.op is op),
            (inspect.getdoc(op) or "").partition("\n")[0],
            tuple(n for n in AXES if works(op, on, "float32", (6,) * n)),
        )
        for name, op in found.items()
        if hasattr(op, "with_pullback")
    ]


def dtypes(entry: Entry, on: Backend) -> list[str]:
    """List the dtypes, in short, that an operator takes on a backend."""
    op, size = getattr(xpconv, entry.name), (6,) * entry.axes[0]
    return [short for dtype, short in DTYPES.items() if works(op, on, dtype, size)]


def works(op: Callable[..., Any], on: Backend, dtype: str, size: tuple[int, ...]) -> bool:
    """Whether an operator and, for floating numbers, its pullback give arrays of the dtype that they are given."""

    def array(shape: tuple[int, ...] | list[int]) -> Array:
        """Numbers for a tuple, indices for a list."""
        host = np.arange(math.prod(shape)).reshape(shape) % 4
        if isinstance(shape, list):
            return on.asarray(host)
        scale = 1 if dtype.startswith("int") else 64
        return on.xp.astype(on.asarray((1 + host) / scale, "float32"), getattr(on.xp, dtype))

    arrays, options = [], {}
    for name, parameter in inspect.signature(op).parameters.items():
        if parameter.default is not parameter.empty:
            continue
        example = ARGUMENTS.get(f"{op.__name__}.{name}") or ARGUMENTS.get(name)
        if example is None:
            raise NotImplementedError(f"no example of {name}, which {op.__name__} wants; give one in ARGUMENTS")
        value = example(size)
        if "Array" in str(parameter.annotation):
            arrays.append(value)
        else:
            options[name] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as of a dtype that was made another one
            given = [array(shape) for shape in arrays]
            y, pullback = xpconv.vjp(op, *given, **options)
            y = y[0] if isinstance(y, tuple) else y
            gradients = () if dtype.startswith("int") else pullback(y)
            return all(g is None or g.dtype == given[0].dtype for g in (y, *gradients))
    except Exception:
        return False


def table(backends: Sequence[Backend]) -> str:
    """Lay out the operators, what they do, their layers and axes, and their dtypes by backend, as a Markdown table.

    It takes seconds for each backend, and minutes on one that compiles.
    """
    rows = [("operator", "layer", "spatial axes", *(on.name for on in backends), "")]
    for entry in operators(backends[0]):
        first, *_, last = (*entry.axes, *entry.axes)
        axes = str(first) if first == last else f"{first} and more" if last == AXES[-1] else f"{first} to {last}"
        found = (" ".join(dtypes(entry, on)) for on in backends)
        rows.append((f"`{entry.name}`", ", ".join(f"`{name}`" for name in entry.layers), axes, *found, entry.summary))
    rows.insert(1, tuple("---" for _ in rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
