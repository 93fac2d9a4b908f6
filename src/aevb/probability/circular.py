"""Angles: von Mises."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.parts import LIKELIHOOD, Offers, Support
from aevb.probability.families import Factorized

TINY = 1e-12  # under a root, whose slope at 0 is infinite


class Angles(torch.distributions.VonMises):
    """p(x) = exp(η₁ cos x + η₂ sin x) / 2π I₀(κ) on -π ≤ x ≤ π, κ = |η|: the exponent is κ cos(x - μ), μ = atan2(η₂,
    η₁).

    In terms of η it is smooth at κ = 0, where an angle has no gradient. Its `mean` is the mean direction μ, its
    `variance` the circular one, 1 - I₁(κ)/I₀(κ) = 1 - E[cos(x - μ)].
    """

    support: constraints.Constraint = constraints.interval(-math.pi, math.pi)  # type: ignore[assignment]

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.kappa = x, y, (x**2 + y**2 + TINY).sqrt()
        super().__init__(torch.atan2(y, x).detach(), self.kappa.detach(), validate_args=False)  # for draws and moments

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """By rejection, which would never take a draw where κ is no number: there, NaN."""
        known = self.concentration.isfinite()
        p = torch.distributions.VonMises(self.loc, self.concentration.where(known, 1.0), validate_args=False)
        x: Tensor = p.sample(torch.Size(sample_shape))
        return x.where(known, torch.nan)

    def log_prob(self, value: Tensor) -> Tensor:
        """η·(cos x, sin x) - κ - log 2π - log(e⁻ᵏ I₀(κ))."""
        exponent = self.x * value.cos() + self.y * value.sin() - self.kappa
        log_p: Tensor = exponent - math.log(2 * math.pi) - torch.special.i0e(self.kappa).log()
        return log_p


class VonMises(Factorized):
    """Von Mises on angles in [-π, π]: φ = η, its two natural parameters, of length κ and direction μ."""

    word, roles = "von-mises", (LIKELIHOOD,)
    offers = Offers(Support.ANGLES, reparameterized=False)
    equation = "Π_d exp(κ_d cos({v}_d - μ_d)) / 2π I₀(κ_d),  κ (cos μ, sin μ) = {net}"

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return Angles(parts[0], parts[1])
