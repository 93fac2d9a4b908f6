"""`python -m benchmarks.uses`: what its protocols hide, count and average, on tables small enough to check by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.uses.cells import Cell, Result, Stopwatch, measured, read
from benchmarks.uses.imputation import Filled, Wide, chained, covered, mean_or_mode
from benchmarks.uses.synthesis import factorised, smote
from benchmarks.uses.tables import CATEGORY, CONTINUOUS, DISCRETE, Table, column, kinds_of
from benchmarks.uses.tally import Results, spread

NAN = float("nan")


@pytest.fixture
def table() -> Table:
    """A number, a category of words, and a category of numbers: six rows, two holes."""
    words = np.array(["b", "a", "b", None, "b", "a"], dtype=object)
    columns = {"x": np.array([0.5, 1.0, 1.5, 2.0, NAN, 5.0]), "word": words, "code": np.array([1, 3, 3, 1, 3, 3])}
    return Table("small", columns, {"x": CONTINUOUS, "word": CATEGORY, "code": CATEGORY})


def test_cells_of_a_file_are_numbers_where_all_are_numbers_or_holes() -> None:
    assert column([" 1", "?", "2.5"]) == pytest.approx([1, NAN, 2.5], nan_ok=True)
    assert column(["1", "2"]).dtype == np.int64
    assert column(["1.0", "2"]).dtype == np.float64
    assert column([" ab", "?", ""]).tolist() == ["ab", None, None]


def test_kinds_are_told_by_values_and_by_name_where_it_is_known() -> None:
    columns = {"few": np.arange(5), "many": np.arange(30), "broken": np.array([0.5, 1]), "code": np.array([1, 2])}
    expected = {"few": DISCRETE, "many": CONTINUOUS, "broken": CONTINUOUS, "code": CATEGORY}
    assert kinds_of(columns, {"code"}) == expected


def test_a_category_is_the_place_of_its_level_and_numbers_between_go_to_the_nearer(table: Table) -> None:
    assert table.codes(table.columns)[:, 1] == pytest.approx([1, 0, 1, NAN, 1, 0], nan_ok=True)
    answer = table.columns | {"code": np.array([1.2, 2.1, 9.0, -4.0, NAN, 3.0])}
    assert table.codes(answer)[:, 2] == pytest.approx([0, 1, 1, 0, NAN, 1], nan_ok=True)


def test_hidden_cells_are_missing_and_the_table_is_as_it_was(table: Table) -> None:
    mask = np.zeros((6, 3), dtype=bool)
    mask[0], mask[1, 2] = True, True
    holes = table.hidden(mask)
    assert holes["x"] == pytest.approx([NAN, 1, 1.5, 2, NAN, 5], nan_ok=True)
    assert holes["word"].tolist() == [None, "a", "b", None, "b", "a"]
    assert holes["code"] == pytest.approx([NAN, NAN, 3, 1, 3, 3], nan_ok=True)
    assert table.columns["x"][0] == 0.5


def test_mean_and_mode(table: Table) -> None:
    best = mean_or_mode(table, table.codes(table.columns), 0).best
    assert best[4, 0] == pytest.approx(2.0)
    assert best[3, 1] == 1


def test_wide_columns_come_back_and_a_missing_category_is_missing_in_all_its_columns(table: Table) -> None:
    codes = mean_or_mode(table, table.codes(table.columns), 0).best
    wide = Wide.of(codes, table.is_category())
    assert wide.narrow(wide.widen(codes)) == pytest.approx(codes)
    codes[2, 1] = NAN
    assert np.isnan(wide.widen(codes)).sum() == 2


def test_chained_equations_end_at_levels(table: Table) -> None:
    class Far:
        def fit_transform(self, numbers: np.ndarray) -> np.ndarray:
            return np.where(np.isnan(numbers), 50.0, numbers)

    filled = chained(Far(), table, table.codes(table.columns))
    assert filled[3, 1] == 1
    assert filled[4, 0] > 50


def test_coverage_counts_hidden_cells_of_continuous_columns(table: Table) -> None:
    truth = table.codes(table.columns)
    hidden = ~np.isnan(truth)
    draws = np.broadcast_to(np.linspace(0.9, 2.1, 21)[:, None, None], (21, 6, 3))
    assert covered(table, Filled(truth, draws), truth, hidden) == {"cells": 5, "inside": 3}


def test_factorised_rows_keep_levels_and_smote_keeps_whole_numbers(table: Table) -> None:
    columns = {"n": np.array([0, 10, 20, 30, 40, 50, 60]), "word": np.array(list("abababa"), dtype=object)}
    train = Table("whole", columns, {"n": CONTINUOUS, "word": CATEGORY})
    assert set(factorised(train, 50, 0)["n"]) <= set(columns["n"])
    made = smote(train, 200, 0)
    assert made["n"].dtype == np.int64
    assert made["n"].min() >= 0
    assert made["n"].max() <= 60
    assert set(made["n"] % 10) == set(range(10))
    assert set(made["word"]) == {"a", "b"}


def test_what_is_in_the_file_is_not_measured_again_and_a_failure_is_not_in_it(tmp_path: Path) -> None:
    calls: list[str] = []

    def good() -> dict[str, float]:
        calls.append("good")
        with Stopwatch() as watch:
            Stopwatch.elsewhere += 3.0
        return {"auroc": 0.5, "seconds": watch.seconds}

    def bad() -> dict[str, float]:
        raise RuntimeError("not there yet")

    cells = [Cell("p", "d", "good", 0, good), Cell("p", "d", "bad", 0, bad)]
    file = tmp_path / "results.jsonl"
    assert [line.split(":")[1] for line in measured(cells, file)] == [" auroc 0.5, 3.0 s", " failed"]
    assert [line.split(":")[0] for line in measured(cells, file)] == ["p d bad 0"]
    assert calls == ["good"]
    assert [(r.key, r.numbers, round(r.seconds)) for r in read(file)] == [(("p", "d", "good", 0), {"auroc": 0.5}, 3)]


def test_a_mean_over_sets_takes_the_seeds_that_have_all_sets() -> None:
    values = {("a", 0): 0.5, ("b", 0): 0.7, ("a", 1): 0.7, ("b", 1): 0.9, ("a", 2): 0.1}
    results = [Result("p", data, "m", seed, {"n": v}, 1.0, 0.0, "") for (data, seed), v in values.items()]
    assert Results(results, "p").means("n", "m", ["a", "b"]) == pytest.approx([0.6, 0.8])
    assert Results(results, "p").mean("n", "m", ["a", "c"]) is None
    assert [spread(v) for v in ([], [0.25], [0.6, 0.8])] == ["–", "0.250", "0.700 ± 0.141"]
