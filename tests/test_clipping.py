"""Clipping against its formula in float64, on every backend, and at the ends of the range of numbers."""

import numpy as np
import pytest
from cases import normal
from test_callbacks import made

import xpconv
from xpconv.testing import assert_close
from xpconv.training import ClipNorm, ClipValue, clip_norm, clip_value


def gradients(backend, dtype="float32", scale=1.0):
    return {"W": backend.asarray(scale * normal(3, 4), dtype), "b": backend.asarray(scale * normal(5, seed=1), dtype)}


def length(grads):
    return np.sqrt(sum((xpconv.to_numpy(g).astype(float) ** 2).sum() for g in grads.values()))


@pytest.mark.parametrize("largest", [0.01, 1, 100])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_norm_of_all(backend, largest, dtype):
    grads = gradients(backend, dtype)
    factor = min(1, largest / length(grads))
    for name, g in clip_norm(grads, largest).items():
        assert_close(g, (factor * xpconv.to_numpy(grads[name]).astype(float)).astype(dtype), like=grads[name])
        assert g is not grads[name]


def test_no_square_overflows(backend):
    for scale in (1e30, 1e-30):
        grads = gradients(backend, scale=scale)
        assert length(clip_norm(grads, 0.5 * scale)) == pytest.approx(0.5 * scale, rel=1e-5)
    halves = {"W": np.full(100, 300, np.float16)}
    clipped = clip_norm(halves, 1)["W"]
    assert_close(clipped, np.full(100, 0.1, np.float16), like=halves["W"])


@pytest.mark.filterwarnings("ignore:invalid value")
def test_zeros_stay_and_nan_spreads(backend):
    zeros = {"W": backend.asarray(np.zeros((2, 3), np.float32))}
    assert_close(clip_norm(zeros, 1)["W"], np.zeros((2, 3), np.float32), like=zeros["W"])
    for bad in (np.nan, np.inf):
        grads = gradients(backend) | {"b": backend.asarray(np.asarray([1, bad, 2], np.float32))}
        assert all(np.isnan(xpconv.to_numpy(g)).all() for g in clip_norm(grads, 1).values())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values(backend, dtype):
    grads = gradients(backend, dtype)
    for name, g in clip_value(grads, 0.5).items():
        wanted = np.minimum(np.maximum(xpconv.to_numpy(grads[name]), -0.5), 0.5)
        assert_close(g, wanted.astype(dtype), like=grads[name], rtol=0)


@pytest.mark.parametrize("clip, check", [(ClipNorm, length), (ClipValue, lambda g: abs(g["W1"]).max())])
def test_a_step_is_taken_with_what_was_clipped(clip, check):
    trainer = made(optimizer=xpconv.SGD(1.0), callbacks=[clip(0.001)])
    before = dict(trainer.network.params)
    trainer.step(trainer.source.x, trainer.source.t)
    taken = {name: before[name] - array for name, array in trainer.network.params.items()}
    assert check(taken) == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("clip", [clip_norm, clip_value])
def test_what_does_not_fit(clip):
    grads = gradients(xpconv.backend("numpy"))
    for largest, error in ((0, ValueError), (-1, ValueError), (np.inf, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="largest is"):
            clip(grads, largest)
    with pytest.raises(TypeError, match="W has dtype int64"):
        clip({"W": np.arange(3)}, 1)
    with pytest.raises(TypeError, match="W is a list"):
        clip({"W": [1.0]}, 1)
