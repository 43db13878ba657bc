"""States as trees: dicts with names as keys and lists, with arrays, numbers, texts, booleans and None as leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv.arrays.arguments import accumulation_dtype, namespace
from xpconv.arrays.libraries import Array, to_numpy
from xpconv.networks.network import beside

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ARRAY = "array"  # the key that tells a place where an array was from a dict of the tree
_AXES = "axes in memory"


def split(tree: Any, path: str = "") -> tuple[Any, dict[str, NDArray[Any]]]:
    """Part a tree into one that JSON can hold and, by their paths in it ("optimizer/W1/0"), its arrays on the host.

    The order of an array's axes in memory goes into the tree: it decides how sums are added up, and so their last bits.

    Raises
    ------
    TypeError
        When a leaf or a key is of another kind.
    """
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree, {}
    if isinstance(tree, Mapping):
        if odd := [key for key in tree if not isinstance(key, str) or "/" in key or key == _ARRAY]:
            raise TypeError(
                f"{path or 'the state'} has the key {odd[0]!r}; give texts without '/', other than {_ARRAY!r}"
            )
        branches = [(name, *split(branch, f"{path}/{name}".lstrip("/"))) for name, branch in tree.items()]
        return {name: part for name, part, _ in branches}, {n: a for *_, arrays in branches for n, a in arrays.items()}
    if isinstance(tree, list | tuple):
        parts = [split(branch, f"{path}/{place}") for place, branch in enumerate(tree)]
        return [part for part, _ in parts], {name: array for _, arrays in parts for name, array in arrays.items()}
    if not hasattr(tree, "dtype"):
        raise TypeError(f"{path} is a {type(tree).__name__}; give an array, number, text, boolean, None, dict or list")
    array = to_numpy(tree)
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return {_ARRAY: path, _AXES: axes}, {path: array}


def join(tree: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Return the tree that `split` parted; tuples have become lists."""
    if isinstance(tree, list):
        return [join(branch, arrays) for branch in tree]
    if not isinstance(tree, dict):
        return tree
    if _ARRAY not in tree:
        return {name: join(branch, arrays) for name, branch in tree.items()}
    axes = tree[_AXES]
    laid = np.array(arrays[tree[_ARRAY]].transpose(axes), order="C")
    return laid.transpose(sorted(range(len(axes)), key=axes.__getitem__))


def leaves(tree: Any) -> Iterator[Any]:
    """Yield the arrays of a tree."""
    if isinstance(tree, Mapping | list | tuple):
        for branch in tree.values() if isinstance(tree, Mapping) else tree:
            yield from leaves(branch)
    elif hasattr(tree, "dtype"):
        yield tree


def moved(tree: Any, like: Array) -> Any:
    """Return a tree with its NumPy arrays copied to where another array is.

    Those of floats get its dtype; beside float16 and bfloat16, those that were wider get float32.
    """
    if isinstance(tree, dict):
        return {name: moved(branch, like) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [moved(branch, like) for branch in tree]
    if isinstance(tree, np.ndarray):
        wide = accumulation_dtype(namespace(like=like), like.dtype)
        floating = wide if tree.itemsize > 2 else like.dtype
        return beside(like, tree, floating if tree.dtype.kind == "f" else None)
    return tree
