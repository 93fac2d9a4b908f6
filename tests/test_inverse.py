"""Distribution functions of cells: they invert, they agree with draws, and averages over latents are those by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, Gamma, LogNormal, Normal, StudentT

from aevb.probability import distributions as d
from aevb.probability.circular import Angles
from aevb.probability.counts import NegativeBinomialCounts, ZeroInflated
from aevb.probability.inverse import average, between, cdf, icdf
from aevb.probability.quantiles import Quantiles

U = torch.linspace(0.005, 0.995, 100, dtype=torch.float64).unsqueeze(1)


def steps() -> Distribution:
    g = torch.Generator().manual_seed(0)
    x = torch.cat([torch.zeros(300, 2), torch.randn(700, 2, generator=g)]).double()
    family = Quantiles(2, bins=20)
    p: Distribution = family(family.start(x).float()).base_dist  # type: ignore[attr-defined]
    return p


def t(*values: float) -> Tensor:
    return torch.tensor(values)


CONTINUOUS = {
    "normal": Normal(t(0.0, 3.0), t(1.0, 0.2)),
    "log-normal": LogNormal(t(0.0, 3.0), t(1.0, 0.2)),
    "student-t": StudentT(t(3.0, 9.0), t(0.0, 1.0), t(1.0, 2.0)),
    "gamma": Gamma(t(0.7, 9.0), t(1.0, 2.0)),
    "beta": Beta(t(0.7, 9.0), t(1.0, 2.0)),
    "logistic": d.Logistic(t(0.0, 3.0), t(1.0, 0.2)),
    "angles": Angles(t(0.3, -40.0), t(-0.2, 1.0)),
    "narrow angles": Angles(t(3e4, 0.0), t(0.0, 0.0)),
    "quantiles": steps(),
}
COUNTS = {
    "poisson": d.Poisson(t(0.7, 40.0), validate_args=False),
    "negative-binomial": NegativeBinomialCounts(t(0.7, 40.0), t(2.0, 5.0)),
    "zero-inflated": ZeroInflated(t(0.5, -2.0), NegativeBinomialCounts(t(0.7, 40.0), t(2.0, 5.0))),
    "levels": d.Levels(torch.tensor([[0.1, 0.7, 2.0], [1.0, -math.inf, 0.0]])),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_inverse_of_a_distribution_function_inverts_it(name: str) -> None:
    p = CONTINUOUS[name]
    torch.testing.assert_close(cdf(p, icdf(p, U)), U.expand(100, 2), atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_slope_of_a_distribution_function_is_the_density(name: str) -> None:
    p = CONTINUOUS[name]
    low, high = icdf(p, torch.tensor([[0.7]])), icdf(p, torch.tensor([[0.95]]))
    at = low + (high - low) * (torch.arange(20_000, dtype=torch.float64).unsqueeze(1) + 0.5) / 20_000
    inside = p.log_prob(at.float()).double().exp().mean(0) * (high - low).squeeze(0)
    torch.testing.assert_close(inside, t(0.25, 0.25).double(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", COUNTS)
def test_the_distribution_function_of_counts_is_the_sum_of_their_probabilities(name: str) -> None:
    p = COUNTS[name]
    top = 3 if name == "levels" else 200
    k = torch.arange(float(top)).unsqueeze(1).expand(top, 2)
    total = p.log_prob(k).double().exp().cumsum(0)
    torch.testing.assert_close(cdf(p, k), total, atol=1e-5, rtol=0)
    smallest = (total.unsqueeze(0) < U.unsqueeze(-1)).sum(1).double()  # the smallest k with F(k) ≥ u
    off = (icdf(p, U) - smallest).abs()
    assert float(off.max()) <= 1  # float32 against float64 at a step
    assert float((off > 0).double().mean()) < 0.02


def test_the_probability_of_a_range_counts_both_ends() -> None:
    p = COUNTS["poisson"]
    below, up_to = between(p, torch.tensor([1.0, 30.0]), torch.tensor([2.0, 30.0]))
    expected = torch.stack([p.log_prob(t(k, 30.0)).exp() for k in (1.0, 2.0)])
    torch.testing.assert_close(
        up_to - below, torch.stack([expected[:, 0].sum(), expected[0, 1]]).double(), rtol=1e-4, atol=0
    )


def test_an_average_over_latents_is_a_mean_a_level_or_a_direction() -> None:
    w = torch.tensor([[0.25], [0.75]], dtype=torch.float64)
    means = average(Normal(torch.tensor([[[1.0]], [[3.0]]]), 1.0), w)
    assert means.tolist() == [[2.5]]
    levels = average(d.Levels(torch.tensor([[[[5.0, 0.0, 0.0]]], [[[0.0, 0.1, 0.2]]]])), w)
    p = 0.25 * t(5.0, 0.0, 0.0).softmax(0) + 0.75 * t(0.0, 0.1, 0.2).softmax(0)
    assert levels.tolist() == [[int(p.argmax())]]
    turn = average(Angles(torch.tensor([[[7.0]], [[0.0]]]), torch.tensor([[[0.0]], [[7.0]]])), w)
    assert float(turn) == pytest.approx(math.atan2(0.75, 0.25), abs=1e-6)
