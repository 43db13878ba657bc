"""Any geometry at all: every window operator against the loops, linear maps against their adjoints.

The default profile looks at some geometries, always the same; ``--hypothesis-profile=thorough`` draws 2,000 new ones
for every test. On each, the library refuses exactly what leaves the loops without a window.
"""

import functools
import math

import numpy as np
import pytest
import reference as ref
import reference_norms as norms
from hypothesis import assume, event, given, reject
from hypothesis import strategies as st

import xpconv
from xpconv.arrays.libraries import strictest
from xpconv.testing import assert_close, check_adjoint

pytestmark = pytest.mark.filterwarnings("error")
ADJOINT = 1e-12  # of float64: a sum of a few hundred products


@st.composite
def geometries(draw, least=1, most=7, most_pad=4):
    """size, kernel, and the options stride, pad and dilation, for one axis to three."""
    axes = draw(st.integers(1, 3))
    most = {1: 2 * most, 2: most, 3: 5}[axes]

    def numbers(low, high):
        number = st.integers(low, high)
        return draw(st.one_of(number, st.tuples(*[number] * axes)))

    width = st.integers(0, most_pad)
    pad = st.one_of(
        width,
        st.tuples(*[width] * axes),
        st.tuples(*[st.tuples(width, width)] * axes),
        st.tuples(*[st.one_of(width, st.tuples(width, width))] * axes),
        st.sampled_from(["same", "valid"]),
    )
    size = draw(st.tuples(*[st.integers(least, most)] * axes))
    return size, numbers(1, 4), {"stride": numbers(1, 4), "pad": draw(pad), "dilation": numbers(1, 3)}


@st.composite
def channels(draw):
    """groups, and multiples of it: channels in and out."""
    groups = draw(st.integers(1, 3))
    return groups, groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))


SEEDS = st.integers(0, 2**32 - 1)
BATCHES = st.integers(1, 2)
everywhere = pytest.mark.parametrize("name", ["numpy", "array-api-strict:device1"])


@pytest.fixture(scope="module")
def find():
    """A backend by its name, found once."""
    return functools.cache(xpconv.backend)


def drawn(rng, *shape):
    return rng.standard_normal(shape)


def has_windows(size, kernel, **options):
    """Whether the loops find a window along every axis."""
    found = all(ref.plan(size, kernel, **options)[1])
    event("has windows" if found else "has none")
    return found


def held_to_loops(backend, op, hosts, options, value, gradients):
    """Compare y with `value(*hosts)` and every gradient with those of `gradients(dy, *hosts)`."""
    with strictest(backend):
        arrays = [None if host is None else backend.asarray(host) for host in hosts]
        y, pullback = xpconv.vjp(op, *arrays, **options)
        like = arrays[0]
        assert_close(y, value(*hosts), like=like)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        for gradient, host, expected in zip(pullback(backend.asarray(dy)), hosts, gradients(dy, *hosts), strict=False):
            if host is not None:
                assert_close(gradient, expected, like=like)


# --- Against the loops


@everywhere
@given(geometry=geometries(), batch=BATCHES, counts=channels(), bias=st.booleans(), seed=SEEDS)
def test_conv(find, name, geometry, batch, counts, bias, seed):
    (size, kernel, options), (groups, c, o), rng = geometry, counts, np.random.default_rng(seed)
    x, w = drawn(rng, batch, c, *size), drawn(rng, o, c // groups, *ref.each(kernel, len(size)))
    hosts, options = [x, w, drawn(rng, o) if bias else None], {**options, "groups": groups}
    if not has_windows(size, w.shape[2:], **geometry[2]):
        with pytest.raises(ValueError, match="spans"):
            xpconv.conv(x, w, **options)
        reject()  # seen to, but not one of those that count
    value = functools.partial(ref.conv, **options)
    gradients = lambda dy, x, w, b: ref.conv_gradients(dy, x, w, **options)  # noqa: E731
    held_to_loops(find(name), xpconv.conv, hosts, options, value, gradients)


@everywhere
@given(geometry=geometries(most=4), batch=BATCHES, counts=channels(), data=st.data(), bias=st.booleans(), seed=SEEDS)
def test_conv_transpose(find, name, geometry, batch, counts, data, bias, seed):
    (size, kernel, options), (groups, c, o), rng = geometry, counts, np.random.default_rng(seed)
    axes = len(size)
    steps = zip(ref.each(options["stride"], axes), ref.each(options["dilation"], axes), strict=True)
    extra = data.draw(st.tuples(*[st.integers(0, max(pair) - 1) for pair in steps]), label="output_pad")
    x, w = drawn(rng, batch, c, *size), drawn(rng, c, o // groups, *ref.each(kernel, axes))
    hosts, options = [x, w, drawn(rng, o) if bias else None], {**options, "groups": groups, "output_pad": extra}
    plan = {k: options[k] for k in ("stride", "pad", "output_pad", "dilation")}
    canvas, pad, _ = ref.transpose_plan(size, w.shape[2:], **plan)
    if any(n - before - after < 1 for n, (before, after) in zip(canvas, pad, strict=True)):
        with pytest.raises(ValueError, match="leaves"):
            xpconv.conv_transpose(x, w, **options)
        reject()
    value = functools.partial(ref.conv_transpose, **options)
    gradients = lambda dy, x, w, b: ref.conv_transpose_gradients(dy, x, w, **options)  # noqa: E731
    held_to_loops(find(name), xpconv.conv_transpose, hosts, options, value, gradients)


@everywhere
@given(
    geometry=geometries(least=3, most_pad=2),
    batch=BATCHES,
    ceil_mode=st.booleans(),
    count=st.one_of(st.booleans(), st.integers(1, 9)),
    p=st.sampled_from([1, 1.5, 2, 3, 4.5]),
    seed=SEEDS,
)
def test_pools(find, name, geometry, batch, ceil_mode, count, p, seed):
    (size, kernel, options), rng = geometry, np.random.default_rng(seed)
    options, x = {**options, "ceil_mode": ceil_mode}, drawn(rng, batch, 2, *size)
    tied = np.round(x * 2)
    # In ceil_mode PyTorch and the loops let even a first window hang over; the library wants a whole one.
    empty = not has_windows(size, kernel, **geometry[2]) or (ref.max_pool(x, kernel, **options)[1] < 0).any()
    event("pools" if not empty else "pools nothing")
    if empty:
        for op in (xpconv.max_pool, xpconv.avg_pool, xpconv.lp_pool):
            with pytest.raises(ValueError, match=r"spans|sees none"):
                op(x, kernel, **options)
        reject()
    backend, given_kernel = find(name), {"kernel": kernel, **options}
    held_to_loops(
        backend,
        xpconv.max_pool,
        [tied],
        given_kernel,
        lambda x: ref.max_pool(x, **given_kernel)[0],
        lambda dy, x: [ref.max_pool_gradient(dy, ref.max_pool(x, **given_kernel)[1], size)],
    )
    with strictest(backend):
        _, indices = xpconv.max_pool(backend.asarray(tied), return_indices=True, **given_kernel)
        assert_close(indices, ref.max_pool(tied, **given_kernel)[1], like=backend.asarray(x))
    counting = {**given_kernel, **({"count_include_pad": count} if isinstance(count, bool) else {"divisor": count})}
    held_to_loops(
        backend,
        xpconv.avg_pool,
        [x],
        counting,
        functools.partial(ref.avg_pool, **counting),
        lambda dy, x: [ref.avg_pool_gradient(dy, size, **counting)],
    )
    held_to_loops(
        backend,
        xpconv.lp_pool,
        [x],
        {**given_kernel, "p": p},
        lambda x: ref.lp_pool(x, p=p, **given_kernel),
        lambda dy, x: [ref.lp_pool_gradient(dy, x, p=p, **given_kernel)],
    )


@everywhere
@given(geometry=geometries(), batch=BATCHES, seed=SEEDS)
def test_patches(find, name, geometry, batch, seed):
    (size, kernel, options), x = geometry, drawn(np.random.default_rng(seed), batch, 2, *geometry[0])
    if not has_windows(size, kernel, **options):
        with pytest.raises(ValueError, match="spans"):
            xpconv.unfold(x, kernel, **options)
        reject()
    taps = ref.each(kernel, len(size))
    unfolded = functools.partial(ref.unfold, kernel=taps, **options)
    folded = functools.partial(ref.fold, output_size=size, kernel=taps, **options)
    backend, options = find(name), {"kernel": kernel, **options}
    held_to_loops(backend, xpconv.unfold, [x], options, unfolded, lambda dy, x: [folded(dy)])
    options = {"output_size": size, **options}
    held_to_loops(backend, xpconv.fold, [unfolded(x)], options, folded, lambda dy, col: [unfolded(dy)])


@everywhere
@given(data=st.data(), batch=BATCHES, seed=SEEDS)
def test_resizing(find, name, data, batch, seed):
    sizes = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=3)
    size, output_size = zip(*data.draw(sizes, label="from and to"), strict=True)
    x, options = drawn(np.random.default_rng(seed), batch, 2, *size), {"output_size": output_size}
    tied, backend = np.round(x * 2), find(name)
    held_to_loops(
        backend,
        xpconv.adaptive_max_pool,
        [tied],
        options,
        lambda x: ref.adaptive_max_pool(x, output_size)[0],
        lambda dy, x: [ref.max_pool_gradient(dy, ref.adaptive_max_pool(x, output_size)[1], size)],
    )
    with strictest(backend):
        _, indices = xpconv.adaptive_max_pool(backend.asarray(tied), output_size, return_indices=True)
        assert_close(indices, ref.adaptive_max_pool(tied, output_size)[1], like=backend.asarray(x))
    held_to_loops(
        backend,
        xpconv.adaptive_avg_pool,
        [x],
        options,
        functools.partial(ref.adaptive_avg_pool, **options),
        lambda dy, x: [ref.adaptive_avg_pool_gradient(dy, size)],
    )
    for mode in ("nearest", "linear"):
        resized = functools.partial(norms.interpolate, output_size=output_size, mode=mode)
        gradient = functools.partial(by_units, resized)
        held_to_loops(backend, xpconv.interpolate, [x], {**options, "mode": mode}, resized, gradient)


@everywhere
@given(data=st.data(), mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]), batch=BATCHES, seed=SEEDS)
def test_padding(find, name, data, mode, batch, seed):
    least = 2 if mode == "reflect" else 1
    size = tuple(data.draw(st.lists(st.integers(least, 5), min_size=1, max_size=3), label="size"))
    width = st.integers(0, 6)
    pad = data.draw(st.one_of(width, st.tuples(*[st.one_of(width, st.tuples(width, width))] * len(size))), label="pad")
    padded = functools.partial(norms.padding, pad=pad, mode=mode)
    x = drawn(np.random.default_rng(seed), batch, 1, *size)
    options = {"pad": pad, "mode": mode}
    held_to_loops(find(name), xpconv.pad, [x], options, padded, functools.partial(by_units, padded))


def by_units(f, dy, x):
    """The gradient (a list of one) of a linear map that treats all channels alike, by what it makes of each element."""
    count = x[0, 0].size
    units = f(np.eye(count).reshape(1, count, *x.shape[2:]))[0].reshape(count, -1)
    return [(dy.reshape(-1, units.shape[1]) @ units.T).reshape(x.shape)]


@everywhere
@given(geometry=geometries(most=4), batch=BATCHES, seed=SEEDS)
def test_unpooling(find, name, geometry, batch, seed):
    (size, kernel, options), rng = geometry, np.random.default_rng(seed)
    options = {"kernel": kernel, "stride": options["stride"], "pad": options["pad"]}
    canvas, pad, _ = ref.transpose_plan(size, kernel, options["stride"], options["pad"], 0, 1)
    wanted = tuple(n - before - after for n, (before, after) in zip(canvas, pad, strict=True))
    x = drawn(rng, batch, 2, *size)
    if min(wanted) < 1:
        with pytest.raises(ValueError, match="leaves"):
            xpconv.max_unpool(x, np.zeros(x.shape, int), **options)
        reject()
    assume(math.prod(wanted) >= math.prod(size))  # so that no index need come twice
    places = np.broadcast_to(np.arange(math.prod(wanted)), (batch, 2, math.prod(wanted)))
    indices = rng.permuted(places, axis=-1)[..., : math.prod(size)].reshape(x.shape)
    held_to_loops(
        find(name),
        xpconv.max_unpool,
        [x, indices],
        options,
        functools.partial(ref.max_unpool, **options),
        lambda dy, x, indices: [ref.max_unpool_gradient(dy, indices)],
    )


# --- Adjoint and linear


LINEAR = ["conv", "conv_transpose", "unfold", "avg_pool", "adaptive_avg_pool", "interpolate", "pad"]


@everywhere
@given(geometry=geometries(), op=st.sampled_from(LINEAR), batch=BATCHES, counts=channels(), seed=SEEDS)
def test_adjoint_and_linear(find, name, geometry, op, batch, counts, seed):
    (size, kernel, options), (groups, c, o), rng = geometry, counts, np.random.default_rng(seed)
    backend, x = find(name), drawn(rng, 2, batch, c, *size)
    arrays = [backend.asarray(host) for host in x]
    taps = ref.each(kernel, len(size))
    weight = {"conv": (o, c // groups, *taps), "conv_transpose": (c, o // groups, *taps)}.get(op)
    if weight is not None:
        options = {**options, "groups": groups}
    elif op in ("adaptive_avg_pool", "interpolate"):
        options = {"output_size": taps, **({"mode": "linear"} if op == "interpolate" else {})}
    elif op == "pad":
        options = {"pad": 3, "mode": "replicate"}
    else:
        options = {"kernel": kernel, **options}
    more = [backend.asarray(drawn(rng, *weight))] if weight is not None else []

    def apply(x, *more):
        return xpconv.vjp(getattr(xpconv, op), x, *more, **options)

    with strictest(backend):
        try:
            y, pullback = apply(arrays[0], *more)
        except ValueError:
            assume(False)  # what is refused is for the tests above
        dy = backend.asarray(drawn(rng, *y.shape))
        check_adjoint(lambda x: apply(x, *more)[0], lambda dy: pullback(dy)[0], arrays[0], dy, rtol=ADJOINT)
        both = backend.asarray(3 * x[0] - 2 * x[1])
        separate = 3 * xpconv.to_numpy(y) - 2 * xpconv.to_numpy(apply(arrays[1], *more)[0])
        assert_close(apply(both, *more)[0], separate, like=arrays[0])
        if more:
            check_adjoint(lambda w: apply(arrays[0], w)[0], lambda dy: pullback(dy)[1], more[0], dy, rtol=ADJOINT)
