"""Data whose numbers mean what those of other data mean, so that a model of the one reads the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from aevb.data.columns import CODED, Column, Schema
from aevb.data.dataset import Dataset, Split
from aevb.data.values import Values
from aevb.errors import DataError


def alike(data: Dataset, values: Values) -> Dataset:
    """The data with the mean and std, or with the columns and levels, that `values` of other data have.

    A level that those do not have counts as one that training never saw. Holes of any column are as they are.

    Raises:
        DataError: the numbers are of another kind; or a column is not there, or of another kind.
    """
    own = data.train.values
    if own.kind != values.kind:
        raise DataError(f"{data.name}: its numbers are {own.kind}, but {values.kind} are needed. Set data.values.")
    if values.kind == "standardized" and (own.origin is None) == (values.origin is None):
        return _each(data, values)
    return data if values.schema is None else _each(data, values, own.columns)


def _each(data: Dataset, values: Values, schema: Schema | None = None) -> Dataset:
    def changed(split: Split) -> Split:
        stored = split.stored if schema is None else recoded(split.stored, schema, values.columns, data.name)
        return replace(split, stored=stored, values=replace(values, dtype=split.values.dtype))

    return replace(data, train=changed(data.train), validation=changed(data.validation), test=changed(data.test))


def recoded(stored: Tensor, now: Schema, then: Schema, where: str) -> Tensor:
    """Stored numbers (N, F) of one schema as those (N, F') of another, column by column of its name."""
    places = {column.name: place for place, column in enumerate(now.model)}

    def columns() -> Iterator[Tensor]:
        for column in then.model:
            if column.name not in places:
                raise DataError(
                    f"{where} has no column {column.name!r} that is modelled, as the run has. Give --column."
                )
            place = places[column.name]
            yield _recoded(stored[:, place], now.model[place], column, where)

    return torch.stack(list(columns()), 1) if now != then else stored


def _recoded(numbers: Tensor, now: Column, then: Column, where: str) -> Tensor:
    coded = (now.kind in CODED, then.kind in CODED)
    if (now.kind != then.kind and any(coded)) or (now.kind == "angle") != (then.kind == "angle"):
        raise DataError(
            f"{where}: column {now.name!r} is {now.kind}, but {then.kind} in the run. Ask for it: --column"
            f" {now.name}={then.kind}"
        )
    if now.levels == then.levels or not now.levels:
        return numbers + (now.origin - then.origin)
    if now.kind == "angle":
        return _turned(numbers, now, then)
    codes = {str(level): float(code) for code, level in enumerate(then.levels)}
    table = torch.tensor([*(codes.get(str(level), len(then.levels)) for level in now.levels), len(then.levels)])
    read = table.double()[numbers.nan_to_num(0.0).long()]
    return torch.where(numbers.isnan(), torch.nan, read)


def _turned(radians: Tensor, now: Column, then: Column) -> Tensor:
    """Radians from one start and period as those from another, in (-π, π]."""
    (start, period), (first, whole) = now.levels, then.levels
    turned: Tensor = (start - first) / whole * 2 * math.pi + radians * period / whole
    back: Tensor = math.pi - (math.pi - turned) % (2 * math.pi)
    return back
