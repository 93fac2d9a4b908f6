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
SIGN, BLANK = "[+\u2212-]?", "[ \u00a0\u202f]?"
CURRENCY = "[$€£¥₩₹₽₺₫₪₴฿₦원円元]"
MARK = "[\u00a0\u202f\u2009'\u2019]"  # no-break and thin blanks and apostrophes, between thousands
POINT = rf"([1-9][0-9]{{0,2}}((,[0-9]{{3}})+|({MARK}[0-9]{{3}})+)|[0-9]+)(\.[0-9]+)?"  # 1,234.5
COMMA = rf"([1-9][0-9]{{0,2}}((\.[0-9]{{3}})+|({MARK}[0-9]{{3}})+)|[0-9]+)(,[0-9]+)?"  # 1.234,5
WHOLE = r"^[+-]?(0|[1-9][0-9]*)$"  # a leading zero makes a code, as in 00123
CODE = r"^0[0-9]+$"
DIGITS = r"^[+-]?[0-9]+([eE][+-]?[0-9]+)?$"
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
MONEY = (  # $1,234.50, and 20 beside it
    rf"^(\({CURRENCY}{BLANK}NUMBER\)|{CURRENCY}{BLANK}{SIGN}NUMBER|{SIGN}{CURRENCY}{BLANK}NUMBER|{SIGN}NUMBER)$",
    "a currency",
)
PRICE = rf"^(\(NUMBER{BLANK}{CURRENCY}\)|{SIGN}NUMBER{BLANK}{CURRENCY}|{SIGN}NUMBER)$", "a currency"  # 1.234,50 €
LOSSES = rf"^(\(NUMBER\)|{SIGN}NUMBER)$", "losses in parentheses"  # (1,234)
SHARE, LOSS_OR_GAIN = (Way(pattern.replace("NUMBER", PLAIN), how, CUT) for pattern, how in (PERCENT, LOSSES))
PLAINLY = Way(FLOAT)
GROUPED = Way(POINTS, "points between thousands", "", ".", ",")  # if another column of the file has decimal commas


def ways(commas: bool = False) -> tuple[Way, ...]:
    """How numbers may be written; the first that fits all words counts. `commas`: 1,234 is 1.234 rather than 1234."""
    order = -1 if commas else 1
    plain, percent, price, losses = (
        (with_points(*each), with_commas(*each))[::order] for each in (NUMBERS, PERCENT, PRICE, LOSSES)
    )
    money = with_points(*MONEY), with_commas(*MONEY)  # a currency stands before where commas are between thousands
    return (PLAINLY, *plain, SHARE, *percent, *money, *price, LOSS_OR_GAIN, *losses)


@dataclass(frozen=True)
class Readings:
    """In which ways all words of a column can be read as numbers.

    Attributes:
        ways: those, none of words that are no numbers.
        whole: whether all are whole numbers without marks, which no way reads otherwise.
    """

    ways: frozenset[Way] = frozenset()
    whole: bool = False

    @property
    def decimal(self) -> str:
        """The decimal mark, where the words leave no doubt of it; else ""."""
        marks = {way.decimal for way in self.ways}
        return marks.pop() if len(marks) == 1 and not self.whole else ""

    def first(self, commas: bool) -> Way | None:
        """The first way that fits."""
        return next((way for way in ways(commas) if way in self.ways), None)


@dataclass(frozen=True)
class Style:
    """How the numbers of a file are written.

    Attributes:
        commas: whether 1,234 is 1.234; groups: whether 1.234 is 1234, as beside decimal commas.
        mark: the decimal mark, where a column tells it; else "".
        sure: the decimal marks of columns that can be read in one way alone.
        between: what separates the columns.
    """

    commas: bool
    groups: bool
    mark: str
    sure: frozenset[str]
    between: str

    @classmethod
    def of(cls, columns: Sequence[Readings], between: str, rules: Sequence[Rule | None] = ()) -> Style:
        """As the columns tell that can be read in one way alone; if none can, or they differ, by the separator.

        Models of aevb 0.2 know no marks: their tables with tabs, bars and blanks had decimal commas.
        """
        sure = frozenset(column.decimal for column in columns) - {""}
        known = [rule for rule in rules if rule is not None]
        old = bool(known) and not any(rule.decimal for rule in known)
        commas = "," in sure if len(sure) == 1 else between != "," if old else between == ";"
        found = [column.first(commas) for column in columns]
        groups = any(way is not None and way.decimal == "," for way in found)
        points = "." in sure or any(way is not None and way.thousands == "," for way in found)
        return cls(commas, groups, "," if groups else "." if points else "", sure, between)

    def way(self, column: Readings) -> Way | None:
        """How the numbers of a column are written; None of words."""
        if self.groups and not column.whole and {PLAINLY, GROUPED} <= column.ways:
            return GROUPED
        return column.first(self.commas)

    def decimal(self, column: Readings) -> str:
        """The decimal mark of a column of numbers: its own, or where it has whole numbers alone that of the file."""
        way = self.way(column)
        return "" if way is None else self.mark if column.whole else way.decimal


@dataclass(frozen=True)
class Rule:
    """How a column is read that a model knows from training.

    Attributes:
        words: whether its words stay words, whatever they look like.
        levels: words that are there, though they may mark what is missing.
        keeps: whether every word but "" is there.
        decimal: the decimal mark, if known; else "".
    """

    words: bool = False
    levels: frozenset[str] = frozenset()
    keeps: bool = False
    decimal: str = ""

    @property
    def marks(self) -> frozenset[str]:
        """The words that mark what is missing."""
        return frozenset(("",)) if self.keeps else MISSING - self.levels

    def way(self, column: Readings, style: Style) -> Way | None:
        """How its numbers are written: with the mark of training, where all can be read so, and no other column is sure
        of another mark."""
        if self.words:
            return None
        if not self.decimal or column.whole or style.sure - {self.decimal}:
            return style.way(column)
        possible = (*ways(self.decimal == ","), *((GROUPED,) if style.between == ";" else ()))
        alike = (way for way in possible if way in column.ways and way.decimal == self.decimal)
        return next(alike, style.way(column))


@dataclass(frozen=True, eq=False)
class Typed:
    """A column with its type, the marks that counted as missing in it, and how its numbers were written."""

    values: Any
    marks: Counter[str]
    way: Way | None = None
    decimal: str = ""

    @property
    def written(self) -> str:
        return "" if self.way is None else self.way.how


def marked(words: Any, rule: Rule | None) -> tuple[Any, Counter[str]]:
    """An array of words without those that mark what is missing, and how often each of these stood there."""
    missing = MISSING if rule is None else rule.marks
    absent = pc.is_in(words, value_set=pa.array(sorted(missing), pa.string()))
    if not pc.any(absent).as_py():
        return words, Counter()
    marks = {s["values"]: s["counts"] for s in pc.value_counts(words.filter(absent)).to_pylist()}
    if rule is None and not DOUBTFUL.isdisjoint(marks):
        others = pc.count_distinct(words.filter(pc.invert(absent))).as_py()
        if others == 1:  # a level where it would leave one value alone
            marks = {word: n for word, n in marks.items() if word not in DOUBTFUL}
            absent = pc.is_in(words, value_set=pa.array(list(marks), pa.string()))
    return pc.if_else(absent, pa.scalar(None, pa.string()), words), Counter(marks)


def all_typed(columns: Sequence[Any], between: str, rules: Sequence[Rule | None] = ()) -> list[Typed]:
    """The columns of a file as int64, uint64 or float64 where all that is there is a number; else as they are."""
    rules = rules or [None] * len(columns)
    cells = [marked(words, rule) for words, rule in zip(columns, rules, strict=True)]
    read = [Readings() if rule and rule.words else readings(w) for (w, _), rule in zip(cells, rules, strict=True)]
    style = Style.of(read, between, rules)
    found = []
    for (words, marks), column, rule in zip(cells, read, rules, strict=True):
        way = rule.way(column, style) if rule else style.way(column)
        values = words if way is None else numbers_in(words, way)
        found.append(Typed(values, marks, way, style.decimal(column)))
    return found


def readings(words: Any) -> Readings:
    """In which ways all words can be read that are there."""
    if words.null_count == len(words) or pc.any(coded(words)).as_py():
        return Readings()
    if fits(words, FLOAT):
        whole = fits(words, DIGITS)
        return Readings(frozenset((PLAINLY, GROUPED) if not whole and fits(words, POINTS) else (PLAINLY,)), whole)
    found = frozenset(way for way in ways() if way is not PLAINLY and fits(words, way.pattern))
    return Readings() if found and len(currencies(words)) > 1 else Readings(found)


def currencies(words: Any) -> set[str]:
    """The currencies of which words have signs. Where there are several they are no numbers: $5 is not €5."""
    signs = pc.extract_regex(words, rf"(?P<sign>{CURRENCY})")
    return set(pc.unique(pc.struct_field(signs, "sign")).drop_null().to_pylist())


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
    """int64 or uint64; where neither holds them float64, or words if most have more than 19 digits: these are names."""
    for kind in (pa.int64(), pa.uint64()):
        try:
            return pc.cast(words, kind)
        except pa.ArrowInvalid:
            continue
    return words if 2 * long_in(words) > len(words) - words.null_count else pc.cast(words, pa.float64())


def long_in(words: Any) -> int:
    """How many words have so many digits that no type of whole numbers holds them."""
    return int(pc.sum(pc.greater(pc.utf8_length(words), 19)).as_py() or 0)


def said(columns: Sequence[Typed]) -> tuple[str, ...]:
    """One sentence for each mark and each way of writing numbers that was found."""
    marks = sum((column.marks for column in columns), Counter[str]())
    written = Counter(column.written for column in columns if column.written)
    notes = [f"{mark!r} counts as missing: {n:,} cells." for mark, n in marks.most_common() if mark]
    if marks[""]:
        notes.insert(0, f"An empty cell counts as missing: {marks['']:,} cells.")
    return (*notes, *(f"Columns whose numbers are written with {how}: {n}." for how, n in written.items()))
