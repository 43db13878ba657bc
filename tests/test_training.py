"""Training: the same loss curve on every backend, every sample in every epoch, and what is refused before the start."""

import sys

import numpy as np
import pytest
from cases import integers, normal

import xpconv
from xpconv.data import Dataset, digits
from xpconv.testing import assert_close
from xpconv.training import Callback, History, Progress, Trainer, cosine, monitoring

STEPS = 50


def made(backend, dtype="float64", rng=0):
    conv = {"filter_size": 3, "pad": 1}
    return xpconv.SimpleConvNet((1, 8, 8), conv, weight_init_std="he", backend=backend, dtype=dtype, rng=rng)


def trained(network, samples, **options):
    options = {"epochs": 1, "batch_size": 20, "rng": 1, **options}
    trainer = Trainer(network, xpconv.Adam(0.01), samples, **options)
    trainer.train()
    return trainer


def images_and_labels(count):
    """Random images; every backend sees the same."""
    return normal(count, 1, 8, 8), integers(10, count)


def fifty_steps(backend):
    pytest.importorskip("sklearn")
    train, _ = digits()
    samples = train.images[: STEPS * 20].astype(np.float64), train.labels[: STEPS * 20]
    return trained(made(backend), samples, schedule=cosine, sample=20).history.loss


@pytest.fixture(scope="module")
def curve():
    return fifty_steps(xpconv.backend("numpy"))


def test_the_same_seed_gives_the_same_loss_curve_on_every_backend(backend, curve):
    found = fifty_steps(backend)
    assert len(found) == STEPS
    assert found[-1] < 0.5 * found[0]  # so that there is something to agree on
    np.testing.assert_allclose(found, curve, rtol=1e-9)


def test_the_loss_curve_is_pytorchs(curve):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    train, _ = digits()
    params = {name: torch.tensor(array, requires_grad=True) for name, array in made("numpy").params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.01)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    rng = np.random.default_rng(1)
    rng.permutation(STEPS * 20)  # as the trainer chooses its sample
    order = np.arange(STEPS * 20)
    rng.shuffle(order)
    losses = []
    for chosen in order.reshape(STEPS, 20):
        x, t = torch.tensor(train.images[chosen].astype(np.float64)), torch.tensor(train.labels[chosen])
        y = functional.max_pool2d(functional.relu(functional.conv2d(x, params["W1"], params["b1"], padding=1)), 2)
        y = functional.relu(y.flatten(1) @ params["W2"] + params["b2"]) @ params["W3"] + params["b3"]
        loss = functional.cross_entropy(y, t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        losses.append(float(loss.detach()))
    np.testing.assert_allclose(curve, losses, rtol=1e-9)


class After(Callback):
    """Calls a function with the trainer after each epoch."""

    def __init__(self, function):
        self.on_epoch = function


class Recorder(xpconv.SGD):
    """Takes no step, and keeps the learning rates."""

    def __init__(self):
        super().__init__(0.5)
        self.rates = []

    def update(self, params, grads):
        self.rates.append(self.lr)


def seen_by(trainer):
    """Let a trainer run, and return the first pixel of the samples of each step."""
    steps, gradient = [], trainer.network.gradient

    def spy(x, t):
        steps.append(xpconv.to_numpy(x)[:, 0, 0, 0])
        return gradient(x, t)

    trainer.network.gradient = spy
    trainer.train()
    return steps


def test_every_epoch_sees_every_sample_once_in_another_order():
    x, t = images_and_labels(10)
    trainer = Trainer(made("numpy"), Recorder(), (x, t), epochs=2, batch_size=4, rng=3)
    steps = seen_by(trainer)
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4, 2]
    epochs = np.concatenate(steps[:3]), np.concatenate(steps[3:])
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.sort(x[:, 0, 0, 0]))
    assert not np.array_equal(*epochs)
    assert trainer.steps == len(trainer.history.loss) == 6
    assert trainer.history.images == 20


def test_the_seed_decides_the_order():
    x, t = images_and_labels(10)
    orders = []
    for rng in (3, np.random.default_rng(3), 4):
        trainer = Trainer(made("numpy"), Recorder(), (x, t), epochs=1, batch_size=4, rng=rng)
        orders.append(np.concatenate(seen_by(trainer)))
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_history_tells_the_loss_of_each_step_and_the_accuracy_after_each_epoch(backend):
    (x, t), test = images_and_labels(60), images_and_labels(20)
    network = made(backend)
    found = []
    trainer = Trainer(
        network,
        xpconv.Adam(),
        (x, t),
        test,
        epochs=2,
        batch_size=20,
        rng=0,
        callbacks=[After(lambda trainer: found.append(network.accuracy(*trainer.test)))],
    )
    history = trainer.train()
    assert history is trainer.history
    assert len(history.loss) == 6
    assert all(isinstance(value, float) for value in history.loss)
    assert history.test_accuracy == found
    assert len(history.train_accuracy) == 2
    assert history.images_per_second == history.images / history.seconds > 0
    everything = backend.asarray(x), backend.asarray(t)
    assert history.train_accuracy[-1] == network.accuracy(*everything, batch_size=20)
    answers = xpconv.to_numpy(network.predict(backend.asarray(test[0]))).argmax(axis=1)
    assert history.test_accuracy[-1] == np.mean(answers == test[1])


def test_accuracy_on_the_images_trained_on_is_of_a_sample():
    trainer = Trainer(made("numpy"), Recorder(), images_and_labels(30), epochs=2, sample=4, rng=0)
    assert trainer.seen[0].shape[0] == trainer.seen[1].shape[0] == 4
    history = trainer.train()
    assert history.train_accuracy[0] == history.train_accuracy[1]
    assert history.train_accuracy[0] * 4 in range(5)
    assert history.test_accuracy == []


def test_a_step_leaves_its_loss_on_the_device(backend):
    trainer = Trainer(made(backend, "float32"), xpconv.SGD(), images_and_labels(20), epochs=1)
    loss = trainer.step(trainer.source.x, trainer.source.t)
    assert_close(loss, xpconv.to_numpy(loss), like=backend.asarray(np.float32(0)))
    assert loss.shape == ()
    assert loss.dtype == trainer.source.x.dtype == trainer.network.params["W1"].dtype


def test_images_go_where_the_parameters_are(backend):
    x, t = images_and_labels(20)
    trainer = Trainer(made(backend, "float32"), xpconv.SGD(), (x, t), epochs=1)
    assert_close(trainer.source.x, x.astype(np.float32), like=backend.asarray(np.float32(0)), rtol=0)
    assert_close(trainer.source.t, t, like=trainer.source.x)


def test_rows_teach_as_labels_do():
    x, t = images_and_labels(12)
    by_labels = trained(made("numpy"), (x, t)).history
    by_rows = trained(made("numpy"), (x, np.eye(10)[t])).history
    np.testing.assert_allclose(by_rows.loss, by_labels.loss, rtol=1e-12)
    assert by_rows.train_accuracy == by_labels.train_accuracy


def test_a_data_set_is_its_images_and_labels():
    x = np.random.default_rng(0).random((12, 1, 8, 8), np.float32)
    t = integers(10, 12)
    assert trained(made("numpy"), Dataset(x, t)).history.loss == trained(made("numpy"), (x, t)).history.loss


def test_a_schedule_scales_the_learning_rate_of_each_step():
    optimizer = Recorder()
    asked = []

    def schedule(step, steps):
        asked.append((step, steps))
        return 1 / (step + 1)

    options = {"epochs": 2, "batch_size": 4, "schedule": schedule}
    Trainer(made("numpy"), optimizer, images_and_labels(6), **options).train()
    assert asked == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert optimizer.rates == [0.5, 0.25, 0.5 / 3, 0.125]
    assert optimizer.lr == 0.5


def test_the_learning_rate_is_given_back_after_a_failure():
    def stop(trainer):
        raise KeyboardInterrupt

    optimizer = Recorder()
    options = {"epochs": 2, "schedule": lambda step, steps: 0.1, "callbacks": [After(stop)]}
    trainer = Trainer(made("numpy"), optimizer, images_and_labels(6), **options)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert optimizer.lr == 0.5
    assert len(trainer.history.loss) == 1


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    trained(made("numpy"), images_and_labels(50), batch_size=2, callbacks=[Progress()])
    shown = capsys.readouterr().err
    assert "25/25" in shown
    assert "loss=" in shown


def test_lines_in_a_log_file(capsys, monkeypatch):
    options = {"epochs": 3, "batch_size": 2}
    history = trained(made("numpy"), images_and_labels(50), callbacks=[Progress()], **options).history
    last = f"epoch 3 of 3: loss {history.loss[-1]:.4f}, accuracy {history.train_accuracy[-1]:.4f}\n"
    assert capsys.readouterr().err == last
    monkeypatch.setattr(monitoring, "SECONDS_BETWEEN_LINES", 0)
    trained(made("numpy"), images_and_labels(50), callbacks=[Progress()], **options)
    assert [line[:12] for line in capsys.readouterr().err.splitlines()] == [f"epoch {n} of 3" for n in (1, 2, 3)]


def test_without_a_callback_nothing_is_shown(capsys):
    trained(made("numpy"), images_and_labels(50), batch_size=2)
    assert capsys.readouterr() == ("", "")


def test_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    trained(made("numpy"), images_and_labels(50), callbacks=[Progress()])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(ImportError, match=r'a progress bar needs tqdm: pip install "xpconv\[examples\]"'):
        Progress()


def test_no_images_were_trained_on():
    assert History().images_per_second == 0


X, T = images_and_labels(6)


@pytest.mark.parametrize(
    "samples, error, words",
    [
        ((X, T[:5]), ValueError, r"train has x of shape \(6, 1, 8, 8\) and t \(5,\)"),
        ((X[:0], T[:0]), ValueError, "at least one sample"),
        ((X, T + 10), ValueError, r"t of train goes from 1\d to 1\d; the network's scores are \(1, 10\)"),
        ((X, T - 10), ValueError, "t of train goes from -"),
        ((X, T.astype(float)), TypeError, "t of train has dtype float64; give labels as integers"),
        ((X, np.eye(9)[T % 9]), ValueError, r"t of train has shape \(6, 9\); give \(N,\) labels or \(6, 10\) rows"),
        ((X.tolist(), T), TypeError, "x of train is a list of no dtype; give a NumPy array of floats"),
        (((X * 255).astype(np.uint8), T), TypeError, "x of train is a ndarray of uint8; give a NumPy array of floats"),
        ((X[:, :, :5], T), ValueError, "x has shape"),
        ((X[:, 0], T), ValueError, "spatial axes"),
    ],
)
def test_samples_that_do_not_fit_are_refused_before_the_first_step(samples, error, words):
    network = made("numpy")
    before = dict(network.params)
    with pytest.raises(error, match=words):
        Trainer(network, xpconv.SGD(), samples, epochs=1)
    with pytest.raises(error, match=words.replace("train", "test", 1)):
        Trainer(network, xpconv.SGD(), (X, T), samples, epochs=1)
    assert all(network.params[name] is array for name, array in before.items())


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"epochs": 1.5}, TypeError, "epochs is 1.5"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"sample": 0}, ValueError, "sample is 0"),
        ({"rng": "seed"}, TypeError, "seed"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        trained(made("numpy"), (X, T), **options)


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        trained(xpconv.Network([xpconv.Relu()]), (X, T))
