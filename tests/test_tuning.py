"""Choices by measurement: the fastest is taken and kept, in the process and in files; by a clock that tests turn on."""

import dataclasses
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import reference as ref
from cases import normal

import xpconv
from xpconv.algorithms import Plan
from xpconv.selection import choices, tuning
from xpconv.selection.choices import Task, candidates
from xpconv.selection.model import ALGORITHMS, BY_KERNELS
from xpconv.testing import assert_close
from xpconv.windows import window

X, WEIGHT, BIAS, DY = normal(2, 3, 9, 8), normal(4, 3, 3, 3), normal(4), normal(2, 4, 9, 8)
WORKS = {"convolve", "input gradient", "weight gradient"}


class Timed:
    """An algorithm that takes so many seconds of the clock for all it computes."""

    def __init__(self, name, way, clock):
        self.name, self.way, self.clock = name, way, clock

    def __getattr__(self, attribute):  # `supports`, `prepare`, and what few algorithms have
        return getattr(self.way, attribute)

    def convolve(self, *given):
        return self.clock.spend(self.name, self.way.convolve(*given))

    def weight_gradient(self, *given):
        return self.clock.spend(self.name, self.way.weight_gradient(*given))


class Clock:
    def __init__(self):
        self.now, self.seconds, self.spoiled, self.done = 0.0, {}, {}, []

    def __call__(self):
        return self.now

    def spend(self, name, made):
        self.now += self.seconds.get(name, 1.0)
        self.done.append(name)
        return self.spoiled.get(name, lambda y: y)(made)


@pytest.fixture
def clock(monkeypatch):
    """The clock of this process, which goes on only as algorithms compute, and nothing kept."""
    clock = Clock()
    monkeypatch.setattr(tuning, "perf_counter", clock)
    monkeypatch.setattr("xpconv.selection.model.fused", lambda *_: None)
    monkeypatch.setattr("xpconv.selection.model.multiplies_small", lambda x: False)  # the model's is "direct"
    for ways in (ALGORITHMS, BY_KERNELS):
        for name, way in list(ways.items()):
            monkeypatch.setitem(ways, name, Timed(name, way, clock))
    xpconv.untune()
    yield clock
    xpconv.untune()


def computed(backend="numpy", dtype="float32", **options):
    """y and the gradients of the same convolution each time."""
    backend = xpconv.backend(backend) if isinstance(backend, str) else backend
    x, weight, bias, dy = (backend.asarray(a, dtype) for a in (X, WEIGHT, BIAS, DY))
    y, pullback = xpconv.vjp(xpconv.conv, x, weight, bias, pad=1, **options)
    return y, *pullback(dy)


def frozen():
    return xpconv.conv(X.astype(np.float32), xpconv.freeze(WEIGHT.astype(np.float32)), pad=1)


# --- What is taken


@pytest.mark.parametrize("fastest", ["direct", "winograd", "winograd2", "fft"])
def test_the_fastest_is_taken_and_kept(quick_backend, clock, fastest):
    clock.seconds[fastest] = 0.5
    with xpconv.tune() as kept:
        first = computed(quick_backend)
        assert list(kept.values()) == [fastest] * 3
    for results in (first, computed(quick_backend)):
        wanted = ref.conv(X, WEIGHT, BIAS, pad=1), *ref.conv_gradients(DY, X, WEIGHT, pad=1)
        for got, host in zip(results, wanted, strict=True):
            assert_close(got, host.astype(np.float32), like=quick_backend.asarray(X, "float32"))
    assert clock.done[-3:] == [fastest] * 3


def test_a_task_is_measured_once(clock):
    with xpconv.tune():
        computed()
        clock.done.clear()
        computed()
        assert clock.done == ["direct"] * 3
    with xpconv.tune():
        computed()
        assert clock.done == ["direct"] * 6
        xpconv.untune()
        computed()
        assert len(clock.done) > 9


def test_without_tuning_the_model_chooses(clock):
    clock.seconds["winograd"] = 0.1
    computed()
    with xpconv.tune():
        computed()
    clock.done.clear()
    xpconv.untune()
    computed()
    assert clock.done == ["direct"] * 3


def test_what_is_asked_for_by_name_is_neither_measured_nor_changed(clock):
    with xpconv.tune() as kept:
        computed(algorithm="winograd2")
        assert not kept
    assert set(clock.done) == {"winograd2"}


def test_weights_that_are_prepared_are_another_task(clock):
    clock.seconds["winograd"] = 0.5
    with xpconv.tune() as kept:
        frozen()
        assert [(task.work, name) for task, name in kept.items()] == [("convolve, weight prepared", "winograd")]
        clock.seconds["fft"] = 0.1
        computed()
        assert {name for task, name in kept.items() if task.work in WORKS} == {"fft"}
    clock.done.clear()
    frozen()
    assert clock.done == ["winograd"]


def test_every_phase_of_a_stride_is_a_task(clock):
    x, weight = X.astype(np.float32), WEIGHT.astype(np.float32)
    clock.seconds["fft"] = 0.5
    with xpconv.tune() as kept:
        y, pullback = xpconv.vjp(xpconv.conv, x, weight, stride=2)
        dx, dw = pullback(y)
    parts = {t.plan.window.kernel: name for t, name in kept.items() if (t.work, t.filters) == ("convolve", 3)}
    assert parts == {(2, 2): "fft", (2, 1): "fft", (1, 2): "fft"}  # what has one tap is left to the direct way
    wanted = ref.conv(X, WEIGHT, stride=2)
    assert_close(y, wanted.astype(np.float32))
    for got, host in zip((dx, dw), ref.conv_gradients(wanted, X, WEIGHT, stride=2), strict=False):
        assert_close(got, host.astype(np.float32))


def test_groups_are_taken_apart_where_that_is_faster(backend, clock):
    clock.seconds["depthwise"] = 0.5
    hosts = normal(2, 4, 7, 6), normal(6, 2, 3, 3), normal(2, 6, 5, 4)
    x, weight, dy = map(backend.asarray, hosts)
    with xpconv.tune() as kept:
        y, pullback = xpconv.vjp(xpconv.conv, x, weight, groups=2)
        gradients = pullback(dy)
    assert list(kept.values()) == ["depthwise"] * 3
    wanted = ref.conv(*hosts[:2], groups=2), *ref.conv_gradients(hosts[2], *hosts[:2], groups=2)[:2]
    for got, host in zip((y, *gradients), wanted, strict=True):
        assert_close(got, host, like=x)


def test_what_is_about_as_fast_does_not_take_the_place_of_the_models(clock):
    clock.seconds["winograd"] = 0.98
    with xpconv.tune() as kept:
        computed()
    assert set(kept.values()) == {"direct"}


@pytest.mark.parametrize("dtype", ["float64", "int64", "complex128"])
def test_accuracy_is_not_given_up(clock, dtype):
    clock.seconds |= dict.fromkeys(("winograd", "winograd2", "fft"), 0.1)
    x, weight = (10 * X).astype(dtype), (10 * WEIGHT).astype(dtype)
    with xpconv.tune() as kept:
        assert_close(xpconv.conv(x, weight), ref.conv(x, weight))
        assert not kept
    assert clock.done == ["direct"]


@pytest.mark.parametrize("spoil", [lambda y: y * 1.001, lambda y: y * np.float32(np.nan)], ids=["off", "no number"])
def test_what_is_not_right_is_not_taken(clock, spoil):
    clock.seconds["winograd"], clock.spoiled["winograd"] = 0.1, spoil
    with xpconv.tune() as kept:
        computed()
    assert set(kept.values()) == {"direct"}


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, ValueError])
def test_what_fails_is_not_taken(clock, error):
    def fail(y):
        raise error("no room")

    clock.seconds["fft"], clock.spoiled["fft"] = 0.1, fail
    with xpconv.tune() as kept:
        computed()
    assert set(kept.values()) == {"direct"}
    xpconv.untune()
    clock.spoiled["direct"] = fail
    with xpconv.tune() as kept, pytest.raises(error, match="no room"):  # as it would without measuring
        computed()
    assert not kept
    clock.spoiled.clear()
    computed()


def test_the_hopeless_are_not_tried_again(clock):
    clock.seconds |= {"direct": 0.01, "fft": 0.04}
    with xpconv.tune():
        frozen()
    assert [clock.done.count(name) for name in ("fft", "winograd", "direct")] == [3, 3, 4]


def test_measuring_ends(clock):
    """After three rounds if they take long, and after fifteen if they do not."""
    for seconds, rounds in ((1.0, 3), (1e-6, 15)):
        clock.seconds = dict.fromkeys(ALGORITHMS, seconds)
        clock.done.clear()
        with xpconv.tune():
            frozen()
        assert clock.done.count("fft") == 1 + 2 * rounds
        xpconv.untune()


def test_nothing_is_measured_of_no_images(clock):
    with xpconv.tune() as kept:
        assert xpconv.conv(np.zeros((0, 3, 9, 8), np.float32), WEIGHT.astype(np.float32)).shape == (0, 4, 7, 6)
        assert not kept


def test_nothing_is_measured_while_it_is_traced(clock):
    jax = pytest.importorskip("jax")
    x, weight = (jax.numpy.asarray(a, dtype="float32") for a in (X, WEIGHT))
    with xpconv.tune() as kept:
        y = jax.jit(lambda x, w: xpconv.conv(x, w, pad=1))(x, weight)
        assert not kept
    assert_close(y, ref.conv(X, WEIGHT, pad=1).astype(np.float32), like=x)


def task(kernel=3, axes=2, groups=1, channels=16, dtype="float32", library="numpy 2", precision="float32"):
    plan = Plan(window((12,) * axes, kernel), groups, precision=precision)
    return Task("convolve", library, "cpu", dtype, (1, *(12,) * axes, channels), 16, plan, 1)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, "direct winograd winograd2 fft"),
        (dict(axes=1), "direct winograd winograd2 fft"),
        (dict(axes=3), "direct winograd2 fft"),
        (dict(kernel=5), "direct fft"),
        (dict(kernel=1), "direct"),
        (dict(groups=16), "direct fft depthwise"),
        (dict(groups=2), "direct fft depthwise"),
        (dict(groups=2, channels=32), "direct fft"),
        (dict(groups=16, dtype="float64"), "direct depthwise"),
        (dict(library="cupy 14 and kernels and cuDNN"), "direct winograd winograd2 fft cudnn"),
        (dict(library="cupy 14 and kernels and cuDNN", dtype="bfloat16"), "direct implicit cudnn"),
        (dict(library="cupy 14 and kernels", precision="tf32"), "direct implicit"),
        (dict(library="cupy 14 and kernels", precision="tf32", dtype="float64"), "direct"),
        (dict(precision="tf32"), "direct winograd winograd2 fft"),
        (dict(library="cupy 14 and kernels and cuDNN", dtype="float64"), "direct"),
    ],
    ids=str,
)
def test_who_is_tried(given, names):
    assert set(candidates(task(**given))) == set(names.split())


# --- Files


def test_choices_go_into_a_file_and_come_back(clock, tmp_path):
    file = tmp_path / "choices.json"
    clock.seconds["winograd"] = 0.5
    with xpconv.tune(file) as kept:
        first = computed()
        assert set(kept.values()) == {"winograd"}
    before = file.read_bytes()
    xpconv.untune()
    clock.seconds = {"direct": 0.5}
    with xpconv.tune(os.fspath(file)):
        pass
    clock.done.clear()
    again = computed()
    assert clock.done == ["winograd"] * 3
    for a, b in zip(first, again, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    with xpconv.tune(file):
        computed()
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["choices.json"]


def test_what_is_new_is_added_to_a_file(clock, tmp_path):
    file = tmp_path / "choices.json"
    with xpconv.tune(file):
        frozen()
    xpconv.untune()
    with xpconv.tune(file) as kept:
        assert len(kept) == 1
        computed()
    xpconv.untune()
    with xpconv.tune(file) as kept:
        assert len(kept) == 4


def test_a_file_is_written_when_its_block_fails(clock, tmp_path):
    with pytest.raises(KeyboardInterrupt), xpconv.tune(tmp_path / "choices.json"):
        frozen()
        raise KeyboardInterrupt
    assert len(choices.read(tmp_path / "choices.json")) == 1


def test_the_choices_of_another_machine_stay_and_are_not_taken(clock, monkeypatch, tmp_path):
    file = tmp_path / "choices.json"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(choices, "machine", lambda: "another")
        with xpconv.tune(file):
            frozen()
    theirs = file.read_bytes()
    xpconv.untune()
    with xpconv.tune(file) as kept:
        assert not kept
    assert file.read_bytes() == theirs


def test_two_machines_share_a_file(clock, monkeypatch, tmp_path):
    file = tmp_path / "choices.json"
    names = ["one", "another"]
    for name in names:
        monkeypatch.setattr(choices, "machine", lambda name=name: name)
        xpconv.untune()
        with xpconv.tune(file) as kept:
            assert not kept
            frozen()
    assert list(json.loads(file.read_text())[choices.HEAD]) == names


def test_a_machine_is_what_times_depend_on(monkeypatch):
    assert f"xpconv {xpconv.__version__}, NumPy {np.__version__}, " in choices.machine()
    monkeypatch.setattr(choices.pathlib.Path, "read_text", lambda *_: "processor: 0\nmodel name\t: Abacus 9\n")
    assert choices.machine().endswith(", Abacus 9")
    monkeypatch.setattr(choices.pathlib.Path, "read_text", lambda *_: (_ for _ in ()).throw(OSError))
    monkeypatch.setattr(choices.platform, "processor", lambda: "Beads")
    monkeypatch.setattr(choices, "openblas", lambda: None)
    assert choices.machine().endswith(", another BLAS than OpenBLAS, Beads")


def damaged(change):
    """A file's text after a change to its one choice."""

    def text(good):
        read = json.loads(good)
        change(read[choices.HEAD][choices.machine()][0])
        return json.dumps(read)

    return text


DAMAGES = {
    "nothing": lambda good: "",
    "half of it": lambda good: good[: len(good) // 2],
    "no JSON": lambda good: "Dear diary,",
    "a list": lambda good: "[1, 2]",
    "other JSON": lambda good: '{"weights": {}}',
    "no machines": lambda good: json.dumps({choices.HEAD: [1]}),
    "not text": lambda good: b"\xff\xfe\x00",
    "no algorithm": damaged(lambda choice: choice.pop("algorithm")),
    "an unknown algorithm": damaged(lambda choice: choice.update(algorithm="magic")),
    "an algorithm that is not able": damaged(lambda choice: choice.update(algorithm="depthwise")),
    "an algorithm that is not exact": damaged(lambda choice: choice.update(algorithm="fft", dtype="float64")),
    "something more": damaged(lambda choice: choice.update(speed=3)),
    "no window": damaged(lambda choice: choice["plan"].update(window=None)),
    "no list of lengths": damaged(lambda choice: choice.update(shape=7)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_no_file_of_choices_is_refused_and_left(clock, tmp_path, damage):
    file = tmp_path / "choices.json"
    with xpconv.tune(file):
        frozen()
    bad = damage(file.read_text())
    file.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
    before = file.read_bytes()
    xpconv.untune()
    clock.done.clear()
    message = r"choices\.json is no file of choices, or damaged \(.+\); name another"
    with pytest.raises(ValueError, match=message), xpconv.tune(file):
        frozen()
    assert not clock.done
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["choices.json"]


def test_a_file_that_cannot_be_is_refused_at_once(clock, tmp_path):
    nowhere = tmp_path / "nowhere" / "choices.json"
    with pytest.raises(FileNotFoundError, match=r"there is no directory for .*nowhere"), xpconv.tune(nowhere):
        frozen()
    with pytest.raises(TypeError), xpconv.tune(3):
        frozen()
    assert not clock.done


def test_a_write_that_fails_leaves_the_file_as_it_was(clock, monkeypatch, tmp_path):
    file = tmp_path / "choices.json"
    with xpconv.tune(file):
        frozen()
    before = file.read_bytes()
    monkeypatch.setattr("xpconv.durability._to_disk", lambda path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"), xpconv.tune(file) as kept:
        computed()
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["choices.json"]
    assert len(kept) == 4  # in the process nothing is lost


TUNED = """
import hashlib, sys
import numpy as np
import xpconv
rng = np.random.default_rng(0)
x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((2, 8, 12, 12), (8, 8, 3, 3)))
with xpconv.tune(sys.argv[1]) as kept:
    before = len(kept)
    y, pullback = xpconv.vjp(xpconv.conv, x, weight, pad=1)
    arrays = y, *pullback(y)
print(before, len(kept), *(hashlib.sha256(np.ascontiguousarray(a)).hexdigest() for a in arrays))
"""


def test_processes_with_one_file_give_identical_bits(tmp_path):
    command = [sys.executable, "-c", TUNED, os.fspath(tmp_path / "choices.json")]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in "ab")
    assert (first[:2], second[:2]) == (["0", "3"], ["3", "3"])
    assert first[2:] == second[2:]


# --- Several at once


def test_blocks_may_be_nested(clock, tmp_path):
    with xpconv.tune() as kept:
        with xpconv.tune(tmp_path / "choices.json"):
            frozen()
        computed()
        assert len(kept) == 4
    assert len(choices.read(tmp_path / "choices.json")) == 1
    xpconv.conv(X.astype(np.float32), WEIGHT.astype(np.float32))  # of another size, once no block is open
    assert len(kept) == 4


def test_threads_measure_a_task_once_and_one_at_a_time(clock):
    start, results = threading.Barrier(4), []
    clock.seconds["winograd2"] = 0.5

    def work():
        start.wait()
        with xpconv.tune():
            results.append(frozen())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.done.count("direct") == 1 + 2 * 3
    assert clock.done.count("winograd2") == 1 + 2 * 3 + 4
    wanted = ref.conv(X, WEIGHT, pad=1).astype(np.float32)
    for y in results:
        assert_close(y, wanted)
    assert tuning._open == 0


FORKED = """
import os, threading
import numpy as np
import xpconv
from xpconv.selection import tuning
held = threading.Event()
def hold():
    with tuning._lock:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    with xpconv.tune() as kept:
        xpconv.conv(np.ones((1, 2, 6, 6), np.float32), np.ones((2, 2, 3, 3), np.float32))
    os._exit(len(kept))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_what_its_parent_measures():
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=60)
    assert run.stdout.strip() == "1", run.stderr


def test_tasks_differ_by_all_that_they_say():
    one = task()
    assert one == task() and hash(one) == hash(task())
    for field in dataclasses.fields(Task):
        assert dataclasses.replace(one, **{field.name: "else"}) != one
