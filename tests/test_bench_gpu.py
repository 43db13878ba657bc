"""The benchmark on a GPU, on stand-ins: that it times the right thing by the device's events, like against like."""

import importlib.metadata
import json
import sys

import cupy_on_host
import numpy as np
import pytest
import stand_ins
from test_bench import STEP, TINY, hasty, loops  # noqa: F401

from xpconv import cli
from xpconv.bench.contenders import BOTH, FORWARD
from xpconv.bench.gpu import Chainer, CuDnn, OnCupy
from xpconv.bench.results import ERRORS, load

pytestmark = pytest.mark.skipif(cupy_on_host.COMPILER is None, reason="there is no C++ compiler here")


@pytest.fixture
def gpu(monkeypatch):
    """CuPy, and a PyTorch with cuDNN."""
    torch = stand_ins.torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")
    cupy_on_host.install(monkeypatch)
    return torch


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("kind", ["xpconv", "PyTorch", "Chainer"])
@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_every_contender_computes_the_same(gpu, kind, precision, case):
    contender = {
        "xpconv": OnCupy(backend="cupy", precision=precision),
        "PyTorch": CuDnn(precision),
        "Chainer": Chainer(precision),
    }
    contender = contender[kind]
    for layout in contender.layouts(case):
        calls = contender.make(case, layout)
        for direction in (FORWARD, BOTH):
            outputs = calls[direction]()
            found = [a.get() if hasattr(a, "get") else np.asarray(a) for a in outputs]
            for actual, wanted in zip(found, loops(case), strict=direction == BOTH):
                assert actual.shape == wanted.shape
                assert np.max(np.abs(actual - wanted)) <= ERRORS[precision] * np.max(np.abs(wanted))
            assert contender.timed(calls[direction]) > 0
    if kind == "PyTorch":
        assert gpu.backends.cudnn.benchmark
        assert gpu.backends.cudnn.allow_tf32 == gpu.backends.cuda.matmul.allow_tf32 == (precision == "tf32")


def test_products_are_in_the_precision_of_the_run(gpu):
    for precision, kind in (("float32", ("float32", 68)), ("tf32", ("float32", 77)), ("float16", ("float16", 68))):
        cupy_on_host.cupy.reset()
        OnCupy(backend="cupy", precision=precision).make(TINY[0], "channels last")[BOTH]()
        assert set(cupy_on_host.cupy.products) == {kind}


def test_what_waits_is_not_inside_the_events(gpu, monkeypatch):
    waits = []
    monkeypatch.setattr(cupy_on_host.Stream, "synchronize", lambda self: waits.append(1))
    call = OnCupy("auto", "cupy").make(TINY[0], "channels last")[BOTH]
    call()
    assert waits == []


@pytest.mark.parametrize("precision", ERRORS)
def test_a_run_from_end_to_end(gpu, hasty, tmp_path, capsys, precision):  # noqa: F811
    file = tmp_path / "run.json"
    arguments = ["bench", "--backend", "cupy", "--set", "book", "--rounds", "2", "--precision", precision]
    assert cli.main([*arguments, "--json", str(file)]) == 0
    kept = json.loads(file.read_text())["context"]
    assert kept["device"] == "CUDA device 0 (none, but the host)"
    assert {"command", "precision", "date", "versions"} <= kept.keys()
    assert {"CuPy", "CUDA", "torch", "cuDNN"} <= kept["versions"].keys()
    assert "timed by its own events" in capsys.readouterr().out
    again = load([str(file)])
    assert {result.precision for result in again.results} == {precision}
    names = {result.contender.partition(" ")[0] for result in again.results}
    assert names == {"xpconv", "PyTorch"} | ({"Chainer's"} if precision != "tf32" else set())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "tf32"], "away from a GPU everyone computes in float32"),
        (["--backend", "cupy:0"], "choose the GPU by CUDA_VISIBLE_DEVICES"),
        (["--backend", "cupy", "--memory"], "leave it out on a GPU"),
        (["--backend", "cupy", "--against", "book"], "book does not compete on this backend; choose of cudnn, chainer"),
        (["--against", "cudnn"], "cudnn does not compete on this backend"),
    ],
)
def test_what_cannot_be_compared_is_refused(gpu, capsys, arguments, words):
    with pytest.raises(SystemExit):
        cli.main(["bench", *arguments])
    assert words in capsys.readouterr().err


def test_a_pytorch_without_a_gpu_does_not_compete(gpu, monkeypatch, capsys):
    gpu.cuda.is_available = lambda: False
    with pytest.raises(SystemExit):
        cli.main(["bench", "--backend", "cupy", "--against", "cudnn"])
    assert "PyTorch cuDNN is not installed: this PyTorch has no GPU" in capsys.readouterr().err


def test_networks_are_stepped_in_float32_alone(gpu):
    assert OnCupy("auto", "cupy").layouts(STEP)
    assert CuDnn().layouts(STEP)
    assert OnCupy(backend="cupy", precision="float16").layouts(STEP) == CuDnn("float16").layouts(STEP) == ()
