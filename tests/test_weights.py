"""Weights of rows: whole ones are repeated rows, zero is no row, and the column of weights is not modelled."""

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
from aevb import DataError, Dataset, Recipe, Split, VAESynthesizer
from aevb.apps.cli import app
from aevb.data.columns import Column
from aevb.data.tables import frame_of
from aevb.data.weights import Weighted, averaged, weights_in
from aevb.training.events import validation_bound

TIMES = torch.tensor([2.0, 1.0, 0.0, 3.0, 1.0])


def weighed(split: Split) -> Split:
    return replace(split, weights=TIMES.repeat(len(split))[: len(split)].double())


def repeated(split: Split) -> Split:
    """Each row as often as its weight says, all of weight 1."""
    times = TIMES.repeat(len(split))[: len(split)].long()
    stored = split.stored.repeat_interleave(times, 0)
    return replace(split, stored=stored, names=None, weights=torch.ones(len(stored), dtype=torch.float64))


def both() -> tuple[Dataset, Dataset]:
    data = mixed_table(200)
    one, other = (
        replace(data, train=make(data.train), validation=make(data.validation)) for make in (weighed, repeated)
    )
    return one, other


def test_minibatches_of_weighted_rows_are_those_of_repeated_rows() -> None:
    one, other = both()
    drawn = []
    for split in (one.train, other.train):
        rows = Weighted.of(split, split.weights, "cpu")
        torch.manual_seed(3)
        drawn.append(torch.cat([rows[torch.arange(50)].x for _ in range(20)]))
    assert torch.equal(drawn[0].nan_to_num(), drawn[1].nan_to_num())
    assert len(drawn[0].unique(dim=0)) > 60


def test_a_training_on_whole_weights_is_bit_for_bit_one_on_repeated_rows() -> None:
    """The loss of every step, so the objective, and all that the weights of the model become."""
    recipe = Recipe.load("table").replace(latent=2, training__samples=2000, training__batch=50, validation__every=500)
    one, other = (aevb.fit_in_memory(recipe, replace(data, validation=data.test)) for data in both())
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name]), name


def test_the_validation_bound_is_that_of_repeated_rows() -> None:
    one, other = both()
    recipe = Recipe.load("table").replace(latent=2, training__samples=500, training__batch=50)
    trained = aevb.fit_in_memory(recipe, one)
    learner = aevb.Learner(trained.model, aevb.ELBO(), aevb.Training(), len(one.train))
    monitor = aevb.Monitor(importance_samples=20)
    scores = [validation_bound(learner, data.validation, monitor)[1] for data in (one, other)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    plain = validation_bound(learner, mixed_table(200).validation, monitor)[1]
    assert abs(scores[0] - plain) > 0.01
    bound = aevb.elbo(trained.model, one.validation).elbo
    assert averaged(bound, one.validation.weights) == pytest.approx(
        float(aevb.elbo(trained.model, other.validation).elbo.mean()), abs=1e-6
    )
    assert averaged(bound, None) == float(bound.mean())


def table(n: int = 200) -> pd.DataFrame:
    noise = np.random.default_rng(0)
    x = noise.normal(size=n).round(3)
    return pd.DataFrame({"x": x, "w": noise.integers(0, 4, n), "y": (2 * x + noise.normal(size=n)).round(3)})


def test_weight_zero_is_an_absent_row() -> None:
    frame = table()
    data = aevb.load_data(frame, columns={"w": "weight"})
    without = aevb.load_data(frame[frame["w"] > 0].reset_index(drop=True), columns={"w": "weight"})
    for part in ("train", "validation", "test"):
        ours, theirs = getattr(data, part), getattr(without, part)
        assert torch.equal(ours.stored, theirs.stored)
        assert torch.equal(ours.weights, theirs.weights)
        assert ours.weights.tolist() == frame["w"].to_numpy()[ours.names].tolist()  # row numbers are of the whole table
        assert bool((ours.weights > 0).all())
    assert data.train.values.columns == without.train.values.columns


def test_the_weight_column_is_not_modelled_and_is_one_in_new_rows() -> None:
    frame = table()
    schema = aevb.load_data(frame, columns={"w": "weight"}).train.values.columns
    assert [c.name for c in schema.model] == ["x", "y"]
    assert schema.columns[1] == Column("w", "weight", "Int64", "asked for")
    kinds = {"w": "weight"}
    fitted = VAESynthesizer(columns=kinds, latent=1, samples=1000, random_state=0).fit(frame)
    new = fitted.sample(20)
    assert new["w"].tolist() == [1] * 20
    given = VAESynthesizer(columns=kinds, latent=1, samples=1000, random_state=0).fit(frame, sample_weight=frame["w"])
    assert np.array_equal(given.score_samples(frame), fitted.score_samples(frame))  # as the argument does
    assert np.array_equal(fitted.score_samples(frame), fitted.score_samples(frame.assign(w=5)))


def test_the_command_line_weighs_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"x": [0.0, 10.0] * 150, "w": [9.0, 1.0] * 150})
    frame["x"] += np.random.default_rng(0).normal(size=300).round(3)
    frame.to_csv("t.csv", index=False)
    line = ["train", "t.csv", "--weights", "w", "--samples", "20000", "--no-figures", "--out", "run"]
    for words in (line, ["sample", "run", "-n", "2000", "-o", "new.csv"], ["impute", "run", "t.csv", "-o", "full.csv"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    assert (pd.read_csv("new.csv")["x"] > 5).mean() == pytest.approx(0.1, abs=0.05)
    assert Path("full.csv").read_bytes() == Path("t.csv").read_bytes()
    frame.assign(w=1.0).to_csv("t.csv", index=False)  # other weights are other data
    with pytest.raises(aevb.RunError, match="have changed"):
        aevb.Run.open("run").dataset()


def test_weights_of_rows_in_memory_are_kept_with_the_run(tmp_path: Path) -> None:
    data = aevb.load_data(table(), columns={"w": "weight"})
    run = aevb.fit(Recipe.load("table").replace(latent=1, training__samples=500), data, tmp_path / "run")
    assert torch.equal(run.dataset().train.weights, data.train.weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, -1.0, 2.0], "column 'w' has no weight, or a negative or infinite one, in row 1"),
        ([1.0, None, 2.0], "in row 1. Give 0 to leave a row out"),
        ([0.0, 0.0, 0.0], "all weights are 0"),
        (["a", "b", "c"], "holds no numbers"),
    ],
)
def test_weights_that_are_none_are_refused(weights: list[object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        weights_in(frame_of({"w": weights, "x": [1.0, 2.0, 3.0]}), {"w": "weight"})
    with pytest.raises(DataError, match="'v' and 'w' are both weights"):
        weights_in(frame_of({"v": [1.0], "w": [1.0]}), {"v": "weight", "w": "weight"})
