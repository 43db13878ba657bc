"""What takes part in a training, and a training's state: set on another trainer, it goes on as if nothing had been."""

import copy

import numpy as np
import pytest
from cases import integers, normal

import xpconv
from xpconv.data import InMemory, Source
from xpconv.testing import assert_close
from xpconv.training import Callback, Trainer, cosine


def made(backend="numpy", seed=0, epochs=3, shape=(4, 1, 3, 3), dtype="float32", **options):
    """A small network with dropout and running means, which shares its generator with the order of the samples."""
    rng = np.random.default_rng(seed)
    backend = backend if isinstance(backend, xpconv.Backend) else xpconv.backend(backend)
    channels = shape[0]
    shapes = shape, (channels,), (16 * channels, 10), (10,)
    arrays = [backend.asarray(rng.standard_normal(each), dtype) for each in shapes]
    scales = backend.asarray(np.ones(channels), dtype), backend.asarray(np.zeros(channels), dtype)
    network = xpconv.Network(
        [
            xpconv.Convolution(*arrays[:2]),
            xpconv.BatchNormalization(*scales),
            xpconv.Relu(),
            xpconv.Dropout(0.5, rng),
            xpconv.Affine(*arrays[2:]),
        ]
    )
    samples = normal(10, 1, 6, 6), integers(10, 10)
    options = {"batch_size": 4, "rng": rng, "schedule": cosine, **options}
    return Trainer(network, options.pop("optimizer", xpconv.Adam()), samples, epochs=epochs, **options)


class Counter(Callback):
    """Has a state: how many steps it has seen, and the sum of a parameter after each."""

    def __init__(self):
        self.seen, self.total = 0, None

    def on_step(self, trainer):
        bias = trainer.network.params["b1"]
        self.seen, self.total = self.seen + 1, bias if self.total is None else self.total + bias

    @property
    def state(self):
        return {"seen": self.seen, "total": self.total}

    @state.setter
    def state(self, state):
        self.seen, self.total = state["seen"], state["total"]


class StopAfter(Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_step(self, trainer):
        if trainer.steps_done == self.steps:
            trainer.stop()


def on_host(tree):
    """A state as a checkpoint keeps it: apart from the trainer, its arrays NumPy's."""
    if isinstance(tree, dict):
        return {name: on_host(branch) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return [on_host(branch) for branch in tree]
    return xpconv.to_numpy(tree) if hasattr(tree, "dtype") else copy.deepcopy(tree)


def without_seconds(state):
    state = on_host(state)
    del state["history"]["seconds"]
    return state


@pytest.mark.parametrize("steps", range(10))
def test_a_state_set_elsewhere_goes_on_as_if_nothing_had_been(backend, steps):
    whole = made(backend, callbacks=[Counter()])
    whole.train()
    first = made(backend, callbacks=[Counter(), StopAfter(steps)])
    if steps:
        first.train()
    second = made(backend, seed=1, callbacks=[Counter()])
    second.seen = first.seen  # drawn from another seed, to see that all else is taken from the state
    second.state = on_host(first.state)
    assert second.steps_done == steps
    second.train()
    np.testing.assert_equal(without_seconds(second.state), without_seconds(whole.state))
    for name, array in second.network.state.items():
        assert_close(array, xpconv.to_numpy(whole.network.state[name]), like=whole.network.state[name], rtol=0)
    assert_close(second.callbacks[0].total, xpconv.to_numpy(whole.callbacks[0].total), like=array, rtol=0)


def test_a_training_that_was_stopped_goes_on_in_its_epoch():
    whole, parted = made(), made(callbacks=[StopAfter(4)])
    whole.train()
    assert len(parted.train().loss) == parted.steps_done == 4
    assert len(parted.history.train_accuracy) == parted.epochs_done == parted.steps_of_epoch == 1
    assert parted.history.images == 14
    parted.train()
    np.testing.assert_equal(without_seconds(parted.state), without_seconds(whole.state))
    assert parted.train() is parted.history  # nothing is left
    assert parted.steps_done == parted.steps == 9


def another_network():
    samples = normal(10, 1, 8, 8), integers(10, 10)
    return Trainer(xpconv.SimpleConvNet((1, 8, 8)), xpconv.SGD(), samples, epochs=1, batch_size=4)


@pytest.mark.parametrize(
    "other, words",
    [
        (lambda: made(batch_size=5), "batch_size was 4 and is 5 now"),
        (lambda: made(callbacks=[Counter()]), r"callbacks with a state were \[\] and are \['Counter'\] now"),
        (another_network, r"shape of 'W1': \(4, 1, 3, 3\) given, \(30, 1, 5, 5\) wanted"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(other, words):
    given, trainer = made(), other()
    given.train()
    before = on_host(trainer.state)
    with pytest.raises(ValueError, match=words):
        trainer.state = on_host(given.state)
    np.testing.assert_equal(on_host(trainer.state), before)


def test_a_callback_without_a_state_takes_none():
    assert Callback().state == {}
    with pytest.raises(TypeError, match="Callback has no state to set"):
        Callback().state = {"seen": 1}


class Recording(Callback):
    def __init__(self, name, events, fail=""):
        self.name, self.events, self.fail = name, events, fail

    def say(self, event):
        self.events.append(f"{self.name} {event}")
        if event == self.fail:
            raise RuntimeError(event)

    def on_start(self, trainer):
        self.say("start")

    def on_gradients(self, trainer, grads):
        assert trainer.batch[0].shape[0] == trainer.batch[1].shape[0]
        self.say("gradients")
        return grads

    def on_step(self, trainer):
        self.say("step")

    def on_epoch(self, trainer):
        self.say("epoch")

    def on_end(self, trainer):
        self.say("end")


def test_callbacks_act_in_turn_and_end_in_reverse():
    events = []
    made(epochs=1, batch_size=5, callbacks=[Recording(name, events) for name in "ab"]).train()
    step = ["a gradients", "b gradients", "a step", "b step"]
    assert events == ["a start", "b start", *step, *step, "a epoch", "b epoch", "b end", "a end"]


@pytest.mark.parametrize("fail, ended", [("start", []), ("gradients", ["b end"]), ("step", ["b end"])])
def test_what_has_started_ends_after_a_failure(fail, ended):
    events, trainer = [], made(callbacks=[])
    trainer.callbacks = [Recording("a", events), Recording("b", events, fail)]
    before = dict(trainer.network.params)
    with pytest.raises(RuntimeError, match=fail):
        trainer.train()
    assert events[-1 - len(ended) :] == [*ended, "a end"]
    unchanged = all(trainer.network.params[name] is array for name, array in before.items())
    assert unchanged == (fail != "step")


def test_gradients_are_changed_in_turn_before_the_optimizer_sees_them(backend):
    class Times(Callback):
        def __init__(self, factor):
            self.factor = factor

        def on_gradients(self, trainer, grads):
            return {name: self.factor * g for name, g in grads.items()}

    class Plus(Times):
        def on_gradients(self, trainer, grads):
            return {name: self.factor + g for name, g in grads.items()}

    plain, changed = (made(backend, optimizer=xpconv.SGD(0.5), callbacks=c) for c in ([], [Plus(1.0), Times(2.0)]))
    before = xpconv.to_numpy(plain.network.params["b2"])
    for trainer in (plain, changed):
        trainer.step(trainer.source.x, trainer.source.t)
    gradient = 2 * (before - xpconv.to_numpy(plain.network.params["b2"]))
    wanted = before - 0.5 * (1 + gradient) * 2
    assert_close(changed.network.params["b2"], wanted, like=plain.network.params["b2"], rtol=1e-5)


def test_a_source_of_ones_own(backend):
    class Twice:
        """One batch, twice an epoch."""

        def __init__(self, x, t):
            self.batch, self.state = (x, t), {}

        def __len__(self):
            return 2

        def epoch(self, done=0):
            return iter([self.batch] * (2 - done))

        def sample(self, count):
            return tuple(array[:count, ...] for array in self.batch)

    usual = made(backend)
    source = Twice(usual.source.x, usual.source.t)
    assert isinstance(source, Source)
    assert isinstance(usual.source, Source)
    trainer = Trainer(usual.network, xpconv.SGD(), source, epochs=3, sample=5)
    history = trainer.train()
    assert trainer.source is source
    assert trainer.steps == len(history.loss) == 6
    assert history.images == 60
    assert trainer.seen[0].shape[0] == 5


def test_an_epoch_is_given_again_whatever_else_was_drawn():
    rng = np.random.default_rng(0)
    x, t = np.arange(10.0), np.arange(10)
    source = InMemory(x, t, 3, rng)
    first = list(source.epoch())
    np.testing.assert_array_equal(np.sort(np.concatenate([t for _, t in first])), t)
    rng.random(7)
    now = copy.deepcopy(rng.bit_generator.state)
    for done in range(1, 5):
        again = list(source.epoch(done))
        np.testing.assert_equal(again, first[done:])
    assert rng.bit_generator.state == now
    assert not np.array_equal(next(source.epoch())[1], first[0][1])
