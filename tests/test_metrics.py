"""Metrics in files: what they say, what is left of them after a kill, and what a resumed training makes of them."""

import json
import math
import struct
import sys

import pytest
from test_callbacks import StopAfter, made, on_host

from xpconv.training import Callback, JsonLines, TensorBoard, cosine, metrics


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def check(found, trainer):
    steps = [numbers for numbers in found if "epoch" not in numbers]
    epochs = [numbers for numbers in found if "epoch" in numbers]
    assert [numbers["step"] for numbers in steps] == list(range(1, 10))
    assert [numbers["loss"] for numbers in steps] == trainer.history.loss
    assert [(numbers["epoch"], numbers["step"]) for numbers in epochs] == [(1, 3), (2, 6), (3, 9)]
    assert [numbers["train_accuracy"] for numbers in epochs] == trainer.history.train_accuracy
    return steps


def test_a_line_for_each_step_and_epoch(backend, tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("of an earlier training\n")
    trainer = made(backend, callbacks=[JsonLines(file)])
    trainer.train()
    steps = check(lines(file), trainer)
    assert [numbers["lr"] for numbers in steps] == [0.001 * cosine(step, 9) for step in range(9)]
    assert list(tmp_path.iterdir()) == [file]


def test_lines_are_there_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "STEPS_BETWEEN_LOOKS", 2)
    counts = []

    class Count(Callback):
        def on_step(self, trainer):
            counts.append(len(lines(tmp_path / "metrics.jsonl")))

    made(epochs=1, callbacks=[JsonLines(tmp_path / "metrics.jsonl"), Count()]).train()
    assert counts == [0, 2, 2]


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_a_resumed_training_writes_each_step_once(tmp_path, steps):
    file = tmp_path / "metrics.jsonl"
    first = made(callbacks=[JsonLines(file), StopAfter(steps)])
    first.train()
    written = file.read_text()
    for lost in ("", f'{{"step": {steps + 1}, "loss": 9}}\n{{"step": 9, "epoch": 3}}\n{{"st'):
        file.write_text(written + lost)
        second = made(callbacks=[JsonLines(file)])
        second.state = on_host(first.state)
        second.train()
        check(lines(file), second)
    file.unlink()  # what was lost is written again, as far as it is known
    second = made(callbacks=[JsonLines(file)])
    second.state = on_host(first.state)
    second.train()
    assert [n["loss"] for n in lines(file) if "loss" in n] == second.history.loss


def test_what_is_no_number_is_null(tmp_path):
    writer = JsonLines(tmp_path / "metrics.jsonl")
    writer.open(made())
    writer.write(1, None, {"loss": math.nan, "lr": math.inf})
    writer.close()
    assert lines(writer.path) == [{"step": 1, "loss": None, "lr": None}]


def test_a_file_that_cannot_be_written():
    trainer = made(callbacks=[JsonLines("/nowhere/metrics.jsonl")])
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        trainer.train()
    assert trainer.steps_done == 0


def points(directory):
    """The points of all event files, read by the format: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(directory.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        content = file.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    trainer = made(callbacks=[TensorBoard(tmp_path / "events"), StopAfter(4)])
    trainer.train()
    second = made(callbacks=[TensorBoard(tmp_path / "events")])
    second.state = on_host(trainer.state)
    second.train()
    found = points(tmp_path / "events")
    losses = sorted((step, value) for tag, step, value in found if tag == "loss")
    assert [step for step, _ in losses] == list(range(1, 10))
    assert [value for _, value in losses] == pytest.approx(second.history.loss)
    assert sorted(step for tag, step, _ in found if tag == "train_accuracy") == [3, 6, 9]


def test_without_tensorboardx(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "xpconv\[tensorboard\]"'):
        TensorBoard("events")


def test_where_to_is_for_a_subclass_to_say():
    for act in (lambda m: m.open(made()), lambda m: m.write(1, None, {}), lambda m: m.close()):
        with pytest.raises(NotImplementedError):
            act(metrics.Metrics())
    assert issubclass(JsonLines, metrics.Metrics)
