"""How time grows with the batch, the channels, the size and the threads: one convolution, forward + backward.

Every number of threads has a process of its own, in which all sizes take turns.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

from xpconv.bench import measuring
from xpconv.bench.clocks import OnHost
from xpconv.bench.contenders import BOTH, LAST, XpConv
from xpconv.bench.layers import Case
from xpconv.execution.workers import processors

BATCH, CHANNELS, SIZE = 4, 64, 56
TIMES = 1 / 4, 1 / 2, 1, 2, 4
IDEAL = {"batch": 1, "channels": 2, "size": 2}  # powers: as many filters as channels, and square images


@dataclass(frozen=True)
class Point:
    """One size of one thing.

    Attributes
    ----------
    what : str
        "batch", "channels" or "size", the one that is not as in the middle of the picture.
    count, threads : int
    time : float
        In units of the same thing's time in the middle, on one thread.
    """

    what: str
    count: int
    threads: int
    time: float


def measure(rounds: int) -> list[Point]:
    """Time all sizes on one thread, and on all that there are."""
    context = multiprocessing.get_context("spawn")
    seconds: dict[int, list[float]] = {}
    for threads in sorted({1, len(processors())}):
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            seconds[threads] = executor.submit(_seconds, threads, rounds).result()
    return relative(seconds)


def relative(seconds: Mapping[int, Sequence[float]]) -> list[Point]:
    """Make points of the times that all sizes took on each number of threads."""
    middle = {what: taken for (what, times), taken in zip(_places(), seconds[1], strict=True) if times == 1}
    return [
        Point(what, int(times * _middle(what)), threads, taken / middle[what])
        for threads, found in seconds.items()
        for (what, times), taken in zip(_places(), found, strict=True)
    ]


def lines(points: Sequence[Point]) -> Iterator[str]:
    """Say in numbers what the picture shows."""
    yield f"Time of a 3x3 convolution, forward + backward, over that of batch {BATCH}, {CHANNELS} channels and filters,"
    yield f"{SIZE}x{SIZE} elements on one thread; power: the slope between the last two, and that of the arithmetic."
    for (what, threads), line in _curves(points).items():
        end, last = line[-2:]
        power = math.log(last.time / end.time) / math.log(last.count / end.count)
        text = "  ".join(f"{point.count}: {point.time:.3g}" for point in line)
        yield f"{what:8}  {threads} thread{'s' * (threads > 1):1}  {text}  power {power:.2f} of {IDEAL[what]}"


def save(points: Sequence[Point], context: dict[str, object], path: str | os.PathLike[str]) -> None:
    """Write all of it as JSON."""
    text = json.dumps({"context": context, "points": [asdict(point) for point in points]}, indent=1)
    pathlib.Path(path).write_text(text + "\n")


def plot(points: Sequence[Point], path: str | os.PathLike[str]) -> None:
    """Draw each of the three on logarithmic axes, beside the line of its arithmetic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = dict(zip(IDEAL, figure.subplots(1, len(IDEAL), sharey=True), strict=True))
    for (what, threads), line in _curves(points).items():
        counts, label = [point.count for point in line], f"{threads} thread{'s' * (threads > 1)}"
        color = "#d1702b" if threads == 1 else "#2b6ca3"
        panels[what].loglog(counts, [point.time for point in line], "o-", color=color, markersize=3, label=label)
    for what, panel in panels.items():
        counts = [int(times * _middle(what)) for times in TIMES]
        ideal = [times ** IDEAL[what] for times in TIMES]
        panel.loglog(counts, ideal, "--", color="black", linewidth=0.7, label="as the arithmetic grows")
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.set_xticks([], minor=True)
        panel.set_title(what, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.grid(color="#e4e4e4", linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels["batch"].set_ylabel("time, relative", fontsize=8)
    panels["batch"].legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=150)


def _middle(what: str) -> int:
    return {"batch": BATCH, "channels": CHANNELS, "size": SIZE}[what]


def _places() -> list[tuple[str, float]]:
    return [(what, times) for what in IDEAL for times in TIMES]


def _case(what: str, times: float) -> Case:
    batch, channels, size = (int(_middle(name) * (times if name == what else 1)) for name in IDEAL)
    return Case("growth", "conv", (batch, channels, size, size), channels, (3, 3), 1, 1)


def _seconds(threads: int, rounds: int) -> list[float]:
    measuring.hold_threads(threads)
    calls = [XpConv().make(_case(*place), LAST)[BOTH] for place in _places()]
    timings = measuring.in_turns(calls, [OnHost()] * len(calls), rounds, np.random.default_rng(0))
    return [statistics.median(turn.seconds for turn in turns) for turns in timings]


def _curves(points: Sequence[Point]) -> dict[tuple[str, int], list[Point]]:
    keys = dict.fromkeys((point.what, point.threads) for point in points)
    return {key: [point for point in points if (point.what, point.threads) == key] for key in keys}
