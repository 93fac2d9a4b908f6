"""A model of which everything is known in closed form: the linear-Gaussian VAE, probabilistic PCA.

    p(z) = N(0, I_D),   p(x|z) = N(W z + b, s² I),   WᵀW = diag(c²)

The columns of W are orthogonal, so the exact posterior is a diagonal normal: with v_d = s² / (s² + c_d²),

    p(z|x) = N(diag(v) Wᵀ (x - b) / s², diag(v)),   p(x) = N(b, W Wᵀ + s² I)

(Tipping & Bishop 1999). At this posterior log w = log p(x, z) - log q(z|x) is the constant log p(x).
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from aevb.models.conditional import Conditional
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.probability import families

DTYPE = torch.float64


@dataclass(frozen=True)
class Oracle:
    """The parameters W (X, D), b (X), s, and what follows from them."""

    W: Tensor
    b: Tensor
    s: float

    @property
    def variances(self) -> Tensor:
        """v, (D,): the variances of the exact posterior."""
        return self.s**2 / (self.s**2 + self.W.square().sum(0))

    @property
    def evidence(self) -> Distribution:
        """p(x)."""
        return MultivariateNormal(self.b, self.W @ self.W.T + self.s**2 * torch.eye(len(self.b), dtype=DTYPE))

    def posterior(self, x: Tensor) -> Distribution:
        """p(z|x), batch (B)."""
        mean = (x - self.b) @ self.W * self.variances / self.s**2
        return Independent(Normal(mean, self.variances.sqrt()), 1)

    def data(self, n: int, seed: int = 1) -> Tensor:
        """n draws from p(x), (n, X)."""
        g = torch.Generator().manual_seed(seed)
        z, e = (torch.randn(n, k, generator=g, dtype=DTYPE) for k in (self.W.shape[1], len(self.b)))
        return z @ self.W.T + self.b + self.s * e

    def vae(self, shift: float = 0.0, widen: float = 1.0) -> VAE:
        """The VAE with the exact posterior, or with one whose mean is `shift`ed and whose variances are `widen`ed."""
        (x, d), v = self.W.shape, self.variances
        decoder, encoder = nn.Linear(d, x, dtype=DTYPE), nn.Linear(x, 2 * d, dtype=DTYPE)
        gain = self.W.T * v[:, None] / self.s**2
        bias = torch.cat([shift - gain @ self.b, (v * widen).log()])
        _set(decoder, self.W, self.b)
        _set(encoder, torch.cat([gain, torch.zeros_like(gain)]), bias)
        model = VAE(
            StandardNormal(d),
            Conditional(encoder, families.Normal(d)),
            Conditional(decoder, families.Normal(x, scale=self.s)),
        )
        return model.double()

    def gap(self, model: VAE, x: Tensor) -> Tensor:
        """log p(x) - L(x) = KL(q(z|x) ‖ p(z|x)), (B,)."""
        return kl_divergence(model.posterior(x), self.posterior(x))


def oracle(x: int = 6, d: int = 3, s: float = 0.6, seed: int = 0) -> Oracle:
    g = torch.Generator().manual_seed(seed)
    columns = torch.linalg.qr(torch.randn(x, d, generator=g, dtype=DTYPE)).Q
    return Oracle(columns * torch.linspace(0.5, 1.5, d, dtype=DTYPE), torch.randn(x, generator=g, dtype=DTYPE), s)


def _set(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)


# Fixtures for those who import them


def close(estimate: Tensor, expected: Tensor, se: Tensor, limit: float = 4.5) -> None:
    """Every estimate lies within `limit` standard errors."""
    z = (estimate - expected) / se
    assert z.abs().max() < limit, z
    assert z.abs().max() > 1e-3, "too good: the estimate does not vary"


@pytest.fixture(scope="module")
def truth() -> Oracle:
    return oracle()


@pytest.fixture(scope="module")
def exact(truth: Oracle) -> VAE:
    return truth.vae()


@pytest.fixture(scope="module")
def inexact(truth: Oracle) -> VAE:
    return truth.vae(shift=0.2, widen=1.5)


@pytest.fixture(scope="module")
def log_px(truth: Oracle, x: Tensor) -> Tensor:
    """Of the module's own x."""
    return truth.evidence.log_prob(x)
