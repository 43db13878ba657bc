"""Arrays stay on their device, and none is ever made on another: operators, networks, optimizers."""

import contextlib
import types

import numpy as np
import pytest
from cases import CASES, normal

import xpconv
from xpconv import operators
from xpconv.arrays import libraries
from xpconv.arrays.libraries import on_device, strictest
from xpconv.optimizers import rules
from xpconv.testing import assert_close

strict = pytest.importorskip("array_api_strict")
HOME, OTHER = strict.Device("CPU_DEVICE"), strict.Device("device1")


@pytest.fixture
def strays(monkeypatch):
    """Where arrays are made that are not on device1."""
    made, new = [], strict._array_object.Array.__dict__["_new"].__func__

    def recording(cls, x, /, device):
        if device != OTHER:
            made.append(np.shape(x))
        return new(cls, x, device)

    place = xpconv.backend("array-api-strict:device1")
    with strictest(place):
        yield types.SimpleNamespace(
            made=made,
            place=place,
            watch=lambda: monkeypatch.setattr(strict._array_object.Array, "_new", classmethod(recording)),
        )


def test_an_array_on_the_default_device_is_seen(strays):
    strays.watch()
    strict.ones(3, device=OTHER)
    assert strays.made == []
    strict.ones(3)
    assert strays.made == [(3,)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operators_make_arrays_on_their_device_alone(strays, case):
    arrays = case.on(strays.place)
    dy = strays.place.asarray(normal(1, 1))
    strays.watch()
    y, pullback = xpconv.vjp(case.op, *arrays, **case.options)
    y = y[0] if isinstance(y, tuple) else y
    gradients = pullback(strays.place.xp.ones_like(y))
    assert {y.device, dy.device, *(g.device for g in gradients if g is not None)} == {OTHER}
    assert strays.made == []


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam"])
def test_networks_and_optimizers_make_arrays_on_their_device_alone(strays, name):
    network = xpconv.SimpleConvNet((1, 8, 8), hidden_size=5, rng=0, backend=strays.place)
    x, t = strays.place.asarray(normal(4, 1, 8, 8), "float32"), strays.place.asarray(np.arange(4))
    optimizer = getattr(xpconv, name)()
    strays.watch()
    for _ in range(2):
        optimizer.update(network.params, network.gradient(x, t))
    assert {parameter.device for parameter in network.params.values()} == {OTHER}
    assert network.predict(x).device == OTHER
    assert strays.made == []


# --- CuPy's current device


class Place(contextlib.nullcontext):
    """A device that knows whether it is entered."""

    entered = 0

    def __enter__(self):
        self.entered += 1

    def __exit__(self, *_):
        self.entered -= 1


def test_cupys_device_is_entered_and_no_other_librarys(monkeypatch):
    gpu = types.SimpleNamespace(device=Place())
    assert isinstance(on_device(np.ones(1), None), contextlib.nullcontext)
    monkeypatch.setattr(libraries.array_api_compat, "is_cupy_array", lambda array: array is gpu)
    assert on_device(None, np.ones(1), gpu) is gpu.device
    assert on_device(np.ones(1)) is not gpu.device


def test_operators_and_pullbacks_run_on_the_entered_device(monkeypatch):
    place, seen = Place(), []
    monkeypatch.setattr(operators, "on_device", lambda *arrays: place)

    @xpconv.operator
    def double(x: libraries.Array):
        seen.append(place.entered)

        def gradient():
            seen.append(place.entered)
            return 2 * dy_given[0]

        dy_given = []

        def pullback(dy):
            dy_given.append(dy)
            seen.append(place.entered)
            return (gradient,)

        return 2 * x, pullback

    y, pullback = xpconv.vjp(double, np.ones(2))
    assert_close(pullback(y)[0], np.full(2, 4.0))
    assert_close(double(np.ones(2)), np.full(2, 2.0))
    assert seen == [1, 1, 1, 1]
    with pytest.raises(TypeError):
        xpconv.vjp(xpconv.relu, [1.0])
    assert place.entered == 0


def test_optimizers_step_on_the_entered_device(monkeypatch):
    place, seen = Place(), []
    monkeypatch.setattr(rules, "on_device", lambda array: place)

    class Watching(xpconv.SGD):
        def step(self, name, p, g, lr):
            seen.append(place.entered)
            return super().step(name, p, g, lr)

    params = {"W": np.ones(2)}
    Watching(1.0).update(params, {"W": np.ones(2)})
    assert_close(params["W"], np.zeros(2))
    assert (seen, place.entered) == ([1], 0)
