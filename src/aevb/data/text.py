"""Text files as columns of words: encoding, separator, header and broken lines are recognised, and said."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from aevb.data.damage import reading
from aevb.data.encodings import encoding_of
from aevb.data.guesses import header, rows_in, separator
from aevb.errors import DataError

PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
Notes = tuple[str, ...]
SAMPLE = 2**18  # bytes that are looked at to recognise the form
WHOLE = 3  # lines that are looked at in any case, however long they are
LOOKED_AT = 1000  # lines of them
CALLED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)", " ": "blanks"}


@dataclass(frozen=True, eq=False)
class Words:
    """The cells of a text file as they stand there, without the blanks around them.

    Attributes:
        names: of the columns; columns: one array of strings each; separator: what stands between them.
        notes: what was recognised, one sentence each.
    """

    names: tuple[str, ...]
    columns: tuple[Any, ...]
    separator: str
    notes: tuple[str, ...]


def read_words(path: Path) -> Words:
    """The columns of a text file.  DataError: it is empty, binary, ragged, or has a header alone."""
    content, notes = decoded(path)
    if not content.strip():
        raise DataError(f"{path} is empty: a table needs a header line and rows.")
    tabs = path.suffix.lower() in (".tsv", ".tab")
    content, notes = trimmed(content, notes, tabs)
    sample = first_lines(content)
    between = separator(sample, tabs)
    refuse_open(path, content, between)
    records = list(islice(rows_in(sample, between, skipinitialspace=True), LOOKED_AT))
    columns = parsed(path, content, between, records)
    names = header(records)
    if names is not None:
        columns = below(path, columns)
        if len(names) == len(columns) - 1:
            columns, names, notes = headless(columns, names, notes)
    called = names or [f"x{i}" for i in range(len(columns))]
    refuse_twice(path, called)
    return Words(tuple(called), tuple(columns), between, (*notes, said(len(columns), between, names is not None)))


def below(path: Path, columns: list[Any]) -> list[Any]:
    """The columns without the header line."""
    if len(columns[0]) < 2:
        raise DataError(f"{path} has a header line and no rows.")
    return [column.slice(1) for column in columns]


def said(columns: int, between: str, named: bool) -> str:
    """How many columns there are, what separates them, and whether they have names."""
    how = f"{columns} columns, separated by {CALLED[between]}" if columns > 1 else "One column"
    last = f" to x{columns - 1}" if columns > 1 else ""
    return f"{how}; {'the first line has the names' if named else f'no line has the names, so they are x0{last}'}."


def headless(columns: list[Any], names: list[str], notes: Notes) -> tuple[list[Any], list[str], Notes]:
    """Where the header line has one name less: lines end in a separator, or the first column has no name (R)."""
    if pc.all(pc.equal(columns[-1], "")).as_py():
        return columns[:-1], names, (*notes, "Lines end in a separator: no column follows it.")
    return columns, ["", *names], (*notes, "The header line has one name less: the first column has no name.")


def refuse_twice(where: object, names: Sequence[str]) -> None:
    """Raise DataError where two columns have one name."""
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise DataError(f"{where} has several columns of the name {twice[0]!r}: give each a name of its own.")


def decoded(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """The text in UTF-8, with line feeds, and what is to be said of its encoding."""
    with reading(path, "a table"):
        content = path.read_bytes()
        if unpack := PACKED.get(path.suffix.lower()):
            content = unpack(content)
    encoding = encoding_of(path, lambda: (content,))
    if encoding != "utf-8":
        with reading(path, f"text in {encoding}"):
            content = content.decode(encoding).encode()
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content, () if encoding in ("utf-8", "utf-8-sig") else (f"The text is read as {encoding}.",)


def trimmed(content: bytes, notes: Notes, tabs: bool = False) -> tuple[bytes, Notes]:
    """With empty lines, so that lines can be counted, for Excel's line «sep=;» and lines of comments at the top.

    A last line such as «#chrom start end», whose words name the columns of the rows below, loses its mark alone.
    """
    lines = content.split(b"\n", 50)
    heads = 0
    while heads < len(lines) - 1 and (lines[heads].startswith(b"#") or (not heads and lines[0][:4] == b"sep=")):
        heads += 1
    if not heads:
        return content, notes
    below = b"\n".join(lines[heads:])
    if name_columns(lines[heads - 1], below, tabs):
        heads -= 1
        mark = b"#" if re.match(rb"# *[,;|\t]", lines[heads]) else b" "  # «#,name» names the first column
        below = b"\n".join([mark + lines[heads][1:], below])
    said = (f"Lines of comments at the top are not read ({heads}).",) if heads else ()
    return b"\n" * heads + below, (*notes, *said)


def name_columns(comment: bytes, below: bytes, tabs: bool) -> bool:
    """Whether a line after a # has a name for each column of rows, which have no names of their own."""
    if not comment.startswith(b"#") or not below.strip():
        return False
    sample = first_lines(below)
    between = separator(sample, tabs)
    if not between:
        return False
    first, *rest = rows_in([f"{comment.decode(errors='replace')}\n", *sample], between, skipinitialspace=True)
    names = [first[0].removeprefix("#").strip(), *map(str.strip, first[1:])]
    names = names[1:] if between == " " and not names[0] else [names[0] or "#", *names[1:]]
    single = len(names) == len(rest[0]) and all(len(name.split()) == 1 for name in names)
    return single and header(rest) is None and header([names, *rest]) is not None


def first_lines(content: bytes) -> list[str]:
    """Some lines at the start, whole ones, `WHOLE` at least, none of them empty."""
    start = len(content) - len(content.lstrip(b"\n"))
    end = start
    for _ in range(WHOLE):
        end = content.find(b"\n", end) + 1 or len(content)
    end = max(end, content.rfind(b"\n", start, SAMPLE) + 1) if len(content) > SAMPLE else len(content)
    lines = content[start:end].decode(errors="replace").split("\n")  # str.splitlines would split cells at U+2028, too
    return [f"{line}\n" for line in lines if line.strip()]  # a cell in quotes may have several


def parsed(path: Path, content: bytes, between: str, records: Sequence[Sequence[str]]) -> list[Any]:
    """The columns as arrays of strings, the header line among them."""
    if between == " ":
        content, between = one_tab(content), "\t"
    quoted = (
        b'"' in content
        and re.search(rf'(^|{re.escape(between or ",")})[ \t]+"'.encode(), content, re.MULTILINE) is not None
    )
    if quoted and between not in ("", "\t"):
        return slowly(path, content, between)
    widths = Counter(map(len, records[1:] or records))
    width = len(records[0]) if len(records[0]) in widths else widths.most_common(1)[0][0]
    return quickly(path, content, between, width, short_header=len(records[0]) == width - 1)


def one_tab(content: bytes) -> bytes:
    """Lines whose words are separated by runs of blanks, separated by one tab each; quoted blanks stay."""
    if b'"' not in content:
        lines = re.sub(rb"[ \t]+", b"\t", content).split(b"\n")
        return b"\n".join(line.strip(b"\t") for line in lines)
    out = io.StringIO()
    lines_ = (" ".join(line.split("\t")).strip() for line in content.decode().split("\n"))
    records = rows_in((line for line in lines_ if line), " ", skipinitialspace=True)
    csv.writer(out, delimiter="\t", lineterminator="\n").writerows(records)
    return out.getvalue().encode()


def quickly(path: Path, content: bytes, between: str, width: int, short_header: bool) -> list[Any]:
    """By Arrow's reader, in all threads; a line of another length is a DataError that counts lines."""
    counted, content = content, content.lstrip(b"\n")
    if short_header:  # the line gets its last separator; `headless` says which name is not there
        content = content.replace(b"\n", (between or ",").encode() + b"\n", 1)
    names = [str(i) for i in range(width)]
    bad: list[Any] = []

    def refuse(row: Any) -> str:
        bad.append(row)
        return "skip"

    read = pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=2**24)
    parse = pyarrow.csv.ParseOptions(
        delimiter=between or "\1",
        newlines_in_values=b'"' in content,
        ignore_empty_lines=width > 1,
        invalid_row_handler=refuse,
    )
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, check_utf8=False
    )
    with reading(path, "a table"):
        table = pyarrow.csv.read_csv(pa.BufferReader(content), read, parse, convert)
    if bad:
        slowly(path, counted, between, width)  # which counts lines, quoted ones too
        raise DataError(
            f"{path}: the line {bad[0].text[:60]!r} has {bad[0].actual_columns} values; others have {width}."
        )
    return [trim(column) for column in table.columns]


def slowly(path: Path, content: bytes, between: str, width: int = 0) -> list[Any]:
    """By Python's reader, which knows quotes that follow a blank, and the number of a line."""
    with reading(path, "a table"):
        reader = rows_in(io.StringIO(content.decode()), between, skipinitialspace=True)
        rows, lines = [], []
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    width = width or len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width and not (row is rows[0] and len(row) == width - 1):
            raise DataError(f"{path}: line {line} has {len(row)} values, but others have {width}.")
    return [trim(pa.array(column, pa.string())) for column in zip(*rows, strict=True)]


def refuse_open(path: Path, content: bytes, between: str) -> None:
    """Raise DataError where a quotation mark opens and never closes, so that the rest of the file would be one cell."""
    if content.count(b'"') % 2:
        try:
            for _ in rows_in(io.StringIO(content.decode()), between, strict=True):
                pass
        except csv.Error as fault:
            if "end of data" in str(fault):
                raise DataError(f"{path}: a quotation mark opens a cell and nothing closes it.") from fault


def trim(column: Any) -> Any:
    return pc.utf8_trim_whitespace(column)
