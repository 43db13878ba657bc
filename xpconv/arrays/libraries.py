"""Array libraries: their names and devices, and what each can do beyond the standard.

This is the only file that names the libraries. Everywhere else the namespace follows the arrays
(`array_api_compat.array_namespace`), and what the standard cannot say is asked for here.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

Array = Any
Pullback = Callable[..., tuple[Any, ...]]

_namespaces: dict[type, Any] = {}


@dataclass(frozen=True)
class Library:
    """An array library: its module, its namespace of the standard, what installs it, and the devices it has.

    `widen` is what makes it hold float64, where that must be asked for.
    """

    module: str
    namespace: str
    install: str
    devices: str
    widen: str = ""


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
    "jax": Library(
        "jax",
        "jax.numpy",
        'pip install "xpconv[jax]"',
        "jax, jax:cpu, jax:gpu, jax:gpu:1, ...",
        widen='jax.config.update("jax_enable_x64", True)',
    ),
    "array-api-strict": Library(
        "array_api_strict",
        "array_api_strict",
        'pip install "xpconv[test]"',
        "array-api-strict, array-api-strict:device1, ...",
    ),
}


def device_of(name: str, module: ModuleType, flag: str) -> Any:
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
            raise ValueError(str(error).partition("\n")[0]) from error
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


def namespace_of(array: Array) -> Any:
    """Return the namespace of the standard that an array's type belongs to; asked once for each type."""
    if type(array) not in _namespaces:
        _namespaces[type(array)] = array_api_compat.array_namespace(array)
    return _namespaces[type(array)]


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """Copy an array of any library and device to the host, as a NumPy array of the same dtype and shape."""
    if array_api_compat.is_cupy_array(array):
        return np.asarray(array.get())
    if array_api_compat.is_torch_array(array):
        return np.array(array.detach().cpu().numpy())
    if type(array).__module__.startswith("array_api_strict"):
        array = array_api_compat.to_device(array, sys.modules["array_api_strict"].Device("CPU_DEVICE"))
    return np.array(array)


@contextlib.contextmanager
def strictest(backend: Any) -> Iterator[None]:
    """Hold a library to its strictest: array-api-strict to what every library has, JAX to the dtypes it is given."""
    if backend.xp.__name__ == "array_api_strict":
        flags = {"boolean_indexing": False, "data_dependent_shapes": False, "enabled_extensions": ()}
        with backend.xp.ArrayAPIStrictFlags(**flags):
            yield
    elif backend.xp.__name__ == "jax.numpy":
        config = sys.modules["jax"].config
        before = config.jax_enable_x64
        config.update("jax_enable_x64", True)
        try:
            yield
        finally:
            config.update("jax_enable_x64", before)
    else:
        yield


def on_device(*arrays: Any) -> contextlib.AbstractContextManager[Any]:
    """Enter the device of CuPy's arrays, where its new arrays and launches go; other libraries follow their arrays."""
    places = (a.device for a in arrays if not isinstance(a, np.ndarray) and array_api_compat.is_cupy_array(a))
    return next(places, None) or contextlib.nullcontext()


def at_hand(array: Array) -> bool:
    """Whether values can be looked at without waiting for a device, and without breaking a trace."""
    if array_api_compat.is_cupy_array(array) or type(array).__name__.endswith("Tracer"):
        return False
    if array_api_compat.is_torch_array(array):
        return bool(array.device.type == "cpu")
    return not array_api_compat.is_jax_array(array) or array.device.platform == "cpu"


def never_changes(array: Array) -> bool:
    """Whether arrays of this library stay what they are, and this one is not being traced."""
    return array_api_compat.is_jax_array(array) and not type(array).__name__.endswith("Tracer")


def synchronize(array: Array) -> bool:
    """Wait until the work that gives `array` is done, for a clock to mean anything; False where work is only noted."""
    if array_api_compat.is_cupy_array(array):
        stream = sys.modules["cupy"].cuda.get_current_stream(array.device.id)
        return not stream.is_capturing() and stream.synchronize() is None
    if array_api_compat.is_torch_array(array) and array.device.type == "cuda":
        cuda = sys.modules["torch"].cuda
        return not cuda.is_current_stream_capturing() and cuda.synchronize(array.device) is None
    if array_api_compat.is_jax_array(array):
        return not type(array).__name__.endswith("Tracer") and array.block_until_ready() is not None
    return True


def transport(like: Array) -> tuple[Callable[[np.ndarray[Any, Any]], Any], Callable[[Any], Array]]:
    """Return two steps that bring a host array to where another array is: `send`, on any thread, then `receive`.

    On CuPy `send` copies through pinned memory on a stream of its own, so that it goes on beside the work under way,
    and waits for that copy alone. `receive` makes an array of the stream at work, and lets the memory of the copy be
    used again no sooner than it has been read.
    """
    if not array_api_compat.is_cupy_array(like):
        xp, place = array_api_compat.array_namespace(like), array_api_compat.device(like)
        return (lambda host: xp.asarray(host, device=place, copy=True)), (lambda sent: sent)
    cupy, empty_pinned = sys.modules["cupy"], importlib.import_module("cupyx").empty_pinned
    with like.device:
        copying = cupy.cuda.Stream(non_blocking=True)

    def send(host: np.ndarray[Any, Any]) -> Any:
        pinned = empty_pinned(host.shape, host.dtype)
        pinned[...] = host
        with like.device, copying:
            sent = cupy.empty(host.shape, host.dtype)
            sent.set(pinned, stream=copying)
            copying.synchronize()  # before the pinned memory is given back
        return sent

    def receive(sent: Any) -> Array:
        with like.device:
            array = sent.copy()
            copying.wait_event(cupy.cuda.get_current_stream().record())
        return array

    return send, receive


def overlapping_view(array: Array, axis: int, counts: tuple[int, int], steps: tuple[int, int]) -> Array | None:
    """View one axis as two that walk it in these steps, sharing elements; None where the library has no such view."""
    shape = (*array.shape[:axis], *counts, *array.shape[axis + 1 :])
    if isinstance(array, np.ndarray) or array_api_compat.is_cupy_array(array):
        strides = array.strides
    elif array_api_compat.is_torch_array(array):
        strides = array.stride()
    else:
        return None
    step = strides[axis]
    strides = (*strides[:axis], *(step * s for s in steps), *strides[axis + 1 :])
    if isinstance(array, np.ndarray) and array.flags.c_contiguous:
        return np.ndarray(shape, array.dtype, array, 0, strides)  # a fifth of what as_strided takes
    if array_api_compat.is_torch_array(array):
        return array.as_strided(shape, strides)
    return sys.modules[type(array).__module__.partition(".")[0]].lib.stride_tricks.as_strided(array, shape, strides)


def erfc_of(array: Array) -> Callable[[Array], Array] | None:
    """Return the complementary error function of an array's library; None where it has none."""
    if array_api_compat.is_torch_array(array):
        return sys.modules["torch"].special.erfc  # type: ignore[no-any-return]
    if array_api_compat.is_jax_array(array):
        return importlib.import_module("jax.scipy.special").erfc  # type: ignore[no-any-return]
    if array_api_compat.is_cupy_array(array):
        return importlib.import_module("cupyx.scipy.special").erfc  # type: ignore[no-any-return]
    return None


def differentiable(body: Callable[..., tuple[Any, Pullback]], arrays: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return `y` of an operator's body, its pullback handed to the library's differentiation where that is at work."""
    others = [a for a in arrays if a is not None and not isinstance(a, np.ndarray)]
    if any(array_api_compat.is_torch_array(a) and a.requires_grad for a in others):
        torch = sys.modules["torch"]
        if torch.is_grad_enabled():
            return _torch_function().apply(body, options, *arrays)
    elif any(type(a).__name__.endswith("Tracer") and array_api_compat.is_jax_array(a) for a in others):
        return _jax_function(body, options)(*arrays)
    return body(*arrays, **options)[0]


@functools.cache
def _torch_function() -> Any:
    """Wrap ``y, pullback`` as a `torch.autograd.Function`."""
    torch = sys.modules["torch"]

    class Operator(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, body: Any, options: dict[str, Any], *arrays: Any) -> Any:
            ctx.again = functools.partial(body, **copy.deepcopy(options))  # a random generator as it is now
            ctx.save_for_backward(*arrays)
            y, ctx.pullback = body(*arrays, **options)
            if not isinstance(y, tuple):
                return y.detach()  # another object than the pullback may hold, or neither would ever be freed
            ctx.mark_non_differentiable(*y[1:])
            return (y[0].detach(), *y[1:])

        @staticmethod
        def backward(ctx: Any, dy: Any, *rest: Any) -> Any:
            # A gradient that is differentiated in its turn has to be computed where PyTorch sees how.
            pullback = ctx.again(*ctx.saved_tensors)[1] if torch.is_grad_enabled() else ctx.pullback
            return None, None, *pullback(dy)

    return Operator


def _jax_function(body: Callable[..., tuple[Any, Pullback]], options: dict[str, Any]) -> Any:
    """Wrap ``y, pullback`` as a `jax.custom_vjp`; the residuals are the arrays that the traced pullback closes over.

    The body runs once: an operator that draws random numbers has them in both directions.
    """
    jax = sys.modules["jax"]
    program: Any = None

    def forward(*arrays: Any) -> tuple[Any, Any]:
        nonlocal program
        y, pullback = body(*arrays, **options)
        traced, result = jax.make_jaxpr(pullback, return_shape=True)(y[0] if isinstance(y, tuple) else y)
        program = traced.jaxpr, jax.tree.structure(result)
        return y, traced.consts

    def backward(consts: Any, dy: Any) -> Any:
        jaxpr, structure = program
        dy = jax.numpy.conj(dy[0] if isinstance(dy, tuple) else dy)  # JAX's cotangents are the conjugates of ours
        gradients = jax.core.eval_jaxpr(jaxpr, consts, dy)
        return jax.tree.unflatten(structure, map(jax.numpy.conj, gradients))

    function = jax.custom_vjp(lambda *arrays: body(*arrays, **options)[0])
    function.defvjp(forward, backward)
    return function
