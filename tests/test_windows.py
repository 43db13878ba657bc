"""Windows in whole numbers, held to the definition by walking along every axis."""

import itertools
import math

import numpy as np
import pytest
import reference as ref

from xpconv.windows import window

GEOMETRIES = [  # size, kernel, stride, (before, after), dilation
    (7, 3, 1, (0, 0), 1),
    (7, 3, 2, (1, 1), 1),
    (8, 3, 2, (1, 1), 1),  # the last element meets no window
    (8, 2, 3, (0, 0), 1),  # elements between the windows meet none
    (9, 3, 2, (2, 0), 2),  # stride and dilation share a factor
    (9, 2, 4, (1, 2), 6),
    (12, 3, 6, (3, 3), 4),
    (5, 5, 1, (4, 4), 1),
    (4, 3, 3, (0, 5), 1),  # whole windows on padding
    (1, 1, 1, (0, 0), 1),
    (3, 4, 2, (1, 0), 1),
]


def draw_geometry(rng):
    """One axis: size, kernel, stride, (before, after), dilation with at least one whole window."""
    while True:
        n, k, s, d = (int(rng.integers(1, most)) for most in (12, 5, 5, 4))
        pad = int(rng.integers(0, 4)), int(rng.integers(0, 4))
        if ref.starts(n, k, s, pad, d):
            return n, k, s, pad, d


GEOMETRIES += [draw_geometry(rng) for rng in [np.random.default_rng(8)] for _ in range(60)]


def one_axis(size, kernel, stride, pad, dilation, ceil_mode=False):
    plan = window((size,), kernel, stride=stride, pad=(pad,), dilation=dilation, ceil_mode=ceil_mode)
    return plan.axes[0]


# --- Output sizes


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_windows_start_where_walking_along_the_axis_finds_them(geometry, ceil_mode):
    _, kernel, stride, _, dilation = geometry
    found = ref.starts(*geometry, ceil_mode=ceil_mode)
    axis = one_axis(*geometry, ceil_mode)
    assert axis.output == len(found)
    for k in range(kernel):
        places = range(axis.reach)[axis.tap(k)]
        assert list(places) == [start + k * dilation for start in found]
    assert axis.extent == (kernel - 1) * dilation + 1
    assert axis.reach == found[-1] + axis.extent
    assert found == list(range(0, len(found) * stride, stride))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_margins_make_the_axis_as_long_as_the_windows_reach(geometry):
    size, _, _, (before, _), _ = geometry
    axis = one_axis(*geometry)
    assert axis.margin[0] == before
    assert sum(axis.margin) + size == axis.reach


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((7, 7), {"kernel": 5}, (3, 3)),
        ((28, 28), {"kernel": 5}, (24, 24)),
        ((7, 5), {"kernel": (3, 2), "stride": (2, 3)}, (3, 2)),
        ((7, 5), {"kernel": 3, "pad": 1}, (7, 5)),
        ((7, 5), {"kernel": 3, "pad": (1, 0)}, (7, 3)),
        ((7, 5), {"kernel": 3, "pad": ((1, 0), (0, 2))}, (6, 5)),
        ((7, 5), {"kernel": 3, "pad": (1, (0, 2))}, (7, 5)),
        ((7, 5), {"kernel": 3, "pad": [[1, 0], [0, 2]]}, (6, 5)),
        ((7, 5), {"kernel": 3, "pad": "valid"}, (5, 3)),
        ((7, 5), {"kernel": 4, "pad": "same"}, (7, 5)),
        ((7, 5), {"kernel": 4, "pad": "same", "stride": 2, "dilation": 2}, (4, 3)),
        ((7,), {"kernel": np.int64(3), "stride": np.int32(2)}, (3,)),
        ((5, 6, 7), {"kernel": 2, "stride": 2}, (2, 3, 3)),
        ((5, 6, 7), {"kernel": 2, "stride": 2, "ceil_mode": True}, (3, 3, 4)),
        ((3,), {"kernel": 2, "stride": 2, "pad": 1}, (2,)),
        ((3,), {"kernel": 2, "stride": 2, "pad": 1, "ceil_mode": True}, (2,)),  # a third would begin in the padding
    ],
    ids=str,
)
def test_output_sizes(size, options, expected):
    assert window(size, **options).output == expected


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize(("kernel", "stride", "dilation"), list(itertools.product((1, 2, 3, 4), (1, 2, 3), (1, 2))))
def test_same_gives_one_window_a_stride_with_the_least_padding(n, kernel, stride, dilation):
    axis = window((n,), kernel, stride=stride, pad="same", dilation=dilation).axes[0]
    assert axis.output == math.ceil(n / stride)
    assert [(axis.before, axis.after)] == ref.pairs("same", (n,), kernel, stride, dilation)
    assert axis.after - axis.before in (0, 1)


def test_a_window_describes_all_axes():
    plan = window((7, 5), (3, 2), stride=(2, 1), pad=((1, 0), (0, 2)))
    assert (plan.size, plan.kernel, plan.output, plan.taps) == ((7, 5), (3, 2), (3, 6), 6)
    assert plan.margins == ((1, -1), (0, 2))


# --- What windows see


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_members_are_the_taps_on_the_axis(geometry, ceil_mode, include_pad):
    size, kernel, _, (before, after), dilation = geometry
    low, high = (-before, size + after) if include_pad else (0, size)
    expected = []
    for start in ref.starts(*geometry, ceil_mode=ceil_mode):
        seen = [start - before + k * dilation for k in range(kernel)]
        expected.append(len([i for i in seen if low <= i < high]))
    assert one_axis(*geometry, ceil_mode).members(include_pad=include_pad) == tuple(expected)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_taps_see_what_lies_on_the_axis(geometry, ceil_mode):
    size, kernel, stride, (before, _), dilation = geometry
    expected, axis = [], one_axis(*geometry, ceil_mode)
    for k in range(kernel):
        seen = [start - before + k * dilation for start in ref.starts(*geometry, ceil_mode=ceil_mode)]
        expected.append([(o, i) for o, i in enumerate(seen) if 0 <= i < size])
    found = [
        list(zip(range(axis.output)[tap.windows], range(tap.residue, size, stride)[tap.places], strict=True))
        for tap in axis.taps
    ]
    assert found == [pairs for pairs in expected if pairs]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_phases_pair_every_element_with_the_taps_that_see_it(geometry):
    size, kernel, stride, (before, _), dilation = geometry
    axis = one_axis(*geometry)
    meetings = {
        (o * stride + k * dilation - before, o, k)
        for o, k in itertools.product(range(axis.output), range(kernel))
        if 0 <= o * stride + k * dilation - before < size
    }
    found, again, elements = [], [], []
    for phase in axis.phases():
        mine, taps = range(size)[phase.elements], range(kernel)[phase.taps]
        elements += mine
        assert (phase.axis.size, phase.axis.stride) == (axis.output, 1)
        assert (phase.axis.kernel, phase.axis.output) == (len(taps), len(mine))
        for j, t in itertools.product(range(len(mine)), range(len(taps))):
            o = j - phase.axis.before + t * phase.axis.dilation
            if 0 <= o < axis.output:
                found.append((mine[j], o, taps[len(taps) - 1 - t]))
        over = phase.over
        assert (over.size, over.kernel, over.stride, over.output) == (len(mine), len(taps), 1, axis.output)
        for o, t in itertools.product(range(over.output), range(over.kernel)):
            j = o - over.before + t * over.dilation
            if 0 <= j < over.size:
                again.append((mine[j], o, taps[t]))
    assert sorted(elements) == list(range(size))
    assert len(found) == len(set(found))
    assert set(found) == meetings
    assert sorted(again) == sorted(found)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_some_windows_see_what_they_see_among_all(geometry):
    size, kernel, stride, (before, _), dilation = geometry
    axis = one_axis(*geometry)
    for start, stop in itertools.combinations(range(axis.output + 1), 2):
        elements, part = axis.part(start, stop)
        mine = range(size)[elements]
        assert (part.size, part.output, part.kernel) == (len(mine), stop - start, kernel)
        for o, k in itertools.product(range(stop - start), range(kernel)):
            whole = (start + o) * stride + k * dilation - before
            here = o * part.stride + k * part.dilation - part.before
            assert (mine[here] if 0 <= here < len(mine) else None) == (whole if 0 <= whole < size else None)


def test_some_windows_of_the_first_axis():
    plan = window((7, 5), (3, 2), stride=(2, 1), pad=((1, 0), (0, 2)))
    elements, part = plan.part(1, 3)
    assert elements == slice(1, 6)
    assert (part.size, part.output, part.axes[1]) == ((5, 5), (2, 6), plan.axes[1])


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_window_on_padding_alone_is_noticed(geometry, ceil_mode):
    size, kernel, _, (before, _), dilation = geometry
    alone = []
    for start in ref.starts(*geometry, ceil_mode=ceil_mode):
        alone.append(all(not 0 <= start - before + k * dilation < size for k in range(kernel)))
    assert one_axis(*geometry, ceil_mode).padding_alone == any(alone)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_windows_around_some_elements(geometry):
    size, kernel, stride, (before, _), dilation = geometry
    axis = one_axis(*geometry)
    for start, stop in itertools.combinations(range(size + 1), 2):
        windows, here = axis.around(start, stop)
        assert (here.size, here.kernel, here.output) == (stop - start, kernel, windows.stop - windows.start)
        meetings, found = set(), set()
        for o, k in itertools.product(range(axis.output), range(kernel)):
            element = o * stride + k * dilation - before
            meetings |= {(element, o, k)} if start <= element < stop else set()
        for o, k in itertools.product(range(here.output), range(kernel)):
            element = o * here.stride + k * here.dilation - here.before
            found |= {(start + element, windows.start + o, k)} if 0 <= element < here.size else set()
        assert found == meetings


@pytest.mark.parametrize(
    ("size", "kernel", "options", "expected"),
    [
        (7, 2, {"stride": 2}, True),
        (3, 3, {}, True),
        (3, 2, {"pad": 1, "stride": 2}, True),
        (6, 2, {"stride": 3}, False),
        (6, 2, {}, False),
        (3, 2, {"dilation": 2}, False),
    ],
)
def test_abutting(size, kernel, options, expected):
    assert window((size,), kernel, **options).axes[0].abutting == expected


# --- What does not fit


@pytest.mark.parametrize(
    ("size", "options", "error", "says"),
    [
        ((7,), {"kernel": 0}, ValueError, ["kernel is 0", "at least 1"]),
        ((7,), {"kernel": -2}, ValueError, ["kernel is -2", "at least 1"]),
        ((7,), {"kernel": 3, "stride": 0}, ValueError, ["stride is 0", "at least 1"]),
        ((7,), {"kernel": 3, "stride": -1}, ValueError, ["stride is -1", "at least 1"]),
        ((7,), {"kernel": 3, "dilation": 0}, ValueError, ["dilation is 0", "at least 1"]),
        ((7,), {"kernel": 3, "pad": -1}, ValueError, ["pad is -1", "at least 0"]),
        ((7,), {"kernel": 3, "pad": ((0, -1),)}, ValueError, ["pad is -1", "at least 0"]),
        ((7,), {"kernel": 3.0}, TypeError, ["kernel is 3.0 (float)", "whole number"]),
        ((7,), {"kernel": True}, TypeError, ["kernel is True (bool)", "whole number"]),
        ((7,), {"kernel": "3"}, TypeError, ["kernel is '3' (str)", "whole number"]),
        ((7,), {"kernel": None}, TypeError, ["kernel is None", "whole number"]),
        ((7,), {"kernel": 3, "stride": 1.5}, TypeError, ["stride is 1.5 (float)", "whole number"]),
        ((7,), {"kernel": 3, "pad": 0.5}, TypeError, ["pad is 0.5 (float)", "whole number"]),
        ((7,), {"kernel": 3, "pad": (0.5,)}, TypeError, ["pad is 0.5 (float)", "whole number"]),
        ((7,), {"kernel": 3, "dilation": np.float64(2)}, TypeError, ["dilation is", "float64", "whole number"]),
        ((7,), {"kernel": 3, "pad": "full"}, ValueError, ["'full'", '"same" or "valid"']),
        ((7, 7), {"kernel": (3,)}, ValueError, ["kernel is (3,), 1 numbers for 2 spatial axes"]),
        ((7, 7), {"kernel": 3, "stride": (1, 2, 3)}, ValueError, ["(1, 2, 3), 3 numbers for 2 spatial axes"]),
        ((7, 7), {"kernel": 3, "pad": (1, 1, 1, 1)}, ValueError, ["(1, 1, 1, 1), 4 entries for 2", "pair for each"]),
        ((7, 7), {"kernel": 3, "pad": (1, (1, 2, 3))}, ValueError, ["entry (1, 2, 3)", "(before, after) pair"]),
        ((7,), {"kernel": 3, "pad": ("same",)}, TypeError, ["pad is 'same' (str)", "whole number"]),
        ((7, 2), {"kernel": 3}, ValueError, ["kernel of 3", "spans 3", "axis 1", "(7, 2) has 2", "smaller kernel"]),
        ((7,), {"kernel": 3, "pad": (0, 1)}, ValueError, ["(0, 1), 2 entries for 1 spatial axes", "(before, after)"]),
        ((7,), {"kernel": 3, "dilation": 4, "pad": ((0, 1),)}, ValueError, ["dilation 4", "spans 9", "8 when padded"]),
        ((0,), {"kernel": 1}, ValueError, ["axis 0", "has 0"]),
        ((0,), {"kernel": 1, "pad": 2}, ValueError, ["axis 0", "has 0"]),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said(size, options, error, says):
    with pytest.raises(error) as caught:
        window(size, **options)
    for fragment in says:
        assert fragment in str(caught.value)


def test_ceil_mode_needs_one_whole_window():
    # PyTorch lets even a first window hang over; a result of nothing but the edge of an image hides a mistake.
    assert ref.starts(2, 3, 2, ceil_mode=True) == [0]
    with pytest.raises(ValueError, match=r"spans 3 elements, but axis 0 .* has 2 and 2 when padded"):
        window((2,), 3, stride=2, ceil_mode=True)
