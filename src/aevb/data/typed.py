"""Words of a text file as numbers, where they are numbers; missing marks as missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aevb.data.guesses import DOUBTFUL, MISSING

SOME = 1000  # words, on which a pattern is tried first
WHOLE = r"^[+-]?(0|[1-9][0-9]*)$"  # a leading zero makes a code, as in 00123
CODE = r"^0[0-9]+$"
COMMA = r"^[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]+)?([eE][+-]?[0-9]+)?$"  # 1.234,5 or 1234,5
THOUSANDS = r"^[+-]?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]+)?$"  # 1,234.5
POINTS = r"^[+-]?(0|[1-9][0-9]{0,2}(\.[0-9]{3})*)$"  # 1.234, in a file with decimal commas
PERCENT = r"^[+-]?[0-9]+(\.[0-9]+)? ?%$"
MONEY = r"^[+-]?[$€£¥] ?[+-]?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]+)?$"
FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(inf|Inf|INF|infinity|Infinity)$"
COMMAS = "decimal commas"


@dataclass(frozen=True, eq=False)
class Typed:
    """A column with its type, the marks that counted as missing in it, and how its numbers were written."""

    values: Any
    marks: Counter[str]
    written: str = ""


def typed(words: Any, between: str) -> Typed:
    """An array of strings as int64, uint64 or float64 where all that is there is a number; else as it is."""
    marks: dict[str, int] = {}
    absent = pc.is_in(words, value_set=pa.array(list(MISSING), pa.string()))
    if pc.any(absent).as_py():
        marks = {s["values"]: s["counts"] for s in pc.value_counts(words.filter(absent)).to_pylist()}
        others = pc.count_distinct(words.filter(pc.invert(absent))).as_py()
        if others == 1 and not DOUBTFUL.isdisjoint(marks):  # a level where it would leave one value alone
            marks = {word: n for word, n in marks.items() if word not in DOUBTFUL}
            absent = pc.is_in(words, value_set=pa.array(list(marks), pa.string()))
        words = pc.if_else(absent, pa.scalar(None, pa.string()), words)
    numbers, written = as_numbers(words, between)
    return Typed(words if numbers is None else numbers, Counter(marks), written)


def all_typed(columns: Sequence[Any], between: str) -> list[Typed]:
    """The columns of a file, each with its type. Where one has decimal commas, a point stands between thousands."""
    found = [typed(words, between) for words in columns]
    if all(column.written != COMMAS for column in found):
        return found
    return [grouped(column, words) for column, words in zip(found, columns, strict=True)]


def grouped(column: Typed, words: Any) -> Typed:
    """A column of numbers such as 1.234 as whole numbers."""
    there = words.filter(pc.invert(pc.is_in(words, value_set=pa.array(list(column.marks), pa.string()))))
    if column.written or not pa.types.is_floating(column.values.type) or not fits(there, POINTS):
        return column
    plain = pc.if_else(column.values.is_null(), pa.scalar(None, pa.string()), words)
    return Typed(rewritten(plain, ".", ","), column.marks, "points between thousands")


def as_numbers(words: Any, between: str) -> tuple[Any, str]:
    """Numbers, and how they were written; None where some word is none."""
    if words.null_count == len(words):
        return None, ""
    if fits(words, WHOLE):
        return whole(unsigned(words)), ""
    if pc.any(coded(words)).as_py():
        return None, ""
    if fits(words, FLOAT):
        return pc.cast(unsigned(words), pa.float64()), ""
    return as_written(words, between)


def as_written(words: Any, between: str) -> tuple[Any, str]:
    """Numbers that are written with signs, or with commas, and how; None where some word is none."""
    if fits(words, PERCENT):
        return rewritten(pc.replace_substring_regex(words, r" ?%$", ""), "", "."), "percent signs"
    if fits(words, MONEY):
        return rewritten(pc.replace_substring_regex(words, r"[$€£¥] ?", ""), ",", "."), "a currency"
    ways = [(COMMA, ".", ",", COMMAS), (THOUSANDS, ",", ".", "commas between thousands")]
    for pattern, thousands, decimal, how in ways[::-1] if between == "," else ways:
        if fits(words, pattern):
            return rewritten(words, thousands, decimal), how
    return None, ""


def fits(words: Any, pattern: str) -> bool:
    """Whether all words that are there match a pattern; some of them are looked at first, since most columns do not."""
    some = words.slice(0, SOME)
    each = (some, words) if len(words) > SOME else (words,)
    return all(pc.all(pc.match_substring_regex(part, pattern), min_count=0).as_py() for part in each)


def coded(words: Any) -> Any:
    """Which words are digits after a leading zero."""
    return pc.match_substring_regex(words.filter(pc.starts_with(words, "0")), CODE)


def unsigned(words: Any) -> Any:
    """Numbers without a plus sign, which Arrow's parser does not know."""
    plus = pc.any(pc.starts_with(words, "+")).as_py()
    return pc.replace_substring_regex(words, r"^\+", "") if plus else words


def rewritten(words: Any, thousands: str, decimal: str) -> Any:
    """Numbers without what stands between thousands; whole numbers where none has a fraction."""
    plain = pc.replace_substring(words, thousands, "") if thousands else words
    plain = pc.replace_substring(plain, decimal, ".")
    plain = unsigned(plain)
    return whole(plain) if fits(plain, WHOLE) else pc.cast(plain, pa.float64())


def whole(words: Any) -> Any:
    """int64 or uint64; words where neither holds them."""
    for kind in (pa.int64(), pa.uint64()):
        try:
            return pc.cast(words, kind)
        except pa.ArrowInvalid:
            continue
    return words


def said(columns: Sequence[Typed]) -> tuple[str, ...]:
    """One sentence for each mark and each way of writing numbers that was found."""
    marks = sum((column.marks for column in columns), Counter[str]())
    written = Counter(column.written for column in columns if column.written)
    notes = [f"{mark!r} counts as missing: {n:,} cells." for mark, n in marks.most_common() if mark]
    if marks[""]:
        notes.insert(0, f"An empty cell counts as missing: {marks['']:,} cells.")
    return (*notes, *(f"Columns whose numbers are written with {how}: {n}." for how, n in written.items()))
