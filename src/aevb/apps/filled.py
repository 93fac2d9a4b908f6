"""Tables whose holes are filled: by which numbers, with which intervals and draws, and what is said of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevb.apps import outputs, show
from aevb.apps.rows import Asked, Found
from aevb.data.addresses import here
from aevb.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.data.columns import Column, Schema
    from aevb.data.tables import Frame
    from aevb.models.inference import Model

NUMBER = "imputation"  # the column that counts several imputations


@dataclass(frozen=True)
class Filling:
    """How holes are to be filled."""

    method: str
    draws: int
    share: float | None
    samples: int
    seed: int

    @property
    def drawn(self) -> bool:
        return self.method == "draw" or self.draws > 0


def frame_of(found: Found, asked: Asked) -> Frame:
    """The table of new rows; of an array its columns x0, x1, ..."""
    if found.frame is not None:
        return found.frame
    from aevb.data import tables

    return tables.frame_of(found.split.stored.numpy(), asked.new or "")


def unchanged(source: str, rows: int, out: Path, write: Callable[[], None]) -> None:
    """A table that has nothing to fill, byte for byte where the file is of the same kind; else by `write`."""
    path = here(source)
    if path.is_file() and path.suffix.lower() == out.suffix.lower():
        outputs.written(out, partial(shutil.copyfile, path))
    else:
        write()
    show.out.print(f"{out}: {rows:,} rows without holes in modelled columns; written unchanged.")


def filled_frame(found: Found, frame: Frame, schema: Schema, filling: Filling, model: Model) -> Frame:
    """The table with its holes filled, perhaps several times, and with intervals."""
    from aevb.data.frames import filled

    each = [filled(schema, frame, numbers.numpy()) for numbers in fillings(found, filling, model, {})]
    if filling.share is not None:
        each = [with_intervals(one, frame, schema, bounds(found, filling, model)) for one in each]
    return each[0] if filling.draws == 0 else stacked(each)


def fillings(found: Found, filling: Filling, model: Model, seen: dict[int, int]) -> Sequence[Tensor]:
    """Stored numbers of all rows, (N, F), once or for each draw; `seen` as of `conditional_draws`."""
    from aevb.use.condition import conditional_draws, impute

    if not filling.drawn:
        method: Any = filling.method
        return [impute(model, found.split, filling.samples, method=method, seed=filling.seed).values]
    n = max(filling.draws, 1)
    k = max(filling.samples, 5 * n)
    return list(conditional_draws(model, found.split, n, samples=k, seed=filling.seed, seen=seen))


def bounds(found: Found, filling: Filling, model: Model) -> tuple[Tensor, Tensor]:
    from aevb.use.condition import intervals

    k = max(filling.samples, 500)
    return intervals(model, found.split, filling.share or 0.9, samples=k, seed=filling.seed)


def with_intervals(filled: Frame, frame: Frame, schema: Schema, ends: tuple[Tensor, Tensor]) -> Frame:
    """The table with NAME_low and NAME_high of each column of numbers that had holes, behind its own columns."""
    columns = ends_of(bounded(schema, ends[0]), frame, schema, ends)
    return replace(filled, table=filled.table.with_columns(*(c.alias(free(c.name, frame)) for c in columns)))


def bounded(schema: Schema, low: Tensor) -> list[str]:
    """The columns of which some cell has an interval."""
    return [column.name for column, x in zip(schema.model, low.unbind(1), strict=True) if not x.isnan().all()]


def ends_of(names: Sequence[str], frame: Frame, schema: Schema, ends: tuple[Tensor, Tensor]) -> list[Any]:
    """The ends of intervals, (N, F) each, as columns NAME_low, NAME_high of these names, one after another."""
    from aevb.data.frames import made

    low, high = (made(schema, numbers.numpy(), frame).table for numbers in ends)
    return [bound[name].alias(f"{name}_{word}") for name in names for word, bound in (("low", low), ("high", high))]


def free(name: str, frame: Frame) -> str:
    """A name for a new column.  DataError where the table has one of that name."""
    if name in frame.table.columns:
        raise DataError(f"{frame.name} has a column {name!r} already. Rename it, and train on the table again.")
    return name


def stacked(frames: Sequence[Frame]) -> Frame:
    """Tables below one another, the number of each before its columns."""
    import narwhals.stable.v2 as nw

    table = nw.concat([numbered(frame, i).table for i, frame in enumerate(frames, 1)], how="vertical")
    return replace(frames[0], table=table)


def numbered(frame: Frame, number: int) -> Frame:
    """A table with a number before its columns, the same for all rows."""
    import narwhals.stable.v2 as nw

    name = free(NUMBER, frame)
    table = frame.table.with_columns(nw.lit(number).alias(name))
    return replace(frame, table=table.select(name, *frame.table.columns))


def holes_in(frame: Frame, schema: Schema) -> dict[Column, int]:
    """How many cells are missing in each column."""
    from aevb.data.frames import seen_in

    def holes(column: Column) -> int:
        there = column.name in frame.table.columns
        return int((~seen_in(frame, column.name)).sum()) if there else 0

    return {column: holes(column) for column in schema.columns}


def told(rows: int, counts: Mapping[Column, int]) -> str:
    """What was filled, and what was not."""
    filled = {c.name: n for c, n in counts.items() if c.modelled and n}
    left = {c.name: n for c, n in counts.items() if not c.modelled and n}
    text = f"{rows:,} rows; {sum(filled.values()):,} holes filled in {listed(filled)}"
    return f"{text}; left in {listed(left)}, not modelled" if left else text


def listed(counts: dict[str, int], most: int = 5) -> str:
    shown = ", ".join(f"{name} ({n:,})" for name, n in list(counts.items())[:most])
    more = len(counts) - most
    return shown + (f", and {more} more column{'s' * (more > 1)}" if more > 0 else "")
