"""Files and directories that are whole or not there, on the disk itself, whenever the process or the machine stops."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to make a file or directory under, which at the end takes the place of `path`.

    After a failure there is what was there before, and the temporary name is gone; after a kill it may be left, see
    `leftovers`. A directory replaces no directory that has something in it.

    Raises
    ------
    OSError
        When the disk is full, or `path` cannot be replaced.
    """
    temporary = _temporary(path)  # in the same directory, because a rename to another file system would not be atomic
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)
    finally:
        _remove(temporary)


def discard(path: Path) -> None:
    """Remove a file or directory so that no part of it is ever seen under its name."""
    temporary = _temporary(path)
    os.replace(path, temporary)
    _remove(temporary)


def clear_leftovers(directory: Path) -> None:
    """Remove what `replacing` and `discard` were making or removing when they were killed."""
    for path in directory.glob(".*.tmp"):
        _remove(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")


def _to_disk(path: Path) -> None:
    directory = path.is_dir()
    if directory and os.name == "nt":  # where directories cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY if directory else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        import shutil  # here and not above, for it brings in what a quick import of the library does without

        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
