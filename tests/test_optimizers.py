"""Optimizers against PyTorch's in float64, against the papers' formulas, and on every backend."""

import math

import numpy as np
import pytest
from cases import normal

import xpconv
from xpconv.optimizers import Optimizer
from xpconv.testing import assert_close
from xpconv.testing.comparison import on_host

RULES = [xpconv.SGD, xpconv.Momentum, xpconv.Nesterov, xpconv.AdaGrad, xpconv.RMSProp, xpconv.Adam]
DECOUPLED = [xpconv.SGDW, xpconv.AdamW]

# The same rule in PyTorch, at learning rate 0.05.
PYTORCH = [
    (xpconv.SGD(0.05), "SGD", {}),
    (xpconv.Momentum(0.05, 0.8), "SGD", {"momentum": 0.8}),
    (xpconv.Nesterov(0.05, 0.8), "SGD", {"momentum": 0.8, "nesterov": True}),
    (xpconv.AdaGrad(0.05, eps=1e-3), "Adagrad", {"eps": 1e-3}),
    (xpconv.RMSProp(0.05, 0.9, eps=1e-3), "RMSprop", {"alpha": 0.9, "eps": 1e-3}),
    (xpconv.Adam(0.05, 0.8, 0.95, eps=1e-3), "Adam", {"betas": (0.8, 0.95), "eps": 1e-3}),
    (xpconv.SGD(0.05, weight_decay=0.2), "SGD", {"weight_decay": 0.2}),
    (xpconv.Momentum(0.05, 0.8, weight_decay=0.2), "SGD", {"momentum": 0.8, "weight_decay": 0.2}),
    (xpconv.Nesterov(0.05, 0.8, weight_decay=0.2), "SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.2}),
    (xpconv.AdaGrad(0.05, eps=1e-3, weight_decay=0.2), "Adagrad", {"eps": 1e-3, "weight_decay": 0.2}),
    (
        xpconv.RMSProp(0.05, 0.9, eps=1e-3, weight_decay=0.2),
        "RMSprop",
        {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.2},
    ),
    (xpconv.Adam(0.05, eps=1e-3, weight_decay=0.2), "Adam", {"eps": 1e-3, "weight_decay": 0.2}),
    (xpconv.AdamW(0.05, 0.8, 0.95, eps=1e-3), "AdamW", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.01}),
    (xpconv.AdamW(0.05, weight_decay=0.2), "AdamW", {"weight_decay": 0.2}),
]


def arrays(backend, seed, dtype="float64"):
    return {
        "W": backend.asarray(normal(3, 4, seed=seed), dtype),
        "b": backend.asarray(0.1 * normal(4, seed=seed), dtype),
    }


@pytest.mark.parametrize("rule, name, options", PYTORCH, ids=[f"{name}-{options}" for _, name, options in PYTORCH])
def test_agrees_with_pytorch(rule, name, options):
    torch = pytest.importorskip("torch")
    theirs = {n: torch.nn.Parameter(torch.from_numpy(a)) for n, a in arrays(xpconv.backend(), 0).items()}
    their_rule = getattr(torch.optim, name)(list(theirs.values()), lr=0.05, **options)
    ours = arrays(xpconv.backend(), 0)
    for step in range(1, 12):
        grads = arrays(xpconv.backend(), step)
        for n, parameter in theirs.items():
            parameter.grad = torch.from_numpy(grads[n].copy())
        their_rule.step()
        rule.update(ours, grads)
        for n, parameter in theirs.items():
            assert_close(ours[n], parameter.detach().numpy(), rtol=1e-13)


def by_hand(rule, p, gradients, coupled=0.0, decoupled=0.0, rate=lambda t: 0.1 / t):
    """The papers' formulas, one number at a time, with the learning rate of step t."""
    v = h = m = 0.0
    for t, g in enumerate(gradients, start=1):
        lr = rate(t)
        g = g + coupled * p
        p = p - lr * decoupled * p
        if rule is xpconv.SGD:
            p = p - lr * g
        elif rule in (xpconv.Momentum, xpconv.SGDW):
            v = 0.9 * v - lr * g
            p = p + v
        elif rule is xpconv.Nesterov:
            before, v = v, 0.9 * v - lr * g
            p = p + 0.9 * 0.9 * before - 1.9 * lr * g
        elif rule is xpconv.AdaGrad:
            h = h + g**2
            p = p - lr * g / (math.sqrt(h) + 1e-7)
        elif rule is xpconv.RMSProp:
            h = 0.99 * h + 0.01 * g**2
            p = p - lr * g / (math.sqrt(h) + 1e-7)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            p = p - lr * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


@pytest.mark.parametrize(
    "rule, options, decay",
    [(rule, {}, {}) for rule in RULES]
    + [(rule, {"weight_decay": 0.3}, {"coupled": 0.3}) for rule in RULES]
    + [(rule, {}, {"decoupled": 0.01}) for rule in DECOUPLED]
    + [(rule, {"weight_decay": 0.3}, {"decoupled": 0.3}) for rule in DECOUPLED],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_follows_its_formula_with_the_defaults_of_the_book_and_a_rate_that_changes(
    backend, rule, options, decay, dtype
):
    params, optimizer = arrays(backend, 0, dtype), rule(**options)
    first, gradients = dict(params), [arrays(backend, step, dtype) for step in range(1, 6)]
    for t, grads in enumerate(gradients, start=1):
        optimizer.lr = 0.1 / t
        optimizer.update(params, grads)
    for name, array in params.items():
        hosts = [xpconv.to_numpy(grads[name]).astype(float) for grads in gradients]
        start = xpconv.to_numpy(first[name]).astype(float)
        wanted = np.vectorize(lambda p, *gs: by_hand(rule, p, gs, **decay))(start, *hosts)
        assert_close(array, wanted.astype(dtype), like=first[name])
        assert_close(first[name], xpconv.to_numpy(arrays(backend, 0, dtype)[name]), like=first[name], rtol=0)


# --- Parameters that are narrow


def narrow(backend, dtype, host):
    """A host array in a narrow dtype of this backend, and what that holds, in float64."""
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    array = backend.xp.astype(backend.asarray(host, "float32"), getattr(backend.xp, dtype))
    return array, on_host(array).astype(float)


@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("rule, rate", list(zip(RULES + DECOUPLED, [1e-4] * 3 + [1e-5] * 5, strict=True)))
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_steps_that_a_narrow_parameter_cannot_show_add_up(backend, dtype, rule, rate, decay):
    p, start = narrow(backend, dtype, 1 + np.abs(normal(3, 4)))
    params, optimizer, gradients = {"W": p}, rule(rate, weight_decay=decay), []
    for step in range(20):
        g, exact = narrow(backend, dtype, 0.1 + np.abs(normal(3, 4, seed=step)))
        optimizer.update(params, {"W": backend.xp.astype(g, backend.xp.float32) if step % 2 else g})
        gradients.append(exact)
    decays = {"decoupled" if rule in DECOUPLED else "coupled": decay}
    wanted = np.vectorize(lambda p, *gs: by_hand(rule, p, gs, rate=lambda t: rate, **decays))(start, *gradients)
    assert np.all(np.abs(wanted - start) > 4e-5)
    assert_close(optimizer.master("W", params["W"]), wanted.astype(np.float32), like=p, rtol=1e-6)
    rounded, _ = narrow(backend, dtype, on_host(optimizer.state["W in float32"]))
    assert params["W"].dtype == p.dtype
    assert_close(params["W"], rounded, rtol=0)
    assert_close(p, narrow(backend, dtype, start)[0], rtol=0)


@pytest.mark.parametrize("rule", RULES + DECOUPLED)
def test_what_is_remembered_of_narrow_parameters_is_wide(backend, rule):
    (p, _), (g, _) = (narrow(backend, "float16", normal(3, 4, seed=seed)) for seed in (0, 1))
    optimizer = rule()
    optimizer.update({"W": p}, {"W": g})
    assert set(optimizer.state) == {"W in float32", *(["W"] if rule is not xpconv.SGD else [])}
    for kept in optimizer.state.values():
        for array in kept[1:] if isinstance(kept, tuple) else (kept,):
            assert_close(array, xpconv.to_numpy(array), like=p)
            assert (array.dtype, array.shape) == (backend.xp.float32, p.shape)


def test_a_narrow_parameter_that_was_given_another_value_goes_on_from_there(backend):
    p, _ = narrow(backend, "float16", np.ones(3))
    tiny, nothing = (narrow(backend, "float16", np.full(3, number))[0] for number in (1.0, 0.0))
    params, optimizer = {"W": p}, xpconv.SGD(2.0**-13)
    optimizer.update(params, {"W": tiny})
    assert_close(params["W"], np.ones(3, np.float16), like=p, rtol=0)
    params["W"] = narrow(backend, "float16", np.asarray([1.0, 2.0, 1.0]))[0]
    optimizer.update(params, {"W": nothing})
    less = 1 - 2.0**-13
    assert_close(optimizer.master("W", params["W"]), np.asarray([less, 2, less], np.float32), like=p, rtol=0)


@pytest.mark.parametrize("wrong", ["float64", "bfloat16", "int32"])
def test_the_gradient_of_a_narrow_parameter_is_narrow_or_in_float32(backend, wrong):
    p, _ = narrow(backend, "float16", normal(3))
    if not hasattr(backend.xp, wrong):
        pytest.skip(f"{backend.name} has no {wrong}")
    params, optimizer = {"W": p}, xpconv.SGD()
    with pytest.raises(TypeError, match=rf"float16.* the gradient of W .*{wrong}"):
        optimizer.update(params, {"W": backend.xp.astype(p, getattr(backend.xp, wrong))})
    assert params["W"] is p


# --- What is given


@pytest.mark.parametrize(
    "rule, lr",
    list(zip(RULES + DECOUPLED, [0.01, 0.01, 0.01, 0.01, 0.01, 0.001, 0.01, 0.001], strict=True)),
)
def test_learning_rates_of_the_book(rule, lr):
    assert rule().lr == lr


@pytest.mark.parametrize("rule", RULES)
def test_what_is_remembered_is_kept_by_name_where_the_parameter_is(backend, rule):
    params, optimizer = arrays(backend, 0, "float32"), rule()
    optimizer.update(params, arrays(backend, 1, "float32"))
    assert set(optimizer.state) == (set() if rule is xpconv.SGD else {"W", "b"})
    for name, kept in optimizer.state.items():
        for array in kept[1:] if isinstance(kept, tuple) else (kept,):
            assert_close(array, xpconv.to_numpy(array), like=params[name])
            assert array.dtype == params[name].dtype
            assert array.shape == params[name].shape


def test_a_parameter_without_a_gradient_stays(backend):
    params = arrays(backend, 0)
    before = dict(params)
    xpconv.Adam().update(params, {"b": arrays(backend, 1)["b"]})
    assert params["W"] is before["W"]
    assert params["b"] is not before["b"]


@pytest.mark.parametrize(
    "bad, error, words",
    [
        (lambda b: {"W9": b.asarray(normal(2))}, ValueError, "grads has W9, but the parameters are W, b"),
        (lambda b: {"b": b.asarray(normal(3))}, ValueError, r"the gradient of b has shape \(3,\); give \(4,\)"),
        (lambda b: {"b": b.asarray(normal(1))}, ValueError, r"the gradient of b has shape \(1,\); give \(4,\)"),
        (
            lambda b: {"b": b.asarray(normal(4), "float32")},
            TypeError,
            "b has dtype .*float64.* the gradient of b .*float32",
        ),
        (lambda b: {"b": b.xp.astype(b.asarray(normal(4)), b.xp.int64)}, TypeError, "b has dtype .*int64"),
        (lambda b: {"b": None}, TypeError, "gradient of b is None"),
        (lambda b: {"b": [0.0] * 4}, TypeError, "the gradient of b is a list"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(backend, bad, error, words):
    params, optimizer = arrays(backend, 0), xpconv.Momentum()
    before = dict(params)
    with pytest.raises(error, match=words):
        optimizer.update(params, {"W": arrays(backend, 1)["W"], **bad(backend)})
    assert all(params[name] is before[name] for name in params)
    assert not optimizer.state


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: xpconv.SGD(-0.1), ValueError, "lr is -0.1; give a finite number of at least 0"),
        (lambda: xpconv.SGD(math.nan), ValueError, "lr is nan"),
        (lambda: xpconv.Adam(math.inf), ValueError, "lr is inf"),
        (lambda: xpconv.SGD("0.1"), TypeError, r"lr is '0.1' \(str\); give a number"),
        (lambda: xpconv.SGD(True), TypeError, "lr is True"),
        (lambda: xpconv.Momentum(momentum=1), ValueError, "momentum is 1; give a number of at least 0 and below 1"),
        (lambda: xpconv.Nesterov(momentum=-0.5), ValueError, "momentum is -0.5"),
        (lambda: xpconv.AdaGrad(eps=-1), ValueError, "eps is -1"),
        (lambda: xpconv.RMSProp(decay_rate=1.5), ValueError, "decay_rate is 1.5"),
        (lambda: xpconv.Adam(beta1=1.0), ValueError, "beta1 is 1.0"),
        (lambda: xpconv.Adam(beta2=None), TypeError, "beta2 is None"),
        (lambda: xpconv.SGD(weight_decay=-1), ValueError, "weight_decay is -1"),
        (lambda: xpconv.AdamW(weight_decay=math.inf), ValueError, "weight_decay is inf"),
    ],
)
def test_bad_hyper_parameters(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_rule_of_ones_own(backend):
    class SignDescent(Optimizer):
        def step(self, name, p, g, lr):
            return p - lr * backend.xp.sign(g)

    params, grads = arrays(backend, 0), arrays(backend, 1)
    SignDescent(0.5).update(params, grads)
    assert_close(params["W"], normal(3, 4) - 0.5 * np.sign(normal(3, 4, seed=1)), like=grads["W"])
