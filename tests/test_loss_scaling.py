"""Loss scaling: the factor, the gradients, and a step that is left out."""

import numpy as np
import pytest
from cases import integers, normal
from test_callbacks import made

import xpconv
from xpconv.testing import assert_close
from xpconv.training import ClipNorm, LossScaler, LossScaling, Trainer, WeightAverage


def test_the_gradients_are_those_of_the_loss(backend):
    scaler = LossScaler(1024.0)
    hosts = {"W": normal(3, 4).astype("float32"), "b": normal(4).astype("float32")}
    grads = {name: backend.asarray(host * host.dtype.type(1024)) for name, host in hosts.items()}
    found = scaler.unscaled(grads)
    assert list(found) == ["W", "b"]
    for name, host in hosts.items():
        assert_close(found[name], host.astype("float32"), like=grads[name])


def test_small_gradients_are_kept_from_being_zero():
    x, w = np.full((1, 1, 4, 4), 2.0**-14, np.float16), np.ones((1, 1, 2, 2), np.float16)
    y, pullback = xpconv.vjp(xpconv.conv, x, w)
    small = 2.0**-16
    lost = pullback(np.full(y.shape, small, y.dtype))[1]
    assert_close(lost, np.zeros(w.shape, np.float16))
    scaler = LossScaler()
    dw = pullback(np.full(y.shape, small * scaler.scale, y.dtype))[1]
    assert_close(scaler.unscaled({"w": dw})["w"], np.full(w.shape, 9 * 2.0**-30, np.float32))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_step_that_is_not_finite_is_left_out_and_the_factor_falls(backend, bad):
    scaler, host = LossScaler(8.0, backoff=0.25, interval=2), np.ones(3, np.float32)
    good, wrong = backend.asarray(host), backend.asarray(host * np.float32(bad))
    assert scaler.unscaled({"W": good, "b": good}) is not None
    assert scaler.unscaled({"W": good, "b": wrong}) is None
    assert (scaler.scale, scaler.finite_steps) == (2.0, 0)
    assert scaler.unscaled({"W": wrong, "b": good}) is None
    assert scaler.scale == 0.5


def test_the_factor_grows_after_so_many_finite_steps_in_a_row():
    scaler, grads = LossScaler(4.0, growth=8.0, interval=3), {"W": np.ones(2, np.float32)}
    seen = []
    for _ in range(6):
        assert_close(scaler.unscaled(grads)["W"], np.full(2, 1 / (seen[-1] if seen else 4.0), np.float32))
        seen.append(scaler.scale)
    assert seen == [4.0, 4.0, 32.0, 32.0, 32.0, 256.0]


def test_without_gradients_nothing_changes():
    scaler = LossScaler(4.0, interval=1)
    assert scaler.unscaled({}) == {}
    for wrong in (None, [1.0], np.ones(2, int)):
        with pytest.raises(TypeError):
            scaler.unscaled({"W": wrong})
    assert (scaler.scale, scaler.finite_steps) == (4.0, 0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scale": 0}, ValueError, "scale is 0; give a number above 0"),
        ({"scale": "8"}, TypeError, "scale is '8' .str.; give a number"),
        ({"scale": True}, TypeError, "scale is True .bool.; give a number"),
        ({"growth": 1}, ValueError, "growth is 1; give a number above 1"),
        ({"backoff": 1.0}, ValueError, "backoff is 1.0; give a number above 0 and below 1"),
        ({"interval": 0}, ValueError, "interval is 0; give a whole number of at least 1"),
        ({"scale": float("nan")}, ValueError, "scale is nan"),
    ],
)
def test_what_is_out_of_range_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        LossScaler(**options)


# --- In a training


def test_a_scaled_loss_takes_the_same_steps(backend):
    plain, scaling = made(backend), LossScaling()
    scaled = made(backend, callbacks=[scaling])
    plain.train()
    scaled.train()
    for name, array in plain.network.state.items():
        assert_close(scaled.network.state[name], xpconv.to_numpy(array), like=array)
    assert scaled.network.last_layer.scale == 1
    assert scaled.history.loss == plain.history.loss
    assert scaling.state == {"scale": 2.0**15, "finite_steps": 9}


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_steps_that_overflow_are_left_out_until_the_factor_fits():
    x, t = normal(8, 1, 8, 8).astype("float16"), integers(10, 8)
    network = xpconv.SimpleConvNet((1, 8, 8), hidden_size=5, rng=0, dtype="float16", weight_init_std="he")
    before, scaling = {name: array.copy() for name, array in network.params.items()}, LossScaling(LossScaler(2.0**17))
    trainer = Trainer(
        network, xpconv.SGD(0.1), (x, t), epochs=1, batch_size=4, rng=0, callbacks=[scaling, ClipNorm(10.0)]
    )
    trainer.train()  # 2**17 is no float16, and neither is 2**16
    assert scaling.scaler.scale == 2.0**15
    for name, array in network.params.items():
        assert_close(array, before[name])
    trainer.epochs = 20
    losses = trainer.train().loss
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert scaling.scaler.finite_steps > 0


def test_a_training_in_float16_goes_the_way_of_one_in_float32(backend):
    """Its weights are what float16 holds of those that the other has, and so is their average."""
    if not hasattr(backend.xp, "float16"):
        pytest.skip(f"{backend.name} has no float16")
    runs = {}
    for dtype in ("float32", "float16"):
        callbacks = [LossScaling(LossScaler(8.0)), ClipNorm(100.0), WeightAverage(0.9)]
        optimizer = xpconv.Nesterov(1e-4, weight_decay=0.1)
        trainer = made(backend, dtype=dtype, optimizer=optimizer, callbacks=callbacks)
        for name, array in trainer.network.params.items():  # which both start from
            trainer.network.params[name] = backend.asarray(xpconv.to_numpy(array).astype("float16"), dtype)
        before = {name: xpconv.to_numpy(array) for name, array in trainer.network.params.items()}
        trainer.train()
        runs[dtype] = trainer
    wide, narrow = (runs[dtype].network.params for dtype in ("float32", "float16"))
    for name, start in before.items():
        moved = xpconv.to_numpy(wide[name]) - start
        master = runs["float16"].optimizer.master(name, narrow[name])
        assert_close(master - backend.asarray(start, "float32"), moved, like=wide[name], rtol=0.1)
        assert_close(narrow[name], xpconv.to_numpy(master).astype("float16"), like=narrow[name], rtol=0)
        averages = [trainer.callbacks[2].average[name] for trainer in runs.values()]
        moved = xpconv.to_numpy(averages[0]) - start
        assert_close(averages[1] - backend.asarray(start, "float32"), moved, like=wide[name], rtol=0.1)
    with runs["float16"].evaluating():
        held = xpconv.to_numpy(averages[1]).astype("float16")
        assert_close(narrow[name], held, like=backend.asarray(held), rtol=0)


def test_a_resumed_training_goes_on_with_its_factor():
    scaling = LossScaling(LossScaler(8.0, interval=2))
    first = made(callbacks=[scaling], epochs=1)
    first.train()
    again = LossScaling(LossScaler(8.0, interval=2))
    second = made(callbacks=[again])
    second.state = first.state
    assert again.state == scaling.state == {"scale": 16.0, "finite_steps": 1}
