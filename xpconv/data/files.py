"""Arrays in files: IDX and .npy, read whole or mapped into memory and read as their samples are asked for."""

from __future__ import annotations

import gzip
import math
import mmap
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GZIP = b"\x1f\x8b"  # an IDX file starts with two zeros
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class MappedArray:
    """The array in an IDX or .npy file, of which no more is in memory than the samples being read.

    ``array[rows]`` reads samples, by a slice or an array of indices, from the front of the file to its back and in
    whatever order they are asked for: an ordinary NumPy array in the byte order of this machine. The pages that this
    takes are let go at once, to the operating system's cache. Training in random order therefore reads at random, as
    fast as the disk can do that, until the cache holds the file.

    Parameters
    ----------
    path : path
        Of a plain IDX file, or a .npy file in C order. It must stay as it is while it is mapped.
    sample : tuple of int, optional
        Shape of one sample, where it is not that in the file: (1, 28, 28) lets MNIST's images have a channel.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    TypeError
        When its elements are no numbers.
    ValueError
        When it is gzipped, damaged, of another format, in another order, empty, or shorter or longer than its header
        says; or `sample` has another number of elements than its samples.
    """

    def __init__(self, path: str | os.PathLike[str], sample: tuple[int, ...] | None = None) -> None:
        self.path = Path(path)
        dtype, shape, offset = _header(self.path)
        if math.prod(shape) == 0 or not shape:
            raise ValueError(f"{path} holds an array of shape {shape}; give one of at least one sample")
        if sample is not None and (math.prod(sample) != math.prod(shape[1:]) or min(sample, default=1) < 1):
            raise ValueError(
                f"sample is {sample}; give as many elements as a sample of shape {shape[1:]} in {path} has"
            )
        self._end = offset + math.prod(shape) * dtype.itemsize
        try:
            mapped = np.memmap(self.path, dtype, "r", offset, (shape[0], *(shape[1:] if sample is None else sample)))
        except ValueError as error:  # a shape that the format allows and NumPy does not
            raise ValueError(f"{path}: {error}") from error
        self._rows: NDArray[Any] = np.asarray(mapped)
        self._pages: Any = mapped.base  # the mmap.mmap
        self.shape: tuple[int, ...] = self._rows.shape
        self.dtype: np.dtype[Any] = dtype.newbyteorder("=")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        if self._pages.size() < self._end:  # to touch what is no longer there would end the process
            raise ValueError(f"{self.path} has been cut to {self._pages.size()} bytes since it was opened")
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        order = np.argsort(rows)
        read = np.empty((len(rows), *self.shape[1:]), self.dtype)
        read[order] = self._rows[rows[order]]
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)
        return read


def _header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Read the dtype, the shape and where the elements start, and hold the size of the file to them."""
    with path.open("rb") as file:
        size, start = os.fstat(file.fileno()).st_size, file.read(4 + 4 * 255)  # an IDX header of the highest rank
        if start.startswith(_GZIP):
            raise ValueError(f"{path} is gzipped; unpack it, its samples cannot be found before")
        if not start.startswith(b"\x93NUMPY"):
            return _idx_header(start, size, path)
        file.seek(0)
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if dtype.kind not in "iuf":
            raise TypeError(f"{path} has dtype {dtype}; give integers or floats")
        if fortran and len(shape) > 1:
            raise ValueError(f"{path} is in Fortran order, its samples are not together; save it in C order")
        _check_size(path, size, file.tell(), dtype, shape)
        return dtype, shape, file.tell()


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return the array in an IDX file: uint8, int8, int16, int32, float32 or float64 of any shape.

    The file may be gzipped; its first bytes, not its name, tell.

    Raises
    ------
    ValueError
        When the file is damaged, has another magic number, or is shorter or longer than its header says.

    References
    ----------
    "The IDX file format", at the end of http://yann.lecun.com/exdb/mnist/
    """
    return parse_idx(content(Path(path)), path)


def content(path: Path) -> bytes:
    """Read a file, and unpack it where it is gzipped; ValueError when it is damaged."""
    found = path.read_bytes()
    if not found.startswith(_GZIP):
        return found
    try:
        return gzip.decompress(found)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: the gzip file is truncated or damaged: {error}") from error


def parse_idx(found: bytes, path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return the array that the content of an IDX file says; errors name the path."""
    dtype, shape, offset = _idx_header(found, len(found), path)
    try:
        array = np.frombuffer(found, dtype, offset=offset).reshape(shape)
    except ValueError as error:  # a shape that the format allows and NumPy does not
        raise ValueError(f"{path}: {error}") from error
    return array.astype(dtype.newbyteorder("="))


def _idx_header(start: bytes, size: int, path: str | os.PathLike[str]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Two zeros, a dtype code, the rank; then a big-endian size for each axis; then the elements, C order."""
    magic = start[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES:
        codes = ", ".join(f"{code:02x}" for code in _IDX_DTYPES)
        found = magic.hex(" ") or "nothing"
        raise ValueError(f"{path}: magic number: {found} found, 00 00, one of {codes}, and the rank expected")
    dtype, rank = np.dtype(_IDX_DTYPES[magic[2]]), magic[3]
    header = 4 + 4 * rank
    if size < header:
        raise ValueError(f"{path}: truncated: {size} bytes found, {header} expected for rank {rank} alone")
    shape = tuple(int.from_bytes(start[4 * i + 4 : 4 * i + 8], "big") for i in range(rank))
    _check_size(path, size, header, dtype, shape)
    return dtype, shape, header


def _check_size(
    path: str | os.PathLike[str], size: int, header: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> None:
    expected = header + math.prod(shape) * dtype.itemsize
    if size != expected:
        problem = f"{size} bytes found, {expected} expected for {dtype.name} of shape {shape}"
        raise ValueError(f"{path}: {'truncated' if size < expected else 'extra bytes'}: {problem}")
