"""Optimizers: from parameters and their gradients to the next parameters.

``update(params, grads)`` works on any mapping and never inside an array: each parameter is replaced by a new one, so
the same lines train on libraries whose arrays do not change. What an optimizer remembers (a velocity, a mean of
squares) is kept by the parameter's name, on its device and in its dtype.

A parameter in float16 or bfloat16 is the rounding of one in float32, its master, which is kept as well. Rules compute
and remember in float32, and steps much smaller than a place of the narrow number add up there: Micikevicius et al.,
"Mixed precision training" (2018), section 3.1.

In the formulas p is a parameter and g its gradient, to which every rule adds ``weight_decay*p``: the gradient of the
penalty ``weight_decay/2 * sum(p*p)`` on the loss.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from array_api_compat import array_namespace

from xpconv.arrays.arguments import accumulation_dtype, namespace, one_dtype, shaped
from xpconv.arrays.libraries import Array, on_device
from xpconv.execution.recording import fed, replaced
from xpconv.optimizers.hyperparameters import number

MASTER = "{} in float32"


class Optimizer:
    """One rule that takes a step.

    Attributes
    ----------
    lr : float
        Learning rate, which may be changed between steps.
    weight_decay : float
    state : dict
        What is remembered of each parameter, by its name; the master of W1 is "W1 in float32".
    """

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        self.lr = number("lr", lr)
        self.weight_decay = number("weight_decay", weight_decay)
        self.state: dict[str, Any] = {}

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Replace every parameter that has a gradient by the next one.

        Parameters
        ----------
        params : mutable mapping of str to array
            Of a real floating dtype. One without a gradient stays as it is.
        grads : mapping of str to array
            Each of its parameter's library, device and shape, and of its dtype or, where that is narrower, float32.

        Raises
        ------
        TypeError, ValueError
            When a gradient does not fit its parameter or has none; then no parameter has changed.
        """
        if unknown := [name for name in grads if name not in params]:
            raise ValueError(f"grads has {', '.join(unknown)}, but the parameters are {', '.join(params)}")
        for name, g in grads.items():
            p, word = params[name], f"the gradient of {name}"
            if g is None:
                raise TypeError(f"{word} is None; give an array, or leave it out and the parameter stays as it is")
            pair = {name: p, word: g}
            xp = namespace(**pair)
            one_dtype(xp, "real floating", **({word: g} if g.dtype == accumulation_dtype(xp, p.dtype) else pair))
            shaped(word, g, tuple(p.shape), f"the shape of {name}")
        for name, numbers in self._numbered({name: self.master(name, params[name]) for name in grads}):
            with on_device(grads[name]):
                params[name] = replaced(params[name], self._stepped(name, params[name], grads[name], *numbers))

    def master(self, name: str, p: Array) -> Array:
        """Return what a parameter is the rounding of, in float32: the one that is not narrower is its own.

        Wherever a parameter was given another value than the last step's, that value counts.
        """
        xp = array_namespace(p)
        wide = xp.astype(p, accumulation_dtype(xp, p.dtype), copy=False)
        kept = self.state.get(MASTER.format(name))
        return wide if kept is None else xp.where(xp.astype(kept, p.dtype) == p, kept, wide)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return the numbers that `decayed` takes of this step of a parameter: those that the next may have other."""
        return (self.lr,)

    def decayed(self, p: Array, g: Array, *numbers: Any) -> tuple[Any, ...]:
        """Return a parameter and its gradient after the decay, and numbers, for the step to be taken with."""
        return (p, g + self.weight_decay * p if self.weight_decay else g, *numbers)

    def step(self, name: str, p: Array, g: Array, lr: float) -> Array:
        """Return the next value of one parameter, and remember under its name what the rule remembers.

        The numbers are floats, or arrays of no axes where steps are recorded. What is remembered goes through
        `xpconv.execution.recording.replaced` for that.
        """
        raise NotImplementedError

    def _numbered(self, params: Mapping[str, Array]) -> Iterator[tuple[str, Any]]:
        """Give every name the numbers of its step, which are made together for all parameters of one dtype."""
        for dtype in {p.dtype: None for p in params.values()}:
            names = [name for name, p in params.items() if p.dtype == dtype]
            make = functools.partial(lambda these: [self.numbers(name) for name in these], names)
            yield from zip(names, fed(make, params[names[0]]), strict=True)

    def _stepped(self, name: str, p: Array, g: Array, *numbers: Any) -> Array:
        """Return the next value of one parameter, and remember its master where that is another."""
        xp, wide, key = array_namespace(p), self.master(name, p), MASTER.format(name)
        new = self.step(name, *self.decayed(wide, xp.astype(g, wide.dtype, copy=False), *numbers))
        if wide.dtype == p.dtype:
            return new
        self.state[key] = replaced(self.state.get(key), new)
        return xp.astype(new, p.dtype)


class SGD(Optimizer):
    """Stochastic gradient descent: ``p - lr*g``.

    Parameters
    ----------
    lr, weight_decay : float

    References
    ----------
    Robbins and Monro, "A stochastic approximation method" (1951).
    """

    def __init__(self, lr: float = 0.01, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)

    def step(self, name: str, p: Array, g: Array, lr: float) -> Array:
        """Return the next value of one parameter."""
        return p - lr * g


class Momentum(Optimizer):
    """Descent with inertia: ``v = momentum*v - lr*g``, ``p + v``.

    The learning rate is inside the velocity, as in the book; where it changes between steps, PyTorch's `SGD`, which has
    it outside, goes another way.

    Parameters
    ----------
    lr, weight_decay : float
    momentum : float
        Share of the velocity that is kept at each step, at least 0 and below 1.

    References
    ----------
    Polyak, "Some methods of speeding up the convergence of iteration methods" (1964); Saito, *Deep Learning from
    Scratch*, section 6.1.4.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = number("momentum", momentum, below=1)

    def velocity(self, name: str, g: Array, lr: float) -> Array:
        """Return the velocity after this gradient, and remember it."""
        v, before = -lr * g, self.state.get(name)
        if before is not None:
            v = v + self.momentum * before
        self.state[name] = replaced(before, v)
        return v

    def step(self, name: str, p: Array, g: Array, lr: float) -> Array:
        """Return the next value of one parameter."""
        return p + self.velocity(name, g, lr)


class Nesterov(Momentum):
    """Descent with inertia, the gradient taken where inertia leads.

    ``v = momentum*v - lr*g``, ``p + momentum*v - lr*g``. The parameters that it keeps are those looked
    ahead to, where the next gradient is wanted.

    Parameters
    ----------
    lr, momentum, weight_decay
        As in `Momentum`.

    References
    ----------
    Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)" (1983), in the form of
    Bengio, Boulanger-Lewandowski and Pascanu, "Advances in optimizing recurrent networks" (2012), equations 6 and 7.
    """

    def step(self, name: str, p: Array, g: Array, lr: float) -> Array:
        """Return the next value of one parameter."""
        return p + self.momentum * self.velocity(name, g, lr) - lr * g


class AdaGrad(Optimizer):
    """A rate for each element, by all its gradients so far: ``h = h + g*g``, ``p - lr * g/(sqrt(h) + eps)``.

    Parameters
    ----------
    lr, weight_decay : float
    eps : float
        Keeps the division from zero.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive subgradient methods" (2011); Saito, *Deep Learning from Scratch*, section 6.1.5.
    """

    def __init__(self, lr: float = 0.01, *, eps: float = 1e-7, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.eps = number("eps", eps)

    def squares(self, name: str, g: Array) -> Array:
        """Return what the squares of the gradients add up to."""
        return self.state[name] + g * g if name in self.state else g * g

    def step(self, name: str, p: Array, g: Array, lr: float) -> Array:
        """Return the next value of one parameter."""
        h = self.state[name] = replaced(self.state.get(name), self.squares(name, g))
        return p - lr * g / (array_namespace(h).sqrt(h) + self.eps)


class RMSProp(AdaGrad):
    """AdaGrad that forgets: ``h = decay_rate*h + (1 - decay_rate)*g*g``, ``p - lr * g/(sqrt(h) + eps)``.

    Parameters
    ----------
    lr, weight_decay : float
    decay_rate : float
        Share of the mean of squares that is kept at each step, at least 0 and below 1.
    eps : float
        Keeps the division from zero.

    References
    ----------
    Tieleman and Hinton, "Lecture 6.5: RMSProp", Coursera, Neural networks for machine learning (2012).
    """

    def __init__(
        self, lr: float = 0.01, decay_rate: float = 0.99, *, eps: float = 1e-7, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, eps=eps, weight_decay=weight_decay)
        self.decay_rate = number("decay_rate", decay_rate, below=1)

    def squares(self, name: str, g: Array) -> Array:
        """Return the decaying mean of the gradients' squares, which starts at zero."""
        h = (1 - self.decay_rate) * g * g
        return self.decay_rate * self.state[name] + h if name in self.state else h


class Adam(Optimizer):
    """Momentum divided by the root of the mean square, both corrected for their start at zero.

    ``m = beta1*m + (1 - beta1)*g``, ``v = beta2*v + (1 - beta2)*g*g``, and after t steps
    ``p - lr * m/(1 - beta1**t) / (sqrt(v/(1 - beta2**t)) + eps)``. The book adds its eps of 1e-7 before the
    correction of v, which is the only difference.

    Parameters
    ----------
    lr, weight_decay : float
    beta1, beta2 : float
        Share of each mean that is kept at each step, at least 0 and below 1.
    eps : float
        Keeps the division from zero.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1.
    """

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, *, eps: float = 1e-8, weight_decay: float = 0
    ) -> None:
        super().__init__(lr, weight_decay)
        self.beta1, self.beta2 = number("beta1", beta1, below=1), number("beta2", beta2, below=1)
        self.eps = number("eps", eps)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return rate and eps of this step, which is counted."""
        t, *means = self.state.get(name, (0, None, None))
        t += 1
        self.state[name] = t, *means
        # Both corrections as one number: the arrays are gone over less often.
        root = math.sqrt(1 - self.beta2**t)
        return self.lr * root / (1 - self.beta1**t), self.eps * root

    def step(self, name: str, p: Array, g: Array, rate: float, eps: float = 0.0) -> Array:
        """Return the next value of one parameter."""
        t, m, v = self.state[name]
        new_m = (1 - self.beta1) * g if m is None else m + (1 - self.beta1) * (g - m)
        new_v = (1 - self.beta2) * (g * g) if v is None else self.beta2 * v + (1 - self.beta2) * (g * g)
        self.state[name] = t, replaced(m, new_m), replaced(v, new_v)
        return p - rate * new_m / (array_namespace(new_v).sqrt(new_v) + eps)
