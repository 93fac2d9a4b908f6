"""What a text file is like, from its first lines: what separates the columns, and whether the first line names them."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from aevb.data.dates import NEVER

PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)*|[.,]\d+)([eE][+-]?\d+)?%?")
MISSING = frozenset(  # what stands in a file for a value that is not there
    (
        *("", "NA", "N/A", "n/a", "N.A.", "n.a.", "na", "NaN", "nan", "NAN", "-nan", "-NaN", "NULL", "Null", "null"),
        *("None", "?", "-", "--", ".", "..", "<NA>", "#N/A", "#N/A N/A", "#NA", "NaT", "#NULL!", "#DIV/0!", "#VALUE!"),
        *("#REF!", "#NUM!", "#NAME?", "1.#QNAN", "1.#IND", *NEVER),
    )
)
DOUBTFUL = frozenset(("-", ".", "None", "NA", "na", "null", "--", ".."))  # that may be a level of its own as well
PLAIN = ("\t", ";", "|", ",")  # separators, the first of those that fit
LONGEST = 2**31 - 1  # characters of a cell; Python's reader refuses more than 131,072 unless it is told


def rows_in(lines: Iterable[str], between: str, **how: Any) -> Any:
    """A reader of the values of each line, Python's; "" separates nothing."""
    csv.field_size_limit(LONGEST)
    return csv.reader(lines, delimiter=between or "\1", **how)


def separator(lines: Sequence[str], tabs: bool = False) -> str:
    """What stands between columns: a tab, ";", "|", ",", " " for runs of blanks, or "" where there is one column."""
    if tabs:
        return "\t"
    widths = {sep: [len(r) for r in rows_in(lines, sep, skipinitialspace=True)] for sep in PLAIN}
    widths[" "] = [len(r) for r in rows_in(map(blanks, lines), " ", skipinitialspace=True)]
    even = [sep for sep in (*PLAIN, " ") if same(widths[sep])]
    if even:
        return " " if even == [",", " "] and commas_are_decimal(lines) else even[0]
    return most_even(widths)


def blanks(line: str) -> str:
    return " ".join(line.split())


def same(widths: Sequence[int]) -> bool:
    """All lines have as many values, more than one; a header line may have one less (R writes such)."""
    body = set(widths[1:] or widths)
    return len(body) == 1 and max(body) > 1 and widths[0] in (max(body), max(body) - 1) and widths[0] > 1


def commas_are_decimal(lines: Sequence[str]) -> bool:
    """Whether «1,5 2,3» is two numbers: a comma stands between digits, never before a blank."""
    return all(re.search(r"\d,\d+\s+[+-]?\d", line) for line in lines[1:] or lines)


def most_even(widths: dict[str, list[int]]) -> str:
    """The separator that is in all lines, or by which most have the same number of values; "" if there is none."""
    shares = {}
    for sep in PLAIN:
        width, lines = Counter(widths[sep]).most_common(1)[0]
        if width > 1:
            everywhere = min(widths[sep]) > 1
            shares[sep] = lines / len(widths[sep]) + everywhere
    best = max(shares, key=lambda sep: shares[sep], default="")
    return best if best and shares[best] > 0.5 else ""


def header(records: Sequence[Sequence[str]]) -> list[str] | None:
    """The names in the first line, or None where it is a row as the others are."""
    first = [value.strip() for value in records[0]]
    return first if names_columns(first, records[1:]) else None


def names_columns(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether a line holds names.

    It names columns where none of its values is a number, and where in some column numbers follow, or in most columns
    its value does not come again. Numbers that count up, as a frame without names is saved, are names as well.
    """
    if not any(first) or "?" in first:
        return False
    if numbers := [value for value in first if NUMBER.fullmatch(value)]:
        counted = counting(numbers) and (above_fractions(first, rest) or not recurring(first, rest))
        return bool(rest) and (counted or unlike(first, rest))
    return not rest or numbers_follow(rest, len(first)) or not recurring(first, rest)


def numbers_follow(rest: Sequence[Sequence[str]], columns: int) -> bool:
    """Whether some column holds numbers."""
    return any(numeric([row[i] for row in rest if i < len(row)]) for i in range(columns))


def counting(numbers: Sequence[str]) -> bool:
    """Whether these are whole numbers that count up from 0, or from a year: three or more."""
    if len(numbers) < 3 or not all(n.isdigit() for n in numbers):
        return False
    whole, first = [int(n) for n in numbers], int(numbers[0])
    return (not first or 1900 <= first < 2100) and whole == list(range(first, first + len(whole)))


def above_fractions(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether a whole number stands above a column in which all numbers are written with a fraction."""
    below = ([row[i] for row in rest if i < len(row)] for i, value in enumerate(first) if value.isdigit())
    return any(numeric(values) and not any(value.strip().isdigit() for value in values) for values in below)


def unlike(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether whole numbers in a line with words, such as sample,400,410,420, name the columns.

    They do where they are three or more years in order, and the rows below are none. They do where none is like the
    numbers of its column, and a word stands above numbers, or three or more have equal steps, or fractions follow.
    """
    places = [i for i, value in enumerate(first) if NUMBER.fullmatch(value)]
    words = [i for i, value in enumerate(first) if value and i not in places]
    if not words or not all(first[i].isdigit() for i in places):
        return False
    below = {i: [row[i].strip() for row in rest if i < len(row)] for i in (*places, *words)}
    whole = [int(first[i]) for i in places]
    if years(whole):
        also = sum(years([int(row[i]) for i in places if i < len(row) and row[i].strip().isdecimal()]) for row in rest)
        there = [[row[i] for i in words if i < len(row)] for row in rest]
        return 2 * also < len(rest) and not recurring([first[i] for i in words], there)
    titled = any(first[i] not in MISSING and numeric(below[i]) for i in words)
    steps = {b - a for a, b in pairwise(whole)}
    even = len(whole) > 2 and len(steps) == 1 and min(steps) > 0
    fractions = len(whole) > 1 and min(steps) > 0 and not any(v.isdigit() for i in places for v in below[i])
    return (titled or even or fractions) and all(outside(int(first[i]), below[i]) for i in places)


def years(numbers: Sequence[int]) -> bool:
    """Whether these are three or more years in order."""
    rising = all(a < b for a, b in pairwise(numbers))
    return len(numbers) > 2 and rising and all(1900 <= number < 2100 for number in numbers)


def outside(number: int, values: Sequence[str]) -> bool:
    """Whether a whole number is none of a column of three or more: far from all of them, or all have fractions."""
    found = [float(value) for value in values if PLAIN_NUMBER.fullmatch(value)]
    if not numeric(values) or len(found) < 3:
        return False
    low, high = min(found), max(found)
    return max(low - number, number - high) > high - low or not any(value.isdigit() for value in values)


def numeric(values: Sequence[str]) -> bool:
    """Whether nearly all values that are there are numbers."""
    there = [value.strip() for value in values if value.strip() not in MISSING]
    return bool(there) and sum(NUMBER.fullmatch(value) is not None for value in there) >= 0.9 * len(there)


def recurring(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether the values of the first line come again in their columns, in more than a tenth of these."""
    again = sum(any(i < len(row) and row[i].strip() == value for row in rest) for i, value in enumerate(first) if value)
    return again > 0.1 * len(first)
