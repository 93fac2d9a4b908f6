"""Holes that are modelled: the probability of the mask, holes in new rows, and what it leaves as it was."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from conditional import NAN
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal
from typer.testing import CliRunner

import aevb
from aevb import Categorical, Columns, Conditional, Recipe, RecipeError, VAESynthesizer
from aevb.apps.cli import app
from aevb.evaluation.calibration import ranks
from aevb.models.column_inputs import CellFeatures, HoleFeatures
from aevb.models.given import unknown_in
from aevb.probability.masks import UNKNOWN
from aevb.runs.build import build_model
from aevb.training.learner import hidden

LOGITS = torch.tensor([0.4, -1.1])  # that the cells of the columns 0 and 2 are there


def constant() -> aevb.VAE:
    """A decoder that reads no z: N(0, 1), N(1, 1), N(2, 1), and a Bernoulli for holes of the columns 0 and 2."""
    family = Columns(3, [aevb.Normal(3, scale=1.0)], [[0, 1, 2]], [0, 2])
    decoder = Conditional(nn.Linear(2, family.size), family)
    with torch.no_grad():
        decoder.net.weight.zero_()
        decoder.net.bias.copy_(torch.cat([torch.tensor([0.0, 1.0, 2.0]), LOGITS]))
    sees = HoleFeatures(CellFeatures(3, [0, 1, 2]), [0, 2])
    encoder = Conditional(nn.Linear(sees.size, 4), aevb.Normal(2), inputs=sees)
    nn.init.zeros_(encoder.net.weight)
    nn.init.zeros_(encoder.net.bias)
    return aevb.VAE(aevb.StandardNormal(2), encoder, decoder).eval()


def test_log_p_is_that_of_the_cells_and_of_the_mask() -> None:
    x = torch.tensor([[0.3, 0.5, NAN], [NAN, NAN, NAN], [1.0, NAN, 2.5]])
    there = ~x.isnan()
    cells = torch.where(there, Normal(torch.tensor([0.0, 1.0, 2.0]), 1.0).log_prob(x.nan_to_num()), 0.0).sum(1)
    mask = Bernoulli(logits=LOGITS).log_prob(there[:, [0, 2]].float()).sum(1)
    found = aevb.log_marginal(constant(), x, 200)
    torch.testing.assert_close(found.log_px.float(), cells + mask, atol=0.02, rtol=0)
    p = constant().decode(torch.zeros(3, 2))
    torch.testing.assert_close(p.log_prob(x), cells + mask)
    torch.testing.assert_close(p.log_prob_each(x).sum(1), cells + mask)
    unknown = torch.where(torch.arange(3) == 2, UNKNOWN, x)  # nobody knows whether there is a cell
    torch.testing.assert_close(p.log_prob(unknown), torch.where(torch.arange(3) == 2, 0.0, p.log_prob_each(x)).sum(1))
    torch.testing.assert_close(p.log_prob(torch.full((1, 3), UNKNOWN))[0], torch.tensor(0.0))


def test_the_mask_and_the_cells_have_a_probability_of_one() -> None:
    """Over both levels of each of two columns, and holes in one of them."""
    family = Columns(2, [Categorical(2, 2)], [[0, 1]], [1])
    p = family(torch.randn(family.size))
    rows = torch.tensor([[a, b] for a in (0.0, 1.0) for b in (0.0, 1.0, NAN)])
    assert float(p.log_prob(rows).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_draws_have_holes_as_often_as_the_mask_says_and_means_have_none() -> None:
    p = constant().decode(torch.zeros(2))
    torch.manual_seed(0)
    drawn = p.sample((20_000,))
    assert drawn.shape == (20_000, 3)
    shares = drawn.isnan().double().mean(0)
    torch.testing.assert_close(shares[[0, 2]].float(), torch.sigmoid(-LOGITS), atol=0.015, rtol=0)
    assert float(shares[1]) == 0
    assert not bool(p.mean.isnan().any() | p.mode.isnan().any())


def test_what_training_hides_is_unknown_and_no_hole() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 3)
    x[:, 0] = NAN
    batch = hidden(aevb.Batch(x), 1.0, unknown_in(constant()))
    assert float((batch.x == UNKNOWN).double().mean()) == pytest.approx(0.5, abs=0.03)
    sees = constant().encoder.inputs
    features = sees(torch.tensor([[NAN, 1.0, 2.0], [UNKNOWN, 1.0, 2.0]]))
    assert features[:, -2:].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert torch.equal(features[0, :-2], features[1, :-2])
    assert math.isnan(unknown_in(aevb.VAE(nn.Identity(), nn.Identity(), nn.Identity())))


class Wide(nn.Module):
    def forward(self, x: Tensor) -> torch.distributions.Distribution:
        return Independent(Normal(torch.zeros(len(x), 1), 1.5 * torch.ones(len(x), 1)), 1)


def two_columns() -> aevb.VAE:
    """z ~ N(0, 1); a number N(2z, 0.5²), and another N(-z, 1) that is there with probability σ(3z)."""
    family = Columns(2, [aevb.Normal(1, scale=0.5), aevb.Normal(1, scale=1.0)], [[0], [1]], [1])
    net = nn.Linear(1, family.size)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0], [-1.0], [3.0]]))
        net.bias.zero_()
    return aevb.VAE(aevb.StandardNormal(1), Wide(), Conditional(net, family)).eval()


def test_new_rows_given_a_column_have_holes_as_by_brute_force() -> None:
    z = torch.linspace(-6, 6, 4001).double()
    there = torch.sigmoid(3 * z)
    prior = Normal(0, 1).log_prob(z).exp()
    given = prior * Normal(2 * z, 0.5).log_prob(torch.tensor(0.4)).exp()
    rows = aevb.sample_given(two_columns(), 5000, {0: 0.4})
    assert not bool(rows[:, 0].isnan().any())
    exact = float((given * (1 - there)).sum() / given.sum())
    assert float(rows[:, 1].isnan().double().mean()) == pytest.approx(exact, abs=0.03)
    rows = aevb.sample_given(two_columns(), 5000, {1: (-50.0, 50.0)})  # where it is there, z is large
    assert not bool(rows.isnan().any())
    mean = float((prior * there * 2 * z).sum() / (prior * there).sum())
    assert float(rows[:, 0].mean()) == pytest.approx(mean, abs=0.1)


def test_a_hole_is_filled_given_that_it_is_one() -> None:
    """E[x_2 | x_1, a hole] = -E[z | x_1, a hole], by brute force."""
    z = torch.linspace(-6, 6, 4001).double()
    weight = (
        Normal(0, 1).log_prob(z).exp() * torch.sigmoid(-3 * z) * Normal(2 * z, 0.5).log_prob(torch.tensor(0.4)).exp()
    )
    exact = float(-(weight * z).sum() / weight.sum())
    filled = aevb.impute(two_columns(), torch.tensor([[0.4, NAN]]), 20_000)
    assert float(filled.values[0, 1]) == pytest.approx(exact, abs=0.02)


def test_the_surprise_of_a_cell_holds_that_of_its_being_there() -> None:
    x = torch.tensor([[0.4, 0.3], [1.5, NAN]])
    found = aevb.surprise(two_columns(), x, 4000)
    z = torch.linspace(-6, 6, 4001).double()
    rest = Normal(0, 1).log_prob(z).exp() * Normal(2 * z, 0.5).log_prob(torch.tensor(0.4)).exp()
    whole = rest * torch.sigmoid(3 * z) * Normal(-z, 1).log_prob(torch.tensor(0.3)).exp()
    assert float(found[0, 1]) == pytest.approx(float((rest.sum() / whole.sum()).log()), abs=0.05)
    assert bool(found[1, 1].isnan())


def test_calibration_compares_cells_with_cells() -> None:
    model = two_columns()
    torch.manual_seed(1)
    rows = aevb.generate(model, 400, draw=True)
    assert 0.3 < float(rows[:, 1].isnan().double().mean()) < 0.7
    u = ranks(model, rows).u[:, 1]
    assert float(u[~u.isnan()].mean()) == pytest.approx(0.5, abs=0.06)


def people(n: int, seed: int = 0) -> pd.DataFrame:
    """Income is missing in 90 % of the rows without work, and in 5 % of others."""
    noise = np.random.default_rng(seed)
    works = noise.random(n) < 0.6
    income = np.round(np.where(works, 40, 12) + 6 * noise.normal(size=n), 1)
    income[noise.random(n) < np.where(works, 0.05, 0.9)] = np.nan
    return pd.DataFrame(
        {"works": np.where(works, "yes", "no"), "income": income, "age": noise.normal(45, 9, n).round(1)}
    )


@cache
def synthesizer() -> VAESynthesizer:
    return VAESynthesizer(missing="model", latent=2, samples=60_000, random_state=0).fit(people(900))


def test_new_rows_have_holes_where_they_belong() -> None:
    new = synthesizer().sample(4000)
    holes = new["income"].isna().groupby(new["works"]).mean()
    assert holes["no"] == pytest.approx(0.9, abs=0.05)
    assert holes["yes"] == pytest.approx(0.05, abs=0.04)
    assert not new[["works", "age"]].isna().any().any()
    given = synthesizer().sample(1500, given={"works": "no"})
    assert given["income"].isna().mean() == pytest.approx(0.9, abs=0.05)


def test_the_mask_is_of_the_columns_that_had_holes_and_survives_a_pickle() -> None:
    import pickle

    model = synthesizer()
    assert model.recipe_.settings["likelihood"]["masked"] == [1]
    rows = people(50, seed=1)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.score_samples(rows), model.score_samples(rows))
    usual = VAESynthesizer(latent=2, samples=600, random_state=0).fit(people(100))
    assert "masked" not in usual.recipe_.settings["likelihood"]
    assert not usual.sample(500).isna().any().any()


def test_the_command_line_asks_for_it(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    people(300).to_csv("people.csv", index=False)
    line = ["train", "people.csv", "--missing", "model", "--samples", "20000", "--out", "run", "--no-figures"]
    for words in (
        line,
        ["sample", "run", "-n", "400", "-o", "new.csv"],
        ["impute", "run", "people.csv", "-o", "full.csv"],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    new, full = pd.read_csv("new.csv"), pd.read_csv("full.csv")
    assert new["income"].isna().mean() == pytest.approx(0.39, abs=0.12)
    assert not full.isna().any().any()


def test_what_is_no_way_to_treat_holes_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"missing must be 'random' or 'model'; got 'some'"):
        Recipe.load("table").override(["data.missing=some"])
    wrong = Recipe.load("table").override(["likelihood.masked=[7]"])
    with pytest.raises(RecipeError, match=r"likelihood.masked: expected numbers of columns, 0 to 2; got \[7\]"):
        build_model(wrong, (3,))
