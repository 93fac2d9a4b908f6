"""Tables: the map of each column, the density of rows with holes, what the encoder sees, and the recipe `table`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tabular import MIXED, mixed_rows, mixed_table
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import aevb
from aevb import Batch, Columns, Conditional, DataError, Recipe, RecipeError, fit
from aevb.data.columns import Column, Schema, step_of
from aevb.data.dataset import Dataset
from aevb.data.kinds import look
from aevb.data.tables import frame_of
from aevb.data.values import Values
from aevb.evaluation.estimate import Estimate
from aevb.models.column_inputs import CellFeatures
from aevb.probability.quantiles import Quantiles, edges_of
from aevb.runs.build import build_model
from aevb.runs.columns import parts_of
from aevb.runs.store import Run
from aevb.training.learner import hidden
from aevb.training.start import start_at_data

NAN = math.nan


@pytest.fixture(scope="module")
def data() -> Dataset:
    return mixed_table(800)


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the recipe `table`, which no test changes."""
    recipe = Recipe.load("table").of(data).replace(training__samples=30_000)
    return fit(recipe, data, tmp_path_factory.mktemp("columns") / "run")


def test_the_map_of_each_column_is_inverted() -> None:
    rows = mixed_rows(200, holes=0.2)
    x = MIXED.numbers(rows)
    assert x.dtype == torch.float32
    assert torch.equal(x.isnan(), rows.isnan())
    back = MIXED.inverse(x)
    torch.testing.assert_close(back, rows, rtol=2e-6, atol=2e-5, equal_nan=True)
    assert torch.equal(back[:, 2:4].nan_to_num(), rows[:, 2:4].nan_to_num())  # counts and codes to the last digit


@pytest.mark.parametrize(
    "column", [c for c in MIXED.model if c.kind not in ("count", "categorical")], ids=lambda c: c.name
)
def test_log_abs_det_is_the_logarithm_of_the_slope_of_the_map(column: Column) -> None:
    s = torch.tensor([0.02, 0.3, 1.7, 8.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(column.numbers(s).sum(), s)
    torch.testing.assert_close(column.log_abs_det(s), slope.log())


def test_a_bounded_column_stays_within_its_bounds() -> None:
    column = Column("share", "bounded", likelihood="normal", map="logit", low=0.0, high=100.0, scale=2.0)
    s = torch.tensor([0.0, 1.0, 50.0, 99.0, 100.0], dtype=torch.float64)
    x = column.numbers(s)
    assert bool(x.isfinite().all())
    torch.testing.assert_close(column.inverse(x), s, rtol=0, atol=1e-3)
    assert column.inverse(torch.tensor([-1e9, 1e9])).tolist() == [0.0, 100.0]
    inner = s[1:4].clone().requires_grad_()
    (slope,) = torch.autograd.grad(column.numbers(inner).sum(), inner)
    torch.testing.assert_close(column.log_abs_det(inner.detach()), slope.log())


def test_only_observed_cells_are_in_the_log_determinant() -> None:
    row = mixed_rows(1, holes=0.0)
    each = torch.stack([c.log_abs_det(v) for c, v in zip(MIXED.model, row.unbind(1), strict=True)], 1)
    missing = torch.where(torch.tensor([True, False] * 3), torch.nan, row)
    assert float(MIXED.log_abs_det(missing)) == pytest.approx(float(each[:, 1::2].sum()))


def test_a_schema_survives_json() -> None:
    import json

    assert Schema.from_dict(json.loads(json.dumps(MIXED.to_dict()))) == MIXED
    values = Values("columns", schema=MIXED)
    assert Values.from_dict(json.loads(json.dumps(values.to_dict()))) == values


# The likelihood


def likelihood() -> tuple[Columns, Tensor]:
    data = mixed_table()
    model = build_model(Recipe.load("table").of(data), data.shape)
    family = model.decoder.family
    family.start(data.train[:].double())
    phi = 0.3 * torch.randn(7, family.size, generator=torch.Generator().manual_seed(1))
    return family, phi


def test_the_density_is_the_product_over_the_cells_that_are_there() -> None:
    family, phi = likelihood()
    p, x = family(phi), MIXED.numbers(mixed_rows(7, holes=0.0))
    each = p.log_prob_each(x)
    for d in range(6):
        alone = torch.full_like(x, NAN)
        alone[:, d] = x[:, d]
        torch.testing.assert_close(p.log_prob(alone), each[:, d])
    holes = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    expected = torch.where(holes, 0.0, each).sum(1)
    torch.testing.assert_close(p.log_prob(torch.where(holes, NAN, x)), expected)
    assert p.log_prob(torch.full_like(x, NAN)).tolist() == [0.0] * 7


def test_each_cell_has_the_density_of_its_family() -> None:
    """Of the normal columns and the levels, by SciPy, φ laid out part by part."""
    family, phi = likelihood()
    x = MIXED.numbers(mixed_rows(7, holes=0.0))
    each = family(phi).log_prob_each(x).numpy()
    mean, log_variance = phi[:, 0:2].numpy(), phi[:, 2:4].numpy()
    scale = np.sqrt(np.exp(log_variance) + 0.05**2)
    np.testing.assert_allclose(each[:, :2], stats.norm.logpdf(x[:, :2].numpy(), mean, scale), rtol=1e-5)
    logits = phi[:, 6:10].log_softmax(1)
    np.testing.assert_allclose(each[:, 3], logits.gather(1, x[:, 3:4].long()).squeeze(1).numpy(), rtol=1e-5)


def test_no_gradient_is_nan_where_cells_are_missing() -> None:
    family, phi = likelihood()
    phi = phi.requires_grad_()
    x = MIXED.numbers(mixed_rows(7, holes=0.5))
    (slope,) = torch.autograd.grad(family(phi).log_prob(x).sum(), phi)
    assert bool(slope.isfinite().all())
    assert bool((slope != 0).any())


def test_draws_follow_the_density_column_by_column() -> None:
    family, phi = likelihood()
    torch.manual_seed(0)
    p = family(phi[:1])
    draws = p.sample((20_000,)).squeeze(1)
    assert bool(p.support.check(draws).all())
    linear = [0, 1, 2, 4]  # columns of which a mean is one
    se = draws[:, linear].std(0) / math.sqrt(len(draws))
    assert bool(((draws[:, linear].mean(0) - p.mean[0, linear]).abs() < 4 * se).all())
    shares = torch.bincount(draws[:, 3].long(), minlength=4) / len(draws)
    expected = phi[0, 6:10].softmax(0)
    assert bool(((shares - expected).abs() < 4 * (expected * (1 - expected) / len(draws)).sqrt()).all())
    assert float(p.mode[0, 3]) == int(expected.argmax())


def test_a_value_outside_of_its_column_is_named() -> None:
    data = mixed_table()
    model = build_model(Recipe.load("table").of(data), data.shape)
    x = data.train[:].clone()
    x[3, 2] = -1.0
    with pytest.raises(DataError, match="hold -1 in row 3"):
        next(aevb.train(model, aevb.ELBO(), x))
    with pytest.raises(DataError, match="NaN or infinite"):
        next(aevb.train(model, aevb.ELBO(), torch.where(x < 0, math.inf, x)))


def test_other_likelihoods_do_not_take_missing_cells() -> None:
    x = torch.randn(50, 3)
    x[4, 1] = NAN
    model = build_model(Recipe.load("gaussian"), (3,))
    with pytest.raises(DataError, match="NaN"):
        next(aevb.train(model, aevb.ELBO(), x))
    recipe = Recipe.load("gaussian").replace(training__holes=0.5)
    with pytest.raises(RecipeError, match="normal gives no density of rows with missing cells"):
        fit(recipe, np.random.default_rng(0).normal(size=(50, 3)))


def test_columns_that_are_missing_or_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="each of the 3 columns must be in one part"):
        Columns(3, [aevb.Normal(2)], [[0, 2]])
    with pytest.raises(ValueError, match="each of the 3 columns must be in one part"):
        Columns(3, [aevb.Normal(2), aevb.Normal(2)], [[0, 2], [1, 2]])


def test_a_level_that_training_never_sees_is_improbable_and_never_drawn(run: Run, data: Dataset) -> None:
    rows = data.test.stored.clone()
    rows[:, 3] = 0.0
    usual = aevb.score(run.model(), data.test.values(rows), 100).log_px
    rows[:, 3] = 3.0
    assert float((usual - aevb.score(run.model(), data.test.values(rows), 100).log_px).median()) > 3
    draws = MIXED.inverse(run.model().decode(torch.randn(5000, run.model().latent_shape[0])).sample())
    assert sorted(draws[:, 3].unique().tolist()) == [0.0, 1.0, 2.0]


# Exactness: a linear normal model with holes


def test_the_bound_with_holes_reaches_the_exact_evidence() -> None:
    """p(x_O) of x = W z + b + σ ε is N(b_O, W_O W_Oᵀ + σ² I); importance sampling from the encoder must give it."""
    torch.manual_seed(1)
    size, latent, sigma = 6, 2, 0.5
    weight, bias = torch.randn(size, latent), torch.randn(size)
    z = torch.randn(1500, latent)
    x = z @ weight.T + bias + sigma * torch.randn(1500, size)
    x[torch.rand(x.shape) < 0.3] = NAN
    p, q = Columns(size, [aevb.Normal(size, scale=sigma)], [range(size)]), aevb.FullNormal(latent)
    decoder = Conditional(nn.Linear(latent, size), p)
    decoder.requires_grad_(False)
    decoder.net.weight.copy_(weight)
    decoder.net.bias.copy_(bias)
    sees = CellFeatures(size, range(size))
    encoder = Conditional(aevb.MLP(sees.size, q.size, [64]), q, inputs=sees)
    model = aevb.VAE(aevb.StandardNormal(latent), encoder, decoder)
    for _ in aevb.train(model, aevb.ImportanceWeighted(5), x, aevb.Training(samples=60_000, optimizer=aevb.Adam(3e-3))):
        pass
    rows = x[:40]
    covariance = weight @ weight.T + sigma**2 * torch.eye(size)
    seen = [~row.isnan() for row in rows]
    exact = torch.stack(
        [
            MultivariateNormal(bias[o], covariance[o][:, o]).log_prob(row[o]) if o.any() else torch.zeros(())
            for row, o in zip(rows, seen, strict=True)
        ]
    )
    found = aevb.log_marginal(model, rows, 2000)
    far = (found.log_px - exact).abs() / (found.se + 1e-4)
    assert float(found.se.median()) < 0.03
    assert float(far.max()) < 4.5
    assert float(aevb.elbo(model, rows).elbo.mean()) < float(exact.mean())


# What the encoder sees, and what training hides


def test_a_missing_cell_is_zero_beside_a_zero_and_an_outlier_is_small() -> None:
    sees = CellFeatures(4, [0, 2], counts=[2], levels=[(1, 5), (3, 51)])
    x = torch.tensor([[2.0, 3.0, 0.0, 49.0], [NAN, NAN, NAN, NAN], [1e9, 0.0, 1e9, 0.0]])
    unseen = torch.tensor([[0.0, 4.0, 0.0, 50.0]])
    features = sees(x)
    assert features.shape == (3, sees.size) == (3, 4 + 4 + 16)
    torch.testing.assert_close(features[0, :4], torch.tensor([math.asinh(2), 0.0, 1.0, 1.0]))
    assert features[1].tolist() == [0.0] * 24
    assert sees(unseen)[0, 4:].tolist() == [0.0] * 20
    assert features[0, 4:8].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert features[2, 4:8].tolist() == [1.0, 0.0, 0.0, 0.0]
    torch.testing.assert_close(features[0, 8:], sees.embeddings[0].weight[49])
    assert float(features[2, :2].detach().max()) < 25
    (sees(x).sum() + sees(unseen).sum()).backward()
    learns = sees.embeddings[0].weight.grad.abs().sum(1) > 0
    assert learns.nonzero().flatten().tolist() == [0, 49]  # neither what is missing nor what was never seen


def test_features_are_standardized_by_what_is_there() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.stack(
        [50 + 3 * torch.randn(4000, generator=g), torch.poisson(torch.full((4000,), 400.0), generator=g)], 1
    )
    x[torch.rand(x.shape, generator=g) < 0.3] = NAN
    sees = CellFeatures(2, [0, 1], counts=[1])
    sees.start_at(x)
    for d in range(2):
        feature = sees(x)[:, d][~x[:, d].isnan()].sinh()
        assert float(feature.median()) == pytest.approx(0, abs=1e-3)
        assert float(feature.std()) == pytest.approx(1, abs=0.03)


def test_training_hides_cells_of_a_share_of_the_rows() -> None:
    torch.manual_seed(0)
    batch = Batch(torch.randn(20_000, 5))
    assert hidden(batch, 0.0) is batch
    missing = hidden(batch, 0.5).x.isnan()
    assert float(missing.float().mean()) == pytest.approx(0.25, abs=0.01)  # half of the rows, half of their cells
    whole = float((~missing.any(1)).float().mean())
    assert whole == pytest.approx(0.5 + 0.5 / 6, abs=0.02)  # ∫(1-u)⁵ du = 1/6 of the others
    kept = ~missing
    assert torch.equal(hidden(batch, 1.0).x.nan_to_num().abs() <= batch.x.abs(), torch.ones_like(kept))


# Quantiles


def test_a_value_that_many_rows_share_has_a_bin_of_its_own() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.cat([torch.zeros(700), 100 * torch.rand(300, generator=g)]).double().unsqueeze(1)
    family = Quantiles(1, bins=40)
    phi = family.start(x).float()
    p = family(phi)
    torch.manual_seed(0)
    draws = p.sample((20_000,))
    assert float((draws.abs() < 1e-2).float().mean()) == pytest.approx(0.7, abs=0.015)
    between = torch.linspace(5, 95, 9001).unsqueeze(1)
    assert float(p.log_prob(between).exp().mean()) == pytest.approx(0.3 / 100, rel=0.1)
    rest = draws[draws > 0.1]
    assert stats.kstest(rest.numpy() / 100, "uniform").statistic < 0.05


def test_whole_numbers_have_bins_as_wide_as_their_step() -> None:
    x = torch.tensor([1.0, 2.0, 2.0, 5.0] * 50, dtype=torch.float64)
    edges, *_ = edges_of(x, 12)
    assert edges[:6].tolist() == [0.5, 1.5, 2.5, 4.5, 5.5, 5.5]
    family = Quantiles(1, bins=13)
    p = family(family.start(x.unsqueeze(1)).float())
    shares = p.log_prob(torch.tensor([[1.0], [2.0], [5.0]])).exp()
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.5, 0.25]), atol=2e-3, rtol=0)


# The recipe


@pytest.mark.parametrize("decimals", [None, 8, 5])
@pytest.mark.parametrize("unit", [1.0, 7e5])
def test_a_number_that_many_rows_share_is_drawn_exactly_as_often(unit: float, decimals: int | None) -> None:
    rng = np.random.default_rng(3)
    x = rng.lognormal(size=4000) * unit
    x = x if decimals is None else x.round(decimals)
    third = unit / 3 if decimals is None else round(unit / 3, decimals)
    x[:1200], x[1200:1800] = 0.0, third
    column = look(frame_of({"c": x})).columns[0]
    stored = torch.from_numpy(x)[:, None]
    family = Quantiles((1,), column.bins, (step_of(column) / column.scale,))
    phi = family.start(Schema((column,)).numbers(stored))
    drawn = Schema((column,)).inverse(family(phi).sample((20_000,)))[:, 0]
    assert column.likelihood == "quantiles"
    for value, share in ((0.0, 0.3), (third, 0.15)):
        assert abs(float((drawn == value).double().mean()) - share) < 4 * (share / 20_000) ** 0.5
    known = set(x.tolist())
    assert sum(value in known for value in drawn.tolist()) < 0.5 * len(drawn)  # the others are new numbers


def test_a_code_far_from_all_other_numbers_is_drawn_exactly() -> None:
    x = np.random.default_rng(4).normal(size=3000)
    x[:600] = -99999.0
    column = look(frame_of({"c": x})).columns[0]
    family = Quantiles((1,), column.bins, (step_of(column) / column.scale,))
    phi = family.start(Schema((column,)).numbers(torch.from_numpy(x)[:, None]))
    drawn = Schema((column,)).inverse(family(phi).sample((20_000,)))[:, 0]
    assert abs(float((drawn == -99999.0).double().mean()) - 0.2) < 4 * (0.16 / 20_000) ** 0.5


def test_a_table_is_trained_and_scored_as_a_density_of_the_data_as_given(run: Run, data: Dataset) -> None:
    assert run.recipe.settings["likelihood"]["parts"] == parts_of(MIXED)
    model = run.model()
    found = aevb.evaluate(model, data.test)
    scores = aevb.score(model, data.test, 100)
    own = aevb.log_marginal(model, data.test, 100)
    torch.testing.assert_close(scores.log_px - own.log_px, MIXED.log_abs_det(data.test.stored))
    assert float(found.log_likelihood) == pytest.approx(float(scores.log_px.mean()), abs=0.1)
    for estimate, rows in ((found.log_likelihood, scores), (found.log_likelihood_standardized, own)):
        assert estimate.se == pytest.approx(Estimate.of(rows.log_px).se, rel=0.02)  # a row's map is part of its density
    start = build_model(run.recipe, data.shape)
    start_at_data(start, data.train, 0)
    assert float(scores.log_px.mean()) > float(aevb.score(start, data.test, 100).log_px.mean()) + 1  # it learned
    assert Values.from_dict(run.meta["values"]).schema == MIXED


def test_a_row_without_any_cell_has_the_prior_as_posterior_and_a_score_of_zero(run: Run) -> None:
    scored = aevb.log_marginal(run.model(), torch.full((1, 6), NAN), 500)
    assert float(scored.log_px) == pytest.approx(0, abs=4 * float(scored.se) + 1e-3)
