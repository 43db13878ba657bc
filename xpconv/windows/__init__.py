"""Windows: in whole numbers, cut from arrays, laid out as matrices, reduced; and the adjoint of each.

The whole numbers have their door here; what is made of arrays is asked by its own name.
"""

from xpconv.windows.axis import Axis, Phase
from xpconv.windows.geometry import Pad, Window, paddings, whole_number, whole_numbers, window

__all__ = ["Axis", "Pad", "Phase", "Window", "paddings", "whole_number", "whole_numbers", "window"]
