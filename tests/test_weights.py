"""Weights in files."""

import json
import os
import pickle
import stat
import sys

import numpy as np
import pytest

from xpconv.networks.weights import check_fit, load_weights, save_weights

safetensors = pytest.importorskip("safetensors")
INSTALL = 'safetensors: pip install "xpconv\\[examples\\]"'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


def some_weights():
    filters = np.random.default_rng(0).standard_normal((4, 3, 5, 5))
    return {"W1": filters.astype(np.float32), "b1": np.zeros(4), "steps": np.array(7)}


def assert_same(loaded, saved):
    assert loaded.keys() == saved.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(loaded[name], array, strict=True)


def assert_only(path, arrays):
    """Assert that the file holds these arrays and that nothing else lies in its directory."""
    assert_same(load_weights(path), arrays)
    assert os.listdir(path.parent) == [path.name]


# There and back


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_round_trip(path, kind):
    save_weights(kind(path), some_weights())
    assert_same(load_weights(kind(path)), some_weights())


@pytest.mark.parametrize("dtype", [np.dtype(code) for code in "?bBhHiIqQefd"], ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_round_trip_of_every_dtype(path, dtype, shape):
    arrays = {"a": np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)}
    save_weights(path, arrays)
    assert_same(load_weights(path), arrays)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: np.asfortranarray(a),
        lambda a: np.broadcast_to(a[0], (3, 6)),
    ],
)
def test_views_are_saved_as_they_read(path, view):
    array = view(np.arange(24.0).reshape(4, 6))
    save_weights(path, {"a": array})
    assert_same(load_weights(path), {"a": np.array(array)})


def test_big_endian_arrays_keep_their_values(path):
    save_weights(path, {"a": np.arange(3, dtype=">f4")})
    assert_same(load_weights(path), {"a": np.arange(3, dtype=np.float32)})


def test_saving_changes_nothing_given(path):
    arrays, metadata = some_weights(), {"epoch": "3"}
    for array in arrays.values():
        array.flags.writeable = False
    save_weights(path, arrays, metadata)
    assert_same(arrays, some_weights())
    assert metadata == {"epoch": "3"}


def test_loaded_arrays_can_be_trained_further(path):
    save_weights(path, some_weights())
    load_weights(path)["W1"][:] = 0
    assert_same(load_weights(path), some_weights())


@pytest.mark.parametrize("metadata", [None, {}])
def test_no_arrays(path, metadata):
    save_weights(path, {}, metadata)
    assert load_weights(path) == {}


def test_metadata(path):
    save_weights(path, some_weights(), {"epoch": "3", "accuracy": "0.99"})
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"epoch": "3", "accuracy": "0.99"}
    assert_same(load_weights(path), some_weights())


# Saving is all or nothing


def test_saving_replaces(path):
    save_weights(path, {"old": np.ones(3)})
    save_weights(path, some_weights())
    assert_only(path, some_weights())


def test_file_is_complete_and_on_disk_before_it_replaces_the_old_one(path, monkeypatch):
    save_weights(path, {"old": np.ones(3)})
    events, replace, fsync = [], os.replace, os.fsync

    def recording_fsync(descriptor):
        fsync(descriptor)
        found = os.fstat(descriptor)
        events.append(("fsync", "directory" if stat.S_ISDIR(found.st_mode) else found.st_size))

    def recording_replace(source, destination):
        assert_same(load_weights(destination), {"old": np.ones(3)})
        assert_same(load_weights(source), some_weights())
        events.append(("replace", os.stat(source).st_size))
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    save_weights(path, some_weights())
    size = path.stat().st_size
    assert events == [("fsync", size), ("replace", size), ("fsync", "directory")]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file(path, monkeypatch, step, error):
    def fail(*arguments):
        raise error

    save_weights(path, {"old": np.ones(3)})
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(type(error)):
            save_weights(path, some_weights())
    assert_only(path, {"old": np.ones(3)})


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_file_mode_is_that_of_any_new_file(path):
    other = path.with_name("other")
    other.write_bytes(b"")
    save_weights(path, some_weights())
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize(
    ("arrays", "metadata", "error", "message"),
    [
        ({"W1": [1.0, 2.0]}, None, TypeError, "'W1' is a list; give NumPy arrays"),
        ({"W1": 1.0}, None, TypeError, "'W1' is a float; give NumPy arrays"),
        ({"W1": np.zeros(2, np.complex128)}, None, ValueError, "safetensors: not written: .*complex128"),
        ({"W1": np.array([None])}, None, ValueError, "not written: .*object"),
        ({"__metadata__": np.zeros(2)}, None, ValueError, "'__metadata__' is a name that the format keeps"),
        ({1: np.zeros(2)}, None, TypeError, "int"),
        ({"W1": np.zeros(2)}, {"epoch": 3}, TypeError, "int"),
    ],
)
def test_saving_refuses(path, arrays, metadata, error, message):
    save_weights(path, {"old": np.ones(3)})
    with pytest.raises(error, match=message):
        save_weights(path, arrays, metadata)
    assert_only(path, {"old": np.ones(3)})


def test_saving_into_a_missing_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_weights(tmp_path / "nowhere" / "network.safetensors", some_weights())


def test_saving_over_a_directory(path):
    path.mkdir()
    with pytest.raises(OSError, match=r"network\.safetensors"):
        save_weights(path, some_weights())
    assert os.listdir(path.parent) == [path.name]


# Loading


def test_loading_a_truncated_file(path):
    save_weights(path, some_weights())
    content = path.read_bytes()
    for length in (0, 1, 7, 8, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"network\.safetensors: not weights that can be read: .*header"):
            load_weights(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content + b"\0",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"x" + content[9:],
        lambda content: content.replace(b"[4,3,5,5]", b"[4,3,5,6]"),
        lambda content: content.replace(b'"F32"', b'"F99"'),
        lambda content: pickle.dumps(some_weights()),
    ],
)
def test_loading_a_damaged_file(path, damage):
    save_weights(path, some_weights())
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    with pytest.raises(ValueError, match=r"network\.safetensors: not weights that can be read: ."):
        load_weights(path)


def test_loading_a_dtype_that_numpy_lacks(path):
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    if "ml_dtypes" in sys.modules:  # which gives NumPy the dtype
        assert_same(load_weights(path), {"a": np.zeros(2, np.dtype("bfloat16"))})
    else:
        with pytest.raises(ValueError, match=r"not weights that can be read: .*bfloat16"):
            load_weights(path)


def test_loading_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match=r"network\.safetensors"):
        load_weights(path)


def test_without_safetensors(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=INSTALL):
        save_weights(path, some_weights())
    with pytest.raises(ImportError, match=INSTALL):
        load_weights(path)
    assert os.listdir(path.parent) == []


# Fitting


def test_what_fits():
    check_fit({"b": (4,), "W": (4, 3)}, {"W": (4, 3), "b": (4,)})
    check_fit({}, {})


def test_every_difference_is_in_one_message():
    given = {"W1": (3, 4), "b1": (4,), "W3": (2, 2), "scale": ()}
    wanted = {"W1": (4, 3), "b1": (4,), "W2": (10, 4), "b2": (10,)}
    with pytest.raises(ValueError) as caught:
        check_fit(given, wanted)
    assert str(caught.value).splitlines() == [
        "the weights do not fit:",
        "  missing: 'W2' of shape (10, 4)",
        "  missing: 'b2' of shape (10,)",
        "  unexpected: 'W3' of shape (2, 2)",
        "  unexpected: 'scale' of shape ()",
        "  shape of 'W1': (3, 4) given, (4, 3) wanted",
    ]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({"W": (2,)}, {}), ({}, {"W": (2,)}), ({"W": (2,)}, {"W": (2, 1)}), ({"W": ()}, {"W": (1,)})],
)
def test_each_difference_is_enough(given, wanted):
    with pytest.raises(ValueError, match="'W'"):
        check_fit(given, wanted)
