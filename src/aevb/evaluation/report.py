"""Reports on a model: what each measures, and how its numbers are printed. A report is one file of `reports/`.

It is found by the file's name: `aevb evaluate --report NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any

from torch import Tensor

from aevb.data.batch import Indexable
from aevb.data.dataset import Split
from aevb.errors import RecipeError, suggest
from aevb.evaluation.estimate import Estimate
from aevb.evaluation.reports import names
from aevb.models.inference import Model

Numbers = Mapping[str, Any]  # of a report: an `Estimate`, a number or a text for each name
Cells = tuple[str, str, str]  # what, value, unit or meaning


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        model: of which it reports.
        rows: N rows of a split, fixed; data: the same rows on the model's device, with conditions y where it reads
            some.
        train: rows of the train split, fixed.
        conditions: n → y (n, *C) for n generated data points; None for an unconditional model.
    """

    model: Model
    rows: Split
    data: Indexable
    train: Split
    conditions: Callable[[int], Tensor | None]


@dataclass(frozen=True)
class Line:
    """A line of a table: the number `key`, or `table.key`, what it is, and its unit; both may name others, as
    {samples}."""

    key: str
    what: str
    unit: str = ""
    digits: int = 2

    def cells(self, numbers: Numbers) -> Cells | None:
        """The three cells; None where the number is missing or undefined."""
        value: Any = numbers
        for part in self.key.split("."):
            value = value.get(part)
        if value is None:
            return None
        text = Estimate.text(value if isinstance(value, Estimate) else Estimate(value), self.digits)
        return None if text == "–" else (self.what.format_map(numbers), text, self.unit.format_map(numbers))


@dataclass(frozen=True)
class Report:
    """A report: `measure` gives its numbers, `lines` print them under `title`, which may name numbers, as {n}."""

    measure: Callable[[Subject], Numbers]
    title: str
    lines: tuple[Line, ...]
    closing: str = ""

    def rows(self, numbers: Numbers) -> list[Cells]:
        return cells(self.lines, numbers)


def cells(lines: Iterable[Line], numbers: Numbers) -> list[Cells]:
    """The lines whose numbers are defined."""
    return [found for line in lines if (found := line.cells(numbers)) is not None]


def report(name: str) -> Report:
    """The report of this name.

    Raises:
        RecipeError: there is none.
    """
    if name not in names():
        raise RecipeError(f"--report: there is no {name!r}.{suggest(name, names())}")
    found: Report = import_module(f"aevb.evaluation.reports.{name}").REPORT
    return found


def as_text(title: str, rows: Iterable[Cells]) -> str:
    """A table in plain text."""
    listed = list(rows)
    widths = [max((len(row[i]) for row in listed), default=0) for i in (0, 1)]
    lines = (f"{what:<{widths[0]}}  {value:>{widths[1]}}  {unit}".rstrip() for what, value, unit in listed)
    return "\n".join([title, *lines])


def as_html(title: str, rows: Iterable[Cells]) -> str:
    """A table for notebooks."""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption>{body}</table>"
