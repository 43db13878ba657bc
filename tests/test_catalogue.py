"""The catalogue says what was seen: against what is known of some operators, and that none is left out."""

import pytest

import xpconv
from xpconv import catalogue

FLOATS, FIXED = ["f64", "f32", "f16"], ["f64", "f32", "f16", "c64", "i32"]


@pytest.fixture(scope="module")
def entries():
    return {entry.name: entry for entry in catalogue.operators(xpconv.backend("numpy"))}


def test_every_operator_is_there_and_runs_on_numpy(entries):
    assert set(entries) == {name for name in xpconv.__all__ if hasattr(getattr(xpconv, name), "with_pullback")}
    assert all(entry.axes and entry.summary for entry in entries.values())


@pytest.mark.parametrize(
    ("name", "axes", "layers", "dtypes"),
    [
        ("conv", (1, 2, 3, 4), ("Convolution",), FIXED),
        ("im2col", (2,), (), FIXED),
        ("relu", (0, 1, 2, 3, 4), ("Relu",), FLOATS),
        ("max_pool", (1, 2, 3, 4), ("MaxPooling", "Pooling"), [*FLOATS, "i32"]),
        ("softmax_cross_entropy", (0, 1, 2, 3, 4), ("SoftmaxWithLoss",), FLOATS),
        ("affine", (0, 1, 2, 3, 4), ("Affine",), [*FLOATS, "c64"]),
    ],
)
def test_what_was_seen(entries, name, axes, layers, dtypes):
    entry = entries[name]
    assert (entry.axes, entry.layers) == (axes, layers)
    assert catalogue.dtypes(entry, xpconv.backend("numpy")) == dtypes


def test_a_pullback_of_another_dtype_does_not_count():
    @xpconv.operator
    def sloppy(x: "xpconv.arrays.libraries.Array"):
        return x, lambda dy: (dy.astype("float64"),)

    numpy = xpconv.backend("numpy")
    assert catalogue.works(sloppy, numpy, "float64", (6,))
    assert not catalogue.works(sloppy, numpy, "float32", (6,))


def test_an_argument_without_an_example_is_an_error_not_a_gap():
    @xpconv.operator
    def novel(x: "xpconv.arrays.libraries.Array", novelty):
        return x, lambda dy: (dy,)

    with pytest.raises(NotImplementedError, match="novelty"):
        catalogue.works(novel, xpconv.backend("numpy"), "float32", (6,))


def test_table():
    lines = catalogue.table([xpconv.backend("numpy")]).splitlines()
    assert lines[0] == "| operator | layer | spatial axes | numpy |  |"
    assert any(line.startswith("| `im2col` |  | 2 | f64 f32 f16 c64 i32 | Lower images") for line in lines)
    assert any(line.startswith("| `conv` | `Convolution` | 1 and more | f64") for line in lines)
    assert len(lines) == 2 + sum(hasattr(getattr(xpconv, name), "with_pullback") for name in xpconv.__all__)
