"""Exposures of counts: the mean is e μ(z), rates are found, and every verb reads the exposure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from typer.testing import CliRunner

import aevb
from aevb import DataError, RecipeError
from aevb.apps.cli import app
from aevb.data.batch import Batch
from aevb.data.kinds import look
from aevb.data.likelihoods import suited_count
from aevb.data.tables import frame_of
from aevb.models.column_inputs import CellFeatures
from aevb.probability.columns import Columns
from aevb.probability.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from aevb.runs.columns import columns_of, features_of
from aevb.use.given import sample_given
from aevb.use.surprise import surprise

NAN = float("nan")
DAYS = torch.tensor([0.1, 1.0, 7.5, 30.0])
COUNTS = torch.tensor([0.0, 2.0, 9.0, 40.0])
ROWS = torch.stack([COUNTS, DAYS, COUNTS.flip(0)], 1)  # two counts, and between them their exposure
RATE, R, LOGIT = 1.7, 2.5, 0.3


def poisson(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.asarray(stats.poisson(mean).logpmf(x))


def binomial(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.asarray(stats.nbinom(R, R / (R + mean)).logpmf(x))


def inflated(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    lost = 1 / (1 + np.exp(-LOGIT))
    return np.log(lost * (x == 0) + (1 - lost) * np.exp(binomial(x, mean)))


def parameters(*each: float) -> Tensor:
    """φ of two columns, the same for both."""
    return torch.tensor(each).repeat_interleave(2).double()


FAMILIES = [
    (Poisson, parameters(np.log(RATE)), poisson),
    (NegativeBinomial, parameters(np.log(RATE), np.log(R)), binomial),
    (ZeroInflatedNegativeBinomial, parameters(np.log(RATE), np.log(R), LOGIT), inflated),
]


@pytest.mark.parametrize(("kind", "phi", "log_p"), FAMILIES)
def test_the_likelihood_is_that_of_the_exposure_times_the_rate(kind, phi, log_p) -> None:  # type: ignore[no-untyped-def]
    family = Columns(3, [kind(2)], [[0, 2]], exposures=[1])
    p, x = family(phi), ROWS.double()
    expected = np.stack([log_p(x[:, d].numpy(), RATE * DAYS.double().numpy()) for d in (0, 2)], 1)
    each = p.log_prob_each(x)
    np.testing.assert_allclose(each[:, [0, 2]].numpy(), expected, rtol=1e-9, atol=1e-9)
    assert each[:, 1].tolist() == [0.0] * 4  # the exposure is given
    np.testing.assert_allclose(p.log_prob(x).numpy(), expected.sum(1), rtol=1e-9, atol=1e-9)
    several = family(phi.expand(5, 4, -1))  # draws of z for each row
    np.testing.assert_allclose(several.log_prob(x).numpy(), np.tile(expected.sum(1), (5, 1)), rtol=1e-9, atol=1e-9)
    at = p.exposed(x)
    torch.testing.assert_close(at.mean, torch.stack([p.mean[0] * x[:, 1], x[:, 1], p.mean[2] * x[:, 1]], 1))


def test_a_count_without_its_exposure_is_left_out_and_a_hole_stays_one() -> None:
    p = Columns(3, [Poisson(2)], [[0, 2]], exposures=[1])(parameters(np.log(RATE)))
    unknown = torch.tensor([[2.0, NAN, 3.0], [NAN, 4.0, 3.0]]).double()
    expected = [0.0, float(stats.poisson(4 * RATE).logpmf(3))]
    np.testing.assert_allclose(p.log_prob(unknown).numpy(), expected, atol=1e-9)
    assert p.exposed(unknown).mean[0].tolist() == pytest.approx([RATE, 1.0, RATE])  # over one unit


def test_counts_with_and_without_an_exposure_stand_beside_one_another() -> None:
    family = Columns(3, [Poisson(1), Poisson(1)], [[0], [2]], exposures=[1, None])
    p = family(torch.tensor([np.log(RATE), np.log(RATE)]))
    mean = RATE * DAYS.double().numpy()
    expected = poisson(COUNTS.numpy(), mean) + poisson(COUNTS.flip(0).numpy(), np.full(4, RATE))
    np.testing.assert_allclose(p.log_prob(ROWS.double()).numpy(), expected, rtol=1e-9)
    assert family.start(ROWS).exp().tolist() == pytest.approx([float((COUNTS / DAYS).mean()), float(COUNTS.mean())])


def groups(n: int = 4000) -> tuple[Tensor, Tensor, Tensor]:
    """Which of two groups a row is of, (n, 2); exposures over two decades, longer in the group of the lower rate."""
    g = torch.Generator().manual_seed(0)
    second = torch.arange(n) % 2
    e = 10 ** (torch.rand(n, generator=g) + (1 - second))
    x = torch.poisson(e * torch.tensor([0.5, 2.0])[second], generator=g)
    return nn.functional.one_hot(second, 2).float(), x, e


def fitted_rates(exposures: list[int | None]) -> list[float]:
    """The rates of a generalised linear model, log μ = w · group, by maximum likelihood."""
    group, x, e = groups()
    parts, places = ([Poisson(1)], [[0]]) if exposures[0] else ([Poisson(1), aevb.Normal(1, scale=1.0)], [[0], [1]])
    family = Columns(2, parts, places, exposures=exposures)
    net = nn.Linear(2, family.size, bias=False)
    rows, optimizer = (
        torch.stack([x, e], 1),
        torch.optim.LBFGS(net.parameters(), max_iter=100, line_search_fn="strong_wolfe"),
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = -family(net(group)).log_prob_each(rows)[:, 0].mean()
        each.backward()
        return each

    optimizer.step(loss)  # type: ignore[arg-type]
    return net.weight[0].exp().tolist()


def test_rates_are_those_of_a_generalised_linear_model_and_without_exposures_they_are_not() -> None:
    group, x, e = groups()
    oracle = ((group.T @ x) / (group.T @ e)).tolist()  # the maximum likelihood in closed form
    assert float(e.max() / e.min()) > 90
    assert fitted_rates([1]) == pytest.approx(oracle, rel=1e-3)
    assert oracle == pytest.approx([0.5, 2.0], rel=0.03)
    without = fitted_rates([None, None])
    assert without == pytest.approx(((group.T @ x) / group.sum(0)).tolist(), rel=1e-3)
    assert without[0] > without[1]  # the wrong order


def test_the_encoder_sees_the_logarithm_of_the_rate_and_that_of_the_exposure() -> None:
    sees = CellFeatures(3, [0, 1, 2], counts=[0, 2], exposures={0: 1})
    x = torch.tensor([[6.0, 3.0, 5.0], [6.0, NAN, 5.0]])
    expected = torch.tensor([[np.log1p(2.0), np.log(3.0), np.log1p(5.0)], [0.0, 0.0, np.log1p(5.0)]]).asinh()
    seen = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(sees(x), torch.cat([expected, seen], 1).float())
    sees.start_at(ROWS)
    assert float(sees.mean[0]) == pytest.approx(float((COUNTS / DAYS).log1p().median()))


def test_parts_of_a_recipe_name_their_exposure() -> None:
    table = {"parts": [{"type": "poisson", "columns": [0, 2], "exposure": 1}]}
    p = columns_of(table, torch.Size((3,)))(parameters(np.log(RATE)))
    expected = sum(poisson(c.numpy(), RATE * DAYS.double().numpy()) for c in (COUNTS, COUNTS.flip(0)))
    np.testing.assert_allclose(p.log_prob(ROWS.double()).numpy(), expected, rtol=1e-9)
    assert features_of(table, 3).size == 6
    said = Columns.equation({"v": "x", "net": "net(z)", **table})
    assert "2 poisson of means in proportion to an exposure" in said
    for part in ({"exposure": 5}, {"exposure": "days"}, {"exposure": 1, "type": "normal"}):
        with pytest.raises(RecipeError, match=r"likelihood\.parts\[0\]\.exposure: expected the number of a column"):
            columns_of({"parts": [table["parts"][0] | part]}, torch.Size((3,)))


class Wide(nn.Module):
    """An encoder that says nothing."""

    def forward(self, x: Tensor) -> Distribution:
        return Independent(Normal(torch.zeros(len(x), 1), torch.ones(len(x), 1)), 1)


def steady() -> aevb.VAE:
    """x_0, x_2 ~ Poisson(e · RATE), whatever z is."""
    family = Columns(3, [Poisson(2)], [[0, 2]], exposures=[1])
    net = nn.Linear(1, family.size)
    with torch.no_grad():
        net.weight.zero_()
        net.bias.fill_(np.log(RATE))
    return aevb.VAE(aevb.StandardNormal(1), Wide(), aevb.Conditional(net, family)).eval()


def test_scores_fillings_surprises_and_reconstructions_read_the_exposure() -> None:
    model, x = steady(), ROWS.clone()
    expected = sum(poisson(c.numpy(), RATE * DAYS.double().numpy()) for c in (COUNTS, COUNTS.flip(0)))
    np.testing.assert_allclose(aevb.score(model, x, 10).log_px.numpy(), expected, rtol=1e-5)
    found = surprise(model, x, 20)
    np.testing.assert_allclose(found[:, 0].numpy(), -poisson(COUNTS.numpy(), RATE * DAYS.double().numpy()), rtol=1e-4)
    assert found[:, 1].abs().max() < 1e-5
    np.testing.assert_allclose(aevb.reconstruct(model, Batch(x).x)[:, 0].numpy(), RATE * DAYS.numpy(), rtol=1e-5)
    x[:, 0] = NAN
    filled = aevb.impute(model, x, 20).values
    np.testing.assert_allclose(filled[:, 0].numpy(), RATE * DAYS.numpy(), rtol=1e-5)
    draws = aevb.conditional_draws(model, x, 1000)[:, :, 0]
    np.testing.assert_allclose(draws.mean(0).numpy(), RATE * DAYS.numpy(), atol=0.1 * RATE * 30**0.5)
    assert draws[:, 0].var().item() == pytest.approx(RATE * 0.1, rel=0.3)
    assert draws[:, 3].var().item() == pytest.approx(RATE * 30, rel=0.2)


def table(n: int = 400) -> pd.DataFrame:
    noise = np.random.default_rng(0)
    days = (10 ** noise.uniform(-1, 1, n) * 30).round(1)
    return pd.DataFrame({"visits": noise.poisson(0.4 * days), "days": days, "size": noise.normal(size=n).round(3)})


ASKED = {"visits": "count:days"}


def test_the_schema_says_what_a_count_is_over() -> None:
    schema = look(frame_of(table()), ASKED)
    visits, days, _ = schema.columns
    assert (visits.kind, visits.exposure, visits.asked, visits.why) == (
        "count",
        "days",
        "count:days",
        "asked for; over days",
    )
    assert (days.kind, days.likelihood, days.why) == ("exposure", "given", "the exposure of visits")
    assert days.scale in set(table()["days"])
    assert days.scale == pytest.approx(table()["days"].median(), rel=0.05)
    assert visits.likelihood == "poisson"  # of one rate; by the counts alone it would be another
    assert look(frame_of(table()), {"visits": "count"}).columns[0].likelihood == "negative-binomial"
    assert type(schema).from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    stored = torch.tensor([[3.0, 10.0, 0.5], [3.0, 300.0, 0.5]]).double()
    assert schema.log_abs_det(stored).unique().numel() == 1  # no density of the exposure
    assert schema.numbers(stored)[:, 1].tolist() == pytest.approx([10 / days.scale, 300 / days.scale])


def test_the_likelihood_that_suits_counts_over_exposures() -> None:
    noise, n = np.random.default_rng(0), 5000
    e = 10 ** noise.uniform(0, 2, n)
    poisson_, spread = noise.poisson(3 * e), noise.poisson(3 * e * noise.gamma(2, 0.5, n))
    lost = np.where(noise.random(n) < 0.3, 0, spread)
    found = [suited_count(x.astype(float), e) for x in (poisson_, spread, lost)]
    assert found == ["poisson", "negative-binomial", "zero-inflated-negative-binomial"]


@pytest.mark.parametrize(
    ("days", "columns", "words"),
    [
        ([1.0, 0.0, 2.0], ASKED, "column 'days' has no exposure above zero in row 1"),
        ([1.0, 2.0, -3.0], ASKED, "column 'days' has no exposure above zero in row 2"),
        ([None, 2.0, None], ASKED, r"column 'days' has no exposure above zero in 2 rows \(0, 2\)"),
        (["a", "b", "c"], ASKED, "column 'days' holds no numbers, so it cannot be an exposure"),
        ([1.0, 2.0, 3.0], {"visits": "count:dayz"}, r"no column 'dayz'\. Did you mean 'days'"),
        ([1.0, 2.0, 3.0], {"visits": "real:days"}, "only a count has an exposure. Write visits=count:days"),
        ([1.0, 2.0, 3.0], ASKED | {"days": "positive"}, "'days' is the exposure of 'visits', so it cannot be positive"),
        ([1.0, 2.0, 3.0], {"visits": "count:visits"}, "'visits' is the exposure of 'visits', so it cannot be count"),
    ],
)
def test_exposures_that_are_none_are_refused(days: list[object], columns: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        look(frame_of({"visits": [1, 0, 5], "days": days}), columns)


def test_new_rows_that_lack_an_exposure_are_refused_and_samples_take_one() -> None:
    frame = table()
    fitted = aevb.VAESynthesizer(columns=ASKED, latent=1, samples=2000, random_state=0).fit(frame)
    for value, row in ((np.nan, 2), (0.0, 2)):
        bad = frame.head(5).assign(days=[1.0, 2.0, value, 4.0, 5.0])
        with pytest.raises(DataError, match=f"'days' has no exposure above zero in row {row}"):
            fitted.score_samples(bad)
    middle = fitted.schema_.columns[1].scale
    new = fitted.sample(2000)
    assert set(new["days"]) == {middle}
    assert new["visits"].mean() == pytest.approx(0.4 * middle, rel=0.15)
    long = fitted.sample(2000, given={"days": 100 * middle})
    assert set(long["days"]) == {round(100 * middle, 1)}
    assert long["visits"].mean() == pytest.approx(100 * new["visits"].mean(), rel=0.1)
    with pytest.raises(DataError, match="'days' is an exposure, which has no range"):
        fitted.sample(2, given={"days": (1, 2)})
    with pytest.raises(DataError, match="'days' is an exposure, which is above zero; got -1"):
        fitted.sample(2, given={"days": -1})
    count = sample_given(fitted.model_, 50, {"visits": 3.0}, schema=fitted.schema_)
    assert count[:, :2].unique(dim=0).tolist() == [[3.0, middle]]


def test_the_verbs_read_the_exposure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    frame = table(300)
    frame.to_csv("t.csv", index=False)
    holes = frame.astype({"visits": "Int64"}).assign(days=[3.0, 300.0] * 150)
    holes["visits"] = pd.NA
    holes.to_csv("holes.csv", index=False)

    def said(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        return result.output

    shown = said("data", "t.csv", "--column", "visits=count:days", "--schema", "kinds.toml")
    assert "the exposure of visits" in shown
    assert '"visits" = "count:days"' in Path("kinds.toml").read_text(encoding="utf-8")
    said("train", "t.csv", "--schema", "kinds.toml", "--samples", "3000", "--no-figures", "--out", "run")
    assert aevb.Run.open("run").values().columns.columns[0].exposure == "days"
    told = said("sample", "run", "-n", "500", "-o", "new.csv")
    new = pd.read_csv("new.csv")
    assert f"visits: over days={new['days'][0]:g}, the median of the train rows" in told
    assert "median" not in said("sample", "run", "-n", "500", "--given", "days=300", "-o", "long.csv")
    assert pd.read_csv("long.csv")["visits"].mean() == pytest.approx(120, rel=0.2)
    said("impute", "run", "holes.csv", "-o", "full.csv")
    full = pd.read_csv("full.csv").groupby("days")["visits"].mean()
    assert full.tolist() == pytest.approx([1.2, 120], rel=0.3)
    wrong = CliRunner().invoke(app, ["train", "t.csv", "--column", "visits=count:weeks"])
    assert wrong.exit_code != 0
    assert "no column 'weeks'" in str(wrong.exception)
    said("score", "run", "t.csv", "--why", "-o", "scores.csv")
    why = pd.read_csv("scores.csv").filter(like="why_")
    assert set(why.stack().dropna()) == {"visits", "size"}  # what is given surprises nobody


def test_modelled_holes_stand_beside_exposures() -> None:
    frame = table(200)
    frame.loc[::4, "size"] = np.nan
    fitted = aevb.VAESynthesizer(columns=ASKED, missing="model", latent=1, samples=2000, random_state=0).fit(frame)
    new = fitted.sample(2000, given={"days": 300.0})
    assert new["size"].isna().mean() == pytest.approx(0.25, abs=0.08)
    assert new["visits"].mean() == pytest.approx(120, rel=0.2)
    assert not new[["visits", "days"]].isna().any().any()
