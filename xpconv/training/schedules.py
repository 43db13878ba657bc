"""Schedules: what the learning rate is multiplied by at each step of a training.

A schedule is a function of the step about to be taken, from 0 on, and of how many there are in all. It remembers
nothing: a training that is resumed finds its place by the number of the step, and one schedule fits a training of
any length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, floor, pi
from typing import TypeAlias

from xpconv.optimizers.hyperparameters import number

Schedule: TypeAlias = Callable[[int, int], float]


def cosine(step: float, steps: float) -> float:
    """Let the learning rate fall from 1 to 0 times its value, along half a period of the cosine.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), equation 5, without restarts.
    """
    return (1 + cos(pi * step / steps)) / 2


def stairs(at: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> Schedule:
    """Make a schedule that multiplies the learning rate by a factor, again and again.

    Parameters
    ----------
    at : sequence of float
        When: shares of the training, each at least 0 and below 1.
    factor : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        When a number is out of range.

    References
    ----------
    He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016), section 4.2, whose 64,000 steps have
    their stairs after 32,000 and 48,000.
    """
    shares = [number("at", share, below=1) for share in at]
    factor = number("factor", factor)
    # Divided, not multiplied: 3/30 is the float 0.1, and 0.1 * 30 is not always the float 3.
    return lambda step, steps: factor ** sum(step / steps >= share for share in shares)


def warmup(schedule: Schedule, share: float = 0.1) -> Schedule:
    """Make a schedule that rises along a line to where another one starts, and then follows that one to its end.

    Parameters
    ----------
    schedule : callable
        It is spread over the steps that are left.
    share : float
        Of all steps, for the rise; at least 0 and below 1.

    Raises
    ------
    TypeError, ValueError
        When `share` is out of range.

    References
    ----------
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017), section 2.2.
    """
    share = number("share", share, below=1)

    def warmed(step: int, steps: int) -> float:
        rise = floor(share * steps)
        if step < rise:
            return (step + 1) / (rise + 1) * schedule(0, steps - rise)
        return schedule(step - rise, steps - rise)

    return warmed


def one_cycle(rise: float = 0.3, start: float = 1 / 25, end: float = 1 / 250_000) -> Schedule:
    """Make a schedule that rises to the learning rate, which may be a large one, and then falls far below its start.

    Parameters
    ----------
    rise : float
        Share of the steps, at least 0 and below 1.
    start, end : float
        What the learning rate is multiplied by at the first step and at the last.

    Raises
    ------
    TypeError, ValueError
        When a number is out of range.

    References
    ----------
    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates" (2019), here
    along cosines, as in fastai and PyTorch, and without their cycle of the momentum.
    """
    rise, start, end = number("rise", rise, below=1), number("start", start), number("end", end)

    def cycle(step: int, steps: int) -> float:
        top = rise * steps - 1
        if step < top:
            return 1 + (start - 1) * cosine(step, top)
        return end + (1 - end) * cosine(step - top, steps - 1 - top)

    return cycle
