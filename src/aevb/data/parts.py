"""Tables that are read some rows at a time, to the same values as the whole table: types are those of the whole.

A text file is read twice: first it is seen which type each column has, then the rows are given in these types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet

from aevb.data import text_parts
from aevb.data.columns import Column, Schema
from aevb.data.damage import reading
from aevb.data.dates import read
from aevb.data.endings import PACKED, PARQUET, TEXT, ending_of, is_table
from aevb.data.npfiles import arrays_in
from aevb.data.rules import rules_of
from aevb.data.tables import Frame, batches, frame_of, parquet_in
from aevb.data.text import refuse_twice
from aevb.data.typed import Style
from aevb.data.typing_of_parts import Tally
from aevb.data.writing import form_of

ROWS = 2**16  # of a part, at most
CELLS = 2**22  # of a part, at most
SMALL = 2**24  # bytes of a text file, or 8 times those of a compressed one, that is read as a whole


@dataclass(frozen=True, eq=False)
class Parts:
    """A table in a file.

    Attributes:
        name: what to call it in messages; rows: how many it has.
        tables: gives its rows as Arrow tables of one schema, from the first one at each call.
    """

    name: str
    rows: int
    tables: Callable[[], Iterator[Any]]

    def frames(self, multiple: int = 1) -> Iterator[Frame]:
        """All rows in the file's order, at most `ROWS` at a time.

        Args:
            multiple: how many rows, or twice as many, and so on, each frame but the last has.
        """
        start = 0
        for table in self.tables() if multiple == 1 else in_multiples(self.tables(), multiple):
            step = max(rows_of(table.num_columns) // multiple, 1) * multiple
            for at in range(0, len(table), step):
                part = table.slice(at, step)
                yield replace(frame_of(part, self.name), start=start)
                start += len(part)


def in_multiples(tables: Iterable[Any], rows: int) -> Iterator[Any]:
    """The same rows in tables of which each but the last has a multiple of so many."""
    rest: list[Any] = []
    for table in tables:
        joined = pa.concat_tables([*rest, table]).unify_dictionaries()
        cut = len(joined) // rows * rows
        yield joined.slice(0, cut)
        rest = [joined.slice(cut)]
    yield from rest


def rows_of(columns: int) -> int:
    return max(1, min(ROWS, CELLS // max(columns, 1)))


def parts_of(path: Path, schema: Schema) -> Parts | None:
    """A long table in a file, for a model with this schema; None where it is to be read as a whole.

    Read as a whole are short tables, .npz, .h5ad, the texts that `text_parts.form_of` names, and dates in text that
    are not written as they were in training: how they are written is seen from all of them.

    Raises:
        DataError: it cannot be read; the sentence names the line or column.
    """
    if path.suffix.lower() == ".npy":
        return array(path)
    if not is_table(path):
        return None
    if path.is_dir() or ending_of(path) in PARQUET:
        return parquet(path, schema)
    return text(path, schema) if ending_of(path) in TEXT and is_long(path) else None


def array(path: Path, short: bool = False) -> Parts | None:
    """The rows (N, F) of a .npy, with the columns x0, x1, ... of a table; None of few rows, unless `short`."""
    (x,) = arrays_in(path).values()
    if x.ndim != 2 or not len(x) or (len(x) <= rows_of(x.shape[1]) and not short):
        return None

    def tables() -> Iterator[Any]:
        yield from (frame_of(rows, str(path)).table.to_arrow() for rows in x.rows())

    return Parts(str(path), len(x), tables)


def is_long(path: Path) -> bool:
    return path.stat().st_size * (8 if path.suffix.lower() in PACKED else 1) > SMALL


def text(path: Path, schema: Schema) -> Parts | None:
    form = text_parts.form_of(path)
    try:
        tallies = None if form is None else tallied(form, schema)
    except text_parts.LongRow:
        return None
    if form is None or tallies is None:
        return None
    style = Style.of([tally.readings for tally in tallies], form.between, [tally.rule for tally in tallies])
    meanings = [tally.meaning(style) for tally in tallies]

    def tables() -> Iterator[Any]:
        for columns in form.parts():
            arrays = [meaning.read(words) for meaning, words in zip(meanings, columns, strict=True)]
            yield pa.table(arrays, names=list(form.names))

    return Parts(str(path), tallies[0].rows, tables) if tallies[0].rows else None


def tallied(form: text_parts.Form, schema: Schema) -> list[Tally] | None:
    """What is known of each column after all parts; None where dates are not written as they were in training."""
    dates = {c.name: c for c in schema.model if c.kind == "datetime"}
    tallies = [Tally(rule) for rule in rules_of(schema, form.names)]
    for columns in form.parts():
        for name, tally, words in zip(form.names, tallies, columns, strict=True):
            there = tally.add(words)
            if name in dates and not written_alike(dates[name], there):
                return None
    return tallies


def written_alike(column: Column, words: Any) -> bool:
    """Whether dates in text are written as they were in training."""
    found = pc.drop_null(pc.unique(words)).to_pylist()
    return not np.isnan(read(list(map(str, found)), form_of(column) or "%Y-%m-%d")).any()


def all_written_alike(schema: Schema, names: Sequence[str], tables: Callable[[Sequence[str]], Iterator[Any]]) -> bool:
    """Whether all dates in text are written as they were in training."""
    words = {c.name: c for c in schema.model if c.kind == "datetime" and c.name in names and form_of(c)}
    parts = tables(list(words)) if words else ()
    return all(written_alike(column, table[name]) for table in parts for name, column in words.items())


def parquet(path: Path, schema: Schema) -> Parts | None:
    with reading(path, "a Parquet file" if path.is_file() else "a folder of Parquet files"):
        found = parquet_in(path)
        names, rows = found.schema.names, found.count_rows()
    refuse_twice(path, names)
    if rows <= rows_of(len(names)):
        return None

    def tables(columns: Sequence[str] | None = None) -> Iterator[Any]:
        with reading(path, "a Parquet table"):
            yield from map(pa.table, batches(found, columns, rows_of(len(names))))

    return Parts(str(path), rows, tables) if all_written_alike(schema, names, tables) else None
