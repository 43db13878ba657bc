"""cuDNN itself has a plan for all that it is told, on every generation of GPUs, on a machine that need not have one."""

import itertools
import shutil

import pytest
from cudnn_without_gpu import GENERATIONS, plans

from xpconv.cuda.problems import FORWARD, NARROW, OPERANDS, TYPES

pytest.importorskip("nvidia.cudnn", reason='needs pip install "xpconv[cudnn]"')
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")

CASES = {  # size, window, then images, channels, filters, groups
    "two axes": ([56, 56], {"kernel": 3, "pad": 1}, 8, 64, 64, 1),
    "points": ([56, 56], {"kernel": 1}, 8, 64, 256, 1),
    "three channels": ([224, 224], {"kernel": 7, "stride": 2, "pad": 3}, 8, 3, 64, 1),
    "uneven padding": ([56, 56], {"kernel": 3, "stride": 2, "pad": "same"}, 8, 64, 128, 1),
    "elements left over": ([57, 55], {"kernel": 2, "stride": 3}, 8, 64, 128, 1),
    "more padding than taps": ([7, 7], {"kernel": 1, "pad": 3}, 2, 8, 8, 1),
    "groups": ([28, 28], {"kernel": 3, "pad": 1}, 8, 64, 128, 4),
    "depthwise": ([28, 28], {"kernel": 3, "pad": 1}, 8, 64, 64, 64),
    "odd numbers": (
        [11, 9],
        {"kernel": [3, 2], "stride": [3, 2], "dilation": [2, 3], "pad": [[1, 2], [0, 3]]},
        3,
        5,
        7,
        1,
    ),
    "one axis": ([100], {"kernel": 5, "pad": [[0, 2]]}, 8, 16, 32, 1),
    "three axes": ([16, 16, 16], {"kernel": 3, "pad": 1}, 2, 16, 32, 1),
}
KINDS = [("float32", "tf32"), *((dtype, "float32") for dtype in TYPES)]
BIASED = [(FORWARD, (dtype, "float32", True)) for dtype in NARROW]


@pytest.mark.parametrize("limit", [0, 1 << 28])
@pytest.mark.parametrize("capability", GENERATIONS)
def test_every_problem_is_planned_in_any_workspace(capability, limit):
    asked = [(name, *told) for name in CASES for told in (*itertools.product(OPERANDS, KINDS), *BIASED)]
    problems = [[direction, *CASES[name], *kind] for name, direction, kind in asked]
    for (name, direction, kind), workspace in zip(asked, plans(capability, problems, limit), strict=True):
        if workspace is None:
            assert capability < 80 and kind[0] == "bfloat16", (name, direction, kind)  # there are no units for it
        else:
            assert workspace <= limit
