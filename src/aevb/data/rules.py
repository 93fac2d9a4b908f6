"""How the columns of a new text file are read, by the columns of training: a word means what it meant there."""

from __future__ import annotations

from collections.abc import Sequence

from aevb.data.columns import CODED, Column, Schema
from aevb.data.typed import Rule


def rules_of(schema: Schema, names: Sequence[str]) -> list[Rule | None]:
    """One for each column of a file; None of columns that are not known."""
    known = {column.name: column for column in schema.columns if not column.sums}
    return [rule_of(known[name]) if name in known else None for name in names]


def rule_of(column: Column) -> Rule | None:
    """Words of text stay words, and those that are levels are there; numbers are written as they were in training."""
    text = column.dtype.startswith("String")
    if not column.modelled:
        return Rule(words=True, keeps=True) if text else None
    if column.kind in CODED:
        levels = frozenset(level for level in column.levels if isinstance(level, str))
        return Rule(words=True, levels=levels) if levels else Rule()
    return Rule(words=True) if column.kind == "datetime" else Rule(decimal=column.decimal)
