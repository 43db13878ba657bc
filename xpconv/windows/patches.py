"""Patches as matrices: the book's im2col and col2im, unfold and fold for any number of axes; exact adjoints."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xpconv.arrays.arguments import namespace, spatial_axes
from xpconv.arrays.libraries import Array, Pullback
from xpconv.arrays.precision import accumulated
from xpconv.operators import operator
from xpconv.windows import Pad, Window, whole_numbers, window
from xpconv.windows.frames import cut, uncut


def rows(x: Array, window: Window) -> Array:
    """(N, C, *size) to (N*L, C*taps): each row a window, as in the book."""
    xp, axes = namespace(x=x), len(window.axes)
    patches = cut(x, window, first=2)  # (N, C, OH, KH, OW, KW)
    outputs, taps = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    patches = xp.permute_dims(patches, (0, *outputs, 1, *taps))  # (N, OH, OW, C, KH, KW)
    return xp.reshape(patches, (x.shape[0] * math.prod(window.output), x.shape[1] * window.taps))


def unrows(col: Array, batch: int, channels: int, window: Window) -> Array:
    """(N*L, C*taps) to (N, C, *size): the adjoint of `rows`."""
    xp, axes = namespace(col=col), len(window.axes)
    patches = xp.reshape(col, (batch, *window.output, channels, *window.kernel))
    pairs = [axis for i in range(axes) for axis in (1 + i, 2 + axes + i)]
    return uncut(xp.permute_dims(patches, (0, 1 + axes, *pairs)), window, first=2)


@operator
@accumulated
def im2col(
    x: Array, filter_h: int, filter_w: int, stride: int | Sequence[int] = 1, pad: Pad = 0
) -> tuple[Array, Pullback]:
    """Lower images to a matrix whose rows are windows.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
        Images, of any dtype.
    filter_h, filter_w : int
        Height and width of a window.
    stride : int or (int, int)
        Elements between neighbouring windows.
    pad : int, (int, int), ((int, int), (int, int)), "same" or "valid"
        Padding with zeros.

    Returns
    -------
    array, shape (N*OH*OW, C*filter_h*filter_w)
        Rows in the order (N, OH, OW), columns in the order (C, filter_h, filter_w); the dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        When `x` is not four-dimensional, or no window fits.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 7.4.2.
    """
    namespace(x=x)
    spatial_axes("x", x, 2)
    batch, channels, *size = x.shape
    plan = window(size, (filter_h, filter_w), stride=stride, pad=pad)
    return rows(x, plan), lambda dcol: (unrows(dcol, batch, channels, plan),)


@operator
@accumulated
def col2im(
    col: Array,
    input_shape: Sequence[int],
    filter_h: int,
    filter_w: int,
    stride: int | Sequence[int] = 1,
    pad: Pad = 0,
) -> tuple[Array, Pullback]:
    """Add the rows of a matrix of windows back into images: the adjoint of `im2col`.

    Parameters
    ----------
    col : array, shape (N*OH*OW, C*filter_h*filter_w)
        Windows, as `im2col` gives them.
    input_shape : (int, int, int, int)
        The shape (N, C, H, W) of the images.
    filter_h, filter_w, stride, pad
        As in `im2col`.

    Returns
    -------
    array, shape (N, C, H, W)
        Each element is the sum of the entries that `im2col` would have copied from it; the dtype of `col`.

    Raises
    ------
    TypeError, ValueError
        When `col` does not have the shape that `im2col` gives for `input_shape`.

    References
    ----------
    Saito, *Deep Learning from Scratch*, section 7.4.4 and its ``common/util.py``.
    """
    namespace(col=col)
    batch, channels, *size = whole_numbers("input_shape", tuple(input_shape), 4, least=1)
    plan = window(size, (filter_h, filter_w), stride=stride, pad=pad)
    wanted = (batch * math.prod(plan.output), channels * plan.taps)
    if tuple(col.shape) != wanted:
        raise ValueError(f"col has shape {tuple(col.shape)}; give {wanted}, (N*OH*OW, C*filter_h*filter_w)")
    return unrows(col, batch, channels, plan), lambda dx: (rows(dx, plan),)


def columns(x: Array, window: Window) -> Array:
    """(N, C, *size) to (N, C*taps, L): each column a window."""
    xp, axes = namespace(x=x), len(window.axes)
    patches = cut(x, window, first=2)  # (N, C, OH, KH, OW, KW)
    outputs, taps = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    patches = xp.permute_dims(patches, (0, 1, *taps, *outputs))
    return xp.reshape(patches, (x.shape[0], x.shape[1] * window.taps, math.prod(window.output)))


def uncolumns(col: Array, channels: int, window: Window) -> Array:
    """(N, C*taps, L) to (N, C, *size): the adjoint of `columns`."""
    xp, axes = namespace(col=col), len(window.axes)
    patches = xp.reshape(col, (col.shape[0], channels, *window.kernel, *window.output))
    pairs = [axis for i in range(axes) for axis in (2 + axes + i, 2 + i)]
    return uncut(xp.permute_dims(patches, (0, 1, *pairs)), window, first=2)


@operator
@accumulated
def unfold(
    x: Array,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    pad: Pad = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[Array, Pullback]:
    """Lower an array with any number of spatial axes to one matrix a sample, whose columns are windows.

    Parameters
    ----------
    x : array, shape (N, C, *size)
        Of any dtype.
    kernel, stride, dilation : int or one int an axis
        Taps of a window, elements between windows, elements between taps.
    pad : int, one int an axis, one (before, after) pair an axis, "same" or "valid"
        Padding with zeros.

    Returns
    -------
    array, shape (N, C*prod(kernel), L)
        ``L`` windows; rows in the order (C, *kernel), columns in the order of the windows; the dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        When `x` has no spatial axis, a number is not whole or out of range, or no window fits.
    """
    namespace(x=x)
    spatial_axes("x", x)
    plan, channels = window(x.shape[2:], kernel, stride=stride, pad=pad, dilation=dilation), x.shape[1]
    return columns(x, plan), lambda dcol: (uncolumns(dcol, channels, plan),)


@operator
@accumulated
def fold(
    col: Array,
    output_size: int | Sequence[int],
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    pad: Pad = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[Array, Pullback]:
    """Add the columns of a matrix of windows back into an array: the adjoint of `unfold`.

    Parameters
    ----------
    col : array, shape (N, C*prod(kernel), L)
        Windows, as `unfold` gives them.
    output_size : one int an axis, or an int for a single axis
        Spatial size of the result.
    kernel, stride, pad, dilation
        As in `unfold`.

    Returns
    -------
    array, shape (N, C, *output_size)
        The dtype of `col`.

    Raises
    ------
    TypeError, ValueError
        When `col` does not have the shape that `unfold` gives for `output_size`.
    """
    namespace(col=col)
    size = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,)
    size = whole_numbers("output_size", size, len(size), least=1)
    plan = window(size, kernel, stride=stride, pad=pad, dilation=dilation)
    windows = math.prod(plan.output)
    if col.ndim != 3 or col.shape[1] % plan.taps or col.shape[2] != windows:
        raise ValueError(
            f"col has shape {tuple(col.shape)}; give (N, C*{plan.taps}, {windows}) for a kernel of "
            f"{plan.kernel} over {size}"
        )
    channels = col.shape[1] // plan.taps
    return uncolumns(col, channels, plan), lambda dx: (columns(dx, plan),)
