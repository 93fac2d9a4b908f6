"""Faulty tables: the command line and the estimators say what is wrong and where, or treat it as they state."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aevb import DataError
from aevb.apps.cli import main
from aevb.data.kinds import look
from aevb.data.tables import frame_of
from aevb.estimators import VAEEmbedding, VAEImputer, VAEOutlierDetector, VAESynthesizer

ESTIMATORS = [VAEEmbedding, VAEImputer, VAEOutlierDetector, VAESynthesizer]
QUICK: dict[str, Any] = {"samples": 100, "hidden": (4,), "importance_samples": 5, "random_state": 0}


def table(n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    days = pd.date_range("2021-01-01", periods=n).strftime("%Y-%m-%d")
    return pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "day": days})


def infinite(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[7, "b"] = -np.inf
    return frame


def impossible(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[:11, "day"] = "2021-02-30"
    return frame


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_axis(["a", "a", "day"], axis=1)


FAULTS: list[tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = [
    (infinite, "column 'b' holds an infinite number (row 7, counted from 0). Make it a missing value."),
    (impossible, "column 'day' holds dates, but '2021-02-30' is not one. Empty the cell, or ask for day=categorical."),
    (twice, "has several columns of the name 'a': give each a name of its own."),
]


def said(*words: object) -> str:
    """What `aevb words...` says on stderr as it fails."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["aevb", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 1, out.getvalue()
    return err.getvalue().strip()


@pytest.mark.parametrize(("spoil", "words"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_the_command_line_names_the_fault(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], words: str, tmp_path: Path
) -> None:
    place = tmp_path / "t.csv"
    spoil(table()).to_csv(place, index=False)
    found = said("train", place, "--out", tmp_path / "run")
    assert found.startswith("error: ")
    assert found.endswith(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("spoil", "words"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_estimator_names_the_fault(
    estimator: type[Any], spoil: Callable[[pd.DataFrame], pd.DataFrame], words: str
) -> None:
    with pytest.raises(DataError) as fault:
        estimator(**QUICK).fit(spoil(table()))
    assert str(fault.value).endswith(words)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_row_is_too_few_to_fit(estimator: type[Any]) -> None:
    with pytest.raises(DataError, match=r"^the table has one row, from which nothing can be learned. Give more rows.$"):
        estimator(**QUICK).fit(table(1))


@pytest.mark.parametrize("line", ["1,2", "1,2,2021-01-01,4"])
def test_a_line_of_another_length_is_named(line: str, tmp_path: Path) -> None:
    place = tmp_path / "t.csv"
    lines = table(20).to_csv(index=False).splitlines()
    place.write_text("\n".join([*lines[:11], line, *lines[11:]]))
    values = line.count(",") + 1
    assert said("train", place).endswith(f"t.csv: line 12 has {values} values, but others have 3.")


@pytest.mark.parametrize(
    ("day", "slip"), [("%Y-%m-%d", "2021-13-01"), ("%d.%m.%Y", "31.04.2021"), ("%m/%d/%Y %H:%M", "02/30/2021 10:00")]
)
def test_dates_that_the_calendar_lacks_are_no_levels(day: str, slip: str) -> None:
    words = list(pd.date_range("2021-01-02", periods=9, freq="37D").strftime(day))
    assert look(frame_of({"d": words})).columns[0].kind == "datetime"
    with pytest.raises(DataError, match=f"column 'd' holds dates, but '{slip}' is not one"):
        look(frame_of({"d": [*words, slip, slip]}))
    assert look(frame_of({"d": [*words, slip, slip]}), {"d": "categorical"}).columns[0].levels[-1] in (*words, slip)


def test_weeks_and_versions_are_no_dates() -> None:
    weeks = [f"2021-{i % 52 + 1:02}" for i in range(104)]
    versions = [f"{i % 4}.{i % 60}.{i % 52}" for i in range(52)] * 2
    kinds = [column.kind for column in look(frame_of({"week": weeks, "version": versions})).columns]
    assert kinds == ["categorical", "categorical"]


def test_a_row_without_cells_keeps_its_place() -> None:
    frame = table()[["a", "b"]]
    frame.loc[3] = np.nan
    scores = VAEEmbedding(**QUICK).fit(frame).score_samples(frame)
    assert scores.shape == (40,)
    assert abs(scores[3]) < 1  # of nothing that was observed the density is 1, whose logarithm is estimated
    filled = VAEImputer(**QUICK).fit(frame).transform(frame)
    assert bool(filled.notna().all().all())
    pd.testing.assert_frame_equal(filled.drop(index=3), frame.drop(index=3))
