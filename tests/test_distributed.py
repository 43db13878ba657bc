"""Training by several processes: real ones, where MPI is installed, and threads in their place everywhere."""

import contextlib
import ctypes
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import together
from cases import normal, positive

import xpconv
from xpconv.cuda import collectives
from xpconv.data import Augmented, InMemory
from xpconv.distributed import ranks as ranks_module
from xpconv.distributed.data_parallel import Buckets, DataParallel
from xpconv.distributed.ranks import Ranks, portion
from xpconv.shards import Shard, bounds
from xpconv.testing import assert_close
from xpconv.training import Checkpoints, Progress, Trainer

HERE = pathlib.Path(__file__).parent
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))


class Threads:
    """As much of mpi4py's communicator as `Ranks` calls, between threads."""

    def __init__(self, count):
        self.barrier, self.slots, self.here = threading.Barrier(count, timeout=60), [None] * count, threading.local()

    def Get_rank(self):
        return self.here.rank

    def Get_size(self):
        return len(self.slots)

    def allgather(self, value):
        self.slots[self.here.rank] = value
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found

    def bcast(self, value, root):
        return self.allgather(value)[root]

    def Iallreduce(self, mine, sums):
        sums[...] = sum(self.allgather(mine))
        return types.SimpleNamespace(Wait=lambda: None)

    def Iprobe(self):
        return False


def run(count, function):
    """Call a function with each of so many ranks, on threads, and return what they return; raise what one raises."""
    comm, results, errors = Threads(count), [None] * count, []

    def work(rank):
        comm.here.rank = rank
        try:
            results[rank] = function(Ranks(comm))
        except BaseException as error:
            errors.append(error)
            comm.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return results


def alone(**options):
    """The same training by a plain trainer."""
    network = together.network("float64")
    options = {"epochs": 5, "batch_size": together.BATCH, "rng": 7} | options
    trainer = Trainer(network, xpconv.Momentum(0.01), together.samples(), together.samples(), **options)
    return trainer.train(), network


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_train_as_one(count):
    history, network = alone()
    trainers = run(count, lambda ranks: trained(together.trainer(ranks, "float64", epochs=5, bucket=100)))
    for trainer in trainers:
        np.testing.assert_allclose(trainer.history.loss, history.loss, rtol=1e-12)
        assert trainer.history.test_accuracy == history.test_accuracy
        assert trainer.history.images == history.images == 5 * together.SAMPLES
        for name, array in network.state.items():
            assert_close(trainer.network.state[name], array, rtol=1e-10, atol=1e-12)
            assert np.array_equal(trainer.network.state[name], trainers[0].network.state[name])


def trained(trainer):
    trainer.train()
    return trainer


def test_on_another_library():
    pytest.importorskip("array_api_strict")
    history, _ = alone()
    for trainer in run(2, lambda ranks: trained(together.trainer(ranks, "float64", 5, backend="array-api-strict"))):
        np.testing.assert_allclose(trainer.history.loss, history.loss, rtol=1e-12)


def test_every_process_begins_with_the_state_of_the_first():
    def different(ranks):
        trainer = together.trainer(ranks, "float64", epochs=2, rng=ranks.rank)
        trainer.network.params["b1"] = trainer.network.params["b1"] + ranks.rank
        return trained(trainer)

    first, second = run(2, different)
    assert first.history.loss == second.history.loss
    np.testing.assert_array_equal(first.network.params["b1"], second.network.params["b1"])


def test_augmented_images_are_those_of_the_whole_batch():
    def moved(x, rng):
        return x if rng is None else x + rng.standard_normal(x.shape)

    def source():
        return Augmented(InMemory(*together.samples(), together.BATCH, 7), moved, 5)

    network = together.network("float64")
    history = Trainer(network, xpconv.Momentum(0.01), source(), epochs=2).train()
    for trainer in run(
        2,
        lambda ranks: trained(
            DataParallel(ranks, together.network("float64"), xpconv.Momentum(0.01), source(), epochs=2)
        ),
    ):
        np.testing.assert_allclose(trainer.history.loss, history.loss, rtol=1e-12)


def test_one_process_shows_and_saves(tmp_path):
    def saving(ranks):
        callbacks = [Progress(), Checkpoints(tmp_path)]
        return trained(together.trainer(ranks, "float64", epochs=2, callbacks=callbacks))

    first, second = run(2, saving)
    assert [type(callback).__name__ for callback in first.callbacks] == ["Progress", "Checkpoints"]
    assert [type(callback).__name__ for callback in second.callbacks] == ["Checkpoints"]
    history, _ = alone(epochs=3)
    resumed = together.trainer(Ranks(), "float64", epochs=3)
    resumed.callbacks.append(Checkpoints(tmp_path))
    resumed.steps = 3 * len(resumed.source)
    assert resumed.callbacks[-1].resume(resumed)
    assert len(resumed.train().loss) == len(history.loss)
    np.testing.assert_allclose(resumed.history.loss, history.loss, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"reduction": "none"}, {"weight": np.ones(5)}, {"ignore_index": 2}],
    ids=lambda options: next(iter(options)),
)
def test_a_loss_that_is_no_sum_of_those_of_parts_is_refused(options):
    def refused(ranks):
        network = together.network("float64")
        network.last_layer = xpconv.SoftmaxWithLoss(**options)
        with pytest.raises(ValueError, match="give reduction='sum'"):
            DataParallel(ranks, network, xpconv.Momentum(0.01), together.samples(), epochs=1)

    run(2, refused)


def test_a_sum_of_losses_is_added_up():
    def made(trainer_of):
        network = together.network("float64")
        network.last_layer = xpconv.SoftmaxWithLoss(reduction="sum")
        return trained(trainer_of(network, xpconv.Momentum(1e-4), together.samples(), epochs=2, batch_size=20, rng=7))

    history = made(Trainer).history
    for trainer in run(2, lambda ranks: made(lambda *given, **options: DataParallel(ranks, *given, **options))):
        np.testing.assert_allclose(trainer.history.loss, history.loss, rtol=1e-12)


def test_buckets_hold_one_dtype_each_and_narrow_numbers_are_added_in_float32():
    def added(ranks):
        sums = Buckets(ranks, 64)
        sums.add({"a": np.full((2, 3), 1.0), "b": np.full((4,), 1.0, np.float32)})
        sums.add({"c": np.full((5,), 1.0 + ranks.rank, np.float16), "d": np.full((100,), 2.0, np.float16)})
        return sums.finished()

    for found in run(3, added):
        assert_close(found["a"], np.full((2, 3), 3.0))
        assert_close(found["b"], np.full((4,), 3.0, np.float32))
        assert_close(found["c"], np.full((5,), 6.0, np.float16))
        assert_close(found["d"], np.full((100,), 6.0, np.float16))


@pytest.mark.parametrize("sizes", [(4, 3), (7, 0), (0, 7)])
def test_batch_norm_of_shards_is_that_of_the_batch(backend, sizes):
    x, gamma, beta, dy = normal(7, 3, 4), positive(3), normal(3, seed=1), normal(7, 3, 4, seed=2)
    (y, mean, var), pullback = xpconv.vjp(xpconv.batch_norm, x, gamma, beta, return_statistics=True)
    dx, dgamma, dbeta = pullback(dy)

    def part(ranks):
        start, stop = (0, sizes[0]) if ranks.rank == 0 else (sizes[0], 7)
        arrays = [backend.asarray(array) for array in (x[start:stop], gamma, beta)]
        shard = Shard(start, stop, 7, ranks.total)
        found, back = xpconv.vjp(xpconv.batch_norm, *arrays, return_statistics=True, shard=shard)
        gradients = back(backend.asarray(dy[start:stop]))
        for given, expected in zip((*found, gradients[0]), (y[start:stop], mean, var, dx[start:stop]), strict=True):
            assert_close(given, expected, like=arrays[1])
        return [xpconv.to_numpy(array) for array in gradients[1:]]

    for total, expected in zip(np.sum([*map(np.stack, run(2, part))], axis=0), (dgamma, dbeta), strict=True):
        assert_close(total, expected)


def test_dropout_of_shards_is_that_of_the_batch():
    x = positive(7, 5)
    whole = xpconv.dropout(x, rng=np.random.default_rng(2))
    for start, stop in ((0, 3), (3, 7), (4, 4)):
        shard = Shard(start, stop, 7, lambda array: array)
        assert_close(xpconv.dropout(x[start:stop], rng=np.random.default_rng(2), shard=shard), whole[start:stop])


@pytest.mark.parametrize("samples, count", [(10, 3), (3, 4), (0, 2), (8, 8)])
def test_parts_make_up_the_whole(samples, count):
    found = [bounds(samples, rank, count) for rank in range(count)]
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == samples
    assert max(stop - start for start, stop in found) - min(stop - start for start, stop in found) <= 1


def test_processors_are_shared_out():
    assert [portion((0, 1, 2, 5), place, 2) for place in range(2)] == [(0, 1), (2, 5)]
    assert [portion((3, 4), place, 3) for place in range(3)] == [(3,), (4,), (3,)]
    assert portion((6,), 0, 1) == (6,)
    assert portion((), 0, 2) == ()


def test_alone_nothing_is_imported(monkeypatch):
    for name in ranks_module.LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with Ranks() as ranks:
        assert (ranks.rank, ranks.count, ranks.device("cupy"), ranks.shared(3), ranks.largest(4)) == (
            0,
            1,
            "cupy",
            3,
            4,
        )
        assert ranks.total(np.ones(2)).tolist() == [1, 1]


def test_under_mpiexec_a_missing_mpi4py_is_named(monkeypatch):
    monkeypatch.setenv(ranks_module.LAUNCHERS[0], "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r'need mpi4py .*: pip install "xpconv\[mpi\]"'):
        Ranks()
    assert ranks_module.survey()[0] == "-"


# --- Devices, as far as they can be stood in for


def test_each_process_of_a_machine_has_its_device(monkeypatch):
    monkeypatch.setattr(collectives, "device_count", lambda: 2)
    assert run(3, lambda ranks: ranks.device("cupy")) == ["cupy:0", "cupy:1", "cupy:0"]
    assert run(2, lambda ranks: ranks.device("numpy")) == ["numpy", "numpy"]


def test_the_way_of_cupys_sums_is_told(monkeypatch):
    monkeypatch.setattr(collectives, "device_count", lambda: 0)
    assert collectives.way(True) == "through the host (no CUDA device)"
    monkeypatch.setattr(collectives, "device_count", lambda: 1)
    monkeypatch.setattr(collectives, "nccl", lambda: None)
    assert collectives.way(True) == "from the device"
    assert collectives.way(False) == "through the host (no NCCL, and MPI is not CUDA-aware)"
    monkeypatch.setattr(collectives, "nccl", lambda: 1)
    assert collectives.way(False).startswith("by NCCL")


class Stream:
    ptr = 0

    def __init__(self, non_blocking=False):
        self.waited = []

    def record(self):
        return self

    def wait_event(self, event):
        self.waited.append(event)

    def synchronize(self):
        self.waited.append(self)


class OnDevice(np.ndarray):
    """CuPy's array, as far as it is added up."""

    device = None

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)


OnDevice.__module__ = "cupy"


class Device(contextlib.nullcontext):
    def __init__(self, number):
        super().__init__()
        self.id = number


class Nccl:
    """NCCL, as CuPy calls it: it is given memory, how many numbers of which type, and 0 for a sum."""

    def get_unique_id(self):
        return "name"

    def communicator(self, comm):
        def allReduce(send, receive, count, kind, operation, stream):
            assert operation == 0
            dtype = {6: np.float16, 7: np.float32, 8: np.float64}[kind]
            memory = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(receive)
            assert send == receive
            mine = np.frombuffer(memory, dtype)
            mine[...] = sum(comm.allgather(mine.copy()))

        return types.SimpleNamespace(allReduce=allReduce)


@pytest.mark.parametrize(
    "way, devices", [("nccl", [0, 1]), ("device", [0, 0]), ("device", [0, 1]), ("host", [0, 0])], ids=str
)
def test_arrays_on_devices_are_added_up(monkeypatch, way, devices):
    stream, found = Stream(), Nccl()
    cuda = types.SimpleNamespace(Stream=Stream, get_current_stream=lambda: stream)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(collectives, "nccl", lambda: found if way == "nccl" else None)

    def added(ranks):
        comm = ranks._comm
        found.NcclCommunicator = lambda count, name, rank: found.communicator(comm)
        array = np.full((3,), ranks.rank + 1.0, np.float32).view(OnDevice)
        array.device = Device(devices[ranks.rank])
        used = collectives.Devices(comm, array, cuda_aware=way == "device")
        return used.usable, (collectives.handles(array) and used.adding(array)() if used.usable else None)

    for usable, total in run(2, added):
        assert usable == (way != "host")
        if usable:
            np.testing.assert_array_equal(total, np.full(3, 3.0, np.float32))


# --- Jobs of mpiexec


@pytest.fixture
def mpiexec(tmp_path):
    """Run together.py on so many ranks; return the exit status, what it wrote, and stderr."""
    if importlib.util.find_spec("mpi4py") is None or MPIEXEC is None:
        pytest.skip('there is no mpi4py or no mpiexec: pip install "xpconv[mpi]"')

    def job(count, dtype="float64", *death, directory="kept"):
        out = tmp_path / "losses.json"
        out.unlink(missing_ok=True)
        command = [
            MPIEXEC,
            "-n",
            str(count),
            sys.executable,
            HERE / "together.py",
            out,
            dtype,
            tmp_path / directory,
            *death,
        ]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
            "XPCONV_NUM_THREADS": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        }
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=120)
        return done.returncode, json.loads(out.read_text()) if out.exists() else None, done.stderr

    return job


@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-12), ("float32", 1e-6)])
def test_processes_train_as_one(mpiexec, dtype, rtol):
    alone = together.trainer(Ranks(), dtype).train()
    assert len(alone.loss) == 100
    for count in (2, 4):
        status, found, error = mpiexec(count, dtype, directory=str(count))
        assert status == 0, error
        np.testing.assert_allclose(found[0], alone.loss, rtol=rtol)
        assert found[1:] == [alone.test_accuracy, alone.images]


@pytest.mark.parametrize(
    "command, expected, words",
    [
        ("raise", 1, "OSError: the disk is full"),
        ("nan", 1, "FloatingPointError: step 7: the first NaN in"),
        ("SIGKILL", 137, "signal 9"),
        ("SIGTERM", 143, ""),
        ("SIGUSR1", 138, ""),
    ],
)
def test_when_a_process_dies_all_end_and_another_number_goes_on(mpiexec, tmp_path, command, expected, words):
    status, found, error = mpiexec(4 if command == "SIGTERM" else 2, "float64", command, "1")
    assert (status, found) == (expected, None), error
    assert words in error
    resumed = together.trainer(Ranks(), "float64", callbacks=[Checkpoints(tmp_path / "kept")])
    assert resumed.callbacks[-1].resume(resumed)
    np.testing.assert_allclose(resumed.train().loss, alone(epochs=25)[0].loss, rtol=1e-12)
