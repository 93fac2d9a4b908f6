"""Cells given other cells: filled, drawn, in intervals, and how surprising they are; against exact conditionals."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from conditional import NAN, Linear, linear_model, linear_rows
from tabular import MIXED, mixed_rows, mixed_table
from torch import Tensor, nn
from torch.distributions import Normal

import aevb
from aevb import Categorical, Columns, Conditional, DataError, Recipe
from aevb.data.columns import Column, Schema
from aevb.data.dataset import Split
from aevb.data.values import Values
from aevb.runs.build import build_model
from aevb.training.start import start_at_data


@cache
def linear() -> Linear:
    return linear_model()


def exactly(x: Tensor) -> tuple[Tensor, Tensor]:
    """The conditional means and variances, each (N, F)."""
    each = [linear().given(row) for row in x]
    return torch.stack([m for m, _ in each]).double(), torch.stack([v for _, v in each]).double()


def test_the_mean_of_what_is_missing_is_the_exact_one() -> None:
    x = linear_rows(60, holes=0.4)
    found = aevb.impute(linear().model, x, 1000)
    mean, variance = exactly(x)
    error = (variance / found.ess.nan_to_num(1).unsqueeze(1)).sqrt()  # that of a mean of so many draws: an upper bound
    off = ((found.values - mean) / error)[x.isnan()]
    assert float(off.abs().max()) < 4
    assert float(error[x.isnan()].max()) < 0.1
    assert torch.equal(found.values[~x.isnan()], x[~x.isnan()].double())
    ess = found.ess[x.isnan().any(1)]
    assert bool(((ess > 300) & (ess <= 1000)).all())
    assert torch.equal(found.ess.isnan(), ~x.isnan().any(1))


def test_draws_of_what_is_missing_have_the_exact_mean_and_variance() -> None:
    x = linear_rows(60, holes=0.4)
    draws = aevb.conditional_draws(linear().model, x, 400)
    mean, variance = exactly(x)
    holes = x.isnan()
    off = ((draws.mean(0) - mean) / (variance / 200).sqrt())[holes]  # 400 draws of 2,000 proposals
    assert float(off.abs().max()) < 4
    assert float((draws.var(0) / variance)[holes].mean()) == pytest.approx(1, abs=0.04)
    assert torch.equal(draws[:, ~holes], x[~holes].double().expand(400, -1))


def test_intervals_of_missing_cells_cover_as_often_as_they_say() -> None:
    whole = linear_rows(600)
    holes = torch.rand(whole.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    low, high = aevb.intervals(linear().model, torch.where(holes, NAN, whole), 0.9, samples=500)
    assert torch.equal(low.isnan(), ~holes)
    inside = ((low < whole) & (whole < high))[holes].double()
    assert float(inside.mean()) == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / len(inside)) + 0.01)


def test_the_median_is_the_middle_of_the_draws() -> None:
    x = linear_rows(60, holes=0.4)
    found = aevb.impute(linear().model, x, 1000, method="median")
    mean, variance = exactly(x)  # of a normal the mean is the median
    off = ((found.values - mean) / (variance * math.pi / 2 / found.ess.unsqueeze(1)).sqrt())[x.isnan()]
    assert float(off.abs().max()) < 4


def test_a_row_is_filled_alike_beside_others_and_alone() -> None:
    x = linear_rows(30, holes=0.4)
    for use in (
        lambda rows: aevb.impute(linear().model, rows, 50).values,
        lambda rows: aevb.conditional_draws(linear().model, rows, 3)[1],
        lambda rows: aevb.surprise(linear().model, rows, 50),
    ):
        torch.testing.assert_close(use(x)[7:9], use(x[7:9]), atol=1e-6, rtol=1e-6, equal_nan=True)


def test_draws_of_equal_rows_differ() -> None:
    draws = aevb.conditional_draws(linear().model, torch.full((1, 6), NAN).expand(500, -1), 1)[0]
    variance = linear().covariance.diagonal().double()
    assert len(draws.unique(dim=0)) == 500
    torch.testing.assert_close(draws.var(0) / variance, torch.ones(6).double(), atol=0.3, rtol=0)


# Surprise


def test_the_surprise_of_a_cell_is_exact_on_a_linear_model() -> None:
    x = linear_rows(80, holes=0.2)
    x[:20, 0] += torch.tensor([1.0, 2.0, -2.0, 3.0]).repeat(5)
    exact = torch.stack([linear().surprises(row) for row in x]).double()
    found = aevb.surprise(linear().model, x, 2000)
    assert torch.equal(found.isnan(), x.isnan())
    off = (found - exact)[~x.isnan()]
    assert float(exact.nan_to_num().max()) > 6
    assert float(off.square().mean().sqrt()) < 0.06
    few = (aevb.surprise(linear().model, x, 200) - exact)[~x.isnan()]
    assert float(few.square().mean().sqrt()) == pytest.approx(
        math.sqrt(10) * float(off.square().mean().sqrt()), rel=0.5
    )


def test_surprises_of_one_cell_and_of_the_rest_make_up_log_p() -> None:
    """Of a row with one cell the surprise is -log p(x)."""
    x = torch.full((5, 6), NAN)
    x[:, 2] = torch.linspace(-3, 3, 5)
    found = aevb.surprise(linear().model, x, 20_000)[:, 2]
    exact = torch.stack([-linear().log_prob(row) for row in x]).double()
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)


def test_surprise_is_of_a_density_in_the_units_of_the_data() -> None:
    columns = tuple(Column(f"c{i}", "real", likelihood="normal", center=1.0, scale=10.0**i) for i in range(6))
    values = Values("columns", schema=Schema(columns))
    x = linear_rows(20, holes=0.2)
    split = Split(values.columns.inverse(x), values=values)
    plain, own = aevb.surprise(linear().model, split[:], 300), aevb.surprise(linear().model, split, 300)
    expected = plain + torch.arange(6) * math.log(10)
    torch.testing.assert_close(own, expected, equal_nan=True)


def test_a_pixel_has_a_surprise() -> None:
    model = build_model(Recipe.load("bernoulli"), (5,))
    x = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]])
    found = aevb.surprise(model, x, 4000)
    z = torch.randn(20_000, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = model.decode(z).base_dist.log_prob(x)
    exact = (each.sum(-1, keepdim=True) - each).logsumexp(0) - each.sum(-1).logsumexp(0)
    torch.testing.assert_close(found[0], exact.double(), atol=0.05, rtol=0)


# Units and kinds


@cache
def mixed_model() -> aevb.VAE:
    """Of the mixed table, hardly trained: its encoder is wrong, so that all rests on the weights."""
    data = mixed_table(400)
    model = build_model(Recipe.load("table").of(data), data.shape)
    start_at_data(model, data.train, 0)
    with torch.no_grad():
        for weight in model.decoder.net.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return model.eval()


def by_hand(row: Tensor, n: int = 20_000) -> tuple[Tensor, Tensor]:
    """Draws of a mixed row's cells with their weights, from the prior: (n, F) stored numbers, (n,)."""
    torch.manual_seed(0)
    with torch.no_grad():
        p = mixed_model().decode(mixed_model().sample_latent(n))
        w = p.log_prob(MIXED.numbers(row.unsqueeze(0)).expand(n, -1)).double().softmax(0)
        return MIXED.inverse(p.sample()), w


def test_a_mixed_row_is_filled_in_the_units_of_the_data() -> None:
    rows = mixed_rows(2, seed=3, holes=0.0)
    rows[:, 2:] = NAN
    rows[0] = NAN
    found = aevb.impute(mixed_model(), Split(rows, values=Values("columns", schema=MIXED)), 4000).values
    for row, filled in zip(rows, found, strict=True):
        draws, w = by_hand(row)
        mean = (w.unsqueeze(1) * draws).sum(0)
        sd = (w.unsqueeze(1) * (draws - mean).square()).sum(0).sqrt()
        for d in (0, 4):  # real, spiky
            if row[d].isnan():
                assert float(filled[d]) == pytest.approx(float(mean[d]), abs=0.1 * float(sd[d]))
        assert float(filled[2]) == pytest.approx(float(mean[2]), abs=0.5 + 0.1 * float(sd[2]))
        assert float(filled[2]) == round(float(filled[2]))
        shares = torch.stack([w[draws[:, 3] == code].sum() for code in range(3)])
        assert float(shares.max() - shares[int(filled[3])]) < 0.02
        angle = torch.atan2((w * draws[:, 5].sin()).sum(), (w * draws[:, 5].cos()).sum())
        assert float((filled[5] - angle).cos()) > 0.9
    draws, _ = by_hand(rows[0])
    inside = draws[:, 1].clamp(0.01, 90.0)  # the mean of a positive column: within what was seen
    assert float(found[0, 1]) == pytest.approx(float(inside.mean()), rel=0.1)
    middle = aevb.impute(mixed_model(), Split(rows, values=Values("columns", schema=MIXED)), 4000, method="median")
    assert float(middle.values[0, 1]) == pytest.approx(float(draws[:, 1].median()), rel=0.1)
    assert torch.equal(found[1:, :2], rows[1:, :2])


def test_draws_of_a_mixed_row_follow_its_conditional_column_by_column() -> None:
    rows = mixed_rows(1, seed=3, holes=0.0)
    rows[:, 2:] = NAN
    draws = aevb.conditional_draws(
        mixed_model(), Split(rows, values=Values("columns", schema=MIXED)), 4000, samples=8000
    )[:, 0]
    other, w = by_hand(rows[0])
    for d in (2, 4, 5):
        cut = float(other[:, d].median()) + 1e-4  # just above, where many draws are the same number
        share = float(w[other[:, d] <= cut].sum())
        assert float((draws[:, d] <= cut).double().mean()) == pytest.approx(share, abs=0.05)
    for code in range(3):
        share = float(w[other[:, 3] == code].sum())
        assert float((draws[:, 3] == code).double().mean()) == pytest.approx(share, abs=0.05)


def test_levels_that_are_numbers_are_filled_by_the_one_nearest_to_the_mean() -> None:
    """z is known: the shares of the levels 1, 2 and 10 are .4, .3 and .3, with mean 4 and median 2."""
    family = Columns(2, [aevb.Normal(1), Categorical(1, 3)], [[0], [1]])
    net = nn.Linear(1, family.size)
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.tensor([0.0, 0.0, *torch.tensor([0.4, 0.3, 0.3]).log()]))
    model = aevb.VAE(aevb.StandardNormal(1), Wrong(), Conditional(net, family)).eval()
    row = torch.tensor([[0.5, NAN]]).double()
    found = {}
    for kind in ("categorical", "ordinal"):
        levels = Column("c", kind, likelihood="categorical", levels=(1, 2, 10))
        schema = Schema((Column("x", "real", likelihood="normal"), levels))
        split = Split(row, values=Values("columns", schema=schema))
        for method in ("mean", "median"):
            found[kind, method] = float(aevb.impute(model, split, 2000, method=method).values[0, 1])  # type: ignore[arg-type]
        low, high = aevb.intervals(model, split)
        assert bool(low[0, 1].isnan()) == (kind == "categorical")
    assert found == {
        ("categorical", "mean"): 0.0,
        ("categorical", "median"): 0.0,
        ("ordinal", "mean"): 1.0,
        ("ordinal", "median"): 1.0,
    }
    assert float(high[0, 1]) == 2.0


def test_a_model_without_holes_is_refused() -> None:
    model = build_model(Recipe.load("gaussian"), (3,))
    with pytest.raises(DataError, match=r"does not support rows with holes\. Train one of a table"):
        aevb.impute(model, torch.zeros(2, 3))


# New rows given some columns


class Wrong(nn.Module):
    """An encoder that has learned nothing."""

    def forward(self, x: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Independent(Normal(torch.zeros(len(x), 1), 1.5 * torch.ones(len(x), 1)), 1)


@cache
def two_columns() -> aevb.VAE:
    """z ~ N(0, 1); a number N(2z, 0.5²), and one of three levels with logits (3z, 0, -3z)."""
    family = Columns(2, [aevb.Normal(1, scale=0.5), Categorical(1, 3)], [[0], [1]])
    net = nn.Linear(1, family.size)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0], [3.0], [0.0], [-3.0]]))
        net.bias.zero_()
    return aevb.VAE(aevb.StandardNormal(1), Wrong(), Conditional(net, family)).eval()


def on_a_grid() -> tuple[Tensor, Tensor, Tensor]:
    """x (G,), the levels' probabilities given z (Z, 3), and p(z, x) (Z, G), all by brute force."""
    z, x = torch.linspace(-6, 6, 1201).double(), torch.linspace(-12, 12, 2401).double()
    levels = (z.unsqueeze(1) * torch.tensor([3.0, 0.0, -3.0])).softmax(1)
    joint = (Normal(0, 1).log_prob(z).unsqueeze(1) + Normal(2 * z.unsqueeze(1), 0.5).log_prob(x)).exp()
    return x, levels, joint / joint.sum()


def test_rows_given_a_level_agree_with_brute_force() -> None:
    x, levels, joint = on_a_grid()
    rows = aevb.sample_given(two_columns(), 6000, {1: 2.0})
    assert rows[:, 1].unique().tolist() == [2.0]
    density = (joint * levels[:, 2:]).sum(0)
    density = density / density.sum()
    mean = float((density * x).sum())
    sd = math.sqrt(float((density * (x - mean) ** 2).sum()))
    assert float(rows[:, 0].mean()) == pytest.approx(mean, abs=5 * sd / math.sqrt(6000))
    assert float(rows[:, 0].std()) == pytest.approx(sd, rel=0.05)


def test_rows_given_a_number_agree_with_brute_force() -> None:
    x, levels, joint = on_a_grid()
    at = int((x - 1.0).abs().argmin())
    shares = (joint[:, at : at + 1] * levels).sum(0)
    shares = shares / shares.sum()
    rows = aevb.sample_given(two_columns(), 6000, {0: 1.0})
    assert rows[:, 0].unique().tolist() == [1.0]
    found = torch.bincount(rows[:, 1].long(), minlength=3) / 6000
    torch.testing.assert_close(found.double(), shares, atol=0.03, rtol=0)


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.5), (3.5, None), (None, -6.0)])
def test_rows_given_a_range_agree_with_brute_force(low: float | None, high: float | None) -> None:
    x, levels, joint = on_a_grid()
    inside = (x >= (-math.inf if low is None else low)) & (x <= (math.inf if high is None else high))
    part = joint * inside
    shares = (part.sum(1, keepdim=True) * levels).sum(0) / part.sum()
    mean = float((part.sum(0) * x).sum() / part.sum())
    rows = aevb.sample_given(two_columns(), 6000, {0: (low, high)})
    assert bool((rows[:, 0] >= (low or -math.inf)).all() & (rows[:, 0] <= (high or math.inf)).all())
    assert float(rows[:, 0].mean()) == pytest.approx(mean, abs=0.03)
    found = torch.bincount(rows[:, 1].long(), minlength=3) / 6000
    torch.testing.assert_close(found.double(), shares.double(), atol=0.03, rtol=0)


def test_what_is_given_of_a_table_is_in_its_own_units() -> None:
    given = {"level": 1.0, "positive": (2.0, 5.0), "count": (1.0, 3.0), "angle": (-1.0, 1.0)}
    rows = aevb.sample_given(mixed_model(), 3000, given, schema=MIXED)
    assert rows[:, 3].unique().tolist() == [1.0]
    assert bool(((rows[:, 1] >= 2) & (rows[:, 1] <= 5)).all())
    assert set(rows[:, 2].tolist()) == {1.0, 2.0, 3.0}
    assert bool((rows[:, 5].abs() <= 1).all())
    torch.manual_seed(1)
    with torch.no_grad():
        x = MIXED.inverse(mixed_model().decode(mixed_model().sample_latent(60_000)).sample())
    kept = (x[:, 3] == 1) & (x[:, 1] >= 2) & (x[:, 1] <= 5) & (x[:, 2] >= 1) & (x[:, 2] <= 3) & (x[:, 5].abs() <= 1)
    by_rejection = x[kept]
    assert len(by_rejection) > 100
    for d in (0, 1, 2, 5):
        error = float(by_rejection[:, d].std()) * math.sqrt(1 / len(by_rejection) + 1 / 600)
        assert float(rows[:, d].mean()) == pytest.approx(float(by_rejection[:, d].mean()), abs=4 * error)


def test_what_cannot_be_given_is_refused() -> None:
    with pytest.raises(DataError, match=r"no column 'sex' that could be given\. It models real, positive"):
        aevb.sample_given(mixed_model(), 3, {"sex": 1.0}, schema=MIXED)
    with pytest.raises(DataError, match="Column 'level' has the levels 0 to 2; got 3"):
        aevb.sample_given(mixed_model(), 3, {"level": 3.0}, schema=MIXED)
    with pytest.raises(DataError, match="The range from 5 to 2 holds no number"):
        aevb.sample_given(mixed_model(), 3, {"real": (5.0, 2.0)}, schema=MIXED)
    with pytest.raises(DataError, match="no probability"):
        aevb.sample_given(two_columns(), 3, {0: (1e3, 2e3)})
