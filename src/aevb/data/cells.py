"""The cells of one column in a plain form: which are there, and what they hold, whichever library has the frame."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aevb.data.columns import EXACT
from aevb.data.dates import Dates, dates_in
from aevb.data.tables import Frame
from aevb.errors import DataError

NUMBER, WORD, DATE, OTHER = "number", "word", "date", "other"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Cells:
    """A column.

    Attributes:
        name: of the column; dtype: narwhals' name of its type.
        form: number, word (truth values and levels as well), date, other.
        seen: (N,), which cells are there.
        numbers: of the cells that are there: the number itself, exactly; the code of a word in `levels`; seconds since
            1970 of a date; seconds of a span, or of a time since midnight.
        levels: the different words; of a type with levels all of them, in its order.
        ordered: whether the type gives an order to its levels.
        declared: whether `levels` are the type's own.
        origin: what `floats` are less of; see `beyond`.
    """

    name: str
    dtype: str
    form: str
    seen: NDArray[np.bool_]
    numbers: Array
    levels: tuple[Any, ...] = ()
    ordered: bool = False
    declared: bool = False
    origin: int = 0

    def of(self, rows: Array | None) -> Cells:
        """The cells of these rows alone."""
        if rows is None:
            return self
        chosen = np.zeros(len(self.seen), bool)
        chosen[rows] = True
        return replace(self, seen=self.seen & chosen, numbers=self.numbers[chosen[self.seen]])

    @property
    def holes(self) -> int:
        return int(len(self.seen) - self.seen.sum())

    @cached_property
    def distinct(self) -> int:
        """How many different values are there."""
        if self.form == WORD and not self.declared:
            return len(self.levels)
        ordered = np.sort(self.numbers)
        return int((ordered[1:] != ordered[:-1]).sum()) + bool(len(ordered))

    @cached_property
    def floats(self) -> NDArray[np.float64]:
        """The numbers less the origin, as float64."""
        return less(self.numbers, self.origin)

    @cached_property
    def dates(self) -> Dates | None:
        """Words as dates, if they are dates."""
        return dates_in(self.levels) if self.form == WORD and not self.declared else None


def less(numbers: Array, origin: int) -> NDArray[np.float64]:
    """Numbers less an origin, as float64: of whole numbers the exact difference, rounded once."""
    if not origin or numbers.dtype.kind not in "iu":
        return numbers.astype(np.float64) - origin
    high = (numbers >> 32).astype(np.int64) - (origin >> 32)
    low = (numbers & 0xFFFFFFFF).astype(np.int64) - (origin & 0xFFFFFFFF)
    return np.asarray(high * 2.0**32 + low, np.float64)


def beyond(numbers: Array) -> int:
    """The least of whole numbers that float64 rounds, and whose differences it does not; 0 of all others."""
    if numbers.dtype.kind not in "iu" or not len(numbers):
        return 0
    low, high = int(numbers.min()), int(numbers.max())
    return low if max(-low, high) > EXACT and high - low < EXACT else 0


def cells_of(frame: Frame, name: str) -> Cells:
    """The cells of a column.  DataError, which names it, where it mixes types or holds infinite numbers."""
    array, dtype = frame.arrow(name), dtype_of(frame, name)
    kind = array.type
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    seen = np.asarray(pc.is_valid(array).to_numpy(zero_copy_only=False), bool)
    there = pc.drop_null(array)
    for fits, read in READ:
        if fits(kind):
            cells = read(name, dtype, seen, there)
            return finite(frame, cells)
    return Cells(name, dtype, OTHER, seen, np.zeros(len(there)))


def dtype_of(frame: Frame, name: str) -> str:
    """narwhals' name of a column's type, without the list of levels, which may be long.

    It has none for pandas' dates in zones such as America/New_York, with a low line.
    """
    found = str(frame.table[name].dtype).partition("(categories")[0]
    kind = frame.arrow(name).type if found == "Unknown" else pa.null()
    return f"Datetime(time_unit={kind.unit!r}, time_zone={kind.tz!r})" if pa.types.is_timestamp(kind) else found


def finite(frame: Frame, cells: Cells) -> Cells:
    """The cells, if no number is infinite."""
    if cells.form == NUMBER and np.isinf(cells.floats).any():
        row = frame.start + int(np.flatnonzero(cells.seen)[np.flatnonzero(np.isinf(cells.floats))[0]])
        raise DataError(
            f"{frame.name}: column {cells.name!r} holds an infinite number (row {row}, counted from 0). Make it a"
            " missing value."
        )
    return cells


def _numbers(name: str, dtype: str, seen: Any, there: Any) -> Cells:
    exact = plain_decimals(there) if pa.types.is_decimal(there.type) else there
    return Cells(name, dtype, NUMBER, seen, exact.to_numpy(zero_copy_only=False))


def plain_decimals(there: Any) -> Any:
    """Decimal numbers as int64 where it holds them all, else as float64."""
    if there.type.scale <= 0:
        with suppress(pa.ArrowInvalid):
            return pc.cast(there, pa.int64())
    return pc.cast(there, pa.float64())


def _truths(name: str, dtype: str, seen: Any, there: Any) -> Cells:
    codes = pc.cast(there, pa.int8()).to_numpy(zero_copy_only=False)
    return Cells(name, dtype, WORD, seen, codes, (False, True), declared=True)


def _levels(name: str, dtype: str, seen: Any, there: Any) -> Cells:
    codes = pc.cast(there.indices, pa.int64()).to_numpy(zero_copy_only=False)
    levels = tuple(there.dictionary.to_pylist())
    return Cells(name, dtype, WORD, seen, codes, levels, bool(there.type.ordered) or dtype == "Enum", declared=True)


def _words(name: str, dtype: str, seen: Any, there: Any) -> Cells:
    coded = pc.dictionary_encode(there)
    found = coded.dictionary
    order = np.asarray(pc.array_sort_indices(found))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    codes = rank[pc.cast(coded.indices, pa.int64()).to_numpy(zero_copy_only=False)]
    return Cells(name, dtype, WORD, seen, codes, tuple(found.take(pa.array(order)).to_pylist()))


def _dates(name: str, dtype: str, seen: Any, there: Any) -> Cells:
    if pa.types.is_date32(there.type):
        return Cells(name, dtype, DATE, seen, np.asarray(pc.cast(there, pa.int32())).astype(float) * 86_400)
    if pa.types.is_date64(there.type):
        return Cells(name, dtype, DATE, seen, np.asarray(pc.cast(there, pa.int64())) / 1e3)
    return Cells(name, dtype, DATE, seen, np.asarray(pc.cast(there, pa.int64())) / PER_SECOND[there.type.unit])


def _spans(name: str, dtype: str, seen: Any, there: Any) -> Cells:
    return Cells(name, dtype, NUMBER, seen, np.asarray(pc.cast(there, pa.int64())) / PER_SECOND[there.type.unit])


def _times(name: str, dtype: str, seen: Any, there: Any) -> Cells:
    ticks = pc.cast(there, pa.int32() if pa.types.is_time32(there.type) else pa.int64())
    return Cells(name, dtype, NUMBER, seen, np.asarray(ticks) / PER_SECOND[there.type.unit])


Read = Callable[[str, str, Any, Any], Cells]
READ: tuple[tuple[Callable[[Any], bool], Read], ...] = (
    (lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t), _numbers),
    (pa.types.is_boolean, _truths),
    (pa.types.is_dictionary, _levels),
    (lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t), _words),
    (lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t), _dates),
    (pa.types.is_duration, _spans),
    (pa.types.is_time, _times),
)
