"""Tables that are made part by part: kept on disk until all is known, and written as `tables.write_frame` would."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from aevb.data.endings import PARQUET
from aevb.data.room import refuse_above_disk, scratch
from aevb.data.tables import needs_quotes, text_of, text_options

Tables = Callable[[], Iterator[Any]]


class Spool:
    """Arrow tables of one schema, in a file of the folder for such that is gone with this object.

    Args:
        name: what the rows are of, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.writer: Any = None
        self.file = tempfile.NamedTemporaryFile(dir=scratch(), prefix="aevb-")  # noqa: SIM115  # lives on

    def add(self, table: Any) -> None:
        """Keep the next rows."""
        refuse_above_disk(table.nbytes, self.name, "its next rows")
        if self.writer is None:
            self.schema = table.schema
            self.writer = pa.ipc.new_stream(self.file, table.schema)
        self.writer.write_table(table.cast(self.schema).combine_chunks())

    def tables(self) -> Iterator[Any]:
        """The tables in their order; nothing can be added after."""
        if self.writer is not None:
            self.writer.close()
        self.file.flush()
        with pa.OSFile(self.file.name) as file:
            for batch in pa.ipc.open_stream(file):
                yield pa.table(batch)


def write_tables(tables: Tables, path: Path, ending: str) -> None:
    """Write tables of one schema below one another, as .csv, .tsv or Parquet.

    Args:
        tables: gives them, from the first one at each call.
        ending: which of these.
    """
    if ending in PARQUET:
        first = next(tables())
        with pyarrow.parquet.ParquetWriter(path, first.schema) as out:
            for table in tables():
                out.write_table(table)
        return
    between = "\t" if ending == ".tsv" else ","
    options = text_options(between, any(needs_quotes(text_of(table), between) for table in tables()))
    with pyarrow.csv.CSVWriter(path, text_of(next(tables())).schema, write_options=options) as out:
        for table in tables():
            out.write_table(text_of(table))
