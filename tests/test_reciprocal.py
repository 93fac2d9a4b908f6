"""The estimator of App. D against the exact evidence, importance sampling and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from oracle import DTYPE, oracle
from scipy.stats import gaussian_kde
from torch import Tensor, nn

import aevb
from aevb.evidence.harmonic import ChainSettings, from_chain, kernel_density, log_marginal_hmc, posterior_chain
from aevb.evidence.importance import log_marginal
from aevb.models.priors import Known


def agrees(estimate: Tensor, se: Tensor, exact: Tensor, bias: float = 0.0) -> None:
    """The mean error over data points is within 4 standard errors (estimated from the spread over points) of `bias`."""
    error = estimate - exact
    spread = float(error.std() / len(error) ** 0.5)
    assert abs(float(error.mean()) - bias) < 4 * spread + 0.02, (float(error.mean()), spread, float(se.mean()))


def test_chain_has_the_exact_posterior_moments() -> None:
    o = oracle(d=2)
    x = o.data(200)
    torch.manual_seed(0)
    z, log_joint = posterior_chain(o.vae(), x, 40, ChainSettings(burn_in=80))
    exact = o.posterior(x)
    standard = (z - exact.mean) / exact.stddev
    se = standard.mean(0).std(0) / len(x) ** 0.5
    assert bool((standard.mean((0, 1)).abs() < 4 * se).all())
    variance = standard.square().mean(0)
    assert bool(((variance.mean(0) - 1).abs() < 4 * variance.std(0) / len(x) ** 0.5).all())
    torch.testing.assert_close(log_joint, o.vae().log_joint(x, z))


@pytest.mark.trap(1)
def test_linear_gaussian_evidence() -> None:
    for d in (1, 3):
        o = oracle(d=d)
        x = o.data(80)
        found = log_marginal_hmc(o.vae(shift=1.0), x, samples=60)  # the wrong encoder must not matter
        agrees(found.log_px, found.se, o.evidence.log_prob(x))


def test_kernel_density_integrates_to_one() -> None:
    torch.manual_seed(1)
    fit, tune = torch.randn(60, 3, 1, dtype=DTYPE), torch.randn(60, 3, 1, dtype=DTYPE)
    grid = torch.linspace(-12, 12, 4001, dtype=DTYPE)
    density = kernel_density(fit, tune, grid[:, None, None].expand(-1, 3, 1)).exp()
    torch.testing.assert_close(torch.trapezoid(density, grid, dim=0), torch.ones(3, dtype=DTYPE), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def curved() -> tuple[aevb.VAE, Tensor]:
    """A two-dimensional latent with a posterior that is not normal, and data drawn from the model."""
    torch.manual_seed(2)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    for p in decoder.parameters():
        nn.init.normal_(p, std=1.2)
    encoder = nn.Linear(5, 4).double()
    for p in encoder.parameters():
        nn.init.zeros_(p)  # q(z|x) = p(z): bounded weights, so importance sampling has a finite error
    model = aevb.VAE(
        aevb.StandardNormal(2),
        aevb.Conditional(encoder, aevb.Normal(2)),
        aevb.Conditional(decoder, aevb.Normal(5, scale=0.7)),
    ).double()
    with torch.no_grad():
        return model, model.decode(model.sample_latent(50)).sample()


def quadrature(model: aevb.VAE, x: Tensor) -> Tensor:
    """log ∫ p(x, z) dz on a grid of the plane, exact to 1e-4 here."""
    side = torch.linspace(-6, 6, 121, dtype=DTYPE)
    z = torch.cartesian_prod(side, side)
    with torch.no_grad():
        log_joint = torch.stack([model.log_joint(row[None], z[:, None]).squeeze(1) for row in x])
    return log_joint.logsumexp(1) + 2 * math.log(12 / 120)


def test_quadrature_importance_sampling_and_app_d_agree(curved: tuple[aevb.VAE, Tensor]) -> None:
    model, x = curved
    exact = quadrature(model, x)
    sampled = log_marginal(model, x, 10_000)
    agrees(sampled.log_px, sampled.se, exact)
    found = log_marginal_hmc(model, x, samples=100)
    agrees(found.log_px, found.se, exact)


def constrained(prior: nn.Module, likelihood: aevb.Family, gain: float) -> aevb.VAE:
    """A VAE whose likelihood reads gain · log z, with the prior as its encoder: conjugate pairs of closed evidence."""

    class Logarithm(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return gain * z.log()

    class Blind(nn.Module):
        def forward(self, x: Tensor) -> torch.distributions.Distribution:
            return prior().expand(x.shape[:1])  # type: ignore[no-any-return]

    unread = nn.Parameter(torch.zeros(1, dtype=DTYPE))
    model = aevb.VAE(prior, Blind(), aevb.Conditional(Logarithm(), likelihood)).double()
    model.register_parameter("unread", unread)  # says on which device the model is
    return model


def gamma_poisson() -> tuple[aevb.VAE, Tensor, Tensor]:
    """z ~ Gamma(2, 1), x ~ Poisson(z), two of each: p(x) = Π (x + 1) / 2^(x + 2)."""
    model = constrained(Known(torch.distributions.Gamma, (2.0, 1.0), 2), aevb.Poisson(2), 1.0)
    x = torch.cartesian_prod(*[torch.arange(5, dtype=DTYPE)] * 2).repeat(2, 1)
    return model, x, ((x + 1).log() - (x + 2) * math.log(2)).sum(-1)


def dirichlet_categorical() -> tuple[aevb.VAE, Tensor, Tensor]:
    """z ~ Dirichlet(1, 1, 1), x one of three classes, one-hot: p(x) = 1/3."""
    model = constrained(Known(torch.distributions.Dirichlet, (1.0,), 3), aevb.OneHot((1, 3)), 1.0)
    x = torch.eye(3, dtype=DTYPE).repeat(14, 1).unsqueeze(1)
    return model, x, torch.full((len(x),), -math.log(3), dtype=DTYPE)


@pytest.mark.parametrize("conjugate", [gamma_poisson, dirichlet_categorical])
def test_latents_with_constraints_agree_with_the_closed_form(
    conjugate: Callable[[], tuple[aevb.VAE, Tensor, Tensor]],
) -> None:
    """A density's formula gives numbers off its support, too: a chain that moved in z itself would climb them."""
    model, x, exact = conjugate()
    found = log_marginal_hmc(model, x, 30, ChainSettings(thin=2, burn_in=40))
    agrees(found.log_px, found.se, exact)
    sampled = log_marginal(model, x, 1_000, proposal=from_chain(model, draws=30, burn_in=30))
    agrees(sampled.log_px, sampled.se, exact)


def test_latents_with_a_shape_are_those_side_by_side() -> None:
    """The same chain, the same density: z of (2, 2) or of 4."""

    def model(shape: tuple[int, ...]) -> aevb.VAE:
        torch.manual_seed(2)
        encoder, decoder = nn.Linear(3, 8), nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        q, p = aevb.Normal(shape), aevb.Normal(3, scale=0.7)
        return aevb.VAE(aevb.StandardNormal(shape), aevb.Conditional(encoder, q), aevb.Conditional(decoder, p)).double()

    x = torch.randn(4, 3, dtype=DTYPE)
    shaped, plain = (log_marginal_hmc(model(shape), x, 10, ChainSettings(burn_in=5)) for shape in ((2, 2), (4,)))
    torch.testing.assert_close(shaped.log_px, plain.log_px)
    shaped, plain = (
        log_marginal(m, x, 10, proposal=from_chain(m, draws=8, burn_in=5)) for m in (model((2, 2)), model((4,)))
    )
    torch.testing.assert_close(shaped.log_px, plain.log_px)


def test_refuses_too_few_draws(curved: tuple[aevb.VAE, Tensor]) -> None:
    with pytest.raises(ValueError, match="samples ≥ 10"):
        log_marginal_hmc(*curved, samples=5)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_kernel_density_is_scipys_at_the_likeliest_of_ten_bandwidths(d: int) -> None:
    """Scott's L^(-1/(D+4)) times e^(j/2), j = -5..4, and the sample covariance; the `tune` draws choose j."""
    torch.manual_seed(d)
    fit, tune, z = (torch.randn(12, 1, d, dtype=DTYPE) @ torch.rand(d, d, dtype=DTYPE) for _ in range(3))
    factors = [12 ** (-1 / (d + 4)) * math.exp(j / 2) for j in range(-5, 5)]
    kernels = [gaussian_kde(fit[:, 0].T.numpy(), bw_method=factor) for factor in factors]
    best = max(kernels, key=lambda kernel: kernel.logpdf(tune[:, 0].T.numpy()).mean())
    expected = torch.from_numpy(best.logpdf(z[:, 0].T.numpy()))
    torch.testing.assert_close(kernel_density(fit, tune, z)[:, 0], expected, rtol=2e-3, atol=2e-3)


def test_the_proposal_of_a_chain_is_the_posterior_widened() -> None:
    """A normal of the posterior's mean, and of twice its covariance."""
    o = oracle(d=2)
    x = o.data(60)
    torch.manual_seed(0)
    z = from_chain(o.vae(), draws=50)(x).sample(torch.Size((500,)))
    assert float((z.var(0) / o.variances).mean()) == pytest.approx(2, rel=0.15)
    off = (z.mean(0) - o.posterior(x).mean) / o.variances.sqrt()
    assert float(off.mean(0).abs().max()) < 0.15
