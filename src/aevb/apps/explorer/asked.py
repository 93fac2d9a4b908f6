"""What a request may hold, checked: of the right type, of a size that can be answered. All else is an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

BODY = 8 * 2**20  # bytes of a request, at most
CODES = 1024  # that are decoded at a time
NUMBERS = 2_000_000  # in one question
FRAMES = 120  # of a film
LONGEST = 10_000  # characters of a cell
LARGEST = 1e6  # of a number of z: beyond it float32 and networks say nothing

T = TypeVar("T")


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP, 4xx.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def table_in(body: bytes) -> dict[str, Any]:
    """The JSON object of a request."""
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "The request is no JSON object.") from error
    if not isinstance(found, dict):
        raise Refused(400, "The request is no JSON object.")
    return found


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def number(value: Any, what: str, low: float = -LARGEST, high: float = LARGEST) -> float:
    ok = type(value) in (int, float) and low <= value <= high
    if not ok:
        raise Refused(400, f"{what} must be a number from {low:g} to {high:g}.")
    return float(value)


def whole(value: Any, what: str, low: int = 0, high: int = 10**9) -> int:
    if type(value) is not int or not low <= value <= high:
        raise Refused(400, f"{what} must be a whole number from {low} to {high}.")
    return value


def listed(value: Any, what: str, most: int, each: Callable[[Any], T], least: int = 1) -> list[T]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise Refused(400, f"{what} must be a list of {least} to {most:,} entries.")
    return [each(part) for part in value]


def codes(table: Mapping[str, Any], most: int = CODES, least: int = 1) -> list[list[float]]:
    """Codes "z", a list of lists of numbers."""
    found = listed(table.get("z"), "z", most, lambda row: row, least)
    if sum(len(row) for row in found if isinstance(row, list)) > NUMBERS:
        raise Refused(400, f"z must have at most {NUMBERS:,} numbers.")
    return [listed(row, "each code of z", NUMBERS, lambda v: number(v, "each number of z")) for row in found]


def indices(table: Mapping[str, Any], most: int) -> list[int]:
    """Points "indices"."""
    return listed(table.get("indices"), "indices", most, lambda v: whole(v, "each index"))


def chosen(table: Mapping[str, Any], name: str, possible: tuple[str, ...]) -> str:
    value = table.get(name)
    if value not in possible:
        raise Refused(400, f"{name} must be one of {', '.join(possible)}.")
    return str(value)


def optional_class(table: Mapping[str, Any]) -> int | None:
    """A class "y", or null."""
    value = table.get("y")
    return None if value is None else whole(value, "y")


def asked_whole(query: Mapping[str, str], name: str) -> int:
    """A whole number of the query."""
    text = query.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise Refused(400, f"{name} must be a whole number.")
    return int(text)


def texts(value: Any, what: str, longest: int) -> dict[str, str]:
    """A table of texts by names."""
    ok = isinstance(value, dict) and all(isinstance(v, str) and len(v) <= longest for v in value.values())
    if not ok:
        raise Refused(400, f"{what} must be texts by the names of columns, of at most {longest:,} characters each.")
    return dict(value)
