"""Angles: von Mises."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.probability.families import Factorized

TINY = 1e-12  # under a root, whose slope at 0 is infinite


class Angles(torch.distributions.VonMises):
    """p(x) = exp(η₁ cos x + η₂ sin x) / 2π I₀(κ) on -π ≤ x ≤ π, κ = |η|: the exponent is κ cos(x - μ), μ = atan2(η₂, η₁).

    In terms of η it is smooth at κ = 0, where an angle has no gradient. Its `mean` is the mean direction μ, its `variance`
    the circular one, 1 - I₁(κ)/I₀(κ) = 1 - E[cos(x - μ)].
    """

    support: constraints.Constraint = constraints.interval(-math.pi, math.pi)  # type: ignore[assignment]

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.kappa = x, y, (x**2 + y**2 + TINY).sqrt()
        super().__init__(torch.atan2(y, x).detach(), self.kappa.detach(), validate_args=False)  # for draws and moments

    def log_prob(self, value: Tensor) -> Tensor:
        """η·(cos x, sin x) - κ - log 2π - log(e⁻ᵏ I₀(κ))."""
        exponent = self.x * value.cos() + self.y * value.sin() - self.kappa
        log_p: Tensor = exponent - math.log(2 * math.pi) - torch.special.i0e(self.kappa).log()
        return log_p


class VonMises(Factorized):
    """Von Mises on angles in [-π, π]: φ = η, its two natural parameters, of length κ and direction μ."""

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return Angles(parts[0], parts[1])
