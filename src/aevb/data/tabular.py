"""A table as a data set: its rows split, its columns measured on the train rows.  No library of frames is imported
before a table is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from aevb.data.columns import Column, Schema
from aevb.data.dataset import Dataset, Split
from aevb.data.room import taken
from aevb.data.splits import permutation, tenths
from aevb.data.values import Values
from aevb.data.weights import weights_in, with_weight
from aevb.errors import DataError

if TYPE_CHECKING:
    from aevb.data.tables import Frame


def load_table(source: Any, columns: Mapping[str, str] | None = None, seed: int = 0) -> Dataset:
    """A table in a file or in memory as a data set.  DataError as `read_frame` and `look` raise it."""
    from aevb.data.kinds import look
    from aevb.data.tables import frame_of, read_frame

    whole = read_frame(source) if isinstance(source, str | Path) else frame_of(source)
    weights = weights_in(whole, columns or {})
    frame, rows = with_weight(whole, weights)
    train = cuts(len(frame), seed, frame.name)[0]
    data = table_dataset(frame, look(frame, columns or {}, train), seed)
    return data if weights is None else weighted(data, weights, rows)


def weighted(data: Dataset, weights: NDArray[np.float64], rows: NDArray[np.int64]) -> Dataset:
    """The data of rows of a table, by their numbers in all of it, with the weights of all its rows."""

    def one(split: Split) -> Split:
        names = rows[np.asarray(split.names)]
        return replace(split, names=names, weights=torch.from_numpy(weights[names]))

    return replace(data, train=one(data.train), validation=one(data.validation), test=one(data.test))


def cuts(n: int, seed: int, where: str) -> tuple[NDArray[np.int64], ...]:
    """The rows to train, to validate and to test: 80, 10 and 10 % of n, shuffled by the seed."""
    train, validation, _ = tenths(n, where)
    return tuple(np.split(permutation(n, seed), [train, train + validation]))


def table_dataset(frame: Frame, schema: Schema, seed: int = 0) -> Dataset:
    """The rows of a frame, 80, 10 and 10 % of them, shuffled by the seed, with the schema as their values.

    Raises:
        DataError: fewer than 3 rows; or a column of the schema is not there.
    """
    from aevb.data.frames import stored

    numbers, notes = stored(schema, frame)
    values = Values("columns", schema=schema)

    def split(rows: NDArray[np.int64]) -> Split:
        return Split(torch.from_numpy(taken(numbers, rows, frame.name)), None, values, rows)

    train, validation, test = map(split, cuts(len(frame), seed, frame.name))
    return Dataset(dataset_name(frame), train, validation, test, "table", description=" ".join((*frame.notes, *notes)))


def described(source: str, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What is in a table, for JSON: its rows, what was recognised, and its columns with kind, likelihood and reason."""
    from aevb.data.kinds import look
    from aevb.data.tables import read_frame

    frame = read_frame(source)
    schema = look(frame, columns or {})
    shown = ("name", "kind", "likelihood", "why", "holes", "dtype", "map", "center", "scale", "low", "high", "decimals")
    each = [
        {key: getattr(column, key) for key in shown}
        | {"asked": column.asked, "exposure": column.exposure, "levels": len(column.levels)}
        | ends_of(column)
        for column in schema.columns
    ]
    return {"source": source, "rows": len(frame), "notes": list(frame.notes), "columns": each, "recipe": "table"}


def ends_of(column: Column) -> dict[str, float | None]:
    """The smallest and the largest number of a column, as the table has them."""
    ends = {"low": column.low, "high": column.high}
    return {key: end if end is None or not column.origin else int(end) + column.origin for key, end in ends.items()}


def dataset_name(frame: Frame) -> str:
    """What to call a table: its file without the ending."""
    return Path(frame.name).name.partition(".")[0] if Path(frame.name).exists() else "table"


def numbers_of(frame: Frame) -> NDArray[Any]:
    """A table of numbers alone as an array (N, C): float64, NaN where there is none; or int64 or uint64, where float64
    would round whole numbers.  DataError: a column holds no numbers."""
    from aevb.data.cells import NUMBER, beyond, cells_of

    columns = [cells_of(frame, name) for name in frame.table.columns]
    for cells in columns:
        if cells.form != NUMBER and cells.seen.any():
            raise DataError(
                f"{frame.name}: column {cells.name!r} holds no numbers. Leave out --recipe, or data.values."
            )
    numbers = [cells.numbers for cells in columns]
    exact = any(map(beyond, numbers)) and not any(cells.holes for cells in columns)
    if exact and (kind := whole_kind(numbers)):
        return np.stack(numbers, 1, dtype=kind, casting="unsafe")
    out = np.full((len(frame), len(columns)), np.nan)
    for place, cells in enumerate(columns):
        out[cells.seen, place] = cells.floats
    return out


def whole_kind(columns: Sequence[NDArray[Any]]) -> str:
    """The type that holds the whole numbers of all columns; "" where there is none."""
    if any(x.dtype.kind not in "iu" for x in columns):
        return ""
    if all(x.max() < 2**63 for x in columns):
        return "int64"
    return "uint64" if all(x.min() >= 0 for x in columns) else ""
