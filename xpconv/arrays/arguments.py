"""What every operator asks of its array arguments, before any work is done: one library, one device, one dtype."""

from __future__ import annotations

import functools
from typing import Any

import array_api_compat

from xpconv.arrays.libraries import Array, at_hand, namespace_of


def namespace(**arrays: Array | None) -> Any:
    """Return the one namespace that all arrays (by their argument's name; None is passed over) belong to.

    Raises
    ------
    TypeError
        When an argument is not an array, or the arrays come from several libraries.
    ValueError
        When the arrays live on several devices.
    """
    xp: Any = None
    place: Any = None
    first = ""
    for name, array in arrays.items():
        if array is None:
            continue
        try:
            library = namespace_of(array)
        except TypeError:
            raise TypeError(
                f"{name} is a {type(array).__name__}; give an array of NumPy, CuPy, PyTorch, JAX or another library of "
                "the array API standard"
            ) from None
        device = array_api_compat.device(array)
        if xp is None:
            xp, place, first = library, device, name
        elif library is not xp:
            raise TypeError(
                f"{first} is an array of {xp.__name__} and {name} of {library.__name__}; give both from one library"
            )
        elif device != place and device is not None and place is not None:  # under jax.jit there is no device yet
            raise ValueError(f"{first} is on device {place} and {name} on {device}; move both to one device")
    if xp is None:
        raise TypeError(f"no array was given for {' or '.join(arrays)}")
    return xp


def one_dtype(xp: Any, kind: str | tuple[str, ...], **arrays: Array | None) -> None:
    """Raise TypeError unless all arrays have one dtype, of this kind ("real floating", "numeric", ...)."""
    given = {name: array for name, array in arrays.items() if array is not None}
    (first, array), *rest = given.items()
    if not is_kind(xp, array.dtype, kind):
        wanted = kind if isinstance(kind, str) else " or ".join(kind)
        raise TypeError(f"{first} has dtype {array.dtype}; give a {wanted} dtype")
    for name, other in rest:
        if other.dtype != array.dtype:
            raise TypeError(f"{first} has dtype {array.dtype} and {name} {other.dtype}; give both the same dtype")


def spatial_axes(name: str, array: Array, axes: int | None = None) -> int:
    """Return the number of spatial axes of an array (N, C, ...), or raise ValueError when it does not fit."""
    found = array.ndim - 2
    if found < 1 or (axes is not None and found != axes):
        wanted = "at least one spatial axis" if axes is None else f"{axes} spatial axes"
        raise ValueError(f"{name} has shape {tuple(array.shape)}; give (N, C, ...) with {wanted} after the channels")
    return int(found)


def shaped(name: str, array: Array | None, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless the array, where one is given, has this shape."""
    if array is not None and tuple(array.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(array.shape)}; give {shape}, {meaning}")


@functools.lru_cache(maxsize=1024)
def is_kind(xp: Any, dtype: Any, kind: str | tuple[str, ...]) -> bool:
    """Whether a dtype is of this kind. bfloat16 is floating, though NumPy and CuPy know it but by its name."""
    if str(dtype) == "bfloat16":
        return "real floating" in kind or "numeric" in kind
    return bool(xp.isdtype(dtype, kind))


@functools.lru_cache(maxsize=1024)
def accumulation_dtype(xp: Any, dtype: Any) -> Any:
    """Return the dtype to add up in: float32 for float16 and bfloat16, and each other dtype itself."""
    narrow = is_kind(xp, dtype, "real floating") and (str(dtype) == "bfloat16" or xp.finfo(dtype).bits < 32)
    return xp.float32 if narrow else dtype


def conjugate(xp: Any, array: Array) -> Array:
    """Return the complex conjugate, which for all but complex numbers is the array itself."""
    return xp.conj(array) if is_kind(xp, array.dtype, "complex floating") else array


def lowest(xp: Any, dtype: Any) -> float:
    """Return the identity of the maximum: what no element is below."""
    return float("-inf") if is_kind(xp, dtype, "real floating") else int(xp.iinfo(dtype).min)


def above_lowest(array: Array) -> bool:
    """Whether no element is the lowest or a NaN, as far as that can be told without waiting for a device."""
    xp = namespace_of(array)
    return at_hand(array) and 0 not in array.shape and bool(xp.min(array) > lowest(xp, array.dtype))
