"""Processes that work together, as MPI starts and connects them; one alone where nothing else started it.

Nothing of MPI is imported unless an MPI launcher has started this process. MPI adds up arrays on the host; those of
CuPy are added up on their devices where NCCL or a CUDA-aware MPI can.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import array_api_compat
import numpy as np

from xpconv.arrays.arguments import accumulation_dtype
from xpconv.arrays.libraries import Array, to_numpy
from xpconv.cuda import collectives
from xpconv.execution.blas import openblas
from xpconv.execution.workers import bind

LAUNCHERS = "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"  # what Open MPI, MPICH and their like leave a process


class Ranks:
    """The processes that were started together, by ``mpiexec -n 4``, say; or this one alone.

    It is to be made first of all, because it shares out the processors: those of a machine that several processes were
    given alike are divided among them; where the launcher has bound each to its own, that stands.

    As a context it lets go of the others at the end. Who leaves by an exception does not: then the launcher sees to it
    that all of them end, with the exit status of this one.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        Connects them; if not given all that a launcher has started.

    Attributes
    ----------
    rank, count : int
        The number of this process, from 0 on, and how many there are.
    local : int
        Its number among those of this machine.

    Raises
    ------
    ImportError
        When an MPI launcher has started this process and mpi4py cannot be imported.
    """

    def __init__(self, comm: Any = None) -> None:
        self.rank, self.count, self.local, self._mpi = 0, 1, 0, None
        if comm is None and any(name in os.environ for name in LAUNCHERS):
            self._mpi = mpi()
            if not self._mpi.Is_initialized():
                self._mpi.Init_thread()
            comm = self._mpi.COMM_WORLD
        self._comm = comm
        self._devices: collectives.Devices | None = None
        if comm is None:
            return
        self.rank, self.count = comm.Get_rank(), comm.Get_size()
        usable = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
        machines = comm.allgather((socket.gethostname(), usable))
        self.local = [host for host, _ in machines[: self.rank]].count(machines[self.rank][0])
        alike = machines[: self.rank].count(machines[self.rank])
        own = portion(usable, alike, machines.count(machines[self.rank]))
        if self._mpi is not None and own != usable:
            bind(own)
            blas = openblas()
            if blas is not None:
                blas.set_threads(len(own))

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sys.stdout.flush()  # before the launcher ends what is left
        if self._mpi is not None and (kind is None or (isinstance(error, SystemExit) and not error.code)):
            self._mpi.Finalize()

    def device(self, flag: str) -> str:
        """Return the backend flag for this process: "cupy" with a device of its own, as far as the machine has them."""
        return collectives.own_device(flag, self.local) if self.count > 1 else flag

    def shared(self, value: Any) -> Any:
        """Return what process 0 has given, on all of them."""
        return value if self._comm is None else self._comm.bcast(value, 0)

    def largest(self, number: int) -> int:
        """Return the largest number of all processes."""
        return number if self.count == 1 else max(self._comm.allgather(number))

    def go_on(self) -> None:
        """Let MPI get on with sums under way, which it does only when it is called."""
        if self.count > 1:
            self._comm.Iprobe()

    def total(self, array: Array) -> Array:
        """Add an array up over all processes, in an order that depends on its size and their number alone."""
        return self.adding(array)()

    def adding(self, array: Array) -> Callable[[], Array]:
        """Begin to add an array up over all processes, and return a function that waits for the sum and returns it.

        It is a new array where `array` is, and the same on all of them. Narrow floats are added up in float32.
        """
        if self.count == 1:
            return lambda: array
        if collectives.handles(array):
            if self._devices is None:
                self._devices = collectives.Devices(self._comm, array, cuda_aware(self._mpi))
            if self._devices.usable:
                return self._devices.adding(array)
        xp, place = array_api_compat.array_namespace(array), array_api_compat.device(array)
        mine = to_numpy(xp.astype(array, accumulation_dtype(xp, array.dtype), copy=False))
        sums = np.empty_like(mine)
        under_way = [mine, self._comm.Iallreduce(mine, sums)]  # both are to live until MPI has read them

        def finish() -> Array:
            under_way.pop().Wait()
            return xp.astype(xp.asarray(sums, device=place), array.dtype, copy=False)

        return finish


def portion(processors: Sequence[int], place: int, count: int) -> tuple[int, ...]:
    """Return the processors of one of `count` processes that share them; one, shared too, where there are too few."""
    if len(processors) < count:
        return tuple(processors[place % len(processors) :][:1]) if processors else ()
    return tuple(processors[len(processors) * place // count : len(processors) * (place + 1) // count])


def mpi() -> Any:
    """Import mpi4py's MPI, not initialized by that; ImportError names the extra."""
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False  # who fails must not wait at exit for the others
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ImportError(f'processes under mpiexec need mpi4py ({reason}): pip install "xpconv[mpi]"') from error
    return MPI


def cuda_aware(library: Any) -> bool:
    """Whether MPI says that it takes memory of CUDA devices, as Open MPI does."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        return bool(ctypes.CDLL(library.__file__).MPIX_Query_cuda_support())
    return False


def survey() -> tuple[str, str]:
    """Return the version of mpi4py, and which MPI adds up arrays and how; or "-" and how to get one."""
    try:
        found = mpi()
    except ImportError as error:
        return "-", str(error)
    import mpi4py

    name = found.Get_library_version().partition(",")[0].strip("\0\n ")
    return mpi4py.__version__, f"{name}: NumPy arrays through the host, CuPy's {collectives.way(cuda_aware(found))}"
