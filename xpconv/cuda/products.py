"""What a product asks of cuBLAS, in whole numbers: which operand is transposed, leading dimensions, strides, types.

cuBLAS sees memory column by column, so a matrix that lies row by row is its own transpose there, and
``c = a @ b`` is asked for as ``c^T = b^T @ a^T``. Nothing is copied: an operand is any view, one of whose axes walks
memory step by step and whose lines do not overlap. (Lowered along one axis alone, rows do overlap; cuBLAS refuses a
leading dimension below the length of a line.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MOST = 2**31 - 1

# Numbers of CUDA's interface: cublasOperation_t, cudaDataType and cublasComputeType_t.
PLAIN, TRANSPOSED = 0, 1
TYPES = {"float32": 0, "float64": 1, "float16": 2, "complex64": 4, "complex128": 5, "bfloat16": 14}
STRICT = {name: 70 if name in ("float64", "complex128") else 68 for name in TYPES}  # float16 is added up in float32
TF32 = STRICT | {"float32": 77, "complex64": 77}
COMPUTE_TYPES = {"float32": STRICT, "tf32": TF32}  # by the precision that is asked for


class Matrices(NamedTuple):
    """A stack of matrices in memory: (batch, rows, columns), with strides in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def transposed(self) -> Matrices:
        """The stack with rows and columns exchanged."""
        batch, rows, columns = range(3)
        order = (batch, columns, rows)
        return Matrices(tuple(self.shape[i] for i in order), tuple(self.strides[i] for i in order))


class Gemm(NamedTuple):
    """Arguments of ``cublasGemmStridedBatchedEx``; `swapped` says that its A is our b and its B our a."""

    swapped: bool
    transa: int
    transb: int
    m: int
    n: int
    k: int
    lda: int
    stride_a: int
    ldb: int
    stride_b: int
    ldc: int
    stride_c: int
    batch: int


def gemm(a: Matrices, b: Matrices, c: Matrices) -> Gemm:
    """Plan ``c = a @ b`` for stacks of matrices (B, M, K), (B, K, N) and (B, M, N).

    An operand that serves the whole stack has a stride of 0 along it.

    Raises
    ------
    ValueError
        When the shapes do not fit, a matrix cannot be read where it lies, or a number is beyond cuBLAS.
    """
    (batch, rows, depth), (columns, filters) = a.shape, b.shape[1:]
    if b.shape != (batch, depth, filters) or c.shape != (batch, rows, filters) or columns != depth:
        raise ValueError(
            f"a, b and c have shapes {a.shape}, {b.shape} and {c.shape}; give (B, M, K), (B, K, N), (B, M, N)"
        )
    # As cuBLAS sees it: columns that lie in memory one after the other.
    swapped = _leading(c.transposed) is not None
    left, right, out = (b.transposed, a.transposed, c.transposed) if swapped else (a, b, c)
    transa, lda = _operand("b" if swapped else "a", left)
    transb, ldb = _operand("a" if swapped else "b", right)
    ldc = _leading(out)
    if ldc is None or (batch > 1 and c.strides[0] == 0):
        raise ValueError(f"c has strides {c.strides}; give one whose rows or columns lie in memory one after the other")
    m, n, k = left.shape[1], right.shape[2], left.shape[2]
    if max(m, n, k, lda, ldb, ldc, batch) > MOST:
        raise ValueError(f"a product of {a.shape} and {b.shape} counts beyond {MOST}; give fewer rows at a time")
    strides = left.strides[0], right.strides[0], out.strides[0]
    return Gemm(swapped, transa, transb, m, n, k, lda, strides[0], ldb, strides[1], ldc, strides[2], batch)


def compute_type(dtype: str, precision: str) -> int:
    """Return in what cuBLAS is to multiply and add: by default in float32 for float32 and all that is narrower.

    Raises
    ------
    TypeError
        When cuBLAS does not multiply this dtype.
    """
    if dtype not in TYPES:
        raise TypeError(f"cuBLAS multiplies no {dtype}; give one of {', '.join(TYPES)}")
    return COMPUTE_TYPES[precision][dtype]


def scalar_type(dtype: str) -> str:
    """Return the dtype of the two factors that are given along: the one that is added up in."""
    return {"float16": "float32", "bfloat16": "float32"}.get(dtype, dtype)


def stack(shape: Sequence[int], strides: Sequence[int]) -> Matrices:
    """Return a matrix as a stack of one, and a stack as it is."""
    missing = 3 - len(shape)
    return Matrices((*(1,) * missing, *shape), (*(0,) * missing, *strides))


def legible(matrix: Matrices) -> bool:
    """Whether cuBLAS can read the matrices where they lie."""
    return any(_leading(seen) is not None for seen in (matrix, matrix.transposed))


def _leading(matrix: Matrices) -> int | None:
    """Return the step from column to column of a matrix whose columns lie in memory; None where they do not."""
    _, rows, columns = matrix.shape
    _, down, along = matrix.strides
    if rows > 1 and columns and down != 1:
        return None
    if columns <= 1 or not rows:  # there is no second column to step to
        return max(1, rows)
    return along if along >= max(1, rows) else None


def _operand(name: str, matrix: Matrices) -> tuple[int, int]:
    """Return whether to transpose what lies in memory, and its leading dimension."""
    for operation, seen in ((PLAIN, matrix), (TRANSPOSED, matrix.transposed)):
        leading = _leading(seen)
        if leading is not None:
            return operation, leading
    raise ValueError(
        f"{name} has shape {matrix.shape} and strides {matrix.strides}; give one whose rows or columns lie in memory "
        "one after the other, without overlapping"
    )
