"""Arrays that are read piece by piece, so that loading a file costs the memory of what is kept of it, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.memory import refuse_above_free
from aevb.data.walk import passed

Array = NDArray[Any]
PIECE = 2**20  # bytes that are read at a time


@dataclass(frozen=True)
class Pieces:
    """An array (N, *X) in consecutive pieces of rows.

    Attributes:
        shape: (N, *X).
        dtype: of its numbers.
        read: begins anew at every call, and gives the pieces in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Iterator[Array]]

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return passed(self.read(), len(self))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def rows(self) -> Iterator[Array]:
        """The pieces as (n, F), with all entries of a row side by side."""
        return (piece.reshape(len(piece), -1) for piece in self)

    def whole(self, where: object) -> Array:
        """All of it in memory. DataError if that is more than what is free."""
        refuse_above_free(self.size * self.dtype.itemsize, where, "one of its arrays")
        parts = list(self) or [np.empty(self.shape, self.dtype)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def step(shape: Sequence[int], itemsize: int) -> int:
    """How many rows of an array (N, *X) make a piece."""
    return max(1, PIECE // max(1, itemsize * math.prod(shape[1:])))


def in_memory(x: Array) -> Pieces:
    """An array that is in memory already."""
    if not x.ndim:
        return Pieces((), x.dtype, lambda: iter((x,)))
    size = step(x.shape, x.dtype.itemsize)
    return Pieces(x.shape, x.dtype, lambda: (x[i : i + size] for i in range(0, len(x), size)))


def joined(parts: Sequence[Pieces]) -> Pieces:
    """Arrays of the same row shape, one after the other."""
    dtype = np.result_type(*(part.dtype for part in parts))
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    return Pieces(shape, dtype, lambda: (piece.astype(dtype, copy=False) for part in parts for piece in part.read()))


def scatter(x: Pieces, place: NDArray[np.int64], out: Array, moved: Callable[[Array], Array]) -> None:
    """Put row i of x, after `moved`, at out[place[i]], in the type of `out`."""
    start = 0
    for piece in x:
        out[place[start : start + len(piece)]] = moved(piece)
        start += len(piece)
