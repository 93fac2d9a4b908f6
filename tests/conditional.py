"""An exact model of rows with holes: linear and normal, and its conditionals in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

import aevb
from aevb import Columns, Conditional

NAN = torch.nan


@dataclass(frozen=True)
class Linear:
    """x = W z + b + σ ε, z ~ N(0, I): x ~ N(b, W Wᵀ + σ² I)."""

    model: aevb.VAE
    mean: Tensor
    covariance: Tensor

    def given(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """The mean (F,) and the variance (F,) of each cell of a row given those that are there; variance 0 of them."""
        there = ~row.isnan()
        a, c = self.covariance[:, there], self.covariance[there][:, there]
        gain = torch.linalg.solve(c, a.T).T if there.any() else a
        mean = self.mean + gain @ (row[there] - self.mean[there])
        variance = (self.covariance - gain @ a.T).diagonal()
        return torch.where(there, row, mean), torch.where(there, 0.0, variance)

    def surprises(self, row: Tensor) -> Tensor:
        """-log p(x_d | the other cells), (F,); NaN of holes."""
        found = torch.full_like(row, NAN)
        for d in (~row.isnan()).nonzero().flatten().tolist():
            rest = row.clone()
            rest[d] = NAN
            mean, variance = self.given(rest)
            found[d] = -Normal(mean[d], variance[d].sqrt()).log_prob(row[d])
        return found

    def log_prob(self, row: Tensor) -> Tensor:
        o = ~row.isnan()
        return MultivariateNormal(self.mean[o], self.covariance[o][:, o]).log_prob(row[o])


class Exact(nn.Module):
    """q(z | x_O) with the exact mean, and `wide` times the standard deviations, of the exact posterior."""

    def __init__(self, weight: Tensor, bias: Tensor, sigma: float, wide: float) -> None:
        super().__init__()
        self.weight, self.bias, self.sigma, self.wide = weight, bias, sigma, wide

    def forward(self, x: Tensor) -> Independent:
        there = (~x.isnan()).to(x)
        precision = (
            torch.eye(self.weight.shape[1])
            + torch.einsum("bf,fd,fe->bde", there, self.weight, self.weight) / self.sigma**2
        )
        covariance = torch.linalg.inv(precision)
        far = torch.where(x.isnan(), 0.0, x - self.bias)
        mean = (covariance @ (far @ self.weight / self.sigma**2).unsqueeze(-1)).squeeze(-1)
        std = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        return Independent(Normal(mean, self.wide * std), 1)


def linear_rows(n: int, size: int = 6, latent: int = 2, sigma: float = 0.5, holes: float = 0.0) -> Tensor:
    """Rows (n, F), some cells missing."""
    g = torch.Generator().manual_seed(7)
    weight, bias = parameters(size, latent)
    x = torch.randn(n, latent, generator=g) @ weight.T + bias + sigma * torch.randn(n, size, generator=g)
    x[torch.rand(x.shape, generator=g) < holes] = NAN
    return x


def parameters(size: int, latent: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(size, latent, generator=g), torch.randn(size, generator=g)


def linear_model(size: int = 6, latent: int = 2, sigma: float = 0.5, wide: float = 1.3) -> Linear:
    """A model whose evidence and conditionals are known, and whose encoder is a little off."""
    weight, bias = parameters(size, latent)
    p = Columns(size, [aevb.Normal(size, scale=sigma)], [range(size)])
    decoder = Conditional(nn.Linear(latent, size), p)
    decoder.requires_grad_(False)
    decoder.net.weight.copy_(weight)
    decoder.net.bias.copy_(bias)
    model = aevb.VAE(aevb.StandardNormal(latent), Exact(weight, bias, sigma, wide), decoder)
    return Linear(model.eval(), bias, weight @ weight.T + sigma**2 * torch.eye(size))
