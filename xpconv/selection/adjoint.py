"""The adjoint of a convolution, whatever computes it: again convolutions, one for each phase of the stride."""

from __future__ import annotations

import itertools
from dataclasses import replace

from array_api_compat import device

from xpconv.algorithms import Adjoining, Algorithm, Placing, Plan
from xpconv.arrays.libraries import Array, namespace_of
from xpconv.execution.tasks import filled, put
from xpconv.selection.tuning import way_to_adjoin, way_to_convolve, way_to_correlate
from xpconv.windows import Phase, Window


def input_gradient(algorithm: str, dy: Array, weight: Array, plan: Plan, bias: Array | None = None) -> Array:
    """Give every input element its share of dy, and a bias: (N, *output, O) and (*kernel, C/G, O) to (N, *size, C).

    The elements in one phase of the stride get theirs from a convolution of dy with the taps they meet, turned round
    and with input and output channels exchanged; an algorithm may know better.
    """
    xp, window, axes = namespace_of(dy), plan.window, len(plan.window.axes)
    shape = (dy.shape[0], *window.size, weight.shape[-2] * plan.groups)
    only = plan if window.strided else replace(plan, window=window.backward)

    def by(way: Algorithm) -> Array:
        if isinstance(way, Adjoining) and way.adjoins(window):
            return way.input_gradient(dy, weight, plan, bias)
        turned = xp.flip(exchanged(weight, plan.groups), axis=tuple(range(axes)))
        if not window.strided:
            return way.convolve(dy, turned, bias, only)
        phases = list(itertools.product(*(axis.phases() for axis in window.axes)))
        met = [phase for phase in phases if all(part.axis.kernel for part in phase)]
        make = xp.empty if len(met) == len(phases) else xp.zeros  # the other elements lie between the windows
        dx = make(shape, dtype=dy.dtype, device=device(dy))
        dx = dx if bias is None or len(met) == len(phases) else dx + bias
        parts = [_Part(algorithm, dy, turned, phase, plan) for phase in met]

        def fill(dx: Array, images: slice) -> Array:
            for part in parts:
                where, given = (images, *part.elements), (dy[images, ...], part.weight, bias, part.plan, part.prepared)
                if isinstance(part.way, Placing):
                    part.way.convolve_into(dx[where], *given)
                else:
                    dx = put(dx, where, part.way.convolve(*given))
            return dx

        return filled(dx, fill)

    return by(way_to_adjoin(algorithm, dy, shape[-1], only, by))


class _Part:
    """The convolution that gives the elements in one phase of the stride their share."""

    def __init__(self, algorithm: str, dy: Array, turned: Array, phase: tuple[Phase, ...], plan: Plan) -> None:
        taps = tuple(_from_the_end(part.taps, k) for part, k in zip(phase, plan.window.kernel, strict=True))
        self.elements = tuple(part.elements for part in phase)
        self.weight = turned[*taps, ...]
        self.plan = replace(plan, window=Window(tuple(part.axis for part in phase)))
        self.way = way_to_convolve(algorithm, dy, self.weight, None, self.plan)
        self.prepared = self.way.prepare(self.weight, self.plan)


def convolve(algorithm: str, x: Array, weight: Array, bias: Array | None, plan: Plan) -> Array:
    """Convolve once, by the algorithm that suits: (N, *size, C) and (*kernel, C/G, O) to (N, *output, O)."""
    return way_to_convolve(algorithm, x, weight, bias, plan).convolve(x, weight, bias, plan)


def weight_gradient(algorithm: str, x: Array, dy: Array, plan: Plan) -> Array:
    """Correlate the input with dy, by the algorithm that suits: to (*kernel, C/G, O)."""
    return way_to_correlate(algorithm, x, dy, plan).weight_gradient(x, dy, plan)


def exchanged(weight: Array, groups: int) -> Array:
    """(*kernel, C/G, O) to (*kernel, O/G, C): the filters of the opposite direction."""
    xp = namespace_of(weight)
    *kernel, width, filters = weight.shape
    axes = len(kernel)
    if groups == 1:
        return xp.permute_dims(weight, (*range(axes), axes + 1, axes))
    parts = xp.reshape(weight, (*kernel, width, groups, filters // groups))
    parts = xp.permute_dims(parts, (*range(axes), axes + 2, axes + 1, axes))
    return xp.reshape(parts, (*kernel, filters // groups, width * groups))


def _from_the_end(taps: slice, kernel: int) -> slice:
    """Where these taps stand once the kernel is turned round."""
    chosen = range(kernel)[taps]
    return slice(kernel - 1 - chosen[-1], kernel - chosen[0], taps.step)
