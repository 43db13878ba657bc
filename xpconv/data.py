"""Images to learn from, as NumPy arrays on the host: handwritten digits (8x8, offline) and MNIST (28x28).

Letters: N samples, C channels, H W height and width in pixels.
"""

import gzip
import hashlib
import math
import operator
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "batches", "digits", "load", "mnist", "read_idx"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and the class of each.

    Parameters
    ----------
    images : (N, C, H, W) numpy.ndarray of float32
        Brightness from 0 (background) to 1 (full ink). C is 1 for both data sets of this module.
    labels : (N,) numpy.ndarray of int64
        The class of each image.

    Raises
    ------
    TypeError
        If either is not a NumPy array of that dtype.
    ValueError
        If a shape does not fit, the lengths differ, or a brightness is outside [0, 1] or not a number.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, array, dtype in (("images", self.images, np.float32), ("labels", self.labels, np.int64)):
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name} is a {type(array).__name__}; it must be a NumPy array of {dtype.__name__}")
            if array.dtype != dtype:
                raise TypeError(f"{name} has dtype {array.dtype}; it must be {dtype.__name__}")
        if self.images.ndim != 4:
            raise ValueError(f"images has shape {self.images.shape}; it must be (N, C, H, W)")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels has shape {self.labels.shape} beside images of shape {self.images.shape}; "
                f"it must be ({len(self.images)},), one label an image"
            )
        # Written as what must hold, because a NaN fails every comparison.
        if self.images.size and not (self.images.min() >= 0 and self.images.max() <= 1):
            raise ValueError(f"images is in [{self.images.min()}, {self.images.max()}]; it must be in [0, 1]")

    def __len__(self) -> int:
        return len(self.images)


def load(name: str, directory: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Load a data set by name.

    Parameters
    ----------
    name : {"digits", "mnist"}
        Which one: `digits` or `mnist`.
    directory : path, optional
        Where the files of MNIST are. It says nothing about the digits, which come with scikit-learn.

    Returns
    -------
    train, test : Dataset

    Raises
    ------
    ValueError
        If there is no such data set, or a directory is given for the digits.
    """
    if name == "mnist":
        return mnist(directory)
    if name != "digits":
        raise ValueError(f"there is no data set {name!r}; it must be 'digits' or 'mnist'")
    if directory is not None:
        raise ValueError(f"directory={os.fspath(directory)!r} does not fit 'digits', which come with scikit-learn")
    return digits()


def digits(*, test_fraction: float = 1 / 6, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Load the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn.

    Parameters
    ----------
    test_fraction : float
        The share of the images to test with, in (0, 1), about the same in each class. The default leaves 1,497 to
        train with and 300 to test with.
    seed : int
        Of the host generator that draws the split and the order.

    Returns
    -------
    train, test : Dataset
        Images of shape (N, 1, 8, 8), shuffled; no image is in both. The same arguments give the same arrays.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If test_fraction is not in (0, 1).

    References
    ----------
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    https://doi.org/10.24432/C50P49
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; it must be between 0 and 1")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('digits needs scikit-learn: pip install "xpconv[examples]"') from error
    bunch: Any = load_digits()
    images = (bunch.images[:, None] / 16).astype(np.float32)  # (N, 1, 8, 8), from the whole numbers 0..16
    labels = bunch.target.astype(np.int64)

    order = np.random.default_rng(seed).permutation(len(labels))
    # Sorted by class, a test image every 1/test_fraction places takes the same share of each class.
    place = np.empty(len(order), np.int64)
    place[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(order))
    tested = np.ceil((place + 1) * test_fraction) > np.ceil(place * test_fraction)
    train, test = order[~tested[order]], order[tested[order]]
    return Dataset(images[train], labels[train]), Dataset(images[test], labels[test])


_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# SHA-256 of the .gz on that mirror, then MD5 of its content: a local copy may be compressed otherwise, or not at all.
_MNIST_SUMS = {
    "train-images-idx3-ubyte": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "6bbc9ace898e44ae57da46a324031adb",
    ),
    "train-labels-idx1-ubyte": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "a25bea736e30d166cdddb491f175f624",
    ),
    "t10k-images-idx3-ubyte": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "2646ac647ad5339dbf082846283269ea",
    ),
    "t10k-labels-idx1-ubyte": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "27ae3e4e09519cfbb04c629615203637",
    ),
}


def mnist(directory: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Load MNIST: 60,000 handwritten digits of 28x28 pixels to train with and 10,000 to test with.

    Parameters
    ----------
    directory : path, optional
        A directory with the four IDX files, gzipped (``train-images-idx3-ubyte.gz`` and so on) or plain. Without it
        they are downloaded once, 11 MB, to the user's cache.

    Returns
    -------
    train, test : Dataset
        Images of shape (60000, 1, 28, 28) and (10000, 1, 28, 28), in the published order.

    Raises
    ------
    FileNotFoundError
        If the directory lacks any of the four files.
    ImportError
        If there is something to download and pooch is not installed.
    OSError
        If a download fails.
    ValueError
        If a file is not the published one. A download that is not never enters the cache.

    References
    ----------
    Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
    http://yann.lecun.com/exdb/mnist/
    """
    paths = _download_mnist() if directory is None else _find_mnist(Path(directory))
    arrays = []
    for path, (_, published) in zip(paths, _MNIST_SUMS.values(), strict=True):
        content = _content(path)
        arrays.append(_parse_idx(content, path))  # first, because it says more about what is wrong than a checksum
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != published:
            raise ValueError(f"{path}: the content has MD5 {found}; the published file has {published}")
    train_images, train_labels, test_images, test_labels = arrays
    return _mnist_dataset(train_images, train_labels), _mnist_dataset(test_images, test_labels)


def _mnist_dataset(pixels: NDArray[Any], labels: NDArray[Any]) -> Dataset:
    return Dataset(pixels[:, None] / np.float32(255), labels.astype(np.int64))  # (N, 28, 28) -> (N, 1, 28, 28)


def _find_mnist(directory: Path) -> list[Path]:
    found = {name: [p for p in (directory / name, directory / f"{name}.gz") if p.is_file()] for name in _MNIST_SUMS}
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        raise FileNotFoundError(
            f"{directory}: no {', '.join(missing)}; MNIST is the four files {', '.join(_MNIST_SUMS)}, plain or as .gz"
        )
    return [paths[0] for paths in found.values()]


def _download_mnist() -> list[Path]:
    try:
        import pooch
    except ImportError as error:
        raise ImportError('downloading MNIST needs pooch: pip install "xpconv[examples]"') from error
    cache = pooch.os_cache("xpconv") / "mnist"
    # Pooch verifies a temporary file before it moves it into the cache.
    return [
        Path(pooch.retrieve(f"{_MNIST_URL}{name}.gz", known_hash=f"sha256:{published}", fname=f"{name}.gz", path=cache))
        for name, (published, _) in _MNIST_SUMS.items()
    ]


_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array from an IDX file, plain or gzipped.

    Parameters
    ----------
    path : path
        The file. Its first bytes, not its name, say whether it is gzipped.

    Returns
    -------
    numpy.ndarray
        Of the file's shape, of uint8, int8, int16, int32, float32 or float64 in the machine's byte order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, starts with another magic number, or is shorter or longer than its header says.

    References
    ----------
    "The IDX file format", at the end of http://yann.lecun.com/exdb/mnist/
    """
    return _parse_idx(_content(Path(path)), path)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):  # an IDX file starts with two zeros
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: a truncated or damaged gzip file ({error})") from error


def _parse_idx(content: bytes, path: str | os.PathLike[str]) -> NDArray[Any]:
    """Magic number (two zeros, a dtype code, the rank), one big-endian size an axis, then the elements in C order."""
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES:
        raise ValueError(
            f"{path}: starts with {magic.hex(' ') or 'nothing'}; the magic number of an IDX file is 00 00, one of "
            f"{', '.join(f'{code:02x}' for code in _IDX_DTYPES)}, and the rank"
        )
    dtype, header = np.dtype(_IDX_DTYPES[magic[2]]), 4 + 4 * magic[3]
    if len(content) < header:
        raise ValueError(f"{path}: {len(content)} bytes; a header of rank {magic[3]} alone has {header}")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        problem = "truncated" if len(content) < expected else "extra bytes"
        raise ValueError(f"{path}: {problem}: {len(content)} bytes; {dtype.name} of shape {shape} needs {expected}")
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def batches(size: int, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[NDArray[np.int64]]:
    """Cut one epoch into batches.

    Parameters
    ----------
    size : int
        The number of samples, at least 0.
    batch_size : int
        The number of samples a batch, at least 1. The last batch has what is left over.
    rng : numpy.random.Generator, optional
        Shuffles the samples. Without it they come in order.

    Returns
    -------
    iterator of numpy.ndarray of int64
        The indices of each batch. Every index from 0 to size - 1 comes exactly once.

    Raises
    ------
    TypeError
        If size or batch_size is not a whole number (a bool is not), or rng is not a Generator.
    ValueError
        If size is negative or batch_size is less than 1.
    """
    for name, value, least in (("size", size, 0), ("batch_size", batch_size, 1)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} is {value!r}; it must be a whole number, at least {least}")
        if operator.index(value) < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a {type(rng).__name__}; it must be a numpy.random.Generator or None")
    # Checked and shuffled here, not at the first batch, so that an error points at the call.
    order = np.arange(size, dtype=np.int64) if rng is None else rng.permutation(size)
    return (order[start : start + batch_size] for start in range(0, size, batch_size))
