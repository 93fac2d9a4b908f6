"""Arrays of numbers with holes are tables: trained, filled, scored and encoded, also part by part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_cli import good, mistake
from test_impute import NETS
from test_streaming import N, both, same_table

import aevb
from aevb.errors import DataError

random = np.random.default_rng(0)
X = random.standard_normal((660, 1)) @ [[1.0, -2.0, 0.5]] + 0.3 * random.standard_normal((660, 3))
HOLES = np.where(random.random(X.shape) < 0.1, np.nan, X)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrays")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("AEVB_RUNS", raising=False)
        np.save("array.npy", HOLES[N:])
        np.save("new.npy", HOLES[:N].astype(np.float32))  # none of the rows of the training
        good("train", "array.npy", "--out", "runs/array", "--samples", 6000, "--latent", 2, "--no-figures", *NETS)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("AEVB_RUNS", raising=False)


@pytest.mark.parametrize("make", [np.array, np.float32, torch.tensor, lambda x: "array.npy"])
def test_numbers_with_holes_are_a_table(make: Callable[[Any], Any]) -> None:
    data = aevb.load_data(make(HOLES[N:]))
    assert (data.recipe, data.train.values.kind, data.shape) == ("table", "columns", (3,))
    parts = torch.cat([data.train.stored, data.validation.stored, data.test.stored]).sort(0).values
    np.testing.assert_allclose(parts.numpy(), np.sort(HOLES[N:], 0), rtol=1e-6)


def test_holes_are_refused_where_numbers_are_to_be_no_columns() -> None:
    """Or where the array is no table, or holds what is no hole."""
    for x, values in ((HOLES, "standardized"), (HOLES.reshape(-1, 2, 3), None), (np.where(X > 1, np.inf, HOLES), None)):
        with pytest.raises(DataError, match="Fill or remove them first"):
            aevb.load_data(x, values=values)
    assert "Or train the recipe table, whose rows may" in mistake("train", "array.npy", "--recipe", "gaussian")


@pytest.mark.parametrize("verb", ["impute", "score"])
def test_a_long_array_is_read_part_by_part(verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    same_table(*both(monkeypatch, tmp_path, ".csv", verb, "runs/array", "new.npy"))


def test_codes_of_a_long_array_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a, b = map(np.load, both(monkeypatch, tmp_path, ".npy", "encode", "runs/array", "new.npy"))
    assert a.shape == (N, 2)
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_holes_are_filled_near_the_truth(tmp_path: Path) -> None:
    """Two numbers of each row tell the third."""
    good("impute", "runs/array", "array.npy", "-o", tmp_path / "filled.csv")
    filled = np.loadtxt(tmp_path / "filled.csv", delimiter=",", skiprows=1)
    given, truth = HOLES[N:], X[N:]
    holes = np.isnan(given)
    np.testing.assert_allclose(filled[~holes], given[~holes], rtol=1e-6)
    off, of_mean = (np.abs((x - truth) / truth.std(0))[holes].mean() for x in (filled, np.nanmean(given, 0)))
    assert off < 0.7 * of_mean


@pytest.mark.parametrize("kind", ["<f4", "<f8", ">f8", "f2", "longdouble"])
def test_every_type_is_filled_and_keeps_its_columns(kind: str, tmp_path: Path) -> None:
    """In memory as part by part: a column that no one fills stays, and so does the type, where Arrow knows it."""
    more = np.column_stack([HOLES[:N], np.full(N, 7.0), np.full(N, np.nan)]).astype(kind)
    np.save(tmp_path / "more.npy", more)
    good("impute", "runs/array", tmp_path / "more.npy", "-o", tmp_path / "filled.parquet")
    found = pq.read_table(tmp_path / "filled.parquet")
    assert found.column_names == ["x0", "x1", "x2", "x3", "x4"]
    assert {str(t) for t in found.schema.types} == {{"<f4": "float", "f2": "halffloat"}.get(kind, "double")}
    filled = np.column_stack([found[name].to_numpy() for name in found.column_names]).astype(np.float64)
    there = ~np.isnan(more)
    np.testing.assert_array_equal(filled[there], more.astype(np.float64)[there])
    assert not np.isnan(filled[:, :4]).any()
    assert np.isnan(filled[:, 4]).all()
