"""Tables as users hold them: files and frames, read into one form and given back in theirs."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet

from aevb.data.addresses import reaching
from aevb.data.columns import Schema
from aevb.data.damage import reading
from aevb.data.endings import PARQUET, ending_of, visible
from aevb.data.room import fits, refuse_above_disk, scratch
from aevb.data.rules import rules_of
from aevb.data.text import read_words, refuse_twice
from aevb.data.typed import all_typed, said
from aevb.data.walk import passed
from aevb.errors import DataError

Table = nw.DataFrame[Any]
ROWS = 65_536  # of a batch of Parquet
WORD = 16  # bytes that are taken for a text, whose length no type tells
BUFFER = 2**20  # bytes of a column of a Parquet file that are read at a time
PACKED = 4  # times that a table in memory may be larger than in Parquet


def native(table: Table) -> Any:
    """The frame of the user's own library."""
    return table.to_native()


@dataclass(frozen=True, eq=False)
class Frame:
    """A table, in the library that its user chose.

    Attributes:
        name: what to call it in messages.
        table: its columns, whose names are strings.
        notes: what was recognised in reading it, one sentence each.
        kinds: of columns whose kind the format itself tells.
        back: gives `table`, or one like it, the form in which it came.
        start: the number of its first row in the source, where it is a part of one.
        matrix: whether it is an array, whose columns are alike.
        decimals: the mark before the fraction in columns of numbers of a text file, where it is known.
    """

    name: str
    table: Table
    notes: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    back: Callable[[Table], Any] = native
    start: int = 0
    matrix: bool = False
    decimals: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def native(self) -> Any:
        """The table in the form in which it came: a frame of pandas, polars or Arrow, a dict, or an array."""
        return self.back(self.table)

    def arrow(self, name: str) -> Any:
        """A column as one Arrow array.  DataError where its values are of several types."""
        try:
            column = self.table[name].to_arrow()
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as fault:
            raise DataError(f"{self.name}: column {name!r} {types_in(self.table[name])}.") from fault
        return plain(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)


def plain(column: Any) -> Any:
    """A column without views and without runs, with which Arrow cannot compute; other columns as they are."""
    kind = column.type
    if pa.types.is_run_end_encoded(kind):
        parts = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return pa.chunked_array([pc.run_end_decode(part) for part in parts], kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary())
    return column


def types_in(column: Any) -> str:
    """What is wrong with a column of which Arrow can make none."""
    kinds = sorted({type(value).__name__ for value in column.to_list() if value is not None and value == value})
    if len(kinds) > 1:
        return f"mixes values of several types ({', '.join(kinds[:4])}). Make them one"
    return f"holds values of the type {getattr(column.to_native(), 'dtype', kinds)}, which cannot be read. Convert it"


@reaching
def read_frame(source: str | Path, schema: Schema | None = None) -> Frame:
    """The table in a file: CSV or other text, Parquet (a file, or a folder of such), .npy, .npz or .h5ad.

    Args:
        source: the file.
        schema: of a trained model: words of a text file then mean what they meant in training.

    Raises:
        DataError: there is none, or it cannot be read; the sentence names the file, and the line or column.
    """
    path = Path(source).expanduser()
    ending = ending_of(path)
    if not path.exists():
        raise DataError(f"there is no file {str(source)!r}.")
    if path.is_dir() or ending in PARQUET:
        return _parquet(path)
    if ending in (".npy", ".npz"):
        return _array(path)
    if ending == ".h5ad":
        from aevb.data.counts import read_counts

        table, kinds, notes = read_counts(path)
        return Frame(str(path), _arrow(table), notes, kinds)
    return _text(path, schema)


def _text(path: Path, schema: Schema | None) -> Frame:
    words = read_words(path)
    rules = () if schema is None else rules_of(schema, words.names)
    columns = all_typed(words.columns, words.separator, rules)
    table = pa.table([column.values for column in columns], names=list(words.names))
    decimals = {name: column.decimal for name, column in zip(words.names, columns, strict=True) if column.decimal}
    return Frame(str(path), _arrow(table), (*words.notes, *said(columns)), decimals=decimals)


def _parquet(path: Path) -> Frame:
    with reading(path, "a Parquet file" if path.is_file() else "a folder of Parquet files"):
        if path.is_file():
            file = pyarrow.parquet.ParquetFile(path)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            encoded = sum(group.total_byte_size for group in groups)
            size = max(file.metadata.num_rows * width_of(file.schema_arrow), encoded)
            table = file.read() if fits(size) else in_a_map(pyarrow.dataset.dataset(path, format="parquet"), path)
        else:
            found = parquet_in(path)
            packed = sum(Path(file).stat().st_size for file in found.files)
            small = fits(max(found.count_rows() * width_of(found.schema), packed * PACKED))
            table = found.to_table() if small else in_a_map(found, path)
    notes = (f"{len(table.column_names)} columns of a Parquet table.",)
    return replace(_of_arrow(table, str(path)), notes=notes, back=native)


def width_of(schema: Any) -> int:
    """Bytes of a row in memory, by the types of its columns."""

    def of(kind: Any) -> int:
        if pa.types.is_dictionary(kind):
            return of(kind.index_type)
        if pa.types.is_struct(kind):
            return sum(of(kind.field(i).type) for i in range(kind.num_fields))
        try:
            return max(int(kind.bit_width) // 8, 1)
        except ValueError:
            return WORD

    return sum(of(field.type) for field in schema)


def parquet_in(path: Path) -> Any:
    """The Parquet file at a path, or all in a folder, as one data set with the columns of all.

    Folders such as year=2020 are a column year, if no file has one. Files and folders whose names begin with "." or "_"
    are left out where there are others, as pyarrow leaves them out. Of types that differ it is the one that holds both,
    such as floats of whole numbers, or else that of the first file.
    """
    if path.is_file():
        return pyarrow.dataset.dataset(path, format="parquet")
    found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in PARQUET and file.is_file()]
    files = [str(file) for file in found if visible(file, path)] or list(map(str, found))
    if not files:
        return pyarrow.dataset.dataset(path, format="parquet")
    how: dict[str, Any] = {"format": "parquet", "partitioning": "hive", "partition_base_dir": str(path)}
    schemas = [pyarrow.parquet.read_schema(file) for file in files]
    fields = {name for each in schemas for name in each.names}
    in_names = {part.partition("=")[0] for file in files for part in Path(file).relative_to(path).parts[:-1]}
    if not in_names.isdisjoint(fields):
        how = {"format": "parquet"}
    schema = reduce(_both, schemas, pyarrow.dataset.dataset(files, **how).schema)
    return pyarrow.dataset.dataset(files, schema=schema, **how)


def _both(schema: Any, other: Any) -> Any:
    """The fields of two schemas; of a field with two types the one that holds both, or else the first."""
    for new in other:
        place = schema.get_field_index(new.name)
        if place < 0:
            schema = schema.append(new)
            continue
        with suppress(pa.ArrowTypeError, pa.ArrowInvalid):
            each = [pa.schema([one]) for one in (schema.field(place), new)]
            schema = schema.set(place, pa.unify_schemas(each, promote_options="permissive").field(0))
    return schema


def batches(found: Any, columns: Sequence[str] | None = None, rows: int = ROWS) -> Iterator[Any]:
    """Of a Parquet data set, one group of rows in memory at a time; else Arrow keeps what it has read of the file."""
    buffered = {"use_buffered_stream": True, "buffer_size": BUFFER}  # else a whole group is read at once
    options = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False, **buffered)
    one = {"batch_readahead": 1, "use_threads": False, "fragment_scan_options": options}
    for fragment in found.get_fragments():
        for group in fragment.split_by_row_group():
            yield from group.to_batches(schema=found.schema, columns=columns, batch_size=rows, **one)


def in_a_map(found: Any, path: Path) -> Any:
    """The table of a Parquet data set, in an Arrow stream on disk that has no name, read as a memory map."""
    with tempfile.NamedTemporaryFile(dir=scratch(), prefix="aevb-") as file:
        with pa.ipc.new_stream(file, found.schema) as out:
            for batch in passed(batches(found), found.count_rows()):
                refuse_above_disk(batch.nbytes, path, "its next rows")
                out.write_batch(batch)
        file.flush()
        return pa.ipc.open_stream(pa.memory_map(file.name)).read_all()  # the map outlives the name


def _array(path: Path) -> Frame:
    from aevb.data.arrays import only
    from aevb.data.npfiles import arrays_in

    arrays = arrays_in(path)
    name = "X" if "X" in arrays else "x" if "x" in arrays else only(arrays, path)
    notes = (f"The array {other} is not a column." for other in arrays if other != name)
    frame = frame_of(arrays[name].whole(path), str(path))
    return replace(frame, notes=(*frame.notes, *notes))


def _arrow(table: Any) -> Table:
    return nw.from_native(table, eager_only=True)


def frame_of(data: Any, name: str = "the table") -> Frame:
    """A user's own table: a frame of pandas, polars or Arrow, a dict of columns, or an array (N, F).

    Raises:
        DataError: it is none of these, two columns have one name, or it has no column.
    """
    if isinstance(data, Frame):
        return data
    frame = _framed(data, name)
    if not frame.table.columns:
        raise DataError(f"{name} has no columns.")
    return frame


def _framed(data: Any, name: str) -> Frame:
    if isinstance(data, Mapping):
        return _of_dict(data, name)
    if hasattr(data, "iloc"):
        return _of_pandas(data, name)
    if isinstance(data, pa.Table | pa.RecordBatch):
        return _of_arrow(data if isinstance(data, pa.Table) else pa.table(data), name)
    if hasattr(data, "collect") and hasattr(data, "lazy"):  # polars, lazy
        return Frame(name, nw.from_native(data.collect(), eager_only=True))
    try:
        return Frame(name, nw.from_native(data, eager_only=True))
    except TypeError:
        return _of_array(data, name)


def _of_arrow(data: Any, name: str) -> Frame:
    """With columns with which Arrow can compute; the types of the table come back with it."""
    refuse_twice(name, data.column_names)
    changed = {field.name: field.type for field in data.schema if plain(pa.nulls(0, field.type)).type != field.type}
    if not changed:
        return Frame(name, _arrow(data))
    columns = [plain(column) for column in data.columns]

    def back(table: Table) -> Any:
        out = table.to_native()
        for place, column in enumerate(out.column_names):
            if column in changed:
                out = out.set_column(place, column, in_form(out.column(place), changed[column]))
        return out

    return Frame(name, _arrow(pa.table(columns, names=data.column_names)), back=back)


def in_form(column: Any, kind: Any) -> Any:
    """A plain column as views or as runs."""
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_encode(column, run_end_type=kind.run_end_type)
    return column.cast(kind)


def _of_pandas(data: Any, name: str) -> Frame:
    """With names that are strings, and intervals that are words; those of the frame come back with it."""
    names = [str(c) for c in data.columns]
    refuse_twice(name, names)
    if intervals := _intervals(data):
        frame = _of_pandas(_renamed(data, {c: {i: str(i) for i in each} for c, each in intervals.items()}), name)
        own = {c: {str(i): i for i in each} for c, each in intervals.items()}
        return replace(frame, back=lambda table: _renamed(frame.back(table), own))
    if all(isinstance(c, str) for c in data.columns):
        return Frame(name, nw.from_native(data, eager_only=True))
    labels = dict(zip(names, data.columns, strict=True))

    def back(table: Table) -> Any:
        out = table.to_native()
        return out.set_axis(data.columns if list(out.columns) == names else [labels.get(c, c) for c in out], axis=1)

    return Frame(name, nw.from_native(data.set_axis(names, axis=1), eager_only=True), back=back)


def _intervals(data: Any) -> dict[Any, list[Any]]:
    """The levels of columns of pandas, such as `pd.cut` makes, which are intervals."""
    kinds: dict[Any, Any] = {c: getattr(dtype, "categories", None) for c, dtype in data.dtypes.items()}
    return {c: list(levels) for c, levels in kinds.items() if str(getattr(levels, "dtype", "")).startswith("interval")}


def _renamed(data: Any, levels: Mapping[Any, Mapping[Any, Any]]) -> Any:
    """With other names for the levels of some columns."""
    out = data.copy(deep=False)
    for column, names in levels.items():
        if column in out.columns:
            out[column] = out[column].cat.rename_categories(names)
    return out


def _of_dict(data: Mapping[Any, Any], name: str) -> Frame:
    refuse_twice(name, [str(c) for c in data])
    lengths = {str(c): len(values) for c, values in data.items()}
    if len(set(lengths.values())) > 1:
        short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise DataError(f"{name}: column {short!r} has {lengths[short]} rows, but {long!r} has {lengths[long]}.")
    arrays = {str(c): _arrow_array(name, str(c), values) for c, values in data.items()}
    return Frame(name, _arrow(pa.table(arrays)), back=lambda table: table.to_dict(as_series=False))


def _arrow_array(where: str, name: str, values: Any) -> Any:
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as fault:
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        raise DataError(
            f"{where}: column {name!r} mixes values of several types ({', '.join(kinds[:4])}). Make them one type."
        ) from fault


def _of_array(data: Any, name: str) -> Frame:
    x = np.asarray(data)
    if x.dtype.names:
        return _of_dict({field: x[field] for field in x.dtype.names}, name)
    if x.ndim == 1 and x.dtype.kind in "biufUSO" and len(x):
        x = x[:, None]
    if x.ndim != 2 or x.dtype.kind not in "biufUSOM":
        raise DataError(
            f"{name}: a table is needed: a frame, a dict of columns, or an array (N, F); got {_what(data)}."
        )
    known = x.astype(arrow_type(x.dtype), copy=False)
    columns = {f"x{i}": _arrow_array(name, f"x{i}", np.ascontiguousarray(column)) for i, column in enumerate(known.T)}

    def back(table: Table) -> Any:
        return np.stack([column.to_numpy() for column in table.iter_columns()], -1).astype(x.dtype)

    return Frame(name, _arrow(pa.table(columns)), back=back, matrix=True)


def arrow_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of NumPy's nearest to one that Arrow knows: of this machine's byte order, float64 of longer ones."""
    return np.dtype(np.float64) if dtype.kind == "f" and dtype.itemsize > 8 else dtype.newbyteorder("=")


def _what(data: Any) -> str:
    shape = getattr(data, "shape", None)
    return f"{type(data).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}"


def write_frame(frame: Frame, path: Path | str, ending: str = "") -> None:
    """Write the table as CSV, TSV or Parquet, by `ending` or else the suffix.  DataError: another suffix."""
    path, ending = Path(path), (ending or Path(path).suffix).lower()
    table = frame.table.to_arrow()
    if ending in PARQUET:
        pyarrow.parquet.write_table(table, path)
    elif ending in (".csv", ".tsv"):
        write_text(table, path, "\t" if ending == ".tsv" else ",")
    else:
        raise DataError(f"{path}: a table is written as .csv, .tsv or .parquet; choose one of these.")


def write_text(table: Any, path: Path, between: str) -> None:
    """As text, with a header line; missing values are empty, and quotes are only where they must be."""
    out = text_of(table)
    pyarrow.csv.write_csv(out, path, text_options(between, needs_quotes(out, between)))


def text_of(table: Any) -> Any:
    """A table whose columns Arrow can write as text."""
    return pa.table([as_text(column) for column in table.columns], names=table.column_names)


def needs_quotes(out: Any, between: str) -> bool:
    """Whether a name or a word of a table, as of `text_of`, can be written in quotes alone."""
    special = rf'[{between}"\r\n]'
    words = [column for column in out.columns if is_text(column.type)]
    named = any(re.search(special, name) for name in out.column_names)
    return named or any(pc.any(pc.match_substring_regex(column, special)).as_py() for column in words)


def text_options(between: str, quoted: bool) -> Any:
    options = pyarrow.csv.WriteOptions(delimiter=between, quoting_style="needed" if quoted else "none")
    if not quoted:
        options.quoting_header = "none"
    return options


def as_text(column: Any) -> Any:
    """A column as Arrow can write it."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_boolean(column.type):
        return pc.if_else(column, "True", "False")
    return column if writable(column.type) else as_words(column)


def writable(kind: Any) -> bool:
    """Whether Arrow writes values of this type as text."""
    types = pa.types
    each = (is_text, types.is_integer, types.is_floating, types.is_date, types.is_timestamp, types.is_decimal)
    return any(fits(kind) for fits in each)


def is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def as_words(column: Any) -> Any:
    """Values of any type as text."""
    return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
