"""The benchmark on a GPU, on stand-ins: that it times the right thing by the device's events, like against like."""

import dataclasses
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import types

import cudnn_on_host
import cupy_on_host
import cupy_timed_on_host
import numpy as np
import pytest
import stand_ins
from test_bench import STEP, TINY, Hungry, hasty, loops  # noqa: F401

from xpconv import cli
from xpconv.bench import command, gpu_table, measuring, memory, problems
from xpconv.bench.clocks import Queued
from xpconv.bench.contenders import BOTH, FORWARD, LAST, XpConv
from xpconv.bench.devices import CupyDevice, TorchDevice
from xpconv.bench.frameworks import PyTorch
from xpconv.bench.gpu import Chainer, CuDnn, OnCupy, switch
from xpconv.bench.layers import Case
from xpconv.bench.results import ERRORS, Report, Result, load

pytestmark = pytest.mark.skipif(cupy_on_host.COMPILER is None, reason="there is no C++ compiler here")


@pytest.fixture
def gpu(monkeypatch):
    """CuPy, and a PyTorch with cuDNN."""
    torch = stand_ins.torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")
    cupy_timed_on_host.install(monkeypatch)
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
    bound = 1e-2 if precision == "float16" else 1e-5
    for layout in contender.layouts(case):
        calls = contender.make(case, layout)
        for direction in (FORWARD, BOTH):
            found = [array.get() for array in contender.arrays(calls[direction](), layout)]
            for actual, wanted in zip(found, loops(case, contender.dtype), strict=direction == BOTH):
                assert actual.shape == wanted.shape
                assert np.max(np.abs(actual - wanted)) <= bound * np.max(np.abs(wanted))
    if kind == "PyTorch":
        assert gpu.backends.cudnn.benchmark
        assert gpu.backends.cudnn.allow_tf32 == gpu.backends.cuda.matmul.allow_tf32 == (precision == "tf32")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_what_is_expected_is_computed_where_the_arrays_are_and_of_what_they_are_in_their_dtype(gpu, dtype, case):
    cupy = cupy_on_host.cupy
    given, host = problems.problem(case, cupy, dtype), problems.problem(case)
    found = problems.expected(case, given)
    assert cupy.brought == cupy.sent == []
    for array, drawn in zip((*given.arrays, given.dy), (*host.arrays, host.dy), strict=True):
        assert (array.get() == drawn.astype(dtype)).all()
    for array, wanted in zip(found, loops(case, dtype), strict=True):
        assert array.dtype == np.float64
        np.testing.assert_allclose(array.get(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("precision", ERRORS)
def test_only_numbers_are_copied_and_memory_is_given_back(gpu, hasty, precision):  # noqa: F811
    cupy = cupy_on_host.cupy
    contenders = [OnCupy(backend="cupy", precision=precision), CuDnn(precision), Chainer(precision)]
    for case in TINY[:3]:
        released = cupy.released, gpu.cuda.released
        found = measuring.measure(case, contenders, contenders[:2], 1, np.random.default_rng(0))
        assert {result.wrong for result in found} == {False}
        assert all(result.host > 0 for result in found)
        assert (cupy.released, gpu.cuda.released) > released
    assert set(cupy.brought) == {()}
    assert cupy.sent == []


@pytest.mark.parametrize("kind", ["CuPy", "PyTorch"])
def test_the_device_spins_before_the_events(gpu, hasty, kind):  # noqa: F811
    contender, timeline = {
        "CuPy": (OnCupy(backend="cupy"), cupy_on_host.cupy.timeline),
        "PyTorch": (CuDnn(), gpu.cuda.timeline),
    }[kind]
    timing = contender.clock(TINY[0]).turn(contender.make(TINY[0], LAST)[BOTH])
    assert timing.seconds > 0
    *waits, (word, cycles), start, stop = timeline
    assert (waits, word, start, stop) == (["synchronize"] * 2, "spin", "event", "event")
    assert cycles > 0
    contender.device.spin(1e-3)
    assert timeline[-1] == ("spin", 2_000_000)


def test_training_steps_are_queued_and_nothing_spins(gpu, hasty, monkeypatch):  # noqa: F811
    step = XpConv().make(STEP, LAST)[BOTH]
    monkeypatch.setattr(PyTorch, "two_steps", lambda *_: [list(step()), list(step()[:1])])
    contender = OnCupy(backend="cupy")
    assert contender.clock(STEP) == Queued(contender.device)
    (found,) = measuring.measure(STEP, [contender], [contender], 2, np.random.default_rng(0))
    assert not found.wrong
    assert 0 < found.host <= found.median
    assert set(cupy_on_host.cupy.timeline) == {"synchronize"}
    assert set(cupy_on_host.cupy.brought) <= {()}


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("newer", [{}, {"fp32_precision": "none"}], ids=["older switches", "newer switches too"])
def test_pytorch_is_told_what_to_multiply_in_by_all_its_switches(tf32, newer):
    told = []

    class Switches:
        def __init__(self, name, **there):
            vars(self).update(there, called=name)

        def __setattr__(self, name, value):
            told.append((self.called, name, value))

    conv = {"conv": Switches("conv", **newer)} if newer else {}
    cudnn, matmul = Switches("cudnn", **conv), Switches("matmul", **newer)
    switch(types.SimpleNamespace(cudnn=cudnn, cuda=types.SimpleNamespace(matmul=matmul)), tf32)
    older = {("cudnn", "benchmark", True), ("cudnn", "allow_tf32", tf32), ("matmul", "allow_tf32", tf32)}
    word = "tf32" if tf32 else "ieee"
    assert set(told[:3]) == older
    assert told[3:] == [(name, "fp32_precision", word) for name in (("conv", "matmul") if newer else ())]


def test_pytorchs_own_switches_agree():
    code = """
import torch, xpconv.bench.gpu as gpu
torch.backends.fp32_precision = "tf32"
cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
for tf32 in (False, True, False):
    gpu.switch(torch.backends, tf32)
    assert matmul.allow_tf32 == tf32 and cudnn.conv.fp32_precision == ("tf32" if tf32 else "ieee")
"""
    if not hasattr(pytest.importorskip("torch").backends.cudnn, "conv"):
        pytest.skip("this PyTorch has the older switches alone")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.parametrize("case", [TINY[0], Case("", "conv", (2, 64, 14, 14), 64, (1, 1), bias=False)])
def test_what_was_multiplied_in_tf32_is_wrong_in_float32(case):
    """Rounded as well as it can be: to the nearest of 10 bits."""

    def rounded(array):
        return ((array.view(np.int32) + 0x1000) & -0x2000).view(np.float32)

    given = problems.problem(case)
    coarse = problems.Problem(tuple(map(rounded, given.arrays)), rounded(given.dy))
    wanted, found = problems.expected(case, given), problems.expected(case, coarse)
    for some in (1, len(wanted)):
        error = max(np.max(abs(a - b)) / np.max(abs(b)) for a, b in zip(found[:some], wanted, strict=False))
        results = [Result(case, FORWARD, "", LAST, [1.0], error, precision=name) for name in ("float32", "tf32")]
        assert [result.wrong for result in results] == [True, False]


def test_a_batch_is_of_every_layer_and_of_no_network(gpu, hasty, tmp_path, capsys):  # noqa: F811
    file = tmp_path / "run.json"
    arguments = ["--set", "pool", "--rounds", "1", "--batch", "3", "--json", str(file)]
    assert cli.main(["bench", "--backend", "cupy", *arguments]) == 0
    assert "batch 3" in capsys.readouterr().out
    assert {result.case.shape[0] for result in load([file]).results} == {3}
    assert command.of_batch(STEP, 3) == command.of_batch(STEP, None) == STEP


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
    printed = capsys.readouterr().out
    assert "of which the work of a call is timed without the host's" in printed
    again = load([str(file)])
    assert {result.precision for result in again.results} == {precision}
    for group in again.groups():
        hosts = [f"{rival.host * 1e6:.0f}" for rival in group.rivals]
        assert f"host {hosts[0]} and {hosts[1]} us" in printed
    read = json.loads(file.read_text())
    for result in read["results"]:
        del result["host"]  # as files had it not
    file.write_text(json.dumps(read))
    assert {result.host for result in load([file]).results} == {None}
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
    for taken in ("1", "0"):
        monkeypatch.setenv("XPCONV_CUDNN", taken)
        cudnn_on_host.forget()
        cupy_on_host.cupy.reset()
        assert cli.main(["bench", "--backend", "cupy", "--against", "cudnn", *asked, "--json", str(file)]) == 0
        report = load([str(file)])
        assert {result.contender for result in report.results} == {
            "xpconv auto cupy tf32" + (" with cuDNN" if taken == "1" else ""),
            "xpconv cudnn cupy tf32",
            "PyTorch cuDNN tf32",
        }
        assert report.context["versions"]["cuDNN for CuPy"] == "9.0.0"
        kernels = {name.partition("<")[0] for name in cupy_on_host.cupy.launches}
        assert bool(kernels - {"sum_rows"}) == (taken == "0")  # by "auto"; biases are summed by a kernel either way


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
        "3.00 / 3.00 (1 of 23)",
        "1.50 / 1.50 (1 of 9)",
        nothing,
        "4.00 / 4.00",
        "0.25 / 0.25 |",
    ]
    assert rows["| a GPU TF32, cuDNN"] == [
        "6.00 / 6.00 (1 of 23)",
        "3.00 / 3.00 (1 of 9)",
        nothing,
        "8.00 / 8.00",
        f"{nothing} |",
    ]
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
