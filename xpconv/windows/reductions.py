"""Reductions over windows in calls of the standard, and where their gradients go: what pooling is made of.

Arrays are channels-last in here. A maximum or a sum over windows is one over shifted slices, so nothing is lowered. The
work is done in bands: of windows, and for gradients of the elements that are to have them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from array_api_compat import array_namespace, device

from xpconv.arrays.arguments import above_lowest, lowest
from xpconv.arrays.libraries import Array, Pullback
from xpconv.execution.elementwise import divided, equal, reduced, repeated, room, scaled, together, within, zeros
from xpconv.execution.tasks import Band, assemble, bands, put
from xpconv.execution.workspace import WORKSPACE
from xpconv.windows import Axis, Window
from xpconv.windows.frames import extend

PASS = 2  # multiply-adds that an operation on an element counts as, where it is asked whether threads pay
LEAST = 3 << 19  # numbers that a band has: steps that are over too soon leave threads waiting for the interpreter


def largest(x: Array, plan: Window) -> tuple[Array, Pullback]:
    """Take the largest tap of every window: (N, *size, C) to (N, *output, C)."""
    value = lowest(array_namespace(x), x.dtype)

    def block(band: Band, place: Array | None) -> Array:
        elements, part = plan.part(band.rows.start, band.rows.stop)
        return over_taps("maximum", x[band.images, elements, ...], part, value=value, place=place)

    y = assemble(x, (x.shape[0], *plan.output, x.shape[-1]), _of_windows(x, plan), block, moving=(x,))

    def pullback(dy: Array) -> tuple[Array]:
        plain = above_lowest(y)

        def block(band: Band, place: Array | None) -> Array:
            start, stop = band.rows.start, band.rows.stop
            windows, axis = plan.axes[0].around(start, stop)
            if windows.start == windows.stop:
                return _zeros(dy[band.images, ...], (axis.size, *plan.size[1:]))
            elements, part = plan.part(windows.start, windows.stop)
            met = slice(max(start, elements.start), min(stop, elements.stop))
            mine = slice(met.start - elements.start, met.stop - elements.start)
            whole = met == band.rows
            given = x[band.images, elements, ...], y[band.images, windows, ...], dy[band.images, windows, ...]
            dx = _to_largest(part, *given, mine, plain=plain, place=place if whole else None)
            return dx if whole else extend(dx, [(met.start - start, stop - met.stop)], first=1)

        return (assemble(dy, tuple(x.shape), _of_elements(x, plan), block, moving=(x, y, dy) if plain else None),)

    return y, pullback


def mean(x: Array, plan: Window, members: Sequence[Sequence[int]]) -> tuple[Array, Pullback]:
    """Take the mean of every window, of so many members along each axis: (N, *size, C) to (N, *output, C)."""
    count = _counted(x, members)

    def of(rows: slice) -> Array | float:
        return count if isinstance(count, int) else count[:, rows, ...]

    def block(band: Band, place: Array | None) -> Array:
        elements, part = plan.part(band.rows.start, band.rows.stop)
        total = over_taps("add", x[band.images, elements, ...], part)
        return scaled(total, of(band.rows), place)

    y = assemble(x, (x.shape[0], *plan.output, x.shape[-1]), _of_windows(x, plan), block, moving=(x,))
    size = tuple(x.shape)

    def pullback(dy: Array) -> tuple[Array]:
        def block(band: Band, place: Array | None) -> Array:
            windows, axis = plan.axes[0].around(band.rows.start, band.rows.stop)
            if windows.start == windows.stop:
                return _zeros(dy[band.images, ...], (axis.size, *plan.size[1:]))
            share = scaled(dy[band.images, windows, ...], of(windows))
            return spread(share, Window((axis, *plan.axes[1:])), place)

        return (assemble(dy, size, _of_elements(dy, plan), block, moving=(dy,)),)

    return y, pullback


def indices(x: Array, plan: Window) -> Array:
    """Flat indices over the unpadded axes of the first maximum of every window; a NaN is above everything."""
    xp, place = array_namespace(x), device(x)
    x = extend(x, plan.margins, first=1, value=lowest(xp, x.dtype))
    dtype = xp.__array_namespace_info__().default_dtypes(device=place)["indexing"]
    flat = xp.reshape(xp.arange(math.prod(plan.size), dtype=dtype, device=place), (1, *plan.size, 1))
    flat = extend(flat, plan.margins, first=1, value=-1)
    best = index = None
    for where in plan.places():
        value = x[:, *where, :]
        here = xp.broadcast_to(flat[:, *where, :], value.shape)
        if index is None:
            best, index = value, here
            continue
        better = (value > best) | (index < 0) | ((value != value) & (best == best))
        best, index = xp.where(better, value, best), xp.where(better, here, index)
    return index


def over_taps(name: str, x: Array, plan: Window, *, value: float = 0, place: Array | None = None) -> Array:
    """Reduce the taps of every window by "add" or "maximum", axis by axis: (N, *size, C) to (N, *output, C)."""
    for axis, span in enumerate(plan.axes, start=1):
        x = _over(name, x, axis, span, _seen(x, axis, span), value, place if axis == len(plan.axes) else None)
    return x


def spread(share: Array, plan: Window, place: Array | None = None) -> Array:
    """Give every element what its windows hold, added up: (N, *output, C) to (N, *size, C), the adjoint of summing."""
    if all(span.tiled for span in plan.axes):
        return repeated(share, (1, *plan.kernel, 1), place)
    for axis, span in reversed(list(enumerate(plan.axes, start=1))):
        shares = [share[*(slice(None),) * axis, tap.windows, ...] for tap in span.taps]
        share = _gathered(_resized(share, axis, span.size, place if axis == 1 else None), axis, span, shares)
    return share


def _to_largest(plan: Window, x: Array, y: Array, dy: Array, rows: slice, *, plain: bool, place: Array | None) -> Array:
    """Hand every window's gradient to the first tap that is its maximum, and return what some rows of elements get.

    It goes along the first axis to the first row whose own maximum it is, and from there along the others.
    """
    seen, value = [], lowest(array_namespace(x), x.dtype)
    for axis, span in reversed(list(enumerate(plan.axes, start=1))):
        seen.append((x, _seen(x, axis, span)))
        x = _over("maximum", x, axis, span, seen[-1][1], value) if axis > 1 else x
    for axis, span in enumerate(plan.axes, start=1):
        x, values = seen.pop()
        made = _resized(dy, axis, span.size, place if 1 < axis == len(plan.axes) else None)
        dy = _to_largest_along(axis, span, values, y, dy, made, plain)
        if axis == 1:
            x, dy = x[:, rows, ...], dy[:, rows, ...]
            seen = [(some[:, rows, ...], [value[:, rows, ...] for value in values]) for some, values in seen]
        y = x
    return dy


def _to_largest_along(
    axis: int, span: Axis, seen: Sequence[Array], y: Array, dy: Array, made: Array, plain: bool
) -> Array:
    """Hand gradients of maxima along one axis on: (..., output, ...) to (..., size, ...), in an array made for them.

    Where not all is `plain`, a maximum may be a NaN.
    """
    before, shares, left = (slice(None),) * axis, [], dy
    for tap, value in zip(span.taps, seen, strict=True):
        where = (*before, tap.windows)
        if tap is span.taps[-1]:  # it takes what is left
            shares.append(left[*where, ...])
            break
        mask = equal(value, y[*where, ...])
        if not plain:
            mask = mask | (value != value)
        share, left = divided(left, where, mask, keep=left is dy)
        shares.append(share)
    return _gathered(made, axis, span, shares)


def _resized(like: Array, axis: int, size: int, place: Array | None) -> Array:
    """Make an array to be filled, of so many elements along an axis, or take the place where it is to be written."""
    return room(like, (*like.shape[:axis], size, *like.shape[axis + 1 :])) if place is None else place


def _zeros(like: Array, size: tuple[int, ...]) -> Array:
    """(N, ..., C) to (N, *size, C)."""
    return zeros(like, (like.shape[0], *size, like.shape[-1]))


def _seen(x: Array, axis: int, span: Axis) -> list[Array]:
    """Give along one axis what each tap sees of it, of those windows that have it there."""
    before = (slice(None),) * axis
    residues = {tap.residue for tap in span.taps}
    parts = {residue: together(x[*before, residue :: span.stride, ...]) for residue in residues}
    return [parts[tap.residue][*before, tap.places, ...] for tap in span.taps]


def _over(
    name: str, x: Array, axis: int, span: Axis, seen: Sequence[Array], value: float, place: Array | None = None
) -> Array:
    """Reduce what the taps along one axis see."""
    before, shape = (slice(None),) * axis, (*x.shape[:axis], span.output, *x.shape[axis + 1 :])
    parts = [((*before, tap.windows), part) for tap, part in zip(span.taps, seen, strict=True)]
    return reduced(name, x, shape, parts, value, place)


def _gathered(made: Array, axis: int, span: Axis, shares: Sequence[Array]) -> Array:
    """Fill an array with what the taps along one axis give its elements, added up: the adjoint of `_seen`."""
    before = (slice(None),) * axis
    for residue in range(min(span.stride, span.size)):
        where = (*before, slice(residue, span.size, span.stride))
        shape = (*made.shape[:axis], len(range(residue, span.size, span.stride)), *made.shape[axis + 1 :])
        parts = [
            ((*before, tap.places), share)
            for tap, share in zip(span.taps, shares, strict=True)
            if tap.residue == residue
        ]
        place = within(made, where)
        part = reduced("add", made, shape, parts, 0, place)
        made = made if place is not None else put(made, where, part)
    return made


def _counted(x: Array, members: Sequence[Sequence[int]]) -> Array | int:
    """Multiply the members of windows along all axes; a number where all windows have as many."""
    if all(len(set(along)) == 1 for along in members):
        return math.prod(along[0] for along in members)
    xp, count, axes = array_namespace(x), 1, len(members)
    for i, along in enumerate(members):
        numbers = xp.asarray(along, dtype=x.dtype, device=device(x))
        count = count * xp.reshape(numbers, (1,) * (1 + i) + (len(along),) + (1,) * (axes - i))
    return count


def _of_windows(x: Array, plan: Window) -> list[Band]:
    """Cut windows into bands, each row of which sees so many elements and makes so many on the way."""
    first, row = plan.axes[0], math.prod(plan.size[1:]) * x.shape[-1]
    return _bands(x, first.output, row * (first.stride + 2), row * first.kernel)


def _of_elements(x: Array, plan: Window) -> list[Band]:
    """Cut elements into bands: what the windows see, what they give and get, and what is between."""
    size, row = plan.axes[0].size, math.prod(plan.size[1:]) * x.shape[-1]
    met = math.ceil(math.prod(plan.output) / size) * x.shape[-1]
    return _bands(x, size, 3 * row + 5 * met, met * plan.taps)


def _bands(x: Array, rows: int, numbers: int, operations: int) -> list[Band]:
    work = PASS * operations
    return bands(x, x.shape[0], rows, numbers, work=work, workspace=WORKSPACE, least=LEAST)
