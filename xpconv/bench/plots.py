"""The picture: where it wins and where it loses, at a glance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from xpconv.bench.contenders import BOTH, FORWARD
from xpconv.bench.results import Group, Report, geometric_mean, medians

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('a plot needs matplotlib: pip install "xpconv[examples]"') from error

FASTER, SLOWER, OTHERS = "#2b6ca3", "#d1702b", "#555555"
MARKS = "x+.|"
TICKS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 0.7, 1, 1.4, 2, 3, 4, 6, 8, 16)

Row = tuple[str, str]  # a set, and one of its layers; or nothing, in the row of the set itself


def plot(report: Report, path: str | os.PathLike[str]) -> None:
    """Draw to a file in the format of its suffix.

    Each layer is a bar from 1 to its ratio on a logarithmic axis, with the quartiles as a thin line and the other
    contenders as marks; each set has its geometric mean beside its name.
    """
    groups = list(report.groups())
    directions = [d for d in (FORWARD, BOTH) if any(g.direction == d for g in groups)]
    rows: list[Row] = []
    for name in dict.fromkeys(g.case.set for g in groups):
        rows += [(name, ""), *dict.fromkeys((name, g.case.name) for g in groups if g.case.set == name)]
    size = 3 + 4.2 * len(directions), 1.5 + 0.17 * len(rows)  # inches
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(directions), sharex=True, sharey=True, squeeze=False)[0]
    for panel, direction in zip(panels, directions, strict=True):
        chosen = [g for g in groups if g.direction == direction]
        _bars(panel, chosen, rows)
        _marks(panel, report, chosen, rows)
        panel.set_title(direction, fontsize=9)
    _axes(panels, groups, rows)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=7)
    known = report.context
    figure.suptitle(
        f"{report.hero}: times as fast as {report.base}, each in its better layout\n"
        f"{known['BLAS']}, {known['threads']} threads, float32, {known['date']}",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)


def _color(ratio: float) -> str:
    return FASTER if ratio >= 1 else SLOWER


def _bars(panel: Any, groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Draw the ratio of every layer and the mean of every set."""
    for group in groups:
        spread, y = group.ratio(group.rivals[0]), rows.index((group.case.set, group.case.name))
        panel.barh(y, spread.median - 1, left=1, height=0.7, color=_color(spread.median))
        panel.plot([spread.low, spread.high], [y, y], color="black", linewidth=0.7)
    for y, (name, layer) in enumerate(rows):
        chosen = [g for g in groups if g.case.set == name]
        if chosen and not layer:
            mean = geometric_mean(medians(chosen, chosen[0].hero))
            text, offset = f"geometric mean {mean:.2f}", (3, 0)
            style = {"textcoords": "offset points", "va": "center", "fontsize": 6.5, "weight": "bold"}
            panel.annotate(text, (1, y), offset, color=_color(mean), **style)


def _marks(panel: Any, report: Report, groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Draw the other contenders, as far as the picture reaches."""
    others = dict.fromkeys(r.contender for r in report.results if r.contender not in (report.hero, report.base))
    for name, mark in zip(others, MARKS * len(others), strict=False):
        points = [(x, rows.index((g.case.set, g.case.name))) for g in groups for x in medians([g], name)]
        panel.plot([x for x, _ in points], [y for _, y in points], mark, color=OTHERS, markersize=3, label=name)


def _axes(panels: Sequence[Any], groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Set the scales, which all panels share."""
    ends = [0.7, 1.4, *(end for g in groups for end in g.ratio(g.rivals[0]))]
    first = panels[0]
    first.set_xscale("log")
    first.set_xticks(TICKS, [f"{tick:.2g}" if tick >= 0.5 else f"1/{1 / tick:.0f}" for tick in TICKS])
    first.set_xticks([], minor=True)
    first.set_xlim(min(ends) / 1.2, max(ends) * 1.2)
    first.set_yticks(range(len(rows)), [layer or name for name, layer in rows])
    first.set_ylim(len(rows) - 0.3, -0.7)
    for tick, (_, layer) in zip(first.get_yticklabels(), rows, strict=True):
        tick.set(weight="normal" if layer else "bold")
    for panel in panels:
        panel.axvline(1, color="black", linewidth=0.8)
        panel.grid(axis="x", color="#e4e4e4", linewidth=0.5)
        panel.set_axisbelow(True)
        panel.tick_params(axis="y", length=0, labelsize=6.5)
        panel.tick_params(axis="x", labelsize=7)
        panel.spines[["top", "right", "left"]].set_visible(False)
