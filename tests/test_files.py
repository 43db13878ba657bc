"""Arrays in files: IDX and .npy, read whole and mapped."""

import gzip
import io

import numpy as np
import pytest
from cases import normal
from formats import idx

from xpconv.data import MappedArray, read_idx

# The IDX format


@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (2, 3, 4, 5), (0,), (3, 0)])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [(0x08, "uint8"), (0x09, "int8"), (0x0B, "int16"), (0x0C, "int32"), (0x0D, "float32"), (0x0E, "float64")],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_read_idx(tmp_path, code, dtype, shape, compress):
    limit = 1.5 if "float" in dtype else np.iinfo(dtype).max
    array = np.asarray(limit - np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype)
    path = tmp_path / "array"
    path.write_bytes(compress(idx(code, array)))
    read = read_idx(path)
    np.testing.assert_array_equal(read, array, strict=True)
    assert read.dtype.isnative and read.flags.writeable


def test_read_idx_takes_a_string(tmp_path):
    (tmp_path / "array").write_bytes(b"\0\0\x08\x01\0\0\0\x02\x05\x06")
    assert read_idx(f"{tmp_path}/array").tolist() == [5, 6]


GOOD = idx(0x0B, np.arange(6, dtype=np.int16).reshape(2, 3))
ZIPPED = gzip.compress(GOOD * 50, mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number: nothing found, 00 00, one of 08, 09, 0b, 0c, 0d, 0e, and the rank expected"),
        (GOOD[:3], "magic number: 00 00 0b found"),
        (b"\0\0\x0a" + GOOD[3:], "magic number: 00 00 0a 02 found"),
        (b"\0\1" + GOOD[2:], "magic number: 00 01 0b 02 found"),
        (b"\x89PNG\r\n\x1a\n", "magic number: 89 50 4e 47 found"),
        (GOOD[:4], "truncated: 4 bytes found, 12 expected for rank 2 alone"),
        (GOOD[:11], "truncated: 11 bytes found, 12 expected for rank 2 alone"),
        (GOOD[:12], r"truncated: 12 bytes found, 24 expected for int16 of shape \(2, 3\)"),
        (GOOD[:-1], r"truncated: 23 bytes found, 24 expected for int16 of shape \(2, 3\)"),
        (GOOD + b"\0", r"extra bytes: 25 bytes found, 24 expected for int16 of shape \(2, 3\)"),
        (gzip.compress(GOOD[:-1], mtime=0), "truncated: 23 bytes found, 24 expected"),
        (gzip.compress(GOOD + b"\0", mtime=0), "extra bytes: 25 bytes found, 24 expected"),
        (ZIPPED[:5], "the gzip file is truncated or damaged"),
        (ZIPPED[:-9], "the gzip file is truncated or damaged"),
        (ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], "the gzip file is truncated or damaged: CRC"),
        (ZIPPED[:10] + b"\xff" + ZIPPED[11:], "the gzip file is truncated or damaged: .*invalid block type"),
        (ZIPPED + b"more", "the gzip file is truncated or damaged"),
        (b"\0\0\x08\x46" + b"\0\0\0\1" * 70 + b"\0", "maximum supported dimension"),
        (b"\0\0\x08\x03" + b"\0\0\0\0" + b"\xff" * 8, "array is too big"),
    ],
)
def test_read_idx_refuses(tmp_path, content, message):
    path = tmp_path / "array-idx2"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"array-idx2: {message}"):
        read_idx(path)


def test_read_idx_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-idx1"):
        read_idx(tmp_path / "nothing-idx1")


# Mapped into memory


def written(path, array, form):
    """Write an array to a file of this format; the path, and what reading it should give."""
    if form == "npy":
        np.save(path, array)
        return path.with_suffix(".npy")
    path.write_bytes(idx({"uint8": 0x08, "int16": 0x0B, "float32": 0x0D}[array.dtype.name], array))
    return path


@pytest.mark.parametrize("form", ["npy", "idx"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("rows", [[4, 0, 2], [3], [], [1, 1, 0], [-1, 2], slice(1, 4), slice(None)], ids=str)
def test_mapped_rows(tmp_path, form, dtype, rows):
    array = (50 * normal(5, 2, 3)).astype(dtype)
    mapped = MappedArray(written(tmp_path / "array", array, form))
    assert (mapped.shape, mapped.dtype, len(mapped)) == ((5, 2, 3), np.dtype(dtype), 5)
    for _ in range(2):  # the pages let go come back
        read = mapped[rows if isinstance(rows, slice) else np.array(rows, np.int64)]
        np.testing.assert_array_equal(read, array[rows], strict=True)
        assert read.dtype.isnative and read.flags.writeable and type(read) is np.ndarray


def test_mapped_in_the_other_byte_order(tmp_path):
    array = normal(3, 2)
    np.save(tmp_path / "array.npy", array.astype(array.dtype.newbyteorder("S")))
    np.testing.assert_array_equal(MappedArray(str(tmp_path / "array.npy"))[:], array, strict=True)


def test_mapped_samples_of_another_shape(tmp_path):
    array = normal(3, 4, 5)
    np.save(tmp_path / "array.npy", array)
    mapped = MappedArray(tmp_path / "array.npy", sample=(1, 4, 5))
    assert mapped.shape == (3, 1, 4, 5)
    np.testing.assert_array_equal(mapped[1:], array[1:, None], strict=True)


@pytest.mark.parametrize("sample", [(4, 4), (1, 4), (-1, -20), (2, 0)])
def test_mapped_samples_of_a_shape_that_does_not_fit(tmp_path, sample):
    np.save(tmp_path / "array.npy", normal(3, 4, 5))
    with pytest.raises(ValueError, match=r"sample is .*; give as many elements as a sample of shape \(4, 5\)"):
        MappedArray(tmp_path / "array.npy", sample)


def npy(array):
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


SAVED = npy(np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (SAVED[:-1], ValueError, r"array: truncated: 175 bytes found, 176 expected for float64 of shape \(2, 3\)"),
        (SAVED + b"\0", ValueError, "array: extra bytes: 177 bytes found, 176 expected"),
        (SAVED[:50], ValueError, "array: EOF"),
        (SAVED[:7], ValueError, "array: EOF"),
        (SAVED[:6] + b"\x09" + SAVED[7:], ValueError, "array: "),
        (SAVED.replace(b"descr", b"drcse"), ValueError, "array: .*keys"),
        (npy(np.asfortranarray(np.ones((2, 3)))), ValueError, "array is in Fortran order"),
        (npy(np.ones((0, 3))), ValueError, r"array holds an array of shape \(0, 3\); give one of at least one sample"),
        (npy(np.float64(1)), ValueError, r"array holds an array of shape \(\)"),
        (npy(np.array(["a", "b"])), TypeError, "array has dtype <U1; give integers or floats"),
        (npy(np.array([{}])), TypeError, "array has dtype object; give integers or floats"),
        (b"", ValueError, "array: magic number: nothing found"),
        (b"PK\3\4", ValueError, "array: magic number: 50 4b 03 04 found"),
        (GOOD[:-1], ValueError, r"array: truncated: 23 bytes found, 24 expected for int16 of shape \(2, 3\)"),
        (GOOD[:11], ValueError, "array: truncated: 11 bytes found, 12 expected for rank 2 alone"),
        (GOOD + b"\0", ValueError, "array: extra bytes"),
        (gzip.compress(GOOD, mtime=0), ValueError, "array is gzipped; unpack it"),
        (b"\0\0\x08\x46" + b"\0\0\0\1" * 70 + b"\0", ValueError, "array: maximum supported dimension"),
    ],
)
def test_what_cannot_be_mapped(tmp_path, content, error, words):
    (tmp_path / "array").write_bytes(content)
    with pytest.raises(error, match=words):
        MappedArray(tmp_path / "array")


def test_mapping_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        MappedArray(tmp_path / "nothing.npy")


def test_a_file_that_is_cut_while_it_is_mapped(tmp_path):
    np.save(tmp_path / "array.npy", normal(4, 5))
    mapped = MappedArray(tmp_path / "array.npy")
    with open(tmp_path / "array.npy", "r+b") as file:
        file.truncate(200)
    with pytest.raises(ValueError, match=r"array.npy has been cut to 200 bytes since it was opened"):
        mapped[:]
