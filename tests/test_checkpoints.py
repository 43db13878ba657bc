"""Checkpoints: what goes in comes out, on every backend, and whatever happens to the files, the disk or the process."""

import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cases import integers, normal
from test_callbacks import Counter, StopAfter, another_network, made, on_host, without_seconds

import xpconv
from xpconv.data import digits
from xpconv.networks.weights import load_weights
from xpconv.testing import assert_close
from xpconv.training import Callback, EarlyStopping, LossScaler, LossScaling, StopAtNaN, Trainer, WeightAverage
from xpconv.training.checkpoints import MANIFEST, Checkpoints, DamagedCheckpointError, load_checkpoint, save_checkpoint
from xpconv.training.states import split

pytest.importorskip("safetensors")
ROOT = pathlib.Path(__file__).parents[1]
HELD_OUT = normal(4, 1, 6, 6), integers(10, 4)
FILES = ["manifest.json", "state.json", "state.safetensors", "weights.safetensors"]


def names(directory):
    return sorted(os.listdir(directory))


# There and back


@pytest.mark.parametrize("steps", [1, 3, 5, 9])
def test_a_resumed_training_goes_on_as_if_it_had_never_stopped(backend, tmp_path, steps):
    whole = made(backend, callbacks=[Counter()])
    whole.train()
    made(backend, callbacks=[Counter(), StopAfter(steps), Checkpoints(tmp_path, every=1)]).train()
    saved = Checkpoints(tmp_path)
    resumed = made(backend, callbacks=[Counter(), saved])
    assert saved.resume(resumed) == tmp_path / f"{(steps - 1) // 3:04}-{(steps - 1) % 3 + 1:06}"
    assert resumed.steps_done == steps
    resumed.train()
    np.testing.assert_equal(without_seconds(resumed.state), without_seconds(whole.state))


@pytest.mark.parametrize("optimizer", [xpconv.SGD, xpconv.Momentum, xpconv.AdaGrad, xpconv.AdamW])
def test_a_resumed_training_in_float16_has_what_it_keeps_in_float32(backend, tmp_path, optimizer):
    if not hasattr(backend.xp, "float16"):
        pytest.skip(f"{backend.name} has no float16")

    def trainer(*others):
        callbacks = [LossScaling(LossScaler(8.0)), Counter(), WeightAverage(0.9), EarlyStopping(HELD_OUT, 2), *others]
        return made(backend, dtype="float16", optimizer=optimizer(1e-4), callbacks=callbacks)

    whole, first, second = trainer(), trainer(StopAfter(4)), trainer()
    whole.train()
    first.train()
    save_checkpoint(tmp_path / "here", first)
    load_checkpoint(tmp_path / "here", second)
    second.train()
    np.testing.assert_equal(without_seconds(second.state), without_seconds(whole.state))
    for name, array in whole.network.state.items():
        assert_close(second.network.state[name], xpconv.to_numpy(array), like=array, rtol=0)
    masters = [f"{name} in float32" for name in whole.network.params]
    for name, array in ((name, whole.optimizer.state[name]) for name in masters):
        assert_close(second.optimizer.state[name], xpconv.to_numpy(array), like=array, rtol=0)
    for ours, theirs in zip(second.callbacks[1:3], whole.callbacks[1:3], strict=True):
        for one, other in zip(split(ours.state)[1].values(), split(theirs.state)[1].values(), strict=True):
            assert_close(one, other, rtol=0)


def test_a_checkpoint_moves_to_another_backend(backend, tmp_path):
    first = made("numpy", callbacks=[StopAfter(4)])
    first.train()
    save_checkpoint(tmp_path / "here", first)
    second = made(backend, seed=1)
    load_checkpoint(tmp_path / "here", second)
    for name, array in second.network.state.items():
        like = backend.asarray(np.zeros(1, np.float32))
        assert_close(array, first.network.state[name], like=like, rtol=0)
    for name, (t, m, v) in second.optimizer.state.items():
        wanted = first.optimizer.state[name]
        assert t == wanted[0]
        assert_close(m, wanted[1], like=like, rtol=0)
        assert_close(v, wanted[2], like=like, rtol=0)
    first.callbacks.clear()
    np.testing.assert_allclose(second.train().loss, first.train().loss, rtol=1e-3)


def test_arrays_come_back_in_their_order_in_memory(tmp_path):
    first, second = made(), made(seed=1)
    laid = np.ascontiguousarray(first.network.params["W1"].transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    first.network.params["W1"] = laid
    save_checkpoint(tmp_path / "here", first)
    load_checkpoint(tmp_path / "here", second)
    assert_close(second.network.params["W1"], laid, rtol=0)
    assert second.network.params["W1"].transpose(2, 3, 1, 0).flags.c_contiguous


@pytest.mark.parametrize("bits", [np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_any_generator(tmp_path, bits):
    first, second = (made(rng=np.random.Generator(bits(seed)), epochs=1) for seed in (1, 2))
    save_checkpoint(tmp_path / "here", first)
    load_checkpoint(tmp_path / "here", second)
    second.seen = first.seen
    first.train()
    second.train()
    np.testing.assert_equal(without_seconds(second.state), without_seconds(first.state))


def test_the_weights_of_a_checkpoint_are_a_file_of_weights(tmp_path):
    first, second = made(), made(seed=1)
    save_checkpoint(tmp_path / "here", first)
    second.network.load(tmp_path / "here" / "weights.safetensors")
    np.testing.assert_equal(on_host(dict(second.network.state)), on_host(dict(first.network.state)))


@pytest.mark.parametrize("leaf, words", [({1: 2}, "has the key 1"), ({"a/b": 2}, "'a/b'"), ([{1}], "/0 is a set")])
def test_a_state_that_cannot_be_kept_is_refused(tmp_path, leaf, words):
    class Odd(Callback):
        state = {"odd": leaf}  # noqa: RUF012

    with pytest.raises(TypeError, match=words):
        save_checkpoint(tmp_path / "here", made(callbacks=[Odd()]))
    assert names(tmp_path) == []


# When, and how many


@pytest.mark.parametrize(
    "options, wanted",
    [
        ({}, ["0001-000000", "0002-000000", "0003-000000"]),
        ({"keep": 1}, ["0003-000000"]),
        ({"every": 2, "keep": 9}, ["0000-000002", "0001-000001", "0002-000000", "0002-000002", "0003-000000"]),
        ({"every": 100}, ["0003-000000"]),
    ],
)
def test_the_last_few_are_kept(tmp_path, options, wanted):
    made(callbacks=[Checkpoints(tmp_path / "new" / "place", **options)]).train()
    assert names(tmp_path / "new" / "place") == wanted
    assert names(tmp_path / "new" / "place" / wanted[-1]) == FILES


def test_a_directory_in_use_is_refused(tmp_path):
    made(callbacks=[Checkpoints(tmp_path)]).train()
    trainer = made(callbacks=[Checkpoints(tmp_path)])
    with pytest.raises(ValueError, match="has checkpoints; resume from them, or give another directory"):
        trainer.train()
    assert trainer.steps_done == 0


def test_checkpoints_go_last(tmp_path):
    with pytest.raises(ValueError, match="not the last of the callbacks"):
        made(callbacks=[Checkpoints(tmp_path), Counter()]).train()


@pytest.mark.parametrize(
    "options, error", [({"every": 0}, ValueError), ({"keep": 0}, ValueError), ({"keep": 1.5}, TypeError)]
)
def test_bad_options(tmp_path, options, error):
    with pytest.raises(error, match=next(iter(options))):
        Checkpoints(tmp_path, **options)


def test_nothing_to_resume_from(tmp_path):
    assert Checkpoints(tmp_path / "nowhere").resume(made()) is None


# Damage


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two checkpoints."""
    directory = tmp_path_factory.mktemp("trained")
    made(callbacks=[Checkpoints(directory, keep=2)]).train()
    return directory


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copied")


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def flip(file):
    content = bytearray(file.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty, flip, pathlib.Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_passed_over(copied, name, damage):
    newest, before = copied / "0003-000000", copied / "0002-000000"
    damage(newest / name)
    trainer = made(seed=1)
    untouched = on_host(trainer.state)
    with pytest.raises(DamagedCheckpointError, match=rf"0003-000000/{name} is damaged: .*found|manifest"):
        load_checkpoint(newest, trainer)
    np.testing.assert_equal(on_host(trainer.state), untouched)
    saved = Checkpoints(copied, keep=1)
    trainer.callbacks = [saved]
    with pytest.warns(UserWarning, match=rf"{name} is damaged: .*going on from the one before"):
        assert saved.resume(trainer) == before
    assert trainer.steps_done == 6
    trainer.train()
    assert names(copied) == ["0003-000000"]
    load_checkpoint(newest, made())


def test_a_flipped_byte_of_the_manifest_is_seen_wherever_it_is(copied):
    file = copied / "0003-000000" / MANIFEST
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(DamagedCheckpointError):
            load_checkpoint(file.parent, made())


def test_all_damaged(copied):
    for path in copied.iterdir():
        truncate(path / "state.json")
    with pytest.warns(UserWarning), pytest.raises(DamagedCheckpointError, match=r"every checkpoint in .* is damaged"):
        Checkpoints(copied).resume(made())


# Another one


def rewritten(file, **changes):
    """Change a manifest as another version of the library would have written it."""
    from xpconv.training.checkpoints import _digest

    content = json.loads(file.read_bytes()) | changes
    content.pop("sha256")
    file.write_text(json.dumps({**content, "sha256": _digest(content)}))


def test_another_version_of_the_format(copied):
    rewritten(copied / "0003-000000" / MANIFEST, format=2)
    with pytest.raises(ValueError, match="has format 2; this version of the library reads format 1"):
        Checkpoints(copied).resume(made())


@pytest.mark.parametrize(
    "other, words",
    [
        (another_network, "0003-000000 is of another network: Network there, SimpleConvNet here"),
        (lambda: made(optimizer=xpconv.SGD()), "is of another optimizer: Adam there, SGD here"),
        (lambda: made(batch_size=5), "0003-000000: batch_size was 4 and is 5 now"),
        (lambda: made(callbacks=[Counter()]), "0003-000000: the callbacks with a state were"),
    ],
)
def test_what_does_not_fit_is_an_error_and_no_damage(trained, other, words):
    trainer = other()
    before = on_host(trainer.state)
    with pytest.raises(ValueError, match=words):
        Checkpoints(trained).resume(trainer)
    np.testing.assert_equal(on_host(trainer.state), before)


def test_other_layers_and_shapes(trained):
    trainer = made()
    trainer.network.layers["Relu1"] = xpconv.Gelu()
    with pytest.raises(ValueError, match="of another layers"):
        load_checkpoint(trained / "0003-000000", trainer)
    trainer = made(shape=(5, 1, 3, 3))
    with pytest.raises(
        ValueError, match=r"(?s)0003-000000: the weights do not fit.*\(4, 1, 3, 3\) given, \(5, 1, 3, 3\)"
    ):
        load_checkpoint(trained / "0003-000000", trainer)


# A full disk


@pytest.mark.parametrize("call", range(9))  # two for each file, one for the directory
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, call):
    calls, fsync = [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    made(epochs=1, callbacks=[Checkpoints(tmp_path)]).train()
    trainer = made(callbacks=[Checkpoints(tmp_path)])
    trainer.callbacks[-1].resume(trainer)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        trainer.train()
    monkeypatch.undo()
    assert names(tmp_path) == ["0001-000000"]
    load_checkpoint(tmp_path / "0001-000000", made())


def test_a_full_file_system(tmp_path):
    """The same on a file system that is really full; mounting one is not allowed everywhere."""
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_callbacks import made; from xpconv.training.checkpoints import Checkpoints, load_checkpoint\n"
        "import os, pathlib; place = pathlib.Path(sys.argv[1])\n"
        "(place / 'ballast').write_bytes(bytes(140 * 1024))\n"
        "try: made(epochs=50, callbacks=[Checkpoints(place / 'c', keep=50)]).train()\n"
        "except OSError as error: print(error.errno, *sorted(os.listdir(place / 'c')))\n"
        "for path in (place / 'c').iterdir(): load_checkpoint(path, made(epochs=50))\n"
    )
    script = 'mount -t tmpfs -o size=256k none "$1" && exec "$2" -c "$3" "$1" "$4" "$5"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    arguments = [str(tmp_path), sys.executable, program, str(ROOT), str(ROOT / "tests")]
    try:
        done = subprocess.run(command + arguments, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    number, *found = done.stdout.split()
    assert int(number) == errno.ENOSPC
    assert found
    assert not [name for name in found if name.startswith(".")]


def test_what_a_kill_has_left_is_cleared(tmp_path):
    (tmp_path / ".0001-000000.12345678.tmp").mkdir()
    (tmp_path / ".0001-000000.12345678.tmp" / "state.json").write_text("{")
    made(epochs=1, callbacks=[Checkpoints(tmp_path)]).train()
    assert names(tmp_path) == ["0001-000000"]


# Signals


class Send(Callback):
    """Sends the process signals in the midst of a step, or at the end of an epoch."""

    def __init__(self, step, *numbers):
        self.step, self.numbers = step, numbers

    def on_gradients(self, trainer, grads):
        if trainer.steps_done == self.step:
            for number in self.numbers:
                signal.raise_signal(number)
        return grads

    def on_epoch(self, trainer):
        self.on_gradients(trainer, {})


@pytest.mark.parametrize("step, name", [(0, "0000-000001"), (2, "0000-000003"), (4, "0001-000002"), (9, "0003-000000")])
@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_lets_the_step_finish_and_saves(tmp_path, number, error, step, name):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    whole, trainer = made(), made(callbacks=[Send(step, number), Checkpoints(tmp_path)])
    whole.train()
    with pytest.raises(error) as raised:
        trainer.train()
    if error is SystemExit:
        assert raised.value.code == 143
    assert names(tmp_path)[-1] == name
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    resumed = made()
    Checkpoints(tmp_path).resume(resumed)
    resumed.train()
    np.testing.assert_equal(without_seconds(resumed.state), without_seconds(whole.state))


def test_a_second_signal_acts_at_once(tmp_path, request):
    # A shell without job control starts what runs in its background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    trainer = made(callbacks=[Send(4, signal.SIGINT, signal.SIGINT), Checkpoints(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.steps_done == 4
    assert names(tmp_path) == ["0001-000000"]


# NaN


class NoNumber(xpconv.Relu):
    """A layer whose gradient is wrong at some step; it has no other fault."""

    def __init__(self, step):
        super().__init__()
        self.step, self.passed = step, 0

    def backward(self, dout, input_gradient=True):
        self.passed += 1
        return super().backward(dout, input_gradient) * (1.0 if self.passed < self.step else float("nan"))


def poisoned_parameter(trainer):
    trainer.network.params["W2"] = trainer.network.params["W2"] * float("nan")


def poisoned_batch(trainer):
    trainer.source.x = trainer.source.x * float("nan")


def poisoned_gradient(trainer):
    trainer.network.layers["Relu1"] = NoNumber(1)


def infinite_weights(trainer):
    trainer.network.params["W2"] = trainer.network.params["W2"] * 3e38


@pytest.mark.filterwarnings("ignore:.*(overflow|invalid value):RuntimeWarning")
@pytest.mark.parametrize(
    "poison, words",
    [
        (poisoned_parameter, "step 5: the first NaN in the parameter W2"),
        (poisoned_batch, "step 5: the first NaN in the batch"),
        (poisoned_gradient, "step 5: the first NaN in the gradient that Relu1 passes on"),
        (infinite_weights, "step 5: the first inf in the parameter W2, the first NaN in the output of Affine1"),
    ],
)
def test_a_nan_ends_the_training_before_it_gets_into_the_weights(backend, tmp_path, poison, words):
    class Poison(Callback):
        def on_step(self, trainer):
            if trainer.steps_done == 4:
                poison(trainer)
                self.before = dict(trainer.network.state)

    poisoning = Poison()
    trainer = made(backend, callbacks=[poisoning, StopAtNaN(), Checkpoints(tmp_path)])
    with pytest.raises(FloatingPointError, match=words):
        trainer.train()
    assert trainer.steps_done == 4
    assert all(trainer.network.params[name] is poisoning.before[name] for name in trainer.network.params)
    assert names(tmp_path) == ["0001-000000"]
    load_checkpoint(tmp_path / "0001-000000", made(backend))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_large_and_finite_gradients_are_let_through():
    trainer = made(callbacks=[])
    trainer.step(trainer.source.x, trainer.source.t)
    large = {"b2": np.full(10, 3e38, np.float32)}
    assert StopAtNaN().on_gradients(trainer, large) is large


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer = made(callbacks=[Checkpoints(tmp_path)])
    trainer.network.params["b1"] = trainer.network.params["b1"] * np.float32("nan")
    with pytest.raises(FloatingPointError, match=r"W1, b1, .* not finite after step 3: not saved"):
        trainer.train()
    assert names(tmp_path) == []


# Kills


def command(*arguments):
    """Start the example as a program."""
    program = [sys.executable, "-u", str(ROOT / "examples" / "train_cnn.py"), "--quiet", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


KILLS = int(os.environ.get("XPCONV_KILLS", "3"))


def test_kills_at_any_moment_change_nothing(tmp_path):
    """Whatever moment a SIGKILL comes at: the run resumes, and its weights end as those of a run that had none."""
    pytest.importorskip("sklearn")
    run = ["--network", "deep", "--batch-size", 100, "--epochs", max(2, KILLS // 2)]
    whole = command(*run, "--save", tmp_path / "whole.safetensors")
    whole.stdout.readline()
    start = time.perf_counter()
    assert whole.wait() == 0, whole.stderr.read()
    window = (time.perf_counter() - start) / (2 * max(KILLS, 4))  # a run may take half the time of another
    moment, killed, directory = random.Random(0), 0, tmp_path / "kept"
    run += ["--checkpoint", directory, "--checkpoint-every", 2, "--resume", "--save", tmp_path / "killed.safetensors"]
    train, _ = digits()
    example = Trainer(xpconv.DeepConvNet((1, 8, 8)), xpconv.Adam(), train, epochs=1, batch_size=100)
    while killed < KILLS:
        process, before = command(*run), Checkpoints(directory).found
        if killed % 3 != 2:  # a third of them in the start, the others some time after a checkpoint
            process.stdout.readline()
            while Checkpoints(directory).found == before and process.poll() is None:
                time.sleep(0.01)
        time.sleep(moment.uniform(0, window))
        process.kill()
        output, error = process.communicate()
        assert error == ""
        assert process.returncode == -signal.SIGKILL, f"the run was over before {KILLS} kills: {output}"
        killed += 1
        for path in Checkpoints(directory).found:
            load_checkpoint(path, example)
    last = command(*run)
    output, error = last.communicate()
    assert (last.returncode, error) == (0, "")
    assert "going on from" in output
    print(f"{killed} kills, the last run: {output}")
    ended, wanted = (load_weights(tmp_path / f"{name}.safetensors") for name in ("killed", "whole"))
    np.testing.assert_equal(ended, wanted)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_the_exit_status(tmp_path, number, status):
    pytest.importorskip("sklearn")
    process = command("--epochs", 1000, "--checkpoint", tmp_path)
    process.stdout.readline()
    while not Checkpoints(tmp_path).found:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate()
    assert (process.returncode, error) == (status, "")
    found = Checkpoints(tmp_path).found
    assert [path.name for path in found] == names(tmp_path)
    assert json.loads((found[-1] / MANIFEST).read_bytes())["format"] == 1
