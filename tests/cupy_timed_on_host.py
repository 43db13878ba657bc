"""What the benchmark alone asks of CuPy: time, numbers at random, tensors of PyTorch; on the host, as the rest of it.

`timeline` has what concerns time as it comes, `brought` the shapes of what was copied to the host.
"""

import functools
import types

import cupy_on_host
import numpy as np
from cupy_on_host import Array, Device, cupy


class Event(cupy_on_host.Event):
    """An event of a device that is late: it comes to one when it is waited for."""

    done = False

    def record(self):
        super().record()
        cupy.timeline.append("event")

    def synchronize(self):
        super().synchronize()
        self.done = True


class Generator:
    """Numbers at random, of the dtype that is asked for."""

    def __init__(self, seed):
        self.host = np.random.default_rng(seed)

    def standard_normal(self, size, dtype):
        return Array(self.host.standard_normal(size, dtype))


def raw_kernel(code, name):
    """One that spins for so many cycles."""
    assert f"void {name}(long long cycles)" in code
    assert "clock64()" in code

    def launch(grid, block, arguments):
        (cycles,) = arguments
        assert grid == block == (1,)
        assert cycles.dtype == np.int64
        cupy.timeline.append(("spin", int(cycles)))

    return launch


def from_dlpack(tensor):
    """The same memory, if its numbers lie one behind the other."""
    assert tensor.flags.c_contiguous
    return Array(tensor.view(np.ndarray))


def install(monkeypatch):
    """Let it be CuPy."""
    cupy_on_host.install(monkeypatch)
    get = Array.get

    @functools.wraps(get)
    def bring(array):
        cupy.brought.append(array.shape)
        return get(array)

    more = {
        "timeline": [],
        "brought": [],
        "RawKernel": raw_kernel,
        "from_dlpack": from_dlpack,
        "random": types.SimpleNamespace(default_rng=Generator),
    }
    for name, member in more.items():
        monkeypatch.setattr(cupy, name, member, raising=False)
    monkeypatch.setattr(cupy.cuda, "Event", Event)
    monkeypatch.setattr(Array, "get", bring)
    monkeypatch.setattr(Device, "synchronize", lambda _: cupy.timeline.append("synchronize"), raising=False)
