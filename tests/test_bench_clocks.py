"""The benchmark's clocks, on a device that writes down what it is asked: nothing here asserts a time."""

import itertools
import statistics

import pytest

from xpconv.bench import clocks
from xpconv.bench.clocks import OnDevice, OnHost, Queued


class Device:
    """Writes down spins, events and waits as they come; its calls take 1, 2, 3 ... seconds."""

    def __init__(self, late=()):
        self.log, self.late = [], list(late)
        self.pairs = itertools.count(1)

    def event(self):
        return Event(self)

    def spin(self, seconds):
        self.log.append(("spin", seconds))

    def happened(self, event):
        assert event.name == "start"
        return bool(self.late) and self.late.pop(0)

    def between(self, start, stop):
        assert (start.name, stop.name) == ("start", "stop")
        assert self.log[-1] == "wait for stop"
        return float(next(self.pairs))

    def synchronize(self):
        self.log.append("synchronize")


class Event:
    """Called by when it was recorded: before the call or after."""

    def __init__(self, device):
        self.device = device

    def record(self):
        self.name = "stop" if self.device.log[-1] == "call" else "start"
        self.device.log.append(self.name)

    def synchronize(self):
        self.device.log.append(f"wait for {self.name}")


@pytest.fixture
def hosts(monkeypatch):
    """Let calls take the host so many seconds."""

    def say(*seconds):
        given = iter(seconds)
        monkeypatch.setattr(clocks, "took", lambda *calls: [call() for call in calls] and next(given))
        monkeypatch.setattr(clocks, "_count", lambda block, seconds: 3)

    return say


def test_the_device_spins_before_the_events_longer_than_the_host_needs(hosts):
    hosts(1e-4, 2e-4, 1e-4, 4e-4)
    device = Device()
    found = OnDevice(device).turn(lambda: device.log.append("call"))
    turns = device.log[device.log.index("call") + 2 :]
    assert device.log[: -len(turns)] == ["synchronize", "call", "synchronize"]
    timed = ["start", "call", "stop", "wait for stop"]
    assert [step for step in turns if step[0] != "spin"] == 3 * timed
    assert [step[0] for step in turns[::5]] == 3 * ["spin"]
    spins = [step[1] for step in turns[::5]]
    assert all(spin >= 2 * before for spin, before in zip(spins, (1e-4, 2e-4, 1e-4), strict=True))
    assert found == (2, pytest.approx(1.5e-4), 0)


def test_what_the_host_was_too_late_for_is_left_out_where_there_is_something_else(hosts):
    for late, wanted in (((), 2), ((True, True), 3), ((False, True), 2), ((True, True, True), 2)):
        hosts(*4 * [1e-3])
        device = Device(late)
        assert OnDevice(device).turn(lambda device=device: device.log.append("call")).seconds == wanted


def test_who_waits_within_a_call_does_not_spin_for_ever(hosts):
    hosts(*4 * [60.0])
    device = Device()
    OnDevice(device).turn(lambda: device.log.append("call"))
    assert {step[1] for step in device.log if step[0] == "spin"} == {clocks.LONGEST}


def test_steps_are_queued_and_waited_for_together(hosts):
    hosts(1e-3)
    device = Device()
    found = Queued(device).turn(lambda: device.log.append("call"))
    first, rest = device.log[:3], device.log[3:]
    assert first == ["synchronize", "call", "synchronize"]
    assert rest == 30 * ["call"] + ["synchronize"]
    assert 0 < found.host <= found.seconds


def test_only_the_host_is_in_need_of_silence():
    assert OnDevice.silence == Queued.silence == 0 < OnHost.silence


def test_a_turn_on_the_host_is_the_median_of_its_calls(monkeypatch):
    given = iter([0.02, 0.3, 0.1, 0.2])
    monkeypatch.setattr(clocks, "took", lambda call: next(given))
    found = OnHost().turn(lambda: ())
    assert found.seconds == statistics.median([0.3, 0.1, 0.2])
    assert found.host is None
    assert found.waited >= 0


@pytest.mark.parametrize(("seconds", "count"), [(1.0, 3), (0.01, 5), (0.0, 15)])
def test_there_are_as_many_calls_as_fit(seconds, count):
    assert clocks._count(0.05, seconds) == count
