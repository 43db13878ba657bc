"""Losses, place by place in loops, and by PyTorch: every option, and what becomes of places that do not count."""

import itertools
import math

import numpy as np
import pytest
import reference_norms as norms
from cases import integers, normal, positive

import xpconv
from xpconv.testing import assert_close

SIZES = [(), (3,), (2, 3)]


def cross_entropy(log_p, t, weight=None, ignore_index=None, label_smoothing=0.0, reduction="mean"):
    """One place after the other; t are labels, or rows of the shape of log_p."""
    classes = log_p.shape[1]
    weight = np.ones(classes) if weight is None else weight
    losses = np.zeros((log_p.shape[0], *log_p.shape[2:]))
    counted = 0.0
    for n, *at in np.ndindex(losses.shape):
        here = log_p[(n, slice(None), *at)]
        if t.ndim == log_p.ndim:
            wanted = t[(n, slice(None), *at)]
            counted += 1
        else:
            label = t[(n, *at)]
            if label == ignore_index:
                continue
            wanted = np.array([k == label for k in range(classes)])
            counted += weight[label]
        for k in range(classes):
            share = (1 - label_smoothing) * wanted[k] + label_smoothing / classes
            if share:
                losses[(n, *at)] -= weight[k] * share * here[k]
    return {"mean": losses.sum() / counted, "sum": losses.sum(), "none": losses}[reduction]


def log_softmax(scores):
    return np.log(np.moveaxis(norms.softmax(np.moveaxis(scores, 1, -1)), -1, 1))


OPTIONS = [
    dict(zip(("ignore_index", "label_smoothing", "reduction"), values, strict=True))
    for values in itertools.product((None, 1, -100), (0.0, 0.3), ("mean", "sum", "none"))
]


# --- Softmax and cross entropy


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_cross_entropy_of_labels(backend, weighted, options):
    for size in SIZES if backend.name != "jax" else SIZES[1:2]:
        scores, labels, weight = 3 * normal(4, 5, *size), integers(5, 4, *size), positive(5) if weighted else None
        if options["ignore_index"] == -100:
            labels = np.where(labels == 2, -100, labels)
        x, t = backend.asarray(scores), backend.asarray(labels)
        loss = xpconv.softmax_cross_entropy(x, t, None if weight is None else backend.asarray(weight), **options)
        assert_close(loss, np.asarray(cross_entropy(log_softmax(scores), labels, weight, **options)), like=x)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_cross_entropy_of_rows(backend, size, label_smoothing, reduction):
    scores, rows, weight = normal(4, 5, *size), positive(4, 5, *size), positive(5)
    x, t, w = map(backend.asarray, (scores, rows, weight))
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    loss = xpconv.softmax_cross_entropy(x, t, w, **options)
    assert_close(loss, np.asarray(cross_entropy(log_softmax(scores), rows, weight, **options)), like=x)


@pytest.mark.parametrize(
    ("rows", "options"),
    [(False, options) for options in OPTIONS]
    + [(True, options) for options in OPTIONS if options["ignore_index"] is None],
    ids=str,
)
def test_cross_entropy_agrees_with_pytorch(rows, options):
    torch = pytest.importorskip("torch")
    scores, weight = normal(4, 5, 3), positive(5)
    t = positive(4, 5, 3) if rows else integers(5, 4, 3)
    leaves = [torch.tensor(a, requires_grad=True) for a in ((scores, t) if rows else (scores,))]
    index = -100 if options["ignore_index"] is None else options["ignore_index"]
    expected = torch.nn.functional.cross_entropy(
        leaves[0],
        leaves[1] if rows else torch.tensor(t),
        torch.tensor(weight),
        **{**options, "ignore_index": index},
    )
    loss, pullback = xpconv.vjp(xpconv.softmax_cross_entropy, scores, t, weight, **options)
    assert_close(loss, expected.detach().numpy())
    dy = np.asarray(normal(*loss.shape, seed=9))
    for gradient, wanted in zip(pullback(dy), torch.autograd.grad(expected, leaves, torch.tensor(dy)), strict=False):
        assert_close(gradient, wanted.numpy())


def test_where_nothing_counts_there_is_no_mean_and_no_gradient(backend):
    x, t = backend.asarray(normal(2, 3)), backend.asarray(np.full(2, 7))
    loss, pullback = xpconv.vjp(xpconv.softmax_cross_entropy, x, t, ignore_index=7, reduction="sum")
    assert_close(loss, np.asarray(0.0), like=x)
    assert_close(pullback(loss + 1)[0], np.zeros((2, 3)), like=x)
    with np.errstate(invalid="ignore"):
        mean = xpconv.softmax_cross_entropy(x, t, ignore_index=7)
    assert_close(mean, np.asarray(math.nan), like=x)


def test_a_class_that_is_ruled_out_costs_nothing_unless_it_is_wanted(backend):
    """Scores of minus infinity are how classes are masked."""
    x = backend.asarray(np.array([[0.0, 0.0, -math.inf], [1.0, -math.inf, -math.inf]]))
    t = backend.asarray(np.array([1, 0]))
    loss, pullback = xpconv.vjp(xpconv.softmax_cross_entropy, x, t)
    assert_close(loss, np.asarray(math.log(2) / 2), like=x)
    expected = np.array([[0.25, -0.25, 0.0], [0.0, 0.0, 0.0]])
    assert_close(pullback(backend.asarray(np.asarray(1.0)))[0], expected, like=x)
    assert_close(xpconv.softmax_cross_entropy(x, backend.asarray(np.array([2, 0]))), np.asarray(math.inf), like=x)


def test_a_label_to_ignore_need_not_fit_the_dtype_of_the_labels(backend):
    labels = integers(4, 6).astype("uint8")
    x = backend.asarray(normal(6, 4))
    loss = xpconv.softmax_cross_entropy(x, backend.asarray(labels), ignore_index=-100)
    assert_close(loss, np.asarray(norms.softmax_cross_entropy(normal(6, 4), labels)), like=x)


def test_under_a_trace_a_label_out_of_range_makes_the_loss_nan():
    jax = pytest.importorskip("jax")
    loss = jax.jit(lambda x, t: xpconv.softmax_cross_entropy(x, t, ignore_index=-1))
    x = jax.numpy.asarray(normal(2, 3), dtype="float32")
    assert math.isnan(loss(x, jax.numpy.asarray([0, 3])))
    expected = norms.softmax_cross_entropy(normal(2, 3)[:1], [0])
    assert_close(loss(x, jax.numpy.asarray([0, -1])), np.asarray(expected, "float32"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_dtypes_add_up_in_float32(backend, dtype):
    """10,000 places: float16 and bfloat16 would have stopped counting."""
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    xp, labels = backend.xp, integers(5, 1, 10000)
    x = xp.astype(backend.asarray(normal(1, 5, 10000)), getattr(xp, dtype))
    exact = xpconv.to_numpy(xp.astype(x, xp.float64))
    loss = xpconv.softmax_cross_entropy(x, backend.asarray(labels))
    assert loss.dtype == x.dtype
    expected = cross_entropy(log_softmax(exact), labels)
    assert_close(xp.astype(loss, xp.float64), np.asarray(expected), like=x, rtol=0.51 * float(xp.finfo(x.dtype).eps))


# --- Negative log likelihood


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nll_loss(backend, size, reduction):
    log_p, labels, weight = -positive(4, 5, *size), integers(5, 4, *size), positive(5)
    x, t, w = map(backend.asarray, (log_p, labels, weight))
    loss, pullback = xpconv.vjp(xpconv.nll_loss, x, t, w, ignore_index=3, reduction=reduction)
    assert_close(loss, np.asarray(cross_entropy(log_p, labels, weight, 3, 0.0, reduction)), like=x)
    dy = positive(*loss.shape)
    wanted = np.zeros_like(log_p)
    counted = sum(weight[label] for label in labels.ravel() if label != 3) if reduction == "mean" else 1
    for n, *at in np.ndindex(labels.shape):
        label = labels[(n, *at)]
        if label != 3:
            wanted[(n, label, *at)] = -weight[label] * (dy[(n, *at)] if reduction == "none" else dy) / counted
    assert_close(pullback(backend.asarray(dy))[0], wanted, like=x)


# --- Differences


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2), (5,), ()], ids=str)
def test_mean_squared_error(backend, shape, reduction):
    hosts = normal(*shape), normal(*shape, seed=1)
    x, t = map(backend.asarray, hosts)
    squares = (hosts[0] - hosts[1]) ** 2
    expected = {"mean": squares.mean(), "sum": squares.sum(), "none": squares}[reduction]
    loss, pullback = xpconv.vjp(xpconv.mean_squared_error, x, t, reduction=reduction)
    assert_close(loss, np.asarray(expected), like=x)
    dy = np.asarray(normal(*loss.shape, seed=9))
    dx = 2 * (hosts[0] - hosts[1]) * dy / (max(1, squares.size) if reduction == "mean" else 1)
    for gradient, wanted in zip(pullback(backend.asarray(dy)), (dx, -dx), strict=True):
        assert_close(gradient, wanted, like=x)


# --- Binary cross entropy


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weights", [(), (3,), (2, 1), (1, 3)], ids=str)
def test_binary_cross_entropy(backend, weights, reduction):
    scores, wanted = 3 * normal(2, 3), positive(2, 3) / 2
    weight, pos_weight = (positive(*weights), positive(*weights, seed=1)) if weights else (None, None)
    w, p = np.broadcast_to(weight, (2, 3)) if weights else np.ones((2, 3)), 1 if pos_weight is None else pos_weight
    p = np.broadcast_to(p, (2, 3))
    losses = np.zeros((2, 3))
    for at in np.ndindex(2, 3):
        probability = 1 / (1 + math.exp(-scores[at]))
        one, zero = -math.log(probability), -math.log(1 - probability)
        losses[at] = w[at] * (p[at] * wanted[at] * one + (1 - wanted[at]) * zero)
    expected = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    arrays = [None if a is None else backend.asarray(a) for a in (scores, wanted, weight, pos_weight)]
    loss = xpconv.binary_cross_entropy_with_logits(*arrays, reduction=reduction)
    assert_close(loss, np.asarray(expected), like=arrays[0])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_cross_entropy_agrees_with_pytorch(reduction):
    torch = pytest.importorskip("torch")
    hosts = 3 * normal(4, 3), positive(4, 3) / 2, positive(4, 1), positive(3)
    leaves = [torch.tensor(a, requires_grad=i < 2) for i, a in enumerate(hosts)]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        leaves[0], leaves[1], weight=leaves[2], pos_weight=leaves[3], reduction=reduction
    )
    loss, pullback = xpconv.vjp(xpconv.binary_cross_entropy_with_logits, *hosts, reduction=reduction)
    assert_close(loss, expected.detach().numpy())
    dy = np.asarray(normal(*loss.shape, seed=9))
    wanted = torch.autograd.grad(expected, leaves[:2], torch.tensor(dy))
    for gradient, other in zip(pullback(dy)[:2], wanted, strict=True):
        assert_close(gradient, other.numpy())


def test_binary_cross_entropy_of_large_scores(backend):
    x, t = backend.asarray(np.array([1000.0, -1000.0, 1000.0])), backend.asarray(np.array([1.0, 0.0, 0.0]))
    loss, pullback = xpconv.vjp(xpconv.binary_cross_entropy_with_logits, x, t, reduction="none")
    assert_close(loss, np.array([0.0, 0.0, 1000.0]), like=x)
    assert_close(pullback(backend.asarray(np.ones(3)))[0], np.array([0.0, 0.0, 1.0]), like=x)


# --- What does not fit

X, T = normal(4, 3), integers(3, 4)


@pytest.mark.parametrize(
    ("name", "arrays", "options", "error", "says"),
    [
        ("softmax_cross_entropy", [X, T], {"reduction": "max"}, ValueError, "reduction is 'max'"),
        ("softmax_cross_entropy", [X, T], {"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5"),
        ("softmax_cross_entropy", [X, T, normal(4)], {}, ValueError, "weight has shape (4,); give (3,)"),
        ("softmax_cross_entropy", [X, T, positive(3).astype("float32")], {}, TypeError, "float32"),
        ("softmax_cross_entropy", [X, X.astype("float32")], {}, TypeError, "x has dtype float64 and t float32"),
        (
            "softmax_cross_entropy",
            [X, X],
            {"ignore_index": 0},
            ValueError,
            "t has the shape of x and ignore_index is 0",
        ),
        ("softmax_cross_entropy", [X, T + 1], {"ignore_index": 0}, ValueError, "labels from 1 to 3; give 0 to 2"),
        ("softmax_cross_entropy", [normal(4, 3, 2), T], {}, ValueError, "t has shape (4,); give (4, 2) labels"),
        ("softmax_cross_entropy", [normal(4, 3, 0), integers(3, 4, 0)], {}, ValueError, "every length at least 1"),
        ("nll_loss", [X, T], {"reduction": None}, ValueError, "reduction is None"),
        ("nll_loss", [X, T.astype("float64")], {}, TypeError, "give labels as integers"),
        ("nll_loss", [X, T], {"label_smoothing": 0.1}, TypeError, "label_smoothing"),
        ("mean_squared_error", [X, normal(4)], {}, ValueError, "t has shape (4,); give (4, 3)"),
        ("mean_squared_error", [X, X.astype("float32")], {}, TypeError, "float32"),
        ("mean_squared_error", [normal(0), normal(0)], {}, ValueError, "x is empty"),
        ("mean_squared_error", [X, X], {"reduction": "all"}, ValueError, "reduction is 'all'"),
        ("binary_cross_entropy_with_logits", [X, normal(4, 1)], {}, ValueError, "t has shape (4, 1); give (4, 3)"),
        ("binary_cross_entropy_with_logits", [X, X, normal(4)], {}, ValueError, "weight has shape (4,)"),
        ("binary_cross_entropy_with_logits", [X, X, None, normal(1, 4, 3)], {}, ValueError, "pos_weight has shape"),
        ("binary_cross_entropy_with_logits", [X, T], {}, TypeError, "int64"),
    ],
)
def test_bad_input(name, arrays, options, error, says):
    with pytest.raises(error) as caught:
        getattr(xpconv, name)(*arrays, **options)
    assert says in str(caught.value)
