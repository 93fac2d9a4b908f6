"""A warm start: a training that begins with the weights of a run, or of the last fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tabular import mixed_table
from typer.testing import CliRunner

import aevb
from aevb import DataError, Recipe, RecipeError, VAEEmbedding
from aevb.apps.cli import app
from aevb.data.alike import alike
from aevb.data.randomness import noise_seed, seeded
from aevb.data.values import Values
from aevb.runs.begin import like_run
from aevb.runs.fit import Job

SHORT = {"latent": 2, "training__samples": 3000, "training__batch": 50}


def trained(folder: Path) -> aevb.Run:
    return aevb.fit(Recipe.load("table").replace(**SHORT), mixed_table(200), folder / "first")


def test_step_zero_has_the_loss_of_the_run_bit_for_bit(tmp_path: Path) -> None:
    run = trained(tmp_path)
    recipe = Recipe.load("table").replace(**SHORT, init=str(run.path)).of(mixed_table(200))
    job = Job.of(recipe, mixed_table(200), "cpu")
    batch = aevb.Batch(run.dataset().train[torch.arange(50)])

    def loss(model: torch.nn.Module) -> float:
        with seeded(noise_seed(0, 0)), torch.no_grad():
            return float(aevb.ImportanceWeighted(5)(model.eval(), batch, torch.tensor(0))[0])

    assert loss(job.learner.model) == loss(run.model())
    assert (
        loss(job.learner.model) < loss(Job.of(recipe.replace(init=None), mixed_table(200), "cpu").learner.model) - 0.3
    )
    held = mixed_table(200).test  # a training of no steps keeps log p(x)
    ours, theirs = (aevb.log_marginal(model.eval(), held, 20).log_px for model in (job.learner.model, run.model()))
    assert torch.equal(ours, theirs)


def test_a_run_that_does_not_fit_is_named_with_the_first_difference(tmp_path: Path) -> None:
    run = trained(tmp_path)
    for key, value, words in (
        ("latent", 3, "latent is 2 there, and 3 here"),
        ("encoder__hidden", [32], r"encoder.hidden is \[128, 128\] there, and \[32\] here"),
        ("posterior__type", "low-rank-normal", "posterior.type is 'normal' there, and 'low-rank-normal' here"),
    ):
        other = Recipe.load("table").replace(**(SHORT | {key: value}), init=str(run.path))
        with pytest.raises(RecipeError, match=f"weights of .*first do not fit: {words}"):
            aevb.fit(other, mixed_table(200), tmp_path / "second")
        assert not (tmp_path / "second").exists()
    with pytest.raises(DataError, match="its numbers are standardized, but columns are needed"):
        aevb.fit(Recipe.load("gaussian").replace(init=str(run.path)), torch.randn(50, 6), tmp_path / "second")


def test_a_resumed_training_does_not_begin_anew(tmp_path: Path) -> None:
    first = trained(tmp_path)
    recipe = Recipe.load("table").replace(**SHORT, init=str(first.path))
    whole = aevb.fit(recipe.replace(training__samples=4000), mixed_table(200), tmp_path / "whole")
    part = aevb.fit(recipe.replace(training__samples=2000), mixed_table(200), tmp_path / "part")
    first.path.rename(tmp_path / "gone")  # the run that it began with is needed no more
    aevb.resume(part, samples=4000)
    held = mixed_table(200).test
    ours, theirs = (torch.cat([p.flatten() for p in run.model().parameters()]) for run in (whole, part))
    assert part.meta["samples"] == whole.meta["samples"] == 4000
    if part.meta["best_step"] == whole.meta["best_step"]:
        assert torch.equal(ours, theirs)
    assert float(aevb.log_marginal(part.model(), held, 20).log_px.mean()) == pytest.approx(
        float(aevb.log_marginal(whole.model(), held, 20).log_px.mean()), abs=0.5
    )


def people(n: int, shift: float = 0.0, words: tuple[str, ...] = ("a", "b", "c")) -> pd.DataFrame:
    noise = np.random.default_rng(n)
    return pd.DataFrame({"x": noise.normal(shift, 1, n).round(2), "word": noise.choice(list(words), n)})


def test_new_rows_are_read_as_the_run_reads_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other means and other levels: scales, kinds and codes stay those of the run, and the data are found again."""
    monkeypatch.chdir(tmp_path)
    people(300).to_csv("old.csv", index=False)
    people(260, 2.0, ("c", "b", "d", "a")).to_csv("new.csv", index=False)
    line = ["--samples", "3000", "--no-figures", "--out"]
    for words in (["train", "old.csv", *line, "old"], ["train", "new.csv", "--init", "old", *line, "new"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    old, new = aevb.Run.open("old"), aevb.Run.open("new")
    assert new.values().columns == old.values().columns
    assert new.recipe.settings["likelihood"] == old.recipe.settings["likelihood"]
    rows = new.dataset()
    frame, levels = pd.read_csv("new.csv"), old.values().columns.model[1].levels
    for name, stored in zip(rows.train.names, rows.train.stored, strict=True):
        word = frame["word"][int(name)]
        assert float(stored[0]) == frame["x"][int(name)]
        assert int(stored[1]) == (levels.index(word) if word in levels else 3)
    result = CliRunner().invoke(app, ["train", "--resume", "new", "--init", "old"])
    assert result.exit_code == 1


def test_other_columns_are_refused_by_name() -> None:
    values = mixed_table(200).train.values
    data = aevb.load_data(pd.DataFrame({"real": np.random.default_rng(0).normal(size=90)}))
    with pytest.raises(DataError, match="the table has no column 'positive' that is modelled"):
        alike(replace(data, name="the table"), values)
    words = aevb.load_data(pd.DataFrame({c.name: ["p", "q", "r"] * 30 for c in values.columns.model}))
    with pytest.raises(DataError, match="column 'real' is categorical, but real in the run"):
        alike(words, values)


def test_standardized_numbers_take_the_moments_of_the_run() -> None:
    x = torch.randn(60, 3).double()
    data = aevb.load_data(x.numpy() * 5 + 3, values="standardized")
    other = aevb.load_data(x.numpy(), values="standardized").train.values
    read = alike(data, other).train
    torch.testing.assert_close(read[:5].double(), (read.stored[:5] - other.mean) / other.std, atol=1e-6, rtol=1e-6)
    assert isinstance(read.values, Values)


def test_a_recipe_like_a_run_has_its_parts_and_kinds_without_its_length(tmp_path: Path) -> None:
    recipe = like_run(trained(tmp_path))
    assert "samples" not in recipe.settings["training"]
    assert recipe.settings["training"]["batch"] == 50
    assert recipe.settings["data"]["columns"]["level"] == "categorical"
    assert recipe.init == str((tmp_path / "first").resolve())


def test_another_fit_begins_where_the_last_one_ended() -> None:
    table = people(300)
    cold = VAEEmbedding(1, samples=6000, random_state=0).fit(table)
    warm = VAEEmbedding(1, samples=6000, random_state=0, warm_start=True).fit(table)
    assert np.array_equal(cold.score_samples(table), warm.score_samples(table))  # the first fit is as any other
    before = warm.score(table)
    warm.set_params(samples=100, learning_rate=1e-6).fit(people(1200, words=("b", "c", "a")))
    assert warm.score(table) == pytest.approx(before, abs=0.01)
    assert warm.schema_ == cold.schema_
    with pytest.raises(RecipeError, match="weights of the last fit do not fit: latent is 1 there, and 2 here"):
        warm.set_params(latent=2).fit(table)


def test_a_table_with_holes_that_was_given_in_python_is_kept_and_found(tmp_path: Path) -> None:
    run = trained(tmp_path)
    assert torch.equal(run.dataset().train.stored.nan_to_num(-9), mixed_table(200).train.stored.nan_to_num(-9))
    assert bool(run.dataset().train.stored.isnan().any())
