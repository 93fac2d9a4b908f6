"""The unit sphere in ℝᴰ: von Mises-Fisher and uniform, for codes that are directions (arXiv 1804.00891).

All is in terms of the gap v = 1 - μᵀz, of which p(v) ∝ e^(-κv) (v (2 - v))^((D-3)/2) on 0 < v < 2: near κ = 10⁴, where
z hardly leaves μ, 1 - v would have no digits left. Its integrals are sums over a fixed grid, without a Bessel function.
So normaliser, moments and their derivatives agree to rounding, for every κ and D. They are taken in float64 whatever z
is in.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.kl import register_kl

from aevb.errors import ShapeError
from aevb.parts import POSTERIOR, Offers, Support
from aevb.probability.families import Family, Shape, bounded, check_size

LARGEST = 1e4  # κ, where a code of float32 still has four digits of its distance from μ
EDGE = 4.2  # of the grid in τ: beyond, a square root's singularity holds less than 10⁻¹⁷


class Sphere(constraints.Constraint):
    """|z| = 1."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        on: Tensor = (value.norm(dim=-1) - 1).abs() < 1e-3
        return on

    def __repr__(self) -> str:
        return "the unit sphere"


def log_area(dimension: int) -> float:
    """log of the area of the unit sphere in ℝᴰ, 2 π^(D/2) / Γ(D/2)."""
    return math.log(2) + dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2)


@cache
def grid(dimension: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """log x, log(1 - x) and log of the weights of x = σ(π sinh τ), τ in equal steps (Takahasi & Mori 1974).

    Doubly exponential, it integrates over (0, 1) whatever the ends do; fine enough for peaks of a width of 1/(2 √D).
    """
    steps = math.ceil(2 * EDGE / min(0.04, 0.4 / math.sqrt(dimension)))
    tau = torch.linspace(-EDGE, EDGE, steps + 1, dtype=torch.float64, device=device)
    u = math.pi * tau.sinh()
    log_x, log_rest = F.logsigmoid(u), F.logsigmoid(-u)
    return log_x, log_rest, log_x + log_rest + (math.pi * tau.cosh() * (2 * EDGE / steps)).log()


def gaps_below(kappa: Tensor, end: Tensor, dimension: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of e^(-κv) (v (2 - v))^((D-3)/2) over 0 < v < `end`: log of the integral, mean and variance of v; all (*),
    float64."""
    log_x, log_rest, log_w = grid(dimension, kappa.device)
    end, kappa = end.unsqueeze(-1), kappa.unsqueeze(-1)
    v = end * log_x.exp()
    ends = end.log() + log_x + (2 - end + end * log_rest.exp()).log()
    log_p = (dimension - 3) / 2 * ends - kappa * v + end.log() + log_w
    p = log_p.softmax(-1)
    mean = (p * v).sum(-1)
    return log_p.logsumexp(-1), mean, (p * (v - mean.unsqueeze(-1)) ** 2).sum(-1)


def reach(kappa: Tensor, dimension: int) -> Tensor:
    """Where v may end: at 2, or before it where less than 10⁻¹⁷ lies beyond, so that the grid is where the mass is."""
    return ((0.5 * dimension + 9 * math.sqrt(dimension) + 40) / kappa.detach()).clamp(max=2.0)


@torch.no_grad()
def draw_gaps(kappa: Tensor, dimension: int) -> Tensor:
    """v ~ p(v; κ), one for each κ (*), by rejection (Wood 1994); two of three proposals are taken, or more. NaN for a
    NaN.

    A proposal is v = 2bε / (1 - (1 - b)ε) with ε ~ Beta((D-1)/2, (D-1)/2), b of the envelope that fits best.
    """
    flat, m = kappa.flatten(), dimension - 1
    v, pending = torch.full_like(flat, torch.nan), flat.isfinite().nonzero().squeeze(-1)  # no test would take a NaN
    gamma = torch.distributions.Gamma(flat.new_tensor(m / 2), flat.new_tensor(1.0), validate_args=False)
    while len(pending):
        k = flat[pending]
        b = m / (2 * k + (4 * k**2 + m**2).sqrt())
        g = gamma.sample(torch.Size((2, len(k))))
        epsilon = g[0] / g.sum(0)  # a Beta; torch's own sampler cannot be compiled
        proposed = 2 * b * epsilon / (1 - (1 - b) * epsilon)
        least = 2 * b / (1 + b)  # 1 - x₀: the gap at which proposal and target touch
        fit = k * (least - proposed) + m * ((least + (1 - least) * proposed).log() - (4 * b / (1 + b) ** 2).log())
        taken = torch.rand_like(k).log() <= fit
        v[pending[taken]] = proposed[taken]
        pending = pending[~taken]
    return v.clamp(min=1e-30).reshape(kappa.shape)


def slope(v: Tensor, kappa: Tensor, mean: Tensor, dimension: int) -> Tensor:
    """∂v/∂κ at a fixed quantile, -∂F(v; κ)/∂κ / p(v; κ) (implicit reparameterisation, arXiv 1805.08498), (*).

    ∂F/∂κ = ∫₀ᵛ (E[v] - s) p(s) ds, in which the normaliser of p cancels.
    """
    log_below, mean_below, _ = gaps_below(kappa, v, dimension)
    log_p = (dimension - 3) / 2 * (v * (2 - v)).log() - kappa * v
    return -(log_below - log_p).exp() * (mean - mean_below)


class Directions(Distribution):
    """p(z) = C_D(κ) e^(κ μᵀz) on |z| = 1, the von Mises-Fisher distribution; its `mean` is E[z], inside of the sphere.

    A draw is differentiable in μ and κ: z = (1 - v) μ + √(v (2 - v)) t, with v implicitly so, and t of length 1 across
        μ.

    Args:
        mu: (*, D), of length 1.
        kappa: (*), positive.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, mu: Tensor, kappa: Tensor) -> None:
        self.mu, self.kappa = mu, kappa
        d, k = mu.shape[-1], kappa.double()
        log_integral, self.gap, self.gap_variance = gaps_below(k, reach(k, d), d)
        self.log_mass = log_integral + log_area(d - 1)  # log ∫ e^(-κv) dz
        super().__init__(kappa.shape, mu.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Sphere()

    @property
    def mean(self) -> Tensor:
        """(1 - E[v]) μ, of length I_{D/2}(κ) / I_{D/2-1}(κ)."""
        return (1 - self.gap).to(self.mu.dtype).unsqueeze(-1) * self.mu

    @property
    def variance(self) -> Tensor:
        """Of each element: Var(v) along μ, E[v (2 - v)] / (D - 1) across."""
        across = (2 * self.gap - self.gap**2 - self.gap_variance) / (self.mu.shape[-1] - 1)
        along = self.gap_variance - across
        return (across.unsqueeze(-1) + along.unsqueeze(-1) * self.mu**2).to(self.mu.dtype)

    def entropy(self) -> Tensor:
        return (self.kappa.double() * self.gap + self.log_mass).to(self.kappa.dtype)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        mu, v = self.mu.expand(shape), self.gaps(shape[:-1]).unsqueeze(-1)
        across = torch.randn_like(mu)
        for _ in range(2):  # once is not enough where it happened to point along μ
            across = F.normalize(across - (across * mu).sum(-1, keepdim=True) * mu, dim=-1)
        return (1 - v).to(mu.dtype) * mu + (v * (2 - v)).sqrt().to(mu.dtype) * across

    def gaps(self, shape: torch.Size) -> Tensor:
        kappa = self.kappa.double().expand(shape)
        v = draw_gaps(kappa.detach(), self.mu.shape[-1])
        if not torch.is_grad_enabled():
            return v
        rate = slope(v, kappa.detach(), self.gap.detach(), self.mu.shape[-1])
        return v + rate * (kappa - kappa.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        """-κ |z - μ|² / 2 - log ∫ e^(-κv) dz, as 1 - μᵀz = |z - μ|² / 2."""
        gap = 0.5 * (value - self.mu).square().sum(-1)
        return -self.kappa * gap - self.log_mass.to(gap.dtype)


class UniformSphere(Distribution):
    """p(z) = Γ(D/2) / 2 π^(D/2) on |z| = 1, what von Mises-Fisher is at κ = 0.

    Args:
        like: (D), of whose type and on whose device the draws are.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, like: Tensor, validate_args: bool = False) -> None:
        self.like = like
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return Sphere()

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.like)

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.like, 1 / self.like.shape[-1])

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_full(value.shape[:-1], -log_area(value.shape[-1]))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return F.normalize(torch.randn(shape, dtype=self.like.dtype, device=self.like.device), dim=-1)


class VonMisesFisher(Family):
    """Von Mises-Fisher on the unit sphere in ℝᴰ (Davidson et al. 2018, arXiv 1804.00891): φ = (a direction, c).

    μ = φ / |φ| of the first D numbers, κ = D softplus(c), at most 10⁴: at c = 0 the code is somewhat concentrated, in
    any dimension. The prior is `uniform-sphere`, from which its KL has a closed form. A sphere in ℝᴰ has D - 1
    dimensions.
    """

    word, roles = "von-mises-fisher", (POSTERIOR,)
    offers = Offers(Support.SPHERE, factorized=False, known_covariance=False)
    equation = "C_D(κ) exp(κ μᵀ{v}),  |{v}| = 1, (m, c) = {net}, μ = m/|m|, κ = D softplus(c)"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        if len(self.shape) != 1 or self.shape[0] < 2:
            raise ShapeError(
                f"VonMisesFisher is over vectors of at least 2 numbers, of length 1; got {tuple(self.shape)}."
            )

    @property
    def size(self) -> int:
        return self.shape[0] + 1

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        first = torch.eye(1, self.shape[0], dtype=phi.dtype, device=phi.device)[0]
        direction = phi[..., :-1] + 1e-9 * first  # 0 is no direction: it points along the first axis
        kappa = bounded(self.shape[0] * F.softplus(phi[..., -1]), 1e-3, LARGEST)
        return Directions(F.normalize(direction, dim=-1), kappa)


def _kl_from_uniform(q: Directions, p: UniformSphere) -> Tensor:
    """KL(vMF(μ, κ) ‖ U) = log |S| - H[q], whatever μ is."""
    kl: Tensor = log_area(q.mu.shape[-1]) - q.entropy()
    return kl


register_kl(Directions, UniformSphere)(_kl_from_uniform)
