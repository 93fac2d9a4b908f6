"""The type of a text column that is read part by part: what `typed` finds in the whole column, in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aevb.data.guesses import DOUBTFUL, MISSING
from aevb.data.typed import GROUPED, WHOLE, Way, coded, fits, ways

MARKS = pa.array(sorted(MISSING), pa.string())


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

    def add(self, plain: Any) -> None:
        self.whole = self.whole and fits(plain, WHOLE)
        if self.whole:
            self.types = tuple(kind for kind in self.types if holds(kind, plain))

    @property
    def kind(self) -> Any:
        return (*self.types, pa.string())[0] if self.whole else pa.float64()


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
        between: what separates the columns of the file.
        rows: how many were counted in.
        marks: how often each mark of a missing value stood there; others: two of the other words.
        code: whether a word is a number with leading zeros; ways: those in which all words can be read.
    """

    between: str
    rows: int = 0
    marks: Counter[str] = field(default_factory=Counter)
    others: set[str] = field(default_factory=set)
    code: bool = False
    ways: dict[Way, Fitting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ways = {way: Fitting() for way in (*ways(self.between), GROUPED)}

    def add(self, words: Any) -> Any:
        """Count a part of the column in; returns its words that are no marks."""
        self.rows += len(words)
        absent = pc.is_in(words, value_set=MARKS)
        self.marks.update({s["values"]: s["counts"] for s in pc.value_counts(words.filter(absent)).to_pylist()})
        there = words.filter(pc.invert(absent))
        if len(self.others) < 2:
            self.others |= set(pc.unique(there).slice(0, 2).to_pylist())
        self.code = self.code or bool(pc.any(coded(there)).as_py())
        self.ways = {} if self.code else {way: f for way, f in self.ways.items() if fits(there, way.pattern)}
        for way, found in self.ways.items():
            found.add(way.plain(there))
        return there

    @property
    def way(self) -> Way | None:
        """How its numbers are written, by its words alone; None of words that are no numbers."""
        return next(iter(self.ways), None) if self.others else None

    def meaning(self, commas: bool) -> Meaning:
        """How the column is read, now that all parts are counted; `commas`: a column of the file has decimal commas."""
        if len(self.others) == 1 and not DOUBTFUL.isdisjoint(self.marks):
            return Meaning(tuple(mark for mark in self.marks if mark not in DOUBTFUL))
        way = GROUPED if commas and self.others and GROUPED in self.ways else self.way
        return Meaning(tuple(self.marks), way, None if way is None else self.ways[way].kind)
