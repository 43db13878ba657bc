"""Augmentation: every image is one of those that a plain loop makes, each of them comes up, and backends agree."""

import itertools
from functools import partial

import numpy as np
import pytest

from xpconv.data import crop, cutout, flip, shift
from xpconv.testing import assert_close

SAMPLES = 400


def images(*size, count=SAMPLES, channels=2, dtype="float32"):
    """Images of different elements, none of them zero, all samples alike."""
    one = 1 + np.arange(channels * np.prod(size)).reshape(channels, *size)
    return np.broadcast_to(one, (count, *one.shape)).astype(dtype)


def windows(image, size, pads):
    """Every window of an image (C, *size) with zeros around it, one by one."""
    padded = np.pad(image, [(0, 0), *pads])
    room = [have - want + 1 for have, want in zip(padded.shape[1:], size, strict=True)]
    for start in itertools.product(*map(range, room)):
        yield padded[:, *(slice(at, at + want) for at, want in zip(start, size, strict=True))]


def flips(image, axes):
    """An image as it is, and mirrored along every choice of the axes."""
    for count in range(len(axes) + 1):
        for chosen in itertools.combinations(axes, count):
            yield image[tuple(slice(None, None, -1 if axis in chosen else 1) for axis in range(image.ndim))]


def holes(image, size):
    """An image with a window of zeros about each of its elements, one by one."""
    for middle in np.ndindex(image.shape[1:]):
        holed = image.copy()
        for place in np.ndindex(image.shape[1:]):
            if all(
                -(width // 2) <= p - m < width - width // 2 for p, m, width in zip(place, middle, size, strict=True)
            ):
                holed[:, *place] = 0
        yield holed


CASES = {
    "crop-1": (partial(crop, size=4), (6,), lambda x: windows(x, (4,), [(0, 0)])),
    "crop-2": (partial(crop, size=(3, 2)), (5, 4), lambda x: windows(x, (3, 2), [(0, 0)] * 2)),
    "crop-pad": (partial(crop, size=4, pad=((1, 2), 1)), (4, 5), lambda x: windows(x, (4, 4), [(1, 2), (1, 1)])),
    "crop-3": (
        partial(crop, size=2, pad=(0, 1, 0)),
        (2, 3, 3),
        lambda x: windows(x, (2,) * 3, [(0, 0), (1, 1), (0, 0)]),
    ),
    "shift-1": (partial(shift, most=3), (4,), lambda x: windows(x, (4,), [(3, 3)])),
    "shift-2": (partial(shift, most=(1, 2)), (3, 4), lambda x: windows(x, (3, 4), [(1, 1), (2, 2)])),
    "shift-3": (partial(shift, most=1), (2, 3, 2), lambda x: windows(x, (2, 3, 2), [(1, 1)] * 3)),
    "shift-away": (partial(shift, most=(3, 0)), (2, 2), lambda x: windows(x, (2, 2), [(3, 3), (0, 0)])),
    "flip-1": (flip, (4,), lambda x: flips(x, (1,))),
    "flip-2": (flip, (3, 4), lambda x: flips(x, (2,))),
    "flip-both": (partial(flip, axes=(2, -1)), (3, 4), lambda x: flips(x, (1, 2))),
    "flip-3": (partial(flip, axes=(-3, 3)), (2, 3, 2), lambda x: flips(x, (1, 2))),
    "cutout-1": (partial(cutout, size=2), (5,), lambda x: holes(x, (2,))),
    "cutout-2": (partial(cutout, size=(3, 2)), (4, 5), lambda x: holes(x, (3, 2))),
    "cutout-3": (partial(cutout, size=1), (2, 3, 2), lambda x: holes(x, (1,) * 3)),
    "cutout-all": (partial(cutout, size=9), (3, 4), lambda x: holes(x, (9, 9))),
}


@pytest.mark.parametrize("name", CASES)
def test_every_image_is_one_that_a_loop_makes_and_each_comes_up(name):
    augment, size, loop = CASES[name]
    x = images(*size)
    wanted = {image.tobytes() for image in loop(x[0])}
    y = augment(x, rng=np.random.default_rng(0))
    assert y.shape == (SAMPLES, 2, *next(loop(x[0])).shape[1:])
    assert {np.ascontiguousarray(image).tobytes() for image in y} == wanted
    np.testing.assert_array_equal(x, images(*size))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_backends_make_the_same_images(backend, name, dtype):
    augment, size, _ = CASES[name]
    host = images(*size, count=7, dtype=dtype) * np.arange(1, 8, dtype=dtype).reshape(-1, *[1] * (len(size) + 1))
    wanted = augment(host, rng=np.random.default_rng(5))
    x = backend.asarray(host)
    assert_close(augment(x, rng=np.random.default_rng(5)), wanted, like=x, rtol=0)
    assert not np.array_equal(augment(host, rng=np.random.default_rng(6)), wanted) or name == "cutout-all"


@pytest.mark.parametrize("name", CASES)
def test_without_a_generator_nothing_is_drawn(backend, name):
    augment, size, _ = CASES[name]
    middle = {"crop-1": np.s_[1:5], "crop-2": np.s_[1:4, 1:3], "crop-pad": np.s_[:4, :4], "crop-3": np.s_[:2, :2, :2]}
    host = images(*size, count=3)
    wanted = host[:, :, *np.index_exp[middle.get(name, ...)]]
    x = backend.asarray(host)
    assert_close(augment(x), wanted, like=x, rtol=0)


def test_every_place_is_as_likely():
    y = crop(images(3, 3, count=9000, channels=1), 1, rng=np.random.default_rng(0))
    counts = np.unique(y, return_counts=True)[1]
    assert counts.shape == (9,)
    assert abs(counts - 1000).max() < 150  # five standard deviations


@pytest.mark.parametrize("ratio", [0, 0.2, 1])
def test_as_many_are_mirrored_as_asked_for(ratio):
    x = images(3, count=5000, channels=1)
    mirrored = flip(x, ratio=ratio, rng=np.random.default_rng(0))[:, 0, 0] != x[:, 0, 0]
    assert abs(mirrored.mean() - ratio) <= (0.03 if ratio == 0.2 else 0)


X = images(4, 5, count=2)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: crop(X, 5, rng=RNG), ValueError, r"size is \(5, 5\) and the images with their padding \(4, 5\)"),
        (lambda: crop(X, 7, pad=1), ValueError, r"size is \(7, 7\) and the images with their padding \(6, 7\)"),
        (lambda: crop(X, 0), ValueError, "size is 0"),
        (lambda: crop(X, (1, 2, 3)), ValueError, "3 numbers for 2 spatial axes"),
        (lambda: crop(X, 2, pad=-1), ValueError, "pad is -1"),
        (lambda: crop(X, 2, rng=0), TypeError, "rng is a int; give a numpy.random.Generator or None"),
        (lambda: crop(X.tolist(), 2), TypeError, "x is a list"),
        (lambda: crop(X[:, 0, 0], 2), ValueError, "spatial axis"),
        (lambda: shift(X, 1.5), TypeError, "most is 1.5"),
        (lambda: shift(X, -1), ValueError, "most is -1"),
        (lambda: shift(X, 1, rng=0), TypeError, "rng is a int"),
        (lambda: flip(X, 1), ValueError, r"axes has 1, which is no spatial axis of x of shape \(2, 2, 4, 5\)"),
        (lambda: flip(X, (2, -3)), ValueError, "axes has -3"),
        (lambda: flip(X, 4), ValueError, "axes has 4"),
        (lambda: flip(X, "W"), TypeError, "an axis is 'W'"),
        (lambda: flip(X, ratio=1.5), ValueError, "ratio is 1.5"),
        (lambda: cutout(X, 0), ValueError, "size is 0"),
        (lambda: cutout(X, 2, rng=0), TypeError, "rng is a int"),
    ],
)
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
