"""What to do when numbers run away: stop before the weights do, and say where it began."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from array_api_compat import array_namespace

from xpconv.arrays.libraries import Array
from xpconv.training.trainer import Callback, Trainer


class StopAtNaN(Callback):
    """Ends the training by FloatingPointError before a step whose loss or gradients are not finite changes a weight.

    It goes first among the callbacks, behind `LossScaling` alone, so that they are given finite gradients. To look at a
    number of each step waits for the device. The message says which step it was and which layer was the first to give
    an infinity and a NaN, for which the step is computed once more: exactly, but for other elements that dropout drops.
    """

    def on_gradients(self, trainer: Trainer, grads: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the gradients, all of them finite."""
        total: Array = trainer.network.last_layer.loss
        for gradient in grads.values():
            total = total + array_namespace(gradient).sum(gradient)
        if not math.isfinite(float(total)):  # which large gradients may be together, and then there are no places
            before = dict(trainer.network.state)
            places = dict(_not_finite(trainer, grads))
            trainer.network.state.update(before)  # without what this step did to running means
            if places:
                firsts = {
                    kind: next((place for place, k in places.items() if k == kind), "") for kind in ("inf", "NaN")
                }
                where = ", ".join(f"the first {kind} in {place}" for kind, place in firsts.items() if place)
                raise FloatingPointError(f"step {trainer.steps_done + 1}: {where}")
        return grads


def _not_finite(trainer: Trainer, grads: Mapping[str, Array]) -> Iterator[tuple[str, str]]:
    """Yield the places of this step where numbers are not finite, in the order of computing, and what is there."""
    assert trainer.batch is not None
    x, t = trainer.batch
    network = trainer.network
    places = [(f"the parameter {name}", array) for name, array in network.params.items()]
    places.append(("the batch", x))
    if x.shape[0]:
        for name, layer in network.layers.items():
            x = layer.forward(x, True)
            places.append((f"the output of {name}", x))
        places.append(("the loss", network.last_layer.forward(x, t)))
        dx = network.last_layer.backward()
        places.append(("the gradient of the scores", dx))
        for name, layer in reversed(network.layers.items()):
            dx = layer.backward(dx)
            places += [(f"the gradient of {p} of {name}", getattr(layer, f"d{p}")) for p in layer.parameters]
            places.append((f"the gradient that {name} passes on", dx))
    places += [(f"the gradient of {name} by all samples", array) for name, array in grads.items()]  # of all processes
    for place, array in places:
        xp = array_namespace(array)
        if xp.any(xp.isnan(array)):
            yield place, "NaN"
        elif not xp.all(xp.isfinite(array)):
            yield place, "inf"
