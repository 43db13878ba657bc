"""Operators under PyTorch's and JAX's own differentiation: the same gradients as vjp's."""

import warnings

import numpy as np
import pytest
from cases import CASES, FIRST, normal

import xpconv
from xpconv.arrays.libraries import strictest
from xpconv.testing import assert_close


def leading(y):
    return y[0] if isinstance(y, tuple) else y


def floating(case):
    """The positions of the arrays that have a gradient."""
    return [i for i, array in enumerate(case.arrays) if array is not None and array.dtype.kind == "f"]


def seeded(case):
    """The options, with a generator that starts where it always does."""
    return {k: np.random.default_rng(1) if k == "rng" else v for k, v in case.options.items()}


# --- PyTorch


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradcheck(case):
    torch = pytest.importorskip("torch")
    where = floating(case)
    leaves = [torch.tensor(case.arrays[i], requires_grad=True) for i in where]

    def function(*given):
        arrays = [None if a is None else torch.asarray(a) for a in case.arrays]
        for i, leaf in zip(where, given, strict=True):
            arrays[i] = leaf
        return leading(case.op(*arrays, **seeded(case)))

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_pytorch_differentiates_through_several_operators(case):
    torch = pytest.importorskip("torch")
    where = floating(case)
    arrays = [None if a is None else torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in case.arrays]
    loss = torch.sum(torch.sin(leading(case.op(*[None if a is None else a * 1 for a in arrays], **seeded(case)))))
    loss.backward()
    y, pullback = xpconv.vjp(case.op, *[None if a is None else a.detach() for a in arrays], **seeded(case))
    gradients = pullback(torch.cos(leading(y)))
    for i in where:
        assert_close(arrays[i].grad, xpconv.to_numpy(gradients[i]), like=gradients[i])


def test_pytorch_without_gradients_gives_plain_tensors():
    torch = pytest.importorskip("torch")
    x = torch.tensor(normal(1, 1, 4), requires_grad=True)
    with torch.no_grad():
        assert not xpconv.max_pool(x, 2).requires_grad
    assert not xpconv.max_pool(x.detach(), 2).requires_grad
    y, indices = xpconv.max_pool(x, 2, return_indices=True)
    assert y.requires_grad
    assert not indices.requires_grad


def test_pytorch_leaves_out_what_is_not_asked_for():
    torch = pytest.importorskip("torch")
    x, weight = torch.tensor(normal(1, 2, 5)), torch.tensor(normal(3, 2, 2), requires_grad=True)
    xpconv.conv(x, weight).sum().backward()
    assert x.grad is None
    assert weight.grad.shape == weight.shape


def test_a_network_trains_under_pytorch():
    torch = pytest.importorskip("torch")
    x, t = torch.tensor(normal(8, 1, 6, 6)), torch.tensor([0, 1] * 4)
    parameters = [torch.tensor(0.5 * normal(*shape), requires_grad=True) for shape in ((4, 1, 3, 3), (4,), (16, 2))]
    optimizer, losses = torch.optim.SGD(parameters, lr=0.5), []
    for _ in range(20):
        hidden = xpconv.max_pool(xpconv.relu(xpconv.conv(x, *parameters[:2])), 2)
        loss = xpconv.softmax_cross_entropy(xpconv.affine(hidden, parameters[2]), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


# --- JAX


@pytest.fixture
def jax():
    module = pytest.importorskip("jax")
    with strictest(xpconv.backend("jax")):
        yield module


def on_jax(jax, case):
    return [None if a is None else jax.numpy.asarray(a) for a in case.arrays]


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_grad_jit_and_vmap_give_what_vjp_gives(jax, case):
    where = tuple(floating(case))
    doubled = list(case.arrays)
    doubled[0] = 2 * doubled[0]
    results = [xpconv.vjp(case.op, *arrays, **seeded(case)) for arrays in (case.arrays, doubled)]
    dy = np.asarray(normal(*leading(results[0][0]).shape))
    values, pullbacks = [np.asarray(leading(y)) for y, _ in results], [pullback for _, pullback in results]
    gradients = [[pullback(dy)[i] for i in where] for pullback in pullbacks]

    def both(*arrays):
        """Value and gradients."""

        def loss(*given):
            y = leading(case.op(*given, **seeded(case)))
            return jax.numpy.sum(y * dy), y

        (_, y), found = jax.value_and_grad(loss, argnums=where, has_aux=True)(*arrays)
        return y, found

    arrays = on_jax(jax, case)
    y, found = jax.jit(both)(*arrays)
    assert_close(y, values[0], like=arrays[0])
    for gradient, wanted in zip(found, gradients[0], strict=True):
        assert_close(gradient, wanted, like=arrays[0])

    stacked = jax.numpy.stack([arrays[0], 2 * arrays[0]])
    y, found = jax.jit(jax.vmap(both, in_axes=(0, *(None for _ in arrays[1:]))))(stacked, *arrays[1:])
    assert_close(y, np.stack(values), like=arrays[0])
    for gradient, wanted in zip(found, zip(*gradients, strict=True), strict=True):
        assert_close(gradient, np.stack(wanted), like=arrays[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", FIRST, ids=str)
def test_a_trace_keeps_the_dtype(jax, case, dtype):
    arrays, where = on_jax(jax, case), floating(case)
    arrays = [a.astype(dtype) if i in where else a for i, a in enumerate(arrays)]

    def both(*given):
        y, pullback = xpconv.vjp(case.op, *given, **seeded(case))
        return leading(y), pullback(leading(y))

    y, gradients = jax.eval_shape(both, *arrays)
    assert y.dtype == dtype
    for i in where:
        assert (gradients[i].dtype, gradients[i].shape) == (dtype, arrays[i].shape)


def test_one_compiled_function_serves_many_arrays(jax):
    """Nothing of the first call may be kept in the compiled program."""
    gradient = jax.jit(jax.grad(lambda x, w: jax.numpy.sum(xpconv.conv(x, w) ** 2), argnums=(0, 1)))
    for seed in range(3):
        x, weight = normal(1, 2, 5, seed=seed), normal(3, 2, 2, seed=seed)
        y, pullback = xpconv.vjp(xpconv.conv, x, weight)
        like = jax.numpy.asarray(x)
        for found, wanted in zip(gradient(like, jax.numpy.asarray(weight)), pullback(2 * y), strict=True):
            assert_close(found, wanted, like=like)


@pytest.mark.parametrize("algorithm", ["direct", "winograd", "fft"])
def test_what_a_trace_makes_of_a_constant_weight_stays_in_the_trace(jax, algorithm):
    x, weight = normal(1, 2, 7, 8), normal(3, 2, 3, 3)
    wanted = xpconv.conv(x, weight, algorithm=algorithm)
    constants = [jax.numpy.asarray(array) for array in (x, weight)]
    found = jax.jit(lambda factor: factor * xpconv.conv(*constants, algorithm=algorithm))(2.0)
    assert_close(found, 2 * wanted, like=constants[0])
    assert_close(xpconv.conv(*constants, algorithm=algorithm), wanted, like=constants[0])


def test_labels_out_of_range_give_nan_where_they_cannot_be_looked_at(jax):
    x, t = jax.numpy.asarray(normal(3, 4)), jax.numpy.asarray([0, 4, 1])
    assert np.isnan(jax.jit(xpconv.softmax_cross_entropy)(x, t))
    with pytest.raises(ValueError, match="labels from 0 to 4; give 0 to 3"):
        xpconv.softmax_cross_entropy(x, t)


def test_dropout_drops_the_same_in_both_directions(jax):
    x = jax.numpy.asarray(1 + np.abs(normal(5, 6)))
    y, gradient = jax.value_and_grad(
        lambda x: jax.numpy.sum(xpconv.dropout(x, ratio=0.5, rng=np.random.default_rng(0)))
    )(x)
    kept = xpconv.to_numpy(xpconv.dropout(x, ratio=0.5, rng=np.random.default_rng(0))) != 0
    assert_close(gradient, kept.astype(float), like=x)
    assert_close(y, np.sum(np.where(kept, xpconv.to_numpy(x), 0)), like=x)


def test_a_step_compiles_without_warnings(jax):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step = jax.jit(jax.grad(lambda w: jax.numpy.sum(xpconv.conv(jax.numpy.ones((1, 1, 5)), w, stride=2))))
        assert step(jax.numpy.ones((1, 1, 2))).shape == (1, 1, 2)
