"""What --given says of the columns of a table, and new rows as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
        if column.name in found:
            raise DataError(f"--given {text}: {column.name!r} is given twice. Give one value, or one range.")
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
            if word in named:
                raise DataError(f"--given {text}: {word!r} has no value. {FORM}")
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
    ends = next((found for cut in cuts(text) if (found := ends_of(column, cut)) is not None), None)
    return ends if ends is None or column.values is None else among(column, ends)


def cuts(text: str) -> list[tuple[str, str]]:
    """All ways to cut a text into two ends."""
    places = [(i, i + len(mark)) for mark in BETWEEN for i in range(len(text)) if text.startswith(mark, i)]
    return [(text[:start].strip(), text[stop:].strip()) for start, stop in places]


def ends_of(column: Column, words: tuple[str, str]) -> Range | None:
    """Two ends as numbers, None of an empty word; None where a word is no number."""
    read = stored if column.values is None else value
    low, high = (read(column, word) if word else None for word in words)
    unread = any(word and end is None for word, end in zip(words, (low, high), strict=True))
    return None if unread else (low, high)


def value(column: Column, text: str) -> float | None:
    """A number; None where the text is none."""
    try:
        return float(text)
    except ValueError:
        return None


def among(column: Column, ends: Range) -> Range:
    """The codes of the levels between two numbers.  DataError where there is none."""
    from aevb.data.images import few
    from aevb.use.given import unbounded

    levels = column.values
    assert levels is not None
    low, high = unbounded(ends)
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


def tell_exposures(schema: Schema, given: str | None) -> None:
    """Say one sentence for each exposure that new rows have because none was given."""
    from aevb.data.columns import EXPOSURE
    from aevb.data.exposures import named as counts_named

    named = {column.name for column, _ in assignments(given or "", schema)}
    for column in schema.model:
        if column.kind == EXPOSURE and column.name not in named:
            of = counts_named([c.name for c in schema.model if c.exposure == column.name])
            taken = f"{column.name}={column.scale:g}"
            show.note(
                show.escaped(
                    f"{of}: over {taken}, the median of the train rows; another by --given {column.name}=VALUE."
                )
            )


def write_rows(out: Path, schema: Schema, rows: Tensor, what: str = "new rows") -> None:
    """New rows as a table with the columns and types of the source, or as numbers."""
    if out.suffix == ".npy":
        outputs.write_array(out, rows)
        return
    from aevb.data.frames import made

    frame = made(schema, rows.numpy())
    outputs.write_frame(out, frame)
    show.out.print(f"{out}: {len(rows):,} {what}, {len(frame.table.columns)} columns")
