"""Networks: the book's names and shapes, gradients by PyTorch's autograd, accuracy by counting, weights in files."""

import math

import numpy as np
import pytest
from cases import integers, normal

import xpconv
from xpconv.testing import assert_close

SIMPLE = {
    "W1": (30, 1, 5, 5),
    "b1": (30,),
    "W2": (4320, 100),
    "b2": (100,),
    "W3": (100, 10),
    "b3": (10,),
}
DEEP = {
    "W1": (16, 1, 3, 3),
    "W2": (16, 16, 3, 3),
    "W3": (32, 16, 3, 3),
    "W4": (32, 32, 3, 3),
    "W5": (64, 32, 3, 3),
    "W6": (64, 64, 3, 3),
    "W7": (1024, 50),
    "W8": (50, 10),
    **{f"b{k}": (size,) for k, size in enumerate((16, 16, 32, 32, 64, 64, 50, 10), start=1)},
}


def small(backend, dtype="float64", rng=0):
    """A simple network for images of 2 channels and 8x9 pixels."""
    conv = {"filter_num": 4, "filter_size": 3, "pad": 1, "stride": 1}
    return xpconv.SimpleConvNet((2, 8, 9), conv, 6, 5, "he", backend=backend, dtype=dtype, rng=rng)


def normalized(backend, dtype="float64"):
    """A network with batch normalization, and a convolution without a bias."""

    def array(*shape):
        return backend.asarray(0.5 * normal(*shape), dtype)

    return xpconv.Network(
        [
            xpconv.Convolution(array(3, 2, 3, 3), stride=2),
            xpconv.BatchNormalization(array(3), array(3)),
            xpconv.Relu(),
            xpconv.Affine(array(48, 4), array(4)),
        ]
    )


def shapes(arrays):
    return {name: tuple(array.shape) for name, array in arrays.items()}


def hosts(arrays):
    return {name: xpconv.to_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("network, wanted", [(xpconv.SimpleConvNet, SIMPLE), (xpconv.DeepConvNet, DEEP)])
def test_names_and_shapes_of_the_book(network, wanted):
    made = network(rng=0)
    assert shapes(made.params) == wanted
    assert shapes(made.state) == wanted
    assert {array.dtype for array in made.params.values()} == {np.dtype("float32")}
    assert made.predict(np.zeros((3, 1, 28, 28), np.float32)).shape == (3, 10)


def test_layers_have_the_names_of_the_book():
    assert list(xpconv.SimpleConvNet().layers) == ["Conv1", "Relu1", "Pool1", "Affine1", "Relu2", "Affine2"]
    assert list(xpconv.DeepConvNet().layers)[:5] == ["Convolution1", "Relu1", "Convolution2", "Relu2", "Pooling1"]


@pytest.mark.parametrize("weight_init_std, std", [(0.01, 0.01), ("he", math.sqrt(2 / 4320)), ("xavier", 4320**-0.5)])
def test_initial_weights_have_the_standard_deviation_asked_for(weight_init_std, std):
    params = xpconv.SimpleConvNet(weight_init_std=weight_init_std, rng=1).params
    assert xpconv.to_numpy(params["W2"]).std() == pytest.approx(std, rel=0.01)
    assert not params["b2"].any()


def test_every_backend_starts_from_the_same_weights(backend):
    for network in (xpconv.SimpleConvNet, xpconv.DeepConvNet):
        host = network((1, 12, 12), rng=3, dtype="float64").params
        for dtype in ("float64", "float32"):
            params = network((1, 12, 12), rng=np.random.default_rng(3), backend=backend, dtype=dtype).params
            for name, array in params.items():
                assert_close(array, host[name].astype(dtype), like=backend.asarray(0.0), rtol=0)


def test_a_backend_can_be_given_by_its_flag():
    strict = pytest.importorskip("array_api_strict")
    params = xpconv.SimpleConvNet((1, 8, 8), {"filter_size": 3}, backend="array-api-strict:device1").params
    assert params["W1"].device == strict.Device("device1")


def test_convolution_parameters_are_those_of_the_book():
    conv = {"filter_num": 6, "filter_size": 3, "pad": 2, "stride": 2}
    params = xpconv.SimpleConvNet((3, 10, 14), conv, 20, 7).params
    assert shapes(params) == {
        "W1": (6, 3, 3, 3),
        "b1": (6,),
        "W2": (6 * 3 * 4, 20),  # 10x14 padded to 14x18 gives 6x8 windows, which the pool halves
        "b2": (20,),
        "W3": (20, 7),
        "b3": (7,),
    }


@pytest.mark.parametrize(
    "size, features", [((28, 28), 1024), ((8, 8), 64), ((32, 20), 64 * 4 * 3), ((11, 13), 64 * 1 * 2)]
)
def test_the_deep_network_fits_images_of_other_sizes(size, features):
    network = xpconv.DeepConvNet((2, *size), rng=0)
    assert network.params["W7"].shape == (features, 50)
    assert network.predict(np.zeros((1, 2, *size), np.float32)).shape == (1, 10)


def pytorch_gradients(torch, network, x, t):
    """The loss and its gradients by PyTorch's own operators and autograd: the network without dropout."""
    functional = torch.nn.functional
    params = {n: torch.tensor(a, requires_grad=True) for n, a in hosts(network.params).items()}
    y, k = torch.tensor(x), 0
    for layer in network.layers.values():
        kind = type(layer).__name__
        if kind == "Convolution":
            k += 1
            y = functional.conv2d(y, params[f"W{k}"], params[f"b{k}"], padding=layer.options["pad"])
        elif kind == "Affine":
            k += 1
            y = y.reshape(y.shape[0], -1) @ params[f"W{k}"] + params[f"b{k}"]
        elif kind == "Relu":
            y = functional.relu(y)
        elif kind == "Pooling":
            y = functional.max_pool2d(y, 2)
        else:
            assert kind == "Dropout"
    loss = functional.cross_entropy(y, torch.tensor(t))
    loss.backward()
    return y.detach().numpy(), loss.detach().numpy(), {name: p.grad.numpy() for name, p in params.items()}


def agrees_with_pytorch(network, backend):
    torch = pytest.importorskip("torch")
    x, t = normal(3, 2, 8, 9), integers(5, 3)
    scores, loss, gradients = pytorch_gradients(torch, network, x, t)
    images, labels = backend.asarray(x), backend.asarray(t)
    found = network.gradient(images, labels)
    assert_close(network.last_layer.loss, loss, like=images)
    assert list(found) == list(network.params)
    for name, gradient in gradients.items():
        assert_close(found[name], gradient, like=images)
    assert_close(network.predict(images), scores, like=images)
    assert_close(network.forward(images), scores, like=images)
    assert_close(network.loss(images, labels), loss, like=images)


def test_the_simple_network_agrees_with_pytorch(backend):
    agrees_with_pytorch(small(backend), backend)


def test_the_deep_network_agrees_with_pytorch():
    network = xpconv.DeepConvNet((2, 8, 9), 6, 5, dropout_ratio=0, dtype="float64", rng=0)
    agrees_with_pytorch(network, xpconv.backend())


def test_forward_and_backward_are_a_layers(backend):
    network = small(backend)
    x, dy = backend.asarray(normal(3, 2, 8, 9)), normal(3, 5, seed=1)
    network.forward(x)
    dx = network.backward(backend.asarray(dy))
    v, step = normal(3, 2, 8, 9, seed=2), 1e-6
    ends = [xpconv.to_numpy(network.predict(backend.asarray(normal(3, 2, 8, 9) + s * v))) for s in (step, -step)]
    slope = np.sum(dy * (ends[0] - ends[1]) / (2 * step))
    assert np.sum(xpconv.to_numpy(dx) * v) == pytest.approx(slope, rel=1e-6)
    assert_close(dx, xpconv.to_numpy(dx), like=x)
    assert_close(network.layers["Affine2"].db, dy.sum(axis=0), like=x)
    dW = xpconv.to_numpy(network.layers["Conv1"].dW)
    assert network.backward(backend.asarray(dy), input_gradient=False) is None
    assert_close(network.layers["Conv1"].dW, dW, like=x)


def test_gradients_come_layer_by_layer_before_the_next_is_computed(backend):
    network, x, t = small(backend), backend.asarray(normal(3, 2, 8, 9)), backend.asarray(integers(5, 3))
    whole = network.gradient(x, t)
    network = small(backend)
    arriving = network.gradients(x, t, 0.25)
    part = next(arriving)
    assert list(part) == ["W3", "b3"]
    assert network.layers["Affine1"].dW is None
    parts = [part, *arriving]
    assert [list(part) for part in parts if part] == [["W3", "b3"], ["W2", "b2"], ["W1", "b1"]]
    for name, gradient in {name: array for part in parts for name, array in part.items()}.items():
        assert_close(gradient, xpconv.to_numpy(whole[name]) / 4, like=x)


def test_no_samples_have_gradients_of_zero(backend):
    network = small(backend)
    x, t = backend.asarray(np.zeros((0, 2, 8, 9))), backend.asarray(np.zeros(0, np.int64))
    for name, gradient in network.gradient(x, t).items():
        assert_close(gradient, np.zeros(network.params[name].shape), like=x)


def test_dropout_is_of_training_alone():
    network = xpconv.DeepConvNet((1, 8, 8), rng=0, dtype="float64")
    x = normal(4, 1, 8, 8)
    np.testing.assert_array_equal(network.predict(x), network.predict(x))
    assert not np.array_equal(network.predict(x, train_flg=True), network.predict(x))
    assert network.loss(x, integers(10, 4)) == network.loss(x, integers(10, 4))
    first, second = (network.gradient(x, integers(10, 4))["W8"] for _ in range(2))
    assert not np.array_equal(first, second)
    again = xpconv.DeepConvNet((1, 8, 8), rng=0, dtype="float64")
    again.predict(x, train_flg=True)
    np.testing.assert_array_equal(again.gradient(x, integers(10, 4))["W8"], first)


def test_parameters_are_numbered_by_the_layers_that_can_have_them(backend):
    network = normalized(backend)
    assert shapes(network.params) == {"W1": (3, 2, 3, 3), "gamma1": (3,), "beta1": (3,), "W2": (48, 4), "b2": (4,)}
    assert list(network.layers) == ["Convolution1", "BatchNormalization1", "Relu1", "Affine1"]
    buffers = {"running_mean1": (3,), "running_var1": (3,)}
    assert shapes(network.state) == shapes(network.params) | buffers
    x = backend.asarray(normal(2, 2, 9, 9))
    gradients = network.gradient(x, backend.asarray(integers(4, 2)))
    assert shapes(gradients) == shapes(network.params)
    assert network.state["running_mean1"] is network.layers["BatchNormalization1"].running_mean


def test_the_layer_owns_its_parameters(backend):
    network = small(backend)
    params, convolution = network.params, network.layers["Conv1"]
    assert params["W1"] is convolution.W
    new = backend.asarray(normal(4, 2, 3, 3, seed=9))
    params["W1"] = new
    assert convolution.W is new
    convolution.W = new * 2
    assert_close(params["W1"], 2 * normal(4, 2, 3, 3, seed=9), like=new)
    assert len(params) == 6
    assert list(params) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    assert "W3" in params
    assert "W4" not in params
    assert 3 not in params
    assert "W1 (4, 2, 3, 3)" in repr(params)


@pytest.mark.parametrize("rule", [xpconv.SGD, xpconv.Adam])
def test_an_optimizer_trains_on_every_library(backend, rule):
    network, optimizer = small(backend), rule(0.01)
    x, t = backend.asarray(normal(3, 2, 8, 9)), backend.asarray(integers(5, 3))
    before = hosts(network.params)
    first = float(network.loss(x, t))
    for _ in range(3):
        optimizer.update(network.params, network.gradient(x, t))
    assert float(network.loss(x, t)) < first
    assert all((before[name] != array).any() for name, array in hosts(network.params).items())


@pytest.mark.parametrize(
    "name, bad, error, words",
    [
        (
            "W1",
            lambda b: b.asarray(normal(4, 2, 3, 2)),
            ValueError,
            r"new value of W1 has shape \(4, 2, 3, 2\); give \(4, 2",
        ),
        ("W1", lambda b: b.asarray(normal(4, 2, 3, 3), "float32"), TypeError, "W1 has dtype .*float64 .*float32"),
        ("W1", lambda b: b.asarray(integers(9, 4, 2, 3, 3)), TypeError, "W1 has dtype"),
        ("W1", lambda b: [1.0], TypeError, "its new value is a list"),
        ("W1", lambda b: None, TypeError, "the new value of W1 is None"),
        ("W4", lambda b: b.asarray(normal(1)), KeyError, "there is no 'W4'; give one of W1, b1, W2, b2, W3, b3"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(backend, name, bad, error, words):
    network = small(backend)
    before = network.layers["Conv1"].W
    with pytest.raises(error, match=words):
        network.params[name] = bad(backend)
    assert network.layers["Conv1"].W is before


def test_an_array_of_another_library_or_device_is_refused():
    pytest.importorskip("array_api_strict")
    strict, other = xpconv.backend("array-api-strict"), xpconv.backend("array-api-strict:device1")
    params = small(strict).params
    with pytest.raises(TypeError, match=r"W1 is an array of array_api_strict and its new value of .*numpy"):
        params["W1"] = normal(4, 2, 3, 3)
    with pytest.raises(ValueError, match=r"W1 is on device .* and its new value on"):
        params["W1"] = other.asarray(normal(4, 2, 3, 3))


def test_a_parameter_cannot_be_taken_away():
    with pytest.raises(TypeError, match="'W1' belongs to its layer"):
        del small(xpconv.backend()).params["W1"]


@pytest.mark.parametrize("count, batch_size", [(7, 3), (6, 3), (2, 100), (1, 1)])
def test_accuracy_counts_every_sample(backend, count, batch_size):
    network = small(backend)
    x, t = normal(count, 2, 8, 9), integers(5, count)
    images, labels = backend.asarray(x), backend.asarray(t)
    answers = xpconv.to_numpy(network.predict(images)).argmax(axis=1)
    t[-1] = answers[-1]  # the last sample, alone in its batch, is right
    labels = backend.asarray(t)
    wanted = sum(int(a) == int(b) for a, b in zip(answers, t, strict=True)) / count
    assert network.accuracy(images, labels, batch_size) == wanted
    assert network.accuracy(images, backend.asarray(np.eye(5)[t]), batch_size) == wanted
    found = network.classify(images, batch_size)
    assert_close(xpconv.to_numpy(found).astype(np.int64), answers)


def test_answers_stay_where_the_network_is(backend):
    network = small(backend)
    found = network.classify(backend.asarray(normal(3, 2, 8, 9)), 2)
    assert_close(
        backend.xp.astype(found, backend.xp.float64), xpconv.to_numpy(found).astype(float), like=network.params["b1"]
    )


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda net: net.accuracy(normal(3, 2, 8, 9), integers(5, 2)), r"x has shape \(3, 2, 8, 9\) and t \(2,\)"),
        (lambda net: net.accuracy(normal(0, 2, 8, 9), integers(5, 0)), "give at least one sample"),
        (lambda net: net.accuracy(normal(3, 2, 8, 9), integers(5, 3), 0), "batch_size is 0"),
        (lambda net: net.backward(normal(3, 5)), "backward was called before forward"),
        (lambda net: net.predict(normal(3, 1, 8, 9)), "1 channels"),
    ],
)
def test_bad_samples(call, words):
    with pytest.raises(ValueError, match=words):
        call(small(xpconv.backend()))


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: xpconv.Network([]), ValueError, "layers is empty"),
        (lambda: xpconv.Network([xpconv.Relu(), max]), TypeError, "layer '.*' is a builtin.*; give an xpconv.Layer"),
        (lambda: xpconv.Network([xpconv.Relu()] * 2), ValueError, "appears twice"),
        (lambda: xpconv.SimpleConvNet((28, 28)), ValueError, "input_dim"),
        (lambda: xpconv.SimpleConvNet((1, 28, 28.0)), TypeError, "input_dim is 28.0"),
        (lambda: xpconv.SimpleConvNet((1, 4, 4)), ValueError, "give a smaller kernel or more padding"),
        (lambda: xpconv.SimpleConvNet((1, 5, 5)), ValueError, "give a smaller kernel or more padding"),
        (
            lambda: xpconv.SimpleConvNet(conv_param={"filters": 3}),
            ValueError,
            "conv_param has 'filters'; give filter_num",
        ),
        (lambda: xpconv.SimpleConvNet(conv_param={"filter_num": 0}), ValueError, "filter_num is 0"),
        (lambda: xpconv.SimpleConvNet(conv_param={"filter_size": 2.5}), TypeError, "filter_size is 2.5"),
        (lambda: xpconv.SimpleConvNet(hidden_size=0), ValueError, "hidden_size is 0"),
        (lambda: xpconv.SimpleConvNet(output_size=-1), ValueError, "output_size is -1"),
        (lambda: xpconv.SimpleConvNet(weight_init_std="best"), ValueError, "weight_init_std is 'best'"),
        (lambda: xpconv.SimpleConvNet(dtype="int32"), TypeError, "dtype is 'int32'; give the name of a real floating"),
        (lambda: xpconv.SimpleConvNet(backend="tensorflow"), ValueError, "unknown backend 'tensorflow'"),
        (lambda: xpconv.DeepConvNet((1, 3, 3)), ValueError, "give a smaller kernel or more padding"),
        (lambda: xpconv.DeepConvNet(hidden_size=0), ValueError, "hidden_size is 0"),
    ],
)
def test_bad_networks(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_weights_of_the_book_can_be_put_in_and_taken_out(backend):
    book = {name: normal(*shape, seed=4).astype(np.float32) for name, shape in SIMPLE.items()}
    network = xpconv.SimpleConvNet(backend=backend)
    for name, array in book.items():
        network.params[name] = backend.asarray(array)
    for name, array in network.params.items():
        assert_close(array, book[name], like=backend.asarray(np.float32(0)), rtol=0)


def test_weights_move_between_backends_and_dtypes(backend, tmp_path):
    pytest.importorskip("safetensors")
    file = tmp_path / "weights.safetensors"
    source, target = normalized(xpconv.backend(), "float32"), normalized(backend)
    source.forward(normal(5, 2, 9, 9).astype(np.float32))  # so that the running statistics are some
    source.save(file)
    target.load(file)
    for name, array in target.state.items():
        assert_close(array, source.state[name].astype(np.float64), like=backend.asarray(0.0), rtol=0)
    x = normal(3, 2, 9, 9)
    assert_close(target.predict(backend.asarray(x)), source.predict(x.astype(np.float32)).astype(np.float64), rtol=1e-5)
    target.save(file)
    back = normalized(xpconv.backend(), "float32")
    back.load(file)
    for name, array in back.state.items():
        assert_close(array, source.state[name], rtol=0)


def test_notes_go_into_the_file(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    file = tmp_path / "weights.safetensors"
    small(xpconv.backend()).save(file, {"data": "digits"})
    with safetensors.safe_open(file, "numpy") as opened:
        assert opened.metadata() == {"network": "SimpleConvNet", "data": "digits"}
        assert opened.get_tensor("W2").shape == (4 * 4 * 4, 6)


def test_a_file_that_does_not_fit_changes_nothing_and_says_all(tmp_path):
    pytest.importorskip("safetensors")
    file = tmp_path / "weights.safetensors"
    xpconv.SimpleConvNet((1, 8, 8), {"filter_size": 3}, rng=5).save(file)
    network = normalized(xpconv.backend())
    before = dict(network.state)
    with pytest.raises(ValueError, match="do not fit") as raised:
        network.load(file)
    for problem in (
        "missing: 'gamma1' of shape (3,)",
        "missing: 'running_var1' of shape (3,)",
        "unexpected: 'W3' of shape (100, 10)",
        "shape of 'W1': (30, 1, 3, 3) given, (3, 2, 3, 3) wanted",
    ):
        assert problem in str(raised.value)
    assert all(network.state[name] is array for name, array in before.items())


def test_a_file_of_whole_numbers_changes_nothing(tmp_path):
    numpy_format = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "weights.safetensors"
    network = small(xpconv.backend())
    before = dict(network.state)
    arrays = {name: array.astype(np.int32 if name == "b3" else np.float32) for name, array in before.items()}
    numpy_format.save_file(arrays, file)
    with pytest.raises(ValueError, match="dtype of 'b3': int32 given, a floating one wanted"):
        network.load(file)
    assert all(network.state[name] is array for name, array in before.items())


TORCH = {  # what a module of PyTorch calls the arrays of `normalized`
    "stem.weight": "W1",
    "norm.weight": "gamma1",
    "norm.bias": "beta1",
    "norm.running_mean": "running_mean1",
    "norm.running_var": "running_var1",
    "norm.num_batches_tracked": None,
    "head.weight": ("W2", np.transpose),
    "head.bias": "b2",
}


def of_another_make(network):
    """The state of a `normalized` network as PyTorch would name it and lay it out."""
    state = {name: xpconv.to_numpy(array).astype(np.float32) for name, array in network.state.items()}
    state["W2"] = np.ascontiguousarray(state["W2"].T)
    own = {(place if isinstance(place, str) else place[0]): name for name, place in TORCH.items() if place}
    return {own[name]: array for name, array in state.items()} | {"norm.num_batches_tracked": np.array(7)}


@pytest.mark.parametrize("names", [TORCH, TORCH.get, lambda name: TORCH[name]])
def test_names_say_what_a_file_of_another_make_holds(backend, tmp_path, names):
    numpy_format = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "model.safetensors"
    source, target = normalized(xpconv.backend()), normalized(backend)
    source.forward(normal(5, 2, 9, 9))  # so that the running statistics are some
    numpy_format.save_file(of_another_make(source), file)
    target.load(file, names)
    for name, array in target.state.items():
        wanted = source.state[name].astype(np.float32).astype(np.float64)
        assert_close(array, wanted, like=backend.asarray(0.0), rtol=0)


def test_a_module_of_pytorch_comes_in_by_names(tmp_path):
    torch = pytest.importorskip("torch")
    torch_format = pytest.importorskip("safetensors.torch")
    file = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, (3, 2), stride=2),
        torch.nn.BatchNorm2d(3),
        torch.nn.PReLU(3),
        torch.nn.ConvTranspose2d(3, 4, 2),
        torch.nn.Flatten(),
        torch.nn.Linear(100, 100),  # square: only the name map knows which axis is which
    ).double()
    x = normal(3, 2, 9, 9)
    module(torch.asarray(x))
    module.eval()
    torch_format.save_file(module.state_dict(), file)
    zeros = np.zeros
    network = xpconv.Network(
        [
            xpconv.Convolution(zeros((3, 2, 3, 2)), zeros(3), stride=2),
            xpconv.BatchNormalization(zeros(3), zeros(3), eps=1e-5),
            xpconv.PRelu(zeros(3)),
            xpconv.TransposedConvolution(zeros((3, 4, 2, 2)), zeros(4)),
            xpconv.Affine(zeros((100, 100)), zeros(100)),
        ]
    )
    names = {"0.weight": "W1", "0.bias": "b1", "1.weight": "gamma1", "1.bias": "beta1", "2.weight": "slope1"}
    names |= {"1.running_mean": "running_mean1", "1.running_var": "running_var1", "1.num_batches_tracked": None}
    names |= {"3.weight": "W2", "3.bias": "b2", "5.weight": ("W3", np.transpose), "5.bias": "b3"}
    network.load(file, names)
    assert_close(network.predict(x), module(torch.asarray(x)).detach().numpy(), rtol=1e-12)


def test_an_array_may_be_laid_out_in_any_way(backend, tmp_path):
    numpy_format = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "model.safetensors"
    network = small(backend)
    kernels = normal(4, 2, 3, 3)
    numpy_format.save_file({"kernels": kernels} | hosts(network.params), file)
    names = {name: name for name in network.params} | {"kernels": ("W1", lambda w: w[..., ::-1, ::-1]), "W1": None}
    network.load(file, names)  # a true convolution turns its kernels, and PyTorch takes no negative strides
    assert_close(network.params["W1"], kernels[..., ::-1, ::-1].copy(), like=backend.asarray(0.0), rtol=0)


def test_all_that_names_leave_unfitting_is_in_one_message_and_nothing_changes(tmp_path):
    numpy_format = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "model.safetensors"
    network = normalized(xpconv.backend())
    before = dict(network.state)
    numpy_format.save_file(of_another_make(network) | {"stem.bias": np.zeros(3)}, file)
    names = TORCH | {
        "norm.weight": "beta1",
        "norm.num_batches_tracked": "steps",
        "norm.running_var": ("running_var1", lambda v: v.reshape(2, 2)),
        "head.weight": "W2",
        "head.biass": "b2",
    }
    del names["head.bias"]
    with pytest.raises(ValueError) as raised:
        network.load(file, names)
    assert str(raised.value).splitlines() == [
        "the weights do not fit:",
        "  not in the file: 'head.biass'",
        "  not in names: 'head.bias' of shape (4,)",
        "  not in names: 'stem.bias' of shape (3,)",
        "  layout of 'norm.running_var' of shape (3,), for 'running_var1': "
        "cannot reshape array of size 3 into shape (2,2)",
        "  given twice: 'beta1', again as 'norm.weight'",
        "  dtype of 'steps': int64 given, a floating one wanted",
        "  missing: 'gamma1' of shape (3,)",
        "  missing: 'running_var1' of shape (3,)",
        "  missing: 'b2' of shape (4,)",
        "  unexpected: 'steps' of shape ()",
        "  shape of 'W2': (4, 48) given, (48, 4) wanted",
    ]
    assert all(network.state[name] is array for name, array in before.items())


@pytest.mark.parametrize(
    "names, words",
    [
        ("W1", "names is a str; give a mapping, or a function of a name in the file"),
        ({"W1": 3}, "names has 3 for 'W1'; give a name, a pair of name and function, or None"),
        ({"W1": ("W1",)}, r"names has \('W1',\) for 'W1'"),
        (lambda name: (name, "transpose"), "names has .*'transpose'"),
    ],
)
def test_names_that_are_none(tmp_path, names, words):
    pytest.importorskip("safetensors")
    file = tmp_path / "weights.safetensors"
    network = small(xpconv.backend())
    before = dict(network.state)
    network.save(file)
    with pytest.raises(TypeError, match=words):
        network.load(file, names)
    assert all(network.state[name] is array for name, array in before.items())


def test_a_damaged_file_changes_nothing(tmp_path):
    pytest.importorskip("safetensors")
    file = tmp_path / "weights.safetensors"
    network = small(xpconv.backend())
    network.save(file)
    content = file.read_bytes()
    before = dict(network.state)
    for damaged in (content[:-1], content[:100], b"", b"\x80\x04 a pickle"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"weights\.safetensors: not weights that can be read"):
            network.load(file)
    with pytest.raises(FileNotFoundError):
        network.load(tmp_path / "none.safetensors")
    assert all(network.state[name] is array for name, array in before.items())


def test_a_failed_save_leaves_the_good_file(tmp_path):
    pytest.importorskip("safetensors")
    file = tmp_path / "weights.safetensors"
    network = small(xpconv.backend())
    network.save(file)
    content = file.read_bytes()
    with pytest.raises(TypeError):
        network.save(file, {"epochs": 20})
    assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
