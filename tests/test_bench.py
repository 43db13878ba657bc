"""The benchmark: it times the right thing, calls wrong what is wrong, and reckons rightly. Nothing asserts a time."""

import dataclasses
import gc
import importlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import reference as ref
import stand_ins

import xpconv
from xpconv import cli
from xpconv.bench import clocks, command, growth, measuring, memory, problems, report, results
from xpconv.bench.contenders import (
    BOTH,
    FIRST,
    FORWARD,
    LAST,
    Book,
    Contender,
    XpConv,
    laid_out,
    layout_order,
    network_of,
)
from xpconv.bench.frameworks import AGAINST, torch_modules
from xpconv.bench.layers import CASES, NETWORKS, Case
from xpconv.bench.results import Group, Report, Result
from xpconv.layers import Convolution

TINY = (
    Case("book", "conv", (2, 3, 7, 7), 4, (3, 3), 1, 1, count=2),
    Case("book", "conv", (2, 3, 8, 8), 5, (5, 5), 2, 0),
    Case("depthwise", "conv", (2, 4, 6, 6), 4, (3, 3), 2, 1, groups=4, bias=False),
    Case("1d", "conv", (2, 3, 12), 4, (3,), 1, 1),
    Case("3d", "conv", (1, 2, 4, 5, 5), 3, (3, 3, 3), 2, 1),
    Case("pool", "max_pool", (2, 3, 6, 6), 0, (2, 2), 2),
    Case("pool", "max_pool", (2, 3, 7, 7), 0, (3, 3), 2, 1),
    Case("pool", "avg_pool", (2, 3, 7, 7), 0, (3, 3), 2, 1),
    Case("pool", "global_avg_pool", (2, 3, 5, 5)),
    Case("pool", "global_max_pool", (2, 3, 5, 5)),
)
STEP = Case("training", "SimpleConvNet", (4, 1, 12, 12))


def installed():
    """Every competitor that can take part here."""
    for make in AGAINST.values():
        try:
            make().versions()
        except ImportError:
            continue
        yield make()


CONTENDERS = [XpConv(), XpConv("direct"), XpConv("winograd"), *installed()]


@pytest.fixture
def hasty(monkeypatch):
    """No silence, few calls, tiny layers."""
    monkeypatch.setattr(clocks.OnHost, "silence", 0)
    monkeypatch.setattr(clocks, "CALLS", (1, 1))
    monkeypatch.setattr(command, "CASES", (*TINY, STEP))


# --- The layers are those of their networks


def products(case):
    return math.prod(case.output_shape[2:]) * math.prod(case.weight_shape)


@pytest.mark.parametrize(("name", "layers", "billions"), [("resnet50", 53, 4.087), ("vgg16", 13, 15.347)])
def test_the_layers_add_up_to_their_network(name, layers, billions):
    """As published: multiplications of an image, without the layers that are no convolutions."""
    cases = [case for case in CASES if case.set == name]
    assert sum(case.count for case in cases) == layers
    assert round(sum(case.count * products(case) for case in cases) / 1e9, 3) == billions


def test_the_book_set_has_the_convolutions_of_its_networks():
    found = []
    for network in NETWORKS:
        x = np.zeros((100, 1, 28, 28), np.float32)
        for layer in network_of(Case("", network, x.shape)).layers.values():
            if isinstance(layer, Convolution):
                filters, _, *kernel = layer.W.shape
                found.append((x.shape, filters, tuple(kernel), layer.options["stride"], layer.options["pad"]))
            x = layer.forward(x)
    cases = [case for case in CASES if case.set == "book"]
    assert [(c.shape, c.filters, c.kernel, c.stride, c.pad) for c in cases] == found


def test_no_two_layers_of_a_set_share_a_name():
    names = [(case.set, case.name) for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (TINY[0], "3x3 3-4 @7"),
        (TINY[1], "5x5/2 3-5 @8"),
        (TINY[2], "depthwise 3x3/2 4 @6"),
        (TINY[3], "3 3-4 @12"),
        (TINY[4], "3x3x3/2 2-3 @4x5x5"),
        (TINY[6], "max 3x3/2 3 @7"),
        (TINY[8], "global avg 3 @5"),
        (STEP, "SimpleConvNet"),
    ],
)
def test_a_layer_is_called_by_its_geometry(case, name):
    assert case.name == name


# --- What must come out


def loops(case, dtype="float32"):
    """The same by the loops of the tests' oracle, of the arrays as they are in that dtype."""
    given = problems.problem(case, dtype=dtype)
    x, *weights = (array.astype(np.float64) for array in given.arrays)
    dy = given.dy.astype(np.float64)
    if case.operator == "conv":
        gradients = ref.conv_gradients(dy, x, weights[0], **case.options)
        return ref.conv(x, *weights, **case.options), *gradients[: len(given.arrays)]
    window = case.options or {"kernel": case.shape[2:]}
    if "max" in case.operator:
        y, indices = ref.max_pool(x, **window)
        return y, ref.max_pool_gradient(dy, indices, case.shape[2:])
    return ref.avg_pool(x, **window), ref.avg_pool_gradient(dy, case.shape[2:], **window)


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_what_is_expected_is_what_the_loops_give(case):
    for found, wanted in zip(problems.expected(case, problems.problem(case)), loops(case), strict=True):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def held_to_the_loops(contender, case):
    for layout in contender.layouts(case):
        for direction, call in contender.make(case, layout).items():
            wanted = loops(case) if direction == BOTH else loops(case)[:1]
            for found, array in zip(contender.arrays(call(), layout), wanted, strict=True):
                assert found.dtype == np.float32
                np.testing.assert_allclose(found, array, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_every_contender_computes_the_same(contender, case):
    held_to_the_loops(contender, case)


@pytest.mark.parametrize("library", ["torch", "jax", "onnxruntime"])
@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_every_library_is_asked_for_the_right_thing(monkeypatch, library, case):
    """Whether it is installed or not: with a stand-in that does what is documented."""
    monkeypatch.setitem(sys.modules, library, getattr(stand_ins, library)())
    held_to_the_loops(AGAINST[library.replace("torch", "pytorch")](), case)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_the_same_in_pytorchs_layers(monkeypatch, name):
    network, x = network_of(Case("training", name, (2, 1, 12, 12))), problems.problem(STEP).arrays[0][:2]
    for i, parameter in enumerate(network.params.values()):
        parameter += np.random.default_rng(i).standard_normal(parameter.shape, dtype=np.float32) / 10  # biases too
    y = x
    for layer in torch_modules(stand_ins.torch(), network):
        y = layer(y)
    np.testing.assert_allclose(y, network.predict(x), rtol=1e-4, atol=1e-4)


def test_a_layer_that_pytorch_is_not_known_to_have_is_refused():
    network = xpconv.Network({"Sigmoid1": xpconv.layers.Sigmoid()})
    with pytest.raises(TypeError, match="Sigmoid has no translation to PyTorch"):
        torch_modules(stand_ins.torch(), network)


def test_training_steps_give_what_pytorch_gives_in_float64():
    pytest.importorskip("torch")
    contenders = [XpConv(), AGAINST["pytorch"]()]
    wanted, (second,) = contenders[1].two_steps(STEP)
    assert wanted[0].dtype == np.float64
    assert len(wanted) == 1 + 6, "the loss, and a gradient for each parameter"
    assert second < wanted[0] - 1e-3, "a step does not descend"
    for contender in contenders:
        for layout in contender.layouts(STEP):
            call = contender.make(STEP, layout)[BOTH]
            for found, array in zip(contender.arrays(call(), layout), wanted, strict=True):
                np.testing.assert_allclose(found, array, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(contender.arrays(call()[:1], layout)[0], second, rtol=1e-5)


def test_a_training_step_gives_the_loss_and_its_slopes_and_descends():
    """Against differences of the loss in float64, along one direction in all weights at once."""
    loss, *gradients = XpConv().make(STEP, LAST)[BOTH]()
    given, network, rng = problems.problem(STEP), network_of(STEP), np.random.default_rng(0)
    params = {name: array.astype(np.float64) for name, array in network.params.items()}
    ways = {name: rng.standard_normal(array.shape) for name, array in params.items()}

    def loss_at(step):
        moved = xpconv.SimpleConvNet(STEP.shape[1:], dtype="float64", rng=0)
        for name, array in params.items():
            moved.params[name] = array + step * ways[name]
        scores = moved.predict(given.arrays[0].astype(np.float64))
        return np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(scores)), given.dy])

    assert loss == pytest.approx(loss_at(0), rel=1e-5)
    slope = sum(np.sum(way * g) for way, g in zip(ways.values(), gradients, strict=True))
    assert slope == pytest.approx((loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, rel=1e-4)
    call = XpConv().make(STEP, LAST)[BOTH]
    assert call()[0] > call()[0] + 1e-4


@pytest.mark.parametrize(
    ("layout", "order"), [(LAST, (0, 2, 3, 1)), (FIRST, (0, 1, 2, 3))], ids=["channels last", "channels first"]
)
def test_a_layout_is_where_numbers_lie_in_memory(layout, order):
    x = np.arange(120).reshape(2, 3, 4, 5)
    found = laid_out(x, layout_order(layout, 4))
    assert found.shape == x.shape
    assert (found == x).all()
    assert found.transpose(order).flags.c_contiguous


def test_who_takes_part():
    assert XpConv("winograd").layouts(TINY[0]) == (LAST, FIRST)
    assert XpConv("winograd").layouts(TINY[1]) == ()
    assert XpConv("direct").layouts(TINY[5]) == ()
    assert Book().layouts(TINY[0]) == Book().layouts(TINY[5]) == (FIRST,)
    assert [Book().layouts(case) for case in (TINY[2], TINY[3], TINY[6], STEP)] == [()] * 4


# --- Measuring


class Spoiled(Contender):
    """Off by a share of the largest entry, or worse."""

    def __init__(self, name, spoil):
        self.name, self.spoil = name, spoil

    def layouts(self, case):
        return (FIRST,)

    def make(self, case, layout):
        return {FORWARD: lambda: (self.spoil(problems.expected(case, problems.problem(case))[0]),)}


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda y: y, 0),
        (lambda y: y + 1e-3 * abs(y).max(), 1e-3),
        (lambda y: y[:1], math.inf),
        (lambda y: y * math.nan, math.nan),
    ],
    ids=["right", "off", "of another shape", "not a number"],
)
def test_what_is_wrong_is_called_wrong(hasty, spoil, error):
    good, other = Spoiled("good", lambda y: y), Spoiled("other", spoil)
    found = measuring.measure(TINY[0], [good, other], (good,), 2, np.random.default_rng(0))
    assert [r.contender for r in found] == ["good", "other"]
    assert found[1].error == pytest.approx(error, nan_ok=True)
    assert [r.wrong for r in found] == [False, error != 0]
    line = report.Table(Report({}, "other", "good"), [TINY[0]], [("other", FIRST)]).times(Group(found, "other", "good"))
    assert ("WRONG: other" in line) == (error != 0)


def test_only_directions_that_both_rivals_have_are_measured(hasty):
    contenders = [XpConv(), Spoiled("forward alone", lambda y: y)]
    found = measuring.measure(TINY[0], contenders, contenders, 1, np.random.default_rng(0))
    assert {r.direction for r in found} == {FORWARD}


def test_turns_are_equal_in_number_and_shuffled(hasty):
    turns = []
    calls = [lambda i=i: turns.append(i) for i in range(4)]
    found = measuring.in_turns(calls, [clocks.OnHost()] * 4, 8, np.random.default_rng(0))
    assert [len(timings) for timings in found] == [8] * 4
    assert all(turn.waited >= 0 and turn.host is None for timings in found for turn in timings)
    orders = [tuple(dict.fromkeys(turns[i : i + 12])) for i in range(0, len(turns), 12)]  # 3 calls each
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len(set(orders)) > 1
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure(hasty):
    def failing():
        assert not gc.isenabled()
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        measuring.in_turns([failing], [clocks.OnHost()], 1, np.random.default_rng(0))
    assert gc.isenabled()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are bound to processors on Linux alone")
def test_threads_are_held_for_everyone():
    code = """
from xpconv.bench.measuring import hold_threads
from xpconv.execution.blas import openblas
from xpconv.execution.workers import lanes
import os
print(hold_threads(1), lanes(), len(os.sched_getaffinity(0)), openblas().get_threads() if openblas() else 1)
print(os.environ["NPROC"] if (os.cpu_count() or 1) > 1 else 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] * 5


class Hungry(Contender):
    """Takes 32 MB once and keeps them, and 16 MB at each call."""

    name = "hungry"
    numbers = staticmethod(np.ones)  # in memory that is really there

    def make(self, case, layout):
        kept = []

        def call():
            if not kept:
                kept.append(self.numbers(4 << 20))
            return (self.numbers(2 << 20),)

        return {FORWARD: call}


@pytest.mark.skipif(not memory.FORGET.exists(), reason="the system does not tell peaks of memory")
def test_memory_is_the_peak_above_what_was_before():
    result = Result(TINY[0], FORWARD, "hungry", FIRST, [1.0], 0.0)
    memory.measure([Hungry()], [result])
    assert result.memory == pytest.approx(48 << 20, rel=0.1)


# --- Reckoning


def result_of(contender, layout, seconds, case=TINY[0], direction=FORWARD):
    return Result(case, direction, contender, layout, seconds, 1e-7)


@pytest.fixture
def two_layers():
    """In the first the hero's ratios are 2, 3, 4, 5 and 6; in the second 1/2."""
    base = [12.0] * 5
    found = [
        result_of("hero", LAST, [6.0, 4.0, 3.0, 2.4, 2.0]),
        result_of("hero", FIRST, [24.0] * 5),
        result_of("base", LAST, [13.0] * 5),
        result_of("base", FIRST, base),
        result_of("other", LAST, [6.0] * 5),
        result_of("hero", LAST, [24.0] * 5, TINY[1]),
        result_of("base", LAST, base, TINY[1]),
    ]
    context = {"versions": {"xpconv": "0"}, "BLAS": "a BLAS", "platform": "here", "threads": 2, "date": "today"}
    return Report(context, "hero", "base", found)


def test_ratios_are_to_the_better_layout_round_by_round(two_layers):
    first, second = two_layers.groups()
    assert [r.layout for r in first.rivals] == [LAST, FIRST]
    assert first.ratio(first.rivals[0]) == pytest.approx((3, 4, 5))
    assert first.ratio(first.results[1]) == pytest.approx((0.5, 0.5, 0.5))
    assert second.ratio(second.rivals[0]) == pytest.approx((0.5, 0.5, 0.5))
    assert results.medians([first, second], "hero") == pytest.approx([4, 0.5])
    assert results.medians([first, second], "other") == pytest.approx([2])
    assert results.geometric_mean([4, 0.5, 4]) == pytest.approx(2)


def test_one_round_has_no_spread():
    group = Group([result_of("hero", LAST, [2.0]), result_of("base", LAST, [3.0])], "hero", "base")
    assert group.ratio(group.rivals[0]) == (1.5, 1.5, 1.5)


def test_the_summary(two_layers):
    (line,) = (line for line in report.summary(two_layers) if line.startswith("book"))
    # Two layers; the geometric mean of 4 and 1/2 is sqrt(2). The first is there twice: (2*12 + 12) / (2*3 + 24).
    assert line.split() == ["book", "forward", "2", "1.41", "2.00", "1.20", "0.50", "5x5/2", "3-5", "@8"]


def test_a_saved_report_comes_back(two_layers, tmp_path):
    two_layers.save(tmp_path / "a.json")
    assert results.load([tmp_path / "a.json"]) == two_layers
    assert list(report.tables(two_layers))
    half = dataclasses.replace(two_layers, results=two_layers.results[5:])
    half.save(tmp_path / "b.json")
    merged = results.load([tmp_path / "a.json", tmp_path / "b.json"])
    assert merged.results == two_layers.results + half.results
    dataclasses.replace(half, base="another").save(tmp_path / "c.json")
    with pytest.raises(ValueError, match="do not compare the same"):
        results.load([tmp_path / "a.json", tmp_path / "c.json"])


@pytest.mark.parametrize(("ratio", "text"), [(12.345, "12.3"), (1.234, "1.23"), (0.1234, "0.12"), (0.01234, "0.012")])
def test_ratios_are_short(ratio, text):
    assert report.digits(ratio) == text


# --- The command line


def test_a_run_from_end_to_end(hasty, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    kept, picture = tmp_path / "run.json", tmp_path / "run.png"
    arguments = ["bench", "--against", "book", "--set", "book", "--set", "pool", "--rounds", "2", "--json", str(kept)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    for case in (TINY[0], TINY[1], TINY[5]):
        assert sum(line.startswith(case.name) and " error " in line for line in printed.splitlines()) == 2
    assert TINY[6].name not in printed, "the book has no padded pooling to compare with"
    assert f"xpconv {xpconv.__version__}, Python" in printed
    found = json.loads(kept.read_text())["results"]
    assert {len(result["seconds"]) for result in found} == {2}
    assert cli.main(["bench", "--from", str(kept), "--plot", str(picture)]) == 0
    assert capsys.readouterr().out == printed
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("algorithms", [["auto", "direct"], ["auto"]], ids=len)
def test_a_picture_marks_everyone_else(hasty, tmp_path, algorithms):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "run.svg"  # where each text stands as a comment beside its outlines
    arguments = ["--against", "book", "--layer", "^3x3 3-4", "--rounds", "1", "--plot", str(picture)]
    assert cli.main(["bench", *arguments, *(f"--algorithm={name}" for name in algorithms)]) == 0
    assert ("<!-- xpconv direct " in picture.read_text()) == ("direct" in algorithms)


@pytest.fixture
def drawn(monkeypatch):
    """A function that draws a report and returns the figure and its panels."""
    pytest.importorskip("matplotlib")
    plots = importlib.import_module("xpconv.bench.plots")
    figures = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, path, **_: figures.append(figure))

    def draw(report):
        plots.plot(report, "picture.png")
        return figures[-1], figures[-1].axes

    return draw


def bars(panel):
    """Row, end, colour and opacity of every bar."""
    colors = importlib.import_module("matplotlib.colors")
    return [
        (round(b.get_y() + b.get_height() / 2), b.get_x() + b.get_width(), colors.to_hex(b.get_fc()), b.get_alpha())
        for b in panel.patches
    ]


def test_a_picture_shows_where_it_wins_and_loses(drawn, two_layers):
    plots = importlib.import_module("xpconv.bench.plots")
    figure, (panel,) = drawn(two_layers)
    assert panel.get_xscale() == "log"
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == ["book", "3x3 3-4 @7  2 times", "5x5/2 3-5 @8"]  # each as often as its network has it
    assert bars(panel) == [(1, pytest.approx(4), plots.FASTER, 1), (2, pytest.approx(0.5), plots.SLOWER, 1)]
    written = {text.get_text(): round(text.get_position()[1]) for text in panel.texts}
    assert written == {"1.41": 0, "faster in 1 of 2": 0, "4.00": 1, "0.50": 2}
    assert panel.get_title() == "forward\ngeometric mean 1.41, faster in 1 of 2"
    spreads = [list(line.get_xdata()) for line in panel.lines if line.get_linestyle() == "-"]
    assert [3, 5] in [pytest.approx(spread) for spread in spreads]
    (mean,) = (line for line in panel.lines if line.get_linestyle() == "--")
    assert mean.get_xdata() == pytest.approx([2**0.5] * 2)
    (mark,) = (line for line in panel.lines if line.get_marker() in plots.MARKS)
    assert (mark.get_label(), *mark.get_xdata(), *mark.get_ydata()) == ("other 2.00", pytest.approx(2), 1)
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "a BLAS, 2 threads, float32, today" in caption
    assert "hero channels last in 2; base channels first in 1, channels last in 1" in caption
    assert figure.get_suptitle() == "hero: times as fast as base"


def test_a_picture_has_both_directions_side_by_side_and_names_a_gpu(drawn, two_layers):
    two_layers.results += [dataclasses.replace(r, direction=BOTH) for r in two_layers.results[:4]]
    two_layers.context |= {"device": "a GPU", "precision": "tf32"}
    figure, (first, second) = drawn(two_layers)
    assert [panel.get_title().partition("\n")[0] for panel in (first, second)] == [FORWARD, BOTH]
    assert first.get_xlim() == second.get_xlim()
    assert [y for y, *_ in bars(second)] == [1]
    assert second.get_legend() is None  # there is nobody else
    assert figure.get_supxlabel().startswith("a GPU, tf32, today")


def test_a_picture_does_not_make_a_win_of_chance_or_of_a_mistake(drawn, two_layers):
    plots = importlib.import_module("xpconv.bench.plots")
    two_layers.results[0].seconds = [11.0, 10.0, 11.5, 13.0, 14.0]  # of 12
    two_layers.results[5].error = math.nan
    _, (panel,) = drawn(two_layers)
    (_, end, color, alpha), (_, _, wrong, _) = bars(panel)
    assert (end, color, alpha) == (pytest.approx(12 / 11.5), plots.FASTER, plots.PALE)
    assert wrong == plots.WRONG
    assert "WRONG" in [text.get_text() for text in panel.texts]


def test_a_plot_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "xpconv.bench.plots", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["bench", "--plot", "picture.png"])
    assert 'a plot needs matplotlib: pip install "xpconv[examples]"' in capsys.readouterr().err


@pytest.mark.skipif(not memory.FORGET.exists(), reason="the system does not tell peaks of memory")
def test_memory_stands_in_a_table_of_its_own(hasty, tmp_path, capsys):
    kept = str(tmp_path / "run.json")
    assert cli.main(["bench", "--against", "book", "--layer", "^5x5", "--rounds", "1", "--memory", "--json", kept]) == 0
    printed = capsys.readouterr().out
    _, table = printed.split("book: peak memory above the inputs, MB")
    row = next(line for line in table.splitlines() if line.startswith(TINY[1].name))
    peaks = [float(megabytes) for megabytes in row.partition(FORWARD)[2].split()]
    assert len(peaks) == 3, "xpconv in both layouts, and the book"
    assert max(peaks) < 100
    assert cli.main(["bench", "--from", kept]) == 0
    assert capsys.readouterr().out == printed


def test_a_wrong_result_is_status_1(hasty, monkeypatch, capsys):
    monkeypatch.setitem(results.ERRORS, "float32", 0)
    assert cli.main(["bench", "--against", "book", "--layer", "^3x3 3-4", "--rounds", "1"]) == 1
    assert "WRONG: xpconv auto" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "alexnet"], "invalid choice: 'alexnet'"),
        (["--layer", "77x77"], "there is no such layer that both xpconv auto and the book compute"),
        (["--layer", "("], "no regular expression"),
        (["--rounds", "0"], "rounds is 0; give at least 1"),
        (["--batch", "0"], "batch is 0; give at least 1"),
        (["--workspace", "0"], "workspace is 0; give at least 1"),
        (["--threads", "0"], "threads is 0; give 1 to"),
        (["--threads", "9999"], "threads is 9999; give 1 to"),
        (["--backend", "tensorflow"], "unknown backend 'tensorflow'"),
        (["--json", "/no/such/place/run.json"], "there is no directory for '/no/such/place/run.json'"),
        (["--from", "/no/such/run.json"], "No such file"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(capsys, arguments, words):
    with pytest.raises(SystemExit) as raised:
        cli.main(["bench", "--against", "book", *arguments])
    assert raised.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("xpconv bench: error: ")
    assert words in error
    assert error.count("\n") == 1


def test_a_competitor_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr(AGAINST["jax"], "libraries", ("no-such-library",))
    with pytest.raises(SystemExit):
        cli.main(["bench", "--against", "jax"])
    assert "JAX is not installed" in capsys.readouterr().err
    assert "JAX" not in [contender.name for contender in command._competitors(None, AGAINST)]


def test_growth_is_told_and_drawn(monkeypatch, hasty, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    times = [3 * times ** growth.IDEAL[what] for what, times in growth._places()]
    monkeypatch.setattr(growth, "measure", lambda rounds: growth.relative({1: times, 2: [t / 2 for t in times]}))
    picture, kept = tmp_path / "growth.png", tmp_path / "growth.json"
    assert cli.main(["bench", "--growth", str(picture), "--json", str(kept)]) == 0
    printed = capsys.readouterr().out
    assert "batch     1 thread   1: 0.25  2: 0.5  4: 1  8: 2  16: 4  power 1.00 of 1" in printed
    assert "size      1 thread   14: 0.0625  28: 0.25  56: 1  112: 4  224: 16  power 2.00 of 2" in printed
    assert "batch     2 threads  1: 0.125  2: 0.25  4: 0.5  8: 1  16: 2  power 1.00 of 1" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {point["what"] for point in json.loads(kept.read_text())["points"]} == set(growth.IDEAL)


def test_growth_is_of_one_convolution(monkeypatch, hasty):
    monkeypatch.setattr(growth, "BATCH", 4)
    monkeypatch.setattr(growth, "CHANNELS", 4)
    monkeypatch.setattr(growth, "SIZE", 4)
    monkeypatch.setattr(measuring, "hold_threads", lambda threads: threads)
    assert len(growth._seconds(1, 1)) == len(growth.TIMES) * len(growth.IDEAL)
    assert growth._case("batch", 2).shape == (8, 4, 4, 4)
    assert growth._case("channels", 2).weight_shape == (8, 8, 3, 3)
    assert growth._case("size", 1 / 4).shape == (4, 4, 1, 1)


def test_a_workspace_is_part_of_the_name():
    contender = XpConv(workspace=1 << 22)
    assert contender.name == "xpconv auto in 4 MiB"
    held_to_the_loops(contender, TINY[0])
