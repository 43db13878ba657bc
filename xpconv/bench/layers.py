"""The layers that are timed, as data: those of known networks, and the book's own.

A row has what tells one layer of its set from another; what they share is said once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xpconv.windows import Window, window

NETWORKS = ("SimpleConvNet", "DeepConvNet")
SHORT = {"max_pool": "max", "avg_pool": "avg", "global_max_pool": "global max", "global_avg_pool": "global avg"}


@dataclass(frozen=True)
class Case:
    """One computation to time.

    Attributes
    ----------
    set : str
        The set it belongs to.
    operator : str
        Of xpconv; or the name of a network, of which a whole training step is timed.
    shape : tuple of int
        Of the input, (N, C, *size).
    filters, kernel, stride, pad, groups
        Geometry, the same stride and padding along every axis.
    bias : bool
        Whether a convolution adds one; where its network normalizes the outputs right after it, there is none.
    count : int
        How many times its network has it.
    """

    set: str
    operator: str
    shape: tuple[int, ...]
    filters: int = 0
    kernel: tuple[int, ...] = ()
    stride: int = 1
    pad: int = 0
    groups: int = 1
    bias: bool = True
    count: int = 1

    @cached_property
    def name(self) -> str:
        """What to call it: kernel, stride, channels and size."""
        if self.operator in NETWORKS:
            return self.operator
        _, channels, *size = self.shape
        kind = "depthwise" if self.groups > 1 else SHORT.get(self.operator, "")
        taps = by(self.kernel) + (f"/{self.stride}" if self.stride > 1 else "")
        through = f"{channels}-{self.filters}" if self.filters and self.groups == 1 else str(channels)
        size = size[:1] if len(set(size)) == 1 else size
        return " ".join(part for part in (kind, taps, through, f"@{by(size)}") if part)

    @cached_property
    def window(self) -> Window:
        """Where its windows lie; over everything where no kernel is given."""
        return window(self.shape[2:], self.kernel or self.shape[2:], stride=self.stride, pad=self.pad)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(O, C/G, *kernel)."""
        return (self.filters, self.shape[1] // self.groups, *self.kernel)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(N, O, *output)."""
        return (self.shape[0], self.filters or self.shape[1], *self.window.output)

    @property
    def options(self) -> dict[str, Any]:
        """What the operator is given after its arrays."""
        if self.operator == "conv":
            return {"stride": self.stride, "pad": self.pad, "groups": self.groups}
        return {"kernel": self.kernel, "stride": self.stride, "pad": self.pad} if self.kernel else {}


def by(numbers: Iterable[int]) -> str:
    """Write numbers as 3x3."""
    return "x".join(map(str, numbers))


def _convolutions(
    name: str, batch: int, *rows: tuple[int, int, int, int, int, int, int], bias: bool = True
) -> Iterator[Case]:
    """Square images: channels, filters, size, kernel, stride, padding, and how many of them there are."""
    for channels, filters, size, kernel, stride, pad, count in rows:
        shape = (batch, channels, size, size)
        yield Case(name, "conv", shape, filters, (kernel, kernel), stride, pad, bias=bias, count=count)


def _pools(*rows: tuple[str, int, int, int, int, int, int]) -> Iterator[Case]:
    """Square images: operator, batch, channels, size, kernel (0: over everything), stride, padding."""
    for operator, batch, channels, size, kernel, stride, pad in rows:
        taps = (kernel, kernel) if kernel else ()
        yield Case("pool", operator, (batch, channels, size, size), 0, taps, stride, pad)


CASES: tuple[Case, ...] = (
    *_convolutions(  # He et al., "Deep residual learning" (2016), with the stride in the 3x3 convolutions
        "resnet50",
        8,
        (3, 64, 224, 7, 2, 3, 1),
        (64, 64, 56, 1, 1, 0, 1),
        (64, 64, 56, 3, 1, 1, 3),
        (64, 256, 56, 1, 1, 0, 4),
        (256, 64, 56, 1, 1, 0, 2),
        (256, 128, 56, 1, 1, 0, 1),
        (128, 128, 56, 3, 2, 1, 1),
        (256, 512, 56, 1, 2, 0, 1),
        (128, 512, 28, 1, 1, 0, 4),
        (512, 128, 28, 1, 1, 0, 3),
        (128, 128, 28, 3, 1, 1, 3),
        (512, 256, 28, 1, 1, 0, 1),
        (256, 256, 28, 3, 2, 1, 1),
        (512, 1024, 28, 1, 2, 0, 1),
        (256, 1024, 14, 1, 1, 0, 6),
        (1024, 256, 14, 1, 1, 0, 5),
        (256, 256, 14, 3, 1, 1, 5),
        (1024, 512, 14, 1, 1, 0, 1),
        (512, 512, 14, 3, 2, 1, 1),
        (1024, 2048, 14, 1, 2, 0, 1),
        (512, 2048, 7, 1, 1, 0, 3),
        (2048, 512, 7, 1, 1, 0, 2),
        (512, 512, 7, 3, 1, 1, 2),
        bias=False,
    ),
    *_convolutions(  # Simonyan and Zisserman, "Very deep convolutional networks" (2015), configuration D
        "vgg16",
        2,
        (3, 64, 224, 3, 1, 1, 1),
        (64, 64, 224, 3, 1, 1, 1),
        (64, 128, 112, 3, 1, 1, 1),
        (128, 128, 112, 3, 1, 1, 1),
        (128, 256, 56, 3, 1, 1, 1),
        (256, 256, 56, 3, 1, 1, 2),
        (256, 512, 28, 3, 1, 1, 1),
        (512, 512, 28, 3, 1, 1, 2),
        (512, 512, 14, 3, 1, 1, 3),
    ),
    *_convolutions(  # SimpleConvNet has the first, DeepConvNet the others
        "book",
        100,
        (1, 30, 28, 5, 1, 0, 1),
        (1, 16, 28, 3, 1, 1, 1),
        (16, 16, 28, 3, 1, 1, 1),
        (16, 32, 14, 3, 1, 1, 1),
        (32, 32, 14, 3, 1, 2, 1),
        (32, 64, 8, 3, 1, 1, 1),
        (64, 64, 8, 3, 1, 1, 1),
    ),
    *_pools(
        ("max_pool", 100, 30, 24, 2, 2, 0),  # SimpleConvNet
        ("max_pool", 100, 16, 28, 2, 2, 0),  # DeepConvNet
        ("max_pool", 8, 64, 112, 2, 2, 0),
        ("max_pool", 8, 512, 14, 2, 2, 0),
        ("max_pool", 8, 64, 112, 3, 2, 1),  # ResNet
        ("max_pool", 8, 192, 28, 3, 1, 1),  # GoogLeNet
        ("avg_pool", 8, 64, 112, 2, 2, 0),
        ("avg_pool", 8, 64, 112, 3, 2, 1),
        ("global_avg_pool", 8, 2048, 7, 0, 1, 0),
        ("global_max_pool", 8, 2048, 7, 0, 1, 0),
    ),
    *(  # Howard et al., "MobileNets" (2017)
        Case("depthwise", "conv", (8, width, size, size), width, (3, 3), stride, 1, width, False, count)
        for width, size, stride, count in (
            (32, 112, 1, 1),
            (64, 112, 2, 1),
            (128, 56, 1, 1),
            (128, 56, 2, 1),
            (256, 28, 1, 1),
            (256, 28, 2, 1),
            (512, 14, 1, 5),
            (512, 14, 2, 1),
            (1024, 7, 1, 1),
        )
    ),
    *(
        Case("1d", "conv", (8, channels, length), filters, (kernel,), stride, kernel // 2)
        for channels, filters, length, kernel, stride in (
            (64, 64, 4096, 3, 1),
            (64, 64, 4096, 9, 1),
            (256, 256, 1024, 3, 1),
            (256, 256, 1024, 9, 1),
            (64, 64, 4096, 31, 1),
            (512, 512, 2048, 3, 2),  # wav2vec 2.0
        )
    ),
    *(
        Case("3d", "conv", (1, channels, depth, size, size), filters, (3, 3, 3), stride, 1)
        for channels, filters, depth, size, stride in (
            (3, 64, 16, 112, 1),  # C3D
            (64, 64, 16, 56, 1),  # ResNet3D
            (64, 128, 16, 56, 2),
            (128, 128, 8, 28, 1),
            (256, 256, 4, 14, 1),
        )
    ),
    *(Case("training", network, (100, 1, 28, 28)) for network in NETWORKS),
)

SETS = tuple(dict.fromkeys(case.set for case in CASES))
