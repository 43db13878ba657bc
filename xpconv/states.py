"""States as trees: dicts with names as keys and lists, with arrays, numbers, texts, booleans and None as leaves."""

from __future__ import annotations

from typing import Any

from xpconv.libraries import Array
from xpconv.networks import beside


def moved(tree: Any, like: Array) -> Any:
    """Return a tree with its NumPy arrays copied to where another array is, those of floats in its dtype."""
    if isinstance(tree, dict):
        return {name: moved(branch, like) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(moved(branch, like) for branch in tree)
    if hasattr(tree, "dtype"):
        return beside(like, tree, like.dtype if tree.dtype.kind == "f" else None)
    return tree
