"""Every kernel compiles for every generation of GPUs, on a machine that need not have one."""

import re

import pytest

from xpconv.cuda import sources

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason='needs pip install "xpconv[cuda-check]"')
CAPABILITIES = [75, 80, 90, 100]


def compiled(file, capability):
    """The compiler's result and what it says."""
    instances = [instance.encode() for instance in sources.expressions(file)]
    _, program = nvrtc.nvrtcCreateProgram(sources.source(file).encode(), f"{file}.cu".encode(), 0, [], [])
    for instance in instances:
        nvrtc.nvrtcAddNameExpression(program, instance)
    options = [f"--gpu-architecture=sm_{capability}", "--ptxas-options=-v", *sources.OPTIONS]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    if result == nvrtc.nvrtcResult.NVRTC_SUCCESS:
        for instance in instances:
            assert nvrtc.nvrtcGetLoweredName(program, instance)[1]
        assert nvrtc.nvrtcGetCUBINSize(program)[1] > 0
    nvrtc.nvrtcDestroyProgram(program)
    return result, log.decode(errors="replace")


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("file", sources.FILES)
def test_kernels_compile_and_keep_their_numbers_in_registers(file, capability):
    result, log = compiled(file, capability)
    assert result == nvrtc.nvrtcResult.NVRTC_SUCCESS, log
    assert "warning" not in log, log
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert len(frames) >= len(sources.expressions(file))
    assert set(frames) == {("0", "0", "0")}


def test_what_does_not_compile_is_seen(monkeypatch):
    monkeypatch.setattr(
        sources, "source", lambda file: "template <typename T, int V> __global__ void lower(T *x) { x = 1.5; }"
    )
    assert compiled("lowering", 90)[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS
