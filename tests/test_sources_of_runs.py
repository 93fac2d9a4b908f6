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
from aevb.runs.sources import KEPT, named
from aevb.runs.store import fingerprints
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


def test_a_part_is_kept_whatever_the_recipe_names_and_numpy_counts_seeds(tmp_path: Path) -> None:
    recipe = Recipe.load("aevb").replace(training__samples=200, evaluation__importance_samples=5)
    whole = aevb.load_data("sprites", seed=np.int64(2))
    assert recipe.source().source == "digits"
    asked, kept = named(recipe, whole)
    assert (asked.source().source, asked.source().seed, kept) == ("sprites", 2, False)
    part = replace(whole, train=whole.train.take(400), validation=whole.validation.take(50))
    run = fit(recipe, part, tmp_path / "run")
    assert torch.equal(aevb.Run.open(run.path).dataset().train.stored, part.train.stored)
    assert run.recipe.source().source == "sprites"


def test_official_splits_leave_the_seed_of_a_recipe_to_its_labels() -> None:
    """`data.seed` chooses which labels are visible, too."""
    data = aevb.load_data("mnist")
    assert data.seed is None
    recipe = Recipe.load("m2").replace(data__source="mnist", data__seed=4)
    assert named(recipe, data)[0].source().seed == 4


def test_a_file_with_the_name_of_a_published_data_set_is_itself(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((200, 5))
    np.save(tmp_path / "digits.npy", x)
    recipe = Recipe.load("gaussian").replace(training__samples=200, data__seed=3)
    run = fit(recipe, str(tmp_path / "digits.npy"), tmp_path / "run")
    assert not (run.path / KEPT).is_file()
    expected = aevb.load_data(str(tmp_path / "digits.npy"), seed=3)
    assert torch.equal(aevb.Run.open(run.path).dataset().test.stored, expected.test.stored)


def test_runs_that_keep_their_data_keep_their_seed(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 4))
    recipe = Recipe.load("gaussian").replace(training__samples=200, evaluation__importance_samples=5)
    for seeds in ([0], [0, 1]):  # the second resumes the first
        made = sweep(recipe, aevb.load_data(x, seed=3), {}, seeds=seeds, out=tmp_path)
    assert [run.recipe.source().seed for run in made.runs] == [0, 0]


def test_processes_of_a_sweep_read_the_shuffle_of_their_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVB_MEMORY_MB", "0.01")
    data = aevb.load_data("digits", seed=5)
    made = sweep(RECIPE, data, {"latent": [2, 3]}, seeds=[0], out=tmp_path, jobs=2)
    for run in made.runs:
        assert run.recipe.source().seed == 5
        assert torch.equal(run.dataset().test.stored, data.test.stored)
        run.check_same(fingerprints(data))


def test_settings_of_data_that_are_read_are_no_settings_of_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.seed is set, but these data are read already"):
        sweep(RECIPE, aevb.load_data("digits"), {"data.seed": [5]}, seeds=[0], out=tmp_path)
