"""Which algorithm computes a convolution: a model of the work, the same for the same shapes, dtype and library."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

from xpconv import cuda
from xpconv.algorithms import Algorithm, Plan
from xpconv.algorithms.depthwise import Depthwise
from xpconv.algorithms.direct import Direct
from xpconv.algorithms.fft import Fft, tiled
from xpconv.algorithms.widened import Widened
from xpconv.algorithms.winograd import Winograd
from xpconv.arrays.arguments import is_kind
from xpconv.arrays.libraries import Array, namespace_of
from xpconv.compiled import fused
from xpconv.cuda import cudnn, depthwise, implicit, lowering, winograd
from xpconv.cuda.geometry import AXES
from xpconv.cuda.problems import NARROW
from xpconv.execution.products import has_views, multiplies_small
from xpconv.windows import Window

ALGORITHMS: dict[str, Algorithm] = {
    "direct": Direct(),
    "winograd": Winograd(4),
    "winograd2": Winograd(2),
    "depthwise": Depthwise(),
    "fft": Fft(),
}
BY_KERNELS: dict[str, Algorithm] = {name: Widened(way) for name, way in ALGORITHMS.items()} | {
    "direct": lowering.Lowering(),
    "winograd": Widened(winograd.Winograd(4)),
    "winograd2": Widened(winograd.Winograd(2)),
    "depthwise": depthwise.Depthwise(),
    "implicit": implicit.ImplicitGemm(),
    "cudnn": cudnn.CuDnn(),
}
FLOATING = ("real floating", "complex floating")
DTYPES: dict[str, str | tuple[str, ...]] = {
    "winograd": FLOATING,
    "winograd2": FLOATING,
    "fft": FLOATING[0],
    "implicit": FLOATING[0],
    "cudnn": FLOATING[0],
}  # the others take every number

FEW = 8  # filters from which on a register is worth filling
WIDE, WIDER = 32, 48  # channels that pay for transforming tiles, and beside loops, which lower nothing
FLAT = 2  # axes of tiles that a compiler makes loops for in good time
TAP_BY_TAP = 20  # times what a multiply-add takes in a product of matrices, at most, and of 40 channels


def rooms(x: Array, filters: int, plan: Plan) -> Mapping[str, Algorithm]:
    """Return the algorithms by name: in array code, or made of kernels or loops where there are some for such arrays.

    The loops have a filter for each channel, or one group, filters enough to fill a register, and something to lower.
    """
    if cuda.serves(x):
        return BY_KERNELS
    if x.shape[-1] == filters == plan.groups:
        return _with_loops(fused("Depthwise", x), None)
    if plan.groups > 1 or filters < FEW or plan.window.taps == 1:
        return ALGORITHMS
    return _with_loops(fused("Direct", x), fused("Winograd", x) if len(plan.window.axes) <= FLAT else None)


@functools.cache
def _with_loops(
    summing: Callable[[], Algorithm] | None, filtering: Callable[[int], Algorithm] | None
) -> Mapping[str, Algorithm]:
    """Put algorithms made of loops, where there are some, in the place of those in array code."""
    made = ALGORITHMS
    if summing is not None:
        made = made | {summing.__name__.lower(): summing()}
    if filtering is not None:
        made = made | {"winograd": filtering(4), "winograd2": filtering(2)}
    return made


def named(name: str, x: Array, window: Window, groups: int) -> str:
    """Return the name, or raise ValueError when there is no such algorithm or it cannot compute this convolution.

    ImportError when it needs what is not installed.
    """
    ways = BY_KERNELS if cuda.serves(x) else ALGORITHMS
    if name != "auto" and name not in ways:
        alone = f", which computes CuPy arrays of up to {AXES} spatial axes alone" if name in BY_KERNELS else ""
        raise ValueError(f"algorithm is {name!r}{alone}; choose one of auto, {', '.join(ways)}")
    if name != "auto" and not ways[name].supports(window, groups):
        able = [other for other, way in ways.items() if way.supports(window, groups)]
        raise ValueError(
            f"algorithm {name!r} does not compute a kernel of {window.kernel} with stride "
            f"{tuple(a.stride for a in window.axes)}, dilation {tuple(a.dilation for a in window.axes)} and {groups} "
            f"groups; choose one of auto, {', '.join(able)}"
        )
    if name in DTYPES and not is_kind(namespace_of(x), x.dtype, DTYPES[name]):
        raise ValueError(f"x has dtype {x.dtype}, which algorithm {name!r} does not compute; choose auto or direct")
    if name == "cudnn":
        cudnn.library()
    return name


def choose(name: str, x: Array, filters: int, plan: Plan, *, cached: bool = False) -> Algorithm:
    """Return the algorithm of this name where it serves, and otherwise the one that the model takes to be fastest.

    The model: F(4, 3) takes less than half the time of the direct way for each window, where there are channels enough
    to pay for transforming tiles; transforming the filters costs as much as it saves on some 200 windows, whatever the
    channels, unless they are `cached`. Of windows two apart it saves less, and what it reads and writes takes as long.
    Fourier's way is taken on NumPy where it is a fifth less work than the sums over taps and channels; those of narrow
    groups make small matrices or none, and in array code a multiply-add of theirs takes longer. A group of one channel
    is computed tap by tap. In float64 the caller asked for accuracy, and gets the direct way. What tensor cores may
    multiply, TF32 and narrow numbers, cuDNN gets where it is there; what it has for strict float32 mostly begins by
    laying the arrays out anew, with their channels first. Without it their windows are gathered where that is faster
    than to lower them.
    """
    groups, ways = plan.groups, rooms(x, filters, plan)
    if name != "auto" and ways[name].supports(plan.window, groups):
        return ways[name]
    if ways is BY_KERNELS and not x.shape[-1] == groups > 1 and _on_tensor_cores(x, plan):
        if cudnn.available() and ways["cudnn"].supports(plan.window, groups):
            return BY_KERNELS["cudnn"]
        return BY_KERNELS["implicit" if implicit.pays(x, filters, plan) else "direct"]
    looped = ways is not ALGORITHMS and ways is not BY_KERNELS
    small = x.dtype == namespace_of(x).float32 and multiplies_small(x)
    return ways[_fastest(tuple(x.shape), filters, plan, cached, looped, small, has_views(x))]


@functools.lru_cache(maxsize=1024)
def _fastest(
    shape: tuple[int, ...], filters: int, plan: Plan, cached: bool, looped: bool, small: bool, views: bool
) -> str:
    """Name what the model takes to be fastest for an input of this shape.

    There are loops or there are not, `small` products of float32 as fast as large ones, and overlapping views.
    """
    window, groups, channels = plan.window, plan.groups, shape[-1]
    windows = shape[0] * math.prod(window.output)
    if small:
        if (
            len(window.axes) == 2
            and ALGORITHMS["winograd"].supports(window, groups)
            and min(channels, filters) >= (WIDER if looped else WIDE)
            and not window.strided
            and (cached or windows >= 200)
        ):
            return "winograd"
        width = channels // groups
        slower = 1 if groups == 1 or looped else max(1, min(TAP_BY_TAP, 40 / width))
        if views and _fourier(shape, filters, plan, cached) < 0.8 * slower * windows * window.taps * width * filters:
            return "fft"
    return "depthwise" if channels == groups > 1 else "direct"


def _on_tensor_cores(x: Array, plan: Plan) -> bool:
    """Whether the tensor cores may compute this."""
    return x.dtype.name in NARROW or (x.dtype.name, plan.precision) == ("float32", "tf32")


def _fourier(shape: tuple[int, ...], filters: int, plan: Plan, cached: bool) -> float:
    """Say what Fourier's way takes, in units of a multiply-add of matrices.

    For each number of a tile's spectrum that is a product over the channels and, for each channel in and out, a
    transform and some passes over memory. The filters are transformed too unless they are `cached`.
    """
    channels, width = shape[-1], shape[-1] // plan.groups
    tiling = tiled(plan, width, filters)
    tiles, made = shape[0] * math.prod(tiling.inputs.output), tiling.transform
    each = (50 + made.work) * (channels + filters) + width * filters
    once = 0 if cached else (60 + 1.5 * made.work) * width * filters
    return float(made.numbers * (tiles * each + once))
