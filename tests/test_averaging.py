"""The moving average of weights, early stopping, and both through a state that is set on another trainer."""

import numpy as np
import pytest
from cases import integers, normal
from test_callbacks import StopAfter, made, on_host

import xpconv
from xpconv.testing import assert_close
from xpconv.training import Callback, EarlyStopping, WeightAverage

HELD_OUT = normal(4, 1, 6, 6), integers(10, 4)


class Weights(Callback):
    def __init__(self):
        self.steps, self.epochs = [], []

    def on_step(self, trainer):
        self.steps.append({name: xpconv.to_numpy(array) for name, array in trainer.network.state.items()})

    def on_epoch(self, trainer):
        self.epochs.append(self.steps[-1])


def test_the_average_is_a_weighted_mean(backend):
    average, seen = WeightAverage(0.7), Weights()
    trainer = made(backend, callbacks=[average, seen])
    trainer.train()
    shares = 0.7 ** np.arange(len(seen.steps))[::-1]
    own = dict(trainer.network.state)
    with trainer.evaluating():
        accuracy = trainer.network.accuracy(*trainer.seen)
        for name, array in trainer.network.state.items():
            wanted = np.average([step[name].astype(float) for step in seen.steps], axis=0, weights=shares)
            assert_close(array, wanted.astype(np.float32), like=own[name], rtol=1e-4, atol=1e-5)
            assert array is average.average[name]
    assert trainer.history.train_accuracy[-1] == accuracy
    assert all(trainer.network.state[name] is array for name, array in own.items())


def test_the_networks_own_weights_are_back_after_a_failure():
    trainer = made(callbacks=[WeightAverage()])
    trainer.train()
    own = dict(trainer.network.state)
    with pytest.raises(RuntimeError), trainer.evaluating():
        raise RuntimeError
    assert all(trainer.network.state[name] is array for name, array in own.items())


def scripted(accuracies, patience, epochs=10):
    """A trainer whose accuracy on what is held out is as told; that on what was seen comes between."""
    stopping, seen = EarlyStopping(HELD_OUT, patience), Weights()
    trainer = made(epochs=epochs, callbacks=[stopping, seen])
    told = iter([value for accuracy in accuracies for value in (0.0, accuracy)])
    trainer.network.accuracy = lambda *samples, **options: next(told)
    return trainer, stopping, seen


@pytest.mark.parametrize(
    "accuracies, patience, best",
    [([0.5, 0.7, 0.6, 0.7], 2, 1), ([0.5, 0.4], 1, 0), ([0.1, 0.2, 0.1, 0.3, 0.3, 0.3, 0.2], 3, 3)],
)
def test_stops_and_keeps_the_best(accuracies, patience, best):
    trainer, stopping, seen = scripted(accuracies, patience)
    trainer.train()
    assert trainer.epochs_done == len(accuracies)
    assert stopping.best == max(accuracies)
    with trainer.evaluating():
        for name, array in trainer.network.state.items():
            assert_close(array, seen.epochs[best][name], like=array, rtol=0)
    for name, array in trainer.network.state.items():
        assert_close(array, seen.epochs[-1][name], like=array, rtol=0)


def test_the_best_is_kept_where_the_epochs_run_out():
    trainer, _, seen = scripted([0.3, 0.9, 0.5], 5, epochs=3)
    trainer.train()
    with trainer.evaluating():
        assert_close(trainer.network.state["W1"], seen.epochs[1]["W1"], like=trainer.network.state["W1"], rtol=0)


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_a_resumed_training_remembers(backend, steps):
    def parts():
        return [WeightAverage(0.8), EarlyStopping(HELD_OUT, 2)]

    whole, second = made(backend, callbacks=parts()), made(backend, seed=1, callbacks=parts())
    first = made(backend, callbacks=[*parts(), StopAfter(steps)])
    whole.train()
    first.train()
    second.seen = first.seen
    second.state = on_host(first.state)
    second.train()
    for ours, theirs in zip(second.callbacks, whole.callbacks, strict=True):
        np.testing.assert_equal(on_host(ours.state), on_host(theirs.state))


def test_a_training_that_was_stopped_early_stays_so():
    trainer, _, _ = scripted([0.5, 0.4], 1)
    trainer.train()
    again = made(epochs=10, callbacks=[EarlyStopping(HELD_OUT, 1)])
    again.state = on_host(trainer.state)
    assert again.steps_done == len(again.train().loss) == trainer.steps_done


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="decay is 1; give a number of at least 0 and below 1"):
        WeightAverage(1)
    with pytest.raises(TypeError, match=r"patience is 1\.5"):
        EarlyStopping(HELD_OUT, 1.5)
    with pytest.raises(ValueError, match="held_out has x of shape"):
        made(callbacks=[EarlyStopping((HELD_OUT[0], HELD_OUT[1][:3]))]).train()
