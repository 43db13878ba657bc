"""Every layer is its operator with parameters: same values, same gradients, and nothing of its own but state."""

import inspect

import numpy as np
import pytest
from cases import integers, normal, positive, spread

import xpconv
from xpconv import layers
from xpconv.testing import assert_close

IMAGE = (2, 4, 6, 5)

# the layer's name, its parameters by name, other arguments by position and by name, the shape of x
LAYERS = [
    ("Affine", {"W": normal(120, 3), "b": normal(3)}, (), {}, IMAGE),
    ("Convolution", {"W": normal(6, 2, 3, 2), "b": normal(6)}, (), {"stride": 2, "pad": 1, "groups": 2}, IMAGE),
    ("Convolution", {"W": normal(3, 4, 3), "b": None}, (), {"dilation": 2}, (2, 4, 7)),
    ("TransposedConvolution", {"W": normal(4, 3, 3, 2), "b": normal(3)}, (), {"stride": 2, "output_pad": 1}, IMAGE),
    ("MaxPooling", {}, (2,), {"stride": 1, "pad": 1}, IMAGE),
    ("AveragePooling", {}, (3,), {"count_include_pad": False, "pad": 1}, IMAGE),
    ("LpPooling", {}, (2, 3), {}, IMAGE),
    ("AdaptiveMaxPooling", {}, ((2, 3),), {}, IMAGE),
    ("AdaptiveAveragePooling", {}, ((2, 3),), {}, IMAGE),
    ("GlobalMaxPooling", {}, (), {}, IMAGE),
    ("GlobalAveragePooling", {}, (), {}, IMAGE),
    ("Padding", {}, (2,), {"mode": "reflect"}, IMAGE),
    ("Interpolation", {}, ((4, 9),), {"mode": "linear"}, IMAGE),
    ("LayerNormalization", {"gamma": positive(5), "beta": normal(5)}, (), {"axis": -1}, IMAGE),
    ("GroupNormalization", {"gamma": positive(4), "beta": normal(4)}, (), {"groups": 2}, IMAGE),
    ("GroupNormalization", {"gamma": None, "beta": None}, (), {"groups": 4, "eps": 0.1}, IMAGE),
    ("InstanceNormalization", {"gamma": positive(4), "beta": None}, (), {}, IMAGE),
    ("LocalResponseNormalization", {}, (3,), {"alpha": 0.5}, IMAGE),
    ("Relu", {}, (), {}, IMAGE),
    ("LeakyRelu", {}, (), {"slope": 0.3}, IMAGE),
    ("PRelu", {"slope": normal(4)}, (), {}, IMAGE),
    ("Elu", {}, (), {"alpha": 0.5}, IMAGE),
    ("Gelu", {}, (), {"approximate": "tanh"}, IMAGE),
    ("Silu", {}, (), {}, IMAGE),
    ("Sigmoid", {}, (), {}, IMAGE),
    ("Tanh", {}, (), {}, IMAGE),
    ("Softmax", {}, (), {"axis": -1}, IMAGE),
    ("LogSoftmax", {}, (), {}, IMAGE),
]
IDS = [name for name, *_ in LAYERS]

LOSSES = [
    ("SoftmaxWithLoss", integers(4, 2, 6, 5), {"ignore_index": 1, "label_smoothing": 0.1}, "softmax_cross_entropy"),
    ("NegativeLogLikelihood", integers(4, 2, 6, 5), {"reduction": "sum"}, "nll_loss"),
    ("MeanSquaredError", normal(*IMAGE), {"reduction": "none"}, "mean_squared_error"),
    ("SigmoidWithLoss", positive(*IMAGE) / 2, {}, "binary_cross_entropy_with_logits"),
]


def test_every_operator_but_those_of_patches_has_a_layer():
    classes = [c for c in vars(layers).values() if inspect.isclass(c) and hasattr(c, "op")]
    operators = {name for name in xpconv.__all__ if hasattr(getattr(xpconv, name), "with_pullback")}
    assert {c.op.__name__ for c in classes} == operators - {"im2col", "col2im", "unfold", "fold"}
    for c in classes:
        assert getattr(xpconv, c.__name__) is c and c.__doc__


@pytest.mark.parametrize(("name", "parameters", "arguments", "options", "shape"), LAYERS, ids=IDS)
def test_a_layer_is_its_operator(backend, name, parameters, arguments, options, shape):
    given = {k: None if host is None else backend.asarray(host) for k, host in parameters.items()}
    layer = getattr(xpconv, name)(*given.values(), *arguments, **options)
    assert layer.parameters == tuple(parameters)
    x = backend.asarray(spread(*shape))
    y = layer.forward(x)
    expected, pullback = xpconv.vjp(layer.op, x, *given.values(), *arguments, **options)
    assert_close(y, expected, rtol=0)
    dy = backend.asarray(normal(*y.shape, seed=9))
    dx, *gradients = pullback(dy)
    assert_close(layer.backward(dy), dx, rtol=0)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        found = getattr(layer, f"d{parameter}")
        if gradient is None:
            assert found is None
        else:
            assert_close(found, gradient, rtol=0)


@pytest.mark.parametrize(("name", "parameters", "arguments", "options", "shape"), LAYERS, ids=IDS)
def test_a_layer_refuses_what_its_operator_does_not_know_when_it_is_made(name, parameters, arguments, options, shape):
    with pytest.raises(TypeError, match="strides"):
        getattr(xpconv, name)(*parameters.values(), *arguments, strides=2, **options)


@pytest.mark.parametrize(("name", "target", "options", "op"), LOSSES, ids=[name for name, *_ in LOSSES])
def test_a_loss_is_its_operator(backend, name, target, options, op):
    layer = getattr(xpconv, name)(**options)
    x, t = backend.asarray(normal(*IMAGE)), backend.asarray(target)
    expected, pullback = xpconv.vjp(getattr(xpconv, op), x, t, **options)
    assert_close(layer.forward(x, t), expected, rtol=0)
    assert layer.loss is not None
    assert_close(layer.backward(), pullback(expected * 0 + 1)[0], rtol=0)
    assert_close(layer.backward(2.5), pullback(expected * 0 + 2.5)[0], rtol=0)


def test_a_loss_weighs_classes():
    scores, labels, weight = normal(4, 3), integers(3, 4), positive(3)
    layer = xpconv.SoftmaxWithLoss(weight=weight)
    assert_close(layer.forward(scores, labels), xpconv.softmax_cross_entropy(scores, labels, weight), rtol=0)
    assert layer.backward().shape == (4, 3)


def test_a_loss_refuses_what_its_operator_does_not_know_when_it_is_made():
    with pytest.raises(TypeError, match="smoothing"):
        xpconv.SoftmaxWithLoss(smoothing=0.1)


@pytest.mark.parametrize("layer", [xpconv.Elu(), xpconv.MeanSquaredError()], ids=["layer", "loss"])
def test_backward_wants_forward_first(layer):
    with pytest.raises(ValueError, match=f"{type(layer).__name__}.backward was called before forward"):
        layer.backward(normal(2))


# --- Unpooling: a layer that looks at another one


def test_unpooling_puts_back_what_pooling_found(backend):
    host = spread(2, 3, 7, 5)
    x = backend.asarray(host)
    pooling = xpconv.MaxPooling(kernel=(3, 2), stride=2, return_indices=True)
    network = xpconv.Network([pooling, xpconv.Relu(), xpconv.MaxUnpooling(pooling)], xpconv.MeanSquaredError())
    y = network.forward(x)
    expected = np.zeros_like(host)
    for n, c, i, j in np.ndindex(2, 3, 3, 2):
        window = host[n, c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2]
        a, b = np.unravel_index(window.argmax(), window.shape)
        expected[n, c, 2 * i + a, 2 * j + b] = max(0, window.max())
    assert_close(y, expected, like=x)
    dx = network.backward(backend.asarray(np.ones_like(host)))
    assert np.all((xpconv.to_numpy(dx) > 0) == (expected > 0))
    assert_close(network.predict(x), expected, like=x)


def test_unpooling_wants_a_pooling_layer_that_keeps_indices():
    for pooling in (xpconv.MaxPooling(2), xpconv.AdaptiveMaxPooling(2, return_indices=True)):
        with pytest.raises(ValueError, match="give a MaxPooling made with return_indices=True"):
            xpconv.MaxUnpooling(pooling)
    unpooling = xpconv.MaxUnpooling(xpconv.MaxPooling(2, return_indices=True))
    with pytest.raises(ValueError, match="no indices yet"):
        unpooling.forward(normal(1, 1, 2, 2))
