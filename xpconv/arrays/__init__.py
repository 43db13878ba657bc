"""What the house knows of array libraries: their names and devices, and what an operator may ask of arrays."""

from xpconv.arrays.backends import Backend, backend
from xpconv.arrays.frozen import freeze
from xpconv.arrays.libraries import Array, to_numpy

__all__ = ["Array", "Backend", "backend", "freeze", "to_numpy"]
