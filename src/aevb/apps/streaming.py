"""Long tables that verbs read, use and write some rows at a time, in the file's order, to the numbers of the whole."""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from aevb.apps import filled as filling
from aevb.apps import outputs, scores, show
from aevb.apps.rows import Asked, Found
from aevb.data import parts as long_tables
from aevb.data.addresses import here
from aevb.data.dataset import Split
from aevb.data.frames import filled as with_numbers
from aevb.data.frames import stored
from aevb.data.parts import Parts
from aevb.data.sources import SOURCES
from aevb.data.splits import tensor
from aevb.data.spool import Spool, Tables, write_tables
from aevb.data.tables import Frame
from aevb.errors import AevbWarning
from aevb.evidence.marginal import Marginal, joined

if TYPE_CHECKING:
    from aevb.models.inference import Model

NOTES = 20  # that are said of a table at most


def parts_of(asked: Asked) -> Parts | None:
    """The new data part by part; None where they are no long table, or the run is none of a table without classes."""
    if asked.new is None or asked.new in SOURCES or asked.given is not None or asked.run.classes():
        return None
    schema, path = asked.run.values(asked.data_dir).schema, here(asked.new)
    return long_tables.parts_of(path, schema) if schema is not None and path.exists() else None


def pieces(asked: Asked, parts: Parts) -> Iterator[Found]:
    """All rows, some at a time, by the schema of the run. What is to be said of them is warned of once."""
    values, said = asked.run.values(asked.data_dir), set[str]()
    for frame in parts.frames():
        numbers, notes = stored(values.columns, frame)
        for note in notes:
            kind = re.sub(r"[\d,]+", "", note)  # the same of other rows differs in numbers
            if kind not in said and len(said) < NOTES:
                part = f" (first in rows {frame.start:,} to {frame.start + len(frame) - 1:,})" if frame.start else ""
                warnings.warn(note + part, AevbWarning, stacklevel=2)
            said.add(kind)
        split = Split(tensor(numbers), None, values)
        yield Found(asked.run, split, "row", range(frame.start, frame.start + len(frame)), frame)


# Scores


def score(asked: Asked, parts: Parts, how: scores.Scoring, out: Path | None) -> tuple[Found, scores.Compared]:
    """The scores of all rows, which are written as they are found; of the rows themselves none is kept."""
    found = ScoredParts(asked, parts, how)
    if out is not None and out.suffix != ".npy":
        outputs.write_parts(out, lambda beside: write_columns(found.columns(), beside, out.suffix))
        show.out.print(f"{out}: {parts.rows:,} rows, columns {', '.join(found.names)}")
    else:
        for _ in found.columns():
            pass
    marginal = joined(found.marginals)
    if out is not None and out.suffix == ".npy":
        outputs.write_array(out, marginal.log_px)
    return found.all_rows(), scores.Compared(marginal, how.alarm, found.calibrated, found.p_values(marginal))


class ScoredParts:
    """Scores that are found part by part; 32 bytes a row are kept, for the summary."""

    def __init__(self, asked: Asked, parts: Parts, how: scores.Scoring) -> None:
        self.asked, self.parts, self.how = asked, parts, how
        self.marginals: list[Marginal] = []
        self.others: Any = None
        self.names: tuple[str, ...] = ()

    def columns(self) -> Iterator[Mapping[str, Sequence[Any]]]:
        """The columns of the table of scores, some rows at a time."""
        for found in pieces(self.asked, self.parts):
            marginal = scores.scored(found, self.how.samples, self.how.seed, self.how.device)
            if not self.marginals:
                _, self.others = scores.calibrated(found.run, self.how, marginal.samples, self.asked.data_dir)
            self.marginals.append(marginal)
            beside = {name: x.tolist() for name, x in scores.beside(marginal, self.others).items()}
            columns = scores.columns_of(found, marginal, beside)
            self.names = tuple(columns)
            yield columns

    @property
    def calibrated(self) -> int:
        return 0 if self.others is None else len(self.others)

    def p_values(self, marginal: Marginal) -> dict[str, Any]:
        return {name: x.numpy() for name, x in scores.beside(marginal, self.others).items()}

    def all_rows(self) -> Found:
        """What to call the rows; they themselves are not there."""
        values = self.asked.run.values(self.asked.data_dir)
        none = Split(torch.empty(0, len(values.columns.modelled), dtype=torch.float64), None, values)
        return Found(self.asked.run, none, "row", range(self.parts.rows))


def write_columns(parts: Iterable[Mapping[str, Sequence[Any]]], path: Path, ending: str) -> None:
    """Write columns of numbers, some rows at a time, as `outputs.write_columns` would write all of them."""
    if ending == ".parquet":
        write_parquet((pa.table({k: pa.array(x, from_pandas=True) for k, x in part.items()}) for part in parts), path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        for i, part in enumerate(parts):
            if not i:
                table.writerow(part)
            table.writerows(zip(*part.values(), strict=True))


def write_parquet(tables: Iterator[Any], path: Path) -> None:
    first = next(tables)
    with pyarrow.parquet.ParquetWriter(path, first.schema) as out:
        out.write_table(first)
        for table in tables:
            out.write_table(table.cast(first.schema))


# Codes


def encode(asked: Asked, parts: Parts, model: Model, out: Path) -> None:
    """Write the posterior mean of each row, as `outputs.write_codes` does."""
    from aevb.use.encode import encode as encode_all

    shapes: list[tuple[int, ...]] = []

    def coded() -> Iterator[tuple[Found, Any]]:
        for found in pieces(asked, parts):
            z = encode_all(model, found.split)
            shapes.append(tuple(z.shape[1:]))
            yield found, z

    if out.suffix == ".csv":
        outputs.write_parts(out, lambda beside: write_columns((code_columns(*each) for each in coded()), beside, ""))
        show.out.print(f"{out}: {parts.rows:,} rows, columns row, z0 to z{shapes[0][0] - 1}")
        return
    outputs.write_parts(out, lambda beside: write_codes(coded(), beside, parts.rows))
    show.out.print(f"{out}: {' × '.join(map(str, (parts.rows, *shapes[0])))}, float32")


def code_columns(found: Found, z: Any) -> dict[str, Sequence[Any]]:
    return {"row": list(found.names), **{f"z{i}": column.tolist() for i, column in enumerate(z.T)}}


def write_codes(parts: Iterator[tuple[Found, Any]], path: Path, rows: int) -> None:
    """A .npy file of all codes, (N, *Z)."""
    with path.open("wb") as file:
        for found, z in parts:
            codes = np.ascontiguousarray(z.numpy())
            if not found.names[0]:
                header = {"descr": np.lib.format.dtype_to_descr(codes.dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows, *codes.shape[1:])})
            file.write(codes.tobytes())


# Holes


def impute(asked: Asked, parts: Parts, how: filling.Filling, model: Model, out: Path) -> None:
    """Fill the holes of all rows, and write the table, as `filling` does the whole."""
    done = FilledParts(parts.name, how)
    with show.counting("filling"):
        for found in pieces(asked, parts):
            done.add(found, model)
    if not any(n for column, n in done.holes.items() if column.modelled):
        filling.unchanged(parts.name, parts.rows, out, lambda: write(out, done.spools[0].tables))
        return
    write(out, done.tables)
    show.out.print(f"{out}: {filling.told(parts.rows, done.holes)}")


def write(out: Path, tables: Tables) -> None:
    outputs.written(out, lambda beside: write_tables(tables, beside, out.suffix))


class FilledParts:
    """A long table whose parts are filled one after another, and kept on disk until all is known of it.

    Attributes:
        spools: the filled rows, once or for each draw; ends: the intervals of all columns, where they are asked for.
        holes: how many each column has; seen: as of `conditional_draws`; bounded: the columns with intervals.
    """

    def __init__(self, name: str, how: filling.Filling) -> None:
        self.name, self.how = name, how
        self.spools = [Spool(name) for _ in range(max(how.draws, 1))]
        self.ends = None if how.share is None else Spool(name)
        self.holes, self.seen, self.bounded = Counter[Any](), dict[int, int](), dict[str, None]()

    def add(self, found: Found, model: Model) -> None:
        """Fill the next rows."""
        schema, frame = found.split.values.columns, filling.frame_of(found, Asked(found.run, self.name))
        self.holes.update(filling.holes_in(frame, schema))
        each = [frame] * len(self.spools)
        low = high = torch.full_like(found.split.stored, torch.nan)
        if bool(found.split.stored.isnan().any()):
            each = [with_numbers(schema, frame, x.numpy()) for x in filling.fillings(found, self.how, model, self.seen)]
            low, high = (low, high) if self.ends is None else filling.bounds(found, self.how, model)
        for spool, one in zip(self.spools, each, strict=True):
            spool.add(one.table.to_arrow())
        if self.ends is not None:
            self.bounded |= dict.fromkeys(filling.bounded(schema, low))
            ends = filling.ends_of([column.name for column in schema.model], frame, schema, (low, high))
            self.ends.add(pa.table({end.name: end.to_arrow() for end in ends}))

    def tables(self) -> Iterator[Any]:
        """The filled rows with their intervals; of draws one table after another, with its number."""
        for number, spool in enumerate(self.spools, 1):
            ends = repeat(None) if self.ends is None else self.ends.tables()
            for table, bounds in zip(spool.tables(), ends, strict=False):
                yield self.complete(table, bounds, number)

    def complete(self, table: Any, bounds: Any, number: int) -> Any:
        """A part with its intervals and its number."""
        frame = Frame(self.name, nw.from_native(table, eager_only=True))
        order = [column for column in self.holes if column.name in self.bounded]
        for name in (f"{column.name}_{word}" for column in order for word in ("low", "high")):
            table = table.append_column(filling.free(name, frame), bounds[name])
        if not self.how.draws:
            return table
        whole = Frame(self.name, nw.from_native(table, eager_only=True))
        return filling.numbered(whole, number).table.to_arrow()
