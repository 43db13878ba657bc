"""Windows run backwards, in whole numbers: how many elements so many windows cover."""

from __future__ import annotations

from collections.abc import Sequence

from xpconv.windows.axis import Axis
from xpconv.windows.geometry import Pad, Window, paddings, whole_numbers, window


def transposed_window(
    size: Sequence[int],
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    pad: Pad = 0,
    output_pad: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Window:
    """Plan windows from how many there are: `size` becomes `Window.output`, and `Window.size` what they cover.

    Along each axis that is all elements that the windows touch, less `pad` on both sides, and `output_pad` more at the
    end. "same" is the padding of windows over ``size * stride`` elements.

    Raises
    ------
    TypeError
        When a number is not whole.
    ValueError
        When a number is out of range, there is not one for each axis, `output_pad` is smaller neither than the stride
        nor than the dilation, or no element is left.
    """
    axes = len(size)
    kernel, stride = whole_numbers("kernel", kernel, axes, least=1), whole_numbers("stride", stride, axes, least=1)
    dilation = whole_numbers("dilation", dilation, axes, least=1)
    output_pad = whole_numbers("output_pad", output_pad, axes, least=0)
    if isinstance(pad, str) and pad == "same":
        covered = [n * s for n, s in zip(size, stride, strict=True)]
        like = window(covered, kernel, stride=stride, pad=pad, dilation=dilation)
        pairs = tuple((axis.before, axis.after) for axis in like.axes)
    else:
        pairs = paddings(pad, axes)
    planned = []
    for i, (n, k, s, d) in enumerate(zip(size, kernel, stride, dilation, strict=True)):
        (before, after), more = pairs[i], output_pad[i]
        if more >= max(s, d):
            raise ValueError(f"output_pad is {more} on axis {i}; give less than the stride {s} or the dilation {d}")
        reach = (n - 1) * s + (k - 1) * d + 1
        elements = reach - before - after + more
        if n < 1 or elements < 1:
            raise ValueError(
                f"{n} windows of a kernel of {k} with stride {s} and dilation {d} touch {reach} elements on axis {i}, "
                f"and padding of {(before, after)} leaves {elements}; give at least one window and less padding"
            )
        planned.append(Axis(elements, k, s, before, after, d, n))
    return Window(tuple(planned))
