"""The parts of the KL: identities draw by draw, closed forms of the linear-Gaussian model, and what must not matter."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from oracle import DTYPE, Oracle, oracle
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import aevb
from aevb.data.walk import walking
from aevb.evaluation.bound import Bound, elbo
from aevb.evaluation.reports.surgery import Surgery, aggregate, surgery
from aevb.evidence.support import NoLikelihood


def agrees(draws: Tensor, exact: float, slack: float = 0.0) -> None:
    """Within 4 standard errors, which are small enough to say something; `slack`: of a q(z) of finitely many data."""
    se = float(draws.std()) / math.sqrt(len(draws))
    assert se < 0.05
    assert abs(float(draws.mean()) - exact) < 4 * se + slack, (float(draws.mean()), exact, se)


def mixing(o: Oracle, turn: Tensor, shift: float = 0.0) -> aevb.VAE:
    """The exact posterior with its means multiplied by a matrix: the aggregate posterior becomes correlated."""
    model = o.vae(shift=shift)
    encoder, d = model.encoder.net, len(turn)
    with torch.no_grad():
        encoder.weight[:d] = turn @ encoder.weight[:d]
        encoder.bias[:d] = turn @ encoder.bias[:d]
    return model


def gaussian(o: Oracle, turn: Tensor) -> MultivariateNormal:
    """The aggregate posterior of infinitely many data of `mixing`: Cov = T (I - v) Tᵀ + v."""
    v = o.variances
    return MultivariateNormal(torch.zeros_like(v), turn @ torch.diag(1 - v) @ turn.T + torch.diag(v))


# Identities


@pytest.mark.parametrize("posterior", [aevb.Normal(3), aevb.FullNormal(3), aevb.Laplace(3)])
def test_the_parts_telescope_draw_by_draw(posterior: aevb.Family) -> None:
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(6, posterior.size), nn.Linear(3, 6)
    model = aevb.VAE(
        aevb.StandardNormal(3),
        aevb.Conditional(encoder, posterior),
        aevb.Conditional(decoder, aevb.Normal(6, scale=0.6)),
    ).double()
    x = oracle().data(200)
    s = surgery(model, x)
    assert s.total_correlation is not None
    assert s.dimension_kl is not None
    assert s.dimension_kl.shape == (200, 3)
    torch.testing.assert_close(s.total_correlation + s.dimension_kl.sum(1), s.aggregate_kl)
    error = s.mutual_information + s.aggregate_kl - s.bound.kl.sum(1).mean()  # log q(z_m|x_m) - log p(z_m) - mean KL
    assert abs(float(error.mean())) < 4 * float(error.std()) / math.sqrt(200)


def test_rate_and_distortion_are_those_of_the_bound() -> None:
    o = oracle()
    x, model = o.data(50), o.vae(shift=0.2)
    s = surgery(model, x, seed=3)
    torch.testing.assert_close(s.bound.elbo, elbo(model, x, seed=3).elbo)


# Closed forms


@pytest.mark.trap(38)
def test_information_and_marginal_kl_of_the_exact_posterior() -> None:
    """I(x; z) = -½ Σ log v_d, and the aggregate posterior is the prior."""
    o = oracle(d=2)
    s = surgery(o.vae(), o.data(3000), draws=2000)
    agrees(s.mutual_information, float(-0.5 * o.variances.log().sum()), slack=0.025)
    agrees(s.aggregate_kl, 0.0, slack=0.025)
    assert s.total_correlation is not None
    agrees(s.total_correlation, 0.0, slack=0.025)


def test_a_shift_of_all_codes_is_marginal_kl_and_nothing_else() -> None:
    o = oracle(d=2)
    s = surgery(o.vae(shift=0.7), o.data(3000), draws=2000)
    agrees(s.mutual_information, float(-0.5 * o.variances.log().sum()), slack=0.025)
    assert s.dimension_kl is not None
    for column in s.dimension_kl.T:
        agrees(column, 0.5 * 0.7**2, slack=0.025)


def test_total_correlation_of_a_correlated_normal() -> None:
    """½ (Σ log Σ_dd - log det Σ), and Σ_d KL(q(z_d) ‖ p(z_d)) of its marginals."""
    o, turn = oracle(d=2, s=0.4), torch.tensor([[1.0, 0.0], [0.9, 0.6]], dtype=DTYPE)
    q = gaussian(o, turn)
    s = surgery(mixing(o, turn), o.data(3000), draws=2000)
    assert s.total_correlation is not None
    assert s.dimension_kl is not None
    exact = 0.5 * (q.variance.log().sum() - q.covariance_matrix.logdet())
    assert float(exact) > 0.15
    agrees(s.total_correlation, float(exact), slack=0.025)
    apart = kl_divergence(Normal(torch.zeros(2, dtype=DTYPE), q.variance.sqrt()), Normal(0.0, 1.0))
    for column, value in zip(s.dimension_kl.T, apart, strict=True):
        agrees(column, float(value), slack=0.025)


def test_one_data_point_tells_nothing_and_two_far_apart_tell_log_two() -> None:
    o = oracle(d=2, s=0.1)
    one = surgery(o.vae(), o.data(1).expand(100, -1))
    torch.testing.assert_close(one.mutual_information, torch.zeros(100, dtype=DTYPE), atol=1e-9, rtol=0)
    x = torch.cat([o.data(1) - 30, o.data(1) + 30])
    two = surgery(o.vae(), x)
    torch.testing.assert_close(two.mutual_information, torch.full((2,), math.log(2), dtype=DTYPE))
    assert two.most_information == pytest.approx(math.log(2))


def test_information_is_at_most_log_n() -> None:
    o = oracle(d=2, s=0.01)
    s = surgery(o.vae(), o.data(50))
    assert float(s.mutual_information.max()) <= s.most_information + 1e-9
    assert float(s.mutual_information.mean()) > 0.95 * s.most_information


def test_the_aggregate_posterior_is_the_mixture_over_all_of_the_data() -> None:
    o = oracle(d=2)
    x, model = o.data(700), o.vae()
    z = torch.randn(9, 2, dtype=DTYPE)
    joint, single = aggregate(model, x, z)
    with torch.no_grad():
        q = model.posterior(x)
    assert isinstance(q, Independent)
    torch.testing.assert_close(joint, q.log_prob(z[:, None]).logsumexp(1) - math.log(700))
    torch.testing.assert_close(single, q.base_dist.log_prob(z[:, None]).logsumexp(1) - math.log(700))


# What must not matter


def test_neither_chunks_nor_copies_nor_the_order_of_the_data_matter() -> None:
    o = oracle(d=2)
    x, model = o.data(600), o.vae(shift=0.3)
    whole = surgery(model, x)
    with walking(memory=1000):
        parts = surgery(model, x)
    torch.testing.assert_close(parts.mutual_information, whole.mutual_information)
    torch.testing.assert_close(parts.total_correlation, whole.total_correlation)
    for other in (surgery(model, x.flip(0)), surgery(model, x.repeat(2, 1)), surgery(model, x, seed=1)):
        for a, b in ((other.mutual_information, whole.mutual_information), (other.aggregate_kl, whole.aggregate_kl)):
            error = math.hypot(float(a.std()) / math.sqrt(len(a)), float(b.std()) / math.sqrt(len(b)))
            assert abs(float(a.mean() - b.mean())) < 4 * error


# Verdicts


def constant(silent: int, d: int = 3) -> Surgery:
    """Of an encoder whose first `silent` latents are the prior whatever the data."""
    o = oracle(d=d)
    model = o.vae()
    with torch.no_grad():
        for rows in (range(silent), range(d, d + silent)):
            model.encoder.net.weight[list(rows)] = 0
            model.encoder.net.bias[list(rows)] = 0
    return surgery(model, o.data(300))


def test_collapse_is_named() -> None:
    assert [int(constant(k).collapsed.sum()) for k in (0, 2, 3)] == [0, 2, 3]
    assert constant(0).verdict == "No posterior collapse: each of 3 latents carries information about the data."
    assert constant(2).verdict.startswith("Partial posterior collapse: 2 of 3 latents")
    assert constant(0, d=1).verdict == "No posterior collapse: the code carries information about the data."
    assert constant(1, d=1).verdict == "The posterior has collapsed: the code carries no information about the data."
    dead = constant(3)
    assert dead.verdict.startswith("The posterior has collapsed")
    assert float(dead.mutual_information.abs().max()) < 1e-9
    assert float(dead.aggregate_kl.abs().max()) < 1e-9


def test_a_kl_that_all_data_share_is_a_collapse() -> None:
    """q(z|x) = N(0.5, 1) for every x: KL 0.125 nats in each latent, of which none tells data apart."""
    o = oracle(d=2)
    model = o.vae()
    with torch.no_grad():
        model.encoder.net.weight.zero_()
        model.encoder.net.bias.copy_(torch.tensor([0.5, 0.5, 0.0, 0.0]))
    s = surgery(model, o.data(200))
    assert float(s.bound.kl.mean()) == pytest.approx(0.125)
    assert not bool(s.collapsed.any())
    assert s.verdict.startswith("The posterior has collapsed: its KL is the same for all data")


def test_information_within_its_error_is_no_collapse_where_the_kl_differs() -> None:
    s = surgery(oracle(d=2).vae(), oracle(d=2).data(3))
    doubtful = replace(s, mutual_information=torch.tensor([-1.0, 1.0]))
    assert float(s.bound.kl.sum(1).std()) > 0.01
    assert doubtful.verdict.startswith("I(x; z) is 0 within its error: more data points are needed")


def test_a_posterior_without_marginals_has_information_still() -> None:
    torch.manual_seed(0)
    posterior = aevb.Dirichlet(3)
    prior = aevb.Known(torch.distributions.Dirichlet, (1.0,), 3)
    encoder, decoder = nn.Linear(6, posterior.size), nn.Linear(3, 6)
    model = aevb.VAE(prior, aevb.Conditional(encoder, posterior), aevb.Conditional(decoder, aevb.Normal(6, scale=1.0)))
    s = surgery(model, oracle().data(100).float())
    assert s.total_correlation is None
    assert s.dimension_kl is None
    assert bool(s.mutual_information.isfinite().all())


def test_total_correlation_asks_for_no_prior() -> None:
    """Under a mixture, whose marginals have no formula, it is what it is under any other prior."""
    o, turn = oracle(d=2, s=0.4), torch.tensor([[1.0, 0.0], [0.9, 0.6]], dtype=DTYPE)
    plain = mixing(o, turn)
    mixed = aevb.VAE(aevb.Mixture(aevb.Normal(2), 3).double(), plain.encoder, plain.decoder)
    a, b = (surgery(m, o.data(500), draws=200) for m in (plain, mixed))
    assert a.total_correlation is not None
    assert b.total_correlation is not None
    torch.testing.assert_close(a.total_correlation, b.total_correlation)
    assert b.dimension_kl is None


def test_what_is_refused() -> None:
    o = oracle(d=2)
    with pytest.raises(ValueError, match="at least 1"):
        surgery(o.vae(), o.data(2), draws=0)
    point = aevb.VAE(
        aevb.StandardNormal(2),
        aevb.Conditional(nn.Linear(6, 2), aevb.Delta(2)),
        aevb.Conditional(nn.Linear(2, 6), aevb.Normal(6, scale=1.0)),
    )
    with pytest.raises(NoLikelihood):
        surgery(point, o.data(5).float())


# Closed forms of posteriors that are the same for all data


CORRELATED = {"full": aevb.FullNormal(3), "low-rank": aevb.LowRankNormal(3), "householder": aevb.Householder(3)}


@pytest.mark.parametrize("family", CORRELATED.values(), ids=CORRELATED)
def test_the_parts_of_a_correlated_normal_have_their_closed_form(family: aevb.Family) -> None:
    """q(z) = N(m, Σ): Σ_d KL(N(m_d, Σ_dd) ‖ N(0, 1)) = ½ Σ (Σ_dd + m_d² - 1 - log Σ_dd), TC = ½ (Σ log Σ_dd - log
    |Σ|)."""
    torch.manual_seed(0)
    encoder = nn.Linear(4, family.size).double()
    with torch.no_grad():
        encoder.weight.zero_()
        encoder.bias.normal_()
    decoder = aevb.Conditional(nn.Linear(3, 4), aevb.Normal(4, scale=1.0))
    model = aevb.VAE(aevb.StandardNormal(3), aevb.Conditional(encoder, family), decoder).double()
    x = torch.randn(1500, 4, dtype=DTYPE)
    q = model.posterior(x[:1])
    mean, cov = q.mean[0].detach(), q.covariance_matrix[0].detach()  # type: ignore[attr-defined]
    v = cov.diagonal()
    assert (v - 1).abs().min() > 0.05
    s = aevb.surgery(model, x)
    assert s.total_correlation is not None
    assert s.dimension_kl is not None
    agrees(s.total_correlation, float(0.5 * (v.log().sum() - cov.logdet())))
    each = 0.5 * (v + mean**2 - 1 - v.log())
    error = s.dimension_kl.mean(0) - each
    assert bool((error.abs() < 4 * s.dimension_kl.std(0) / math.sqrt(1500)).all())


def test_a_latent_is_collapsed_where_it_is_silent_for_99_of_100_data_points() -> None:
    kl = torch.full((200, 4), 0.005, dtype=torch.float64)
    for column, speaking in enumerate((0, 2, 3, 120)):
        kl[:speaking, column] = 0.5
    for more, expected in ((0.0, [True, True, False, False]), (0.01, [False] * 4)):
        s = Surgery(Bound(torch.zeros(200), kl + more), torch.zeros(3), torch.zeros(3), None, None)
        assert s.collapsed.tolist() == expected


def test_every_data_point_is_drawn_once_where_there_are_draws_for_all() -> None:
    """q(z|x) is narrow around x = 10, 20, ..., 200, so that log q(z_m) - log p(z_m) ≃ z_m² / 2 tells which x it was."""
    x = 10 * torch.arange(1, 21, dtype=torch.float64)[:, None]
    encoder, decoder = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        encoder.weight.fill_(1.0)
        encoder.bias.zero_()
    q, p = aevb.Normal(1, scale=1e-3), aevb.Normal(1, scale=1.0)
    model = aevb.VAE(aevb.StandardNormal(1), aevb.Conditional(encoder, q), aevb.Conditional(decoder, p)).double()
    for draws in (20, 50):
        found = aevb.surgery(model, x, draws=draws).aggregate_kl
        assert (2 * found).sqrt().div(10).round().sort().values.tolist() == list(range(1, 21))
    some = aevb.surgery(model, x, draws=12).aggregate_kl
    assert len((2 * some).sqrt().div(10).round().unique()) == 12
