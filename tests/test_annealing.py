"""Annealed importance sampling and the bracket against the exact evidence, quadrature, and each other."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from oracle import DTYPE, oracle
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Exponential, Independent, MixtureSameFamily, Normal

import aevb
from aevb.data.batch import Batch
from aevb.data.walk import walking
from aevb.errors import AevbError
from aevb.evidence.annealed import Annealing, Bracket, Bridge, bidirectional, log_marginal_ais, temperatures
from aevb.evidence.importance import log_marginal
from aevb.evidence.support import NoLikelihood
from aevb.probability.hmc import HMC

SHORT = Annealing(temperatures=15, leapfrogs=3)


def mean_se(x: Tensor) -> tuple[float, float]:
    return float(x.mean()), float(x.std()) / math.sqrt(len(x))


def is_one(ratio: Tensor) -> None:
    """E[p̂(x) / p(x)] = 1 within 4 standard errors, and these are small enough to say something."""
    mean, se = mean_se(ratio)
    assert se < 0.1
    assert abs(mean - 1) < 4 * se, (mean, se)


def network(d: int, x: int, prior: nn.Module, posterior: aevb.Family, scale: float = 0.6) -> aevb.VAE:
    """A decoder with tanh units and an encoder whose output is zero."""
    torch.manual_seed(2)
    decoder = nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, x)).double()
    for p in decoder.parameters():
        nn.init.normal_(p, std=1.2)
    encoder = nn.Linear(x, posterior.size).double()
    for p in encoder.parameters():
        nn.init.zeros_(p)
    likelihood = aevb.Conditional(decoder, aevb.Normal(x, scale=scale))
    return aevb.VAE(prior, aevb.Conditional(encoder, posterior), likelihood).double()


class Modes(nn.Module):
    """p(z) = ½ N(-1, 0.6²) + ½ N(1, 0.6²)."""

    def forward(self) -> Distribution:
        components = Independent(Normal(torch.tensor([[-1.0], [1.0]], dtype=DTYPE), 0.6), 1)
        return MixtureSameFamily(Categorical(torch.ones(2, dtype=DTYPE)), components)


def quadrature(model: aevb.VAE, x: Tensor, z: Tensor, cell: float) -> Tensor:
    """log Σ_i p(x, z_i) · cell, (B,), on a grid z (G, D)."""
    with torch.no_grad():
        return torch.stack([model.log_joint(row[None], z[:, None]).logsumexp(0)[0] for row in x]) + math.log(cell)


# The path


def test_temperatures_rise_from_zero_to_one_and_are_dense_at_both_ends() -> None:
    beta = torch.tensor(temperatures(50))
    assert (float(beta[0]), float(beta[-1])) == (0, 1)
    steps = beta.diff()
    assert bool((steps > 0).all())
    torch.testing.assert_close(steps, steps.flip(0))
    assert float(steps[0]) < 0.2 * float(steps[25])
    assert temperatures(1) == [0, 1]


def test_the_path_leads_from_the_start_to_the_joint_density() -> None:
    o = oracle()
    x, model = o.data(5), o.vae(shift=0.3)
    for start in (None, model.posterior):
        bridge = Bridge(model, Batch(x), Annealing(start=start), 0)
        u = torch.randn(4, 5, 3, dtype=DTYPE)
        r = (start(x) if start else model.prior()).log_prob(u)
        torch.testing.assert_close(bridge.density(0.0)(u), r)
        torch.testing.assert_close(bridge.density(1.0)(u), model.log_joint(x, u))
        torch.testing.assert_close(bridge.density(0.25)(u), 0.75 * r + 0.25 * model.log_joint(x, u))


def test_step_sizes_shrink_as_the_posterior_does_and_give_the_acceptance_asked_for() -> None:
    o = oracle(s=0.1)
    x = o.data(40)
    torch.manual_seed(0)
    bridge = Bridge(o.vae(), Batch(x), Annealing(100, 5), 0)
    rungs = bridge.rungs()
    assert [beta for beta, _ in rungs] == temperatures(100)
    assert float(rungs[-1][1].mean()) < 0.3 * float(rungs[0][1].mean())
    z = o.posterior(x).sample((50,))
    _, info = HMC(bridge.density(1.0), rungs[-1][1], 5)(z)
    assert 0.5 < float(info.acceptance.mean()) < 0.98


# Against what is exact


@pytest.mark.trap(1)
@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_both_sides_are_unbiased_and_bracket_the_exact_evidence(start: str) -> None:
    """E[p̂] = p(x) upwards and E[1/p̂] = 1/p(x) downwards, hence the order of the logarithms."""
    o = oracle(d=2, s=0.8)
    model = o.vae(shift=0.8)
    path = Annealing(16, 3, model.posterior if start == "posterior" else None)
    b = bidirectional(model, 400, 4, path)
    exact = o.evidence.log_prob(b.x)
    is_one(torch.exp(b.lower.log_px - exact))
    is_one(torch.exp(exact - b.upper.log_px))
    lower, upper = mean_se(b.lower.log_px - exact), mean_se(b.upper.log_px - exact)
    assert lower[0] < 2 * lower[1]
    assert upper[0] > -2 * upper[1]
    gap, se = mean_se(b.gap)
    assert gap > 4 * se


def test_the_data_of_the_bracket_are_drawn_from_the_model() -> None:
    o = oracle(d=2)
    x = bidirectional(o.vae(), 2000, 1, Annealing(1, 1)).x
    log_p = o.evidence.log_prob(x)
    mean, se = mean_se(log_p)
    assert abs(mean + float(o.evidence.entropy())) < 4 * se


@pytest.mark.trap(6)
def test_more_temperatures_close_the_gap() -> None:
    o = oracle()
    gaps = [mean_se(bidirectional(o.vae(), 150, 2, Annealing(t, 3)).gap) for t in (3, 12, 48)]
    for (wide, a), (narrow, c) in pairwise(gaps):
        assert wide - narrow > 3 * math.hypot(a, c), gaps
    assert gaps[-1][0] < 0.3 * gaps[0][0]


def test_the_error_that_is_reported_is_the_error_that_is_made() -> None:
    o = oracle(d=2, s=0.8)
    x = o.data(1) + 1e-9 * torch.arange(200)[:, None]  # as good as equal, with noise of their own
    found = log_marginal_ais(o.vae(), x, 16, Annealing(20, 3))
    error = found.log_px - o.evidence.log_prob(x)
    assert float(error.std()) == pytest.approx(float(found.se.mean()), rel=0.25)
    assert bool((found.ess > 1).all())
    assert bool((found.ess <= 16).all())
    assert found.samples == 16


def test_quadrature_of_a_curved_posterior_in_the_plane() -> None:
    model = network(2, 4, aevb.StandardNormal(2), aevb.Normal(2), scale=1.4)
    side = torch.linspace(-6, 6, 121, dtype=DTYPE)
    b = bidirectional(model, 100, 8, Annealing(60, 5))
    exact = quadrature(model, b.x, torch.cartesian_prod(side, side), 0.01)
    is_one(torch.exp(b.lower.log_px - exact))
    is_one(torch.exp(exact - b.upper.log_px))
    assert mean_se(b.gap)[0] < 0.3


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_positive_latents_are_annealed_without_constraints(start: str) -> None:
    """z ~ Exponential(1), moved as log z: the Jacobian counts on both ends."""
    model = network(1, 3, aevb.Known(Exponential, (1.0,), 1), aevb.Gamma(1))
    b = bidirectional(model, 60, 8, Annealing(30, 4, model.posterior if start == "posterior" else None))
    grid = (torch.arange(20_000, dtype=DTYPE)[:, None] + 0.5) * 0.001
    exact = quadrature(model, b.x, grid, 0.001)
    is_one(torch.exp(b.lower.log_px - exact))
    is_one(torch.exp(exact - b.upper.log_px))


def test_a_prior_of_several_modes() -> None:
    model = network(1, 3, Modes(), aevb.Normal(1), scale=1.5)
    b = bidirectional(model, 60, 8, Annealing(30, 4))
    grid = torch.linspace(-9, 9, 4001, dtype=DTYPE)[:, None]
    exact = quadrature(model, b.x, grid, 18 / 4000)
    is_one(torch.exp(b.lower.log_px - exact))
    is_one(torch.exp(exact - b.upper.log_px))


def test_latents_with_a_shape() -> None:
    model = network(4, 3, aevb.StandardNormal((2, 2)), aevb.Normal((2, 2)))
    flat = network(4, 3, aevb.StandardNormal(4), aevb.Normal(4))
    model.decoder.net = nn.Sequential(nn.Flatten(), model.decoder.net)
    x = flat.decode(flat.sample_latent(5)).sample().detach()
    shaped, plain = (log_marginal_ais(m, x, 3, SHORT).log_px for m in (model, flat))
    torch.testing.assert_close(shaped, plain)


# What must not matter


def test_memory_and_order_change_nothing_but_rounding() -> None:
    o = oracle(d=2)
    x = o.data(40)
    whole = log_marginal_ais(o.vae(), x, 8, SHORT)
    with walking(memory=6 * 100):
        tight = log_marginal_ais(o.vae(), x, 8, SHORT)
    back = log_marginal_ais(o.vae(), x.flip(0), 8, SHORT)
    for other in (tight.log_px, back.log_px.flip(0)):
        assert (other - whole.log_px).abs().max() < 1e-9  # noise is a function of the row
    with walking(memory=1):  # chain by chain
        one = log_marginal_ais(o.vae(), x[:2], 8, SHORT)
    assert bool(((one.log_px - whole.log_px[:2]).abs() < 5 * whole.se[:2].hypot(one.se)).all())
    assert one.samples == 8


def test_results_are_a_function_of_the_seed() -> None:
    o = oracle(d=2)
    x = o.data(7)
    a, b, c = (log_marginal_ais(o.vae(), x, 3, SHORT, seed=s).log_px for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    first, second = (bidirectional(o.vae(), 6, 2, SHORT) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.gap, second.gap)


def test_progress_counts_every_transition() -> None:
    o = oracle(d=2)
    seen: list[tuple[int, int]] = []
    with walking(memory=6 * 10, progress=lambda *done: seen.append(done)):
        log_marginal_ais(o.vae(), o.data(7), 3, SHORT)
    assert seen[-1] == (7 * 3 * 15, 7 * 3 * 15)
    seen.clear()
    with walking(memory=6 * 10, progress=lambda *done: seen.append(done)):
        bidirectional(o.vae(), 7, 3, SHORT)
    assert seen[-1] == (2 * 7 * 3 * 15, 2 * 7 * 3 * 15)


def test_one_temperature_from_the_prior_is_importance_sampling_from_the_prior() -> None:
    o = oracle(d=2, s=1.5)
    x = o.data(30)
    annealed = log_marginal_ais(o.vae(), x, 400, Annealing(1, 1))
    sampled = log_marginal(o.vae(), x, 400, proposal=lambda rows: o.vae().prior().expand((len(rows),)))
    mean, se = mean_se(annealed.log_px - sampled.log_px)
    assert abs(mean) < 4 * se


def test_an_autoencoder_has_a_likelihood_from_its_prior_but_not_from_its_point() -> None:
    model = network(2, 4, aevb.StandardNormal(2), aevb.Delta(2))
    x = model.decode(model.sample_latent(3)).sample().detach()
    assert bool(log_marginal_ais(model, x, 2, SHORT).log_px.isfinite().all())
    with pytest.raises(NoLikelihood):
        log_marginal_ais(model, x, 2, Annealing(5, 2, model.posterior))


def test_a_start_whose_ends_move_is_refused() -> None:
    model = network(2, 4, aevb.StandardNormal(2), aevb.Uniform(2))
    x = torch.zeros(3, 4, dtype=DTYPE)
    assert bool(log_marginal_ais(model, x, 2, SHORT).log_px.isfinite().all())
    with pytest.raises(AevbError, match=r"no density outside of an interval that moves with x.*--start prior"):
        log_marginal_ais(model, x, 2, Annealing(5, 2, model.posterior))


def test_what_is_refused() -> None:
    o = oracle(d=2)
    with pytest.raises(ValueError, match="at least 1"):
        log_marginal_ais(o.vae(), o.data(2), 0)
    with pytest.raises(ValueError, match="at least 1"):
        bidirectional(o.vae(), 0)
    with pytest.raises(ValueError, match="at least 1"):
        Annealing(temperatures=0)


def test_a_bracket_is_what_it_says() -> None:
    b = bidirectional(oracle(d=2).vae(), 4, 2, SHORT)
    assert isinstance(b, Bracket)
    assert b.x.shape == (4, 6)
    assert b.gap.dtype == torch.float64
    torch.testing.assert_close(b.gap, b.upper.log_px - b.lower.log_px)
