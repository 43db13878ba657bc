"""The affine map: a matrix product and a bias."""

from __future__ import annotations

import functools
import math
from typing import Any

from xpconv.arrays.arguments import conjugate, namespace, one_dtype, shaped
from xpconv.arrays.broadcasting import sum_rows
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated_unless, known
from xpconv.cuda import multiplies
from xpconv.execution.products import matmul
from xpconv.fusions import fused
from xpconv.operators import operator


@operator
@accumulated_unless(multiplies)
def affine(x: Array, weight: Array, bias: Array | None = None, *, precision: str = "float32") -> tuple[Array, Pullback]:
    """Multiply every sample by a matrix and add a bias.

    Parameters
    ----------
    x : array, shape (N, ...)
        Samples of any shape, each taken as one row of D numbers.
    weight : array, shape (D, M)
        The matrix, inputs first, as in the book.
    bias : array, shape (M,), optional
        Added to every row.
    precision : str
        "float32" or "tf32", as in `conv`.

    Returns
    -------
    array, shape (N, M)
        The dtype of `x`.

    Raises
    ------
    TypeError
        When the arrays are of several libraries or dtypes, or not floating.
    ValueError
        When the shapes or devices do not fit, or there is no such precision.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 5.6.
    """
    xp = namespace(x=x, weight=weight, bias=bias)
    one_dtype(xp, ("real floating", "complex floating"), x=x, weight=weight, bias=bias)
    shape = tuple(x.shape)
    width = math.prod(shape[1:])
    if x.ndim < 2 or weight.ndim != 2 or weight.shape[0] != width:
        raise ValueError(
            f"x has shape {shape} and weight {tuple(weight.shape)}; give x (N, ...) with D numbers a "
            "sample and weight (D, M)"
        )
    shaped("bias", bias, (weight.shape[1],), "one number for each output")
    rows, precision = xp.reshape(x, (shape[0], width)), known(precision)
    product = functools.partial(fused("matmul", x) or _product, precision=precision)

    def pullback(dy: Array) -> tuple[Any, ...]:
        return (
            lambda: xp.reshape(product(dy, xp.matrix_transpose(conjugate(xp, weight))), shape),
            lambda: product(xp.matrix_transpose(conjugate(xp, rows)), dy),
            None if bias is None else (fused("sum_rows", dy) or sum_rows)(dy),
        )

    return product(rows, weight, bias), pullback


def _product(a: Array, b: Array, start: Array | None = None, *, precision: str) -> Array:
    """Multiply two matrices, in the precision that their library is set to, and add the products to a row."""
    y = matmul(a, b)
    return y if start is None else y + start
