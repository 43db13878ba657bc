"""The backend flag: where the first arrays are made.

After that the namespace follows the arrays, and there is no current backend to set or to forget.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.arrays.libraries import LIBRARIES, Array, device_name, device_of


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
        host = np.asarray(array, dtype=dtype, order="C")  # PyTorch takes no negative strides
        moved = self.xp.asarray(host, device=self.device, copy=True)
        if host.dtype.kind == "f" and str(moved.dtype).rpartition(".")[2] != host.dtype.name:
            widen = LIBRARIES[self.name.partition(":")[0]].widen
            mend = f"; call {widen} first" if widen else ""
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
        device = device_of(name, module, device_flag)
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
    import importlib.metadata  # here, because it takes long and only a survey asks

    module = LIBRARIES[flag].module
    for distribution in importlib.metadata.packages_distributions().get(module, []):
        return importlib.metadata.version(distribution)
    return "-"


def _first_line(error: BaseException) -> str:
    """Say in one line what went wrong."""
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".: ")
