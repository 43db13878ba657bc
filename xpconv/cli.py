"""The command line: ``python -m xpconv``, or ``xpconv``."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from typing import NoReturn

import xpconv
from xpconv.arrays.backends import Backend, backend, survey
from xpconv.bench import command as bench
from xpconv.catalogue import table
from xpconv.cuda.cudnn import survey as survey_cudnn
from xpconv.distributed.ranks import survey as survey_mpi


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        """Exit."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def usable_backend(flag: str) -> Backend:
    """Find the backend of a ``--backend`` flag, for argparse: what is wrong with it becomes the parser's error."""
    try:
        return backend(flag)
    except (ImportError, RuntimeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def info(arguments: argparse.Namespace) -> int:
    """Print every backend, and what serves them, with its version and device or, where it cannot be used, why."""
    if arguments.backend is not None:
        print(arguments.backend)
        return 0
    print(
        f"xpconv {xpconv.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}\n"
    )
    rows = [
        ("backend", "version", "device"),
        *((flag, version, device or why) for flag, version, device, why in survey()),
        ("cudnn", *survey_cudnn()),
        ("mpi", *survey_mpi()),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for flag, version, rest in rows:
        print(f"{flag:{widths[0]}}  {version:{widths[1]}}  {rest}")
    return 0


def operators(arguments: argparse.Namespace) -> int:
    """Print the operators, and what each of them takes on which backend, as a Markdown table."""
    print(table(arguments.backend or [backend("numpy")]))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = Parser(prog="xpconv", description="Convolution and pooling on NumPy, CuPy, PyTorch and JAX arrays.")
    parser.add_argument("--version", action="version", version=f"xpconv {xpconv.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser("info", help="list the backends: version, device, and what would mend one")
    command.add_argument("--backend", type=usable_backend, metavar="NAME", help="show that this one can be used")
    command.set_defaults(run=info)
    command = commands.add_parser("operators", help="list the operators, by backend the dtypes that they take there")
    command.add_argument(
        "--backend", type=usable_backend, action="append", metavar="NAME", help="a backend to try; may be repeated"
    )
    command.set_defaults(run=operators)
    bench.add_arguments(commands.add_parser("bench", help="time it side by side with other libraries"))
    parsed = parser.parse_args(arguments)
    status: int = parsed.run(parsed)
    return status
