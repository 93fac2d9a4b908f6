"""Hierarchies: chains of latents against a linear-Gaussian model of two layers, of which everything is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import close
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, Normal, kl_divergence
from typer.testing import CliRunner

import aevb
from aevb.apps.cli import app
from aevb.data.batch import Batch, take
from aevb.data.sources import load_data
from aevb.errors import RecipeError, ShapeError
from aevb.evaluation.bound import elbo
from aevb.evaluation.reports.surgery import aggregate
from aevb.evidence.harmonic import from_chain
from aevb.evidence.support import unconstraining
from aevb.models.compat import check_model
from aevb.objectives.monte_carlo_em import MonteCarloEM
from aevb.objectives.terms import Term, members_of
from aevb.parts import Support
from aevb.probability.joint import join_layers, split_layers
from aevb.probability.offers import support_of
from aevb.runs.build import build_model, code_shape, latents_text
from aevb.runs.parts import AXES, build
from aevb.runs.recipe import Recipe
from aevb.use.encode import encode

DTYPE = torch.float64
CODES = ("one-hot", "concrete", "vq", "fsq")


@dataclass(frozen=True)
class TwoLayers:
    """p(z_2) = N(0, I), p(z_1|z_2) = N(V z_2, r² I), p(x|z_1) = N(W z_1, s² I), and the exact q(z_1|x) q(z_2|z_1).

    The mean of q(z_1|x) is off by `shift_1`, that of q(z_2|z_1) by `shift_2`; variances are `widen` times too large.
    """

    V: Tensor
    W: Tensor
    r: float = 0.7
    s: float = 0.6
    shift_1: float = 0.0
    shift_2: float = 0.0
    widen: float = 1.0

    @property
    def marginal(self) -> Tensor:
        """Cov[z_1]."""
        return self.V @ self.V.T + self.r**2 * torch.eye(len(self.V), dtype=DTYPE)

    @property
    def evidence(self) -> Distribution:
        noise = self.s**2 * torch.eye(len(self.W), dtype=DTYPE)
        return MultivariateNormal(torch.zeros(len(self.W), dtype=DTYPE), self.W @ self.marginal @ self.W.T + noise)

    @property
    def covariance(self) -> Tensor:
        """Cov[z_1|x], (D_1, D_1)."""
        return torch.linalg.inv(torch.linalg.inv(self.marginal) + self.W.T @ self.W / self.s**2)

    @property
    def gain_1(self) -> Tensor:
        """E[z_1|x] = gain_1 x."""
        return self.covariance @ self.W.T / self.s**2

    @property
    def v(self) -> Tensor:
        """Var[z_2|z_1], (D_2,)."""
        return self.r**2 / (self.r**2 + self.V.square().sum(0))

    @property
    def gain_2(self) -> Tensor:
        """E[z_2|z_1] = gain_2 z_1."""
        return self.v[:, None] * self.V.T / self.r**2

    @property
    def gap(self) -> float:
        """log p(x) - L(x) = KL(q(z_1|x) ‖ p(z_1|x)) + KL(q(z_2|z_1) ‖ p(z_2|z_1)); neither depends on x or z_1 here."""
        layers = ((self.covariance, self.shift_1), (torch.diag(self.v), self.shift_2))
        off = [
            kl_divergence(
                MultivariateNormal(torch.full_like(c[0], shift), self.widen * c),
                MultivariateNormal(torch.zeros_like(c[0]), c),
            )
            for c, shift in layers
        ]
        return float(sum(off))

    def kl(self, x: Tensor) -> Tensor:
        """E_q[log q(z_1|x) - log p(z_1|z_2)] and E_q[log q(z_2|z_1) - log p(z_2)], (B, 2)."""
        mean, cov, v = x @ self.gain_1.T + self.shift_1, self.widen * self.covariance, self.widen * self.v
        up = mean @ self.gain_2.T + self.shift_2
        spread = (self.gain_2 @ cov @ self.gain_2.T).diagonal()
        second = 0.5 * (v + up.square() + spread - v.log() - 1).sum(-1)
        rest = torch.eye(len(self.V), dtype=DTYPE) - self.V @ self.gain_2
        off = (mean @ rest.T - self.shift_2 * self.V.sum(1)).square().sum(-1)
        squares = off + (rest @ cov @ rest.T).trace() + (self.V.square() @ v).sum()
        entropy = MultivariateNormal(torch.zeros_like(cov[0]), cov).entropy()
        constants = 0.5 * len(self.V) * math.log(2 * math.pi * self.r**2)
        return torch.stack([constants + 0.5 * squares / self.r**2 - entropy, second], -1)

    def data(self, n: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return self.evidence.sample(torch.Size((n,)))

    def vae(self) -> aevb.VAE:
        (x, d), e = self.W.shape, self.V.shape[1]
        q1, q2 = aevb.FullNormal(d), aevb.Normal(e)
        tril = torch.linalg.cholesky(self.widen * self.covariance)
        tril = tril.tril(-1) + tril.diagonal().log().diag()
        rows, columns = torch.tril_indices(d, d)
        bias_1 = torch.cat([torch.full((d,), self.shift_1, dtype=DTYPE), tril[rows, columns]])
        bias_2 = torch.cat([torch.full((e,), self.shift_2, dtype=DTYPE), (self.widen * self.v).log()])
        encoder = aevb.Chain(
            aevb.Conditional(linear(self.gain_1, q1.size, bias_1), q1),
            aevb.Conditional(linear(self.gain_2, q2.size, bias_2), q2),
        )
        down = aevb.Conditional(linear(self.V, d), aevb.Normal(d, scale=self.r))
        decoder = aevb.Conditional(linear(self.W, x), aevb.Normal(x, scale=self.s))
        return aevb.VAE(aevb.Chain.prior(down, aevb.StandardNormal(e)), encoder, decoder).double()


def linear(weight: Tensor, size: int, bias: Tensor | None = None) -> nn.Linear:
    """x → (W x, 0) + bias, with `size` outputs."""
    layer = nn.Linear(weight.shape[1], size, dtype=DTYPE)
    with torch.no_grad():
        layer.weight.zero_()[: len(weight)] = weight
        layer.bias.zero_()
        layer.bias += 0 if bias is None else bias
    return layer


def layers(d: int = 3, e: int = 2, **off: float) -> TwoLayers:
    """z_1 (d) and z_2 (e)."""
    g = torch.Generator().manual_seed(0)
    V = torch.linalg.qr(torch.randn(d, e, generator=g, dtype=DTYPE)).Q * torch.tensor([0.8, 1.5], dtype=DTYPE)[:e]
    return TwoLayers(V, torch.randn(5, d, generator=g, dtype=DTYPE), **off)


EXACT, INEXACT = layers(), layers(shift_1=0.15, shift_2=0.3, widen=1.4)
X = EXACT.data(40)
LOG_PX = EXACT.evidence.log_prob(X)


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    torch.manual_seed(0)


def parts(z: Tensor) -> tuple[Tensor, ...]:
    """z_1 and z_2."""
    return split_layers(z, (torch.Size((3,)), torch.Size((2,))))


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


# Values


def test_importance_sampling_finds_the_evidence() -> None:
    m = aevb.log_marginal(INEXACT.vae(), X, 4000)
    close(m.log_px, LOG_PX, m.se)


def test_the_bound_is_the_evidence_less_the_gap() -> None:
    model = INEXACT.vae()
    bounds = torch.stack([elbo(model, X, samples=200, seed=s).elbo for s in range(20)])
    close(bounds.mean(0), LOG_PX - INEXACT.gap, bounds.std(0) / math.sqrt(20))
    assert INEXACT.gap > 0.3
    for estimator in ("A", "B"):
        values = torch.stack([-aevb.ELBO(estimator, samples=100)(model, X, 0)[0].detach() for _ in range(20)])
        close(values.mean(), LOG_PX.mean() - INEXACT.gap, values.std() / math.sqrt(20))


@pytest.mark.parametrize("truth", [EXACT, INEXACT], ids=["exact", "inexact"])
def test_the_kl_of_each_layer(truth: TwoLayers) -> None:
    draws = torch.stack([truth.vae().trace(X, 50).kl.detach() for _ in range(40)])
    assert draws.shape == (40, len(X), 2)
    close(draws.mean(0), truth.kl(X), draws.std(0) / math.sqrt(40))


def test_log_weights_are_the_densities_of_their_parts() -> None:
    """log p(x, z) and log q(z|x) by the formulas of single normals, and again by log_joint and log_posterior."""
    model = INEXACT.vae()
    t = model.trace(X, 4)
    z_1, z_2 = parts(t.z)
    log_p = Normal(0, 1).log_prob(z_2).sum(-1) + Normal(z_2 @ INEXACT.V.T, INEXACT.r).log_prob(z_1).sum(-1)
    log_px = Normal(z_1 @ INEXACT.W.T, INEXACT.s).log_prob(X).sum(-1)
    q_1 = MultivariateNormal(X @ INEXACT.gain_1.T + INEXACT.shift_1, INEXACT.widen * INEXACT.covariance)
    q_2 = Normal(z_1 @ INEXACT.gain_2.T + INEXACT.shift_2, (INEXACT.widen * INEXACT.v).sqrt())
    log_q = q_1.log_prob(z_1) + q_2.log_prob(z_2).sum(-1)
    torch.testing.assert_close(t.log_w, log_px + log_p - log_q, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.log_joint(X, t.z), log_px + log_p, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.log_posterior(X, t.z), log_q, atol=1e-6, rtol=0)


def test_the_prior_and_the_codes() -> None:
    model = INEXACT.vae()
    found = model.sample_latent(20_000).T.cov()
    expected = torch.cat(
        [torch.cat([INEXACT.marginal, INEXACT.V], 1), torch.cat([INEXACT.V.T, torch.eye(2, dtype=DTYPE)], 1)]
    )
    d = expected.diagonal()
    se = ((d[:, None] * d + expected.square()) / 20_000).sqrt()
    close(found, expected, se)
    means = model.encode(X)
    first, second = parts(means)
    torch.testing.assert_close(first, X @ INEXACT.gain_1.T + INEXACT.shift_1)
    torch.testing.assert_close(second, first @ INEXACT.gain_2.T + INEXACT.shift_2)
    assert torch.equal(encode(model, X), means)
    torch.testing.assert_close(model.decode(means).mean, first @ INEXACT.W.T)
    assert model.latent_shape == means.shape[1:] == (5,)
    assert torch.equal(aevb.generate(model, 7, seed=3), aevb.generate(model, 7, seed=3))


# Gradients


def test_stick_has_no_gradient_at_the_exact_posterior() -> None:
    """The path gradient of log w vanishes draw by draw, in both layers; frozen too early it would not (design, §8)."""
    model = EXACT.vae()
    stuck = gradient(model.encoder, model.trace(X, 3, stick=True).log_w.mean())
    plain = gradient(model.encoder, model.trace(X, 3).log_w.mean())
    assert stuck.abs().max() < 1e-5
    assert plain.abs().max() > 1e-2


OBJECTIVES = {
    "stl": (aevb.ELBO("A"), aevb.ImportanceWeighted(1, gradient="stl")),
    "vimco": (aevb.ImportanceWeighted(3), aevb.ImportanceWeighted(3, gradient="vimco")),
    "piwae": (aevb.ImportanceWeighted(4, encoder_groups=4), aevb.ELBO("A", samples=4)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_estimators_share_their_expected_gradient(name: str) -> None:
    """Each data point stands in the minibatch ten times, with ten draws of its own."""
    model, n, x = INEXACT.vae(), 40, X[:5].repeat(10, 1)
    of = model.encoder if name == "piwae" else model
    a, b = (torch.stack([gradient(of, o(model, x, 0)[0]) for _ in range(n)]) for o in OBJECTIVES[name])
    close(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / n).sqrt().clamp(min=1e-9))


def test_wake_trains_the_decoder_and_sleep_the_encoder() -> None:
    """θ, prior and all, gets ∇ log p(x, z) alone, φ gets ∇ log q(z|x̃) alone."""
    model = INEXACT.vae()
    torch.manual_seed(0)
    aevb.WakeSleep()(model, X, 0)[0].backward()
    torch.manual_seed(0)
    with torch.no_grad():
        z = model.posterior(X).sample(torch.Size((1,)))
        dreamt = model.sample_latent(len(X))
        dream = model.decode(dreamt).sample()
    for part, value in (
        (model.decoder, model.log_joint(X, z)),
        (model.prior, model.log_joint(X, z)),
        (model.encoder, model.posterior(dream).log_prob(dreamt)),
    ):
        found = torch.cat([p.grad.flatten() for p in part.parameters()])
        torch.testing.assert_close(found, gradient(part, -value.mean()))
        assert found.abs().max() > 1e-2


def test_at_the_exact_posterior_the_sleep_gradient_has_mean_zero() -> None:
    for truth, still in ((EXACT, True), (INEXACT, False)):
        model = truth.vae()
        objective = aevb.WakeSleep(dreams=10)
        draws = torch.stack([gradient(model.encoder, objective.sleep(model, Batch(X))) for _ in range(60)])
        z = draws.mean(0).abs() / (draws.std(0) / math.sqrt(60)).clamp(min=1e-12)
        assert bool((z < 5).all()) == still


@pytest.mark.slow
def test_a_compiled_chain_is_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    learners = []
    for compiled in (False, True):
        settings = aevb.Training(batch=20, samples=160, compile=compiled)
        learners.append(aevb.Learner(INEXACT.vae(), aevb.ImportanceWeighted(5), settings, len(X)))
        for _ in aevb.continue_training(learners[-1], X):
            pass
    for a, b in zip(learners[0].parameters(), learners[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


# Methods that move z, or compare z with each other, take the vector of all layers


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_both_sides_of_the_bracket_are_unbiased_in_two_layers(start: str) -> None:
    """E[p̂] = p(x) upwards and E[1/p̂] = 1/p(x) downwards, within 4 standard errors, and the gap closes."""
    model = INEXACT.vae()
    gaps = []
    for temperatures in (12, 48):
        path = aevb.Annealing(temperatures, 5, model.posterior if start == "posterior" else None)
        b = aevb.bidirectional(model, 300, 8, path)
        exact = EXACT.evidence.log_prob(b.x)
        if temperatures > 12:  # where weights have tails that a mean of 300 knows
            for ratio in (torch.exp(b.lower.log_px - exact), torch.exp(exact - b.upper.log_px)):
                se = float(ratio.std()) / math.sqrt(len(ratio))
                assert se < 0.1
                assert abs(float(ratio.mean()) - 1) < 4 * se
        gaps.append(b.gap)
    if start == "prior":  # from q(z|x) there is hardly a gap to close
        assert float((gaps[0].mean() - gaps[1].mean()) / (gaps[0].std() / math.sqrt(300))) > 4


def test_annealing_from_the_exact_posterior_of_two_layers_is_exact() -> None:
    """f_t is p(x, z) at every temperature, so that log w is log p(x) whatever the chains do."""
    model = EXACT.vae()
    found = aevb.log_marginal_ais(model, X, 2, aevb.Annealing(5, 2, model.posterior))
    torch.testing.assert_close(found.log_px, LOG_PX)


def test_the_papers_estimator_in_two_layers() -> None:
    truth = layers(1, 1)
    x = truth.data(40)
    found = aevb.log_marginal_hmc(truth.vae(), x, 100, aevb.ChainSettings(thin=2))
    error = found.log_px - truth.evidence.log_prob(x)
    assert float(error.std()) < 0.3
    assert abs(float(error.mean())) < 4 * float(error.std()) / math.sqrt(len(x)) + 0.02  # its logarithm is biased


def test_the_density_of_a_vector_is_the_product_over_its_layers() -> None:
    """To have the layers in one vector moves no mass: q and p are the joint normals of all five numbers."""
    model = INEXACT.vae()
    t = model.trace(X, 3)
    for p, exact in ((t.q, joint_posterior(INEXACT, X)), (t.p, joint_prior(INEXACT))):
        torch.testing.assert_close(p.log_prob(t.z), exact.log_prob(t.z), atol=1e-5, rtol=0)
        torch.testing.assert_close(p.log_prob(t.z), sum(p.log_probs(t.z)))
        by_layer = [q.log_prob(z) for q, z in zip(p.conditionals(t.z), parts(t.z), strict=True)]
        torch.testing.assert_close(p.log_prob(t.z), sum(by_layer))
        torch.testing.assert_close(p.mean, exact.mean, atol=1e-6, rtol=0)
        assert p.event_shape == t.z.shape[2:] == (5,)
        assert p.support.event_dim == 1
        assert support_of(p) is Support.REAL
    pairs = t.q.log_prob(t.z[0].unsqueeze(1))  # (M, B), each draw under each posterior
    torch.testing.assert_close(pairs, joint_posterior(INEXACT, X).log_prob(t.z[0].unsqueeze(1)), atol=1e-5, rtol=0)
    torch.testing.assert_close(t.kl.sum(-1), (t.q.log_prob(t.z) - t.p.log_prob(t.z)).mean(0))


def joint_posterior(truth: TwoLayers, x: Tensor) -> MultivariateNormal:
    """q(z_1, z_2|x), over the vector of both."""
    mean, c, g = x @ truth.gain_1.T + truth.shift_1, truth.widen * truth.covariance, truth.gain_2
    above = g @ c @ g.T + torch.diag(truth.widen * truth.v)
    covariance = torch.cat([torch.cat([c, c @ g.T], 1), torch.cat([g @ c, above], 1)])
    return MultivariateNormal(torch.cat([mean, mean @ g.T + truth.shift_2], -1), covariance)


def joint_prior(truth: TwoLayers) -> MultivariateNormal:
    """p(z_1, z_2), over the vector of both."""
    top = torch.eye(truth.V.shape[1], dtype=DTYPE)
    covariance = torch.cat([torch.cat([truth.marginal, truth.V], 1), torch.cat([truth.V.T, top], 1)])
    return MultivariateNormal(torch.zeros(len(covariance), dtype=DTYPE), covariance)


def test_layers_are_views_of_the_vector() -> None:
    shapes = [torch.Size((2, 3)), torch.Size(()), torch.Size((4,))]
    z = torch.randn(5, 7, 11)
    found = split_layers(z, shapes)
    assert [tuple(z_l.shape) for z_l in found] == [(5, 7, 2, 3), (5, 7), (5, 7, 4)]
    assert all(z_l.untyped_storage().data_ptr() == z.untyped_storage().data_ptr() for z_l in found)
    assert torch.equal(join_layers(found, shapes), z)
    torch.testing.assert_close(found[1], z[..., 6])
    torch.testing.assert_close(found[0][..., 1, 0], z[..., 3])


def test_surgery_in_two_layers() -> None:
    """q(z) is the mixture of the joint normals; and draw by draw I + KL(q(z) ‖ p(z)) is log q(z|x) - log p(z)."""
    model, z = INEXACT.vae(), joint_posterior(INEXACT, X).sample()
    with aevb.walking(memory=700):
        joint, single = aggregate(model, X, z)
    exact = joint_posterior(INEXACT, X).log_prob(z.unsqueeze(1)).logsumexp(1) - math.log(len(X))
    torch.testing.assert_close(joint, exact, atol=1e-5, rtol=0)
    assert single is None
    found = aevb.surgery(model, X)
    total = found.mutual_information + found.aggregate_kl
    close(total.mean(), INEXACT.kl(X).sum(1).mean(), total.std() / math.sqrt(len(X)))


def test_chains_of_monte_carlo_em_move_both_layers() -> None:
    x, model, em = EXACT.data(600), EXACT.vae(), MonteCarloEM(leapfrogs=5)
    whole = take(x, torch.arange(len(x)))
    em.start(model, len(x))
    for _ in range(200):
        em.transit(model, whole)
    exact = joint_posterior(EXACT, x)
    standard = (em.z - exact.mean) / exact.variance.sqrt()
    for moments, expected in ((standard, 0.0), (standard.square(), 1.0)):
        close(moments.mean(0), torch.full((5,), expected, dtype=DTYPE), moments.std(0) / math.sqrt(len(x)))


def test_a_proposal_from_a_chain_in_two_layers() -> None:
    model = INEXACT.vae()
    found = aevb.log_marginal(model, X, 2000, proposal=from_chain(model, 100))
    close(found.log_px, LOG_PX, found.se)
    assert float(found.ess.min()) > 200


def test_mmd_is_zero_where_the_codes_of_both_layers_are_draws_of_the_prior() -> None:
    """x ~ p(x) with the exact posterior: z ~ p(z); with another one it is not."""
    for truth, zero in ((EXACT, True), (layers(shift_2=1.0), False)):
        model, term = truth.vae(), aevb.MMD()
        found = torch.stack([term(model.trace(EXACT.evidence.sample((40,)))) for _ in range(60)]).detach()
        z = float(found.mean() / (found.std() / math.sqrt(60)))
        assert (abs(z) < 4) is zero


def test_a_density_ratio_reads_both_layers() -> None:
    """The penalty is the mean of T over all five numbers; the shuffled ones keep their columns."""
    model = EXACT.vae()
    term = aevb.DensityRatio(model, hidden=(8,)).double()
    t = model.trace(X, 2)
    torch.testing.assert_close(term(t), term.net(t.z.flatten(0, 1)).mean())
    loss, info = aevb.Regularized(aevb.ELBO(), [term])(model, X, 0)
    assert set(info) >= {"total_correlation", "total_correlation_loss"}
    assert (
        max(float(g.abs().max()) for g in torch.autograd.grad(loss, list(model.encoder.links[1].parameters()))) > 1e-3
    )


def test_a_prior_fitted_to_both_layers() -> None:
    """To codes z ~ q(z|x) of the exact model, whose density is p(z)."""
    x, n = EXACT.data(4000), 4000
    found = aevb.fit_prior(EXACT.vae(), x, (1,)).model
    covariance, expected = found.sample_latent(100_000).T.cov(), joint_prior(EXACT).covariance_matrix
    d = expected.diagonal()
    close(covariance, expected, ((d[:, None] * d + expected.square()) * (1 / n + 1e-5)).sqrt())
    m = aevb.log_marginal(found, X, 500)
    assert float((m.log_px - LOG_PX).abs().mean()) < 0.05


def test_positive_layers_are_moved_without_constraints() -> None:
    """z_2 ~ Exponential(1), z_1 ~ N(z_2, 1): the part of the transform that z_2 needs, and no other, has a Jacobian."""
    top = aevb.Known(torch.distributions.Exponential, (1.0,), 1)
    below = aevb.Conditional(nn.Identity(), aevb.Normal(1, scale=1.0))
    p = aevb.Chain.prior(below, top)()
    transform = unconstraining(p)
    u = torch.tensor([[0.3, -0.7]])
    z = transform(u)
    torch.testing.assert_close(z, torch.tensor([[0.3, math.exp(-0.7)]]))
    torch.testing.assert_close(transform.log_abs_det_jacobian(u, z), torch.tensor([-0.7]))
    torch.testing.assert_close(p.log_prob(z), Normal(z[:, 1], 1).log_prob(z[:, 0]) - z[:, 1])


# What is not possible in a hierarchy


def regularized(term: Term) -> aevb.Regularized:
    return aevb.Regularized(aevb.ELBO(), [term])


REFUSED: dict[str, tuple[Callable[[], aevb.Objective], str]] = {
    "DIP": (lambda: regularized(aevb.DIP()), "the term dip requires"),
    "TC": (lambda: regularized(aevb.TotalCorrelation()), "the term total-correlation requires"),
    "dreg": (
        lambda: aevb.ImportanceWeighted(3, gradient="dreg"),
        "importance-weighted requires.*or the gradient plain",
    ),
}


@pytest.mark.parametrize("who", REFUSED)
def test_what_needs_a_single_layer_of_latents_says_so(who: str) -> None:
    """Before training, and where the objective is called by hand."""
    make, words = REFUSED[who]
    objective, model = make(), EXACT.vae()
    with pytest.raises(RecipeError, match=f"hierarchy chain gives no single layer of latents, which .*{words}"):
        check_model(model, *members_of(objective))
    with pytest.raises(RecipeError, match=f"hierarchy gives no single layer of latents, which .*{words}"):
        objective(model, Batch(X, of=40), 0)


def test_what_reads_all_layers_as_one_vector_needs_no_single_layer() -> None:
    model = EXACT.vae()
    for term in (aevb.MMD(), aevb.DensityRatio(model, hidden=(3,))):
        check_model(model, *members_of(regularized(term)))
    check_model(model, *members_of(aevb.ImportanceWeighted(3)), *members_of(aevb.ELBO()))
    assert bool(aevb.ImportanceWeighted(3)(model, X, 0)[0].isfinite())


def test_disentanglement_needs_the_density_of_single_latents() -> None:
    with pytest.raises(ShapeError, match="no density of single latents"):
        aevb.disentanglement(EXACT.vae(), X, torch.arange(40)[:, None] % 2)


def test_links_and_orders_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"2 links need an order of 0 to 1; got \(0, 2\)"):
        aevb.Chain(nn.Identity(), nn.Identity(), order=(0, 2))
    with pytest.raises(ShapeError, match="0 links"):
        aevb.Chain()


# Recipes


MISTAKES = {
    "chain=5": r"chain: expected a list of tables \(\[\[chain\]\]\); got 5",
    "chain=[{hidden=[3]}]": r"chain: each table needs its latent",
    "chain=[{latent=0}]": r"chain\.latent: expected a whole number of at least 1; got 0",
    "chain=[{latent=3, hiden=[3]}]": r"chain \(mlp\): there is no 'hiden'\. Did you mean 'hidden'",
    "chain=[{latent=3, type='conv'}]": r"chain: there is no 'conv'\.",
    "prior=vamp": r"The prior vamp gives no density in a hierarchy, .* Choose one of: standard-normal,",
    "prior=uniform-codes": r"The posterior normal gives no finite set of codes, which the prior uniform-codes requires",
    "objective.gradient=dreg": r"chain gives no single layer .* importance-weighted requires.* or the gradient plain\.",
    "terms=[{type='mmd'}]": r"importance-weighted gives no loss to which terms can be added, .* Choose one of: elbo\.",
    "posterior=gamma": r"normal of p\(z_1\|z_2\) gives no density on positive numbers, .* Choose the posterior normal,",
}


@pytest.mark.parametrize("assignment", MISTAKES)
def test_a_mistake_is_told_where_it_is(assignment: str, tmp_path: Path) -> None:
    recipe = Recipe.load("iwae-2").override([assignment])
    with pytest.raises(RecipeError, match=MISTAKES[assignment]):
        aevb.fit(recipe, load_data("digits", values="dynamic"), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", AXES["posterior"])
def test_posteriors_over_the_real_line_alone_are_chained(name: str) -> None:
    """As the links of the prior are normal; whichever prior stands at the top: that of codes is refused with the
    family."""
    shape = [3, 4] if name in CODES else [3]
    family = build("posterior", {"type": name}, shape=torch.Size(shape))
    chained = support_of(family(torch.zeros(2, family.size))) is Support.REAL and name not in ("delta", "cauchy")
    changes = [f"posterior={name}", f"latent={shape}", f"chain=[{{latent={shape}, hidden=[5]}}]"]
    for prior in ("standard-normal", "unit-exponential", "uniform-sphere", "standard-cauchy"):
        fits = chained and prior in ("standard-normal", "standard-cauchy")
        words = "" if fits else f"The prior {prior} gives no" if chained else f"posterior {name}"
        with pytest.raises(RecipeError, match=words) if words else nullcontext():
            check_model(build_model(Recipe.load("iwae-2").override([*changes, f"prior={prior}"]), (1, 4, 4)))


def test_the_layers_of_a_recipe() -> None:
    recipe = Recipe.load("iwae-2").override(["latent=4", "chain=[{latent=3, hidden=[7]}, {latent=2, type='gated'}]"])
    model = build_model(recipe, (1, 8, 8))
    assert (latents_text(recipe, (1, 8, 8)), code_shape(recipe, (1, 8, 8))) == ("4 + 3 + 2", (9,))
    assert model.encode(torch.zeros(5, 1, 8, 8)).shape == (5, 9)
    assert model.sample_latent(6).shape == (6, 9)
    assert model.encoder.shapes == model.prior.shapes == ((4,), (3,), (2,))
    assert isinstance(model.prior.links[2], aevb.StandardNormal)


def test_every_verb_takes_a_hierarchy_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are the layers side by side, and decode to what the model makes of the layers."""
    monkeypatch.chdir(tmp_path)

    def aevb_(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception!r}"
        return str(result.output)

    small = ["--set", "latent=4", "--set", "chain=[{latent=3, hidden=[8]}]", "--set", "validation.importance_samples=2"]
    small += ["--set", "evaluation.importance_samples=2"]
    told = aevb_("train", "digits", "--recipe", "iwae-2", "--samples", "200", "--out", "run", "--no-figures", *small)
    assert "of 7" in told  # active units
    assert "layers side by side: 4 + 3 numbers" in aevb_("encode", "run", "--out", "codes.npy")
    aevb_("decode", "codes.npy", "--run", "run", "--out", "decoded.npy")
    aevb_("reconstruct", "run", "-n", "9", "--out", "reconstructed.npy")
    codes, decoded = np.load("codes.npy"), np.load("decoded.npy")
    assert codes.shape == (300, 7)
    np.testing.assert_allclose(decoded[:9], np.load("reconstructed.npy"), atol=1e-6)
    for verb in ("sample", "interpolate", "traverse"):
        aevb_(verb, "run", "--out", f"{verb}.png")
        assert (tmp_path / f"{verb}.png").is_file()
    for estimator in ("bdmc", "ais"):
        assert aevb_(
            "evaluate", "run", "--estimator", estimator, "--limit", "2", "--temperatures", "3", "--chains", "2"
        )
    assert aevb_("evaluate", "run", "--estimator", "hmc", "--limit", "2")
    wide = [word.replace("latent=4", "latent=8") for word in small]
    aevb_("train", "digits", "--recipe", "iwae-2", "--samples", "100", "--out", "wide", "--no-figures", *wide)
    refused = CliRunner().invoke(app, ["evaluate", "wide", "--estimator", "hmc", "--limit", "2"])
    assert "up to about five latents; this model has 11" in str(refused.exception)
    assert aevb_("evaluate", "run", "--importance-samples", "3")
    aevb_("train", "--resume", "run", "--samples", "300", "--no-figures")
    model, x = aevb.load("run"), load_data("digits", values="dynamic").test[:4]
    assert model.encode(x).shape == (4, 7)


def test_the_kl_of_each_layer_is_the_mean_over_its_draws() -> None:
    """1/K Σ_k [log q(z_l|·) - log p(z_l|·)], at the very draws of the trace."""
    t = INEXACT.vae().trace(X, 4)
    each = [(a - b).mean(0) for a, b in zip(t.q.log_probs(t.z), t.p.log_probs(t.z), strict=True)]
    torch.testing.assert_close(t.kl, torch.stack(each, -1))
    torch.testing.assert_close(t.kl.sum(-1), (t.log_px - t.log_w).mean(0))


def test_a_draw_without_gradients_is_scored_with_them() -> None:
    model = INEXACT.vae()
    q = model.posterior(X)
    z = q.sample(torch.Size((3,)))
    found = gradient(model.encoder, q.log_prob(z).sum())
    torch.testing.assert_close(found, gradient(model.encoder, model.log_posterior(X, z).sum()))
    assert found.abs().max() > 1e-2
