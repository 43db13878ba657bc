"""Weights in files: named NumPy arrays in the safetensors format, which holds numbers and no code.

https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv.durability import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Place = str | tuple[str, Callable[[NDArray[Any]], NDArray[Any]]] | None
    Names = Mapping[str, Place] | Callable[[str], Place]

_INSTALL = 'weights in files need safetensors: pip install "xpconv[examples]"'


def save_weights(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays to a file that is either complete or, after a failure, as it was before.

    Parameters
    ----------
    path : path
        By custom ``*.safetensors``. The file is replaced if it exists; its directory must exist.
    arrays : mapping of str to numpy.ndarray
        Of any shape, and of bool, an integer dtype, float16, float32 or float64.
    metadata : mapping of str to str, optional
        Notes for the reader of the file. `load_weights` does not return them.

    Raises
    ------
    ImportError
        When safetensors is not installed.
    OSError
        When the file cannot be written.
    TypeError
        When a value is not a NumPy array, or a name or a note is not a string.
    ValueError
        When the format has no such dtype, or a name is "__metadata__", which it keeps for itself.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import save
    except ImportError as error:
        raise ImportError(_INSTALL) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name!r} is a {type(array).__name__}; give NumPy arrays")
    if "__metadata__" in arrays:
        raise ValueError("'__metadata__' is a name that the format keeps for itself; give another one")
    # Safetensors ignores strides and writes the memory behind an array as it lies.
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        # None for no notes: with neither notes nor arrays, {} would become a header that cannot be read.
        content = save(ordered, dict(metadata) if metadata else None)
    except SafetensorError as error:
        raise ValueError(f"{path}: not written: {error}") from error
    path = Path(path)
    with replacing(path) as file:
        file.write_bytes(content)


def load_weights(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays that `save_weights`, or another writer of the format, left in a file.

    The format has no checksum: a wrong length or a damaged header is noticed, a changed number is not.

    Returns
    -------
    dict of str to numpy.ndarray
        New arrays of the shapes and dtypes in the file.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ImportError
        When safetensors is not installed.
    ValueError
        When the file is truncated or damaged, or has a dtype that NumPy lacks, such as bfloat16.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ImportError(_INSTALL) from error
    path = Path(path)
    try:
        return load_file(path)
    except (SafetensorError, AttributeError, TypeError) as error:  # the last two for a dtype that NumPy lacks
        raise ValueError(f"{path}: not weights that can be read: {error}") from error


def placed(given: Mapping[str, NDArray[Any]], names: Names) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Give the arrays of a file the names, and where these differ the layouts, that a network has for them.

    Parameters
    ----------
    given : mapping of str to numpy.ndarray
    names : mapping or callable
        From a name in the file to the network's own name, to a pair of that and a function that lays the array out anew
        (``("W2", np.transpose)``), or to None for an array to leave out.

    Returns
    -------
    arrays : dict of str to numpy.ndarray
        By the network's names.
    problems : list of str
        A line for each array that could not be placed and for each name in `names` that the file lacks.

    Raises
    ------
    TypeError
        When `names` is neither a mapping nor a function, or leads to something else than a place.
    """
    if not isinstance(names, Mapping) and not callable(names):
        raise TypeError(f"names is a {type(names).__name__}; give a mapping, or a function of a name in the file")
    arrays: dict[str, NDArray[Any]] = {}
    problems: list[str] = []
    if isinstance(names, Mapping):
        problems += [f"not in the file: {name!r}" for name in names if name not in given]
        problems += [f"not in names: {name!r} of shape {given[name].shape}" for name in sorted({*given} - {*names})]
        given, names = {name: given[name] for name in given if name in names}, names.__getitem__
    for name, array in sorted(given.items()):  # the file's own order goes by size
        if (place := names(name)) is None:
            continue
        own, layout = place if isinstance(place, tuple) and len(place) == 2 else (place, np.asarray)
        if not isinstance(own, str) or not callable(layout):
            raise TypeError(f"names has {place!r} for {name!r}; give a name, a pair of name and function, or None")
        if own in arrays:
            problems.append(f"given twice: {own!r}, again as {name!r}")
            continue
        try:
            arrays[own] = np.asarray(layout(array), order="C")
        except ValueError as error:
            problems.append(f"layout of {name!r} of shape {array.shape}, for {own!r}: {error}")
    return arrays, problems


def check_fit(
    given: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], problems: Iterable[str] = ()
) -> None:
    """Raise ValueError unless the names and shapes given are those wanted; its message lists all, `problems` first."""
    lines = [*problems]
    lines += [f"missing: {name!r} of shape {wanted[name]}" for name in wanted if name not in given]
    lines += [f"unexpected: {name!r} of shape {given[name]}" for name in given if name not in wanted]
    lines += [
        f"shape of {name!r}: {given[name]} given, {wanted[name]} wanted"
        for name in wanted
        if name in given and given[name] != wanted[name]
    ]
    if lines:
        raise ValueError("the weights do not fit:\n  " + "\n  ".join(lines))
