"""The backend flag, moving arrays, and what is said where a backend cannot be used."""

import sys
import types

import array_api_compat
import numpy as np
import pytest
from cases import integers, normal

import xpconv
from xpconv.arrays.backends import survey
from xpconv.arrays.libraries import LIBRARIES, at_hand, device_name, strictest, synchronize
from xpconv.testing import assert_close


def pretend(monkeypatch, name, module):
    """Let a library's module be this one; None for one that is not installed."""
    monkeypatch.setitem(sys.modules, LIBRARIES[name].module, module)


# --- Moving arrays


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "uint8", "bool", "complex128", "complex64"])
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 4)], ids=str)
def test_there_and_back(backend, shape, dtype):
    host = (10 * normal(*shape)).astype(dtype)
    array = backend.asarray(host)
    assert array_api_compat.array_namespace(array) is backend.xp
    assert array_api_compat.device(array) == backend.device
    back = xpconv.to_numpy(array)
    assert type(back) is np.ndarray
    assert back.dtype == host.dtype
    assert_close(back, host)


def test_a_dtype_can_be_asked_for(backend):
    array = backend.asarray([1, 2.5], dtype="float32")
    assert_close(array, np.array([1, 2.5], np.float32), like=backend.asarray(0.0))
    assert_close(backend.asarray(integers(9, 3), "float64"), integers(9, 3).astype(float), like=array)


def test_arrays_are_copies_both_ways(backend):
    host = np.ones(3)
    array = backend.asarray(host)
    host[0] = 7
    assert_close(array, np.ones(3), like=array)
    back = xpconv.to_numpy(array)
    back[0] = 7
    assert_close(array, np.ones(3), like=array)


def test_any_order_of_memory_comes_back(backend):
    host = normal(3, 4)
    array = backend.asarray(host)
    assert_close(xpconv.to_numpy(backend.xp.permute_dims(array, (1, 0))), host.T)
    assert_close(xpconv.to_numpy(array[1:, ::2]), host[1:, ::2])
    assert_close(xpconv.to_numpy(backend.asarray(host[::-1, ::2].T)), host[::-1, ::2].T)


def test_a_tensor_that_is_differentiated_comes_back():
    torch = pytest.importorskip("torch")
    assert_close(xpconv.to_numpy(torch.ones(2, dtype=torch.float64, requires_grad=True)), np.ones(2))


def test_jax_says_when_it_would_take_away_precision():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(TypeError) as caught:
            xpconv.backend("jax").asarray(normal(3))
    finally:
        jax.config.update("jax_enable_x64", before)
    for words in ("jax made float32 of float64", "dtype='float32'", "jax_enable_x64"):
        assert words in str(caught.value)


def test_words_and_waiting(backend):
    array = backend.asarray(normal(3))
    synchronize(array)
    assert at_hand(array) == (backend.name.split(":")[0] != "cupy")
    assert device_name(backend.device) in str(backend)
    assert str(backend).startswith(backend.name)


# --- The flag


def test_numpy_is_where_arrays_are_made_first():
    assert xpconv.backend() == xpconv.backend("numpy")
    assert xpconv.backend("numpy").name == "numpy"


@pytest.mark.parametrize("flag", ["array-api-strict", "array-api-strict:CPU_DEVICE", "array-api-strict:device1"])
def test_a_device_stands_behind_a_colon(flag):
    strict = pytest.importorskip("array_api_strict")
    wanted = strict.Device(flag.partition(":")[2] or "CPU_DEVICE")
    assert xpconv.backend(flag).asarray([1.0]).device == wanted


@pytest.mark.parametrize("flag", ["numba", "", "NumPy", "numpy2", None, 3])
def test_an_unknown_backend_is_refused(flag):
    with pytest.raises(
        ValueError, match=r"unknown backend .*; choose one of numpy, cupy, torch, jax, array-api-strict"
    ):
        xpconv.backend(flag)


@pytest.mark.parametrize(
    ("flag", "devices"),
    [
        ("numpy:1", "choose one of numpy"),
        ("torch:nonsense", "choose one of torch, torch:cpu, torch:cuda"),
        ("jax:cpu:99", "choose one of jax, jax:cpu"),
        ("array-api-strict:device9", "choose one of array-api-strict, array-api-strict:device1"),
    ],
)
def test_an_unknown_device_is_refused(flag, devices):
    pytest.importorskip(LIBRARIES[flag.partition(":")[0]].module)
    with pytest.raises(ValueError) as caught:
        xpconv.backend(flag)
    assert f"backend {flag!r}" in str(caught.value)
    assert devices in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name != "numpy"])
def test_a_library_that_is_not_installed_is_said_with_its_install_line(monkeypatch, name):
    pretend(monkeypatch, name, None)
    with pytest.raises(ImportError) as caught:
        xpconv.backend(name)
    assert f"backend {name!r} needs {name}" in str(caught.value)
    assert LIBRARIES[name].install in str(caught.value)
    assert "pip install" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_library_that_cannot_reach_its_device_says_why(monkeypatch):
    def refuse():
        raise OSError("no driver\nand more lines")

    runtime = types.SimpleNamespace(getDeviceCount=refuse)
    pretend(monkeypatch, "cupy", types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)))
    with pytest.raises(RuntimeError) as caught:
        xpconv.backend("cupy")
    for words in ("backend 'cupy' is installed but cannot be used: OSError: no driver", "pip install", "NVIDIA GPU"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_refused_by_its_number(monkeypatch):
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 2)
    pretend(monkeypatch, "cupy", types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)))
    for flag in ("cupy:2", "cupy:one", "cupy:-1"):
        with pytest.raises(
            ValueError, match=rf"backend '{flag}': no device .*, there are 2; choose one of cupy, cupy:1"
        ):
            xpconv.backend(flag)


def test_an_accelerator_that_is_not_there_is_said():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RuntimeError) as caught:
        xpconv.backend("torch:cuda")
    assert "backend 'torch:cuda' is installed but cannot be used" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_survey_lists_every_library(monkeypatch):
    pretend(monkeypatch, "cupy", None)
    rows = {name: rest for name, *rest in survey()}
    assert list(rows) == list(LIBRARIES)
    assert rows["numpy"] == [np.__version__, "cpu", ""]
    version, device, mend = rows["cupy"]
    assert device == ""
    assert "pip install" in mend
    assert version


# --- The strictest mode


def test_array_api_strict_is_held_to_what_every_library_has():
    strict = pytest.importorskip("array_api_strict")
    before = strict.get_array_api_strict_flags()
    with strictest(xpconv.backend("array-api-strict")):
        array = strict.ones(3)
        with pytest.raises(RuntimeError):
            array[array > 0]
        with pytest.raises(RuntimeError):
            strict.nonzero(array)
        with pytest.raises((RuntimeError, AttributeError)):
            _ = strict.linalg.norm
    assert strict.get_array_api_strict_flags() == before


def test_jax_keeps_the_dtypes_it_is_given():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    with strictest(xpconv.backend("jax")):
        assert jax.numpy.ones(3, dtype="float64").dtype == np.float64
    assert jax.config.jax_enable_x64 == before
