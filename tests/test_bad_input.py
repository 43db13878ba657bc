"""What does not fit is refused before any work: the type of the error, what was given, and what would fit."""

import numpy as np
import pytest
from cases import integers, normal

import xpconv
from xpconv.arrays.libraries import at_hand
from xpconv.testing import assert_close


def bad(name, arrays, options, error, *says):
    """A call of an operator: its arrays (or (array, dtype)), its options, the error, and words of its message."""
    return pytest.param(name, arrays, options, error, says, id=f"{name}-{says[0]}")


X2, W2 = normal(2, 3, 7, 6), normal(4, 3, 3, 3)  # two spatial axes
X1, W1 = normal(2, 3, 7), normal(4, 3, 3)
SCORES = normal(4, 3)

CALLS = [
    # rank
    bad("conv", [normal(2, 3), W2], {}, ValueError, "x has shape (2, 3)", "at least one spatial axis"),
    bad("conv", [X2, W1], {}, ValueError, "weight has shape (4, 3, 3)", "2 spatial axes"),
    bad("conv", [X1, W2], {}, ValueError, "weight has shape (4, 3, 3, 3)", "1 spatial axes"),
    bad("im2col", [X1], {"filter_h": 3, "filter_w": 3}, ValueError, "x has shape (2, 3, 7)", "2 spatial axes"),
    bad("unfold", [normal(2, 3)], {"kernel": 3}, ValueError, "x has shape (2, 3)", "at least one spatial axis"),
    bad("max_pool", [normal(2, 3)], {"kernel": 2}, ValueError, "x has shape (2, 3)", "at least one spatial axis"),
    bad("avg_pool", [normal(3)], {"kernel": 2}, ValueError, "x has shape (3,)", "at least one spatial axis"),
    bad("affine", [normal(3, 4), normal(4, 2)], {"precision": 32}, ValueError, "precision is 32", "float32, tf32"),
    bad("affine", [normal(3), normal(3, 2)], {}, ValueError, "x has shape (3,)", "(N, ...)"),
    bad("affine", [normal(3, 4), normal(4)], {}, ValueError, "weight (4,)", "(D, M)"),
    bad("batch_norm", [normal(3)], {}, ValueError, "x has shape (3,)", "(N, C)"),
    bad("softmax_cross_entropy", [normal(4), integers(3, 4)], {}, ValueError, "x has shape (4,)", "(N, K)"),
    # channels, groups and other shapes
    bad("conv", [X2, normal(4, 2, 3, 3)], {}, ValueError, "3 channels", "(4, 2, 3, 3)", "(O, 3/groups, ...)"),
    bad("conv", [X2, W2], {"groups": 3}, ValueError, "3 groups", "(4, 3, 3, 3)", "multiples of groups"),
    bad("conv", [X2, normal(4, 1, 3, 3)], {"groups": 3}, ValueError, "(4, 1, 3, 3)", "multiples of groups"),
    bad("conv", [X2, W2], {"groups": 0}, ValueError, "groups is 0", "at least 1"),
    bad("conv", [X2, W2], {"groups": 1.0}, TypeError, "groups is 1.0 (float)", "whole number"),
    bad("conv", [X2, W2, normal(3)], {}, ValueError, "bias has shape (3,)", "give (4,)"),
    bad("conv", [X2, W2, normal(4, 1)], {}, ValueError, "bias has shape (4, 1)", "give (4,)"),
    bad("affine", [normal(3, 2, 2), normal(5, 2)], {}, ValueError, "x has shape (3, 2, 2)", "weight (5, 2)", "(D, M)"),
    bad("affine", [normal(3, 4), normal(4, 2), normal(4)], {}, ValueError, "bias has shape (4,)", "give (2,)"),
    bad("batch_norm", [X2, normal(2)], {}, ValueError, "gamma has shape (2,)", "give (3,)"),
    bad("batch_norm", [X2, None, None, normal(3)], {}, ValueError, "one of mean and var", "both, or neither"),
    bad("batch_norm", [X2], {"eps": 0}, ValueError, "eps is 0", "above 0"),
    bad("col2im", [normal(9, 75)], {"input_shape": (1, 3, 6, 7), "filter_h": 5, "filter_w": 5}, ValueError,
        "col has shape (9, 75)", "give (6, 75)"),
    bad("col2im", [normal(9, 75)], {"input_shape": (3, 7, 7), "filter_h": 5, "filter_w": 5}, ValueError,
        "input_shape is (3, 7, 7), 3 numbers for 4"),
    bad("fold", [normal(2, 18, 15)], {"output_size": (6, 6), "kernel": (2, 3)}, ValueError,
        "col has shape (2, 18, 15)", "(N, C*6, 20)"),
    bad("fold", [normal(18, 15)], {"output_size": (6, 5), "kernel": (2, 3)}, ValueError, "col has shape (18, 15)"),
    bad("softmax_cross_entropy", [SCORES, integers(3, 5)], {}, ValueError, "t has shape (5,)", "(4,) labels", "(4, 3)"),
    bad("softmax_cross_entropy", [SCORES, normal(4, 2)], {}, ValueError, "t has shape (4, 2)", "(4,) labels"),
    # windows
    bad("conv", [X2, normal(4, 3, 3, 9)], {"pad": 1}, ValueError, "kernel of 9", "has 6 and 8 when padded", "smaller"),
    bad("conv", [X2, W2], {"dilation": 3}, ValueError, "dilation 3 spans 7", "axis 1", "has 6", "more padding"),
    bad("conv", [X2, W2], {"stride": 0}, ValueError, "stride is 0", "at least 1"),
    bad("conv", [X2, W2], {"stride": (1, -2)}, ValueError, "stride is -2", "at least 1"),
    bad("conv", [X2, W2], {"stride": 1.5}, TypeError, "stride is 1.5 (float)", "whole number"),
    bad("conv", [X2, W2], {"stride": (1, 1, 1)}, ValueError, "3 numbers for 2 spatial axes", "one for each"),
    bad("conv", [X2, W2], {"pad": -1}, ValueError, "pad is -1", "at least 0"),
    bad("conv", [X2, W2], {"pad": "full"}, ValueError, "pad is 'full'", '"same" or "valid"'),
    bad("conv", [X2, W2], {"dilation": 0}, ValueError, "dilation is 0", "at least 1"),
    bad("conv", [X2, W2], {"precision": "fast"}, ValueError, "precision is 'fast'", "float32, tf32"),
    bad("conv", [X2, W2], {"algorithm": "magic"}, ValueError, "algorithm is 'magic'", "auto", "direct"),
    bad("conv", [X2, normal(4, 3, 0, 3)], {}, ValueError, "weight has shape (4, 3, 0, 3)", "one tap"),
    bad("conv", [normal(2, 3, 0, 6), W2], {"pad": 2}, ValueError, "axis 0", "has 0"),
    bad("im2col", [X2], {"filter_h": 8, "filter_w": 1}, ValueError, "kernel of 8", "has 7", "smaller kernel"),
    bad("im2col", [X2], {"filter_h": 2.0, "filter_w": 1}, TypeError, "kernel is 2.0 (float)", "whole number"),
    bad("unfold", [X2], {"kernel": (2, 2, 2)}, ValueError, "3 numbers for 2 spatial axes"),
    bad("max_pool", [X2], {"kernel": 8}, ValueError, "kernel of 8", "has 7"),
    bad("max_pool", [X2], {"kernel": 2, "stride": 0}, ValueError, "stride is 0", "at least 1"),
    bad("max_pool", [X2], {"kernel": 3, "pad": 3}, ValueError, "pad of (3, 3) on axis 0", "sees none", "less padding"),
    bad("avg_pool", [X2], {"kernel": 3, "pad": (0, (3, 0))}, ValueError, "pad of (3, 0) on axis 1", "sees none"),
    bad("avg_pool", [X2], {"kernel": 2, "divisor": 0}, ValueError, "divisor is 0", "at least 1"),
    bad("avg_pool", [X2], {"kernel": 2, "divisor": 0.5}, TypeError, "divisor is 0.5 (float)", "whole number"),
    bad("dropout", [X2], {"ratio": 1.0}, ValueError, "ratio is 1.0", "below 1"),
    bad("dropout", [X2], {"ratio": -0.1}, ValueError, "ratio is -0.1", "at least 0"),
    bad("dropout", [X2], {"rng": 3}, TypeError, "rng is a int", "numpy.random.Generator"),
    # what is no array
    bad("conv", [[[1.0]], W2], {}, TypeError, "x is a list", "give an array of"),
    bad("conv", [X2, "weights"], {}, TypeError, "weight is a str", "give an array of"),
    bad("relu", [3.0], {}, TypeError, "x is a float", "give an array of"),
    # dtypes
    bad("conv", [X2, (W2, "float32")], {}, TypeError, "x has dtype", "weight", "float32", "the same dtype"),
    bad("conv", [X2, W2, (normal(4), "float32")], {}, TypeError, "bias", "float32", "the same dtype"),
    bad("conv", [(X2, "bool"), (W2, "bool")], {}, TypeError, "x has dtype", "bool", "numeric"),
    bad("affine", [normal(3, 4), (normal(4, 2), "float32")], {}, TypeError, "weight", "float32", "the same dtype"),
    bad("affine", [(normal(3, 4), "int64"), (normal(4, 2), "int64")], {}, TypeError, "x has dtype", "real floating"),
    bad("relu", [(X2, "int64")], {}, TypeError, "x has dtype", "int64", "real floating"),
    bad("relu", [(X2, "complex128")], {}, TypeError, "x has dtype", "complex128", "real floating"),
    bad("dropout", [(X2, "int64")], {}, TypeError, "x has dtype", "int64", "real floating"),
    bad("avg_pool", [(X2, "int64")], {"kernel": 2}, TypeError, "x has dtype", "int64", "real floating"),
    bad("max_pool", [(X2, "complex128")], {"kernel": 2}, TypeError, "x has dtype", "complex128", "real floating"),
    bad("batch_norm", [(X2, "int64")], {}, TypeError, "x has dtype", "int64", "real floating"),
    bad("batch_norm", [X2, (normal(3), "float32")], {}, TypeError, "gamma", "float32", "the same dtype"),
    bad("softmax_cross_entropy", [(SCORES, "int64"), integers(3, 4)], {}, TypeError, "x has dtype", "real floating"),
    bad("softmax_cross_entropy", [SCORES, normal(4)], {}, TypeError, "t has dtype", "float64", "integers"),
    # labels and empty arrays
    bad("conv", [normal(2, 0, 5), normal(4, 0, 3)], {}, ValueError, "weight has shape (4, 0, 3)", "one channel"),
    bad("conv", [X1, normal(0, 3, 3)], {}, ValueError, "weight has shape (0, 3, 3)", "one filter"),
    bad("softmax_cross_entropy", [normal(0, 3), integers(3, 0)], {}, ValueError, "x has shape (0, 3)", "at least 1"),
    bad("softmax_cross_entropy", [normal(4, 0), integers(3, 4)], {}, ValueError, "x has shape (4, 0)", "at least 1"),
    bad("batch_norm", [normal(0, 3)], {}, ValueError, "x has shape (0, 3)", "at least one element a channel"),
]  # fmt: skip


def moved(backend, array):
    if isinstance(array, tuple):
        return backend.asarray(*array)
    return backend.asarray(array) if isinstance(array, np.ndarray) else array


@pytest.mark.parametrize(("name", "arrays", "options", "error", "says"), CALLS)
def test_a_call_that_does_not_fit_is_refused(backend, name, arrays, options, error, says):
    arrays = [moved(backend, array) for array in arrays]
    before = [xpconv.to_numpy(array) if hasattr(array, "dtype") else array for array in arrays]
    with pytest.raises(error) as caught:
        getattr(xpconv, name)(*arrays, **options)
    assert type(caught.value) is error
    for words in says:
        assert words in str(caught.value)
    for array, intact in zip(arrays, before, strict=True):
        if hasattr(array, "dtype"):
            np.testing.assert_array_equal(xpconv.to_numpy(array), intact)


@pytest.mark.parametrize(("labels", "says"), [([0, 1, 2, 3], "from 0 to 3"), ([0, 1, 2, -1], "from -1 to 2")])
def test_labels_out_of_range_are_refused_or_on_a_device_make_the_loss_nan(backend, labels, says):
    x, t = backend.asarray(SCORES), backend.asarray(np.array(labels))
    if at_hand(t):
        with pytest.raises(ValueError, match=f"t has labels {says}; give 0 to 2"):
            xpconv.softmax_cross_entropy(x, t)
        return
    loss = xpconv.softmax_cross_entropy(x, t)  # nobody has looked at the labels, which would mean waiting for them
    assert_close(loss, np.asarray(np.nan), like=x)
    losses = xpconv.softmax_cross_entropy(x, t, reduction="none")
    assert np.isnan(xpconv.to_numpy(losses)).tolist() == [False, False, False, True]


# --- Several libraries, several devices

PAIRS = [
    ("conv", [X2, W2], {}, "x", "weight"),
    ("conv", [X2, W2, normal(4)], {}, "x", "bias"),
    ("affine", [normal(3, 4), normal(4, 2)], {}, "x", "weight"),
    ("batch_norm", [X2, normal(3)], {}, "x", "gamma"),
    ("softmax_cross_entropy", [SCORES, integers(3, 4)], {}, "x", "t"),
]


@pytest.mark.parametrize(("name", "arrays", "options", "first", "last"), PAIRS)
def test_several_libraries_are_refused(name, arrays, options, first, last):
    strict = pytest.importorskip("array_api_strict")
    mixed = [*arrays[:-1], strict.asarray(arrays[-1])]
    wanted = (
        rf"{first} is an array of array_api_compat\.numpy and {last} of array_api_strict; give both from one library"
    )
    with pytest.raises(TypeError, match=wanted):
        getattr(xpconv, name)(*mixed, **options)


@pytest.mark.parametrize(("name", "arrays", "options", "first", "last"), PAIRS)
def test_several_devices_are_refused(name, arrays, options, first, last):
    strict = pytest.importorskip("array_api_strict")
    mixed = [strict.asarray(array) for array in arrays]
    mixed[-1] = strict.asarray(arrays[-1], device=strict.Device("device1"))
    with pytest.raises(ValueError, match=rf"{first} is on device .*CPU_DEVICE.* and {last} on .*device1.*; move both"):
        getattr(xpconv, name)(*mixed, **options)


# --- Layers


def test_layers_pass_on_what_their_operators_refuse():
    for layer, x, says in (
        (xpconv.Convolution(W2), X1, "2 spatial axes"),
        (xpconv.Convolution(W2, stride=0), X2, "stride is 0"),
        (xpconv.Pooling(3, 3, pad=3), X2, "sees none"),
        (xpconv.Affine(normal(4, 2)), X2, "weight (4, 2)"),
        (xpconv.BatchNormalization(np.ones(2), np.zeros(2)), X2, "gamma has shape (2,)"),
    ):
        with pytest.raises(ValueError) as caught:
            layer.forward(x)
        assert says in str(caught.value) or "1 spatial axes" in str(caught.value)
        with pytest.raises(ValueError, match="before forward"):  # nothing was done
            layer.backward(x)


def test_a_momentum_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"momentum is 1.5; give a number from 0 to 1"):
        xpconv.BatchNormalization(np.ones(2), np.zeros(2), momentum=1.5)


def test_running_statistics_stay_when_a_batch_is_refused():
    layer = xpconv.BatchNormalization(np.ones(3), np.zeros(3))
    layer.forward(X2)
    before = layer.running_mean.copy(), layer.running_var.copy()
    with pytest.raises(ValueError, match="at least one element"):
        layer.forward(normal(0, 3))
    np.testing.assert_array_equal((layer.running_mean, layer.running_var), before)
