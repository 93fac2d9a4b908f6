"""What the values of TOML and JSON are: numbers, whole numbers, tables that name a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is written as a whole number."""
    return is_number(value) and isinstance(value, int)


def type_of(table: Any) -> Any:
    """The type that a table names, such as "elbo"; None of a table without a type, and of what is no table."""
    return table.get("type") if isinstance(table, Mapping) else None
