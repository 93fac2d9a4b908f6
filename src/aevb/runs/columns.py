"""The parts of a model of a table: a recipe's likelihood "columns", from a schema, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from aevb.data.columns import CODED, EXPOSURE, Column, Schema, step_of
from aevb.errors import RecipeError
from aevb.models.column_inputs import CellFeatures, HoleFeatures
from aevb.parts import LIKELIHOOD, Support, find
from aevb.probability.columns import Columns
from aevb.runs.parts import build, wrap_errors
from aevb.runs.ranges import shown

FEW = 64  # levels: columns of so many share a part of the likelihood
CROWD = 32  # columns: a part of more has them in an order of its own
MANY = 512  # levels: a column of more has logits of low rank
FORM = 'a table with a type and its columns, such as {type = "normal", columns = [0, 1]}'


def parts_of(schema: Schema) -> list[dict[str, Any]]:
    """The parts of the likelihood "columns" that a schema asks for: columns of one family are one part.

    So are columns of few levels, whatever their number; one of many levels is a part of its own.

    Raises:
        RecipeError: no column is modelled.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, column in enumerate(schema.model):
        if column.kind != EXPOSURE:
            groups.setdefault(_together(column), []).append(place)
    if not groups:
        raise RecipeError("The table has no column that can be modelled: all are constant, ids or text.")
    ordered = (_by_levels(schema.model, places) for places in groups.values())
    at = {column.name: place for place, column in enumerate(schema.model)}
    each = [(places, [schema.model[i] for i in places]) for places in ordered]
    return [_part(columns, places) | _exposed(columns[0], at) for places, columns in each]


def _exposed(column: Column, at: Mapping[str, int]) -> dict[str, int]:
    """The place of the exposure of a part's counts, where it has one."""
    return {"exposure": at[column.exposure]} if column.exposure else {}


def _by_levels(columns: Sequence[Column], places: list[int]) -> list[int]:
    """Many columns of a part in the order of their numbers of levels: those of as many are computed together."""
    return sorted(places, key=lambda i: len(columns[i].levels)) if len(places) > CROWD else places


def masked_of(schema: Schema) -> list[int]:
    """The modelled columns that had holes in training, whose mask a model of holes has a Bernoulli for."""
    return [place for place, column in enumerate(schema.model) if column.holes]


def _together(column: Column) -> tuple[str, ...]:
    """What columns have in common that are one part of the likelihood."""
    if column.kind in CODED:
        return ("categories", *([column.name] if levels_of(column) > FEW else []))
    return (column.likelihood, str(column.least), str(column.bins), column.exposure)


def levels_of(column: Column) -> int:
    """How many levels a column has for its likelihood: its own, and one for all that training never sees."""
    return len(column.levels) + 1


def _part(columns: Sequence[Column], places: Sequence[int]) -> dict[str, Any]:
    """The table of a recipe for columns of one part, which are at these places."""
    first = columns[0]
    levels = [levels_of(column) for column in columns]
    scaled: dict[str, Any] = {"type": first.likelihood, "least": first.least}
    steps = [step_of(column) / column.scale for column in columns]
    own: dict[str, dict[str, Any]] = {
        "categorical": {"type": "many-categories" if max(levels) > MANY else "categories", "classes": levels},
        "quantiles": {"type": "quantiles", "bins": first.bins, "steps": steps},
        "normal": scaled,
        "homoscedastic-normal": scaled,
        "student-t": scaled,
    }
    return {**own.get(first.likelihood, {"type": first.likelihood}), "columns": list(places)}


def columns_of(table: Mapping[str, Any], event: torch.Size) -> Columns:
    """The likelihood that a table of a recipe asks for.

    Raises:
        RecipeError: a part is no table with its columns; or unknown types, keys or values.
    """
    read = _read(table, event.numel())
    parts = [build(LIKELIHOOD, part, where=where, shape=(len(places),)) for where, part, places in read]
    places, masked = [places for *_, places in read], _masked(table, event.numel())
    exposures = _exposures(table, event.numel())
    family: Columns = wrap_errors("likelihood", lambda: Columns(event, parts, places, masked, exposures))
    return family


def _exposures(table: Mapping[str, Any], columns: int) -> list[int | None]:
    """Of each part the column that is the exposure of its counts.  RecipeError: there is none such, or no counts."""
    found = [part.get("exposure") for part in table.get("parts") or [{}]]
    for i, (part, exposure) in enumerate(zip(table.get("parts") or [{}], found, strict=True)):
        counts = exposure is None or find(LIKELIHOOD, part["type"]).offers.support is Support.COUNTS
        if not counts or exposure not in (None, *range(columns)):
            expected = f"the number of a column, 0 to {columns - 1}, for a part of counts"
            raise RecipeError(f"likelihood.parts[{i}].exposure: expected {expected}; got {shown(exposure)}.")
    return found


def _per(table: Mapping[str, Any], columns: int) -> dict[int, int]:
    """Of each column of counts that has an exposure the column of that."""
    each = zip(_read(table, columns), _exposures(table, columns), strict=True)
    return {place: e for (*_, places), e in each if e is not None for place in places}


def _masked(table: Mapping[str, Any], columns: int) -> list[int]:
    """The columns whose holes are modelled.  RecipeError: they are no numbers of columns."""
    masked = table.get("masked", [])
    if not isinstance(masked, list) or not set(masked) <= set(range(columns)) or len(set(masked)) < len(masked):
        raise RecipeError(f"likelihood.masked: expected numbers of columns, 0 to {columns - 1}; got {shown(masked)}.")
    return masked


def features_of(table: Mapping[str, Any], columns: int) -> CellFeatures | HoleFeatures:
    """What the encoder sees of rows (columns,) of such a likelihood."""
    groups: dict[Any, list[int]] = {}
    levels: list[tuple[int, int]] = []
    for _, part, places in _read(table, columns):
        if isinstance(part.get("classes"), list):
            levels += zip(places, part["classes"], strict=True)
        else:
            groups.setdefault(find(LIKELIHOOD, part["type"]).offers.support, []).extend(places)
    angles, counts = groups.pop(Support.ANGLES, []), groups.get(Support.COUNTS, [])
    numbers = sorted(place for places in groups.values() for place in places)
    per = _per(table, columns)
    numbers = sorted({*numbers, *per.values()})
    cells, masked = CellFeatures(columns, numbers, counts, angles, levels, per), _masked(table, columns)
    return HoleFeatures(cells, masked) if masked else cells


def _read(table: Mapping[str, Any], columns: int) -> list[tuple[str, dict[str, Any], Sequence[int]]]:
    """Where each part stands, its table without the columns, and its columns; normals where no parts are given."""
    read = []
    for i, part in enumerate(table.get("parts") or [{"type": "normal", "columns": [*range(columns)]}]):
        where = f"likelihood.parts[{i}]"
        if not isinstance(part, Mapping) or not isinstance(part.get("columns"), list) or "type" not in part:
            raise RecipeError(f"{where}: expected {FORM}; got {shown(part)}.")
        read.append((where, {k: v for k, v in part.items() if k not in ("columns", "exposure")}, part["columns"]))
    return read
