"""The README's table of GPUs, drawn from the files that runs on them have left."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from xpconv.bench.contenders import BOTH, FORWARD
from xpconv.bench.gpu import CUDNN
from xpconv.bench.layers import CASES
from xpconv.bench.results import ERRORS, Group, Report, Result, digits, geometric_mean, load, medians

NOTHING = "not measured"
NAMES = {"float32": "strict float32", "tf32": "TF32"}
SETS = {"ResNet-50": "resnet50", "VGG-16": "vgg16", "training step": "training"}
CHAINER = "Chainer's way"


class Row(NamedTuple):
    """One way of xpconv in one precision."""

    precision: str
    algorithm: str
    words: str


ROWS = [
    Row(precision, algorithm, f"{NAMES.get(precision, precision)}, {words}")
    for precision in ERRORS
    for algorithm, words in (("auto", "cuBLAS and own kernels"), ("cudnn", "cuDNN"))
]


def reports(directory: str) -> list[Report]:
    """Read what all runs on a GPU have left in a directory."""
    files = sorted(pathlib.Path(directory).glob("*.json"))
    return [load([file]) for file in files if "device" in json.loads(file.read_text())["context"]]


def lines(runs: Sequence[Report]) -> Iterator[str]:
    """Give the table in Markdown: of the last day's runs on each device in each precision, or that there is none."""
    yield f"| forward / forward + backward | {' | '.join([*SETS, CHAINER, 'its memory'])} |"
    yield "| --- " * (len(SETS) + 3) + "|"
    for device in dict.fromkeys(str(run.context["device"]) for run in sorted(runs, key=_date)) or [""]:
        for row in ROWS:
            like = [run for run in runs if (run.context["device"], run.context["precision"]) == (device, row.precision)]
            last = max(map(_date, like), default="")
            groups = [group for run in like if _date(run) == last for group in run.groups()]
            yield f"| {' | '.join([f'{device} {row.words}'.strip(), *_cells(groups, row.algorithm)])} |"


def _date(run: Report) -> str:
    return str(run.context["date"])


def _cells(groups: Sequence[Group], algorithm: str) -> Iterator[str]:
    names = [result.contender for group in groups for result in group.results]
    name = next((name for name in names if name.startswith(f"xpconv {algorithm} ") and CUDNN not in name), "")
    for chosen in SETS.values():
        some = [group for group in groups if group.case.set == chosen and group.best(name)]
        yield _means(some, lambda some: medians(some, name)) + _part(some, chosen)
    yield _means(groups, lambda some: _beside_chainer(some, name, lambda result: 1 / result.median))
    yield _means(groups, lambda some: _beside_chainer(some, name, lambda result: result.memory))


def _part(groups: Sequence[Group], chosen: str) -> str:
    """Say of how many layers of a set there are results, where a run broke off."""
    every = [case for case in CASES if case.set == chosen]
    found = len({group.case for group in groups if group.direction == BOTH})
    return f" ({found} of {len(every)})" if 0 < found < len(every) else ""


def _means(groups: Sequence[Group], ratios: Callable[[Iterable[Group]], list[float]]) -> str:
    """Return the geometric means of both directions, of those that there are."""
    found = [ratios([group for group in groups if group.direction == direction]) for direction in (FORWARD, BOTH)]
    return " / ".join(digits(geometric_mean(each)) for each in found if each) or NOTHING


def _beside_chainer(groups: Iterable[Group], name: str, amount: Callable[[Result], float | None]) -> list[float]:
    """Return the amount of what has this name over that of Chainer's way, where both are known."""
    rivals = [(group.best(name), group.best(CHAINER)) for group in groups]
    amounts = [(amount(mine), amount(other)) for mine, other in rivals if mine and other]
    return [mine / other for mine, other in amounts if mine and other]
