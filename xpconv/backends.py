"""Array libraries: the backend flag, devices, moving arrays, and what a library can do beyond the standard.

This is the only file that names the libraries. A backend says where the *first* arrays are made; after that the
namespace follows the arrays (`array_api_compat.array_namespace`), and there is no current backend to set or to forget.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

Array = Any
Pullback = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Library:
    """An array library: its module, its namespace of the standard, what installs it, and the devices it has."""

    module: str
    namespace: str
    install: str
    devices: str


LIBRARIES = {
    "numpy": Library("numpy", "array_api_compat.numpy", "pip install xpconv", "numpy"),
    "cupy": Library(
        "cupy",
        "array_api_compat.cupy",
        'pip install "xpconv[cuda13]" (or "xpconv[cuda12]"), on a machine with an NVIDIA GPU and its driver',
        "cupy, cupy:1, ...",
    ),
    "torch": Library(
        "torch",
        "array_api_compat.torch",
        'pip install "xpconv[torch]"',
        "torch, torch:cpu, torch:cuda, torch:cuda:1, ...",
    ),
    "jax": Library("jax", "jax.numpy", 'pip install "xpconv[jax]"', "jax, jax:cpu, jax:gpu, jax:gpu:1, ..."),
    "array-api-strict": Library(
        "array_api_strict",
        "array_api_strict",
        'pip install "xpconv[test]"',
        "array-api-strict, array-api-strict:device1, ...",
    ),
}


@dataclass(frozen=True)
class Backend:
    """Where arrays are made: a library and one of its devices. `backend` finds one by its flag.

    Attributes
    ----------
    name : str
        The flag: the library, and the device where one was named.
    xp : module
        The library's namespace of the array API standard.
    device : object
        The library's own device object.
    """

    name: str
    xp: Any
    device: Any

    def asarray(self, array: Any, dtype: str | None = None) -> Array:
        """Copy a host array to this backend's device.

        Parameters
        ----------
        array : array_like
            Anything that NumPy makes an array of.
        dtype : str, optional
            Name of the dtype wanted, such as "float32"; that of `array` if not given.

        Raises
        ------
        TypeError
            When the device does not hold that dtype.
        """
        host = np.asarray(array) if dtype is None else np.asarray(array).astype(dtype, copy=False)
        moved = self.xp.asarray(host, device=self.device, copy=True)
        if host.dtype.kind == "f" and str(moved.dtype).rpartition(".")[2] != host.dtype.name:
            mend = '; call jax.config.update("jax_enable_x64", True) first' if self.name.startswith("jax") else ""
            raise TypeError(f"{self.name} made {moved.dtype} of {host.dtype.name}; ask for dtype='float32'{mend}")
        return moved

    def __str__(self) -> str:
        return f"{self.name} on {device_name(self.device)}"


def backend(flag: str = "numpy") -> Backend:
    """Find a backend by its flag and show that it can be used, by computing on it.

    Parameters
    ----------
    flag : str
        "numpy", "cupy", "torch", "jax" or "array-api-strict", and after a colon the device where it is not the
        library's default: "cupy:1", "torch:cuda", "jax:cpu".

    Returns
    -------
    Backend
        With `asarray` to move host arrays to it.

    Raises
    ------
    ValueError
        When the library or the device is not known.
    ImportError
        When the library is not installed; the message has the line that installs it.
    RuntimeError
        When it is installed but cannot be used (no driver, no such accelerator); the message has the reason.

    Examples
    --------
    >>> import xpconv
    >>> xpconv.backend("numpy").asarray([1.0, 2.0], dtype="float32")
    array([1., 2.], dtype=float32)
    """
    name, _, device_flag = str(flag).partition(":")
    if name not in LIBRARIES:
        raise ValueError(f"unknown backend {flag!r}; choose one of {', '.join(LIBRARIES)}")
    library = LIBRARIES[name]
    try:
        module = importlib.import_module(library.module)
    except ImportError as error:
        raise ImportError(
            f"backend {flag!r} needs {name}, which does not import ({error}): {library.install}"
        ) from error
    try:
        device = _device(name, module, device_flag)
        namespace = importlib.import_module(library.namespace)
        if float(namespace.sum(namespace.ones(2, dtype=namespace.float32, device=device))) != 2.0:
            raise RuntimeError("1 + 1 did not give 2")
    except ValueError as error:
        raise ValueError(f"backend {flag!r}: {error}; choose one of {library.devices}") from error
    except Exception as error:
        raise RuntimeError(
            f"backend {flag!r} is installed but cannot be used: {_first_line(error)}. To mend it: {library.install}"
        ) from error
    return Backend(flag, namespace, device)


def _device(name: str, module: ModuleType, flag: str) -> Any:
    """Turn the part of a backend flag after the colon into the library's device object."""
    if name == "cupy":
        count = module.cuda.runtime.getDeviceCount()
        index = int(flag) if flag.isdigit() else (module.cuda.Device().id if not flag else count)
        if index >= count:
            raise ValueError(f"no device {flag!r}, there are {count}")
        return module.cuda.Device(index)
    if name == "torch":
        try:
            return module.device(flag or module.get_default_device())
        except RuntimeError as error:
            raise ValueError(_first_line(error)) from error
    if name == "jax":
        platform, _, index = flag.partition(":")
        devices = module.devices(platform or None)
        if index and not (index.isdigit() and int(index) < len(devices)):
            raise ValueError(f"no device {flag!r}, there are {len(devices)}")
        return devices[int(index or 0)]
    if name == "array-api-strict":
        return module.Device(flag or "CPU_DEVICE")
    if flag not in ("", "cpu"):
        raise ValueError(f"no device {flag!r}")
    return "cpu"


def device_name(device: Any) -> str:
    """Say in words which device this is: the model of a GPU where its library tells."""
    kind = type(device).__module__.partition(".")[0]
    if kind == "cupy":
        properties = sys.modules["cupy"].cuda.runtime.getDeviceProperties(device.id)
        return f"CUDA device {device.id} ({properties['name'].decode()})"
    if kind == "torch" and device.type == "cuda":
        return f"{device} ({sys.modules['torch'].cuda.get_device_name(device)})"
    return str(device)


def survey() -> list[tuple[str, str, str, str]]:
    """List every library as (flag, version, device, how to mend it): one of the last two is empty."""
    rows = []
    for flag in LIBRARIES:
        try:
            found = backend(flag)
        except (ImportError, RuntimeError) as error:
            rows.append((flag, _version(flag), "", str(error)))
        else:
            rows.append((flag, _version(flag), device_name(found.device), ""))
    return rows


def _version(flag: str) -> str:
    """Return the version of a library that is installed, under whichever distribution it came."""
    module = LIBRARIES[flag].module
    for distribution in importlib.metadata.packages_distributions().get(module, []):
        return importlib.metadata.version(distribution)
    return "-"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".: ")


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """Copy an array of any library and device to the host, as a NumPy array of the same dtype and shape."""
    if array_api_compat.is_numpy_array(array):
        return np.array(array)
    if array_api_compat.is_cupy_array(array):
        return np.asarray(array.get())
    if array_api_compat.is_torch_array(array):
        return np.array(array.detach().cpu().numpy())
    if type(array).__module__.startswith("array_api_strict"):
        array = array_api_compat.to_device(array, sys.modules["array_api_strict"].Device("CPU_DEVICE"))
    return np.array(array)


def at_hand(array: Array) -> bool:
    """Whether values can be looked at without waiting for a device, and without breaking a trace."""
    if array_api_compat.is_cupy_array(array) or type(array).__name__.endswith("Tracer"):
        return False
    if array_api_compat.is_torch_array(array):
        return bool(array.device.type == "cpu")
    return not array_api_compat.is_jax_array(array) or array.device.platform == "cpu"


def synchronize(array: Array) -> None:
    """Wait until the work that gives `array` is done, for a clock on the host to mean anything."""
    if array_api_compat.is_cupy_array(array):
        sys.modules["cupy"].cuda.get_current_stream(array.device.id).synchronize()
    elif array_api_compat.is_torch_array(array) and array.device.type == "cuda":
        sys.modules["torch"].cuda.synchronize(array.device)
    elif array_api_compat.is_jax_array(array):
        array.block_until_ready()


def overlapping_view(array: Array, axis: int, counts: tuple[int, int], steps: tuple[int, int]) -> Array | None:
    """View one axis as two that walk it in these steps, sharing elements; None where the library has no such view."""
    shape = (*array.shape[:axis], *counts, *array.shape[axis + 1 :])
    if array_api_compat.is_torch_array(array):
        strides = array.stride()
    elif array_api_compat.is_numpy_array(array) or array_api_compat.is_cupy_array(array):
        strides = array.strides
    else:
        return None
    step = strides[axis]
    strides = (*strides[:axis], *(step * s for s in steps), *strides[axis + 1 :])
    if array_api_compat.is_torch_array(array):
        return array.as_strided(shape, strides)
    module = sys.modules[type(array).__module__.partition(".")[0]]
    return module.lib.stride_tricks.as_strided(array, shape, strides)


def differentiable(body: Callable[..., tuple[Any, Pullback]], arrays: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return `y` of an operator's body, its pullback handed to the library's differentiation where that is at work."""
    if any(array_api_compat.is_torch_array(a) and a.requires_grad for a in arrays):
        torch = sys.modules["torch"]
        if torch.is_grad_enabled():
            return _torch_function().apply(body, options, *arrays)
    elif any(type(a).__name__.endswith("Tracer") and array_api_compat.is_jax_array(a) for a in arrays):
        return _jax_function(body, options)(*arrays)
    return body(*arrays, **options)[0]


@functools.cache
def _torch_function() -> Any:
    """Wrap ``y, pullback`` as a `torch.autograd.Function`."""
    torch = sys.modules["torch"]

    class Operator(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, body: Any, options: dict[str, Any], *arrays: Any) -> Any:
            y, ctx.pullback = body(*arrays, **options)
            rest = y[1:] if isinstance(y, tuple) else ()
            ctx.mark_non_differentiable(*rest)
            return y

        @staticmethod
        def backward(ctx: Any, dy: Any, *rest: Any) -> Any:
            return None, None, *ctx.pullback(dy)

    return Operator


def _jax_function(body: Callable[..., tuple[Any, Pullback]], options: dict[str, Any]) -> Any:
    """Wrap ``y, pullback`` as a `jax.custom_vjp`; the residuals are the arguments, for a closure is none."""
    jax = sys.modules["jax"]

    def forward(*arrays: Any) -> tuple[Any, Any]:
        return body(*arrays, **options)[0], arrays

    def backward(arrays: tuple[Any, ...], dy: Any) -> tuple[Any, ...]:
        return body(*arrays, **options)[1](dy[0] if isinstance(dy, tuple) else dy)

    function = jax.custom_vjp(lambda *arrays: body(*arrays, **options)[0])
    function.defvjp(forward, backward)
    return function
