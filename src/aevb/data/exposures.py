"""Exposures of counts: "count:days" asks for a count over as many days as the column days says.

The mean of the count is in proportion to its exposure: of a row with exposure e it is e μ(z). The exposure itself is
given: the model reads it, and has no density of it. "total", where a table has no column of that name, is the sum of
the counts in the row, as the size of a library is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from aevb.data.batch import name_rows
from aevb.data.cells import NUMBER, WORD, Array, Cells, cells_of
from aevb.data.columns import EXPOSURE, GIVEN, OF_ALL, Column, Schema
from aevb.data.likelihoods import suited_count
from aevb.data.tables import Frame
from aevb.errors import DataError

TOTAL = "total"  # the exposure that is the sum of a row's counts, where no column has this name


@dataclass(frozen=True)
class Exposures:
    """What is asked of exposures.

    Attributes:
        kinds: the kinds that are asked for, those of exposures with them; of: of counts their exposures, by name.
        rest: the exposure of all counts that have no other; "" where there is none.
    """

    kinds: Mapping[str, str]
    of: Mapping[str, str]
    rest: str = ""

    @property
    def names(self) -> set[str]:
        return {*self.of.values(), *([self.rest] if self.rest else [])}

    def over(self, column: Column) -> str:
        """The exposure of a column; "" where it has none."""
        return self.of.get(column.name, self.rest) if column.kind == "count" and column.modelled else ""


def parted(columns: Mapping[str, str]) -> Exposures:
    """The kinds that are asked for, and the exposures.

    Raises:
        DataError: a column that is no count has an exposure; one is to be an exposure and of another kind; or two are
            to be that of all counts.
    """
    kinds = {name: kind.partition(":")[0].strip() for name, kind in columns.items()}
    shared = [name for name, kind in columns.items() if "".join(kind.split()) == OF_ALL]
    if len(shared) > 1:
        raise DataError(f"{shared[0]!r} and {shared[1]!r} are both to be the exposure of all counts. Name one.")
    of = {n: kind.partition(":")[2].strip() for n, kind in columns.items() if ":" in kind and n not in shared}
    for name, exposure in of.items():
        _take_as_exposure(name, exposure, kinds)
    return Exposures(kinds, of, *shared)


def _take_as_exposure(name: str, exposure: str, kinds: dict[str, str]) -> None:
    """Note the kind of the exposure of a count.  DataError where one of the two is of another kind."""
    if kinds[name] != "count":
        raise DataError(f"column {name!r}: only a count has an exposure. Write {name}=count:{exposure}.")
    if (other := kinds.setdefault(exposure, EXPOSURE)) != EXPOSURE:
        raise DataError(f"column {exposure!r} is the exposure of {name!r}, so it cannot be {other} as well.")


def alike(frame: Frame, asked: Exposures) -> Frame:
    """The frame; of an array whose counts are to have one exposure, all columns are counts."""
    whole = frame.matrix and bool(asked.rest)
    return replace(frame, kinds=dict.fromkeys(frame.table.columns, "count")) if whole else frame


def with_total(frame: Frame, asked: Exposures, columns: Sequence[Column]) -> Frame:
    """The frame, with the totals of the rows as a column where they are asked for and it has no column of that name.

    Raises:
        DataError: no column is a count, or the counts of a row sum to zero.
    """
    if TOTAL not in asked.names or TOTAL in frame.table.columns:
        return frame
    counts = [aligned(cells_of(frame, c.name)) for c in columns if asked.over(c) == TOTAL]
    if not counts:
        raise DataError(f"{frame.name} has no column of counts to sum. Name them: --column NAME=count.")
    total = np.zeros(len(frame))
    for count in counts:
        total += np.nan_to_num(count)
    refuse_empty(total, frame)
    table = nw.from_native(pa.table({TOTAL: total}), eager_only=True)
    return replace(frame, table=nw.from_native(frame.table.to_arrow(), eager_only=True).with_columns(table[TOTAL]))


def refuse_empty(total: NDArray[np.float64], frame: Frame) -> None:
    """Raise DataError, which names the rows, where the counts of a row sum to zero."""
    empty = np.flatnonzero(~(total > 0))
    if len(empty):
        rows = name_rows(torch.from_numpy(empty) + frame.start)
        raise DataError(f"{frame.name}: the counts sum to zero in {rows}. Leave these rows out: they have no exposure.")


def summed(schema: Schema, numbers: NDArray[np.float64], frame: Frame) -> None:
    """Put the totals of the counts into their column of stored numbers (N, F), where there is such a column."""
    for place, column in enumerate(schema.model):
        if column.sums:
            counts = [i for i, c in enumerate(schema.model) if c.exposure == column.name]
            numbers[:, place] = 0
            for i in counts:
                numbers[:, place] += np.nan_to_num(numbers[:, i])
            refuse_empty(numbers[:, place], frame)


def linked(column: Column, asked: Exposures, others: Sequence[Column], numbers: Callable[[str], Array]) -> Column:
    """A count with its exposure, and the likelihood that suits it; an exposure with what it is one of.

    Args:
        others: all columns.
        numbers: those of a column in the rows that give likelihoods, NaN where there is none.
    """
    if column.kind == EXPOSURE:
        return given(column, [c.name for c in others if asked.over(c) == column.name])
    exposure = asked.over(column)
    if not exposure:
        return column
    x, e = numbers(column.name), numbers(exposure)
    there = ~np.isnan(x)
    likelihood = suited_count(x[there], e[there]) if there.any() else column.likelihood
    why = f"{'asked for' if column.name in asked.of else column.why}; over {exposure}"
    return replace(column, exposure=exposure, why=why, likelihood=likelihood)


def given(column: Column, counts: Sequence[str]) -> Column:
    """An exposure of these counts; one of none is not read."""
    used = f"the exposure of {named(counts)}" if counts else "the exposure of no column that is modelled"
    return replace(column, why=used, likelihood=GIVEN if counts else "")


def named(counts: Sequence[str], most: int = 5) -> str:
    """Some names, and how many more there are."""
    more = len(counts) - most
    return ", ".join(counts[:most]) + (f" and {more:,} more" if more > 0 else "")


def aligned(cells: Cells) -> NDArray[np.float64]:
    """The numbers of all rows, (N,), NaN where there is none."""
    numbers = np.full(len(cells.seen), np.nan)
    each = [float(word) for word in cells.levels] if cells.form == WORD else []
    numbers[cells.seen] = np.array(each)[cells.numbers] if each else cells.floats
    return numbers


def refuse_unexposed(cells: Cells, where: str, first: int = 0) -> None:
    """Raise DataError, which names the rows from number `first` on, where an exposure is missing or not above zero."""
    if cells.form != NUMBER:
        raise DataError(f"{where}: column {cells.name!r} holds no numbers, so it cannot be an exposure.")
    wrong = np.flatnonzero(~(aligned(cells) > 0))
    if len(wrong):
        rows = name_rows(torch.from_numpy(wrong) + first)
        raise DataError(
            f"{where}: column {cells.name!r} has no exposure above zero in {rows}. Leave these rows out, or give one."
        )
