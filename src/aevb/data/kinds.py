"""Which kind a column of a table is, and why: read off its values, never off its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from aevb.data.cells import DATE, NUMBER, OTHER, WORD, Array, Cells, beyond, cells_of
from aevb.data.columns import CODED, EXPOSURE, KINDS, UNMODELLED, Column, Schema
from aevb.data.dates import NEVER
from aevb.data.exposures import TOTAL, aligned, alike, linked, parted, refuse_unexposed, with_total
from aevb.data.guesses import NUMBER as WRITTEN_NUMBER
from aevb.data.likelihoods import measured, suited_count, unfit
from aevb.data.tables import Frame
from aevb.errors import DataError, suggest

FEW = 40  # different whole numbers: so many can be levels
FEW_FRACTIONS = 20  # different numbers with fractions
EACH = 10  # rows that each level has on average, if numbers are levels
RUNNING = 20  # rows from which on different whole numbers without gaps are ids
MANY_WORDS = 3  # in each value, on average: free text
LONG = 40  # characters of a value, on average: free text
LOOKED_AT = 2000  # different words, for what is said of all
MIXED = 0.95  # of the values are numbers: then the others are slips, not levels
DIGITS = 15  # of a number that float64 holds exactly
NUMERIC = ("real", "positive", "bounded", "count", "angle")
PLAIN_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?")
ASKED, TOLD = "asked for", "known from the format"
NOTHING = "no value in any row"
Found = tuple[str, str]  # a kind, and why


def look(frame: Frame, columns: Mapping[str, str] = {}, rows: Array | None = None) -> Schema:
    """The kind of each column, its likelihood and its map, by rule from all rows of the frame.

    Args:
        frame: the table.
        columns: the kinds of columns that are not to be guessed, such as {"age": "count"}; "count:days" is a count
            whose exposure is the column days, and {"total": "exposure:counts"} makes all counts have the total of
            their row.
        rows: the numbers of those rows that give center, scale and likelihood; all of them by default.

    Raises:
        DataError: there is no such column or kind, a column cannot be of the kind, mixes numbers with words or holds
            an infinite number, or the table has no rows.
    """
    if not len(frame):
        raise DataError(f"{frame.name} has no rows.")
    asked = parted(columns)
    frame = alike(frame, asked)
    check_asked(frame, asked.kinds, TOTAL if TOTAL in asked.names else "")
    found = [_column(frame, name, asked.kinds, rows) for name in frame.table.columns]
    whole = with_total(frame, asked, found)
    sums = [replace(_column(whole, TOTAL, {TOTAL: EXPOSURE}, rows), sums=True)] if whole is not frame else []

    @cache
    def numbers(name: str) -> Array:
        return aligned(cells_of(whole, name).of(rows))

    return Schema(tuple(linked(column, asked, found, numbers) for column in [*found, *sums]))


@np.errstate(over="ignore", invalid="ignore")  # of a scale that is infinite `robust` makes 1
def _column(frame: Frame, name: str, columns: Mapping[str, str], rows: Array | None) -> Column:
    asked = columns.get(name, "")
    try:
        cells = numbers_as_text(cells_of(frame, name), asked)
        if asked == EXPOSURE:
            refuse_unexposed(cells, frame.name)
        cells = replace(cells, origin=beyond(cells.numbers)) if cells.form == NUMBER else cells
        found = chosen(cells, asked, frame)
    except DataError:
        if asked not in UNMODELLED:
            raise
        return unmodelled(frame, name, asked)
    kind, why = found
    if fault := unfit(cells, kind):
        raise DataError(f"{frame.name}: column {name!r} cannot be {kind}: {fault}.")
    column = measured(cells, kind, why, cells.of(rows))
    if cells.form == NUMBER and kind not in CODED:
        column = replace(column, decimal=frame.decimals.get(name, ""))
    known = kind == "count" and (asked == kind or why == TOLD) and column.modelled
    return replace(column, likelihood=suited_count(cells.of(rows).floats)) if known else column


def numbers_as_text(cells: Cells, asked: str) -> Cells:
    """Many different words that are numbers, all of them, as numbers; a frame may hold such, a file never does."""
    wanted = asked in NUMERIC or (asked == "" and cells.distinct > FEW)
    if cells.form != WORD or cells.declared or not wanted:
        return cells
    if not all(len(word) <= DIGITS and PLAIN_NUMBER.fullmatch(word) for word in cells.levels):
        return cells
    each = np.array([float(word) for word in cells.levels])
    return replace(cells, form=NUMBER, numbers=each[cells.numbers], levels=())


def chosen(cells: Cells, asked: str, frame: Frame) -> Found:
    """The kind that is asked for, else that which the format tells, else that which the values are of; and why."""
    if not asked and (told := frame.kinds.get(cells.name, "")) and cells.distinct > 1:
        return told, TOLD
    try:
        found = kind_of(cells, frame.name)
    except DataError:
        if not asked:
            raise
        return asked, ASKED
    return found if asked in ("", found[0]) else (asked, ASKED)


def unmodelled(frame: Frame, name: str, kind: str) -> Column:
    """A column that is asked to be left out, whatever it holds."""
    series = frame.table[name]
    dtype, holes = str(series.dtype).partition("(categories")[0], int(series.null_count())
    return Column(name, kind, dtype, ASKED, holes=holes)


def check_asked(frame: Frame, columns: Mapping[str, str], made: str) -> None:
    """Raise DataError for a kind of a column that is not there, nor `made`, or for a kind that does not exist."""
    for name, kind in columns.items():
        if name not in (*frame.table.columns, made):
            raise DataError(f"{frame.name} has no column {name!r}.{suggest(name, frame.table.columns)}")
        if kind not in KINDS:
            raise DataError(f"column {name!r}: there is no kind {kind!r}.{suggest(kind, KINDS)}")


def kind_of(cells: Cells, where: str = "the table") -> Found:
    """The kind of a column, and why."""
    if not len(cells.numbers):
        return ("text", of_other(cells)) if cells.form == OTHER and cells.seen.any() else ("constant", NOTHING)
    if cells.form == OTHER:
        return "text", of_other(cells)
    if cells.distinct == 1:
        return "constant", "one value in all rows" if not cells.holes else "one value wherever there is one"
    if cells.form == DATE:
        return "datetime", "dates and times"
    return kind_of_numbers(cells) if cells.form == NUMBER else kind_of_words(cells, where)


def of_other(cells: Cells) -> str:
    return f"values of the type {cells.dtype}, which are not modelled"


def kind_of_numbers(cells: Cells) -> Found:
    x, n, d = cells.floats, len(cells.numbers), cells.distinct
    low, high = float(x.min()), float(x.max())
    if not is_whole(x):
        return kind_of_fractions(cells, low, high)
    least, most = (f"{x + cells.origin:.15g}" if not cells.origin else str(int(x) + cells.origin) for x in (low, high))
    span = f"whole numbers from {least} to {most}, {d:,} different"
    if d == n >= RUNNING and high - low < 1.5 * n and not cells.holes:
        return "id", f"{span}: another in each row, almost without gaps"
    if d == 2 < n:
        return "binary", f"two numbers, {least} and {most}"
    if d <= FEW and n >= EACH * d:
        return "ordinal", span
    if cells.origin:
        return "real", span
    if low in (0, 1):
        return "count", span
    return ("positive" if low > 0 else "real"), span


def kind_of_fractions(cells: Cells, low: float, high: float) -> Found:
    n, d = len(cells.numbers), cells.distinct
    span = f"numbers from {low:.4g} to {high:.4g}"
    if d == 2 < n:
        return "binary", f"two numbers, {low:g} and {high:g}"
    if d <= FEW_FRACTIONS and n >= 2 * EACH * d:
        return "ordinal", f"{span}, {d} different"
    for top in (1, 100):
        if 0 < low < 0.1 * top and 0.9 * top < high < top:
            return "bounded", f"{span}: strictly between 0 and {top}, and near both"
    return ("positive" if low > 0 else "real"), span


def kind_of_words(cells: Cells, where: str) -> Found:
    if cells.declared:
        return kind_of_levels(cells)
    n, d = len(cells.numbers), cells.distinct
    if cells.dates is not None:
        return "datetime", of_dates(cells, where)
    refuse_mixed(cells, where)
    if d == 2 < n:
        return "binary", f"two words, {cells.levels[0]!r} and {cells.levels[1]!r}"
    some = cells.levels[:: max(1, d // LOOKED_AT)]
    words = sum(word.count(" ") + 1 for word in some) / len(some)
    if d > 0.5 * n > 5 and (words >= MANY_WORDS or sum(map(len, some)) > LONG * len(some)):
        return "text", f"{d:,} different values, of {words:.1f} words on average"
    if d == n > 2:
        return "id", "another word in each row"
    return "categorical", f"words, {d:,} different"


def kind_of_levels(cells: Cells) -> Found:
    n, d = len(cells.numbers), len(cells.levels)
    if cells.ordered:
        return "ordinal", f"levels of an ordered type, {d:,}"
    if cells.distinct == n >= RUNNING:
        return "id", "another level in each row"
    if d == 2:
        return "binary", f"two levels, {cells.levels[0]} and {cells.levels[1]}"
    return "categorical", f"levels of a type, {d:,}"


def of_dates(cells: Cells, where: str) -> str:
    """Why a column of words is one of dates.  DataError: some word is no date."""
    dates = cells.dates
    assert dates is not None
    bad = [cells.levels[i] for i in np.flatnonzero(np.isnan(dates.seconds))]
    if wrong := [word for word in bad if word not in NEVER]:
        name = cells.name
        raise DataError(
            f"{where}: column {name!r} holds dates, but {wrong[0]!r} is not one. Empty the cell, or ask for"
            f" {name}=categorical."
        )
    example = next(word for word in cells.levels if word not in NEVER)
    twofold = f"; {dates.other} would fit as well" if dates.other else ""
    return f"dates such as {example} ({dates.form}){twofold}" + "".join(f"; {w} counts as missing" for w in bad)


def refuse_mixed(cells: Cells, where: str) -> None:
    """Raise DataError where nearly all of many different words are numbers."""
    if cells.distinct <= FEW:
        return
    some = cells.levels[:: max(1, cells.distinct // LOOKED_AT)]
    if sum(WRITTEN_NUMBER.fullmatch(word) is not None for word in some) < (MIXED - 0.05) * len(some):
        return
    wrong = [word for word in cells.levels if not WRITTEN_NUMBER.fullmatch(word)]
    if 0 < len(wrong) <= (1 - MIXED) * len(cells.levels):
        raise DataError(
            f"{where}: column {cells.name!r} mixes numbers with words, such as {wrong[0]!r}. Empty these cells, or"
            f" ask for {cells.name}=categorical."
        )


def is_whole(x: Any) -> bool:
    """Whether all numbers are whole."""
    return bool((x == np.trunc(x)).all())
