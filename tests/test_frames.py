"""The primitive: windows along an axis, their adjoint, and margins."""

import numpy as np
import pytest
from applying import compiled
from cases import integers, normal

import xpconv
from xpconv.testing import assert_close, check_adjoint
from xpconv.windows import window
from xpconv.windows.frames import cut, extend, frames, overlap_add, uncut

SPANS = [  # reach, kernel, stride, dilation
    (7, 3, 1, 1),
    (9, 3, 2, 1),
    (7, 2, 5, 1),  # elements between the windows
    (9, 3, 2, 2),
    (1, 1, 1, 1),
]


def span_of(reach, kernel, stride, dilation):
    return window((reach,), kernel, stride=stride, dilation=dilation).axes[0]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("geometry", SPANS, ids=str)
def test_frames_are_windows(backend, geometry, axis):
    reach, kernel, stride, dilation = geometry
    span = span_of(*geometry)
    host = normal(*(2, 3, 2)[:axis], reach, *(2, 3, 2)[axis + 1 :])
    windows = [
        np.stack([host.take(o * stride + k * dilation, axis) for k in range(kernel)], axis) for o in range(span.output)
    ]
    x = backend.asarray(host)
    assert_close(compiled(backend, lambda x: frames(x, axis, span))(x), np.stack(windows, axis), like=x, rtol=0)


@pytest.mark.parametrize("geometry", SPANS, ids=str)
def test_overlap_add_is_the_adjoint_of_frames(backend, geometry):
    span = span_of(*geometry)
    x, y = backend.asarray(normal(2, geometry[0], 3)), backend.asarray(normal(2, span.output, span.kernel, 3))
    forward, backward = (
        compiled(backend, f) for f in (lambda x: frames(x, 1, span), lambda y: overlap_add(y, 1, span))
    )
    check_adjoint(forward, backward, x, y)


def test_frames_of_arrays_in_any_order_of_memory(backend):
    host = normal(3, 8, 2)
    span = span_of(8, 3, 2, 1)
    x = backend.asarray(host)
    turned = backend.xp.flip(backend.xp.permute_dims(x, (2, 1, 0)), axis=1)
    expected = np.stack([host.T[:, ::-1].take([o * 2 + k for k in range(3)], 1) for o in range(3)], 1)
    assert_close(frames(turned, 1, span), expected, like=x, rtol=0)


def test_frames_are_a_view_where_the_library_has_views():
    x = np.zeros(7)
    assert np.shares_memory(frames(x, 0, span_of(7, 3, 1, 1)), x)


@pytest.mark.parametrize(
    "margins",
    [
        [(0, 0), (0, 0)],
        [(1, 2), (0, 3)],
        [(-1, -2), (0, -1)],
        [(2, -3), (-1, 1)],
        [(-6, 1), (0, 0)],
        [(-8, 3), (1, 1)],  # more is taken away than there is
        [(3, -8), (1, 1)],
    ],
    ids=str,
)
def test_margins_are_laid_on_and_taken_away(backend, margins):
    host = normal(2, 6, 5)
    x = backend.asarray(host)
    found = compiled(backend, lambda x: extend(x, margins, first=1, value=7))(x)
    expected = np.full((2, *(n + a + b for n, (a, b) in zip((6, 5), margins, strict=True))), 7.0)
    for at in np.ndindex(expected.shape[1:]):
        source = tuple(i - before for i, (before, _) in zip(at, margins, strict=True))
        if all(0 <= s < n for s, n in zip(source, (6, 5), strict=True)):
            expected[:, *at] = host[:, *source]
    assert_close(found, expected, like=x, rtol=0)


def test_no_margins_copy_nothing():
    x = np.zeros((2, 3))
    assert extend(x, [(0, 0), (0, 0)], first=0) is x


@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        ((7, 6), (3, 2), {"stride": 2, "pad": ((1, 0), (0, 2))}),
        ((5, 6, 4), 2, {"stride": (1, 3, 2), "pad": 1, "dilation": (2, 1, 1)}),
        ((9,), 2, {"stride": 4}),
    ],
    ids=str,
)
def test_uncut_is_the_adjoint_of_cut(backend, size, kernel, options):
    plan = window(size, kernel, **options)
    x = backend.asarray(normal(2, 3, *size))
    shape = [n for pair in zip(plan.output, plan.kernel, strict=True) for n in pair]
    y = backend.asarray(normal(2, 3, *shape))
    forward, backward = (
        compiled(backend, f) for f in (lambda x: cut(x, plan, first=2), lambda y: uncut(y, plan, first=2))
    )
    check_adjoint(forward, backward, x, y)


def test_whole_numbers_add_up_exactly(backend):
    span = span_of(7, 3, 1, 1)
    y = backend.asarray(integers(9, 5, 3))
    total = [sum(integers(9, 5, 3)[o, k] for o in range(5) for k in range(3) if o + k == i) for i in range(7)]
    assert_close(overlap_add(y, 0, span), np.array(total), like=y)
    assert xpconv.to_numpy(y).tolist() == integers(9, 5, 3).tolist()
