"""Frames as stored numbers, and stored numbers as frames: nothing of a frame's own cells, types or order is lost.

Stored is one float64 for each modelled column and row, NaN where it is missing.  N: rows; F: modelled columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aevb.data.cells import DATE, NUMBER, WORD, Cells, cells_of, less
from aevb.data.columns import BELOW, CODED, EXPOSURE, Column, Schema
from aevb.data.dates import NEVER, read, span
from aevb.data.exposures import refuse_unexposed, summed
from aevb.data.images import few
from aevb.data.room import room
from aevb.data.tables import Frame, is_text
from aevb.data.writing import TRUTHS, array_named, array_of, form_of, patched, series_like, truths
from aevb.errors import DataError

Numbers = NDArray[np.float64]
WHOLE = re.compile(r"([+-]?\d+)\.0+")  # as pandas writes whole numbers of a column with holes


def stored(schema: Schema, frame: Frame) -> tuple[Numbers, list[str]]:
    """The stored numbers (N, F) of a frame, and what is to be said of it: new categories, new holes, other columns.

    The order of columns does not count. A category that was not there in training has a code of its own,
    the one behind all levels: a level that no training row has.
    Raises DataError where a modelled column is not there, or holds what is none of its kind.
    """
    notes = compared(schema, frame)
    out = room((len(frame), len(schema.modelled)), np.float64, frame.name, f"{len(frame):,} rows of float64")
    for place, column in enumerate(schema.model):
        if column.sums:
            continue
        cells = cells_of(frame, column.name)
        if column.kind == EXPOSURE:
            refuse_unexposed(cells, frame.name, frame.start)
        numbers, said = numbers_in(column, cells, frame.name)
        refuse_beyond(column, numbers, cells, frame)
        out[:, place] = np.nan
        out[cells.seen, place] = numbers
        notes += [f"{frame.name}: column {column.name!r}: {words}" for words in said]
        if cells.holes and not column.holes:
            notes.append(f"{frame.name}: column {column.name!r} has {cells.holes:,} holes; in training it had none.")
    summed(schema, out, frame)
    return out, notes


def refuse_beyond(column: Column, numbers: Numbers, cells: Cells, frame: Frame) -> None:
    """Raise DataError where a number is infinite as the model reads it, in float32; maps of columns are monotone."""
    import torch

    if np.isnan(numbers).all():  # dates that mean none
        return
    ends = [int(np.nanargmin(numbers)), int(np.nanargmax(numbers))]
    wrong = ~column.numbers(torch.from_numpy(numbers[ends])).float().isfinite()
    if wrong.any():
        one = ends[int(wrong.nonzero()[0])]
        row = frame.start + int(np.flatnonzero(cells.seen)[one])
        raise DataError(
            f"{frame.name}: column {column.name!r} holds {numbers[one]:g} (row {row}, counted from 0), which the model"
            f" cannot read beside numbers of the scale {column.scale:g}. Empty the cell, or ask for {column.name}=id,"
            " which leaves the column out."
        )


def compared(schema: Schema, frame: Frame) -> list[str]:
    """What is to be said of the columns that are there.  DataError where a modelled one is not."""
    columns = [column for column in schema.columns if not column.sums]
    here, known = set(frame.table.columns), {column.name for column in columns}
    lacking = [column.name for column in columns if column.modelled and column.name not in here]
    refuse_lacking(frame.name, lacking, sorted(here))
    extra = [name for name in frame.table.columns if name not in known]
    gone = [column.name for column in columns if column.name not in here]
    notes = [f"{frame.name}: not known from training, and not read: {few(extra)}."] if extra else []
    return [*notes, f"{frame.name}: missing, and not needed: {few(gone)}."] if gone else notes


def refuse_lacking(where: str, lacking: list[str], here: list[str]) -> None:
    """Raise DataError where columns that the model reads are not there."""
    if lacking:
        more = f" and {len(lacking) - 1} more columns" if len(lacking) > 1 else ""
        raise DataError(f"{where} lacks the column {lacking[0]!r}{more}, which the model reads. It has {few(here)}.")


def numbers_in(column: Column, cells: Cells, where: str) -> tuple[Numbers, list[str]]:
    """The stored numbers of the cells that are there, and what is to be said of them."""
    if not len(cells.numbers):
        return np.zeros(0), []
    if column.kind in CODED:
        return codes_in(column, cells)
    if column.kind == "datetime":
        return seconds_in(column, cells, where)
    x = plain_numbers(column, cells, where)
    if column.kind == "count":
        refuse_no_count(column, x, where)
    if column.kind == "angle":
        start, period = column.levels
        turned = (x - start) / period * 2 * math.pi
        return np.pi - (np.pi - turned) % (2 * np.pi), []
    return x, outside(column, x)


def refuse_no_count(column: Column, x: Numbers, where: str) -> None:
    """Raise DataError where some number is negative or no whole one."""
    wrong = x[(x < 0) | (x != np.trunc(x))]
    if len(wrong):
        raise DataError(
            f"{where}: column {column.name!r} holds {wrong[0]:g}, but counts in training. Empty the cell, or train with"
            f" --column {column.name}=real."
        )


def outside(column: Column, x: Numbers) -> list[str]:
    """What is to be said of numbers that a logarithm or a logit does not have."""
    low, high = column.open_ends
    if column.map == "log":
        out, above = x[x <= 0], f"above 0, as all were in training; it counts as {BELOW * (column.low or 1):g}"
    else:
        out, above = x[(x < low) | (x > high)], f"between {low:g} and {high:g}; it counts as the nearest that is"
    return [f"{out[0]:g} is not {above} ({len(out):,} rows)."] if len(out) else []


def plain_numbers(column: Column, cells: Cells, where: str) -> Numbers:
    """Numbers; words that are numbers count as such.  DataError for others."""
    if cells.form == NUMBER:
        return less(cells.numbers, column.origin)
    if cells.form == WORD and set(cells.levels) <= {False, True}:
        return cells.numbers.astype(np.float64)
    if cells.form == WORD:
        timed = column.dtype.startswith(("Duration", "Time"))
        each = np.array([number_named(level, column.origin, timed) for level in cells.levels])
        if np.isnan(each).any():
            wrong = cells.levels[int(np.isnan(each).argmax())]
            raise DataError(
                f"{where}: column {column.name!r} holds {wrong!r}, but numbers in training. Empty the cell."
            )
        return each[cells.numbers]
    raise DataError(f"{where}: column {column.name!r} is of the type {cells.dtype}, but held numbers in training.")


def number_named(word: Any, origin: int, timed: bool) -> float:
    """The number that a word is, less an origin, or the seconds of a time; NaN where it is none."""
    with suppress(ValueError):
        return number_in(word, origin)
    with suppress(ValueError):
        return span(word) if timed else math.nan
    return math.nan


def number_in(word: Any, origin: int) -> float:
    """The number that a word is, less an origin.  ValueError: it is none."""
    try:
        return float(int(word) - origin)
    except (ValueError, OverflowError):
        return float(word) - origin


def seconds_in(column: Column, cells: Cells, where: str) -> tuple[Numbers, list[str]]:
    """Seconds since 1970 of dates, and in which form those are read that could be read otherwise.

    Raises DataError where some are none.
    """
    if cells.form == DATE:
        return cells.floats, []
    if cells.form != WORD:
        raise DataError(f"{where}: column {column.name!r} is of the type {cells.dtype}, but held dates in training.")
    words, notes = list(map(str, cells.levels)), []
    each = read(words, form_of(column) or "%Y-%m-%d")
    dates = cells.dates if np.isnan(each).any() else None
    if dates is not None and not (np.isnan(dates.seconds) & [word not in NEVER for word in words]).any():
        each = dates.seconds
        if dates.other:
            notes = [f"dates such as {words[0]} are read as {dates.form}; {dates.other} would fit as well."]
    wrong = [word for word, s in zip(words, each, strict=True) if np.isnan(s) and word not in NEVER]
    if wrong:
        raise DataError(f"{where}: column {column.name!r} holds {wrong[0]!r}, but dates in training. Empty the cell.")
    return each[cells.numbers], notes


def codes_in(column: Column, cells: Cells) -> tuple[Numbers, list[str]]:
    """The codes of levels; for what is none of them the number of levels."""
    codes = codes_of(column)
    if cells.form == WORD:
        found, which = list(cells.levels), cells.numbers
    else:
        numbers_found, which = np.unique(cells.numbers, return_inverse=True)
        found = numbers_found.tolist()
    if truths(column.levels) and set(found) <= {0, 1}:
        found = [bool(value) for value in found]
    each = np.array([code_of(value, codes) for value in found], np.float64)
    numbers = each[which]
    unseen = np.unique(cells.numbers[np.isnan(numbers)])
    if not len(unseen):
        return numbers, []
    names = [str(found[int(v)]) for v in unseen] if cells.form == WORD else list(map(shown, unseen.tolist()))
    rows = int(np.isnan(numbers).sum())
    said = f"{few(names)} did not occur in training ({rows:,} rows), so it is improbable; it is kept in the table."
    return np.where(np.isnan(numbers), len(column.levels), numbers), [said]


def codes_of(column: Column) -> dict[Any, float]:
    """The code of each level, by its `keys`."""
    return {key: float(code) for code, level in reversed(list(enumerate(column.levels))) for key in keys(level)}


def shown(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.15g}"


def code_of(value: Any, codes: Mapping[Any, float]) -> float:
    found = next((codes[key] for key in keys(value) if key in codes), math.nan)
    if math.isnan(found) and isinstance(value, str) and (whole := WHOLE.fullmatch(value.strip())):
        return codes.get(whole[1], math.nan)
    return found


def keys(level: Any) -> tuple[Any, ...]:
    """By which a level is found again: itself, or in another type (1, 1.0 and "1"; True and "TRUE")."""
    if isinstance(level, bool):
        return (f"={level}", str(level).lower())
    if isinstance(level, int | float):
        word = str(int(level)) if math.isfinite(level) and level == int(level) else repr(float(level))
        return (f"={word}", word)
    word = str(level).strip()
    return (f"={level}", word.lower() if word.lower() in TRUTHS else word)


def filled(schema: Schema, frame: Frame, stored: Numbers) -> Frame:
    """The frame, the holes of its modelled columns filled from stored numbers (N, F).

    Cells that are there stay as they are, bit for bit; so do columns that are not modelled, types, order and index. A
    NaN leaves its hole.
    """
    table = frame.table
    for place, column in enumerate(schema.model):
        if column.sums:
            continue
        holes = ~seen_in(frame, column.name, NEVER if column.kind == "datetime" else ())
        if holes.any():
            new = array_like(column, np.where(holes, stored[:, place], np.nan), frame)
            table = table.with_columns(patched(table[column.name], holes, new))
    return replace(frame, table=table)


def seen_in(frame: Frame, name: str, never: Iterable[str] = ()) -> NDArray[np.bool_]:
    """Which cells of a column are there; words of `never` are not."""
    array = frame.arrow(name)
    seen = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), bool)
    if never and is_text(array.type):
        seen &= ~np.asarray(pc.is_in(array, value_set=pa.array(sorted(never), array.type)), bool)
    if pa.types.is_floating(array.type):
        seen &= ~np.isnan(np.asarray(array.fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64))
    return seen


def made(schema: Schema, stored: Numbers, like: Frame | None = None, first: int = 0) -> Frame:
    """A new frame of stored numbers (N, F), with the types of the source.

    An id is a running number, text is missing, a constant is itself. Totals of counts are no column of it.

    Args:
        schema: of the source.
        stored: (N, F).
        like: a frame of the source, which need have no rows: the library and the exact types; else Arrow's.
        first: how many rows are before these.
    """
    places = {position: place for place, position in enumerate(schema.modelled)}
    rows = np.arange(first, first + len(stored), dtype=np.float64)
    own = [(position, column) for position, column in enumerate(schema.columns) if not column.sums]
    names = [column.name for _, column in own]
    numbers = [stored[:, places[position]] if position in places else rows for position, _ in own]
    arrays = [array_like(column, x, like) for (_, column), x in zip(own, numbers, strict=True)]
    if like is None:
        return Frame("new rows", nw.from_native(pa.table(arrays, names=names), eager_only=True))
    columns = [fresh(like, name, array) for name, array in zip(names, arrays, strict=True)]
    table = nw.concat([column.to_frame() for column in columns], how="horizontal")
    return replace(like, name="new rows", notes=(), table=table)


def array_like(column: Column, numbers: Numbers, like: Frame | None) -> Any:
    """Stored numbers of a column as Arrow has them, of the type that they have in a frame, if it has the column."""
    if like is None or column.name not in like.table.columns:
        return array_named(column, numbers)
    kind = like.arrow(column.name).type
    if pa.types.is_null(kind):
        return array_named(column, numbers)
    return array_of(as_text_in(like, column) if is_text(kind) else column, numbers, kind)


def as_text_in(frame: Frame, column: Column) -> Column:
    """The column with dates and levels written as a frame writes them, in which it is text."""
    if column.kind == "datetime":
        return replace(column, dtype=f"String(format={form_in(frame, column)!r})")
    if column.kind not in CODED:
        return column
    codes, found = codes_of(column), cells_of(frame, column.name).levels
    own = {code_of(word, codes): word for word in reversed(found)}
    levels = [own.get(code, level) for code, level in enumerate(column.levels)]
    if truths(column.levels):
        style = next((way for way in (str.upper, str.lower) if found and all(way(word) == word for word in found)), str)
        levels = [style(str(level)) for level in levels]
    return replace(column, levels=tuple(levels))


def form_in(frame: Frame, column: Column) -> str:
    """In which form a frame writes dates, as text: that of training, if all are of this form."""
    trained, cells = form_of(column), cells_of(frame, column.name)
    words = list(map(str, cells.levels))
    if trained and not np.isnan(read(words, trained)).any():
        return trained
    if words and cells.dates is not None:
        return cells.dates.form
    days = column.dtype == "Date" or (column.multiple and column.multiple % 86_400 == 0)
    return trained or ("%Y-%m-%d" if days else "%Y-%m-%d %H:%M:%S")


def fresh(like: Frame, name: str, array: Any) -> Any:
    """An Arrow array as a column of the library of another frame, and of the type that it has there."""
    if name in like.table.columns:
        return nw.from_native(series_like(array, like.table[name]), series_only=True).alias(name)
    backend = like.table.implementation
    return nw.new_series(name, array.to_pylist(), backend=backend)
