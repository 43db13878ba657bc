"""Contenders on a CUDA GPU, all on the same one, whose calls wait for nothing.

What is timed of a call is the device's work alone, between two events behind work that keeps it busy until the host is
done; how long the host takes is kept beside it. A training step is timed with many of them queued. Like is compared
with like: a run has one precision for everyone, strict float32, TF32 or float16.
"""

from __future__ import annotations

import importlib
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xpconv.algorithms import Algorithm
from xpconv.arrays.libraries import Array
from xpconv.bench.clocks import Clock, OnDevice, Queued
from xpconv.bench.contenders import BOTH, FIRST, FORWARD, Calls, Contender, Gauge, XpConv, laid_out, layout_order
from xpconv.bench.devices import CupyDevice, TorchDevice
from xpconv.bench.frameworks import PyTorch
from xpconv.bench.layers import NETWORKS, Case
from xpconv.cuda import cudnn
from xpconv.selection.model import BY_KERNELS

CUDNN = "with cuDNN"
DRIVER = pathlib.Path("/proc/driver/nvidia/version")
BY_CUPY, BY_TORCH = CupyDevice(), TorchDevice()


def on_gpu(flag: str) -> bool:
    """Whether the arrays of this backend are on a GPU that others can be compared on."""
    return flag.partition(":")[0] == "cupy"


class OnGpu(Contender):
    """What computes on the GPU, is given arrays of CuPy that were drawn there, and is compared with others there."""

    device: ClassVar[CupyDevice | TorchDevice] = BY_CUPY
    gauge: ClassVar[Gauge | None] = BY_CUPY

    @property
    def xp(self) -> Any:
        """CuPy."""
        return importlib.import_module("cupy")

    def clock(self, case: Case) -> Clock:
        """Return what times its calls: of steps of a network what all of one takes."""
        return (Queued if case.operator in NETWORKS else OnDevice)(self.device)

    def arrays(self, outputs: Sequence[Any], layout: str) -> list[Array]:
        """Give outputs as they are."""
        return list(outputs)


@dataclass(frozen=True)
class OnCupy(OnGpu, XpConv):
    """xpconv on CuPy arrays, which takes training steps as CUDA graphs."""

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

    def moved(self, array: Array, order: Sequence[int]) -> Any:
        """Copy so that the axes lie in memory in this order."""
        return laid_out(array, order)


@dataclass(frozen=True)
class CuDnn(OnGpu, PyTorch):
    """PyTorch's functions on the GPU, where cuDNN computes them by what it has found to be fastest."""

    precision: str = "float32"
    where: ClassVar[str] = "cuda"
    device: ClassVar[CupyDevice | TorchDevice] = BY_TORCH
    gauge: ClassVar[Gauge | None] = BY_TORCH

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

    def tensor(self, array: Array) -> Any:
        """Make a tensor of an array, in the same memory."""
        return importlib.import_module("torch").from_dlpack(array)

    def make(self, case: Case, layout: str) -> Calls:
        """Return both directions, as its own switches say."""
        switch(importlib.import_module("torch").backends, self.precision == "tf32")
        return super().make(case, layout)

    def arrays(self, outputs: Sequence[Any], layout: str) -> list[Array]:
        """Give outputs as arrays of CuPy, in the same memory where no axes stand otherwise."""
        return [self.xp.from_dlpack(tensor.detach().contiguous()) for tensor in outputs]


def switch(backends: Any, tf32: bool) -> None:
    """Let PyTorch try all that cuDNN has, and multiply float32 in TF32 or strictly.

    To forbid TF32 by the older switches alone leaves a convolution to what is said of float32 elsewhere, so it is said
    by the newer ones too. They come last, for the older ones overwrite them; and both say the same, for where they do
    not, PyTorch refuses to tell what holds.
    """
    backends.cudnn.benchmark = True
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = tf32
    newer = [getattr(backends.cudnn, "conv", None), backends.cuda.matmul]
    for part in newer if all(hasattr(part, "fp32_precision") for part in newer) else ():
        part.fp32_precision = "tf32" if tf32 else "ieee"


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
class Chainer(OnGpu):
    """Chainer's way: one elementwise kernel lowers the whole batch, and one product follows; along two axes."""

    precision: str = "float32"
    name: str = "Chainer's way"

    def layouts(self, case: Case) -> tuple[str, ...]:
        """Channels first; it has no groups, no pooling and no TF32."""
        fits = case.operator == "conv" and len(case.kernel) == 2 and case.groups == 1 and self.precision != "tf32"
        return (FIRST,) if fits else ()

    def make(self, case: Case, layout: str) -> Calls:
        """Return both directions."""
        cupy, given, dtype = self.xp, self.problem(case), self.dtype
        lower = cupy.ElementwiseKernel(f"raw T img, {NUMBERS}", "T col", LOWER, "lower")
        rise = cupy.ElementwiseKernel(f"raw T col, {NUMBERS}", "T img", RAISE, "rise")
        x, weight, *biases = given.arrays
        (n, c, *size), output = case.shape, case.window.output
        numbers = (*size, *output, *case.kernel, case.stride, case.pad)

        def lowered() -> tuple[Array, Array]:
            col = lower(x, *numbers, cupy.empty((n, c, *case.kernel, *output), dtype))
            y = cupy.tensordot(col, weight, ((1, 2, 3), (1, 2, 3)))
            return cupy.ascontiguousarray(cupy.moveaxis(sum(biases, y), 3, 1)), col

        def both() -> tuple[Any, ...]:
            y, col = lowered()
            dy = given.dy
            dcol = cupy.ascontiguousarray(cupy.moveaxis(cupy.tensordot(weight, dy, (0, 1)), 3, 0))
            dx = rise(dcol, *numbers, cupy.empty(case.shape, dtype))
            return y, dx, cupy.tensordot(dy, col, ((0, 2, 3), (0, 4, 5))), *(dy.sum(axis=(0, 2, 3)) for _ in biases)

        return {FORWARD: lambda: lowered()[:1], BOTH: both}


AGAINST: dict[str, Callable[[str], Contender]] = {"cudnn": CuDnn, "chainer": Chainer}
