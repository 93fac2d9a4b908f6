"""The type of a text column that is read part by part: what `typed` finds in the whole column, in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aevb.data.guesses import DOUBTFUL, MISSING
from aevb.data.typed import (
    DIGITS,
    GROUPED,
    PLAINLY,
    WHOLE,
    Readings,
    Rule,
    Style,
    Way,
    coded,
    currencies,
    fits,
    long_in,
    ways,
)


@dataclass(frozen=True)
class Meaning:
    """How the words of a column are read: which marks are missing, how its numbers are written, and their type."""

    marks: tuple[str, ...]
    way: Way | None = None
    kind: Any = None

    def read(self, words: Any) -> Any:
        """Some words of the column in its type."""
        if self.marks:
            absent = pc.is_in(words, value_set=pa.array(self.marks, pa.string()))
            words = pc.if_else(absent, pa.scalar(None, pa.string()), words)
        return words if self.way is None else pc.cast(self.way.plain(words), self.kind)


@dataclass
class Fitting:
    """What holds of all words so far, read in one way: they are whole numbers, and which types hold them."""

    whole: bool = True
    types: tuple[Any, ...] = (pa.int64(), pa.uint64())
    words: int = 0
    long: int = 0

    def add(self, plain: Any) -> None:
        self.whole = self.whole and fits(plain, WHOLE)
        if self.whole:
            self.types = tuple(kind for kind in self.types if holds(kind, plain))
            self.words, self.long = self.words + len(plain), self.long + long_in(plain)

    @property
    def kind(self) -> Any:
        if not self.whole or not self.types:
            return pa.string() if self.whole and 2 * self.long > self.words else pa.float64()
        return self.types[0]


def holds(kind: Any, words: Any) -> bool:
    """Whether a type of whole numbers holds all of these."""
    try:
        pc.cast(words, kind)
    except pa.ArrowInvalid:
        return False
    return True


@dataclass
class Tally:
    """What is known of a column after some of its parts.

    Attributes:
        rule: how it is read, where a model knows it.
        rows: how many were counted in.
        marks: how often each mark of a missing value stood there; others: two of the other words.
        code: whether a word is a number with leading zeros; ways: those in which all words can be read.
        digits: whether all words are digits alone; signs: the currencies of which words have signs.
    """

    rule: Rule | None = None
    rows: int = 0
    marks: Counter[str] = field(default_factory=Counter)
    others: set[str] = field(default_factory=set)
    code: bool = False
    digits: bool = True
    signs: set[str] = field(default_factory=set)
    ways: dict[Way, Fitting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ways = {} if self.rule and self.rule.words else {way: Fitting() for way in (*ways(), GROUPED)}
        self.missing = pa.array(sorted(MISSING if self.rule is None else self.rule.marks), pa.string())

    def add(self, words: Any) -> Any:
        """Count a part of the column in; returns its words that are no marks."""
        self.rows += len(words)
        absent = pc.is_in(words, value_set=self.missing)
        self.marks.update({s["values"]: s["counts"] for s in pc.value_counts(words.filter(absent)).to_pylist()})
        there = words.filter(pc.invert(absent))
        if len(self.others) < 2:
            self.others |= set(pc.unique(there).slice(0, 2).to_pylist())
        self.code = self.code or bool(pc.any(coded(there)).as_py())
        self.digits = self.digits and fits(there, DIGITS)
        self.ways = {} if self.code else {way: f for way, f in self.ways.items() if fits(there, way.pattern)}
        if self.ways and PLAINLY not in self.ways:
            self.signs |= currencies(there)
            self.ways = {} if len(self.signs) > 1 else self.ways
        for way, found in self.ways.items():
            found.add(way.plain(there))
        return there

    @property
    def readings(self) -> Readings:
        """In which ways all words can be read; none of words that are no numbers, or of none at all."""
        if not self.others:
            return Readings()
        if PLAINLY in self.ways:
            also = () if self.digits or GROUPED not in self.ways else (GROUPED,)
            return Readings(frozenset((PLAINLY, *also)), self.digits)
        return Readings(frozenset(self.ways) - {GROUPED})

    def meaning(self, style: Style) -> Meaning:
        """How the column is read, now that all parts of the file are counted."""
        if self.rule is None and len(self.others) == 1 and not DOUBTFUL.isdisjoint(self.marks):
            return Meaning(tuple(mark for mark in self.marks if mark not in DOUBTFUL))
        way = self.rule.way(self.readings, style) if self.rule else style.way(self.readings)
        kind = None if way is None else self.ways[way].kind
        return Meaning(tuple(self.marks), None if kind == pa.string() else way, kind)
