"""Contenders on a CUDA GPU, all on the same one: timed by its own events, around calls that wait for nothing.

Like is compared with like: a run has one precision for everyone, strict float32, TF32 or float16.
"""

from __future__ import annotations

import importlib
import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xpconv.algorithms import Algorithm
from xpconv.arrays.libraries import Array
from xpconv.bench.contenders import BOTH, FIRST, FORWARD, Call, Calls, Contender, Gauge, XpConv, layout_order
from xpconv.bench.frameworks import PyTorch
from xpconv.bench.layers import NETWORKS, Case
from xpconv.bench.problems import problem
from xpconv.cuda import cudnn
from xpconv.selection.model import BY_KERNELS

CUDNN = "with cuDNN"
DRIVER = pathlib.Path("/proc/driver/nvidia/version")


def on_gpu(flag: str) -> bool:
    """Whether the arrays of this backend are on a GPU that others can be compared on."""
    return flag.partition(":")[0] == "cupy"


def between(start: Any, stop: Any, call: Call) -> None:
    """Record two events around a call, and wait for the second."""
    start.record()
    call()
    stop.record()
    stop.synchronize()


def on_events(call: Call) -> float:
    """Return the seconds of a call on CuPy's current stream."""
    cuda = importlib.import_module("cupy").cuda
    start, stop = cuda.Event(), cuda.Event()
    between(start, stop, call)
    return float(cuda.get_elapsed_time(start, stop)) / 1e3


class Pool:
    """The memory that CuPy's pool has given out."""

    def used(self) -> int:
        """Return the bytes that are out now."""
        return int(importlib.import_module("cupy").get_default_memory_pool().used_bytes())

    def most(self, call: Call) -> int:
        """Call, and return the most bytes that were out meanwhile."""
        used, taken = self.used, [self.used()]

        class Watch(importlib.import_module("cupy").cuda.MemoryHook):  # type: ignore[misc]
            def malloc_postprocess(self, **_: Any) -> None:
                taken.append(used())

        with Watch():
            call()
        return max(taken)


class TorchPool:
    """The memory that PyTorch's allocator has given out."""

    def used(self) -> int:
        """Return the bytes that are out now."""
        return int(importlib.import_module("torch").cuda.memory_allocated())

    def most(self, call: Call) -> int:
        """Call, and return the most bytes that were out meanwhile."""
        cuda = importlib.import_module("torch").cuda
        cuda.reset_peak_memory_stats()
        call()
        return int(cuda.max_memory_allocated())


@dataclass(frozen=True)
class OnCupy(XpConv):
    """xpconv on CuPy arrays, which takes training steps as CUDA graphs."""

    gauge: ClassVar[Gauge | None] = Pool()
    ways: ClassVar[Mapping[str, Algorithm]] = BY_KERNELS
    graphs: ClassVar[bool] = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """As anywhere, and whether "auto" takes cuDNN."""
        return super().name + (f" {CUDNN}" if self.auto_takes_cudnn else "")

    @property
    def auto_takes_cudnn(self) -> bool:
        """Whether it leaves the choice, and cuDNN is chosen."""
        return self.algorithm == "auto" and self.precision != "float32" and cudnn.available()

    def versions(self) -> dict[str, str]:
        """Return those of CuPy, CUDA, the driver, and a cuDNN that is there for CuPy's arrays."""
        cupy = importlib.import_module("cupy")
        found = {"CuPy": cupy.__version__, "CUDA": str(cupy.cuda.runtime.runtimeGetVersion())}
        if DRIVER.exists():
            found |= {"NVIDIA's driver": " ".join(re.findall(r"\d+\.[\d.]+", DRIVER.read_text())[:1])}
        if self.algorithm == "cudnn" or cudnn.available():
            found |= {"cuDNN for CuPy": str(cudnn.library().backend_version_string())}
        return found

    def weight_order(self, layout: str, axes: int) -> tuple[int, ...]:
        """Return the order in which the axes of a weight lie in memory: for cuDNN as PyTorch has them."""
        by_cudnn = self.algorithm == "cudnn" or self.auto_takes_cudnn
        return layout_order(layout, axes) if by_cudnn else super().weight_order(layout, axes)

    def waited(self, *outputs: Any) -> tuple[Any, ...]:
        """Give the outputs, for which nobody waits."""
        return outputs

    def timed(self, call: Call) -> float:
        """Return the seconds of a call on the device."""
        with self.place.device:
            return on_events(call)


@dataclass(frozen=True)
class CuDnn(PyTorch):
    """PyTorch's functions on the GPU, where cuDNN computes them by what it has found to be fastest."""

    precision: str = "float32"
    device: ClassVar[str] = "cuda"
    gauge: ClassVar[Gauge | None] = TorchPool()

    @property
    def name(self) -> str:  # type: ignore[override]
        """PyTorch, and what it multiplies in."""
        return "PyTorch cuDNN" + (f" {self.precision}" if self.precision != "float32" else "")

    def versions(self) -> dict[str, str]:
        """Return those of PyTorch and cuDNN; raise ImportError where PyTorch has no GPU."""
        found, torch = super().versions(), importlib.import_module("torch")
        if not torch.cuda.is_available():
            raise ImportError("this PyTorch has no GPU")
        return found | {"cuDNN": str(torch.backends.cudnn.version())}

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Both; of networks, in float32 alone."""
        return () if case.operator in NETWORKS and self.precision == "float16" else super().layouts(case)

    def tensor(self, host: Any) -> Any:
        """Copy to the GPU, as the axes lie."""
        torch = importlib.import_module("torch")
        return (
            super()
            .tensor(host)
            .to(device=self.device, dtype=torch.float16 if self.precision == "float16" else torch.float32)
        )

    def make(self, case: Case, layout: str) -> Calls:
        """Return both directions, as its own switches say."""
        backends = importlib.import_module("torch").backends
        backends.cudnn.benchmark = True
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        return super().make(case, layout)

    def timed(self, call: Call) -> float:
        """Return the seconds of a call on the device."""
        cuda = importlib.import_module("torch").cuda
        start, stop = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        between(start, stop, call)
        return float(start.elapsed_time(stop)) / 1e3


LOWER = """
    int out_x = i % out_w, out_y = i / out_w % out_h, kx = i / (out_w * out_h) % kw, ky = i / (out_w * out_h * kw) % kh;
    int image = i / (out_w * out_h * kw * kh), y = out_y * stride + ky - pad, x = out_x * stride + kx - pad;
    col = y >= 0 && y < h && x >= 0 && x < w ? img[(image * h + y) * w + x] : T(0);
"""
RAISE = """
    int x0 = i % w + pad, y0 = i / w % h + pad, image = i / (w * h);
    float sum = 0;
    for (int ky = 0; ky < kh; ky++) {
        int y = (y0 - ky) / stride;
        if (y0 < ky || (y0 - ky) % stride || y >= out_h) continue;
        for (int kx = 0; kx < kw; kx++) {
            int x = (x0 - kx) / stride;
            if (x0 < kx || (x0 - kx) % stride || x >= out_w) continue;
            sum += (float)col[(((image * kh + ky) * kw + kx) * out_h + y) * out_w + x];
        }
    }
    img = T(sum);
"""
NUMBERS = "int32 h, int32 w, int32 out_h, int32 out_w, int32 kh, int32 kw, int32 stride, int32 pad"


@dataclass(frozen=True)
class Chainer(Contender):
    """Chainer's way: one elementwise kernel lowers the whole batch, and one product follows; along two axes."""

    precision: str = "float32"
    name: str = "Chainer's way"
    gauge: ClassVar[Gauge | None] = Pool()

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Channels first; it has no groups, no pooling and no TF32."""
        fits = case.operator == "conv" and len(case.kernel) == 2 and case.groups == 1 and self.precision != "tf32"
        return (FIRST,) if fits else ()

    def make(self, case: Case, layout: str) -> Calls:
        """Return both directions."""
        cupy = importlib.import_module("cupy")
        lower = cupy.ElementwiseKernel(f"raw T img, {NUMBERS}", "T col", LOWER, "lower")
        rise = cupy.ElementwiseKernel(f"raw T col, {NUMBERS}", "T img", RAISE, "rise")
        dtype = "float16" if self.precision == "float16" else "float32"
        given = problem(case)
        x, weight, *biases, dy = (cupy.asarray(np.asarray(a, dtype)) for a in (*given.arrays, given.dy))
        (n, c, *size), output = case.shape, case.window.output
        numbers = (*size, *output, *case.kernel, case.stride, case.pad)

        def lowered() -> tuple[Array, Array]:
            col = lower(x, *numbers, cupy.empty((n, c, *case.kernel, *output), dtype))
            y = cupy.tensordot(col, weight, ((1, 2, 3), (1, 2, 3)))
            return cupy.ascontiguousarray(cupy.moveaxis(sum(biases, y), 3, 1)), col

        def both() -> tuple[Any, ...]:
            y, col = lowered()
            dcol = cupy.ascontiguousarray(cupy.moveaxis(cupy.tensordot(weight, dy, (0, 1)), 3, 0))
            dx = rise(dcol, *numbers, cupy.empty(case.shape, dtype))
            return y, dx, cupy.tensordot(dy, col, ((0, 2, 3), (0, 4, 5))), *(dy.sum(axis=(0, 2, 3)) for _ in biases)

        return {FORWARD: lambda: lowered()[:1], BOTH: both}

    def timed(self, call: Call) -> float:
        """Return the seconds of a call on the device."""
        return on_events(call)


AGAINST: dict[str, Callable[[str], Contender]] = {"cudnn": CuDnn, "chainer": Chainer}
