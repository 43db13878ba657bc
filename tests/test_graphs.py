"""Training steps as CUDA graphs, on a stand-in that writes work down and does it again on the same memory.

It refuses in a capture what CuPy refuses, does nothing before a launch, and gives memory out again as soon as it is
free. What is left to a GPU is that CUDA and CuPy keep to their manuals.
"""

import ctypes

import cupy_on_host
import numpy as np
import pytest
from cases import integers, normal
from test_callbacks import StopAfter, made, on_host, without_seconds

import xpconv
from xpconv.cuda.graphs import SIGNATURE, Graph
from xpconv.execution.recording import fed, replaced
from xpconv.optimizers import Optimizer
from xpconv.testing import assert_close
from xpconv.training import (
    Callback,
    ClipNorm,
    EarlyStopping,
    LossScaler,
    LossScaling,
    StopAtNaN,
    Trainer,
    WeightAverage,
)
from xpconv.training.replaying import Replayed

pytestmark = pytest.mark.skipif(cupy_on_host.COMPILER is None, reason="there is no C++ compiler here")

RULES = [xpconv.SGD, xpconv.Momentum, xpconv.Nesterov, xpconv.AdaGrad, xpconv.RMSProp, xpconv.Adam]
RULES += [xpconv.SGDW, xpconv.AdamW]


@pytest.fixture
def cupy(monkeypatch):
    cupy_on_host.install(monkeypatch)
    yield xpconv.backend("cupy")
    assert cupy_on_host.Capture.now is None


class Launches(Callback):
    """Counts the graphs, and the kernels and products beside them, that each step launches."""

    def __init__(self):
        self.graphs, self.others = [], []

    def on_step(self, trainer):
        here = cupy_on_host.cupy
        self.graphs.append(here.graphs)
        self.others.append(len(here.launches) + len(here.products))
        here.reset()


def same(plain, recorded):
    """See that two trainings went the same way to the last bit."""
    np.testing.assert_equal(without_seconds(recorded.state), without_seconds(plain.state))
    for name, array in plain.network.state.items():
        assert_close(recorded.network.state[name], xpconv.to_numpy(array), like=array, rtol=0)


def both(cupy, callbacks=list, optimizer=xpconv.Adam, epochs=7, **options):
    """The same training twice, and the graphs that the steps of the second one launched."""
    found = []
    for graphs in (False, True):
        counting = Launches()
        trainer = made(
            cupy, callbacks=[*callbacks(), counting], optimizer=optimizer(), graphs=graphs, epochs=epochs, **options
        )
        trainer.train()
        found.append(trainer)
        assert graphs or not any(counting.graphs)
    same(*found)
    return counting.graphs


# --- The same steps, to the last bit


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_takes_the_same_steps(cupy, rule, decay):
    """With dropout, running means, a rate that changes, and a last batch that is smaller."""
    graphs = both(cupy, optimizer=lambda: rule(0.01, weight_decay=decay))
    assert graphs == [0, 0, 0] + [2, 2, 1] * 6  # what is not of the size that was recorded is computed as ever


@pytest.mark.parametrize("kind", [xpconv.SimpleConvNet, xpconv.DeepConvNet])
def test_a_step_of_the_networks_is_two_launches(cupy, kind):
    x, t = normal(20, 1, 8, 8), integers(10, 20)
    found = []
    for graphs in (False, True):
        network = kind((1, 8, 8), hidden_size=6, rng=0, backend=cupy)
        counting, options = Launches(), {"epochs": 4, "batch_size": 4, "rng": network.layers.get("Dropout1", 0)}
        options["rng"] = getattr(options["rng"], "rng", 0)
        trainer = Trainer(network, xpconv.Adam(), (x, t), **options, graphs=graphs, callbacks=[counting])
        found.append((trainer.train().loss, on_host(dict(network.params))))
    np.testing.assert_equal(found[0], found[1])
    assert counting.graphs == [0, 0] + [2] * 18
    others = [counting.others[step] for step in range(20) if step % 5]  # before the first of an epoch it is measured
    assert others[2:] == [0] * 14


@pytest.mark.parametrize(
    "callbacks",
    [
        lambda: [StopAtNaN(), ClipNorm(0.5)],
        lambda: [LossScaling(LossScaler(4.0, interval=3))],
        lambda: [WeightAverage(0.8)],
        lambda: [EarlyStopping((normal(4, 1, 6, 6), integers(10, 4)), 3)],
    ],
    ids=["StopAtNaN and ClipNorm", "LossScaling", "WeightAverage", "EarlyStopping"],
)
def test_callbacks_act_as_ever(cupy, callbacks):
    assert 2 in both(cupy, callbacks)


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_float16_with_steps_that_are_left_out(cupy):
    assert 2 in both(cupy, lambda: [LossScaling(LossScaler(2.0**18, interval=4))], dtype="float16")


@pytest.mark.parametrize("steps", [2, 7])
def test_a_training_that_was_stopped_goes_on(cupy, steps):
    whole, first, second, third = (
        made(cupy, callbacks=[*more, Launches()], graphs=True) for more in ([], [StopAfter(steps)], [], [StopAfter(3)])
    )
    whole.train()
    first.train()
    second.seen = first.seen
    second.state = on_host(first.state)
    second.train()
    same(whole, second)
    third.train()
    third.seen, third.callbacks[0].steps = first.seen, 99
    third.state = on_host(first.state)  # beneath graphs that are there
    third.train()
    same(whole, third)


def test_weights_put_in_by_hand_are_trained_on(cupy):
    def training(graphs):
        trainer = made(cupy, graphs=graphs, epochs=2)
        trainer.train()
        trainer.network.params["b2"] = cupy.asarray(normal(10), "float32")
        trainer.epochs = 5
        trainer.train()
        return trainer

    same(training(False), training(True))


def test_on_a_gpu_too(backend):
    if not backend.name.startswith("cupy"):
        pytest.skip("only CuPy has CUDA graphs")
    plain, recorded = (made(backend, graphs=graphs, epochs=7) for graphs in (False, True))
    np.testing.assert_allclose(recorded.train().loss, plain.train().loss, rtol=1e-3)
    for name, array in plain.network.state.items():
        assert_close(recorded.network.state[name], xpconv.to_numpy(array), like=array, rtol=1e-3)
    assert recorded._update.replayed


# --- What cannot be recorded


@pytest.mark.parametrize("epochs", [3])
def test_a_layer_that_looks_at_its_numbers_is_computed_as_ever(cupy, epochs):
    class Looking(xpconv.Relu):
        def forward(self, x, train_flg=True):
            float(cupy.xp.sum(x))
            return super().forward(x, train_flg)

    found = []
    for graphs in (False, True):
        trainer = made(cupy, graphs=graphs, epochs=epochs, callbacks=[Launches()])
        trainer.network.layers["Relu1"].__class__ = Looking
        if graphs:
            with pytest.warns(UserWarning, match="without a CUDA graph: RuntimeError: .*D2H transfers are disallowed"):
                trainer.train()
            assert not any(trainer.callbacks[0].graphs)
        else:
            trainer.train()
        found.append(trainer)
    same(*found)


def test_a_rule_that_keeps_arrays_of_its_own_is_computed_as_ever(cupy):
    class Plain(Optimizer):
        def step(self, name, p, g, lr):
            self.state[name] = self.state.get(name, 0) + g
            return p - lr * self.state[name]

    plain, recorded = (made(cupy, graphs=graphs, optimizer=Plain(0.1), callbacks=[Launches()]) for graphs in (0, 1))
    plain.train()
    with pytest.warns(UserWarning, match="without a CUDA graph: it puts other arrays in the place of those"):
        recorded.train()
    same(plain, recorded)
    assert recorded.callbacks[0].graphs[3:5] == [1, 1]


def test_without_cublas_it_is_computed_as_ever(cupy, monkeypatch):
    def missing():
        raise OSError("libcublas.so.13: cannot open shared object file")

    monkeypatch.setattr("xpconv.cuda.graphs._library", missing)
    with pytest.warns(UserWarning, match="without a CUDA graph: OSError: libcublas"):
        assert not any(both(cupy))


def test_arrays_of_other_libraries_are_refused():
    with pytest.raises(ValueError, match="graphs is True, but the parameters are no arrays of CuPy's"):
        made("numpy", graphs=True)


# --- Recorded work


def test_what_is_fed_and_replaced(cupy):
    total, asked = {"sum": cupy.asarray(np.zeros(3))}, iter(range(100))

    def work(arrays):
        total["sum"] = replaced(
            total["sum"], total["sum"] + arrays["x"] * fed(lambda: [float(next(asked))], arrays["x"])[0]
        )
        return total["sum"] * 2

    replay, wanted = Replayed(work, total.values), np.zeros(3)
    given = [cupy.asarray(normal(3, seed=seed)) for seed in range(6)]
    for step, x in enumerate(given):
        wanted = wanted + xpconv.to_numpy(x) * step
        assert_close(replay({"x": x}), 2 * wanted, like=x)
        assert replay.replayed == (step > 1)
    assert_close(total["sum"], wanted, like=x)
    for seed, x in enumerate(given):
        assert_close(x, normal(3, seed=seed), like=x, rtol=0)


def test_numbers_are_floats_whatever_they_were_when_it_was_rehearsed(cupy):
    x, told = cupy.asarray(np.ones(2, np.float32)), iter([1, 2, 3, 0.5, 0.25])
    replay = Replayed(lambda arrays: arrays["x"] * fed(lambda: next(told), arrays["x"]), lambda: [])
    for wanted in (1, 2, 3, 0.5, 0.25):
        assert_close(replay({"x": x}), np.full(2, wanted, np.float32), like=x, rtol=0)


def test_recorded_work_asks_for_no_more_than_it_was_rehearsed_with(cupy):
    calls = []

    def work(arrays):
        calls.append(len(calls))
        for _ in calls[1:]:
            fed(lambda: 1.0, arrays["x"])
        return arrays["x"] + 1

    replay, x = Replayed(work, lambda: []), cupy.asarray(np.ones(2))
    replay({"x": x})
    replay({"x": x})
    with pytest.warns(UserWarning, match="asks the host for more than when it was rehearsed"):
        assert_close(replay({"x": x}), np.full(2, 2.0), like=x)
    assert replay.hopeless


def test_what_is_recorded_can_only_replace_what_is_there(cupy):
    kept, calls = {}, []

    def work(arrays):
        calls.append(1)
        kept["y"] = replaced(kept.get("y") if len(calls) < 3 else None, arrays["x"] * 2)
        return kept["y"]

    replay, x = Replayed(work, kept.values), cupy.asarray(np.ones(2))
    replay({"x": x})
    replay({"x": x})
    with pytest.warns(UserWarning, match="has to be there before it is recorded"):
        assert_close(replay({"x": x}), np.full(2, 2.0), like=x)


def test_a_product_that_cublas_refuses_is_no_node(cupy, monkeypatch):
    a = cupy.asarray(normal(3, 3))
    monkeypatch.setattr(cupy_on_host.cupy, "captured_gemm", None)
    library = type("Library", (), {"cublasSetWorkspace_v2": lambda *_: 7})
    monkeypatch.setattr("xpconv.cuda.graphs._library", lambda: library)
    with pytest.raises(RuntimeError, match="cuBLAS answers with status 7"):
        Graph(lambda: xpconv.affine(a, a))


def test_the_signature_is_that_of_cublas():
    """cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, ...), as cublas_api.h has it."""
    declared = """cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
        const void* alpha, const void* A, cudaDataType Atype, int lda, long long int strideA, const void* B,
        cudaDataType Btype, int ldb, long long int strideB, const void* beta, void* C, cudaDataType Ctype, int ldc,
        long long int strideC, int batchCount, cublasComputeType_t computeType, cublasGemmAlgo_t algo"""
    kinds = {"long": ctypes.c_longlong, "const": ctypes.c_void_p, "void*": ctypes.c_void_p}
    kinds["cublasHandle_t"] = ctypes.c_void_p
    assert [kinds.get(text.split()[0], ctypes.c_int) for text in declared.split(",")] == SIGNATURE
