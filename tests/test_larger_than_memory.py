"""A file trains in a fraction of its size: at most 1.5 GB of memory for 8 GB, all that is resident counted.

By default the file has half a gigabyte; ``XPCONV_DATA_GB=8`` makes it the whole size. It is sparse: its zeros take
no room on a disk that has sparse files, and are read like any others.
"""

import os
import shutil
import subprocess
import sys

import pytest

GIGABYTES = float(os.environ.get("XPCONV_DATA_GB", "0.5"))
SHARE = 1.5 / 8

PROGRAM = """
import sys
import numpy as np
import xpconv
from xpconv.data import Indexed, MappedArray
from xpconv.training import Trainer

def resident(kind):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind + ":"))

folder, samples = sys.argv[1], int(sys.argv[2])
np.lib.format.open_memmap(f"{folder}/x.npy", "w+", np.uint8, (samples, 3, 64, 64)).flush()
np.save(f"{folder}/t.npy", np.random.default_rng(0).integers(10, size=samples, dtype=np.uint8))
rng = np.random.default_rng(0)
layers = [
    xpconv.Convolution(rng.normal(0, 0.1, (4, 3, 8, 8)).astype(np.float32), np.zeros(4, np.float32), stride=8),
    xpconv.Relu(),
    xpconv.Affine(rng.normal(0, 0.1, (256, 10)).astype(np.float32), np.zeros(10, np.float32)),
]
network = xpconv.Network(layers)
before = resident("VmHWM")
source = Indexed(network, MappedArray(f"{folder}/x.npy"), MappedArray(f"{folder}/t.npy"), batch_size=100, rng=0)
history = Trainer(network, xpconv.SGD(0.01), source, epochs=1, sample=100).train()
print(history.images, before, resident("VmHWM"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the largest resident set from /proc")
def test_peak_of_resident_memory(tmp_path):
    size = int(GIGABYTES * 2**30)
    if shutil.disk_usage(tmp_path).free < 1.1 * size:
        pytest.skip(f"{tmp_path} has no room for {GIGABYTES} GB")
    samples = size // (3 * 64 * 64)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(tmp_path)
    assert done.returncode == 0, done.stderr
    images, before, peak = map(int, done.stdout.split())
    print(f"{size / 1e9:.2f} GB trained, {before / 1e6:.0f} MB resident before and {peak / 1e6:.0f} MB at the most")
    assert images == samples
    assert peak - before < SHARE * size
    assert size < 8 * 2**30 or peak < 1.5e9
