"""Weights that cannot change, and what is worked out from them once.

Transforming a weight costs as much as a small convolution. It may be kept only while the weight stays what it is, and
that is known of two kinds of array alone: those of libraries whose arrays never change, and NumPy views of `bytes`,
which `freeze` makes. Whatever else is passed is worked out anew each time, so nothing kept can be stale.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array

from xpconv.arrays.arguments import namespace
from xpconv.arrays.libraries import Array, never_changes

_kept: dict[int, dict[Hashable, Any]] = {}
_lock = threading.Lock()


def freeze(array: Array) -> Array:
    """Copy a weight so that it can never change; operators then keep what they work out from it while it lives.

    Parameters
    ----------
    array : array
        Of any library.

    Returns
    -------
    array
        On NumPy a read-only copy that nothing can make writable, with the same layout in memory; elsewhere the array.

    Raises
    ------
    TypeError
        When `array` is no array.
    """
    namespace(array=array)
    if not is_numpy_array(array) or immutable(array):
        return array
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    ordered = array.transpose(order)
    copy = np.frombuffer(ordered.tobytes(), array.dtype).reshape(ordered.shape)
    return copy.transpose(np.argsort(order))


def immutable(array: Array) -> bool:
    """Whether nobody can change this array."""
    while is_numpy_array(array):
        array = array.base
    return isinstance(array, bytes) or never_changes(array)


def remembered(owner: Array, key: Hashable, make: Callable[[], Any]) -> Any:
    """Return what `make` gives, kept under this key with an owner that cannot change, or made anew."""
    if not immutable(owner):
        return make()
    with _lock:
        kept = _kept.get(id(owner))
        if kept is None:
            kept = _kept[id(owner)] = {}
            weakref.finalize(owner, _kept.pop, id(owner), None)
    if key not in kept:
        kept[key] = make()
    return kept[key]
