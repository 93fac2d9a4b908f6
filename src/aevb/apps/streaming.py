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
from aevb.apps.calibrating import why
from aevb.apps.rows import Asked, Found
from aevb.data import parts as long_tables
from aevb.data.addresses import here
from aevb.data.dataset import Split
from aevb.data.frames import filled as with_numbers
from aevb.data.frames import stored
from aevb.data.parts import Parts
from aevb.data.room import room
from aevb.data.sources import SOURCES
from aevb.data.splits import tensor
from aevb.data.spool import Spool, Tables, write_tables
from aevb.data.tables import Frame
from aevb.errors import AevbWarning
from aevb.evidence.marginal import Marginal, joined

if TYPE_CHECKING:
    from aevb.models.inference import Model

NOTES = 20  # that are said of a table at most


def parts_of(asked: Asked, arrays: bool = False) -> Parts | None:
    """The new data part by part; None where they are no long table, or the run is none of a table without classes.

    Args:
        arrays: whether a short .npy is read by parts, too, which keeps all its columns and its type.
    """
    if asked.new is None or asked.new in SOURCES or asked.given is not None or asked.run.classes():
        return None
    schema, path = asked.run.values(asked.data_dir).schema, here(asked.new)
    if schema is None or not path.exists():
        return None
    if arrays and path.suffix.lower() == ".npy":
        return long_tables.array(path, short=True)
    return long_tables.parts_of(path, schema)


def pieces(asked: Asked, parts: Parts, multiple: int = 1) -> Iterator[Found]:
    """All rows, some at a time, by the schema of the run. What is to be said of them is warned of once.

    Args:
        multiple: as of `Parts.frames`.
    """
    values, said = asked.run.values(asked.data_dir), set[str]()
    for frame in parts.frames(multiple):
        numbers, notes = stored(values.columns, frame)
        for note in notes:
            kind = re.sub(r"[\d,]+", "", note)  # the same of other rows differs in numbers
            if kind not in said and len(said) < NOTES:
                last = frame.start + len(frame) - 1
                part = f" Counted are rows {frame.start:,} to {last:,} alone." if len(frame) < parts.rows else ""
                warnings.warn(note + part, AevbWarning, stacklevel=2)
            said.add(kind)
        split = Split(tensor(numbers), None, values)
        yield Found(asked.run, split, "row", range(frame.start, frame.start + len(frame)), frame)


def all_rows(asked: Asked, parts: Parts) -> Found:
    """What to call all rows; they themselves are not there."""
    values = asked.run.values(asked.data_dir)
    none = Split(torch.empty(0, len(values.columns.modelled), dtype=torch.float64), None, values)
    return Found(asked.run, none, "row", range(parts.rows))


def first_rows(asked: Asked, parts: Parts, rows: int) -> Found:
    """The first rows, or all if there are fewer."""
    found, there = [], 0
    for piece in pieces(asked, parts):
        found.append(piece)
        there += len(piece.names)
        if there >= rows:
            break
    stored = torch.cat([piece.split.stored for piece in found])
    return Found(asked.run, Split(stored, None, found[0].split.values), "row", range(there)).first(rows)


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
    return all_rows(asked, parts), scores.Compared(marginal, how.alarm, found.calibrated, found.p_values(marginal))


class ScoredParts:
    """Scores that are found part by part; 32 bytes a row are kept, for the summary.

    Attributes:
        others: the scores of validation rows; usual: of `--why`, how much a cell of each column usually surprises.
    """

    def __init__(self, asked: Asked, parts: Parts, how: scores.Scoring) -> None:
        self.asked, self.parts, self.how = asked, parts, how
        self.marginals: list[Marginal] = []
        self.others: Any = None
        self.usual: Any = None
        self.names: tuple[str, ...] = ()

    def columns(self) -> Iterator[Mapping[str, Sequence[Any]]]:
        """The columns of the table of scores, some rows at a time."""
        for found in pieces(self.asked, self.parts):
            marginal = scores.scored(found, self.how.samples, self.how.seed, self.how.device)
            if not self.marginals:
                self.calibrate(marginal.samples)
            self.marginals.append(marginal)
            beside = {name: x.tolist() for name, x in scores.beside(marginal, self.others).items()}
            if self.how.why:
                beside |= why(found, scores.surprises(found, self.how) - self.usual)
            columns = scores.columns_of(found, marginal, beside)
            self.names = tuple(columns)
            yield columns

    def calibrate(self, samples: int) -> None:
        """Find what scores are compared with."""
        found, self.others = scores.calibrated(self.asked.run, self.how, samples, self.asked.data_dir)
        if self.how.why:
            usual = scores.usual_of(found, self.how)
            self.usual = self.medians() if usual is None else usual

    def medians(self) -> Any:
        """The median surprise in each column of all rows, (F,), where there are no validation rows."""
        columns = len(self.asked.run.values(self.asked.data_dir).columns.modelled)
        kept = room((columns, self.parts.rows), np.float64, self.parts.name, "the surprise of each cell")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AevbWarning)  # said when the rows are scored
            for found in pieces(self.asked, self.parts):
                kept[:, found.names[0] : found.names[-1] + 1] = scores.surprises(found, self.how).T
        return torch.stack([torch.from_numpy(np.asarray(column)).nanmedian() for column in kept])

    @property
    def calibrated(self) -> int:
        return 0 if self.others is None else len(self.others)

    def p_values(self, marginal: Marginal) -> dict[str, Any]:
        return {name: x.numpy() for name, x in scores.beside(marginal, self.others).items()}


def write_columns(parts: Iterable[Mapping[str, Sequence[Any]]], path: Path, ending: str) -> None:
    """Write columns of numbers, some rows at a time, as `outputs.write_columns` would write all of them."""
    if ending == ".parquet":
        write_parquet(map(arrow, parts), path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        for i, part in enumerate(parts):
            if not i:
                table.writerow(part)
            table.writerows(zip(*part.values(), strict=True))


def arrow(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Columns of numbers as an Arrow table; those of `--why` may have no value in some parts."""
    kinds = {"why": pa.string(), "surprise": pa.float64()}
    arrays = {k: pa.array(x, kinds.get(k.partition("_")[0]), from_pandas=True) for k, x in columns.items()}
    return pa.table(arrays)


def write_parquet(tables: Iterator[Any], path: Path) -> None:
    first = next(tables)
    with pyarrow.parquet.ParquetWriter(path, first.schema) as out:
        out.write_table(first)
        for table in tables:
            out.write_table(table.cast(first.schema))


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
            ends = filling.ends_of(
                [column.name for column in schema.model if not column.sums], frame, schema, (low, high)
            )
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
