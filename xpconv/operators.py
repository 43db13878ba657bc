"""The one protocol of the library: an operator gives ``y`` and a pullback.

An operator is written once, as a function of arrays (positional) and options (keyword-only) that returns ``y`` and a
closure ``pullback(dy)``; the closure holds just what the backward pass needs and returns one gradient for each array
argument, in order. `operator` makes of it the public function, which returns ``y`` alone; `vjp` gives both.

Losses, layers and whole networks keep to the same two words, so there is nothing else to learn.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, ParamSpec

from array_api_compat import device

from xpconv.arrays.arguments import namespace
from xpconv.arrays.libraries import Array, Pullback, differentiable, on_device

P = ParamSpec("P")


def operator(body: Callable[P, tuple[Any, Pullback]]) -> Callable[P, Any]:
    """Make a public operator of a function that returns ``y, pullback``.

    On arrays that PyTorch or JAX is tracing, the pullback is registered with the library's own differentiation.

    Parameters
    ----------
    body : callable
        Its first parameters, annotated ``Array`` or ``Array | None``, are arrays and the others options; returns ``y``
        and a function from ``dy`` to a tuple with one gradient (or None, where there is none) for each array. A
        gradient that costs much may be given as a function of nothing, which is called only if it is wanted.

    Returns
    -------
    callable
        With the same arguments, returns ``y``. `vjp` takes it.
    """
    signature = inspect.signature(body)
    declared = signature.parameters.values()
    names = [p.name for p in declared if "Array" in str(p.annotation) or p.annotation is Array]
    if not names:
        raise TypeError(f'{body.__name__} has no array argument; annotate those it has "Array" or "Array | None"')

    required = sum(signature.parameters[name].default is inspect.Parameter.empty for name in names)
    others = signature.parameters.keys() - names

    def sorted_out(given: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arrays by position and options by name, however the caller put them."""
        if required <= len(given) <= len(names) and options.keys() <= others:
            return given, options
        arguments = signature.bind(*given, **options).arguments
        count = max(i for i, name in enumerate(names, start=1) if name in arguments)
        return tuple(arguments.pop(name, None) for name in names[:count]), arguments

    def with_pullback(*arrays: Any, **options: Any) -> tuple[Any, Pullback]:
        place = on_device(*arrays)
        with place:
            y, pullback = body(*arrays, **options)

        def wanted(dy: Any, without: Collection[int] = ()) -> tuple[Any, ...]:
            with place:
                gradients = enumerate(pullback(dy)[: len(arrays)])
                return tuple(None if i in without else g() if callable(g) else g for i, g in gradients)

        return y, wanted

    @functools.wraps(body)
    def apply(*given: P.args, **options: P.kwargs) -> Any:
        return differentiable(with_pullback, *sorted_out(given, options))

    def apply_with_pullback(*given: Any, **options: Any) -> tuple[Any, Pullback]:
        arrays, options = sorted_out(given, options)
        return with_pullback(*arrays, **options)

    apply.with_pullback = apply_with_pullback  # type: ignore[attr-defined]
    return apply


def vjp(op: Callable[..., Any], *arrays: Any, **options: Any) -> tuple[Any, Pullback]:
    """Apply an operator and return its result together with its vector-Jacobian product.

    Parameters
    ----------
    op : callable
        An operator of this library, or a function made one with `operator`.
    *arrays : array
        The operator's array arguments. None stands for an optional one that is left out.
    **options
        The operator's options.

    Returns
    -------
    y : array
        What ``op(*arrays, **options)`` returns.
    pullback : callable
        ``pullback(dy)`` takes an array of the shape and dtype of ``y`` and returns a tuple with one gradient for each
        array in `arrays`, in order: None for None and for arrays of integers, such as labels. It writes to nothing
        that it was given and can be called again. ``pullback(dy, without=(0,))`` leaves out the gradients at these
        places, with None instead.

    Raises
    ------
    TypeError
        When `op` is not an operator, or ``dy`` is of another library or dtype than ``y``.
    ValueError
        When ``dy`` is of another shape or device than ``y``.

    Examples
    --------
    >>> import numpy as np
    >>> import xpconv
    >>> x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    >>> y, pullback = xpconv.vjp(xpconv.conv, x, w, pad=1)
    >>> dx, dw = pullback(y)
    >>> dx.shape, dw.shape
    ((1, 1, 4, 4), (1, 1, 3, 3))
    """
    with_pullback = getattr(op, "with_pullback", None)
    if with_pullback is None:
        raise TypeError(f"{op!r} is no operator; give one of xpconv's, or make one with @xpconv.operator")
    y, pullback = with_pullback(*arrays, **options)
    return y, _checked(pullback, y[0] if isinstance(y, tuple) else y)


def _checked(pullback: Pullback, y: Array) -> Pullback:
    """Let the pullback see only what fits ``y``, without holding on to ``y``."""
    xp, place, dtype, shape = namespace(y=y), device(y), y.dtype, tuple(y.shape)

    def checked(dy: Array, without: Collection[int] = ()) -> tuple[Any, ...]:
        if namespace(dy=dy) is not xp:
            raise TypeError(f"dy is an array of {namespace(dy=dy).__name__} and y of {xp.__name__}; give both from one")
        if dy.dtype != dtype:
            raise TypeError(f"dy has dtype {dy.dtype} and y {dtype}; give both the same dtype")
        if tuple(dy.shape) != shape:
            raise ValueError(f"dy has shape {tuple(dy.shape)}; give {shape}, the shape of y")
        if device(dy) != place:
            raise ValueError(f"dy is on device {device(dy)} and y on {place}; move both to one device")
        return pullback(dy, without)

    return checked
