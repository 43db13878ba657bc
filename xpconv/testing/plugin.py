"""A pytest plugin: the option ``--backend`` and the fixture ``backend``, for any suite whose code follows its arrays.

Load it with ``pytest_plugins = ["xpconv.testing.plugin"]`` in a ``conftest.py``, or with ``-p xpconv.testing.plugin``.
A test that takes the fixture runs once for each backend; one that cannot be used is skipped with its reason, unless
it was asked for by name.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from xpconv.arrays.backends import Backend
from xpconv.arrays.backends import backend as find
from xpconv.arrays.libraries import LIBRARIES, Array, strictest

STRICT = "array-api-strict:device1"  # not that library's default device: one that is forgotten shows
ROWS = ("numpy", "numpy-readonly", STRICT, *(name for name in LIBRARIES if name not in ("numpy", "array-api-strict")))


class ReadOnly(Backend):
    """NumPy whose arrays cannot be written to: whoever writes to what it was given is caught in the act."""

    def asarray(self, array: Any, dtype: str | None = None) -> Array:
        """Copy a host array, and lock the copy."""
        copied = super().asarray(array, dtype)
        copied.flags.writeable = False
        return copied


@functools.cache
def usable(name: str) -> Backend | str:
    """Return the backend of this row, or the reason why it cannot be used."""
    try:
        if name == "numpy-readonly":
            numpy = find("numpy")
            return ReadOnly(name, numpy.xp, numpy.device)
        return find(name)
    except (ImportError, RuntimeError, ValueError) as error:
        return str(error)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --backend."""
    parser.getgroup("xpconv").addoption(
        "--backend",
        action="append",
        default=[],
        metavar="NAME",
        help="run tests of array code on this backend only (repeatable; one that cannot be used is an error): "
        f"numpy-readonly, {', '.join(library.devices for library in LIBRARIES.values())}. All usable ones if not given",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a backend that was asked for and cannot be used."""
    for name in config.getoption("--backend"):
        if isinstance(reason := usable(name), str):
            raise pytest.UsageError(f"--backend {name}: {reason}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes `backend` one row for each."""
    if "backend" in metafunc.fixturenames:
        rows = list(dict.fromkeys(metafunc.config.getoption("--backend") or ROWS))
        metafunc.parametrize("backend", rows, ids=rows, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Where to make arrays: ``backend.asarray(host, dtype)``, ``backend.xp``, ``backend.device``, ``backend.name``."""
    found = usable(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    with strictest(found):
        yield found
