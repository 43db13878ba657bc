"""Initial weights: their spread against the formulas of the papers, and the convention for fan_in."""

import math

import numpy as np
import pytest

from xpconv.networks.initializers import he, initial, normal, xavier


def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("shape, fan_in", [((40, 25, 5, 5), 625), ((64, 50, 9), 450), ((300, 200), 300)])
@pytest.mark.parametrize("rule, gain", [(he, 2), (xavier, 1)])
def test_variance_is_that_of_the_paper(rule, gain, shape, fan_in):
    weights = rule(rng(), shape)
    assert weights.shape == shape
    assert weights.dtype == np.float64
    error = 5 / math.sqrt(2 * weights.size)  # five standard errors of a standard deviation
    assert weights.std() == pytest.approx(math.sqrt(gain / fan_in), rel=error)
    assert abs(weights.mean()) < 5 * weights.std() / math.sqrt(weights.size)


def test_fan_in_can_be_given():
    np.testing.assert_allclose(he(rng(), (8, 3), 200) * 10, he(rng(), (8, 3), 2), rtol=1e-15)
    assert he(rng(), (5,), 4).shape == (5,)


def test_the_same_generator_gives_the_same_weights():
    np.testing.assert_array_equal(he(rng(), (4, 3, 3, 3)), he(rng(), (4, 3, 3, 3)))
    one = rng()
    assert not np.array_equal(he(one, (4, 3)), he(one, (4, 3)))


@pytest.mark.parametrize(
    "name, rule", [("he", he), ("relu", he), ("ReLU", he), ("xavier", xavier), ("sigmoid", xavier)]
)
def test_rules_have_the_names_of_the_book(name, rule):
    np.testing.assert_array_equal(initial(rng(), (6, 5), name), rule(rng(), (6, 5)))


def test_a_number_is_a_standard_deviation():
    np.testing.assert_array_equal(initial(rng(), (6, 5), 0.01), normal(rng(), (6, 5), 0.01))
    np.testing.assert_allclose(normal(rng(), (6, 5), 0.01) * 100, normal(rng(), (6, 5), 1), rtol=1e-15)
    assert not normal(rng(), (6, 5), 0).any()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: normal(0, (2, 2)), TypeError, "rng is a int; give a numpy.random.Generator"),
        (lambda: normal(rng(), (2, 2), -1), ValueError, "std is -1; give a number of at least 0"),
        (lambda: normal(rng(), (2, 2), math.nan), ValueError, "std is nan"),
        (lambda: initial(rng(), (2, 2), "kaiming"), ValueError, "'kaiming'; give a number or one of he, relu"),
        (lambda: he(rng(), (2,)), ValueError, r"shape is \(2,\); give \(O, C, \*kernel\)"),
        (lambda: he(rng(), (0, 2)), ValueError, "all at least 1"),
        (lambda: he(rng(), (2, 2), 0), ValueError, "fan_in is 0"),
        (lambda: he(rng(), (2, 2), 2.5), TypeError, "fan_in is 2.5"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
