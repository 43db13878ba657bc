"""Is it the array that was wanted: library, device, dtype, shape and values."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from xpconv.arrays.libraries import Array, to_numpy

TOLERANCES = {
    "float64": 1e-10,
    "complex128": 1e-10,
    "float32": 1e-5,
    "complex64": 1e-5,
    "float16": 1e-2,
    "bfloat16": 5e-2,
}

Host = np.ndarray[Any, Any]


def assert_close(
    actual: Array, desired: Any, *, like: Array | None = None, rtol: float | None = None, atol: float = 0
) -> None:
    """Compare an array with the one that is wanted: library, device, dtype, shape and values.

    Parameters
    ----------
    actual : array
        Of any library.
    desired : array_like
        What is wanted, with the dtype and shape that are wanted; most often a NumPy array from an independent source.
    like : array, optional
        Whose library and device are wanted. Without it those of `desired`, unless that is on the host.
    rtol : float, optional
        Largest difference, as a share of the largest finite entry of `desired`. If not given: 1e-10 for float64, 1e-5
        for float32, 1e-2 for float16, 5e-2 for bfloat16, complex numbers as their parts, and 0 for all else.
    atol : float
        Largest difference beyond that.

    Raises
    ------
    AssertionError
        When one of them differs. NaNs equal NaNs, and an infinity only itself.
    """
    __tracebackhide__ = True
    if like is None and array_api_compat.is_array_api_obj(desired) and not array_api_compat.is_numpy_array(desired):
        like = desired
    if not array_api_compat.is_array_api_obj(actual):
        raise AssertionError(f"got a {type(actual).__name__}, {actual!r:.60}; wanted an array")
    if like is not None:
        same_place("the array", actual, like)
    desired = desired if array_api_compat.is_array_api_obj(desired) else np.asarray(desired)
    same_form("the array", actual, desired.dtype, desired.shape)
    if rtol is None:
        rtol = TOLERANCES.get(dtype_name(desired.dtype), 0)
    same_values(on_host(actual), on_host(desired), rtol, atol)


def same_place(name: str, actual: Array, like: Array) -> None:
    """Raise AssertionError unless the array is of the library and device of another."""
    __tracebackhide__ = True
    if not array_api_compat.is_array_api_obj(actual):
        raise AssertionError(f"{name} is a {type(actual).__name__}, {actual!r:.60}; wanted an array")
    library, wanted = array_api_compat.array_namespace(actual), array_api_compat.array_namespace(like)
    if library is not wanted:
        raise AssertionError(f"{name} is an array of {library.__name__}; wanted {wanted.__name__}")
    if array_api_compat.device(actual) != array_api_compat.device(like):
        raise AssertionError(
            f"{name} is on device {array_api_compat.device(actual)}; wanted {array_api_compat.device(like)}"
        )


def same_form(name: str, actual: Array, dtype: Any, shape: Any) -> None:
    """Raise AssertionError unless the array has this dtype, of any library, and shape."""
    __tracebackhide__ = True
    if tuple(actual.shape) != tuple(shape):
        raise AssertionError(f"{name} has shape {tuple(actual.shape)}; wanted {tuple(shape)}")
    if dtype_name(actual.dtype) != dtype_name(dtype):
        raise AssertionError(f"{name} has dtype {dtype_name(actual.dtype)}; wanted {dtype_name(dtype)}")


def same_values(actual: Host, desired: Host, rtol: float, atol: float, name: str = "the array") -> None:
    """Raise AssertionError unless the entries are this near; NaNs equal NaNs, and an infinity only itself."""
    __tracebackhide__ = True
    if actual.dtype.kind not in "fc":
        actual, desired = actual.astype(object), desired.astype(object)  # exact, and without wrapping around
        finite = np.ones(desired.shape, dtype=bool)
        fits = finite
    else:
        finite = np.isfinite(desired)
        fits = (np.isfinite(actual) == finite) & (finite | (actual == desired) | (np.isnan(actual) & np.isnan(desired)))
    largest = np.max(np.abs(desired), initial=0, where=finite)
    distance = np.abs(np.where(finite & fits, actual, 0) - np.where(finite & fits, desired, 0))
    allowed = rtol * largest + atol
    wrong = ~fits | (distance > allowed)
    if np.any(wrong):
        at = np.unravel_index(np.argmax(np.where(fits, distance, np.inf)), actual.shape)
        raise AssertionError(
            f"{name} differs at {np.count_nonzero(wrong)} of {actual.size} places, the most at "
            f"{tuple(int(i) for i in at)}: {actual[at]!s}, wanted {desired[at]!s}; at most {float(allowed):.3g} apart, "
            f"{rtol:.3g} of the largest entry {float(largest):.6g}" + (f" and {atol:.3g}" if atol else "")
        )


def dtype_name(dtype: Any) -> str:
    """Name a dtype of any library as NumPy does."""
    return np.dtype(dtype).name if isinstance(dtype, type) else str(dtype).rpartition(".")[2]


def on_host(array: Array) -> Host:
    """Bring an array to the host; bfloat16, which NumPy does not know, as float32."""
    if dtype_name(array.dtype) == "bfloat16":
        xp = array_api_compat.array_namespace(array)
        array = xp.astype(array, xp.float32)
    return to_numpy(array)
