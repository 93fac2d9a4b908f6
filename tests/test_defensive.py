"""log p(x) of few latents by defensive mixtures, against evidence that is known exactly or by quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import DTYPE, Oracle, close, oracle
from torch import Tensor, nn

import aevb
from aevb.data.batch import Batch
from aevb.data.walk import walking
from aevb.evaluation.evaluate import evaluate
from aevb.evidence.defensive import TURNS, counted, defended, defends
from aevb.evidence.importance import log_marginal, log_weights, marginal_of
from aevb.evidence.marginal import Marginal, estimated
from aevb.evidence.support import annealable
from aevb.models.conditional import Conditional
from aevb.models.inference import inference
from aevb.models.priors import StandardNormal
from aevb.models.rows import by_row
from aevb.models.vae import VAE


@pytest.fixture(scope="module")
def truth() -> Oracle:
    return oracle(x=4, d=2)


def found(model: VAE, x: Tensor, samples: int, seed: int = 0) -> Marginal:
    with inference(model, 0):
        (group,) = by_row(model.posterior, Batch(x), seed)
        return marginal_of(model, group, samples, model.prior())


def test_the_evidence_of_a_linear_model_is_found_from_a_posterior_that_is_far_off(truth: Oracle) -> None:
    x, model = truth.data(40), truth.vae(shift=0.8, widen=0.15)
    log_px = truth.evidence.log_prob(x)
    m = found(model, x, 2000)
    close(m.log_px, log_px, m.se)
    assert m.samples == 2000
    assert m.heavy < 0.1
    plain = log_marginal(model, x, 2000)  # from q alone
    assert plain.heavy > 0.5
    assert float((m.log_px - log_px).abs().mean()) < 0.2 * float((plain.log_px - log_px).abs().mean())


def test_the_estimate_is_unbiased(truth: Oracle) -> None:
    """E[p̂(x)] = p(x), though the second mixture is made of the pilot's draws; over 400 seeds, at the smallest K."""
    x, model = truth.data(8), truth.vae(shift=0.8, widen=0.15)
    log_px = truth.evidence.log_prob(x)
    ratios = torch.stack([(found(model, x, 100, seed).log_px - log_px).exp() for seed in range(400)])
    close(ratios.mean(0), torch.ones(8, dtype=DTYPE), ratios.std(0) / math.sqrt(400), limit=4)


def test_no_weight_is_larger_than_ten_times_the_likelihood(truth: Oracle) -> None:
    """The prior has a tenth of the draws: w = p(x|z) p(z) / r(z) ≤ 10 p(x|z); far from q some weights are as large."""
    x, model, seen = truth.data(8), truth.vae(shift=0.8, widen=0.15), []

    def log_joint(z: Tensor) -> Tensor:
        seen.append((z, model.log_joint(Batch(x), z)))
        return seen[-1][1]

    with inference(model, 0):
        (group,) = by_row(model.posterior, Batch(x), 0)
        for log_w in defended(log_joint, group, model.prior(), 4000):
            z, log_pxz = seen[-1]
            excess = log_w - (log_pxz - model.prior().log_prob(z)) - math.log(10)
            assert float(excess.max()) < 1e-9
            assert float(excess.max()) > -2e-3  # whole draws: its share is 267 of 2,667


class Square(nn.Module):
    """φ = z², so that p(z|x) has two modes, at ±√x."""

    def forward(self, z: Tensor) -> Tensor:
        return z.square()


class OneSide(nn.Module):
    """q(z|x) = N(√x, 0.1²): the mode at -√x is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(math.log(0.01)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.clamp(min=0).sqrt(), self.log_variance.expand_as(x)], 1)


def test_a_mode_that_the_posterior_misses_is_found() -> None:
    model = VAE(
        StandardNormal(1),
        Conditional(OneSide(), aevb.Normal(1)),
        Conditional(Square(), aevb.Normal(1, scale=0.2)),
    ).double()
    x = torch.tensor([[1.0], [1.5], [2.5]], dtype=DTYPE)
    grid = torch.linspace(-8, 8, 20_001, dtype=DTYPE)
    log_px = model.log_joint(x, grid[:, None, None].expand(-1, 3, 1)).logsumexp(0) + math.log(16 / 20_000)
    m, plain = found(model, x, 3000), log_marginal(model, x, 3000)
    close(m.log_px, log_px, m.se)
    assert m.heavy == 0
    torch.testing.assert_close(plain.log_px, log_px - math.log(2), atol=0.1, rtol=0)  # half of it, and no word


def test_a_row_is_scored_as_without_the_others(truth: Oracle) -> None:
    x, model = truth.data(5), truth.vae(shift=0.8, widen=0.15)
    alone = torch.cat([found(model, x[i : i + 1], 700).log_px for i in range(5)])
    torch.testing.assert_close(found(model, x, 700).log_px, alone, rtol=1e-10, atol=1e-10)


def test_many_latents_and_few_draws_are_taken_from_the_posterior() -> None:
    for d, samples in ((5, 200), (2, 99)):
        truth = oracle(x=8, d=d)
        x, model = truth.data(6), truth.vae(shift=0.3)
        assert not defends(model.posterior(x), model.prior(), samples)
        with inference(model, 0):
            (group,) = by_row(model.posterior, Batch(x), 0)
            from_q = estimated(log_weights(model, group, samples), samples)
        assert torch.equal(found(model, x, samples).log_px, from_q.log_px)
    assert defends(model.posterior(x), model.prior(), 100)


def test_a_third_of_the_draws_is_the_pilot_and_the_prior_has_a_fifth_of_them() -> None:
    assert [counted(k) for k in (100, 101, 102, 1000)] == [67, 68, 68, 667]
    assert [TURNS.count(c) for c in range(4)] == [2, 4, 2, 2]
    assert [TURNS[::2].count(c) for c in range(4)] == [1, 2, 1, 1]  # every second draw is from a kernel


def test_evaluate_reports_it_and_counts_all_draws(truth: Oracle) -> None:
    x, model, seen = truth.data(30), truth.vae(shift=0.8, widen=0.15), []
    with walking(progress=lambda *done: seen.append(done)):
        e = evaluate(model, x, importance_samples=1000)
    error = float(e.log_likelihood) - float(truth.evidence.log_prob(x).mean())
    assert abs(error) < 4 * e.log_likelihood_monte_carlo_se < 0.1
    assert e.importance_warning is None
    assert seen[-1] == (30_000, 30_000)


def test_annealing_can_start_at_densities_on_a_space_without_walls() -> None:
    phi = torch.zeros(1, 4)
    assert annealable(aevb.Normal(2)(phi))
    assert annealable(aevb.LogNormal(2)(phi))
    assert not annealable(aevb.Delta(4)(phi))  # a point
    assert not annealable(aevb.Uniform(2)(phi))  # not all of the plane
    assert not annealable(aevb.VonMisesFisher(3)(phi))  # a sphere
