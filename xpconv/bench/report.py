"""What is printed: one line a layer and direction, then geometric means; ratios and their spread, no absolute times.

But of a GPU: how long the host takes to queue a call, which bounds from below what a user has of a small one.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import xpconv
from xpconv.bench.contenders import BOTH, FORWARD, Contender
from xpconv.bench.layers import Case
from xpconv.bench.results import Group, Report, Result, digits, geometric_mean, medians
from xpconv.execution.blas import openblas

MEMORY = "peak memory above the inputs, MB"

Column = tuple[str, str]  # contender, layout
Cell = Callable[[Group, Result], str]


def context(contenders: Sequence[Contender], threads: int) -> dict[str, Any]:
    """Return what a reader needs to know about the run, and nothing about the machine but its kind of processor."""
    versions = {"xpconv": xpconv.__version__, "Python": platform.python_version(), "NumPy": np.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["numba"] = importlib.metadata.version("numba")
    for contender in contenders:
        versions |= contender.versions()
    blas = openblas()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions,
        "BLAS": f"OpenBLAS with its kernels for {blas.core}" if blas else "not OpenBLAS",
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": threads,
    }


def heading(report: Report) -> Iterator[str]:
    """Say what is compared, with what, and where."""
    known, hero, base = report.context, report.hero, report.base
    yield ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    where, what = f"{known['BLAS']}, {known['platform']}", known.get("precision", "float32")
    what += f", batch {known['batch']}" if "batch" in known else ""
    yield f"{where}, threads for everyone: {known['threads']}, {what}, {known['date']}"
    if "device" in known:
        yield f"{known['device']}, of which the work of a call is timed without the host's, of a training step all"
    yield f"\nRatios to {base} in its better layout: above 1 is faster. In brackets the quartiles over the rounds."
    yield f"error: of {hero}, the largest difference from float64 over the largest entry."
    if "device" in known:
        yield f"host: how long the host takes to queue a call of {hero}, and one of {base}."
        return
    yield f"waited: how much of their time {hero} or {base} had no processor. Where it is not near 0, measure again."


class Table:
    """Lines of equal columns, printed as they come."""

    def __init__(self, report: Report, cases: Iterable[Case], columns: Iterable[Column]) -> None:
        self.report, self.columns = report, list(columns)
        self.label = max(len(self._label(case)) for case in cases)
        names = [contender for contender, _ in self.columns]
        self.widths = [
            max(20 if name == report.hero else 7, -(-(len(name) + 2) // names.count(name))) for name in names
        ]

    def header(self, title: str) -> Iterator[str]:
        """Name the columns: contenders above, their layouts below."""
        margin = " " * (self.label + len(BOTH) + 3)
        spans: dict[str, int] = {}
        for (name, _), width in zip(self.columns, self.widths, strict=True):
            spans[name] = spans.get(name, 0) + width
        yield f"\n{title}"
        yield (margin + "".join(name.ljust(width) for name, width in spans.items())).rstrip()
        layouts = [layout.rpartition(" ")[2] for _, layout in self.columns]
        yield margin + "".join(layout.ljust(width) for layout, width in zip(layouts, self.widths, strict=True))

    def row(self, group: Group, cell: Cell) -> str:
        """Fill one line."""
        by_column = {(r.contender, r.layout): r for r in group.results}
        cells = (cell(group, by_column[c]) if c in by_column else "" for c in self.columns)
        text = "".join(text.ljust(width) for text, width in zip(cells, self.widths, strict=True))
        return f"{self._label(group.case):{self.label}} {group.direction:{len(BOTH)}}  {text}"

    def times(self, group: Group) -> str:
        """Fill one line with ratios, and with what there is to say about them."""
        hero, base = group.rivals
        if hero.host is None or base.host is None:
            beside = f"waited {max(hero.waited, base.waited):.0%}"
        else:
            beside = f"host {hero.host * 1e6:.0f} and {base.host * 1e6:.0f} us"
        notes = f"error {hero.error:.0e}, {beside}"
        wrong = [f"WRONG: {name}" for name in dict.fromkeys(r.contender for r in group.results if r.wrong)]
        return self.row(group, self._ratio) + ", ".join([notes, *wrong])

    def memory(self, group: Group) -> str:
        """Fill one line with peaks of memory."""
        return self.row(group, lambda _, r: "?" if r.memory is None else f"{r.memory / 1e6:.1f}").rstrip()

    def _ratio(self, group: Group, result: Result) -> str:
        spread = group.ratio(result)
        low, median, high = map(digits, spread)
        return f"{median} [{low} {high}]" if result.contender == self.report.hero else median

    @staticmethod
    def _label(case: Case) -> str:
        return case.name + (f"  {case.count} times" if case.count > 1 else "")


def tables(report: Report) -> Iterator[str]:
    """Give the lines of a report that is complete, set by set."""
    for name in dict.fromkeys(result.case.set for result in report.results):
        groups = [group for group in report.groups() if group.case.set == name]
        found = dict.fromkeys((r.contender, r.layout) for group in groups for r in group.results)
        names = [contender for contender, _ in found]
        columns = sorted(found, key=lambda column: names.index(column[0]))
        table = Table(report, {group.case for group in groups}, columns)
        yield from table.header(name)
        yield from map(table.times, groups)
        if any(result.memory is not None for group in groups for result in group.results):
            yield from table.header(f"{name}: {MEMORY}")
            yield from map(table.memory, groups)


def summary(report: Report) -> Iterator[str]:
    """Give geometric means over the layers of each set."""
    groups = list(report.groups())
    subsets = {name: [g for g in groups if g.case.set == name] for name in dict.fromkeys(g.case.set for g in groups)}
    subsets["3x3 stride 1"] = [g for g in groups if g.case.name.startswith("3x3 ")]
    if len(subsets) > 2:
        subsets["all"] = groups
    contenders = [c for c in dict.fromkeys(r.contender for r in report.results) if c != report.base]
    widths = [max(len(name), 5) + 2 for name in contenders]
    yield "\nGeometric means over the layers that each computes, in its better layout."
    yield f"whole: of {report.hero}, by the time of all layers, each as often as its network has it. least: its worst."
    names = "".join(name.ljust(width) for name, width in zip(contenders, widths, strict=True))
    yield f"{'':14}{'':{len(BOTH)}}  layers  {names}whole  least"
    for name, members in subsets.items():
        for direction in (FORWARD, BOTH):
            chosen = [group for group in members if group.direction == direction]
            if chosen:
                means = (_mean(chosen, contender) for contender in contenders)
                text = "".join(mean.ljust(width) for mean, width in zip(means, widths, strict=True))
                yield f"{name:14}{direction}".ljust(14 + len(BOTH)) + f"  {len(chosen):6}  {text}{_rest(chosen)}"


def memory_summary(report: Report) -> Iterator[str]:
    """Give geometric means of the hero's peak of memory over that of each other contender, where both are known."""
    shares: dict[tuple[str, str], list[float]] = {}
    for group in report.groups():
        for name in dict.fromkeys(result.contender for result in group.results if result.contender != report.hero):
            mine, other = (group.best(contender).memory for contender in (report.hero, name))  # type: ignore[union-attr]
            if mine and other:
                shares.setdefault((name, group.direction), []).append(mine / other)
    if shares:
        yield f"\nPeak memory of {report.hero} above its inputs, over that of each: geometric means over the layers."
    for (name, direction), ratios in shares.items():
        yield f"{name:14}  {direction:{len(BOTH)}}  {len(ratios):6}  {digits(geometric_mean(ratios))}"


def _mean(groups: Sequence[Group], contender: str) -> str:
    ratios = medians(groups, contender)
    return digits(geometric_mean(ratios)) if ratios else ""


def _rest(groups: Sequence[Group]) -> str:
    """Return the ratio of the times of all layers together, and the worst layer."""
    hero, base = (sum(g.case.count * g.rivals[i].median for g in groups) for i in (0, 1))
    least, layer = min(zip(medians(groups, groups[0].hero), (g.case.name for g in groups), strict=True))
    return f"{digits(base / hero):5}  {digits(least)} {layer}"
