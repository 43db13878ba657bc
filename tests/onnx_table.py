"""Print how many of onnx's cases pass, by operator and backend: ``python tests/onnx_table.py``."""

import collections
import sys

from test_onnx import CASES, NODE_CASES, check

from xpconv.arrays.libraries import strictest
from xpconv.testing.plugin import ROWS, usable


def passed(backend):
    """The number of cases that pass, by operator."""
    count = collections.Counter()
    with strictest(backend):
        for case in CASES:
            try:
                check(case, backend)
            except Exception as error:
                print(f"{backend.name}: {case.name}: {error!s:.200}", file=sys.stderr)
            else:
                count[case.operator] += 1
    return count


def main():
    backends = [row for row in map(usable, ROWS) if not isinstance(row, str)]
    collected = collections.Counter(case.operator for case in CASES)
    counts = [passed(backend) for backend in backends]
    print("| operator |", *(f"{backend.name} |" for backend in backends))
    print("|---|" + "---|" * len(backends))
    for operator in NODE_CASES:
        print(f"| {operator} |", *(f"{count[operator]} / {collected[operator]} |" for count in counts))
    print("| all |", *(f"{count.total()} / {collected.total()} |" for count in counts))


if __name__ == "__main__":
    main()
