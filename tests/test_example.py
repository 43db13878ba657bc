"""The example, run as a reader would run it."""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import xpconv
from xpconv.data import digits
from xpconv.training import Callback, Trainer

ROOT = pathlib.Path(__file__).parents[1]

pytest.importorskip("sklearn")


def run(*arguments):
    """Run the example as a program and return what it prints."""
    command = [sys.executable, str(ROOT / "examples" / "train_cnn.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the example here, which is quicker, and return what it prints, or the error with which it exits."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    main = importlib.import_module("train_cnn").main

    def called(*arguments, status=0):
        monkeypatch.setattr(sys, "argv", ["train_cnn.py", *map(str, arguments)])
        if status == 0:
            main()
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as raised:
            main()
        assert raised.value.code == status
        return capsys.readouterr().err

    return called


def accuracy(output):
    return float(re.search(r"images/s, test accuracy ([\d.]+)%", output).group(1)) / 100


def test_the_defaults_learn_the_digits():
    pytest.importorskip("tqdm")
    output = run()
    assert "simple network on numpy on cpu: 1497 images to train on, 300 to test" in output
    assert accuracy(output) >= 0.98


@pytest.mark.parametrize("flag", ["torch", "array-api-strict:device1"])
def test_another_backend_is_one_word(flag):
    try:
        backend = xpconv.backend(flag)
    except (ImportError, RuntimeError) as error:
        pytest.skip(str(error))
    output = run("--backend", flag, "--epochs", 1, "--quiet")
    assert f"simple network on {backend}: " in output
    assert accuracy(output) > 0.5


def test_float16_learns(call):
    assert accuracy(call("--dtype", "float16", "--epochs", 3, "--quiet")) > 0.9


@pytest.mark.parametrize("schedule", ["constant", "stairs", "one-cycle"])
def test_schedules_learn(call, schedule):
    options = ["--optimizer", "sgdw", "--lr", 0.05, "--weight-decay", 0.01, "--warmup", 0.1, "--epochs", 4]
    assert accuracy(call("--schedule", schedule, *options, "--quiet")) > 0.9


def test_the_same_seed_gives_the_same_weights(tmp_path, call):
    safetensors = pytest.importorskip("safetensors.numpy")
    weights = []
    for seed in (3, 3, 4):
        file = tmp_path / "weights.safetensors"
        call("--network", "deep", "--epochs", 1, "--batch-size", 500, "--seed", seed, "--quiet", "--save", file)
        weights.append(safetensors.load_file(file)["W8"])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_saved_weights_have_the_accuracy_that_was_printed(tmp_path, call):
    pytest.importorskip("safetensors")
    file = tmp_path / "weights.safetensors"
    output = call("--epochs", 2, "--quiet", "--save", file)
    network = xpconv.SimpleConvNet((1, 8, 8), {"filter_size": 3, "pad": 1})
    network.load(file)
    _, test = digits()
    assert network.accuracy(test.images, test.labels) == pytest.approx(accuracy(output), abs=1e-4)


def test_regularized_and_seen(call, tmp_path):
    pytest.importorskip("tensorboardX")
    file, events = tmp_path / "metrics.jsonl", tmp_path / "events"
    options = ["--clip", 1, "--ema", 0.9, "--early-stop", 1, "--metrics", file, "--tensorboard", events]
    output = call("--epochs", 30, "--batch-size", 100, *options)
    assert "1348 images to train on" in output
    assert accuracy(output) > 0.9
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0].keys() == {"step", "loss", "lr"}
    assert lines[-1].keys() == {"step", "epoch", "train_accuracy", "test_accuracy", "images_per_second"}
    assert lines[-1]["epoch"] < 30
    assert list(events.iterdir())


@pytest.mark.parametrize("augment", ["shift", "cutout"])
def test_augmented_images_teach_too(call, augment):
    assert accuracy(call("--augment", augment, "--epochs", 3, "--quiet")) > 0.8


@pytest.mark.parametrize("network, suffix, magic", [("simple", "png", b"\x89PNG"), ("deep", "pdf", b"%PDF")])
def test_plot(tmp_path, call, network, suffix, magic):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"plot.{suffix}"
    call("--network", network, "--epochs", 1, "--batch-size", 500, "--quiet", "--plot", file)
    assert file.read_bytes().startswith(magic)


def test_curves_are_drawn_again_while_it_trains(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(ROOT / "examples")
    plots, file = importlib.import_module("plots"), tmp_path / "plot.png"
    seen = []

    class Look(Callback):
        def on_epoch(self, trainer):
            seen.append(file.read_bytes())

    network = xpconv.SimpleConvNet((1, 8, 8), {"filter_size": 3, "pad": 1}, rng=0)
    train, _ = digits()
    few = train.images[:100], train.labels[:100]
    callbacks = [plots.Curves(file, seconds=0), Look()]
    Trainer(network, xpconv.Adam(), few, few, epochs=3, batch_size=50, callbacks=callbacks, rng=0).train()
    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--backend", "tensorflow"], "unknown backend 'tensorflow'; choose one of numpy, cupy, torch"),
        (["--backend", "numpy:3"], "no device '3'"),
        (["--data", "mnist", "--data-dir", "/nowhere"], "/nowhere has no train-images-idx3-ubyte"),
        (["--data-dir", "/nowhere"], "the digits come with scikit-learn"),
        (["--save", "/nowhere/w.safetensors"], "there is no directory /nowhere for /nowhere/w.safetensors"),
        (["--plot", "/nowhere/plot.png"], "there is no directory /nowhere"),
        (["--epochs", "0"], "epochs is 0"),
        (["--batch-size", "-1"], "batch_size is -1"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--clip", "0"], "largest is 0"),
        (["--ema", "1"], "decay is 1.0"),
        (["--early-stop", "0"], "patience is 0"),
        (["--metrics", "/nowhere/m.jsonl"], "there is no directory /nowhere"),
        (["--warmup", "1"], "share is 1.0; give a number of at least 0 and below 1"),
        (["--weight-decay", "-1"], "weight_decay is -1.0"),
        (["--seed", "-1"], "seed is -1"),
        (["--graphs"], "graphs is True, but the parameters are no arrays of CuPy's"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(call, arguments, words):
    error = call(*arguments, status=2)
    assert words in error
    assert error.startswith("train_cnn.py: ")
    assert error.count("\n") == 1


def test_without_a_gpu_cupy_says_why(call):
    try:
        xpconv.backend("cupy")
    except (ImportError, RuntimeError) as error:
        assert call("--backend", "cupy", status=2) == f"train_cnn.py: {error}\n"
    else:
        pytest.skip("there is a GPU")
