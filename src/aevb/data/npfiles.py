"""Files of NumPy, .npy and .npz, read piece by piece, without ever unpickling."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from aevb.data.damage import reading
from aevb.data.memory import refuse_above_free
from aevb.data.pieces import Array, Pieces, in_memory, step
from aevb.data.sparse import densified
from aevb.errors import AevbWarning, DataError

NUMPY, ZIPPED = b"\x93NUMPY", b"PK"  # how the files begin
NUMBERS = "arrays of numbers"
Open = Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class Header:
    """What a .npy file says before its data."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def arrays_in(path: Path) -> dict[str, Pieces]:
    """The arrays of a file by their lower-case names, "x" for a .npy.

    Raises DataError if it is no such file, is damaged or cut short, or holds Python objects; if it holds two arrays of
    one name; or if it is a sparse matrix that takes too much memory.
    """
    with reading(path, NUMBERS):
        with path.open("rb") as file:
            start = file.read(len(NUMPY))
        if start == NUMPY:
            return {"x": array_in(lambda: path.open("rb"), path.stat().st_size, path)}
        if start.startswith(ZIPPED):
            return members(path)
    raise DataError(
        f"{path} cannot be read as {NUMBERS}: it does not begin as a .npy or .npz file does. Write one from text with"
        " numpy.save(path, numpy.loadtxt(text))."
    )


def members(path: Path) -> dict[str, Pieces]:
    """The arrays of a .npz file."""
    with zipfile.ZipFile(path) as archive:
        found = {info.filename: info for info in archive.infolist() if info.filename.endswith(".npy")}
        names = [info.filename.removesuffix(".npy").lower() for info in archive.infolist()]
        check_names(path, names)
        if {"format.npy", "shape.npy"} <= set(found):
            total = sum(info.file_size for info in found.values())
            refuse_above_free(total, path, "its sparse matrix")
            return {"x": in_memory(densified(path, str(path)))}
    warn_of_others(path, sorted({*names} - {name.removesuffix(".npy").lower() for name in found}))
    return {
        name.removesuffix(".npy").lower(): array_in(partial(member, path, name), info.file_size, path, f": {name}")
        for name, info in found.items()
    }


def check_names(path: Path, names: list[str]) -> None:
    """Raise a `DataError` where two members have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} holds {twice[0]!r} twice (upper and lower case count as one): which is meant?")


def warn_of_others(path: Path, names: list[str]) -> None:
    """Warn of members that are no arrays."""
    if names:
        words = f"{', '.join(names[:5])} ({len(names):,} in all)"
        warnings.warn(f"{path}: left out, since not arrays: {words}", AevbWarning, stacklevel=3)


@contextmanager
def member(path: Path, name: str) -> Iterator[IO[bytes]]:
    """A member of a .zip, to be read from its beginning."""
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        yield file


def array_in(open_: Open, size: int, path: Path, name: str = "") -> Pieces:
    """The array in a .npy file, or in a member of a .npz, of `size` bytes.

    Raises:
        DataError: the header is damaged, names objects, or promises another number of bytes than there are.
    """
    with reading(path, NUMBERS + name), open_() as file:
        head = read_header(file)
        there, promised = size - file.tell(), math.prod(head.shape) * head.dtype.itemsize
        if there != promised:
            words = "cut short" if there < promised else "longer than its header says; save one array a file"
            raise ValueError(f"it is {words} ({promised:,} bytes of numbers were expected, {there:,} are there)")
    return Pieces(head.shape, head.dtype, lambda: guarded(pieces(open_, head, path), path, name))


def read_header(file: IO[bytes]) -> Header:
    """Read the header, and leave the file where the data begin.  ValueError if it is damaged or names objects."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format holds no plain numbers")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and pickles are not read: save an array of numbers")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"its header gives the shape {shape}")
    return Header(shape, fortran, dtype)


def guarded(pieces: Iterator[Array], path: Path, name: str) -> Iterator[Array]:
    """The pieces; what goes wrong in reading them is a DataError."""
    with reading(path, NUMBERS + name):
        yield from pieces


def pieces(open_: Open, head: Header, path: Path) -> Iterator[Array]:
    """The rows in order.  An array whose columns are stored one after the other is read whole."""
    with open_() as file:
        read_header(file)
        if head.fortran or not head.shape:
            yield from in_memory(_whole(file, head, path)).read()
            return
        size = step(head.shape, head.dtype.itemsize)
        for start in range(0, head.shape[0], size):
            yield _array(file, head, (min(size, head.shape[0] - start), *head.shape[1:]))


def _whole(file: IO[bytes], head: Header, path: Path) -> Array:
    refuse_above_free(math.prod(head.shape) * head.dtype.itemsize, path, "an array in Fortran order")
    return _array(file, head, head.shape[::-1]).transpose()


def _array(file: IO[bytes], head: Header, shape: tuple[int, ...]) -> Array:
    if not math.prod(shape) * head.dtype.itemsize:
        return np.empty(shape, head.dtype)
    content = file.read(math.prod(shape) * head.dtype.itemsize)
    return np.frombuffer(content, head.dtype).reshape(shape)
