"""Normals with correlations: a covariance of low rank, and one turned by reflections."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import oracle
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import aevb
from aevb.errors import ShapeError
from aevb.models.priors import StandardNormal
from aevb.models.trace import kl_groups
from aevb.probability.families import Family, LowRankNormal
from aevb.probability.flows import Householder, Reflected, reflected

FAMILIES = [LowRankNormal(4, rank=2), Householder(4, reflections=3)]
each = pytest.mark.parametrize("family", FAMILIES, ids=["low-rank", "householder"])


def moderate(size: int, rows: int = 5, seed: int = 0) -> Tensor:
    return 0.7 * torch.randn(rows, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(family: Family, phi: Tensor) -> MultivariateNormal:
    """φ to mean and covariance once more: W Wᵀ + diag σ², W = diag(σ) V, or Q diag(σ²) Qᵀ, Q = Π (I - 2 v vᵀ / vᵀv)."""
    mu, variance, rest = phi[:4], phi[4:8].exp(), phi[8:]
    if isinstance(family, LowRankNormal):
        w = variance.sqrt()[:, None] * rest.view(4, 2)
        return MultivariateNormal(mu, w @ w.T + torch.diag(variance))
    q = torch.eye(4, dtype=torch.float64)
    for v in rest.view(3, 4):
        q = q @ (torch.eye(4, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v))
    return MultivariateNormal(q @ mu, q @ torch.diag(variance) @ q.T)


@each
def test_it_is_the_normal_of_that_covariance(family: Family) -> None:
    phi, z = moderate(family.size), moderate(4, seed=1)
    q = family(phi)
    for i, row in enumerate(phi):
        exact = by_hand(family, row)
        one = family(row)
        torch.testing.assert_close(one.log_prob(z), exact.log_prob(z))
        torch.testing.assert_close(q.mean[i], exact.mean)
        torch.testing.assert_close(q.variance[i], exact.variance)
        torch.testing.assert_close(q.covariance_matrix[i], exact.covariance_matrix)  # type: ignore[attr-defined]
        torch.testing.assert_close(q.entropy()[i], exact.entropy())


@each
def test_its_kl_is_that_of_full_normals_and_of_monte_carlo(family: Family) -> None:
    torch.manual_seed(0)
    phi, p = moderate(family.size), StandardNormal(4).double()()
    q = family(phi)
    z = q.rsample(torch.Size((20_000,)))
    kl = kl_groups(q, p, z)
    assert kl.shape == (5, 1)
    standard = MultivariateNormal(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    exact = torch.stack([kl_divergence(by_hand(family, row), standard) for row in phi])
    torch.testing.assert_close(kl[:, 0], exact)
    gap = q.log_prob(z) - p.log_prob(z)
    assert bool(((gap.mean(0) - kl[:, 0]).abs() < 4.5 * gap.std(0) / math.sqrt(len(z))).all())


@each
def test_its_kl_from_another_diagonal_normal(family: Family) -> None:
    row, m, s = moderate(family.size)[0], moderate(4, seed=2)[0], moderate(4, seed=3)[0].exp()
    p = Independent(Normal(m, s), 1)
    exact = kl_divergence(by_hand(family, row), MultivariateNormal(m, torch.diag(s**2)))
    torch.testing.assert_close(kl_divergence(family(row), p), exact)


@each
def test_draws_have_the_moments(family: Family) -> None:
    torch.manual_seed(0)
    q = family(moderate(family.size, rows=2))
    z = q.rsample(torch.Size((20_000,)))
    centred = z - q.mean
    for draws, exact in ((z, q.mean), (centred[..., None] * centred[..., None, :], q.covariance_matrix)):  # type: ignore[attr-defined]
        assert bool(((draws.mean(0) - exact).abs() < 5 * draws.std(0) / math.sqrt(len(z))).all())


def test_reflections_preserve_volume_and_invert() -> None:
    """log |det ∂z/∂ε| = 0 by autograd, and Qᵀ Q ε = ε."""
    v, epsilon = moderate(15, rows=1).view(3, 5), moderate(5, seed=4)[0]
    jacobian = torch.autograd.functional.jacobian(lambda e: reflected(e, v), epsilon)
    assert isinstance(jacobian, Tensor)
    assert abs(float(jacobian.slogdet().logabsdet)) < 1e-12
    torch.testing.assert_close(reflected(reflected(epsilon, v), v, back=True), epsilon)


@each
def test_the_objective_meets_the_oracle(family: Family) -> None:
    """ELBO B at the exact posterior, W or reflections that change nothing: log p(x), whatever the draws."""
    o = oracle(d=4)
    x = o.data(6)
    exact = o.posterior(x)
    extra = torch.zeros(6, family.size - 8, dtype=torch.float64)  # W = 0; a vector of length 0 reflects nothing
    q = family(torch.cat([exact.mean, exact.variance.log(), extra], -1))
    prior = StandardNormal(4).double()()
    z = q.rsample(torch.Size((3,)))
    torch.testing.assert_close(kl_groups(q, prior, z).sum(-1), kl_divergence(exact, prior))
    torch.testing.assert_close(q.log_prob(z), exact.log_prob(z))


def test_dip_reads_their_covariances() -> None:
    from aevb.models.trace import Trace

    family = Householder(3, 2)
    phi = moderate(family.size, rows=7)
    q, z = family(phi), torch.zeros(1, 7, 3, dtype=torch.float64)
    t = Trace(aevb.Batch(z[0]), z, (q, q), lambda: z, lambda: z)
    assert isinstance(q, Reflected)
    expected = q.covariance_matrix.mean(0) + q.mean.T.cov(correction=0)
    torch.testing.assert_close(aevb.DIP(kind="II").covariance(t), expected)


def test_what_they_refuse() -> None:
    with pytest.raises(ValueError, match="rank must be at least 1; got 0"):
        LowRankNormal(3, rank=0)
    with pytest.raises(ValueError, match="reflections must be at least 1; got 0"):
        Householder(3, reflections=0)
    for make in (LowRankNormal, Householder):
        with pytest.raises(ShapeError, match="over vectors"):
            make((2, 2))
