"""Sparse matrices of SciPy, in memory or in a .npz file, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.memory import memory
from aevb.errors import DataError


def is_sparse(x: Any) -> bool:
    """Whether x is a sparse matrix or array of SciPy."""
    if isinstance(x, np.ndarray):
        return False
    from scipy.sparse import issparse  # here, since it takes a tenth of a second to import

    return bool(issparse(x))


def densified(x: Any, where: str) -> NDArray[Any]:
    """A sparse matrix, or the path to a .npz file of `scipy.sparse.save_npz` (csr, csc, coo, bsr or dia), as an array.

    Raises DataError if the array would take more than half of the machine's memory, and ValueError if the file is
    damaged.
    """
    if isinstance(x, Path):
        from scipy.sparse import load_npz

        x = load_npz(x)
    if hasattr(x, "check_format"):
        x.check_format()  # else SciPy writes beyond the array where an index of a damaged file is too large
    size, room = int(np.prod(x.shape, dtype=float)) * x.dtype.itemsize, memory() / 2
    if size > room:
        raise DataError(
            f"{where} is a sparse matrix of shape {x.shape}. As an array it would take "
            f"{size / 2**30:,.1f} GiB, more than"
            " half of the memory here. Choose fewer columns or rows."
        )
    dense: NDArray[Any] = x.toarray()
    return dense
