"""Where windows lie in images that are laid into zeros, part by part."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xpconv.arrays.libraries import Array
from xpconv.compiled.calls import Told, told
from xpconv.compiled.compiler import loop
from xpconv.compiled.counters import Table
from xpconv.compiled.lines import Width, load, store
from xpconv.execution.tasks import evenly
from xpconv.windows import Window


class Lie(NamedTuple):
    """Where windows lie in images that are padded, part by part, in numbers from the start.

    Attributes
    ----------
    source, place : table
        Where the lines of all parts are in an image, and where they are to lie with the padding between them.
    lines : table
        Where the windows along the last axis begin, `move` numbers after each other, of every part and of some images.
    copied, begun : table
        Up to which of those the parts before have them, and the last one.
    width, size, windows, target : table
        For every part the numbers of a line, those of it when it is padded, windows that follow each other, and how
        many windows there are in the parts before.
    jumps : table
        Where, in a window, those of its taps begin that lie together and have `length` numbers.
    elements, outputs : int
        Numbers of an image, and its windows.
    """

    source: Table
    place: Table
    lines: Table
    copied: Table
    begun: Table
    width: Table
    size: Table
    windows: Table
    target: Table
    jumps: Table
    length: int
    move: int
    elements: int
    outputs: int


@functools.lru_cache(maxsize=256)
def lies(window: Window, channels: int, parts: int, images: int = 1) -> Told[Lie]:
    """Tell how the windows of so many parts of an image lie, and those of so many images side by side."""
    source, place, lines, numbers = [], [], [], []
    bare, last = _pitches(window.size, channels), window.axes[-1]
    for rows in evenly(window.output[0], parts):
        elements, part = window.part(rows.start, rows.stop)
        axes, padded = part.axes, _pitches([axis.reach for axis in part.axes], channels)
        *outer, line = (range(max(0, -a.before), min(a.size, a.reach - a.before)) for a in axes)  # what windows see
        begin = [*outer, line[:1]]
        moved = [range(seen.start + a.before, seen.stop + a.before) for seen, a in zip(begin, axes, strict=True)]
        source.append(_places(bare[1:], begin) + elements.start * bare[1])
        place.append(_places(padded[1:], moved))
        firsts = [range(0, a.output * a.stride, a.stride) for a in axes[:-1]]
        lines.append(_places(padded, [range(images), *firsts]))
        target = rows.start * math.prod(window.output[1:])
        numbers.append((len(source[-1]), len(lines[-1]), len(line) * channels, padded[0], part.output[-1], target))
    together = last.kernel if last.dilation == 1 else 1
    taps = [range(0, a.extent, a.dilation) for a in window.axes[:-1]]
    copied, begun, width, size, windows, target = np.array(numbers, np.int64).T.copy()
    found = Lie(
        source=np.concatenate(source),
        place=np.concatenate(place),
        lines=np.concatenate(lines),
        copied=np.cumsum([0, *copied]),
        begun=np.cumsum([0, *begun]),
        width=width,
        size=size,
        windows=windows,
        target=target,
        jumps=_places(padded[1:], [*taps, range(0, last.extent, last.dilation * together)]),
        length=together * channels,
        move=last.stride * channels,
        elements=bare[0],
        outputs=math.prod(window.output),
    )
    return told(found)


def _pitches(sizes: Sequence[int], channels: int) -> list[int]:
    """Count the numbers of an image, and of its parts after each of its axes."""
    return [channels * math.prod(sizes[i:]) for i in range(len(sizes) + 1)]


def _places(pitches: Sequence[int], ranges: Sequence[range]) -> Table:
    """Say how far each combination of indices lies from the start."""
    table = np.array([sum(map(operator.mul, pitches, indices)) for indices in itertools.product(*ranges)], np.int64)
    table.flags.writeable = False
    return table


@loop
def pad(x: Array, image: int, lie: Lie, part: int, padded: Array, to: int, line: Width) -> None:
    """Lay a part of an image into zeros."""
    width = lie.width[part]
    for i in range(lie.copied[part], lie.copied[part + 1]):
        first, place = image * lie.elements + lie.source[i], to + lie.place[i]
        for b in range(0, width, len(line)):
            j = min(b, width - len(line))
            store(padded, place + j, load(x, first + j, line))
