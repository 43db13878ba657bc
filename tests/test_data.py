"""Data sets, and batches."""

import gzip
import hashlib
import http.server
import os
import pathlib
import sys
import threading

import numpy as np
import pytest
from formats import idx

from xpconv.data import Dataset, batches, datasets, digits, load, mnist

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = datasets._MNIST_MD5
INSTALL = 'pip install "xpconv\\[examples\\]"'


# Dataset


def some_images(count=3):
    return np.linspace(0, 1, count * 20, dtype=np.float32).reshape(count, 1, 4, 5)


def test_dataset():
    images, labels = some_images(), np.array([2, 0, 1])
    dataset = Dataset(images, labels)
    assert len(dataset) == 3
    assert dataset.images is images and dataset.labels is labels
    assert len(Dataset(images[:0], labels[:0])) == 0


def test_dataset_is_frozen():
    with pytest.raises(AttributeError):
        Dataset(some_images(), np.arange(3)).labels = np.arange(3)


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        ([[[[0.0]]]], np.arange(1), TypeError, "images is a list of no dtype; give a NumPy array of float32"),
        (some_images().astype(np.float64), np.arange(3), TypeError, "ndarray of float64; .* of float32"),
        (some_images(), [0, 1, 2], TypeError, "labels is a list of no dtype; give a NumPy array of int64"),
        (some_images(), np.arange(3, dtype=np.int32), TypeError, "ndarray of int32; .* of int64"),
        (some_images()[0], np.arange(1), ValueError, r"images has shape \(1, 4, 5\); give \(N, C, H, W\)"),
        (some_images(), np.arange(2), ValueError, r"labels has shape \(2,\); give \(3,\)"),
        (some_images(), np.arange(3)[:, None], ValueError, r"labels has shape \(3, 1\); give \(3,\)"),
        (some_images() * 255, np.arange(3), ValueError, r"from 0.0 to 255.0; .* \[0, 1\]"),
        (some_images() - 0.5, np.arange(3), ValueError, r"from -0.5 to 0.5; .* \[0, 1\]"),
        (some_images() * np.float32("nan"), np.arange(3), ValueError, "from nan to nan"),
    ],
)
def test_dataset_refuses(images, labels, error, message):
    with pytest.raises(error, match=message):
        Dataset(images, labels)


# The digits


@pytest.fixture
def source():
    """Return scikit-learn's pixels and labels, the label beside the pixels of its image, in sorted order."""
    pixels, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    return rows(pixels, labels)


def rows(pixels, labels):
    table = np.column_stack([pixels, labels])
    return table[np.lexsort(table.T)]


def test_digits_are_a_permutation_of_the_source(source):
    train, test = digits()
    images, labels = np.concatenate([train.images, test.images]), np.concatenate([train.labels, test.labels])
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == np.float32 and labels.dtype == np.int64
    np.testing.assert_array_equal(rows(images.reshape(1797, 64) * 16, labels), source)


@pytest.mark.parametrize("test_fraction", [1 / 6, 0.5, 0.01, 0.9])
def test_digits_split_evenly_in_each_class(source, test_fraction):
    train, test = digits(test_fraction=test_fraction)
    assert len(test) == np.ceil(1797 * test_fraction)
    assert len(train) + len(test) == 1797
    share = np.bincount(source[:, -1].astype(int)) * test_fraction
    assert np.abs(np.bincount(test.labels, minlength=10) - share).max() <= 1


def test_digits_are_shuffled():
    pixels = pytest.importorskip("sklearn.datasets").load_digits().data
    place = {row.astype(np.float32).tobytes(): i for i, row in enumerate(pixels)}
    assert len(place) == 1797
    for part in digits():
        places = [place[image.tobytes()] for image in part.images * 16]
        # By chance a half goes up, and a tenth of the neighbours is of one class.
        assert 0.4 < np.mean(np.diff(places) > 0) < 0.6
        assert np.mean(np.diff(part.labels) == 0) < 0.2


def test_digits_are_decided_by_the_seed(source):
    first, again, other = digits(), digits(seed=0), digits(seed=1)
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.labels, two.labels)
        assert (one.images != three.images).any()


@pytest.mark.parametrize("test_fraction", [0, 1, -0.1, 297, float("nan")])
def test_digits_refuse_other_fractions(test_fraction):
    with pytest.raises(ValueError, match=f"test_fraction is {test_fraction}; give a number between 0 and 1"):
        digits(test_fraction=test_fraction)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=f"scikit-learn: {INSTALL}"):
        digits()


# MNIST, as four small files that stand for the published ones


@pytest.fixture
def published(monkeypatch):
    """Return the arrays and the gzipped files of a small MNIST, and publish their checksums."""
    rng = np.random.default_rng(5)
    arrays = {
        TRAIN_IMAGES: rng.integers(0, 256, (6, 4, 4), np.uint8),
        TRAIN_LABELS: rng.integers(0, 10, 6, np.uint8),
        TEST_IMAGES: rng.integers(0, 256, (3, 4, 4), np.uint8),
        TEST_LABELS: rng.integers(0, 10, 3, np.uint8),
    }
    arrays[TRAIN_IMAGES][0, 0, :2] = 0, 255
    contents = {name: idx(0x08, array) for name, array in arrays.items()}
    files = {name: gzip.compress(content, mtime=0) for name, content in contents.items()}
    monkeypatch.setattr(datasets, "_MNIST_MD5", {name: (md5(files[name]), md5(contents[name])) for name in files})
    return arrays, files


def md5(content):
    return hashlib.md5(content).hexdigest()


def assert_is(datasets, arrays):
    train, test = datasets
    for dataset, images, labels in ((train, TRAIN_IMAGES, TRAIN_LABELS), (test, TEST_IMAGES, TEST_LABELS)):
        expected = (arrays[images].astype(np.float64) / 255).astype(np.float32)[:, np.newaxis]
        np.testing.assert_array_equal(dataset.images, expected, strict=True)
        np.testing.assert_array_equal(dataset.labels, arrays[labels].astype(np.int64), strict=True)


@pytest.fixture
def directory(tmp_path, published):
    """Return a directory with the four files, gzipped but for one."""
    for name, file in published[1].items():
        (tmp_path / f"{name}.gz").write_bytes(file)
    (tmp_path / f"{TRAIN_LABELS}.gz").unlink()
    (tmp_path / TRAIN_LABELS).write_bytes(gzip.decompress(published[1][TRAIN_LABELS]))
    return tmp_path


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_mnist_from_a_directory(directory, published, kind):
    assert_is(mnist(kind(directory)), published[0])


def test_mnist_compressed_otherwise(directory, published):
    content = gzip.decompress(published[1][TEST_IMAGES])
    (directory / f"{TEST_IMAGES}.gz").write_bytes(gzip.compress(content, compresslevel=1, mtime=9))
    assert_is(mnist(directory), published[0])


def test_mnist_from_a_directory_needs_no_pooch(directory, published, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert_is(mnist(directory), published[0])


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS])
def test_mnist_with_another_checksum(directory, published, name):
    content = bytearray(gzip.decompress(published[1][name]))
    content[-1] ^= 1
    plain = directory / name
    (plain if plain.exists() else directory / f"{name}.gz").write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        mnist(directory)
    expected = datasets._MNIST_MD5[name][1]
    assert str(caught.value).endswith(f"MD5 {md5(content)} of the content found, {expected} expected")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "truncated: 111 bytes found, 112 expected"),
        (lambda content: content + b"\0", "extra bytes: 113 bytes found, 112 expected"),
        (lambda content: b"\0\0\x08\x04" + content[4:], "truncated: .* of shape"),
        (lambda content: b"\0\0\x07\x03" + content[4:], "magic number: 00 00 07 03 found"),
        (lambda content: gzip.compress(content, mtime=0)[:-1], "the gzip file is truncated"),
    ],
)
def test_mnist_with_a_damaged_file(directory, published, damage, message):
    content = gzip.decompress(published[1][TRAIN_IMAGES])
    (directory / f"{TRAIN_IMAGES}.gz").write_bytes(damage(content))
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES}.gz: {message}"):
        mnist(directory)


def test_mnist_with_missing_files(directory):
    (directory / TRAIN_LABELS).unlink()
    (directory / f"{TEST_LABELS}.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        mnist(directory)
    wanted = ", ".join([TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS])
    assert str(caught.value) == (
        f"{directory} has no {TRAIN_LABELS}.gz, {TEST_LABELS}.gz; MNIST is {wanted}, .gz or plain"
    )


def test_mnist_with_no_directory_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"nowhere has no {TRAIN_IMAGES}.gz, .*{TEST_LABELS}.gz;"):
        mnist(tmp_path / "nowhere")


# The download, from a mirror on this machine


@pytest.fixture
def mirror(published, tmp_path, monkeypatch):
    """Serve the four files; `mirror.files` can be changed, `mirror.requests` lists what was asked for."""
    pooch = pytest.importorskip("pooch")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.path)
            name = self.path.removeprefix("/mnist/").removesuffix(".gz")
            file = server.files.get(name)
            self.send_response(200 if file is not None else 404)
            self.send_header("Content-Length", len(file or b"") + server.withheld)
            self.end_headers()
            self.wfile.write(file or b"")

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.withheld = dict(published[1]), [], 0
    server.cache = tmp_path / "cache" / "mnist"
    monkeypatch.setattr(datasets, "_MNIST_URL", f"http://127.0.0.1:{server.server_port}/mnist/")
    monkeypatch.setattr(pooch, "os_cache", lambda project: {"xpconv": tmp_path / "cache"}[project])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def cached(mirror):
    return {path.name: path.read_bytes() for path in mirror.cache.iterdir()}


def test_download(mirror, published):
    assert_is(mnist(), published[0])
    assert mirror.requests == [f"/mnist/{name}.gz" for name in published[1]]
    assert cached(mirror) == {f"{name}.gz": file for name, file in published[1].items()}


def test_download_once(mirror, published):
    mnist()
    mirror.requests.clear()
    mirror.files = dict.fromkeys(mirror.files, b"corrupt")
    assert_is(mnist(), published[0])
    assert mirror.requests == []


def test_corrupt_download_never_enters_the_cache(mirror, published):
    mirror.files[TRAIN_LABELS] = published[1][TRAIN_LABELS][:-1]
    with pytest.raises(ValueError, match=f"{TRAIN_LABELS}.gz") as caught:
        mnist()
    assert datasets._MNIST_MD5[TRAIN_LABELS][0] in str(caught.value)
    assert md5(mirror.files[TRAIN_LABELS]) in str(caught.value)
    assert cached(mirror) == {f"{TRAIN_IMAGES}.gz": published[1][TRAIN_IMAGES]}


def test_interrupted_download_never_enters_the_cache(mirror):
    mirror.withheld = 10
    with pytest.raises((ValueError, OSError)):
        mnist()
    assert mirror.requests and cached(mirror) == {}


def test_corrupt_download_replaces_nothing(mirror, published):
    mnist()
    (mirror.cache / f"{TEST_IMAGES}.gz").write_bytes(b"damaged on this disk")
    before = cached(mirror)
    mirror.files = dict.fromkeys(mirror.files, b"corrupt")
    with pytest.raises(ValueError, match=f"{TEST_IMAGES}.gz"):
        mnist()
    assert cached(mirror) == before


def test_damaged_cache_is_repaired(mirror, published):
    mnist()
    (mirror.cache / f"{TEST_IMAGES}.gz").write_bytes(b"damaged on this disk")
    mirror.requests.clear()
    assert_is(mnist(), published[0])
    assert mirror.requests == [f"/mnist/{TEST_IMAGES}.gz"]
    assert cached(mirror) == {f"{name}.gz": file for name, file in published[1].items()}


def test_download_of_a_file_that_the_mirror_lacks(mirror):
    del mirror.files[TEST_LABELS]
    with pytest.raises(OSError, match=f"404.*{TEST_LABELS}.gz"):
        mnist()


def test_downloaded_content_is_checked_too(mirror, monkeypatch):
    sums = {**datasets._MNIST_MD5, TEST_LABELS: (datasets._MNIST_MD5[TEST_LABELS][0], "0" * 32)}
    monkeypatch.setattr(datasets, "_MNIST_MD5", sums)
    with pytest.raises(ValueError, match=f"{TEST_LABELS}.gz: MD5 .* content found, {'0' * 32} expected"):
        mnist()


def test_download_without_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=f"pooch: {INSTALL}"):
        mnist()


# MNIST itself


@pytest.mark.skipif("XPCONV_MNIST" not in os.environ, reason="XPCONV_MNIST names no directory with MNIST")
def test_published_mnist():
    train, test = mnist(os.environ["XPCONV_MNIST"])
    assert train.images.shape == (60000, 1, 28, 28) and test.images.shape == (10000, 1, 28, 28)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The mean and deviation that most examples normalize with.
    assert train.images.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert train.images.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)


# By name


def test_load(directory, published, source):
    assert_is(load("mnist", directory), published[0])
    for loaded, expected in zip(load("digits"), digits(), strict=True):
        np.testing.assert_array_equal(loaded.images, expected.images)


def test_load_downloads_without_a_directory(mirror, published):
    assert_is(load("mnist"), published[0])


def test_load_refuses_another_name():
    with pytest.raises(ValueError, match="no data set 'cifar'; give 'digits' or 'mnist'"):
        load("cifar")


def test_load_refuses_a_directory_of_digits(tmp_path):
    with pytest.raises(ValueError, match="give none, the digits come with scikit-learn"):
        load("digits", tmp_path)


# Batches


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(
    ("size", "batch_size", "lengths"),
    [(10, 3, [3, 3, 3, 1]), (9, 3, [3, 3, 3]), (2, 5, [2]), (4, 1, [1, 1, 1, 1]), (0, 4, [])],
)
def test_batches_cover_every_sample_once(size, batch_size, lengths, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    given = list(batches(size, batch_size, rng))
    assert [len(batch) for batch in given] == lengths
    assert sorted(index for batch in given for index in batch) == list(range(size))
    assert all(batch.dtype == np.int64 for batch in given)


def test_batches_in_order():
    assert [batch.tolist() for batch in batches(5, 2)] == [[0, 1], [2, 3], [4]]


def test_batches_are_shuffled_by_the_generator():
    def epochs(seed):
        rng = np.random.default_rng(seed)
        return [np.concatenate(list(batches(100, 7, rng))).tolist() for _ in range(2)]

    first, second = epochs(0)
    assert len({tuple(first), tuple(second), tuple(range(100))}) == 3
    assert epochs(0) == [first, second] and epochs(1) != [first, second]


def test_batches_take_numpy_integers():
    assert [batch.tolist() for batch in batches(np.int64(3), np.uint8(2))] == [[0, 1], [2]]


@pytest.mark.parametrize("value", [True, np.True_, 2.0, "2", None])
@pytest.mark.parametrize("name", ["size", "batch_size"])
def test_batches_refuse_what_is_not_whole(name, value):
    with pytest.raises(TypeError, match=f"^{name} is "):
        batches(**{"size": 4, "batch_size": 2, name: value})


@pytest.mark.parametrize(("size", "batch_size", "name"), [(-1, 2, "size is -1"), (4, 0, "batch_size is 0")])
def test_batches_refuse_what_is_too_small(size, batch_size, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        batches(size, batch_size)


@pytest.mark.parametrize("rng", [0, np.random.RandomState(0)])
def test_batches_refuse_another_source_of_chance(rng):
    with pytest.raises(TypeError, match=f"rng is a {type(rng).__name__}; give a numpy.random.Generator"):
        batches(4, 2, rng)
