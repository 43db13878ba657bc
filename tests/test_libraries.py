"""What is asked of each library beyond the standard, where it is not installed or has no GPU: with stand-ins.

A stand-in has the few names that are used, as the library documents them, and writes down how it was used. The
libraries themselves are put to the tests of every operator.
"""

import sys
import types

import numpy as np
import pytest
from cases import normal

from xpconv.arrays import Backend, libraries
from xpconv.arrays.libraries import (
    at_hand,
    device_name,
    device_of,
    differentiable,
    erfc_of,
    overlapping_view,
    strictest,
    synchronize,
    to_numpy,
)
from xpconv.testing import assert_close


def of_module(name, **members):
    """A class that comes from this module."""
    return type("Thing", (types.SimpleNamespace,), {"__module__": name, **members})


@pytest.fixture
def cupy(monkeypatch):
    """CuPy with two GPUs, the second in use; `waited` has the devices whose streams were waited for."""
    device = of_module("cupy.cuda.device")
    waited = []

    def current_stream(index):
        return types.SimpleNamespace(is_capturing=lambda: module.capturing, synchronize=lambda: waited.append(index))

    def properties(index):
        return {"name": f"GPU number {index}".encode()}

    def as_strided(array, shape, strides):
        return module.ndarray(host=np.lib.stride_tricks.as_strided(array.host, shape, strides))

    def array(host, index=1):
        return module.ndarray(host=host, device=device(id=index), shape=host.shape, strides=host.strides)

    module = types.SimpleNamespace(
        array=array,
        ndarray=of_module("cupy", get=lambda self: self.host.copy()),
        cuda=types.SimpleNamespace(
            Device=lambda index=1: device(id=index),
            get_current_stream=current_stream,
            runtime=types.SimpleNamespace(getDeviceCount=lambda: 2, getDeviceProperties=properties),
        ),
        lib=types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=as_strided)),
        waited=waited,
        capturing=False,
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def torch(monkeypatch):
    """PyTorch with one GPU and one differentiable function at a time: y, and what backward makes of its gradient."""
    waited, state = [], types.SimpleNamespace(enabled=True, capturing=False)

    def device(flag):
        kind, _, index = flag.partition(":")
        if kind not in ("cpu", "cuda"):
            raise RuntimeError(f"Expected one of cpu, cuda device type at start of device string: {kind}\nand so on")
        return of_module("torch", __str__=lambda self: flag)(type=kind, index=index)

    def tensor(host, flag="cpu", *, requires_grad=False):
        steps = tuple(step // host.itemsize for step in host.strides)  # PyTorch counts in elements
        return module.Tensor(
            host=host, device=device(flag), shape=host.shape, steps=steps, requires_grad=requires_grad, attached=True
        )

    def as_strided(self, shape, steps):
        strides = [step * self.host.itemsize for step in steps]
        return module.Tensor(host=np.lib.stride_tricks.as_strided(self.host, shape, strides))

    class Function:
        @classmethod
        def apply(cls, *arguments):
            context = types.SimpleNamespace(unmarked=())
            context.save_for_backward = lambda *arrays: setattr(context, "saved_tensors", arrays)
            context.mark_non_differentiable = lambda *arrays: setattr(context, "unmarked", arrays)
            return cls.forward(context, *arguments), lambda *dy: cls.backward(context, *dy), context

    on_host = types.SimpleNamespace
    members = {
        "as_strided": as_strided,
        "cpu": lambda self: on_host(numpy=lambda: self.host),
        "detach": lambda self: module.Tensor(**{**vars(self), "attached": False}),
        "stride": lambda self: self.steps,
    }
    module = types.SimpleNamespace(
        Tensor=of_module("torch", **members),
        autograd=types.SimpleNamespace(Function=Function),
        cuda=types.SimpleNamespace(
            get_device_name=lambda device: "a GPU",
            is_current_stream_capturing=lambda: state.capturing,
            synchronize=waited.append,
        ),
        device=device,
        get_default_device=lambda: "cuda:0",
        is_grad_enabled=lambda: state.enabled,
        special=types.SimpleNamespace(erfc="torch's erfc"),
        state=state,
        tensor=tensor,
        waited=waited,
    )
    monkeypatch.setitem(sys.modules, "torch", module)
    libraries._torch_function.cache_clear()
    yield module
    libraries._torch_function.cache_clear()


@pytest.fixture
def jax(monkeypatch):
    """JAX with a CPU and two GPUs, which come first."""

    def devices(platform=None):
        found = {"gpu": ["gpu 0", "gpu 1"], "cpu": ["cpu 0"]}
        return found[platform or "gpu"]

    def array(platform):
        place, waited = types.SimpleNamespace(platform=platform), []
        made = module.Array(device=place, waited=waited)
        made.block_until_ready = lambda: waited.append(platform) or made
        return made

    config = types.SimpleNamespace(jax_enable_x64=False)
    config.update = lambda name, value: setattr(config, name, value)
    module = types.SimpleNamespace(Array=of_module("jaxlib"), array=array, config=config, devices=devices)
    monkeypatch.setitem(sys.modules, "jax", module)
    monkeypatch.setitem(sys.modules, "jax.scipy.special", types.SimpleNamespace(erfc="JAX's erfc"))
    return module


# --- Devices


def test_a_gpu_of_cupys_is_found_by_its_number(cupy):
    assert device_of("cupy", cupy, "").id == 1
    assert device_of("cupy", cupy, "0").id == 0
    with pytest.raises(ValueError, match="no device '2', there are 2"):
        device_of("cupy", cupy, "2")
    assert device_name(device_of("cupy", cupy, "0")) == "CUDA device 0 (GPU number 0)"


def test_a_device_of_pytorchs_is_found_by_its_name(torch):
    assert device_name(device_of("torch", torch, "cpu")) == "cpu"
    assert device_name(device_of("torch", torch, "")) == "cuda:0 (a GPU)"
    with pytest.raises(ValueError, match=r"^Expected one of .* device string: tpu$"):
        device_of("torch", torch, "tpu")


def test_a_device_of_jaxs_is_found_by_platform_and_number(jax):
    assert [device_of("jax", jax, flag) for flag in ("", "cpu", "gpu:1")] == ["gpu 0", "cpu 0", "gpu 1"]
    for flag in ("gpu:2", "cpu:1", "gpu:one"):
        with pytest.raises(ValueError, match=f"no device '{flag}', there are {1 + flag.startswith('g')}"):
            device_of("jax", jax, flag)


# --- Moving, looking and waiting


def test_arrays_come_from_a_gpu_as_they_are(cupy, torch):
    host = normal(2, 3)
    for array in (cupy.array(host), torch.tensor(host, "cuda")):
        back = to_numpy(array)
        assert_close(back, host)
        assert not np.shares_memory(back, host)


def test_what_is_on_a_gpu_is_not_looked_at(cupy, torch, jax):
    host = normal(3)
    assert at_hand(host)
    assert at_hand(torch.tensor(host))
    assert at_hand(jax.array("cpu"))
    for array in (cupy.array(host), torch.tensor(host, "cuda"), jax.array("gpu")):
        assert not at_hand(array)


def test_waiting_is_for_the_device_of_the_array(cupy, torch, jax):
    assert synchronize(cupy.array(normal(3), 0))
    assert cupy.waited == [0]
    assert synchronize(torch.tensor(normal(3)))
    assert torch.waited == []
    array = torch.tensor(normal(3), "cuda")
    assert synchronize(array)
    assert torch.waited == [array.device]
    array = jax.array("gpu")
    assert synchronize(array)
    assert array.waited == ["gpu"]


def test_work_that_is_only_noted_is_not_waited_for(cupy, torch):
    cupy.capturing = torch.state.capturing = True
    assert not synchronize(cupy.array(normal(3)))
    assert not synchronize(torch.tensor(normal(3), "cuda"))
    assert cupy.waited == torch.waited == []


def test_a_dtype_that_was_narrowed_on_the_way_is_said():
    def asarray(host, device, copy):
        return host.astype("float32")

    found = Backend("jax", types.SimpleNamespace(asarray=asarray), None)
    assert found.asarray(normal(3), "float32").dtype == np.float32
    with pytest.raises(TypeError, match=r"jax made float32 of float64; .*; call jax\.config\.update"):
        found.asarray(normal(3))


def test_jax_is_given_its_width_back(jax):
    found = Backend("jax", types.SimpleNamespace(__name__="jax.numpy"), None)
    with pytest.raises(ZeroDivisionError), strictest(found):
        assert jax.config.jax_enable_x64
        _ = 1 / 0
    assert not jax.config.jax_enable_x64


# --- Beyond the standard


def test_windows_are_views_where_strides_are_bytes_and_where_they_are_elements(cupy, torch):
    host = normal(2, 9, 3)
    wanted = np.stack([host[:, i * 2 : i * 2 + 5 : 2] for i in range(3)], axis=1)
    for array, module in ((host, None), (cupy.array(host), cupy), (torch.tensor(host), torch)):
        view = overlapping_view(array, 1, (3, 3), (2, 2))
        view = view if module is None else view.host
        assert_close(view, wanted)
        assert np.shares_memory(view, host)


def test_libraries_give_their_own_error_function(cupy, torch, jax, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupyx.scipy.special", types.SimpleNamespace(erfc="CuPy's erfc"))
    host = normal(3)
    found = [erfc_of(a) for a in (host, cupy.array(host), torch.tensor(host), jax.array("cpu"))]
    assert found == [None, "CuPy's erfc", "torch's erfc", "JAX's erfc"]


# --- PyTorch's differentiation


def dropping(calls):
    """An operator of two results that draws at random: what it keeps of x, and which elements."""

    def body(x, *, rng):
        kept = rng.integers(2, size=x.shape)
        calls.append(kept)
        y = type(x)(**{**vars(x), "host": x.host * kept})
        return (y, kept), lambda dy: (dy * kept,)

    return body


def test_pytorch_is_given_the_pullback(torch):
    calls, rng = [], np.random.default_rng(0)
    x, dy = torch.tensor(normal(40), requires_grad=True), normal(40, seed=1)
    (y, kept), backward, context = differentiable(dropping(calls), (x,), {"rng": rng})
    assert_close(y.host, x.host * calls[0])
    assert not y.attached, "a result that its own pullback may hold would never be freed"
    assert context.unmarked == (kept,)
    torch.state.enabled = False
    nothing, none, dx = backward(dy, None)
    assert nothing is none is None
    assert_close(dx, dy * calls[0])
    assert len(calls) == 1

    torch.state.enabled = True  # the gradient is to be differentiated in its turn
    rng.random(7)  # whatever was drawn since
    *_, again = backward(dy, None)
    assert len(calls) == 2
    assert_close(again, dx)


def test_pytorch_is_given_one_result_alone(torch):
    x = torch.tensor(normal(3), requires_grad=True)
    y, backward, context = differentiable(lambda x: (x, lambda dy: (2 * dy,)), (x,), {})
    assert y is not x
    assert not y.attached
    assert context.unmarked == ()
    assert_close(backward(normal(3))[2], 2 * normal(3))


@pytest.mark.parametrize(("needed", "enabled"), [(True, False), (False, True)])
def test_pytorch_is_left_alone_where_nothing_is_differentiated(torch, needed, enabled):
    torch.state.enabled = enabled
    x = torch.tensor(normal(3), requires_grad=needed)
    assert differentiable(lambda x: (x, None), (x,), {}) is x
