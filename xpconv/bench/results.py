"""What was measured, as plain records that go to JSON and come back, and the ratios that are read from them."""

from __future__ import annotations

import json
import math
import os
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from xpconv.bench.layers import Case

# What is further from float64 is wrong, not fast. The bound of float32 is below the 2.5e-4 to which TF32 comes at best;
# cuDNN's strict gradients of a weight are off by 1.4e-4 on the largest images.
ERRORS = {"float32": 2e-4, "tf32": 5e-3, "float16": 1e-2}


@dataclass
class Result:
    """One contender in one layout, in one direction.

    Attributes
    ----------
    case : Case
    direction : str
        "forward" or "forward + backward".
    contender, layout : str
    seconds : list of float
        One number a round, the median of its calls; empty where it was not timed.
    error : float
        Largest difference from float64 over the largest entry, the worst of all outputs.
    waited : float
        Share of the time that threads were ready to run and had no processor.
    memory : int or None
        Bytes that were taken at the peak of a call above those before the first; None where that is not known.
    precision : str
        What was multiplied in.
    host : float or None
        Seconds that the host needs to queue a call, the median of the rounds, where a device works beside it.
    """

    case: Case
    direction: str
    contender: str
    layout: str
    seconds: list[float]
    error: float
    waited: float = 0.0
    memory: int | None = None
    precision: str = "float32"
    host: float | None = None

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.seconds)

    @property
    def wrong(self) -> bool:
        """Whether it is off by more than rounding explains; not a number is."""
        return not self.error <= ERRORS[self.precision]


class Spread(NamedTuple):
    """The median of some ratios and their quartiles."""

    low: float
    median: float
    high: float


@dataclass
class Group:
    """All results of one case in one direction, and who is compared with whom."""

    results: list[Result]
    hero: str
    base: str

    def best(self, contender: str) -> Result | None:
        """Return the result of a contender in its better layout."""
        return min((r for r in self.results if r.contender == contender), key=lambda r: r.median, default=None)

    def ratio(self, result: Result) -> Spread:
        """Return how many times as fast as the base in its better layout a result is: round by round."""
        ratios = [slow / fast for slow, fast in zip(self.rivals[1].seconds, result.seconds, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else 3 * ratios
        return Spread(low, median, high)

    @property
    def rivals(self) -> tuple[Result, Result]:
        """The hero and the base, each in its better layout."""
        hero, base = self.best(self.hero), self.best(self.base)
        assert hero is not None and base is not None  # nothing else is measured
        return hero, base

    @property
    def case(self) -> Case:
        """The case that all results are of."""
        return self.results[0].case

    @property
    def direction(self) -> str:
        """The direction that all results are of."""
        return self.results[0].direction


@dataclass
class Report:
    """A whole run.

    Attributes
    ----------
    context : dict
        Versions, threads, date.
    hero, base : str
        Contenders: who is compared, and with whom.
    results : list of Result
    """

    context: dict[str, Any]
    hero: str
    base: str
    results: list[Result] = field(default_factory=list)

    def groups(self) -> Iterator[Group]:
        """Go through all cases and directions, in the order they were measured."""
        found: dict[tuple[Case, str], list[Result]] = {}
        for result in self.results:
            found.setdefault((result.case, result.direction), []).append(result)
        return (Group(results, self.hero, self.base) for results in found.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as JSON."""
        pathlib.Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n")


def load(paths: Sequence[str | os.PathLike[str]]) -> Report:
    """Read what was saved; the results of several runs become those of one, with the context of the last."""
    reports = []
    for path in paths:
        read = json.loads(pathlib.Path(path).read_text())
        results = [Result(**result | {"case": _case(result["case"])}) for result in read.pop("results")]
        reports.append(Report(**read, results=results))
    last = reports[-1]
    if any((report.hero, report.base) != (last.hero, last.base) for report in reports):
        raise ValueError(f"{', '.join(map(str, paths))} do not compare the same two contenders; give them one by one")
    return Report(last.context, last.hero, last.base, [result for report in reports for result in report.results])


def _case(read: dict[str, Any]) -> Case:
    return Case(**read | {name: tuple(read[name]) for name in ("shape", "kernel")})


def medians(groups: Iterable[Group], contender: str) -> list[float]:
    """Return the ratio of a contender, in its better layout, in every group that it has a part in."""
    best = ((group, group.best(contender)) for group in groups)
    return [group.ratio(result).median for group, result in best if result is not None]


def geometric_mean(ratios: Iterable[float]) -> float:
    """Return the geometric mean of at least one ratio."""
    return math.exp(statistics.fmean(map(math.log, ratios)))


def digits(ratio: float) -> str:
    """Write a ratio with two or three digits."""
    return f"{ratio:.{2 if ratio < 10 else 1}f}" if ratio >= 0.1 else f"{ratio:.3f}"
