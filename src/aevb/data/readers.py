"""Readers of the formats in which the known data sets were published: idx, a pickle of Python 2, MATLAB."""

from __future__ import annotations

import gzip
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from aevb.data.arrays import Array
from aevb.errors import DataError


def read_idx(path: Path) -> Array:
    """A gzipped array of bytes in LeCun's idx format: 0 0 8 ndim, then the sizes as big-endian int32, then the data.

    Raises DataError if the file is damaged or truncated.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
        shape = np.frombuffer(content, ">i4", content[3], 4)
        return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as fault:
        raise DataError(f"{path} is damaged or truncated: {fault}") from fault


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of plain arrays; any other global in it is refused, so that nothing can run."""

    ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> Any:
        """The four harmless globals of an array; UnpicklingError for any other."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a pickle of arrays")
        if name == "_reconstruct":  # it moved between NumPy 1 and 2: ask an array for it
            return np.empty(0).__reduce__()[0]
        return super().find_class(module, name)


def read_pickled_array(path: Path) -> Array:
    """The array in a pickle, or in a list of one, as Python 2 wrote the Frey faces.  DataError for anything else."""
    try:
        with path.open("rb") as file:
            content = ArrayUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError) as fault:
        raise DataError(f"{path} is not a pickled array: {fault}") from fault
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, np.ndarray):
        raise DataError(f"{path} is not a pickled array: it holds {type(content).__name__}")
    return content


def read_mat(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """These variables of a MATLAB file.  DataError if it is damaged or lacks one."""
    from scipy.io import loadmat  # here, since it takes a quarter of a second to import

    try:
        content = loadmat(path)
        return {name: content[name] for name in names}
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, zlib.error) as fault:
        raise DataError(
            f"{path} cannot be read as a MATLAB file with {', '.join(names)}: {fault}. Replace it, or remove it to have"
            " it downloaded again."
        ) from fault


def matlab_images(x: Array) -> Array:
    """(N, 784) with column-major pixels -> (N, 1, 28, 28), uint8 0 or 1."""
    bits = (x.reshape(-1, 28, 28).transpose(0, 2, 1) >= 0.5).astype(np.uint8)
    return np.ascontiguousarray(bits)[:, None]
