"""A training that processes take part in, small and with all that they must agree on; and, run by mpiexec, a job of it.

python together.py OUT DTYPE DIRECTORY [COMMAND AT RANK]: the losses go to OUT; at step 5 a rank may die.
"""

import json
import os
import signal
import sys

import numpy as np

import xpconv
from xpconv.distributed import DataParallel, Ranks
from xpconv.layers import Affine, BatchNormalization, Convolution, Dropout, Pooling, Relu
from xpconv.networks import Network
from xpconv.training import Callback, Checkpoints, StopAtNaN

SAMPLES, BATCH = 61, 20  # the last batch has one sample, and most ranks none


def network(dtype, backend="numpy"):
    rng, backend = np.random.default_rng(3), xpconv.backend(backend)

    def draw(*shape):
        return backend.asarray(rng.standard_normal(shape) / 3, dtype)

    def full(count, value):
        return backend.asarray(np.full(count, value), dtype)

    return Network(
        [
            Convolution(draw(4, 1, 3, 3), full(4, 0.0), pad=1),
            BatchNormalization(full(4, 1.0), full(4, 0.0)),
            Relu(),
            Pooling(2, 2, stride=2),
            Dropout(0.2, rng),
            Affine(draw(36, 5), full(5, 0.0)),
        ]
    )


def samples(dtype="float64"):
    rng = np.random.default_rng(1)
    return rng.standard_normal((SAMPLES, 1, 6, 6)).astype(dtype), rng.integers(0, 5, SAMPLES)


class Die(Callback):
    def __init__(self, command):
        self.command = command

    def on_gradients(self, trainer, grads):
        if trainer.steps_done == 5:
            if self.command == "raise":
                raise OSError("the disk is full")
            if self.command == "nan":
                trainer.network.params["b1"] = trainer.network.params["b1"] * np.nan
            if self.command in ("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1"):
                os.kill(os.getpid(), getattr(signal, self.command))
        return grads


def trainer(ranks, dtype, epochs=25, callbacks=(), backend="numpy", rng=7, **options):
    optimizer = xpconv.Momentum(0.01)
    train, net = samples(dtype), network(dtype, backend)
    options = {"epochs": epochs, "batch_size": BATCH, "rng": rng, "callbacks": callbacks, **options}
    return DataParallel(ranks, net, optimizer, train, samples(dtype), **options)


def main(out, dtype, directory, command="", at="0"):
    with Ranks() as ranks:
        saved = Checkpoints(directory, every=3)
        callbacks = [StopAtNaN(), *([Die(command)] if ranks.rank == int(at) else []), saved]
        together = trainer(ranks, dtype, callbacks=callbacks)
        if ranks.rank == 0:
            saved.resume(together)
        history = together.train()
        if ranks.rank == 0:
            with open(out, "w") as file:
                json.dump([history.loss, history.test_accuracy, history.images], file)


if __name__ == "__main__":
    main(*sys.argv[1:])
