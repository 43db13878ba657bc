"""cuDNN itself, planning for GPUs that need not be there: a program that prints what it plans, as JSON.

Plans are made from a device's description alone. One part of cuDNN will not be loaded without the driver's library,
though it calls nothing of it, so it is given one that has the names.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

DRIVER = """
cuDriverGetVersion cuGetErrorString cuGetProcAddress_v2 cuInit cuModuleGetFunction cuModuleLoadData cuModuleUnload
cuTensorMapEncodeIm2col cuTensorMapEncodeTiled
"""
DEVICE = {
    "deviceName": "a GPU",
    "smCountOrigin": 0,
    "driverVer": 13000,
    "maxGridSize": [2147483647, 65535, 65535],
    "maxBlockSize": [1024, 1024, 64],
    "regsPerBlock": 65536,
    "smClockRateKHz": 1980000,
    "memClockRateKHz": 2619000,
    "memoryBusWidth": 5120,
    "l2CacheSize": 52428800,
    "warpSize": 32,
    "maxSharedMemoryPerBlock": 49152,
    "reservedSharedMemoryPerBlock": 1024,
    "maxRegistersPerSM": 65536,
    "pciDeviceId": 0,
    "maxCtasPerSM": 32,
    "maxThreadsPerBlock": 1024,
    "isTccDriver": 0,
    "supportCoopLaunch": 1,
    "cudaDeviceId": 0,
    "totalGlobalMem": 85028765696,
    "oversizedSharedMemoryPerBlock": 0,
}
GENERATIONS = {  # what differs, by compute capability
    75: {"multiProcessorCount": 40, "maxSharedMemoryPerBlockOptin": 65536, "maxThreadsPerSM": 1024},
    80: {"multiProcessorCount": 108, "maxSharedMemoryPerBlockOptin": 166912, "maxThreadsPerSM": 2048},
    90: {"multiProcessorCount": 132, "maxSharedMemoryPerBlockOptin": 232448, "maxThreadsPerSM": 2048},
    100: {"multiProcessorCount": 148, "maxSharedMemoryPerBlockOptin": 232448, "maxThreadsPerSM": 2048},
}


def plans(capability, problems, limit=1 << 28):
    """Plan problems, each a list of a Problem's fields, for a GPU of this compute capability, in another process.

    Returns for each the workspace of its plan, or None where there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        code = pathlib.Path(folder, "driver.c")
        code.write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in DRIVER.split()))
        shared = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", pathlib.Path(folder, "libcuda.so.1")]
        subprocess.run(["cc", code, *shared], check=True)
        environment = os.environ | {"LD_LIBRARY_PATH": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps([capability, problems, limit]),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def main():
    from xpconv.cuda import cudnn
    from xpconv.cuda.problems import Problem
    from xpconv.windows import window

    capability, problems, limit = json.load(sys.stdin)
    library = cudnn.library()
    device = DEVICE | {"deviceVer": 10 * capability} | GENERATIONS[capability]
    properties = library.create_device_properties(json.dumps(device))
    library.pygraph = functools.partial(library.pygraph, device_property=properties, sm_version=capability)
    cudnn._handle = lambda device: None
    found = []
    for direction, size, options, *numbers in problems:
        problem = Problem(direction, window(size, **options), *numbers)
        with warnings.catch_warnings(action="ignore"):
            planned = cudnn._planned(problem, limit, 0)
        found.append(planned and planned.workspace)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
