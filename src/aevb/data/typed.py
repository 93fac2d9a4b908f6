"""Words of a text file as numbers, where they are numbers; missing marks as missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aevb.data.guesses import DOUBTFUL, MISSING

SOME = 1000  # words, on which a pattern is tried first
SIGN, BLANK, CURRENCY = "[+\u2212-]?", "[ \u00a0\u202f]?", "[$€£¥]"
MARK = "[\u00a0\u202f\u2009'\u2019]"  # no-break and thin blanks and apostrophes, between thousands
POINT = rf"([0-9]{{1,3}}((,[0-9]{{3}})+|({MARK}[0-9]{{3}})+)|[0-9]+)(\.[0-9]+)?"  # 1,234.5
COMMA = rf"([0-9]{{1,3}}((\.[0-9]{{3}})+|({MARK}[0-9]{{3}})+)|[0-9]+)(,[0-9]+)?"  # 1.234,5
WHOLE = r"^[+-]?(0|[1-9][0-9]*)$"  # a leading zero makes a code, as in 00123
CODE = r"^0[0-9]+$"
POINTS = r"^[+-]?(0|[1-9][0-9]{0,2}(\.[0-9]{3})*)$"  # 1.234, in a file with decimal commas
PLAIN = r"[0-9]+(\.[0-9]+)?"
EXPONENT = "([eE][+-]?[0-9]+)?"
FLOAT = rf"^{SIGN}([0-9]+\.?[0-9]*|\.[0-9]+){EXPONENT}$|^{SIGN}(inf|Inf|INF|infinity|Infinity)$"
LOSS = r"^\((.*)\)$"  # an amount below zero, as accountants write it


@dataclass(frozen=True)
class Way:
    """A way to write numbers.

    Attributes:
        pattern: of all its words; how: what is said of it.
        cut: of what is taken out of them; thousands, decimal: what stands between thousands, and before a fraction.
    """

    pattern: str
    how: str = ""
    cut: str = ""
    thousands: str = ""
    decimal: str = "."

    def plain(self, words: Any) -> Any:
        """The words as Arrow's parser knows them."""
        plain = pc.replace_substring_regex(words, self.cut, "") if self.cut else words
        plain = pc.replace_substring(plain, self.thousands, "") if self.thousands else plain
        plain = pc.replace_substring(plain, self.decimal, ".") if self.decimal != "." else plain
        plain = pc.replace_substring_regex(plain, LOSS, r"-\1") if self.pattern.startswith(r"^(\(") else plain
        return unsigned(plain)


def with_points(pattern: str, how: str) -> Way:
    return Way(pattern.replace("NUMBER", POINT), how or "marks between thousands", CUT, ",")


def with_commas(pattern: str, how: str) -> Way:
    how = f"{how} and decimal commas" if how else "decimal commas"
    return Way(pattern.replace("NUMBER", COMMA), how, CUT, ".", ",")


CUT = f"{MARK}|{BLANK}(%|{CURRENCY}){BLANK}"
NUMBERS = rf"^{SIGN}NUMBER{EXPONENT}$", ""
PERCENT = rf"^{SIGN}NUMBER{BLANK}%$", "percent signs"
MONEY = (  # $1,234.50
    rf"^(\({CURRENCY}{BLANK}NUMBER\)|{CURRENCY}{BLANK}{SIGN}NUMBER|{SIGN}{CURRENCY}{BLANK}NUMBER)$",
    "a currency",
)
PRICE = rf"^(\(NUMBER{BLANK}{CURRENCY}\)|{SIGN}NUMBER{BLANK}{CURRENCY})$", "a currency"  # 1.234,50 €
LOSSES = rf"^(\(NUMBER\)|{SIGN}NUMBER)$", "losses in parentheses"  # (1,234)
SHARE, LOSS_OR_GAIN = (Way(pattern.replace("NUMBER", PLAIN), how, CUT) for pattern, how in (PERCENT, LOSSES))
GROUPED = Way(POINTS, "points between thousands", "", ".", ",")  # if another column of the file has decimal commas


def ways(between: str) -> tuple[Way, ...]:
    """How numbers may be written, by what separates the columns; the first that fits all words counts."""
    order = 1 if between == "," else -1
    plain, percent, price, losses = (
        (with_points(*each), with_commas(*each))[::order] for each in (NUMBERS, PERCENT, PRICE, LOSSES)
    )
    money = with_points(*MONEY), with_commas(*MONEY)  # a currency stands before where commas are between thousands
    return (Way(FLOAT), *plain, SHARE, *percent, *money, *price, LOSS_OR_GAIN, *losses)


@dataclass(frozen=True, eq=False)
class Typed:
    """A column with its type, the marks that counted as missing in it, and how its numbers were written."""

    values: Any
    marks: Counter[str]
    way: Way | None = None

    @property
    def written(self) -> str:
        return "" if self.way is None else self.way.how


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
    way = way_of(words, between)
    return Typed(words if way is None else numbers_in(words, way), Counter(marks), way)


def all_typed(columns: Sequence[Any], between: str) -> list[Typed]:
    """The columns of a file, each with its type. Where one has decimal commas, a point stands between thousands."""
    found = [typed(words, between) for words in columns]
    if not decimal_commas(column.way for column in found):
        return found
    return [grouped(column, words) for column, words in zip(found, columns, strict=True)]


def decimal_commas(found: Iterable[Way | None]) -> bool:
    """Whether a column of a file has decimal commas."""
    return any(way is not None and way.decimal == "," for way in found)


def grouped(column: Typed, words: Any) -> Typed:
    """A column of numbers such as 1.234 as whole numbers."""
    there = words.filter(pc.invert(pc.is_in(words, value_set=pa.array(list(column.marks), pa.string()))))
    if column.written or not pa.types.is_floating(column.values.type) or not fits(there, POINTS):
        return column
    plain = pc.if_else(column.values.is_null(), pa.scalar(None, pa.string()), words)
    return Typed(numbers_in(plain, GROUPED), column.marks, GROUPED)


def way_of(words: Any, between: str) -> Way | None:
    """How the numbers in a column are written; None where some word is none."""
    if words.null_count == len(words) or pc.any(coded(words)).as_py():
        return None
    return next((way for way in ways(between) if fits(words, way.pattern)), None)


def numbers_in(words: Any, way: Way) -> Any:
    """Numbers that are written in this way; whole ones where none has a fraction, words where no type holds them."""
    plain = way.plain(words)
    return whole(plain) if fits(plain, WHOLE) else pc.cast(plain, pa.float64())


def fits(words: Any, pattern: str) -> bool:
    """Whether all words that are there match a pattern; some of them are looked at first, since most columns do not."""
    some = words.slice(0, SOME)
    each = (some, words) if len(words) > SOME else (words,)
    return all(pc.all(pc.match_substring_regex(part, pattern), min_count=0).as_py() for part in each)


def coded(words: Any) -> Any:
    """Which words are digits after a leading zero."""
    return pc.match_substring_regex(words.filter(pc.starts_with(words, "0")), CODE)


def unsigned(words: Any) -> Any:
    """Numbers without a plus sign and with a plain minus, since Arrow's parser knows no other."""
    plus = pc.any(pc.starts_with(words, "+")).as_py()
    plain = pc.replace_substring_regex(words, r"^\+", "") if plus else words
    return pc.replace_substring(plain, "\u2212", "-")


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
