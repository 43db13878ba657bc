"""What every operator asks of its arguments: one library, one device, one dtype, a shape."""

import numpy as np
import pytest
from cases import normal

from xpconv.arrays.arguments import namespace, one_dtype, shaped, spatial_axes


def test_the_namespace_follows_the_arrays(backend):
    x, y = backend.asarray(normal(2)), backend.asarray(normal(3))
    assert namespace(x=x, y=None, z=y) is backend.xp


def test_something_must_be_an_array():
    with pytest.raises(TypeError, match="no array was given for x or y"):
        namespace(x=None, y=None)
    with pytest.raises(TypeError, match="y is a tuple; give an array of NumPy, CuPy, PyTorch, JAX"):
        namespace(x=np.ones(2), y=(1, 2))


def test_the_first_two_libraries_that_differ_are_named():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match=r"x is an array of array_api_compat\.numpy and z of array_api_strict"):
        namespace(x=np.ones(2), y=np.ones(2), z=strict.ones(2))


def test_one_dtype_of_the_right_kind(backend):
    x, y = backend.asarray(normal(2)), backend.asarray(normal(2), "float32")
    one_dtype(backend.xp, "real floating", x=x, y=None, z=x)
    with pytest.raises(TypeError, match=r"x has dtype .*float64 and y .*float32; give both the same dtype"):
        one_dtype(backend.xp, "real floating", x=x, y=y)
    with pytest.raises(TypeError, match=r"x has dtype .*float64; give a integral or bool dtype"):
        one_dtype(backend.xp, ("integral", "bool"), x=x)


def test_shapes():
    assert spatial_axes("x", np.ones((2, 3, 4))) == 1
    assert spatial_axes("x", np.ones((2, 3, 4, 5, 6))) == 3
    assert spatial_axes("x", np.ones((2, 3, 4, 5)), 2) == 2
    for array, axes in ((np.ones((2, 3)), None), (np.ones(()), None), (np.ones((2, 3, 4)), 2)):
        with pytest.raises(ValueError, match=r"x has shape .*; give \(N, C, \.\.\.\)"):
            spatial_axes("x", array, axes)
    shaped("bias", None, (4,), "one for each")
    shaped("bias", np.ones(4), (4,), "one for each")
    with pytest.raises(ValueError, match=r"bias has shape \(3,\); give \(4,\), one for each"):
        shaped("bias", np.ones(3), (4,), "one for each")
