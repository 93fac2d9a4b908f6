"""What --given says of the columns of a table, and new rows as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aevb.apps import outputs, show
from aevb.errors import DataError, suggest

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.data.columns import Column, Schema
    from aevb.models.inference import Model
    from aevb.use.given import Range

BETWEEN = (":", "..")  # the ends of a range
FORM = "Write NAME=VALUE, or NAME=LOW:HIGH for a range, with commas between columns."


def conditions(text: str, schema: Schema) -> dict[str, float | Range]:
    """Stored numbers, or ranges of them, by the names of columns: sex=female,age=30:40.

    Names and values may hold commas, equals signs and colons: names are those of the table.

    Raises:
        DataError: there is no such column, it is not modelled, or it cannot have such a value.
    """
    found: dict[str, float | Range] = {}
    for column, value in assignments(text, schema):
        if not column.modelled:
            raise DataError(f"--given {column.name}={value}: the column is {column.kind}, and not modelled.")
        found[column.name] = number(column, value) if (ends := range_of(column, value)) is None else ends
    return found


def assignments(text: str, schema: Schema) -> Iterator[tuple[Column, str]]:
    """Each column that is named, and what is said of it."""
    named = {column.name: column for column in schema.columns}
    rest = text
    while rest:
        name = max((n for n in named if rest.startswith(f"{n}=")), key=len, default=None)
        if name is None:
            word = rest.partition("=")[0].partition(",")[0]
            raise DataError(f"--given {text}: there is no column {word!r}.{suggest(word, named)} {FORM}")
        rest = rest[len(name) + 1 :]
        ends = [i for n in named for i in places(rest, f",{n}=")]
        value, rest = (rest, "") if not ends else (rest[: min(ends)], rest[min(ends) + 1 :])
        yield named[name], value.strip()


def places(text: str, part: str) -> list[int]:
    at = text.find(part)
    return [] if at < 0 else [at]


def range_of(column: Column, text: str) -> Range | None:
    """The ends of a range; None where this is one value."""
    from aevb.data.columns import CODED

    if column.kind in CODED and (column.kind != "ordinal" or stored(column, text) is not None):
        return None
    read = stored if column.values is None else value
    cuts = [(text[:i], text[i + len(mark) :]) for mark in BETWEEN for i in range(len(text)) if text.startswith(mark, i)]
    for low, high in cuts:
        ends = [read(column, end.strip()) if end.strip() else None for end in (low, high)]
        if all(end is not None or not word.strip() for end, word in zip(ends, (low, high), strict=True)):
            return (ends[0], ends[1]) if column.values is None else among(column, ends)
    return None


def value(column: Column, text: str) -> float | None:
    """A number; None where the text is none."""
    try:
        return float(text)
    except ValueError:
        return None


def among(column: Column, ends: Sequence[float | None]) -> Range:
    """The codes of the levels between two numbers.  DataError where there is none."""
    from aevb.data.images import few

    levels = column.values
    assert levels is not None
    low, high = (-math.inf if ends[0] is None else ends[0]), (math.inf if ends[1] is None else ends[1])
    inside = ((levels >= low) & (levels <= high)).nonzero().flatten().tolist()
    if not inside:
        known = few([*map(str, column.levels)])
        raise DataError(f"--given: {column.name!r} has no level from {low:g} to {high:g}. It has {known}.")
    return float(inside[0]), float(inside[-1])


def number(column: Column, text: str) -> float:
    """The stored number of one value.  DataError, which says what the column holds."""
    from aevb.data.columns import CODED

    found = stored(column, text)
    if found is not None:
        return found
    if column.kind in CODED:
        hint = suggest(text, map(str, column.levels))
        raise DataError(f"--given {column.name}={text}: the column has no such level.{hint}")
    what = "dates" if column.kind == "datetime" else "numbers"
    raise DataError(f"--given {column.name}={text}: the column holds {what}. {FORM}")


def stored(column: Column, text: str) -> float | None:
    """The stored number of a value in the words of the table; None where it is none."""
    from aevb.data.cells import cells_of
    from aevb.data.frames import numbers_in
    from aevb.data.tables import frame_of

    try:
        numbers, _ = numbers_in(column, cells_of(frame_of({column.name: [text]}), column.name), "--given")
    except (DataError, ValueError):
        return None
    known = len(numbers) and math.isfinite(numbers[0]) and not (column.levels_end <= numbers[0])
    return float(numbers[0]) if known else None


def drawn(model: Model, n: int, schema: Schema, given: str | None, seed: int) -> Tensor:
    """n new rows in stored numbers, (n, F), all cells drawn; given some columns, where any are."""
    if given is not None:
        from aevb.use.given import sample_given

        return sample_given(model, n, conditions(given, schema), schema=schema, seed=seed)
    from aevb.use.generate import generate

    return schema.inverse(generate(model, n, seed=seed, draw=True))


def write_rows(out: Path, schema: Schema, rows: Tensor, what: str = "new rows") -> None:
    """New rows as a table with the columns and types of the source, or as numbers."""
    if out.suffix == ".npy":
        outputs.write_array(out, rows)
        return
    from aevb.data.frames import made

    outputs.write_frame(out, made(schema, rows.numpy()))
    show.out.print(f"{out}: {len(rows):,} {what}, {len(schema.columns)} columns")
