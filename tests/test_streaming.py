"""Sources that read while training goes on: the same training as in memory, from wherever it is resumed."""

import threading
from functools import partial

import numpy as np
import pytest
from cases import integers, normal

import xpconv
from xpconv.data import Augmented, Indexed, InMemory, Iterated, MappedArray, shift
from xpconv.testing import assert_close
from xpconv.training import Callback, Trainer

X, T = normal(23, 1, 8, 8), integers(10, 23)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if "prefetch" in thread.name]


def made(backend="numpy", dtype="float64"):
    conv = {"filter_size": 3, "pad": 1}
    return xpconv.SimpleConvNet((1, 8, 8), conv, weight_init_std="he", backend=backend, dtype=dtype, rng=0)


def trained(network, source, epochs=3, **options):
    trainer = Trainer(network, xpconv.Adam(0.01), source, epochs=epochs, **options)
    trainer.train()
    return trainer


def mapped(folder):
    np.save(folder / "x.npy", X)
    np.save(folder / "t.npy", T.astype(np.uint8))
    return MappedArray(folder / "x.npy"), MappedArray(folder / "t.npy")


def chunks():
    for start in range(0, 23, 5):
        yield X[start : start + 5], T[start : start + 5]


@pytest.mark.parametrize("where", ["memory", "files"])
def test_training_is_that_of_samples_in_memory(backend, where, tmp_path):
    usual = trained(made(backend), (X, T), batch_size=5, rng=3)
    network = made(backend)
    source = Indexed(network, *((X, T) if where == "memory" else mapped(tmp_path)), batch_size=5, rng=3)
    found = trained(network, source)
    assert found.history.loss == usual.history.loss
    assert found.history.train_accuracy == usual.history.train_accuracy
    assert found.steps == len(found.history.loss) == 15
    assert found.history.images == 3 * 23


@pytest.mark.parametrize(
    "form", [lambda: list(chunks()), lambda: chunks, lambda: [(x.tolist(), t.tolist()) for x, t in chunks()]]
)
def test_batches_of_an_iterable_come_as_they_are(backend, form):
    network = made(backend)
    source = Iterated(network, form(), 5)
    like = next(iter(network.params.values()))
    for _ in range(2):
        for (x, t), (host_x, host_t) in zip(source.epoch(), chunks(), strict=True):
            assert_close(x, host_x, like=like, rtol=0)
            assert_close(t, host_t, like=like)
    assert [x.shape[0] for x, _ in Iterated(network, form(), 2).epoch()] == [5, 5]
    assert trained(network, source, epochs=2).history.images == 46


def test_an_iterable_that_knows_its_length():
    assert len(Iterated(made(), list(chunks()))) == 5


@pytest.mark.parametrize("kind", ["Indexed", "Iterated"])
def test_bytes_become_brightness(backend, kind):
    network = made(backend, "float32")
    x = np.random.default_rng(0).integers(256, size=X.shape, dtype=np.uint8)
    source = Indexed(network, x, T, 23, rng=0) if kind == "Indexed" else Iterated(network, [(x, T)])
    order = np.arange(23)
    if kind == "Indexed":
        np.random.default_rng(0).shuffle(order)
    ((found, t),) = source.epoch()
    assert_close(found, np.divide(x[order], 255, dtype=np.float32), like=next(iter(network.params.values())))
    assert_close(t, T[order], like=found)


def test_rows_are_targets_too(backend):
    network = made(backend, "float32")
    rows = np.eye(10)[T]
    for source in (Indexed(network, X, rows, 23), Iterated(network, [(X, rows)])):
        ((x, t),) = source.epoch()
        assert str(t.dtype) == str(x.dtype) == str(network.params["W1"].dtype)
        np.testing.assert_array_equal(np.sort(xpconv.to_numpy(t), axis=0), np.sort(rows, axis=0))


def sources(kind, network, folder):
    return {
        "memory": lambda: InMemory(X, T, 5, rng=3),
        "files": lambda: Indexed(network, *mapped(folder), batch_size=5, rng=3),
        "iterable": lambda: Iterated(network, chunks, 5),
        "augmented": lambda: Augmented(Indexed(network, X, T, 5, rng=3), partial(shift, most=2), rng=4),
    }[kind]()


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, trainer):
        if trainer.steps_done == self.step:
            trainer.stop()


@pytest.mark.parametrize("kind", ["memory", "files", "iterable", "augmented"])
@pytest.mark.parametrize("step", [1, 4, 5, 12])
def test_a_resumed_training_goes_on_as_if_it_had_never_stopped(kind, step, tmp_path):
    network = made()
    whole = trained(network, sources(kind, network, tmp_path))
    network = made()
    stopped = trained(network, sources(kind, network, tmp_path), callbacks=[StopAt(step)])
    assert len(stopped.history.loss) == step
    network = made()
    resumed = Trainer(network, xpconv.Adam(0.01), sources(kind, network, tmp_path), epochs=3)
    resumed.state = stopped.state
    assert resumed.train().loss == whole.history.loss
    for name, array in whole.network.params.items():
        np.testing.assert_array_equal(network.params[name], array)


def test_an_epoch_can_be_given_again_from_its_midst(tmp_path):
    source = sources("augmented", made(), tmp_path)
    for _ in range(2):
        first = [(x, t) for x, t in source.epoch()]
        again = [(x, t) for x, t in source.epoch(2)]
        assert len(first) == 5 and len(again) == 3
        for (x, t), (x_again, t_again) in zip(first[2:], again, strict=True):
            np.testing.assert_array_equal(x, x_again)
            np.testing.assert_array_equal(t, t_again)


@pytest.mark.parametrize("kind", ["memory", "files", "iterable", "augmented"])
def test_the_state_of_other_data_is_refused(kind, tmp_path):
    source = sources(kind, made(), tmp_path)
    before = source.state
    other = Augmented(InMemory(X, T, 6), shift) if kind == "augmented" else InMemory(X, T, 6)
    if kind == "iterable":
        other = Iterated(made(), chunks, 4)
    with pytest.raises(ValueError, match=r"(batch_size was 6 and is 5|steps was 4 and is 5) now; give what it was"):
        source.state = other.state
    assert source.state == before


# Augmented


def test_augmented_images_come_in_training_and_not_to_tell_the_accuracy_on():
    seen = []

    def augment(x, *, rng=None):
        seen.append((x, rng))
        return x if rng is None else x + rng.random()

    source = Augmented(InMemory(X, T, 10, rng=0), augment, rng=1)
    assert len(source) == 3
    plain = InMemory(X, T, 10, rng=0)
    np.testing.assert_array_equal(source.sample(7)[0], plain.sample(7)[0])
    assert seen[0][1] is None
    added = []
    for _ in range(2):
        for (x, t), (x_plain, t_plain) in zip(source.epoch(), plain.epoch(), strict=True):
            np.testing.assert_array_equal(t, t_plain)
            (more,) = set(np.round(x - x_plain, 9).ravel())
            added.append(more)
    assert len(set(added)) == 6


def test_only_a_source_is_augmented():
    with pytest.raises(TypeError, match="source is a tuple; give an InMemory, Indexed or other Source"):
        Augmented((X, T), shift)


# What does not fit


@pytest.mark.parametrize(
    "x, t, error, words",
    [
        (X, T[:5], ValueError, r"the data has x of shape \(23, 1, 8, 8\) and t \(5,\)"),
        (X[:0], T[:0], ValueError, "at least one sample"),
        (X, T + 10, ValueError, r"t of the data goes from 1\d to 1\d; the network's scores are \(1, 10\)"),
        (X, T.astype(float), TypeError, "t of the data has dtype float64; give labels as integers"),
        (X, np.eye(9)[T % 9], ValueError, r"t of the data has shape \(23, 9\)"),
        (X.astype(np.int16), T, TypeError, "x is a ndarray of int16; give an array of floats or uint8"),
        (X, T.astype(str), TypeError, "t is a ndarray of <U21; give an array of numbers"),
        (X.tolist(), T, TypeError, "x is a list of no dtype; give an array of floats or uint8"),
        (X[:, :, :5], T, ValueError, "x has shape"),
    ],
)
def test_samples_that_do_not_fit(x, t, error, words):
    with pytest.raises(error, match=words):
        Indexed(made(), x, t)


def test_a_batch_size_that_does_not_fit():
    with pytest.raises(ValueError, match="batch_size is 0"):
        Indexed(made(), X, T, 0)


@pytest.mark.parametrize(
    "batches, steps, error, words",
    [
        (chunks(), 5, TypeError, "batches is a generator; give what every epoch can go through anew"),
        (3, 5, TypeError, "batches is a int; give what"),
        (chunks, None, TypeError, "batches is a function, which has no length; give steps"),
        (chunks, 0, ValueError, "steps is 0"),
        ([], None, ValueError, "steps is 0"),
        ([], 3, ValueError, "batches ended after 0 of 3"),
        ([X], None, TypeError, r"batch 0 is a ndarray; give \(x, t\), arrays on the host"),
        ([3], None, TypeError, "batch 0 is a int"),
        ([(X, T.astype(str))], None, TypeError, "t of batch 0 is a ndarray of <U21"),
        ([(X, T[:4])], None, ValueError, "batch 0 has x of shape"),
        ([(X, T + 10)], None, ValueError, "t of batch 0 goes from"),
    ],
)
def test_iterables_that_do_not_fit(batches, steps, error, words):
    with pytest.raises(error, match=words):
        Iterated(made(), batches, steps)


@pytest.mark.parametrize(
    "second, error, words",
    [
        ((X[:, :, :4], T), ValueError, r"x of batch 1 is float64 of shape \(23, 1, 4, 8\), that of batch 0 float64"),
        ((X.astype(np.float32), T), ValueError, "x of batch 1 is float32"),
        ((X, np.eye(10)[T]), ValueError, "t of batch 1 is float64"),
        ((X, T[:4]), ValueError, "x of batch 1 is .* a label each"),
        ((X[:0], T[:0]), ValueError, "x of batch 1 is"),
        ((X, T + 10), ValueError, "t of batch 1 goes from"),
        ("ab", TypeError, "x of batch 1 is a ndarray of <U1; give an array of floats or uint8"),
        (None, ValueError, "batches ended after 1 of 2; give as many every epoch"),
    ],
)
def test_a_later_batch_that_does_not_fit_ends_the_training(second, error, words):
    network = made()
    trainer = Trainer(network, xpconv.SGD(), Iterated(network, [(X, T), second][: 2 - (second is None)], 2), epochs=1)
    with pytest.raises(error, match=words):
        trainer.train()
    assert len(trainer.history.loss) == 1  # the batch before was trained on


def test_an_exception_in_training_leaves_no_thread():
    class Fail(Callback):
        def on_step(self, trainer):
            raise ZeroDivisionError

    network = made()
    with pytest.raises(ZeroDivisionError):
        trained(network, Indexed(network, X, T, 1), callbacks=[Fail()])
    assert not [thread for thread in threading.enumerate() if "prefetch" in thread.name]
