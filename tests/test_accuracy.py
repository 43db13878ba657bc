"""How far float32 results of "auto" are from float64, over random layers, and that they repeat bit for bit.

The default looks at some layers; XPCONV_LAYERS=500 at so many, and with -s it says what was the worst of each.
"""

import math
import os
import subprocess
import sys
from collections import defaultdict

import numpy as np
import reference as ref

import xpconv
from xpconv.algorithms import Plan
from xpconv.selection.model import choose, rooms
from xpconv.windows import window

LAYERS = int(os.environ.get("XPCONV_LAYERS", 30))
# What the docstring of `conv` promises
BOUNDS = {"direct": 2e-5, "depthwise": 5e-6, "fft": 5e-6, "winograd": 5e-5}


def layer(seed):
    """Shapes of x and weight, and options: one in three as Winograd, one in three as Fourier likes it."""
    rng = np.random.default_rng(seed)
    like = ("winograd", "fft", "anything")[seed % 3]
    axes = 2 if like == "winograd" else int(rng.integers(1, 4))
    narrow = like == "anything"
    groups = int(rng.choice([1, 1, 2, 4])) if narrow else 1
    channels, filters = (int(n) * groups for n in (rng.integers(1, 13, 2) if narrow else rng.integers(32, 65, 2)))
    if like == "fft" and rng.random() < 0.3:
        groups = filters = channels  # depthwise
    most = {1: 40, 2: 9, 3: 5}[axes] if like == "fft" else 5
    kernel = [3 if like == "winograd" else int(rng.integers(min(4, most) if like == "fft" else 1, most + 1))] * axes
    stride, dilation = (
        [int(n) for n in rng.integers(1, 3, axes)] if like == "anything" else [1] * axes for _ in range(2)
    )
    pad = [int(rng.integers(0, k)) for k in kernel]
    least = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    more = {1: 150, 2: 14, 3: 5}[axes]
    size = [int(n) + int(rng.integers(more // 3, more + 1)) for n in least]
    shapes = (2, channels, *size), (filters, channels // groups, *kernel)
    return shapes, {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}


def taken(x, weight, groups, **options):
    """The name of the algorithm that "auto" takes."""
    plan = Plan(window(x.shape[2:], weight.shape[2:], **options), groups)
    last, filters = np.moveaxis(x, 1, -1), weight.shape[0]
    way = choose("auto", last, filters, plan)
    return next(name for name, other in rooms(last, filters, plan).items() if other == way)


def scale(terms, *arrays):
    """The standard deviation of sums of so many products of independent numbers."""
    return math.sqrt(terms) * math.prod(float(np.sqrt(np.mean(np.square(a)))) for a in arrays)


def errors(seed):
    """Which algorithm, and the largest errors of y, dx and dw, in standard deviations."""
    shapes, options = layer(seed)
    rng = np.random.default_rng(seed)
    x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    y, pullback = xpconv.vjp(xpconv.conv, x, weight, **options)
    dy = rng.standard_normal(y.shape, dtype=np.float32)
    wide = [a.astype(np.float64) for a in (x, weight, dy)]
    wanted = ref.conv(*wide[:2], **options), *ref.conv_gradients(wide[2], *wide[:2], **options)[:2]
    of_y, of_dx = math.prod(weight.shape[1:]), math.prod(weight.shape[2:]) * len(weight) // options["groups"]
    scales = scale(of_y, x, weight), scale(of_dx, dy, weight), scale(dy.size // dy.shape[1], x, dy)
    found = (y, *pullback(dy))
    assert all(a.dtype == np.float32 and a.shape == b.shape for a, b in zip(found, wanted, strict=True))
    apart = [float(np.max(np.abs(a - b))) / s for a, b, s in zip(found, wanted, scales, strict=True)]
    return taken(x, weight, **options), apart


def test_float32_errors_stay_within_the_documented_bound(monkeypatch):
    monkeypatch.setattr("xpconv.execution.products.small_product", lambda: 1_000_000)
    worst = defaultdict(lambda: [0.0, 0.0, 0.0])
    count = defaultdict(int)
    for seed in range(LAYERS):
        name, apart = errors(seed)
        assert max(apart) <= max(BOUNDS.values()), f"layer {seed}, {layer(seed)}: {apart}"
        assert apart[0] <= BOUNDS[name], f"layer {seed}, {layer(seed)}, by {name}: {apart}"
        worst[name] = [max(pair) for pair in zip(worst[name], apart, strict=True)]
        count[name] += 1
    for name, largest in worst.items():
        print(f"\n{name}: {count[name]} layers, y, dx and dw within", *(f"{e:.1e}" for e in largest), end="")
    assert {"direct", "winograd", "depthwise"} <= set(count)  # and "fft", unless compiled loops do its work


REPEATED = """
import hashlib
import numpy as np
import xpconv
digest = hashlib.sha256()
for channels, kernel, groups in ((32, 3, 1), (64, 7, 1), (16, 5, 1), (32, 7, 32), (8, 3, 8)):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, channels, 28, 28), dtype=np.float32)
    weight = rng.standard_normal((channels, channels // groups, kernel, kernel), dtype=np.float32)
    y, pullback = xpconv.vjp(xpconv.conv, x, weight, pad="same", groups=groups)
    for array in (y, *pullback(y)):
        digest.update(np.ascontiguousarray(array))
print(digest.hexdigest())
"""


def test_two_processes_give_identical_bits():
    runs = [subprocess.run([sys.executable, "-c", REPEATED], capture_output=True, text=True, check=True) for _ in "ab"]
    assert len(runs[0].stdout.strip()) == 64
    assert runs[0].stdout == runs[1].stdout
