"""Which algorithm computes a convolution: a model of the work, the same for the same shapes, dtype and library."""

from __future__ import annotations

import math
from collections.abc import Mapping

from xpconv import cuda
from xpconv.algorithms import Algorithm, Plan
from xpconv.algorithms.depthwise import Depthwise
from xpconv.algorithms.direct import Direct
from xpconv.algorithms.winograd import Winograd
from xpconv.cuda import depthwise, lowering, winograd
from xpconv.libraries import Array, namespace_of
from xpconv.precision import Widened
from xpconv.products import multiplies_small
from xpconv.windows import Window

ALGORITHMS: dict[str, Algorithm] = {
    "direct": Direct(),
    "winograd": Winograd(4),
    "winograd2": Winograd(2),
    "depthwise": Depthwise(),
}
BY_KERNELS: dict[str, Algorithm] = {name: Widened(way) for name, way in ALGORITHMS.items()} | {
    "direct": lowering.Lowering(),
    "winograd": Widened(winograd.Winograd(4)),
    "winograd2": Widened(winograd.Winograd(2)),
    "depthwise": depthwise.Depthwise(),
}


def rooms(x: Array) -> Mapping[str, Algorithm]:
    """Return the algorithms by name: in array code, or where there are kernels for such an array, made of them."""
    return BY_KERNELS if cuda.serves(x) else ALGORITHMS


def named(name: str, window: Window, groups: int) -> str:
    """Return the name, or raise ValueError when there is no such algorithm or it cannot compute this convolution."""
    if name != "auto" and name not in ALGORITHMS:
        raise ValueError(f"algorithm is {name!r}; choose one of auto, {', '.join(ALGORITHMS)}")
    if name != "auto" and not ALGORITHMS[name].supports(window, groups):
        able = [other for other, way in ALGORITHMS.items() if way.supports(window, groups)]
        raise ValueError(
            f"algorithm {name!r} does not compute a kernel of {window.kernel} with stride "
            f"{tuple(a.stride for a in window.axes)}, dilation {tuple(a.dilation for a in window.axes)} and {groups} "
            f"groups; choose one of auto, {', '.join(able)}"
        )
    return name


def choose(name: str, x: Array, filters: int, plan: Plan, *, cached: bool = False) -> Algorithm:
    """Return the algorithm of this name where it serves, and otherwise the one that the model takes to be fastest.

    The model: F(4, 3) takes less than half the time of the direct way for each window, where there are channels enough
    to pay for transforming tiles; transforming the filters costs as much as it saves on some 200 windows, whatever the
    channels, unless they are `cached`. A group of one channel makes no matrix, and is computed tap by tap. In float64
    the caller asked for accuracy, and gets the direct way.
    """
    window, groups, ways = plan.window, plan.groups, rooms(x)
    if name != "auto" and ways[name].supports(window, groups):
        return ways[name]
    if x.shape[-1] == groups > 1:
        return ways["depthwise"]
    channels, xp = x.shape[-1], namespace_of(x)
    if (
        len(window.axes) == 2
        and ways["winograd"].supports(window, groups)
        and x.dtype == xp.float32
        and multiplies_small(x)
        and min(channels, filters) >= 32
        and (cached or x.shape[0] * math.prod(window.output) >= 200)
    ):
        return ways["winograd"]
    return ways["direct"]
