"""Images to learn from, as NumPy arrays on the host: handwritten digits (8x8, offline) and MNIST (28x28)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv.data.files import content, parse_idx
from xpconv.windows import whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and the class of each; TypeError for another dtype, ValueError for another shape or range.

    Parameters
    ----------
    images : (N, C, H, W) numpy.ndarray of float32
        Brightness from 0 (background) to 1 (full ink). C is 1 in this module's data sets.
    labels : (N,) numpy.ndarray of int64
        The class of each image.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        for name, array, dtype in (("images", images, "float32"), ("labels", labels, "int64")):
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                given = f"{type(array).__name__} of {getattr(array, 'dtype', 'no dtype')}"
                raise TypeError(f"{name} is a {given}; give a NumPy array of {dtype}")
        if images.ndim != 4:
            raise ValueError(f"images has shape {images.shape}; give (N, C, H, W)")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"labels has shape {labels.shape}; give {images.shape[:1]}, one label an image")
        if images.size and not (images.min() >= 0 and images.max() <= 1):  # so asked, a NaN does not pass
            raise ValueError(f"images goes from {images.min()} to {images.max()}; give brightness in [0, 1]")

    def __len__(self) -> int:
        return len(self.images)


def load(name: str, directory: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Return ``(train, test)`` of the data set of that name, `digits` or `mnist`; only MNIST has a directory.

    Raises
    ------
    ValueError
        When there is no such data set, or a directory is given for the digits.
    """
    if name == "mnist":
        return mnist(directory)
    if name != "digits":
        raise ValueError(f"there is no data set {name!r}; give 'digits' or 'mnist'")
    if directory is not None:
        raise ValueError(f"directory is {str(directory)!r}; give none, the digits come with scikit-learn")
    return digits()


def digits(*, test_fraction: float = 1 / 6, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Return ``(train, test)`` of the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn.

    Parameters
    ----------
    test_fraction : float
        The share to test with, in (0, 1), equal in each class up to one image; 300 images by default.
    seed : int
        Decides the split and the order: the same seed gives the same arrays.

    Raises
    ------
    ImportError
        When scikit-learn is not installed.
    ValueError
        When test_fraction is not in (0, 1).

    References
    ----------
    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", https://doi.org/10.24432/C50P49
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; give a number between 0 and 1")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('the digits need scikit-learn: pip install "xpconv[examples]"') from error
    pixels, labels = load_digits(return_X_y=True)  # (N, 64), whole numbers 0..16
    images, labels = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    # In order of class, every 1/test_fraction-th image is for the test: the same share of each class.
    place = np.argsort(order[np.argsort(labels[order], kind="stable")])
    tested = np.ceil((place + 1) * test_fraction) > np.ceil(place * test_fraction)
    train, test = order[~tested[order]], order[tested[order]]
    return Dataset(images[train], labels[train]), Dataset(images[test], labels[test])


_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_MD5 = {  # of the .gz on that mirror, and of its content, which may be compressed otherwise elsewhere
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}


def mnist(directory: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Return ``(train, test)`` of MNIST: 60,000 and 10,000 handwritten digits of 28x28 pixels, as published.

    Parameters
    ----------
    directory : path, optional
        Where the four IDX files are, plain or ``.gz``; by default the user's cache, after an 11 MB download.

    Raises
    ------
    FileNotFoundError
        When the directory lacks one of the files.
    ImportError
        When there is no directory and pooch is not installed.
    ValueError
        When a file differs from the published one. Such a download never enters the cache.

    References
    ----------
    LeCun, Cortes and Burges, "The MNIST database of handwritten digits", http://yann.lecun.com/exdb/mnist/
    """
    import hashlib  # here, because it takes as long to import as a tenth of NumPy

    paths = _download_mnist() if directory is None else _find_mnist(Path(directory))
    arrays = []
    for path, (_, expected) in zip(paths, _MNIST_MD5.values(), strict=True):
        found = content(path)
        arrays.append(parse_idx(found, path))  # first, because it can say what is wrong
        checksum = hashlib.md5(found, usedforsecurity=False).hexdigest()
        if checksum != expected:
            raise ValueError(f"{path}: MD5 {checksum} of the content found, {expected} expected")
    train, train_labels, test, test_labels = arrays
    return _brightness(train, train_labels), _brightness(test, test_labels)


def _brightness(pixels: NDArray[Any], labels: NDArray[Any]) -> Dataset:
    return Dataset(np.divide(pixels[:, None], 255, dtype=np.float32), labels.astype(np.int64))  # (N, 1, H, W)


def _find_mnist(directory: Path) -> list[Path]:
    plain = [directory / name for name in _MNIST_MD5]
    paths = [path if path.is_file() else path.with_name(f"{path.name}.gz") for path in plain]
    if missing := ", ".join(path.name for path in paths if not path.is_file()):
        wanted = ", ".join(_MNIST_MD5)
        raise FileNotFoundError(f"{directory} has no {missing}; MNIST is {wanted}, .gz or plain")
    return paths


def _download_mnist() -> list[Path]:
    try:
        import pooch
    except ImportError as error:
        raise ImportError('the download of MNIST needs pooch: pip install "xpconv[examples]"') from error
    cache = pooch.os_cache("xpconv") / "mnist"
    # Pooch downloads to a temporary file and moves it into the cache only when its checksum is right.
    return [
        Path(pooch.retrieve(f"{_MNIST_URL}{name}.gz", f"md5:{expected}", f"{name}.gz", cache))
        for name, (expected, _) in _MNIST_MD5.items()
    ]


def batches(size: int, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of each batch of an epoch, every index once; what is left over is the last batch.

    Parameters
    ----------
    size, batch_size : int
        The number of samples, at least 0, and of samples in a batch, at least 1.
    rng : numpy.random.Generator, optional
        Shuffles the samples. Without it they come in order.

    Raises
    ------
    TypeError, ValueError
        When a number is not whole (a bool is not) or too small, or rng is not a numpy.random.Generator.
    """
    size, step = whole_number("size", size, least=0), whole_number("batch_size", batch_size, least=1)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a {type(rng).__name__}; give a numpy.random.Generator or None")
    # Checked and shuffled here, not at the first batch, so that an error points at the call.
    order = np.arange(size, dtype=np.int64)
    if rng is not None:
        rng.shuffle(order)
    return (order[start : start + step] for start in range(0, size, step))
