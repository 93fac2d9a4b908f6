"""The reparameterised families of §2.4 of Kingma & Welling 2013 (arXiv 1312.6114): z = g_φ(ε), in one of three ways.

(i) An inverse cumulative distribution: z = F⁻¹(u), u ~ U(0, 1). `Exponential`, `Cauchy`, `Logistic`, `Weibull`,
`Gumbel`. (ii) Location and scale: z = μ + s ε. `Logistic`, `Uniform`, and of `families`: Normal, Laplace, StudentT.
(iii) Composition of others: `LogNormal`, `Gamma`, `Beta`, `Dirichlet`.

The Gamma's ε would be a number of uniforms that is random itself; PyTorch differentiates its draws implicitly instead,
∂z/∂α = -∂F(z; α)/∂α / p(z; α) (Figurnov et al. 2018, arXiv 1805.08498), and Beta and Dirichlet likewise.

A draw must stay a positive number in float32, and so must 1 - z: hence the bounds on shapes, narrower than on scales.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from aevb.errors import ShapeError
from aevb.notation import product_of
from aevb.parts import LIKELIHOOD, POSTERIOR, Offers, Support, Tail
from aevb.probability import distributions as d
from aevb.probability.families import (
    LOG_MEAN_BOUND,
    LOG_SCALE_BOUNDS,
    Factorized,
    Family,
    Shape,
    bounded,
    check_size,
    mean_from_log,
    scale_from_log,
)

SHAPE_BOUNDS = 0.5, 1e6  # of a shape parameter: below ½ draws round to an edge, above 10⁶ float32 draws do not differ
LOG_SIGMA_BOUND = 1.5  # of a LogNormal: its mean, e^(μ + σ²/2), and its draws stay far below the largest float32

LEAST = 1e-30  # of a positive number, whose logarithm is taken
NARROW = 0.14  # spread of logarithms at a start, at least: an untrained net moves them by about 1


def shape_from(phi: Tensor) -> Tensor:
    """½ + softplus(φ), at most 10⁶: a shape (concentration) parameter."""
    low, high = SHAPE_BOUNDS
    return bounded(low + F.softplus(phi), low, high)


def shape_to(shape: Tensor) -> Tensor:
    """The φ of a shape parameter; of one at its lower bound or below, a φ at which it is near to the bound."""
    above = (shape - SHAPE_BOUNDS[0]).clamp(min=1e-3)
    return above + torch.log(-torch.expm1(-above))


class Logistic(Factorized):
    """Logistic(μ, s), z = μ + s log(u / (1 - u)), on the real line: φ = (μ, log s)."""

    word, roles = "logistic", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.REAL, Tail.EXPONENTIAL)
    equation = product_of("Logistic", "μ_d, s_d", "(μ, log s)")

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Logistic(parts[0], scale_from_log(parts[1]))


class Gumbel(Factorized):
    """Gumbel(μ, β), z = μ - β log(-log u), on the real line: φ = (μ, log β). Its mean is μ + γβ, γ = 0.577...

    Under a Gumbel prior a posterior far on the left costs exponentially much: E[e⁻ᶻ] = e^(-μ) Γ(1 + β).
    """

    word, roles = "gumbel", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.REAL, Tail.GUMBEL, tolerates=Tail.GUMBEL)
    equation = product_of("Gumbel", "μ_d, β_d", "(μ, log β)")

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return torch.distributions.Gumbel(parts[0], scale_from_log(parts[1]), validate_args=False)


class Cauchy(Factorized):
    """Cauchy(μ, γ), z = μ + γ tan(π (u - ½)), on the real line: φ = (μ, log γ).

    It has no mean: what a model encodes or shows is the median μ. It has no moments, so KL(q ‖ p) = ∞ for a normal,
    logistic, Laplace or Gumbel prior: training does not support them. standard-cauchy has a closed form, and
    standard-student-t is finite. A draw may be enormous, so give the decoder an activation that saturates, such as
    tanh.
    """

    word, roles = "cauchy", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.REAL, Tail.CAUCHY, tolerates=Tail.CAUCHY, known_covariance=False)
    equation = product_of("Cauchy", "μ_d, γ_d", "(μ, log γ)")

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Cauchy(parts[0], scale_from_log(parts[1]), validate_args=False)


class Uniform(Factorized):
    """U(c - h, c + h), z = c + h (2u - 1): φ = (c, log h). A posterior only: its support moves with φ."""

    word, roles = "uniform", (POSTERIOR,)
    offers = d.Uniform.offers
    equation = product_of("U", "c_d - h_d, c_d + h_d", "(c, log h)")

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Uniform(parts[0], scale_from_log(parts[1]))


class Exponential(Factorized):
    """Exponential of mean θ, z = -θ log u, on z > 0: φ = log θ."""

    word, roles = "exponential", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.POSITIVE)
    equation = "Π_d exp(-{v}_d/θ_d) / θ_d,  {v}_d > 0, log θ = {net}"

    starts = True

    def start(self, x: Tensor) -> Tensor:
        return x.mean(0).clamp(min=LEAST).log().flatten()

    def elements(self, *parts: Tensor) -> Distribution:
        return torch.distributions.Exponential(mean_from_log(-parts[0]), validate_args=False)


class Weibull(Factorized):
    """Weibull(λ, k), z = λ (-log u)^(1/k), on z > 0: φ = (log λ, κ), k = ½ + softplus(κ)."""

    word, roles = "weibull", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.POSITIVE)
    equation = product_of("Weibull", "scale λ_d, shape k_d", "(log λ, κ)", ", k = ½ + softplus(κ)")

    parameters, starts = 2, True

    def start(self, x: Tensor) -> Tensor:
        """log z is of a Gumbel's kind, of mean log λ - γ/k and standard deviation π/(k √6)."""
        logs = x.clamp(min=LEAST).log()
        k = (math.pi / math.sqrt(6) / logs.std(0, correction=0).clamp(min=NARROW)).clamp(min=SHAPE_BOUNDS[0])
        return torch.stack([logs.mean(0) + d.EULER / k, shape_to(k)]).flatten()

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Weibull(mean_from_log(parts[0]), shape_from(parts[1]), validate_args=False)


class LogNormal(Factorized):
    """z = exp(μ + σ ε), ε ~ N(0, 1), on z > 0: φ = (μ, log σ), |μ| ≤ 30 and log σ ≤ 1.5.

    So bounded, its draws and its mean are finite in float32.
    """

    word, roles = "log-normal", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.POSITIVE)
    equation = "Π_d N(log {v}_d; μ_d, σ_d²) / {v}_d,  (μ, log σ) = {net}"

    parameters, starts = 2, True

    def start(self, x: Tensor) -> Tensor:
        logs = x.clamp(min=LEAST).log()
        return torch.stack([logs.mean(0), logs.std(0, correction=0).clamp(min=NARROW).log()]).flatten()

    def elements(self, *parts: Tensor) -> Distribution:
        mu = bounded(parts[0], -LOG_MEAN_BOUND, LOG_MEAN_BOUND)
        sigma = bounded(parts[1], LOG_SCALE_BOUNDS[0], LOG_SIGMA_BOUND).exp()
        return torch.distributions.LogNormal(mu, sigma, validate_args=False)


class Gamma(Factorized):
    """Gamma(α, θ) of mean αθ, a sum of exponentials where α is whole, on z > 0: φ = (κ, log θ), α = ½ + softplus(κ)."""

    word, roles = "gamma", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.POSITIVE)
    equation = product_of("Gamma", "shape α_d, scale θ_d", "(κ, log θ)", ", α = ½ + softplus(κ)")

    parameters, starts = 2, True

    def start(self, x: Tensor) -> Tensor:
        """α θ is the mean, α θ² the variance."""
        mean = x.mean(0).clamp(min=LEAST)
        alpha = (mean / x.std(0, correction=0).clamp(min=NARROW * mean)).square().clamp(min=SHAPE_BOUNDS[0])
        return torch.stack([shape_to(alpha), (mean / alpha).log()]).flatten()

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Gamma(shape_from(parts[0]), mean_from_log(-parts[1]), validate_args=False)


class Beta(Factorized):
    """Beta(a, b), z = g / (g + g') of gammas, on 0 < z < 1: φ = (κ, κ'), a = ½ + softplus(κ), b = ½ + softplus(κ')."""

    word, roles = "beta", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.UNIT)
    equation = product_of("Beta", "a_d, b_d", "(κ, κ')", ", a = ½ + softplus(κ), b = ½ + softplus(κ')")

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Beta(shape_from(parts[0]), shape_from(parts[1]), validate_args=False)


class Dirichlet(Family):
    """Dirichlet(α), z = g / Σ g of gammas, on the simplex z_d > 0, Σ_d z_d = 1: φ (D) with α_d = ½ + softplus(φ_d)."""

    word, roles = "dirichlet", (POSTERIOR,)
    offers = Offers(Support.SIMPLEX, factorized=False, known_covariance=False)
    equation = "Dirichlet({v}; α),  α = ½ + softplus({net})"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        if len(self.shape) != 1 or self.shape[0] < 2:
            raise ShapeError(f"Dirichlet is over vectors of at least 2 numbers that sum to 1; got {tuple(self.shape)}.")

    @property
    def size(self) -> int:
        return self.shape[0]

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        return d.Dirichlet(shape_from(phi), validate_args=False)
