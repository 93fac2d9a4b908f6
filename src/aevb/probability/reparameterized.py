"""The reparameterised families of §2.4 of Kingma & Welling 2013 (arXiv 1312.6114): z = g_φ(ε), in one of three ways.

(i) An inverse cumulative distribution: z = F⁻¹(u), u ~ U(0, 1). `Exponential`, `Cauchy`, `Logistic`, `Weibull`, `Gumbel`.
(ii) Location and scale: z = μ + s ε. `Logistic`, `Uniform`, and of `families`: Normal, Laplace, StudentT.
(iii) Composition of others: `LogNormal`, `Gamma`, `Beta`, `Dirichlet`.

The Gamma's ε would be a number of uniforms that is random itself; PyTorch differentiates its draws implicitly instead,
∂z/∂α = -∂F(z; α)/∂α / p(z; α) (Figurnov et al. 2018, arXiv 1805.08498), and Beta and Dirichlet likewise.

A draw must stay a positive number in float32, and so must 1 - z: hence the bounds on shapes, narrower than on scales.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from aevb.errors import ShapeError
from aevb.probability import distributions as d
from aevb.probability.families import LOG_SCALE_BOUND, Factorized, Family, Shape, check_size, scale_from_log

SHAPE_BOUNDS = 0.5, 1000.0  # of a shape parameter: below ½ draws round to an edge, above 1000 log Γ loses digits
LOG_SIGMA_BOUND = 1.0  # of a LogNormal


def shape_from(phi: Tensor) -> Tensor:
    """½ + softplus(φ), at most 1000: a shape (concentration) parameter."""
    low, high = SHAPE_BOUNDS
    return (low + F.softplus(phi)).clamp(max=high)


class Logistic(Factorized):
    """Logistic(μ, s), z = μ + s log(u / (1 - u)), on the real line: φ = (μ, log s)."""

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Logistic(parts[0], scale_from_log(parts[1]))


class Gumbel(Factorized):
    """Gumbel(μ, β), z = μ - β log(-log u), on the real line: φ = (μ, log β). Its mean is μ + γβ, γ = 0.577...

    Under a Gumbel prior a posterior far on the left costs exponentially much: E[e⁻ᶻ] = e^(-μ) Γ(1 + β).
    """

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return torch.distributions.Gumbel(parts[0], scale_from_log(parts[1]), validate_args=False)


class Cauchy(Factorized):
    """Cauchy(μ, γ), z = μ + γ tan(π (u - ½)), on the real line: φ = (μ, log γ).

    It has no mean: what a model encodes or shows is the median μ. For want of moments KL(q ‖ p) = ∞ for a normal, logistic,
    Laplace or Gumbel prior, and training refuses them; standard-cauchy has a closed form, and standard-student-t is finite.
    A draw may be enormous, so give the decoder an activation that saturates, such as tanh.
    """

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Cauchy(parts[0], scale_from_log(parts[1]), validate_args=False)


class Uniform(Factorized):
    """U(c - h, c + h), z = c + h (2u - 1): φ = (c, log h). A posterior only: its support moves with φ."""

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Uniform(parts[0], scale_from_log(parts[1]))


class Exponential(Factorized):
    """Exponential of mean θ, z = -θ log u, on z > 0: φ = log θ."""

    def elements(self, *parts: Tensor) -> Distribution:
        return torch.distributions.Exponential(scale_from_log(-parts[0]), validate_args=False)


class Weibull(Factorized):
    """Weibull(λ, k), z = λ (-log u)^(1/k), on z > 0: φ = (log λ, κ), k = ½ + softplus(κ)."""

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Weibull(scale_from_log(parts[0]), shape_from(parts[1]), validate_args=False)


class LogNormal(Factorized):
    """z = exp(μ + σ ε), ε ~ N(0, 1), on z > 0: φ = (μ, log σ), |μ| ≤ 10 and log σ ≤ 1.

    So bounded, its draws, its mean and its variance are finite in float32.
    """

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        mu, sigma = parts[0].clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND), scale_from_log(parts[1].clamp(max=LOG_SIGMA_BOUND))
        return torch.distributions.LogNormal(mu, sigma, validate_args=False)


class Gamma(Factorized):
    """Gamma(α, θ) of mean αθ, a sum of exponentials where α is whole, on z > 0: φ = (κ, log θ), α = ½ + softplus(κ)."""

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Gamma(shape_from(parts[0]), scale_from_log(-parts[1]), validate_args=False)


class Beta(Factorized):
    """Beta(a, b), z = g / (g + g') of gammas, on 0 < z < 1: φ = (κ, κ'), a = ½ + softplus(κ), b = ½ + softplus(κ')."""

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Beta(shape_from(parts[0]), shape_from(parts[1]), validate_args=False)


class Dirichlet(Family):
    """Dirichlet(α), z = g / Σ g of gammas, on the simplex z_d > 0, Σ_d z_d = 1: φ (D) with α_d = ½ + softplus(φ_d)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        if len(self.shape) != 1 or self.shape[0] < 2:
            raise ShapeError(f"Dirichlet is over vectors of at least 2 numbers that sum to 1; got {tuple(self.shape)}.")

    @property
    def size(self) -> int:
        return self.shape[0]

    def __call__(self, phi: Tensor) -> Distribution:
        check_size(self, phi)
        return torch.distributions.Dirichlet(shape_from(phi), validate_args=False)
