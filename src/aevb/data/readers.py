"""Readers of the formats in which the known data sets were published: scikit-learn's, idx, a pickle, MATLAB."""

from __future__ import annotations

import gzip
import math
import pickle
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from aevb.data.damage import reading
from aevb.data.npfiles import arrays_in
from aevb.data.pieces import Array
from aevb.errors import DataError

LARGEST = 2**30  # bytes of an array in an idx file


def read_digits() -> tuple[Array, Array]:
    """scikit-learn's digits: pixels (1797, 64) from 0 to 16, and labels (1797,).

    They are read from scikit-learn's file, since its import takes a second. If the file is not there, it is imported.
    """
    found = find_spec("sklearn")
    file = Path((found and found.origin) or "").parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)  # type: ignore[no-any-return]


def read_idx(path: Path) -> Array:
    """A gzipped array of bytes in LeCun's idx format: 0 0 8 ndim, then the sizes as big-endian int32, then the data.

    Raises DataError if the file is damaged or truncated, or holds more than its header says.
    """
    with reading(path, "an idx file"), gzip.open(path) as file:
        zeros, kind, ndim = file.read(2), *file.read(2)
        if zeros != b"\0\0" or kind != 8:
            raise ValueError("it does not begin with 0 0 8")
        shape = np.frombuffer(file.read(4 * ndim), ">i4", ndim).astype(np.int64)
        size = math.prod(shape.tolist())
        if (shape < 0).any() or size > LARGEST:
            raise ValueError(f"its header gives the shape {(*shape.tolist(),)}")
        content = file.read(size + 1)
        if len(content) != size:
            raise ValueError(f"{size:,} bytes were expected, {len(content):,} or more did")
        return np.frombuffer(content, np.uint8).reshape(shape)


class Forged(Exception):
    """A pickle that holds more than plain arrays of numbers."""


Unpickler: Any = pickle._Unpickler


class ArrayUnpickler(Unpickler):  # type: ignore[misc]
    """Reads a pickle of plain arrays of numbers; any other global in it is refused.

    No object of NumPy is given a state that a file dictates, since a forged one can point into memory: dtypes and
    arrays are stood in for by classes here, which take numbers and bytes alone. It is Python's own unpickler written
    in Python, which checks what that written in C does not.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a harmless global of an array; UnpicklingError for any other."""
        stands = {"_reconstruct": _reconstruct, "ndarray": PlainArray, "dtype": PlainType, "encode": _encode}
        if f"{module}.{name}" not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a pickle of arrays")
        return stands[name]

    def load_build(self) -> None:
        """Give a state to a stand-in, and to nothing else."""
        if not isinstance(self.stack[-2], PlainType | PlainArray):
            raise Forged("it gives a state to what has none")
        super().load_build()

    dispatch = {**Unpickler.dispatch, pickle.BUILD[0]: load_build}


ALLOWED = (
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
)
PLAIN = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class PlainType:
    """A dtype of numbers, by its name such as "u1"; of its state only the order of bytes counts."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in PLAIN:
            raise Forged(f"numpy.dtype({str(name)[:40]!r}) is not a type of numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, *rest = state[1:]
        if order not in ("<", ">", "|", "=") or rest[:3] != [None, None, None]:
            raise Forged("the state of its dtype is not that of a type of numbers")
        self.dtype = self.dtype.newbyteorder(order)


class PlainArray:
    """An array of numbers, from a shape, a `PlainType` and bytes."""

    x: Array

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, PlainType) or not isinstance(content, bytes | str):
            raise Forged("the state of its array is not that of an array of numbers")
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.x = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: object, *_: object) -> PlainArray:
    if kind is not PlainArray:
        raise Forged("it holds an array of another class")
    return PlainArray()


def _encode(text: str, codec: str = "latin1") -> bytes:
    if codec != "latin1":
        raise Forged(f"the codec {codec!r} is not that of an array's bytes")
    return text.encode("latin1")


def read_pickled_array(path: Path) -> Array:
    """The array in a pickle, or in a list of one, as Python 2 wrote the Frey faces.  DataError for anything else."""
    with reading(path, "a pickled array"):
        with path.open("rb") as file:
            content = ArrayUnpickler(file, encoding="latin1").load()
        if isinstance(content, list) and len(content) == 1:
            (content,) = content
        if not isinstance(content, PlainArray):
            raise ValueError(f"it holds {type(content).__name__}")
        return content.x


def read_mat(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """These variables of a MATLAB file.  DataError if it is damaged or lacks one."""
    from scipy.io import loadmat  # here, since it takes a quarter of a second to import

    cure = "Replace it, or remove it to have it downloaded again."
    with reading(path, f"a MATLAB file with {', '.join(names)}", cure):
        content = loadmat(path, variable_names=names)
        if lacking := [name for name in names if name not in content]:
            raise ValueError(f"it holds no {lacking[0]}")
        return {name: content[name] for name in names}


def read_mat_apart(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """As `read_mat`, for a file that nobody vouches for: in a process of its own, which a damaged file may end.

    SciPy's reader can end a process by a damaged file, without an exception.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "arrays.npz"
        code = "import sys; from aevb.data.readers import _convert; _convert(*sys.argv[1:])"
        done = subprocess.run([sys.executable, "-c", code, path, out, *names], capture_output=True, text=True)
        if done.returncode == 0:
            return {name: array.whole(path) for name, array in arrays_in(out).items()}
    said = done.stderr.strip().splitlines()
    why = said[-1].partition("DataError: ")[2] if done.returncode > 0 and said else ""
    raise DataError(
        why
        or f"{path} cannot be read as a MATLAB file with {', '.join(names)}: SciPy's reader failed on it."
        " Replace it, or remove it to have it downloaded again."
    )


def _convert(path: str, out: str, *names: str) -> None:
    arrays: dict[str, Any] = read_mat(Path(path), names)
    np.savez(out, **arrays)


def matlab_images(x: Array) -> Array:
    """(N, 784) with column-major pixels -> (N, 1, 28, 28), uint8 0 or 1."""
    bits = (x.reshape(-1, 28, 28).transpose(0, 2, 1) >= 0.5).astype(np.uint8)
    return np.ascontiguousarray(bits)[:, None]
