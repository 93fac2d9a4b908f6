"""A run reads its data again as they were, however they came to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import aevb
from aevb.data.dataset import Dataset
from aevb.errors import RecipeError
from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe
from aevb.runs.sources import KEPT
from aevb.runs.sweeps import sweep

RECIPE = Recipe.load("digits").replace(training__samples=200, evaluation__importance_samples=5)


def few(data: Dataset) -> Dataset:
    return replace(data, train=data.train.take(300))


@pytest.mark.parametrize(
    ("seed", "recipe", "change", "kept"),
    [(5, RECIPE, None, False), (0, RECIPE.replace(data__seed=5), None, False), (0, RECIPE, few, True)],
    ids=["another shuffle", "a recipe of another shuffle", "a part"],
)
def test_a_published_data_set_is_read_as_it_was_given(
    seed: int, recipe: Recipe, change: object, kept: bool, tmp_path: Path
) -> None:
    data = aevb.load_data("digits", seed=seed)
    data = few(data) if change else data
    run = aevb.Run.open(fit(recipe, data, tmp_path / "run").path)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(run.dataset(), part).stored, getattr(data, part).stored)
    assert (run.path / KEPT).is_file() == kept
    assert run.recipe.source().seed == seed


def test_a_file_with_the_name_of_a_published_data_set_is_itself(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((200, 5))
    np.save(tmp_path / "digits.npy", x)
    recipe = Recipe.load("gaussian").replace(training__samples=200, data__seed=3)
    run = fit(recipe, str(tmp_path / "digits.npy"), tmp_path / "run")
    assert not (run.path / KEPT).is_file()
    expected = aevb.load_data(str(tmp_path / "digits.npy"), seed=3)
    assert torch.equal(aevb.Run.open(run.path).dataset().test.stored, expected.test.stored)


def test_settings_of_data_that_are_read_are_no_settings_of_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.seed is set, but these data are read already"):
        sweep(RECIPE, aevb.load_data("digits"), {"data.seed": [5]}, seeds=[0], out=tmp_path)
