"""Labels of any kind as classes 0 to C - 1, and what they are called."""

from __future__ import annotations

from typing import Any

import numpy as np

from aevb.data.facts import few
from aevb.data.pieces import Array
from aevb.errors import DataError


def classes(y: Array, n: int, where: str) -> tuple[Array, tuple[str, ...] | None]:
    """Labels of any kind as classes 0..C-1, int64 (N,), in sorted order; and what they were called, unless just that.

    Whole numbers (negative ones and gaps too), booleans and words are labels.
    Raises DataError if they are not one of these a row, or if one is missing (NaN, None, masked).
    """
    y = y[:, 0] if y.shape == (n, 1) else y
    if y.shape != (n,):
        raise DataError(f"{where}: the labels have shape {y.shape}; {n} rows need ({n},)")
    refuse_missing(y, where)
    y = np.array(y.tolist()) if y.dtype.kind == "O" else np.asarray(y)
    if y.dtype.kind not in "buifUS" or (y.dtype.kind == "f" and not (y == np.trunc(y)).all()):
        raise DataError(f"{where}: the labels ({y.dtype}) are not whole numbers or words: leave them out")
    found, labels = np.unique(y, return_inverse=True)
    names = tuple(map(label_name, found.tolist()))
    usual = y.dtype.kind in "uif" and names == tuple(map(str, range(len(names))))
    return labels.reshape(n).astype(np.int64), None if usual else names


def refuse_missing(y: Array, where: str) -> None:
    """Raise DataError if a label is NaN, infinite, None or masked."""
    lacking = np.ma.getmaskarray(y).copy()
    if y.dtype.kind == "f":
        lacking |= ~np.isfinite(np.ma.getdata(y))
    if y.dtype.kind == "O":
        lacking |= np.array([label is None or label != label for label in y.tolist()], bool)
    rows = np.flatnonzero(lacking)
    if len(rows):
        raise DataError(
            f"{where}: {len(rows):,} of {len(y):,} labels are missing (rows {few(rows.tolist())}, counted from 0), so"
            " they are not whole numbers or words. Fill them, leave these rows out, or leave all labels out."
        )


def label_name(label: Any) -> str:
    """What a label is called: a whole float as an integer, bytes as UTF-8."""
    if isinstance(label, bytes):
        return label.decode("utf-8", "backslashreplace")
    return str(int(label)) if isinstance(label, float) else str(label)
