"""What is known of the numbers of an array after one pass over all of them: range, digits, and what is not finite."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aevb.data.pieces import Array, Pieces, in_memory
from aevb.errors import DataError

LARGEST = np.float64(np.finfo(np.float32).max)  # of this type, so that float16 is compared in float64
SHOWN = 5  # row numbers in a message


@dataclass(frozen=True)
class Facts:
    """Of an array (N, *X) with F entries a row.

    Attributes:
        low, high: (F,), the smallest and the largest number of each entry, in the type of the array.
        binary: whether all numbers are 0 or 1.
        exact: (F,), whether float32 holds all numbers of an entry.
    """

    low: Array
    high: Array
    binary: bool
    exact: NDArray[np.bool_]


class Holes(DataError):
    """Numbers of a table of which some are NaN, and none has another fault."""


@dataclass
class Faults:
    """Numbers that no model can read, counted piece by piece."""

    nan: int = 0
    infinite: int = 0
    large: int = 0
    rows: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, piece: Array, start: int) -> None:
        """Count those of a piece (n, F), whose first row has the number `start`."""
        nan, infinite = np.isnan(piece), np.isinf(piece)
        large = ~nan & ~infinite & (abs(piece) > LARGEST)
        rows = np.flatnonzero((nan | infinite | large).any(1))
        self.nan += int(nan.sum())
        self.infinite += int(infinite.sum())
        self.large += int(large.sum())
        self.rows += len(rows)
        self.first += [start + int(row) for row in rows[: SHOWN + 1 - len(self.first)]]

    def refuse(self, where: str, n: int, table: bool = False) -> None:
        """Raise a DataError with how many there are and in which rows, counted from 0, if there are any; `Holes` where
        NaN alone are in a table."""
        if not self.rows:
            return
        counts = {"NaN": self.nan, "infinite": self.infinite, "too large for float32": self.large}
        kinds = {kind: count for kind, count in counts.items() if count}
        words = (
            " or ".join(f"{kind} ({count:,})" for kind, count in kinds.items()) if len(kinds) > 1 else "".join(kinds)
        )
        cure = "Divide them by a constant" if [*kinds] == ["too large for float32"] else "Fill or remove them"
        holes = table and [*kinds] == ["NaN"]
        hint = " Or train the recipe table, whose rows may have holes." if holes else ""
        raise (Holes if holes else DataError)(
            f"{where}: {sum(kinds.values()):,} values in {self.rows:,} of {n:,} rows are {words}; the first such rows"
            f" are {few(self.first)}, counted from 0. {cure} first.{hint}"
        )


def few(rows: list[int]) -> str:
    """The first row numbers, and dots where there are more."""
    return ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")


def look(x: Pieces, where: str) -> Facts:
    """One pass over all numbers of x.  DataError, as `Faults.refuse` words it, if some are not finite."""
    entries = x.size // len(x)
    low, high = np.empty(entries, x.dtype), np.empty(entries, x.dtype)
    binary, exact, faults, start = True, np.ones(entries, bool), Faults(), 0
    for piece in x.rows():
        smallest, largest = piece.min(0), piece.max(0)
        low, high = (np.minimum(low, smallest), np.maximum(high, largest)) if start else (smallest, largest)
        if x.dtype.kind == "f":
            if not _fits(smallest) or not _fits(largest):
                faults.add(piece, start)
            elif x.dtype.itemsize > 4:
                exact &= (piece.astype(np.float32) == piece).all(0)
        binary = binary and bool(largest.max() <= 1) and bool(((piece == 0) | (piece == 1)).all())
        start += len(piece)
    faults.refuse(where, len(x), x.ndim == 2)
    return Facts(low, high, binary, exact)


def _fits(numbers: Array) -> bool:
    return bool((abs(numbers) <= LARGEST).all())


def constant(x: Array) -> NDArray[np.bool_]:
    """Which entries (F,) of rows (N, *X) in memory are the same in all of them."""
    return same(x, x[:1].reshape(-1))


def same(x: Array, value: Array) -> NDArray[np.bool_]:
    """Which entries (F,) of rows (N, *X) in memory all equal a value (F,)."""
    found = np.ones(value.shape, bool)
    for piece in in_memory(x).rows():
        found &= (piece == value).all(0)
        if not found.any():
            break
    return found
