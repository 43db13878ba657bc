"""Is it the gradient: a linear map held to its adjoint, an operator to finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from xpconv.arrays.libraries import Array, to_numpy
from xpconv.operators import vjp
from xpconv.testing.comparison import TOLERANCES, Host, dtype_name, on_host, same_form, same_place, same_values


def check_adjoint(
    forward: Callable[[Array], Array],
    backward: Callable[[Array], Array],
    x: Array,
    y: Array,
    *,
    rtol: float | None = None,
) -> None:
    """Hold a linear map to its adjoint: ``<forward(x), y> == <x, backward(y)>``, added up in double precision.

    Parameters
    ----------
    forward, backward : callable
        The map and its adjoint; for complex numbers the inner product conjugates its first factor.
    x, y : array
        A point of the domain and one of the range, best drawn at random.
    rtol : float, optional
        Largest difference, as a share of ``|forward(x)| |y|``. If not given, by dtype as in `assert_close`.

    Raises
    ------
    AssertionError
        When the inner products differ, or a result does not have the library, device, dtype and shape of the other
        argument.
    """
    __tracebackhide__ = True
    image, back = forward(x), backward(y)
    for name, array, like in (("forward(x)", image, y), ("backward(y)", back, x)):
        same_place(name, array, like)
        same_form(name, array, like.dtype, like.shape)
    left, right = _inner(on_host(image), on_host(y)), _inner(on_host(x), on_host(back))
    scale = _norm(on_host(image)) * _norm(on_host(y))
    rtol = TOLERANCES.get(dtype_name(x.dtype), 1e-14) if rtol is None else rtol
    if not abs(left - right) <= rtol * scale:
        raise AssertionError(
            f"<forward(x), y> is {left:.12g} and <x, backward(y)> {right:.12g}: {abs(left - right):.3g} apart, at most "
            f"{rtol * scale:.3g} for arrays of this size"
        )


def check_vjp(op: Callable[..., Any], *arguments: Any, seed: int = 0, rtol: float = 1e-6, **options: Any) -> None:
    """Hold every gradient of an operator to central differences.

    The gradient of each floating array is compared along two random directions and along its first and its last
    element alone, each with two evaluations of the operator, so that arrays of any size can be checked. The steps are
    a millionth of the array's largest element: an operator with kinks (a maximum, a rectifier) passes unless an
    element stands that near to one.

    Parameters
    ----------
    op : callable
        An operator: one of xpconv's or one made with `xpconv.operator`.
    *arguments
        Its array arguments, and options that may stand behind them. The floating arrays, which are differentiated, must
        be of dtype float64 or complex128.
    seed : int
        Of the random directions.
    rtol : float
        Largest difference, as a share of the directional derivative.
    **options
        The operator's options. Every evaluation starts from a copy of a random generator among them.

    Raises
    ------
    AssertionError
        When a gradient does not fit; when it is not of its argument's library, device, dtype and shape, or is not None
        for None and for an array of integers; when calling the pullback again gives something else; or when an
        argument or ``dy`` was written to.
    TypeError
        When a floating array is of lower precision.
    """
    __tracebackhide__ = True
    count = next((i for i, a in enumerate(arguments) if a is not None and not _is_array(a)), len(arguments))
    arrays, rest = arguments[:count], arguments[count:]
    floating = [i for i, array in enumerate(arrays) if array is not None and _is_floating(array)]
    for i in floating:
        if (name := dtype_name(arrays[i].dtype)) not in ("float64", "complex128"):
            raise TypeError(f"array {i} has dtype {name}; give float64 or complex128, for differences of small steps")

    def fresh() -> dict[str, Any]:
        return {k: copy.deepcopy(v) if isinstance(v, np.random.Generator) else v for k, v in options.items()}

    def evaluate(i: int, value: Host) -> Host:
        y = op(*arrays[:i], _moved(value, arrays[i]), *arrays[i + 1 :], *rest, **fresh())
        return on_host(y[0] if isinstance(y, tuple) else y)

    rng = np.random.default_rng(seed)
    values = [None if array is None else to_numpy(array) for array in arrays]
    y, pullback = vjp(op, *arguments, **fresh())
    y = y[0] if isinstance(y, tuple) else y
    wanted = [_direction(rng, on_host(y)) for _ in range(2)]
    given = [_moved(dy, y) for dy in wanted]
    gradients = [pullback(dy) for dy in given]
    again = pullback(given[0])
    for dy, value in zip(given, wanted, strict=True):
        _unwritten("dy", dy, value)
    for i, (array, value) in enumerate(zip(arrays, values, strict=True)):
        if value is not None:
            _unwritten(f"array {i}", array, value)

    for found in (*gradients, again):
        if not isinstance(found, tuple) or len(found) != len(arrays):
            raise AssertionError(f"the pullback gave {found!r:.60}; wanted {len(arrays)} in a tuple, one an array")
        for i, (gradient, array) in enumerate(zip(found, arrays, strict=True)):
            if i not in floating:
                if gradient is not None:
                    raise AssertionError(
                        f"gradient {i} is a {type(gradient).__name__}; wanted None, as for all but floats"
                    )
                continue
            same_place(f"gradient {i}", gradient, array)
            same_form(f"gradient {i}", gradient, array.dtype, array.shape)
    for i in floating:
        same_values(on_host(again[i]), on_host(gradients[0][i]), 1e-12, 0, f"gradient {i} from a second call")

    for i in floating:
        point = on_host(arrays[i])
        if not point.size:
            continue
        step = 1e-6 * (np.max(np.abs(point)) or 1.0)
        dense = [_direction(rng, point) for _ in range(2)]
        ends = [_only(dense[0], at) for at in (0, -1)]
        for name, v, which in zip(
            ("a random direction", "another one", "its first element", "its last element"),
            (*dense, *ends),
            (0, 1, 0, 1),
            strict=True,
        ):
            slope = (evaluate(i, point + step * v) - evaluate(i, point - step * v)) / (2 * step)
            numeric = _inner(wanted[which], slope).real
            analytic = _inner(on_host(gradients[which][i]), v).real
            allowed = rtol * abs(numeric) + 1e-8 * _norm(wanted[which]) * _norm(slope) + 1e-12
            if not abs(analytic - numeric) <= allowed:
                raise AssertionError(
                    f"gradient {i} of {getattr(op, '__name__', op)} along {name} is {analytic:.10g}, the central "
                    f"difference {numeric:.10g}: {abs(analytic - numeric):.3g} apart, at most {allowed:.3g}"
                )


def _unwritten(name: str, array: Array, intact: Host) -> None:
    __tracebackhide__ = True
    if to_numpy(array).tobytes() != intact.tobytes():
        raise AssertionError(f"{name} was written to")


def _is_array(argument: Any) -> bool:
    return bool(array_api_compat.is_array_api_obj(argument))


def _is_floating(array: Array) -> bool:
    kinds = ("real floating", "complex floating")
    return bool(array_api_compat.array_namespace(array).isdtype(array.dtype, kinds))


def _moved(host: Host, like: Array) -> Array:
    """Copy a host array to the library and device of another, in its dtype."""
    xp = array_api_compat.array_namespace(like)
    return xp.asarray(host, dtype=like.dtype, device=array_api_compat.device(like), copy=True)


def _direction(rng: np.random.Generator, like: Host) -> Any:
    """Draw numbers of either sign, none of them near zero and no two alike, so that no entry can hide."""

    def draw() -> Any:
        return rng.uniform(0.5, 1.5, like.shape) * rng.choice([-1.0, 1.0], like.shape)

    return draw() + 1j * draw() if like.dtype.kind == "c" else draw()


def _only(direction: Any, at: int) -> Any:
    """Keep one element, counted in row-major order."""
    localized = np.zeros_like(direction)
    localized.reshape(-1)[at] = direction.reshape(-1)[at]
    return localized


def _inner(u: Host, v: Host) -> Any:
    """Return <u, v>, its first factor conjugated, in double precision."""
    dtype = np.result_type(u, v, np.float64)
    return np.vdot(u.astype(dtype), v.astype(dtype))


def _norm(u: Host) -> float:
    return float(np.sqrt(abs(_inner(u, u))))
