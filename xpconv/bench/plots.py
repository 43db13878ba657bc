"""The picture: where it wins and where it loses, at a glance."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpconv.bench.contenders import BOTH, FORWARD
from xpconv.bench.results import Group, Report, digits, geometric_mean, medians

try:
    from matplotlib.figure import Figure
    from matplotlib.transforms import ScaledTranslation
except ImportError as error:
    raise ImportError('a plot needs matplotlib: pip install "xpconv[examples]"') from error

FASTER, SLOWER, WRONG, GREY = "#2b6ca3", "#d1702b", "#c02020", "#444444"
PALE = 0.4  # of its colour, where a ratio is within its spread of 1
MARKS = "oDs^v"
TICKS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 0.7, 1, 1.4, 2, 3, 4, 6, 8, 16, 32, 64)
SIZES = {"title": 10, "panel": 8, "row": 7, "rest": 6.5}  # points
ROW, LABELS, PANEL, REST = 0.165, 1.9, 3.2, 1.7  # inches: height of a row; widths; height of all that is no row
LETTERS = 19  # of the smallest text in an inch


@dataclass(frozen=True)
class Row:
    """A layer, or the heading of a set, which has no groups of its own."""

    set: str
    layer: str = ""
    count: int = 1

    def __str__(self) -> str:
        return (self.layer or self.set) + (f"  {self.count} times" if self.count > 1 else "")


def plot(report: Report, path: str | os.PathLike[str]) -> None:
    """Draw to a file in the format of its suffix.

    Each layer is a bar from 1 to its ratio on a logarithmic axis, with the quartiles as a thin line; pale where they
    have 1 between them. The layers of a set stand as its network runs through them, under their geometric mean, which
    a dashed line draws. The other contenders are marks.
    """
    groups = list(report.groups())
    directions = [d for d in (FORWARD, BOTH) if any(g.direction == d for g in groups)]
    rows = list(_rows(groups))
    width = LABELS + PANEL * len(directions)
    caption = textwrap.wrap(_caption(report.context, groups), int(LETTERS * width))
    figure = Figure(figsize=(width, REST + ROW * (len(rows) + len(caption))), layout="constrained")
    panels = figure.subplots(1, len(directions), sharex=True, sharey=True, squeeze=False)[0]
    for panel, direction in zip(panels, directions, strict=True):
        chosen = [g for g in groups if g.direction == direction]
        _bars(panel, chosen, rows)
        _means(panel, chosen, rows)
        _marks(panel, report, chosen, rows)
        ratios = medians(chosen, report.hero)
        mean = f"geometric mean {digits(geometric_mean(ratios))}, {_wins(ratios)}"
        panel.set_title(f"{direction}\n{mean}", fontsize=SIZES["panel"], weight="bold")
    _axes(panels, groups, rows)
    figure.suptitle(f"{report.hero}: times as fast as {report.base}", fontsize=SIZES["title"], weight="bold")
    figure.supxlabel("\n".join(caption), fontsize=SIZES["rest"], color=GREY)
    figure.savefig(path, dpi=150)


def _rows(groups: Sequence[Group]) -> Iterator[Row]:
    """Go through the sets, and through the layers of each."""
    for name in dict.fromkeys(g.case.set for g in groups):
        yield Row(name)
        yield from dict.fromkeys(_row(g) for g in groups if g.case.set == name)


def _row(group: Group) -> Row:
    return Row(group.case.set, group.case.name, group.case.count)


def _color(ratio: float) -> str:
    return FASTER if ratio >= 1 else SLOWER


def _wins(ratios: Sequence[float]) -> str:
    return f"faster in {sum(ratio >= 1 for ratio in ratios)} of {len(ratios)}"


def _caption(known: Mapping[str, Any], groups: Sequence[Group]) -> str:
    """Say where it was measured, in which layouts, and how to read it."""
    where = known.get("device", f"{known['BLAS']}, {known['threads']} threads")
    return (
        f"{where}, {known.get('precision', 'float32')}, {known['date']}. Everyone in the better of its layouts: "
        f"{_layouts(groups, 0)}; {_layouts(groups, 1)}. Layers are kernel/stride, channels-filters, @size. "
        "Thin lines are quartiles over the rounds, and a bar is pale where 1 lies between them; "
        "dashed lines are geometric means. Marks are the others, named with their means; not all are within reach."
    )


def _layouts(groups: Iterable[Group], rival: int) -> str:
    """Say in how many cases which layout was the better one."""
    best = [group.rivals[rival] for group in groups]
    counts = Counter(result.layout for result in best).most_common()
    return f"{best[0].contender} {', '.join(f'{layout} in {count}' for layout, count in counts)}"


def _bars(panel: Any, groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Draw the ratio of every layer, and write it beside the panel."""
    for group in groups:
        (low, median, high), y = group.ratio(group.rivals[0]), rows.index(_row(group))
        wrong = any(result.wrong for result in group.rivals)
        color = WRONG if wrong else _color(median)
        panel.barh(y, median - 1, left=1, height=0.7, color=color, alpha=PALE if low < 1 < high else 1)
        panel.plot([low, high], [y, y], color="black", linewidth=0.7)
        _beside(panel, y, "WRONG" if wrong else digits(median), color)


def _means(panel: Any, groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Draw the geometric mean of every set through its layers, and write it in their heading."""
    for name in dict.fromkeys(row.set for row in rows):
        ratios = [ratio for g in groups if g.case.set == name for ratio in medians([g], g.hero)]
        ys = [y for y, row in enumerate(rows) if row.set == name]
        if ratios:
            mean, first = geometric_mean(ratios), min(ys)
            panel.plot([mean, mean], [first + 0.5, max(ys) + 0.45], "--", color="black", linewidth=0.7)
            _beside(panel, first, digits(mean), _color(mean), weight="bold")
            style: dict[str, Any] = {"va": "center", "fontsize": SIZES["rest"], "textcoords": "offset points"}
            panel.annotate(_wins(ratios), (1, first), (3, 0), color=GREY, **style)


def _beside(panel: Any, y: float, text: str, color: str, **style: Any) -> None:
    """Write in the column at the right of a panel."""
    where = panel.get_yaxis_transform()  # across in shares of the panel, down in rows
    panel.text(1.01, y, text, transform=where, va="center", fontsize=SIZES["row"], color=color, **style)


def _marks(panel: Any, report: Report, groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Draw the other contenders, as far as the picture reaches, and name them with their means below."""
    others = dict.fromkeys(r.contender for r in report.results if r.contender not in (report.hero, report.base))
    for name, mark in zip(others, MARKS * len(others), strict=False):
        points = [(x, rows.index(_row(g))) for g in groups for x in medians([g], name)]
        if points:
            label = f"{name} {digits(geometric_mean(x for x, _ in points))}"
            panel.plot(*zip(*points, strict=True), mark, ms=3, mfc="white", mec="black", mew=0.6, label=label)
    if panel.get_legend_handles_labels()[0]:
        style = {"ncols": 3, "frameon": False, "fontsize": SIZES["rest"], "handletextpad": 0.1, "columnspacing": 1.2}
        below = _lower(panel, panel.transAxes, 0.38)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, **style)


def _lower(panel: Any, transform: Any, inches: float) -> Any:
    """Move places on a panel down."""
    return transform + ScaledTranslation(0, -inches, panel.figure.dpi_scale_trans)


def _axes(panels: Sequence[Any], groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Set the scales, which all panels share."""
    ends = [0.7, 1.4, *(end for g in groups for end in g.ratio(g.rivals[0]))]
    others = [x for g in groups for r in g.results for x in medians([g], r.contender)]
    ends += [x for x in others if min(ends) / 2 < x < max(ends) * 2]  # what is further away would take all the room
    first = panels[0]
    first.set_xscale("log")
    first.set_xticks(TICKS, [f"{tick:.2g}" if tick >= 0.5 else f"1/{1 / tick:.0f}" for tick in TICKS])
    first.set_xticks([], minor=True)
    first.set_xlim(min(ends) / 1.1, max(ends) * 1.1)
    first.set_yticks(range(len(rows)), list(map(str, rows)))
    first.set_ylim(len(rows) - 0.3, -0.7)
    for tick, row in zip(first.get_yticklabels(), rows, strict=True):
        tick.set(weight="normal" if row.layer else "bold")
    for panel in panels:
        panel.axvline(1, color="black", linewidth=0.8)
        panel.grid(axis="x", color="#e4e4e4", linewidth=0.5)
        panel.set_axisbelow(True)
        panel.tick_params(axis="y", length=0, labelsize=SIZES["row"])
        panel.tick_params(axis="x", labelsize=SIZES["row"])
        panel.set_xlabel("← slower        faster →", fontsize=SIZES["row"])
        panel.xaxis.set_label_coords(1, 0, transform=_lower(panel, panel.get_xaxis_transform(), 0.27))
        panel.spines[["top", "right", "left"]].set_visible(False)
