"""Sums over processes of arrays that lie on CUDA devices: by NCCL, through CuPy, or by an MPI that is CUDA-aware."""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
from collections.abc import Callable
from typing import Any

from xpconv.arrays.libraries import Array

NCCL_SUM = 0  # ncclRedOp_t
NCCL_TYPES = {"e": 6, "f": 7, "d": 8}  # ncclDataType_t of half, single and double


def handles(array: Array) -> bool:
    """Whether this is an array of CuPy's."""
    return type(array).__module__.partition(".")[0] == "cupy"


def device_count() -> int:
    """How many CUDA devices CuPy finds; 0 where there is no CuPy or no driver."""
    with contextlib.suppress(Exception):  # whatever is wrong, asking for the backend says it better
        return int(importlib.import_module("cupy").cuda.runtime.getDeviceCount())
    return 0


def own_device(flag: str, place: int) -> str:
    """Return the backend flag of a process by its number on its machine: "cupy" with a device, one after another."""
    count = device_count() if flag == "cupy" else 0
    return f"{flag}:{place % count}" if count else flag


def way(cuda_aware: bool) -> str:
    """Say in words how sums of CuPy's arrays would be made here."""
    if device_count() == 0:
        return "through the host (no CUDA device)"
    if nccl() is not None:
        return "by NCCL, or through the host where processes share a device"
    return "from the device" if cuda_aware else "through the host (no NCCL, and MPI is not CUDA-aware)"


def nccl() -> Any:
    """Return CuPy's NCCL; None where it came without."""
    with contextlib.suppress(ImportError):
        found = importlib.import_module("cupy.cuda.nccl")
        return found if getattr(found, "available", True) else None
    return None


class Devices:
    """The devices of processes that work together, each on its own.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    like : array
        Lies on the device of this process.
    cuda_aware : bool
        Whether `comm` takes memory of devices.

    Attributes
    ----------
    usable : bool
        Whether they can add up among themselves; the same on all.
    """

    def __init__(self, comm: Any, like: Array, cuda_aware: bool) -> None:
        self.comm, self.communicator = comm, None
        places = comm.allgather((socket.gethostname(), like.device.id, nccl() is not None, cuda_aware))
        if all(found for *_, found, _ in places) and len({place[:2] for place in places}) == len(places):
            cuda = sys.modules["cupy"].cuda
            name = comm.bcast(nccl().get_unique_id() if comm.Get_rank() == 0 else None, 0)
            with like.device:
                self.communicator = nccl().NcclCommunicator(len(places), name, comm.Get_rank())
                self.stream = cuda.Stream(non_blocking=True)
        self.usable = self.communicator is not None or all(aware for *_, aware in places)

    def adding(self, array: Array) -> Callable[[], Array]:
        """Begin to add up, beside the work under way, and return what waits for it and returns the sum."""
        cuda = sys.modules["cupy"].cuda
        with array.device:
            sums, now = array.copy(), cuda.get_current_stream()
            if self.communicator is None:
                now.synchronize()  # MPI knows nothing of streams
                under_way = [array, self.comm.Iallreduce(array, sums)]  # both are to live until MPI has read them

                def wait() -> Array:
                    under_way.pop().Wait()
                    return sums

                return wait
            self.stream.wait_event(now.record())
            arguments = sums.data.ptr, sums.data.ptr, sums.size, NCCL_TYPES[sums.dtype.char], NCCL_SUM
            self.communicator.allReduce(*arguments, self.stream.ptr)
            done = self.stream.record()

        def finish() -> Array:
            with array.device:
                cuda.get_current_stream().wait_event(done)
            return sums

        return finish
