"""Rows of a table on the page: what each cell says, as text, with its interval or its probability."""

from __future__ import annotations

import csv
import io
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aevb.data.columns import CODED, Column, Schema
from aevb.data.dataset import Split
from aevb.data.frames import made, stored
from aevb.data.tables import frame_of
from aevb.errors import AevbError, AevbWarning, DataError
from aevb.use.cells import Cells, cells
from aevb.use.condition import impute, intervals
from aevb.use.surprise import surprise

if TYPE_CHECKING:
    from aevb.apps.explorer.session import Session

SAMPLES = 200


def table_cells(session: Session, z: Tensor, y: Tensor | None = None) -> list[list[dict[str, Any]]]:
    """What p(x|z) says of each column, for each code (N, D)."""
    assert session.schema is not None
    found = cells(session.model, z, session.schema, y=y)
    texts = texts_of(session.schema, found.values)
    return [
        [cell(column, texts[d][n], Ends(found, n, d)) for d, column in enumerate(session.schema.model)]
        for n in range(len(z))
    ]


class Ends:
    """The numbers of one cell, and where they lie between the smallest and the largest that training saw."""

    def __init__(self, found: Cells, n: int, d: int) -> None:
        self.value, self.low, self.high = (float(part[n, d]) for part in (found.values, found.low, found.high))
        self.share = float(found.share[n, d])


def cell(column: Column, text: str | None, ends: Ends) -> dict[str, Any]:
    return {
        "name": column.name,
        "text": text,
        "value": ends.value,
        "low": ends.low,
        "high": ends.high,
        "share": ends.share,
        "at": [fraction(column, v) for v in (ends.low, ends.value, ends.high)],
        "ends": text_of(column, ends),
    }


def text_of(column: Column, ends: Ends) -> str:
    """The interval as text."""
    if not np.isfinite(ends.low) or column.kind in CODED:
        return ""
    low, high = (texts_of(Schema((column,)), torch.tensor([[v]]).double())[0][0] for v in (ends.low, ends.high))
    return f"{low} – {high}"


def fraction(column: Column, value: float) -> float:
    """Where a number lies between the smallest and the largest that training saw: 0 to 1."""
    low, high = (0.0, len(column.levels) - 1.0) if column.kind in CODED else (column.low or 0.0, column.high or 1.0)
    return min(1.0, max(0.0, (value - low) / (high - low or 1.0)))


def texts_of(schema: Schema, numbers: Tensor) -> list[list[str | None]]:
    """Stored numbers (N, F) as text, one list for each modelled column; None where missing."""
    frame = made(schema, numbers.double().numpy())
    return [[text(v) for v in frame.table[column.name].to_list()] for column in schema.model]


def text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


def described(session: Session, split: Split) -> list[dict[str, Any]]:
    """One row: what is there, and what is missing filled with its interval; how surprising each cell is."""
    schema = session.schema
    assert schema is not None
    holes = split.stored[0].isnan()
    values = impute(session.model, split, SAMPLES).values
    low, high = intervals(session.model, split)
    whole = Cells(values, low, high, torch.full_like(values, torch.nan))
    texts, odd = texts_of(schema, values), surprises(session, split)
    return [
        {**cell(column, texts[d][0], Ends(whole, 0, d)), "filled": bool(holes[d]), "surprise": odd[d]}
        for d, column in enumerate(schema.model)
    ]


def surprises(session: Session, split: Split) -> list[float]:
    try:
        return [float(v) for v in surprise(session.model, split, SAMPLES)[0]]
    except AevbError:
        return [float("nan")] * split.stored.shape[1]


def typed(session: Session, given: dict[str, str]) -> Split:
    """One row (1, F) of what was typed: columns by their names; what is empty or not named is missing.

    Raises:
        DataError: a column that there is not, or what is none of its kind.
    """
    schema = session.schema
    assert schema is not None
    known = {column.name for column in schema.model}
    wrong = next((name for name in given if name not in known), None)
    if wrong is not None:
        raise DataError(f"The model has no column {wrong[:60]!r}.")
    row = {column.name: [given.get(column.name) or None] for column in schema.model}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AevbWarning)
        numbers, _ = stored(schema_of(schema), frame_of(row, "the row"))
    return Split(torch.from_numpy(numbers), None, session.values)


def schema_of(schema: Schema) -> Schema:
    """The modelled columns alone."""
    return replace(schema, columns=schema.model)


def row_in(text: str, session: Session) -> dict[str, str]:
    """The first row of a CSV file with a header, the columns of the model alone.

    Raises:
        DataError: it has no header with such columns, or no row.
    """
    assert session.schema is not None
    try:
        rows = list(csv.reader(io.StringIO(text)))[:2]
    except csv.Error as error:
        raise DataError(f"This is not a CSV file: {error}.") from error
    if len(rows) < 2:
        raise DataError("A CSV file needs a line of column names, and a row below it.")
    found = dict(zip(rows[0], rows[1], strict=False))
    known = [column.name for column in session.schema.model]
    if not set(known) & set(found):
        raise DataError(f"The file has none of the model's columns, such as {known[0]!r}.")
    return {name: found[name] for name in known if name in found}
