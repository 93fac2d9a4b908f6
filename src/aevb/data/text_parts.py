"""Text files part by part: their form is decided once, from the whole file, and holds for every part."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv

from aevb.data.damage import reading
from aevb.data.encodings import encoding_of
from aevb.data.guesses import header, rows_in, separator
from aevb.data.room import refuse_above_disk, scratch
from aevb.data.text import LOOKED_AT, SAMPLE, first_lines, refuse_twice, trim, trimmed
from aevb.errors import DataError

OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BLOCK = 2**20  # bytes that Arrow's reader looks at together, of which it reads 32 ahead: no row may be longer
PIECE = 2**22  # bytes, or characters, that are copied at a time


class LongRow(DataError):
    """A row is longer than `BLOCK`, so that the file can be read only as a whole."""


@dataclass(frozen=True, eq=False)
class Form:
    """A text file whose form is known.

    Attributes:
        path: the file; copy: its text in UTF-8 with line feeds, in a file that goes with this object.
        start: where the first line is that is no comment; between: what separates columns.
        names: of the columns; named: whether the first line has them; quoted: whether there are quotes.
    """

    path: Path
    copy: Any
    start: int
    between: str
    names: tuple[str, ...]
    named: bool
    quoted: bool

    def parts(self) -> Iterator[list[Any]]:
        """The columns as arrays of words, some rows at a time.  DataError where a line has another length; LongRow."""
        bad: list[Any] = []

        def refuse(row: Any) -> str:
            bad.append(row)
            return "skip"

        first = self.named
        with Path(self.copy.name).open("rb") as file, reading(self.path, "a table"):
            file.seek(self.start)
            for batch in self.batches(file, refuse):
                if bad:
                    raise self.ragged(bad[0])
                columns = [trim(column) for column in batch.columns]
                yield [column.slice(1) for column in columns] if first else columns
                first = False
        if bad:
            raise self.ragged(bad[0])

    def batches(self, file: IO[bytes], refuse: Any) -> Iterator[Any]:
        try:
            yield from self.reader(file, refuse)
        except pa.ArrowInvalid as fault:
            if "straddling" not in str(fault):
                raise
            raise LongRow(f"{self.path} has a row of more than {BLOCK:,} bytes.") from fault

    def reader(self, file: IO[bytes], refuse: Any) -> Any:
        names = [str(i) for i in range(len(self.names))]
        return pyarrow.csv.open_csv(
            file,
            pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=BLOCK),
            pyarrow.csv.ParseOptions(
                delimiter=self.between or "\1",
                newlines_in_values=self.quoted,
                ignore_empty_lines=len(names) > 1,
                invalid_row_handler=refuse,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, check_utf8=False
            ),
        )

    def ragged(self, row: Any) -> DataError:
        """What to say of the first line of another length, whose number is counted anew, with lines in quotes."""
        width = len(self.names)
        with Path(self.copy.name).open("rb") as file:
            above, text = file.read(self.start).count(b"\n"), io.TextIOWrapper(file, encoding="utf-8", newline="\n")
            lines = rows_in(text, self.between, skipinitialspace=True)
            for values in lines:
                if values and len(values) != width:
                    line = above + lines.line_num
                    return DataError(f"{self.path}: line {line} has {len(values)} values, but others have {width}.")
        return DataError(
            f"{self.path}: the line {row.text[:60]!r} has {row.actual_columns} values; others have {width}."
        )


def form_of(path: Path) -> Form | None:
    """The form of a text file as `read_words` sees it; None of one that can be read only as a whole.

    Those are files whose columns are separated by blanks, whose header line has one name less, with quotes behind
    blanks, and with an odd number of quotes.
    """
    copy = utf8(path)
    with mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ) as content:
        head = content[: 4 * SAMPLE]
        tabs = path.suffix.lower() in (".tsv", ".tab")
        below = trimmed(head, (), tabs)[0]
        sample = first_lines(below)
        between = separator(sample, tabs)
        records = list(islice(rows_in(sample, between, skipinitialspace=True), LOOKED_AT))
        widths = Counter(map(len, records[1:] or records))
        width = len(records[0]) if len(records[0]) in widths else widths.most_common(1)[0][0]
        quoted = content.find(b'"') >= 0
        if between == " " or len(records[0]) != width or (quoted and loose(content, between)):
            return None
    names, start = header(records), len(head) - len(below.lstrip(b"\n"))
    called = tuple(names or [f"x{i}" for i in range(width)])
    refuse_twice(path, called)
    return Form(path, copy, start, between, called, names is not None, quoted)


def loose(content: Any, between: str) -> bool:
    """Whether quotes follow blanks, or one of them is never closed."""
    behind = re.search(rf'(^|{re.escape(between or ",")})[ \t]+"'.encode(), content, re.MULTILINE)
    odd = sum(content[i : i + PIECE].count(b'"') for i in range(0, len(content), PIECE)) % 2
    return bool(odd) or (behind is not None and between not in ("", "\t"))


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked."""
    file: IO[bytes] = OPENERS.get(path.suffix.lower(), open)(path, "rb")
    return file


def utf8(path: Path) -> Any:
    """A copy of a text file in UTF-8 with line feeds, on disk, which is gone when it is closed."""
    encoding = encoding_in(path)
    refuse_above_disk(path.stat().st_size, path, "its text")
    copy = tempfile.NamedTemporaryFile(dir=scratch(), prefix="aevb-")  # noqa: SIM115  # lives on in a Form
    with reading(path, f"text in {encoding}"), opened(path) as file:
        text = io.TextIOWrapper(file, encoding=encoding, newline=None)
        while piece := text.read(PIECE):
            copy.write(piece.encode())
    copy.flush()
    return copy


def encoding_in(path: Path) -> str:
    """The encoding of a file, found without keeping it.  DataError where this is no text."""

    def pieces() -> Iterator[bytes]:
        with opened(path) as file:
            while piece := file.read(PIECE):
                yield piece

    with reading(path, "a table"):
        return encoding_of(path, pieces)
