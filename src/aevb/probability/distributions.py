"""Distributions that `torch.distributions` does not have."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints, kl_divergence
from torch.distributions.kl import register_kl


class Grid(constraints.Constraint):
    """The values 0, h, 2h, ..., (n-1)h, for n `levels` a `spacing` h apart."""

    is_discrete = True

    def __init__(self, levels: int, spacing: float) -> None:
        self.levels, self.spacing = levels, spacing
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        k = value / self.spacing
        return ((k - k.round()).abs() < 1e-3) & (k > -0.5) & (k < self.levels - 0.5)

    def __repr__(self) -> str:
        return f"{self.levels} levels 0, {self.spacing:.4g}, ..., {(self.levels - 1) * self.spacing:.4g}"


class Delta(Distribution):
    """A point: z = v with probability one. The code of a plain autoencoder.

    It has no density, so KL(q ‖ p) = ∞ for every continuous p; an objective that never reads the KL can still use it.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, value: Tensor, event_dim: int = 1) -> None:
        self.value = value
        split = value.ndim - event_dim
        super().__init__(value.shape[:split], value.shape[split:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.value

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.value.expand(self._extended_shape(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """∞ at the point, -∞ elsewhere."""
        at = (value == self.value).flatten(-len(self.event_shape)).all(-1)
        return torch.where(at, torch.inf, -torch.inf).to(value.dtype)


class Pixels(torch.distributions.Bernoulli):
    """Independent Bernoulli from logits l: log p(x) = Σ x·l - log(1 + eˡ) in nats, App. C.1 of arXiv 1312.6114.

    `relaxed` also admits x in [0, 1], where the same formula is a cross-entropy and no likelihood.
    """

    def __init__(self, logits: Tensor, relaxed: bool = False) -> None:
        self.relaxed = relaxed
        super().__init__(logits=logits, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.unit_interval if self.relaxed else constraints.boolean

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.logits - F.softplus(self.logits)


class ContinuousBernoulli(Distribution):
    """p(x) = eˡˣ l / (eˡ - 1) on [0, 1], from logits l (Loaiza-Ganem & Cunningham 2019, arXiv 1907.06845).

    log p(x) = x·l - log(1 + eˡ) + log C, with C = l / tanh(l/2). In terms of l nothing needs to be clamped; PyTorch's own,
    in terms of σ(l), is 0.6 nats off at l = 30 in float32. Near l = 0, where these are 0/0, their Taylor series.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.small = logits.abs() < 0.3
        self.far = torch.where(self.small, 1.0, logits.abs())  # |l|, or 1 where the series is taken: no 0/0 in gradients
        super().__init__(logits.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.unit_interval

    @property
    def mean(self) -> Tensor:
        """1 / (1 - e⁻ˡ) - 1/l."""
        l, a = self.logits, self.far
        m = -1 / torch.expm1(-a) - 1 / a
        return torch.where(self.small, 0.5 + l / 12 - l**3 / 720 + l**5 / 30240, torch.where(l > 0, m, 1 - m))

    @property
    def variance(self) -> Tensor:
        """1/l² - 1 / (4 sinh²(l/2))."""
        l2, a = self.logits**2, self.far
        series = 1 / 12 - l2 / 240 + l2**2 / 6048 - l2**3 / 172800
        return torch.where(self.small, series, 1 / a**2 - torch.exp(-a) / torch.expm1(-a) ** 2)

    def log_prob(self, value: Tensor) -> Tensor:
        l2, a = self.logits**2, self.far
        series = math.log(2) + l2 / 12 - 7 * l2**2 / 1440 + 31 * l2**3 / 90720
        log_c = torch.where(self.small, series, torch.log(a) - torch.log(torch.tanh(a / 2)))
        return value * self.logits - F.softplus(self.logits) + log_c

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """By inversion: an exponential of rate |l| cut at 1, mirrored where l > 0."""
        with torch.no_grad():
            a = self.logits.abs().clamp(min=1e-6)
            u = torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=a.dtype, device=a.device)
            x = (-torch.log1p(u * torch.expm1(-a)) / a).clamp(0, 1)
            return torch.where(self.logits > 0, 1 - x, x)


class DiscreteLogistic(Distribution):
    """A logistic density cut into `levels` bins on {0, 1, ..., n-1}/(n-1), its tails in the two outer bins.

    P(x) = σ((x + h - μ)/s) - σ((x - h - μ)/s) with h = 1/(2(n-1)), the first term 1 at x = 1, the second 0 at x = 0
    (Kingma et al. 2016, arXiv 1606.04934). With σ(b) - σ(a) = σ(b) σ(-a) (1 - eᵃ⁻ᵇ) every part of the logarithm is
    finite for every μ and s > 0, and the n probabilities sum to one exactly.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256) -> None:
        self.loc, self.scale, self.levels = loc, scale, levels
        super().__init__(loc.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Grid(self.levels, 1 / (self.levels - 1))

    @property
    def mean(self) -> Tensor:
        """E[x] = Σ_{j=1}^{n-1} P(x ≥ j/(n-1)) / (n-1)."""
        n = self.levels
        total = torch.zeros_like(self.loc)
        for j in range(1, n):
            total = total + torch.sigmoid((self.loc - (j - 0.5) / (n - 1)) / self.scale)
        return total / (n - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        half = 0.5 / (self.levels - 1)
        b, a = (value + half - self.loc) / self.scale, (value - half - self.loc) / self.scale
        below = torch.where(value < half, 0.0, F.logsigmoid(-a))
        above = torch.where(value > 1 - half, 0.0, F.logsigmoid(b))
        width = 2 * half / self.scale
        edge = (value < half) | (value > 1 - half)
        return below + above + torch.where(edge, 0.0, torch.log(-torch.expm1(-width)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device)
        x = self.loc + self.scale * torch.logit(u, eps=1e-7)
        n = self.levels - 1
        return (x * n).round().clamp(0, n).detach() / n


class Levels(Distribution):
    """A categorical over {0, h, 2h, ...} from logits (..., n): class labels for h = 1, pixel values for h = 1/(n-1)."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, logits: Tensor, spacing: float = 1.0) -> None:
        self.base, self.spacing = torch.distributions.Categorical(logits=logits, validate_args=False), spacing
        super().__init__(logits.shape[:-1], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Grid(self.base.logits.shape[-1], self.spacing)

    @property
    def mean(self) -> Tensor:
        k = torch.arange(self.base.logits.shape[-1], dtype=self.base.logits.dtype, device=self.base.logits.device)
        return (self.base.probs * k).sum(-1) * self.spacing

    def log_prob(self, value: Tensor) -> Tensor:
        log_p: Tensor = self.base.log_prob((value / self.spacing).round().long())
        return log_p

    def sample(self, sample_shape: Any = ()) -> Tensor:
        k: Tensor = self.base.sample(torch.Size(sample_shape))
        return k.to(self.base.logits.dtype) * self.spacing


def _kl_point(q: Delta, p: Distribution) -> Tensor:
    return q.value.new_full(q.batch_shape, torch.inf)


def _kl_full_diagonal(q: MultivariateNormal, p: Independent[Any]) -> Tensor:
    """KL of a full-covariance normal from a diagonal one, closed form."""
    if not isinstance(p.base_dist, Normal):
        raise NotImplementedError
    return kl_divergence(q, MultivariateNormal(p.mean, scale_tril=torch.diag_embed(p.stddev), validate_args=False))


register_kl(Delta, Distribution)(_kl_point)
register_kl(MultivariateNormal, Independent)(_kl_full_diagonal)
