"""The benchmark on a GPU, on stand-ins: that it times the right thing by the device's events, like against like."""

import dataclasses
import importlib.metadata
import json
import pathlib
import sys

import cudnn_on_host
import cupy_on_host
import numpy as np
import pytest
import stand_ins
from test_bench import STEP, TINY, Hungry, hasty, loops  # noqa: F401

from xpconv import cli
from xpconv.bench import gpu_table, memory
from xpconv.bench.contenders import BOTH, FORWARD, LAST
from xpconv.bench.devices import CupyDevice, TorchDevice
from xpconv.bench.gpu import Chainer, CuDnn, OnCupy
from xpconv.bench.results import ERRORS, Report, Result, load

pytestmark = pytest.mark.skipif(cupy_on_host.COMPILER is None, reason="there is no C++ compiler here")


@pytest.fixture
def gpu(monkeypatch):
    """CuPy, and a PyTorch with cuDNN."""
    torch = stand_ins.torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")
    cupy_on_host.install(monkeypatch)
    cudnn_on_host.forget()
    yield torch
    cudnn_on_host.forget()


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
        (["--algorithm", "cudnn"], "algorithm cudnn computes CuPy arrays alone; choose their backend"),
        (["--backend", "cupy", "--algorithm", "cudnn"], 'cannot be used (stopped): pip install "xpconv[cudnn]"'),
        (["--backend", "cupy", "--against", "book"], "book does not compete on this backend; choose of cudnn, chainer"),
        (["--against", "cudnn"], "cudnn does not compete on this backend"),
    ],
)
def test_what_cannot_be_compared_is_refused(gpu, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(cudnn_on_host.install(monkeypatch), "backend_version", lambda: exec("raise OSError('stopped')"))
    with pytest.raises(SystemExit):
        cli.main(["bench", *arguments])
    assert words in capsys.readouterr().err


def test_a_pytorch_without_a_gpu_does_not_compete(gpu, monkeypatch, capsys):
    gpu.cuda.is_available = lambda: False
    with pytest.raises(SystemExit):
        cli.main(["bench", "--backend", "cupy", "--against", "cudnn"])
    assert "PyTorch cuDNN is not installed: this PyTorch has no GPU" in capsys.readouterr().err


def test_cudnn_competes_by_name_and_as_what_auto_takes(gpu, hasty, monkeypatch, tmp_path):  # noqa: F811
    cudnn_on_host.install(monkeypatch)
    file = tmp_path / "run.json"
    asked = ["--precision", "tf32", "--algorithm", "auto", "--algorithm", "cudnn", "--layer", "^5x5", "--rounds", "1"]
    for switch in ("1", "0"):
        monkeypatch.setenv("XPCONV_CUDNN", switch)
        cudnn_on_host.forget()
        cupy_on_host.cupy.reset()
        assert cli.main(["bench", "--backend", "cupy", "--against", "cudnn", *asked, "--json", str(file)]) == 0
        report = load([str(file)])
        assert {result.contender for result in report.results} == {
            "xpconv auto cupy tf32" + (" with cuDNN" if switch == "1" else ""),
            "xpconv cudnn cupy tf32",
            "PyTorch cuDNN tf32",
        }
        assert report.context["versions"]["cuDNN for CuPy"] == "9.0.0"
        assert bool(cupy_on_host.cupy.launches) == (switch == "0")  # by "auto"


def test_the_table_is_of_the_last_run_in_each_precision(tmp_path):
    def run(date, seconds, auto="xpconv auto cupy tf32"):
        """xpconv takes so long, with cuDNN half of that, PyTorch 3 and Chainer 8 seconds."""
        results = [
            Result(dataclasses.replace(TINY[0], set=name), direction, who, LAST, [s], 0.0, memory=m, precision="tf32")
            for name in ("resnet50", "vgg16")
            for direction in (FORWARD, BOTH)
            for who, s, m in (
                (auto, seconds, 10),
                ("xpconv cudnn cupy tf32", seconds / 2, None),
                ("PyTorch cuDNN tf32", 3.0 if name == "vgg16" else 6.0, 5),
                ("Chainer's way", 8.0, 40),
            )
        ]
        context = {"device": "a GPU", "precision": "tf32", "date": date}
        Report(context, auto, "PyTorch cuDNN tf32", results).save(tmp_path / f"{date}-{seconds}.json")

    run("2026-11-02", 2.0)
    run("2026-11-01", 1.0)
    (tmp_path / "cpu.json").write_text('{"context": {}, "points": []}')
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in gpu_table.lines(gpu_table.reports(tmp_path))}
    nothing = "not measured"
    assert rows["| a GPU TF32, cuBLAS and own kernels"] == [
        "3.00 / 3.00",
        "1.50 / 1.50",
        nothing,
        "4.00 / 4.00",
        "0.25 / 0.25 |",
    ]
    assert rows["| a GPU TF32, cuDNN"] == ["6.00 / 6.00", "3.00 / 3.00", nothing, "8.00 / 8.00", f"{nothing} |"]
    assert rows["| a GPU float16, cuDNN"] == 4 * [nothing] + [f"{nothing} |"]
    assert len(rows) == 2 + 6
    run("2026-11-03", 2.0, "xpconv auto cupy tf32 with cuDNN")  # which is not of own kernels
    again = [line for line in gpu_table.lines(gpu_table.reports(tmp_path)) if "TF32, cuBLAS and own kernels" in line]
    assert again == [f"| a GPU TF32, cuBLAS and own kernels{5 * f' | {nothing}'} |"]


def test_the_readme_has_the_table_of_the_files_that_are_there(capsys):
    root = pathlib.Path(__file__).parent.parent
    assert cli.main(["bench", "--gpu-table", str(root / "benchmarks")]) == 0
    assert capsys.readouterr().out in (root / "README.md").read_text()


def test_weights_lie_as_who_computes_would_have_them(gpu, monkeypatch):
    def orders(algorithm, precision):
        contender = OnCupy(algorithm, "cupy", precision=precision)
        return [contender.weight_order(layout, 4) for layout in ("channels last", "channels first")]

    last, first, taps_first = (0, 2, 3, 1), (0, 1, 2, 3), (2, 3, 1, 0)
    assert orders("auto", "float16") == [taps_first, first]
    cudnn_on_host.install(monkeypatch)
    assert orders("cudnn", "float32") == orders("auto", "float16") == [last, first]
    assert orders("auto", "float32") == orders("direct", "float16") == [taps_first, first]


class HungryThere(Hungry):
    """The same on the device."""

    numbers = staticmethod(lambda count: cupy_on_host.cupy.empty(count, float))


@pytest.mark.parametrize(("gauge", "wanted"), [(CupyDevice(), 48 << 20), (TorchDevice(), 1000)])
def test_memory_is_the_peak_of_what_is_given_out(gpu, monkeypatch, gauge, wanted):
    monkeypatch.setattr(HungryThere, "gauge", gauge)
    result = Result(TINY[0], FORWARD, "hungry", "channels first", [1.0], 0.0)
    memory.measure([HungryThere()], [result])
    assert result.memory == wanted


def test_memory_is_compared(gpu, hasty, tmp_path, capsys):  # noqa: F811
    arguments = ["bench", "--backend", "cupy", "--layer", "^5x5", "--rounds", "1", "--memory"]
    assert cli.main([*arguments, "--json", str(tmp_path / "run.json")]) == 0
    printed = capsys.readouterr().out
    assert "peak memory above the inputs, MB" in printed
    _, table = printed.split("Peak memory of xpconv auto cupy above its inputs, over that of each: ")
    results = load([str(tmp_path / "run.json")]).results
    least = {(r.contender, r.direction): r.memory for r in sorted(results, key=lambda r: -r.median)}
    for name in ("PyTorch cuDNN", "Chainer's way"):
        for direction in (FORWARD, BOTH):
            (row,) = (line for line in table.splitlines() if line.startswith(name) and f" {direction}  " in line)
            share = least["xpconv auto cupy", direction] / least[name, direction]
            assert float(row.split()[-1]) == pytest.approx(share, rel=0.05)


def test_networks_are_stepped_in_float32_alone(gpu):
    assert OnCupy("auto", "cupy").layouts(STEP)
    assert CuDnn().layouts(STEP)
    assert OnCupy(backend="cupy", precision="float16").layouts(STEP) == CuDnn("float16").layouts(STEP) == ()
