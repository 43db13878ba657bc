"""The BLAS that NumPy calls: how many threads it takes, and whether it has a kernel for small matrices.

NumPy has no function for either, so OpenBLAS is asked through its C interface. Where NumPy was built on another BLAS
nothing is known and nothing is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

# OpenBLAS multiplies without packing and without locks when M*N*K is at most this, on cores that have such a kernel.
SMALL_PRODUCT = 1_000_000
CORES_WITH_SMALL_KERNEL = {"SkylakeX", "Cooperlake", "Sapphirerapids"}


class OpenBlas(NamedTuple):
    """The functions of an OpenBLAS that is loaded."""

    get_threads: Callable[[], int]
    set_threads: Callable[[int], None]
    core: str


@functools.cache
def openblas() -> OpenBlas | None:
    """Find the OpenBLAS that NumPy came with or was linked to; None when there is none."""
    package = pathlib.Path(np.__file__).parent
    places = [*package.parent.glob("numpy.libs/*openblas*"), *package.glob(".dylibs/*openblas*")]
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
        places += [pathlib.Path(line.split()[-1]) for line in lines if "openblas" in line.rpartition("/")[2]]
    for place in places:
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(place))
            for name in ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}"):
                if hasattr(library, name.format("set_num_threads")):
                    core = getattr(library, name.format("get_corename"))
                    core.restype = ctypes.c_char_p
                    return OpenBlas(
                        getattr(library, name.format("get_num_threads")),
                        getattr(library, name.format("set_num_threads")),
                        core().decode(),
                    )
    return None


@functools.cache
def small_product() -> int:
    """M*N*K up to which a product takes the kernel for small matrices; 0 where there is no such kernel."""
    blas = openblas()
    return SMALL_PRODUCT if blas is not None and blas.core in CORES_WITH_SMALL_KERNEL else 0


class _Holders:
    """How many callers hold BLAS at one thread now, and what it had before the first of them came."""

    lock = threading.Lock()
    count = 0
    threads = 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS at one thread for a while; the last one to leave gives back what the first one found."""
    blas = openblas()
    if blas is None:
        yield
        return
    with _Holders.lock:
        if _Holders.count == 0:
            _Holders.threads = blas.get_threads()
            blas.set_threads(1)
        _Holders.count += 1
    try:
        yield
    finally:
        with _Holders.lock:
            _Holders.count -= 1
            if _Holders.count == 0:
                blas.set_threads(_Holders.threads)


def _forget() -> None:
    """Give back in a forked child what its parent's threads held, for they are not there."""
    _Holders.lock = threading.Lock()
    blas = openblas() if _Holders.count else None
    if blas is not None:
        blas.set_threads(_Holders.threads)
    _Holders.count = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
