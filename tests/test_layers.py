"""The book's layers: the chapter's snippets with only the import changed, and what a shell adds to its operator."""

import numpy as np
import pytest
import reference as ref
import reference_norms as norms
from applying import compiled
from cases import integers, normal, positive, spread

import xpconv
from xpconv import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Pooling,
    Relu,
    SoftmaxWithLoss,
)
from xpconv.testing import assert_close

# --- The chapter's snippets


def test_im2col_of_the_chapter():
    x1 = np.random.rand(1, 3, 7, 7)
    col1 = xpconv.im2col(x1, 5, 5, stride=1, pad=0)
    assert col1.shape == (9, 75)
    x2 = np.random.rand(10, 3, 7, 7)
    col2 = xpconv.im2col(x2, 5, 5, stride=1, pad=0)
    assert col2.shape == (90, 75)


def test_a_small_network_of_layers(backend):
    """SimpleConvNet's order of layers, forward and backward as in the chapter, against the loops."""
    hosts = {
        "W1": normal(3, 1, 3, 3),
        "b1": normal(3),
        "W2": 0.1 * normal(27, 5),
        "b2": normal(5),
        "W3": normal(5, 4),
        "b3": normal(4),
    }

    def train(params, x, t):
        layers = {
            "Conv1": Convolution(params["W1"], params["b1"], 1, 0),
            "Relu1": Relu(),
            "Pool1": Pooling(pool_h=2, pool_w=2, stride=2),
            "Affine1": Affine(params["W2"], params["b2"]),
            "Relu2": Relu(),
            "Affine2": Affine(params["W3"], params["b3"]),
        }
        last_layer = SoftmaxWithLoss()

        for layer in layers.values():
            x = layer.forward(x)
        loss = last_layer.forward(x, t)
        dout = last_layer.backward(1)
        for layer in reversed(list(layers.values())):
            dout = layer.backward(dout)
        gradients = {name: (layer.dW, layer.db) for name, layer in layers.items() if hasattr(layer, "dW")}
        return loss, last_layer.loss, dout, gradients

    image, labels = normal(2, 1, 8, 8), integers(4, 2)
    params = {name: backend.asarray(host) for name, host in hosts.items()}
    t = backend.asarray(labels)
    loss, kept, dout, gradients = compiled(backend, train)(params, backend.asarray(image), t)

    c1 = ref.conv(image, hosts["W1"], hosts["b1"])
    r1 = norms.relu(c1)
    p1, indices = ref.max_pool(r1, 2, 2)
    a1 = norms.affine(p1, hosts["W2"], hosts["b2"])
    r2 = norms.relu(a1)
    scores = norms.affine(r2, hosts["W3"], hosts["b3"])
    assert_close(loss, norms.softmax_cross_entropy(scores, labels), like=t)
    assert_close(kept, norms.softmax_cross_entropy(scores, labels), like=t)
    dscores = norms.softmax_cross_entropy_gradient(scores, labels)
    dr2, dw3, db3 = norms.affine_gradients(dscores, r2, hosts["W3"])
    dp1, dw2, db2 = norms.affine_gradients(norms.relu_gradient(dr2, a1), p1, hosts["W2"])
    dc1 = norms.relu_gradient(ref.max_pool_gradient(dp1, indices, r1.shape[2:]), c1)
    dimage, dw1, db1 = ref.conv_gradients(dc1, image, hosts["W1"])
    for name, expected in (("Conv1", (dw1, db1)), ("Affine1", (dw2, db2)), ("Affine2", (dw3, db3))):
        for found, wanted in zip(gradients[name], expected, strict=True):
            assert_close(found, wanted, like=t)
    assert_close(dout, dimage, like=t)


# --- Each layer


def test_convolution(backend):
    dtype = "float32"
    hosts = normal(2, 3, 7, 6), normal(4, 3, 3, 2), normal(4)
    dy = normal(2, 4, 4, 4, seed=9)

    def both(x, weight, bias, dy):
        layer = Convolution(weight, bias, stride=2, pad=1)
        return layer.forward(x), (layer.backward(dy), layer.dW, layer.db)

    y, gradients = compiled(backend, both)(*(backend.asarray(host, dtype) for host in (*hosts, dy)))
    like = backend.asarray(0.0)
    assert_close(y, ref.conv(*hosts, stride=2, pad=1).astype(dtype), like=like)
    for found, expected in zip(gradients, ref.conv_gradients(dy, *hosts[:2], stride=2, pad=1), strict=True):
        assert_close(found, expected.astype(dtype), like=like)


def test_convolution_takes_the_operators_options():
    x, weight = normal(2, 4, 9), normal(6, 2, 3)
    layer = Convolution(weight, pad="same", dilation=2, groups=2)
    y = layer.forward(x)
    assert_close(y, ref.conv(x, weight, pad="same", dilation=2, groups=2))
    layer.backward(y)
    assert layer.dW.shape == weight.shape
    assert layer.db is None


def test_the_output_size_is_a_whole_number_when_the_stride_does_not_divide():  # the book writes 1 + H + 2*pad - FH / S
    layer = Convolution(normal(1, 1, 2, 2), stride=2)
    assert layer.forward(normal(1, 1, 5, 5)).shape == (1, 1, 2, 2)


def test_pooling(backend):
    host = spread(2, 3, 6, 6)
    x = backend.asarray(host)
    layer = Pooling(3, 2, stride=1)
    expected, indices = ref.max_pool(host, (3, 2), 1)
    assert_close(layer.forward(x), expected, like=x)
    dy = normal(*expected.shape, seed=9)
    assert_close(layer.backward(backend.asarray(dy)), ref.max_pool_gradient(dy, indices, (6, 6)), like=x)


def test_poolings_stride_is_one_unless_it_is_given():  # as in the book
    assert Pooling(2, 2).forward(spread(1, 1, 4, 4)).shape == (1, 1, 3, 3)


def test_affine_takes_images_and_gives_their_gradient_back_in_shape(backend):
    hosts = normal(3, 2, 2, 2), normal(8, 5), normal(5)
    x, weight, bias = map(backend.asarray, hosts)
    layer = Affine(weight, bias)
    assert_close(layer.forward(x), norms.affine(*hosts), like=x)
    dy = normal(3, 5, seed=9)
    wanted = norms.affine_gradients(dy, *hosts[:2])
    for found, expected in zip((layer.backward(backend.asarray(dy)), layer.dW, layer.db), wanted, strict=True):
        assert_close(found, expected, like=x)


def test_relu_leaves_the_callers_gradient_alone(backend):  # the book's writes into it
    host = spread(3, 4)
    x, dout = backend.asarray(host), backend.asarray(normal(3, 4))
    layer = Relu()
    assert_close(layer.forward(x), norms.relu(host), like=x)
    assert_close(layer.backward(dout), norms.relu_gradient(normal(3, 4), host), like=x)
    assert_close(dout, normal(3, 4), like=x, rtol=0)
    assert_close(x, host, like=x, rtol=0)


def test_dropout_in_training_and_in_evaluation(backend):
    host = positive(20, 10)
    x = backend.asarray(host)
    layer = Dropout(0.3, np.random.default_rng(0))
    y = layer.forward(x)
    kept = xpconv.to_numpy(y) != 0
    assert 0.5 < kept.mean() < 0.9
    assert_close(y, np.where(kept, host, 0), like=x, rtol=0)
    assert_close(layer.backward(x), np.where(kept, host, 0), like=x, rtol=0)
    again = xpconv.to_numpy(layer.forward(x)) != 0
    assert (again != kept).any()
    assert_close(layer.forward(x, train_flg=False), host * 0.7, like=x)


def test_dropout_draws_without_a_generator_too():
    first, second = Dropout(0.5), Dropout(0.5)
    ones = np.ones((10, 10))
    assert (first.forward(ones) != second.forward(ones)).any()


def test_batch_normalization_in_training_and_in_evaluation(backend):
    x_host, gamma, beta = normal(6, 3, 4), positive(3), normal(3)
    x = backend.asarray(x_host)
    layer = BatchNormalization(backend.asarray(gamma), backend.asarray(beta), momentum=0.8)
    y = layer.forward(x)
    assert_close(y, norms.batch_norm(x_host, gamma, beta, eps=layer.eps), like=x)
    dy = normal(6, 3, 4, seed=9)
    dx = layer.backward(backend.asarray(dy))
    wanted = norms.batch_norm_gradients(dy, x_host, gamma, eps=layer.eps)
    for found, expected in zip((dx, layer.dgamma, layer.dbeta), wanted, strict=True):
        assert_close(found, expected, like=x)

    mean, var, _ = norms.batch_norm_statistics(x_host)
    running = 0.2 * mean, 0.2 * var
    assert_close(layer.running_mean, running[0], like=x)
    assert_close(layer.running_var, running[1], like=x)
    evaluated = layer.forward(x, train_flg=False)
    assert_close(evaluated, norms.batch_norm_inference(x_host, *running, gamma, beta, eps=layer.eps), like=x)
    assert_close(layer.running_mean, running[0], like=x)  # evaluation gathers nothing
    layer.forward(x)
    assert_close(layer.running_mean, 0.8 * running[0] + 0.2 * mean, like=x)


def test_batch_normalization_keeps_a_channel_together():  # the book's normalizes each element by itself
    x = normal(1, 2, 50)
    y = BatchNormalization(np.ones(2), np.zeros(2)).forward(x)
    np.testing.assert_allclose(y.var(axis=2), 1, rtol=1e-4)


def test_softmax_with_loss(backend):
    scores, labels = normal(5, 4), integers(4, 5)
    x = backend.asarray(scores)
    layer = SoftmaxWithLoss()
    wanted = norms.softmax_cross_entropy_gradient(scores, labels)
    for t in (labels, np.eye(4)[labels]):
        assert_close(layer.forward(x, backend.asarray(t)), norms.softmax_cross_entropy(scores, labels), like=x)
        assert_close(layer.backward(), wanted, like=x)
        assert_close(layer.backward(3), 3 * wanted, like=x)


# --- What all layers have


LAYERS = {  # how to make one, and an input that fits
    "Convolution": (lambda: Convolution(normal(2, 3, 2, 2), normal(2)), normal(2, 3, 4, 4)),
    "Pooling": (lambda: Pooling(2, 2), spread(2, 3, 4, 4)),
    "Affine": (lambda: Affine(normal(4, 2), normal(2)), normal(3, 4)),
    "Relu": (Relu, spread(3, 4)),
    "Dropout": (Dropout, normal(3, 4)),
    "BatchNormalization": (lambda: BatchNormalization(np.ones(3), np.zeros(3)), normal(2, 3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_backward_before_forward_is_refused(name):
    make, x = LAYERS[name]
    with pytest.raises(ValueError, match=rf"{name}\.backward was called before forward; call forward\(x\) first"):
        make().backward(x)


def test_softmax_with_loss_refuses_backward_before_forward():
    with pytest.raises(ValueError, match=r"SoftmaxWithLoss\.backward was called before forward; call forward"):
        SoftmaxWithLoss().backward()


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_has_a_gradient_of_its_shape(name):
    make, x = LAYERS[name]
    layer = make()
    y = layer.forward(x)
    assert layer.backward(y).shape == x.shape
    for parameter in layer.parameters:
        assert getattr(layer, f"d{parameter}").shape == getattr(layer, parameter).shape


@pytest.mark.parametrize("name", LAYERS)
def test_a_gradient_that_does_not_fit_is_refused(name):
    make, x = LAYERS[name]
    layer = make()
    y = layer.forward(x)
    with pytest.raises(ValueError, match="dy has shape"):
        layer.backward(np.concatenate([y, y]))
    with pytest.raises(TypeError, match="dy has dtype"):
        layer.backward(y.astype(np.float32))


def test_a_parameter_that_is_replaced_is_used():
    layer = Affine(normal(4, 2), normal(2))
    layer.forward(normal(3, 4))
    layer.W = np.zeros((4, 2))
    assert_close(layer.forward(normal(3, 4)), np.broadcast_to(normal(2), (3, 2)))
