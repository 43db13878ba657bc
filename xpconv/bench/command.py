"""The subcommand ``bench``: what to measure, and where to leave what was found."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import itertools
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from xpconv.arrays.backends import backend
from xpconv.arrays.libraries import device_name
from xpconv.bench import gpu, gpu_table, growth, measuring, memory
from xpconv.bench.contenders import Contender, XpConv
from xpconv.bench.frameworks import AGAINST
from xpconv.bench.layers import CASES, NETWORKS, SETS, Case
from xpconv.bench.report import MEMORY, Table, context, heading, memory_summary, summary, tables
from xpconv.bench.results import ERRORS, Report, load
from xpconv.execution.workspace import WORKSPACE
from xpconv.selection.model import ALGORITHMS, BY_KERNELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what ``bench`` takes, and what runs it."""
    option = parser.add_argument
    option("--set", action="append", choices=SETS, help="layers to time (repeatable; all sets if not given)")
    option("--layer", default="", metavar="REGEX", help="of these, only layers whose name has this in it")
    option(
        "--algorithm",
        action="append",
        choices=("auto", *BY_KERNELS),
        help="of xpconv (repeatable; the first one is compared with the others; auto if not given)",
    )
    option(
        "--against",
        action="append",
        choices=(*AGAINST, *gpu.AGAINST),
        help="competitors (repeatable; all that are installed)",
    )
    option("--backend", default="numpy", metavar="NAME", help="where xpconv's arrays are made (default: numpy)")
    option("--precision", default="float32", choices=ERRORS, help="of everyone; another than float32 on a GPU alone")
    option(
        "--batch", type=int, metavar="N", help="images in each layer's batch (default: its own); networks keep theirs"
    )
    option("--rounds", type=int, default=7, metavar="N", help="turns that everyone has (default: 7)")
    option("--threads", type=int, metavar="N", help="for everyone (default: a thread for each processor)")
    option("--memory", action="store_true", help="measure peaks of memory too, on a GPU of its own")
    option("--workspace", type=int, default=WORKSPACE, metavar="BYTES", help="of xpconv's convolutions")
    option("--growth", metavar="FILE", help="time nothing else than how time grows, and draw it")
    option("--json", metavar="FILE", help="keep everything, layer by layer")
    option("--plot", metavar="FILE", help="draw a picture, in the format of the suffix")
    option("--from", dest="files", action="append", metavar="FILE", help="show what --json kept; measure nothing")
    option("--gpu-table", metavar="DIR", help="show the README's table of GPUs, from files in DIR; measure nothing")
    parser.set_defaults(run=functools.partial(run, parser))


@dataclasses.dataclass
class Plan:
    """Who competes in what; the first of the contenders is compared with the base."""

    contenders: Sequence[Contender]
    base: Contender
    cases: Sequence[Case]
    rounds: int
    memory: bool
    report: Report

    def lines(self) -> Iterator[str]:
        """Measure, and give each line of the report as soon as it is known."""
        gc.freeze()  # all that was imported need not be looked through before each layer
        rng = np.random.default_rng(0)
        for name in dict.fromkeys(case.set for case in self.cases):
            cases = [case for case in self.cases if case.set == name]
            columns = {(c.name, layout): None for c in self.contenders for case in cases for layout in c.layouts(case)}
            table = Table(self.report, cases, columns)
            yield from table.header(name)
            for case in cases:
                rivals = self.contenders[0], self.base
                self.report.results += measuring.measure(case, self.contenders, rivals, self.rounds, rng)
                yield from (table.times(group) for group in self.report.groups() if group.case == case)
            if self.memory:
                yield from table.header(f"{name}: {MEMORY}")
                for group in self.report.groups():
                    if group.case.set == name:
                        memory.measure(self.contenders, group.results)
                        yield table.memory(group)


def plan(arguments: argparse.Namespace) -> Plan:
    """Find what is asked for; raise ImportError, RuntimeError or ValueError where it cannot be had."""
    if arguments.rounds < 1:
        raise ValueError(f"rounds is {arguments.rounds}; give at least 1")
    if arguments.batch is not None and arguments.batch < 1:
        raise ValueError(f"batch is {arguments.batch}; give at least 1")
    place, on_gpu = backend(arguments.backend), gpu.on_gpu(arguments.backend)
    if not on_gpu and arguments.precision != "float32":
        raise ValueError(f"precision is {arguments.precision!r}; away from a GPU everyone computes in float32")
    if on_gpu and ":" in arguments.backend:
        raise ValueError(f"backend is {arguments.backend!r}; choose the GPU by CUDA_VISIBLE_DEVICES")
    asked = dict.fromkeys(arguments.algorithm or ["auto"])
    alone = [name for name in asked if name != "auto" and name not in ALGORITHMS]
    if alone and not on_gpu:
        raise ValueError(f"algorithm {', '.join(alone)} computes CuPy arrays alone; choose their backend")
    try:
        pattern = re.compile(arguments.layer)
    except re.error as error:
        raise ValueError(f"layer is {arguments.layer!r}, which is no regular expression: {error}") from error
    if arguments.workspace < 1:
        raise ValueError(f"workspace is {arguments.workspace}; give at least 1")
    hero_kind, options = gpu.OnCupy if on_gpu else XpConv, (arguments.backend, arguments.workspace, arguments.precision)
    heroes = [hero_kind(algorithm, *options) for algorithm in asked]
    known = {key: functools.partial(make, arguments.precision) for key, make in gpu.AGAINST.items()}
    others = list(_competitors(arguments.against, known if on_gpu else AGAINST))
    hero, base = heroes[0], others[0]
    cases = [c for c in CASES if c.set in (arguments.set or SETS) and pattern.search(c.name)]
    cases = [of_batch(c, arguments.batch) for c in cases if hero.layouts(c) and base.layouts(c)]
    if not cases:
        raise ValueError(f"there is no such layer that both {hero.name} and {base.name} compute")
    threads = measuring.hold_threads(arguments.threads)
    contenders = [*heroes, *others]
    told = {"command": " ".join(["xpconv", *sys.argv[1:]]), "precision": arguments.precision}
    told |= {"batch": arguments.batch} if arguments.batch else {}
    told |= {"device": device_name(place.device)} if on_gpu else {}
    report = Report(context(contenders, threads) | told, hero.name, base.name)
    return Plan(contenders, base, cases, arguments.rounds, arguments.memory, report)


def of_batch(case: Case, batch: int | None) -> Case:
    """Return the same layer on so many images."""
    if batch is None or case.operator in NETWORKS:
        return case
    return dataclasses.replace(case, shape=(batch, *case.shape[1:]))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Measure, or read what was measured, and show it; return 1 where a result was wrong."""
    try:
        for path in filter(None, (arguments.json, arguments.plot, arguments.growth)):
            if not pathlib.Path(path).absolute().parent.is_dir():
                raise ValueError(f"there is no directory for {path!r}")
        if arguments.gpu_table:
            print("\n".join(gpu_table.lines(gpu_table.reports(arguments.gpu_table))))
            return 0
        if arguments.plot or arguments.growth:
            from xpconv.bench.plots import plot  # needs matplotlib, and says so before a long run
        if arguments.growth and arguments.rounds > 0:
            return _growth(arguments)
        planned = None if arguments.files else plan(arguments)
        report = load(arguments.files) if planned is None else planned.report
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        parser.error(str(error))
    measured = planned.lines() if planned else tables(report)
    for line in itertools.chain(heading(report), measured, summary(report), memory_summary(report)):
        print(line, flush=True)
        if arguments.json:  # a long run that breaks off shall not have been for nothing
            report.save(arguments.json)
    if arguments.plot:
        plot(report, arguments.plot)
    return int(any(result.wrong for result in report.results))


def _growth(arguments: argparse.Namespace) -> int:
    """Measure how time grows, show it and draw it."""
    points = growth.measure(arguments.rounds)
    for line in growth.lines(points):
        print(line, flush=True)
    if arguments.json:
        growth.save(points, context([XpConv()], max(point.threads for point in points)), arguments.json)
    growth.plot(points, arguments.growth)
    return 0


def _competitors(keys: Sequence[str] | None, known: Mapping[str, Callable[[], Contender]]) -> Iterator[Contender]:
    """Give those asked for, or those installed, the one to compare with first."""
    for key in dict.fromkeys(keys or known):
        if key not in known:
            raise ValueError(f"{key} does not compete on this backend; choose of {', '.join(known)}")
        contender = known[key]()
        try:
            contender.versions()
        except ImportError as error:
            if keys:
                raise ImportError(f"{contender.name} is not installed: {error}") from error
        else:
            yield contender
