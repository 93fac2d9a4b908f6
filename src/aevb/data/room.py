"""Room for the rows of a data set: in memory up to a limit, beyond it in a file that has no name.

Such a file is a memory map. The system reads what is needed, keeps it while memory is free, and frees the disk however
the process ends.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from aevb.data.memory import refuse_above_free
from aevb.data.pieces import Array, Pieces, in_memory, scatter, step
from aevb.errors import DataError

LIMIT = 1024  # MB of rows that are kept in memory
VARIABLE = "AEVB_MEMORY_MB"  # the limit, where it is set


def room(shape: Sequence[int], dtype: DTypeLike, where: object, what: str, beside: float = 0) -> Array:
    """An array to be filled with the rows of a data set.

    Args:
        where, what: of which data, and what is to be kept, for a message.
        beside: bytes of memory that it takes to fill the array.

    Raises:
        DataError: neither memory nor disk has room.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    inside = fits(size)
    refuse_above_free(size * inside + beside, where, what)
    if inside:
        return np.empty(shape, dtype)
    refuse_above_disk(size, where, what)
    return mapped(scratch(), shape, dtype)


def fits(size: float) -> bool:
    """Whether so many bytes of rows are kept in memory."""
    return size <= limit() * 1e6


def refuse_above_disk(
    size: float, where: object, what: str, folder: Path | None = None, variable: str = "TMPDIR"
) -> None:
    """Raise a `DataError` if `size` bytes, for `what`, are more than the disk has free.

    folder, variable: where they are to be, and the variable that names another place; else `scratch`.
    """
    folder = folder or scratch()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{where} needs {size / 1e9:,.2f} GB of disk in {folder} for {what}, and {free / 1e9:,.2f} GB are free. "
            f"Name a folder on another disk by {variable}, or use fewer rows."
        )


def taken(x: Array, rows: NDArray[np.int64], where: object) -> Array:
    """x[rows] of an array (N, F), in memory or in a file as `room` says."""
    if fits(len(rows) * x[:1].nbytes):
        return x[rows]
    out = room((len(rows), *x.shape[1:]), x.dtype, where, f"{len(rows):,} rows")
    size = step(x.shape, x.dtype.itemsize)
    for start in range(0, len(rows), size):
        out[start : start + size] = x[rows[start : start + size]]
    return out


def whole(x: Pieces, where: object) -> Array:
    """All of an array that is read piece by piece, in memory or in a file as `room` says."""
    if fits(x.size * x.dtype.itemsize):
        return x.whole(where)
    return filled(x, room(x.shape, x.dtype, where, "one of its arrays"), lambda piece: piece)


def changed(x: Array, change: Callable[[Array], Array], where: object) -> Array:
    """`change(x)`, of a function of rows (n, *X) that gives as many, in memory or in a file as `room` says."""
    if not len(x):
        return change(x)
    first = change(x[:1])
    shape = (len(x), *first.shape[1:])
    if fits(len(x) * first.nbytes):
        return change(x)
    return filled(in_memory(x), room(shape, first.dtype, where, f"{len(x):,} rows"), change)


def filled(x: Pieces, out: Array, change: Callable[[Array], Array]) -> Array:
    """The array `out` with the rows of x after `change`, in their order."""
    scatter(x, np.arange(len(x)), out, change)
    return out


def mapped(folder: Path, shape: Sequence[int], dtype: DTypeLike) -> Array:
    """An array in a new file of a folder, which is gone with the array."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return np.memmap(file, dtype, "w+", shape=tuple(shape))
    except OSError as error:
        raise DataError(
            f"No file can be made in {folder}: {error.strerror or error}. Name another by TMPDIR."
        ) from error


def limit() -> float:
    """MB of rows that are kept in memory.  DataError where the variable holds no such number."""
    said = os.environ.get(VARIABLE, "")
    try:
        found = float(said) if said else LIMIT
    except ValueError:
        found = math.nan
    if not found >= 0:
        raise DataError(f"{VARIABLE}={said}: it is a number of megabytes, such as {VARIABLE}=1024.")
    return found


def scratch() -> Path:
    """The folder for such files: TMPDIR, or else one that is on a disk, which /tmp need not be."""
    lasting = Path("/var/tmp")
    named = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    usable = not named and lasting.is_dir() and os.access(lasting, os.W_OK)
    return lasting if usable else Path(tempfile.gettempdir())
