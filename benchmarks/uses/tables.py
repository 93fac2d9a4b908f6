"""The tables of the protocols: raw columns as a user has them, and what the protocols call number and category."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.uses.cells import DATA

Columns = dict[str, np.ndarray[Any, Any]]  # by name: int64, float64 with NaN, or str objects with None where missing
Floats = np.ndarray[Any, np.dtype[np.float64]]
HOLES = ("", "NA", "?")
CONTINUOUS, DISCRETE, CATEGORY = "continuous", "discrete", "category"


@dataclass(frozen=True)
class Table:
    """A table and the protocol's kinds, which peers are told and the library is not.

    `kinds` says of each column: category; discrete, a number of few whole values; or continuous.
    """

    name: str
    columns: Columns
    kinds: dict[str, str]

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))

    @cached_property
    def levels(self) -> dict[str, list[Any]]:
        """The values of each category that occur, in order."""
        return {name: sorted(set(present(self.columns[name]))) for name in self.named(CATEGORY)}

    def named(self, *kinds: str) -> list[str]:
        return [name for name, kind in self.kinds.items() if kind in kinds]

    def is_category(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(F,), which columns are categories."""
        return np.array([kind == CATEGORY for kind in self.kinds.values()])

    def codes(self, columns: Mapping[str, np.ndarray[Any, Any]]) -> Floats:
        """(N, F) numbers of columns of this form: a category is the place of its level; NaN where missing."""
        return np.stack([self._code(name, columns[name]) for name in self.columns], axis=1)

    def _code(self, name: str, values: np.ndarray[Any, Any]) -> Floats:
        if self.kinds[name] != CATEGORY:
            return values.astype(np.float64)
        levels = self.levels[name]
        if values.dtype != object:  # a category of numbers: what is between two levels is the nearer one
            known = np.asarray(levels, dtype=np.float64)
            nearest = np.abs(values.astype(np.float64)[:, None] - known).argmin(axis=1).astype(np.float64)
            return np.where(np.isnan(values.astype(np.float64)), np.nan, nearest)
        place = {level: float(i) for i, level in enumerate(levels)}
        return np.array([place.get(value, np.nan) for value in values])

    def rows_of(self, chosen: np.ndarray[Any, Any]) -> Table:
        """Some rows, of the same kinds."""
        return Table(self.name, {name: values[chosen] for name, values in self.columns.items()}, self.kinds)

    def hidden(self, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Columns:
        """The columns with holes where the mask (N, F) is true."""
        holes = {}
        for place, (name, values) in enumerate(self.columns.items()):
            holes[name] = values.copy() if values.dtype == object else values.astype(np.float64)
            holes[name][mask[:, place]] = None if values.dtype == object else np.nan
        return holes

    def observed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(N, F), which cells have a value."""
        return ~np.isnan(self.codes(self.columns))


def present(values: np.ndarray[Any, Any]) -> list[Any]:
    if values.dtype == object:
        return [value for value in values if value is not None]
    return list(values[~np.isnan(values)])


def column(cells: list[str]) -> np.ndarray[Any, Any]:
    """Numbers where all cells are numbers or holes, else text. Whole numbers are int64 where all have no point."""
    cells = [cell.strip() for cell in cells]
    try:
        numbers = np.array([float("nan") if cell in HOLES else float(cell) for cell in cells])
    except ValueError:
        return np.array([None if cell in HOLES else cell for cell in cells], dtype=object)
    return whole(numbers) if not any("." in cell for cell in cells) else numbers


def whole(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """int64 where all numbers are there and whole."""
    return numbers.astype(np.int64) if np.isfinite(numbers).all() and (numbers == np.round(numbers)).all() else numbers


def read(path: Path, names: list[str] | None = None, separator: str = ",") -> Columns:
    """The columns of a file; of a file without a header line where names are given."""
    lines = path.read_text().splitlines()
    rows = [line.split() for line in lines] if separator == " " else list(csv.reader(lines, delimiter=separator))
    rows = [row for row in rows if row]
    if names is None:
        names, rows = rows[0], rows[1:]
    return {name: column([row[i] for row in rows]) for i, name in enumerate(names)}


def kinds_of(columns: Columns, categories: set[str]) -> dict[str, str]:
    """Category where it is named or text; discrete where at most 20 whole numbers occur; continuous otherwise."""

    def kind(name: str, values: np.ndarray[Any, Any]) -> str:
        if name in categories or values.dtype == object:
            return CATEGORY
        known = set(present(values))
        return DISCRETE if len(known) <= 20 and all(v == round(v) for v in known) else CONTINUOUS

    return {name: kind(name, values) for name, values in columns.items()}


WINE = ["fixed_acidity", "volatile_acidity", "citric_acid", "residual_sugar", "chlorides", "free_sulfur_dioxide"]
WINE += ["total_sulfur_dioxide", "density", "pH", "sulphates", "alcohol", "quality"]
BREAST = ["id", "thickness", "size", "shape", "adhesion", "epithelial", "nuclei", "chromatin", "nucleoli", "mitoses"]
HORSE = ["surgery", "age", "hospital_number", "temperature", "pulse", "breathing", "extremities", "peripheral_pulse"]
HORSE += ["mucous", "refill", "pain", "peristalsis", "distension", "tube", "reflux", "reflux_pH", "feces", "abdomen"]
HORSE += ["cell_volume", "protein", "fluid", "fluid_protein", "outcome", "lesion", "type_1", "type_2", "type_3", "data"]
HORSE_NUMBERS = {"temperature", "pulse", "breathing", "reflux_pH", "cell_volume", "protein", "fluid_protein"}


@dataclass(frozen=True)
class Source:
    """Where a table is, and what is known of it."""

    file: str
    names: list[str] | None = None
    separator: str = ","
    categories: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def table(self, name: str) -> Table:
        columns = read(DATA / self.file, self.names, self.separator)
        columns = {name: values for name, values in columns.items() if name not in self.without}
        return Table(name, columns, kinds_of(columns, set(self.categories)))


SOURCES = {
    "wine-red": Source("uci/winequality-red.csv", WINE),
    "wine-white": Source("uci/winequality-white.csv", WINE),
    "breast-cancer": Source(
        "uci/breast-cancer-wisconsin.data",
        [*BREAST, "class"],
        categories=frozenset(["class"]),
        without=frozenset(["id"]),
    ),
    "horse-colic": Source(
        "uci/horse-colic.data",
        HORSE,
        separator=" ",
        categories=frozenset(HORSE) - HORSE_NUMBERS,
        without=frozenset(["hospital_number", "type_1", "type_2", "type_3"]),
    ),
    "penguins": Source("tables/penguins.csv"),
    "titanic": Source("tables/titanic.csv", categories=frozenset(["survived", "pclass"])),
    "insurance": Source("tables/insurance.csv"),
}
SYNTHESIS = {
    "adult": Source("tables/adult.csv"),
    "beijing_pm25": Source(
        "tables/beijing_pm25.csv",
        categories=frozenset(["year", "month", "day", "hour"]),
        without=frozenset(["No"]),
    ),
    "online_shoppers": Source(
        "tables/online_shoppers.csv",
        categories=frozenset(["OperatingSystems", "Browser", "Region", "TrafficType"]),
    ),
}


def imputation_table(name: str) -> Table:
    return SOURCES[name].table(name)


def complete_table(name: str) -> Table:
    """A table for synthesis: numbers are all there (rows without are left out), a missing text is the level "?"."""
    table = SYNTHESIS[name].table(name)
    kept = np.ones(table.rows, dtype=bool)
    for values in table.columns.values():
        if values.dtype == object:
            values[np.array([value is None for value in values])] = "?"
        else:
            kept &= ~np.isnan(values)
    left = table.rows_of(kept)
    return Table(name, {n: v if v.dtype == object else whole(v) for n, v in left.columns.items()}, left.kinds)


def adbench(name: str) -> tuple[Floats, np.ndarray[Any, np.dtype[np.int64]]]:
    """Rows (N, D) and labels (N,), 1 for an anomaly."""
    with np.load(DATA / "adbench" / f"{name}.npz", allow_pickle=False) as file:
        return file["X"].astype(np.float64), file["y"].astype(np.int64)
