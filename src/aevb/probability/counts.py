"""Counts: Poisson, negative binomial, its zero-inflated form; and levels as counts of successes, the beta-binomial.

PyTorch's own negative binomial takes differences of log Γ, which in float32 are off by hundredths of a nat where r is
large. With Stirling's series, log Γ(x) = (x - ½) log x - x + ½ log 2π + δ(x), nothing large is left to be subtracted:

    log Γ(r + x) - log Γ(r) = x log(r + x) - x + (r - ½) log(1 + x/r) + δ(r + x) - δ(r)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.errors import ShapeError
from aevb.probability.distributions import Grid
from aevb.probability.families import Factorized, Shape, scale_from_log

SERIES_FROM = 8.0  # δ(x) is its series beyond, with an error of 10⁻¹¹


def stirling_error(x: Tensor) -> Tensor:
    """δ(x) = log Γ(x) - (x - ½) log x + x - ½ log 2π for x > 0."""
    small, large = x.clamp(max=SERIES_FROM), x.clamp(min=SERIES_FROM)
    direct = torch.lgamma(small) - (small - 0.5) * small.log() + small - 0.5 * math.log(2 * math.pi)
    y = 1 / large**2
    series = (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y / 1188)))) / large
    return torch.where(x < SERIES_FROM, direct, series)


class NegativeBinomialCounts(torch.distributions.NegativeBinomial):
    """P(x) = Γ(r + x) / (Γ(r) x!) (r/(r + μ))ʳ (μ/(r + μ))ˣ on x = 0, 1, 2, ...: mean μ, variance μ + μ²/r."""

    def __init__(self, mean: Tensor, r: Tensor) -> None:
        self.mu, self.r = mean, r
        super().__init__(r, logits=mean.log() - r.log(), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return self.mu + self.mu**2 / self.r

    def log_prob(self, value: Tensor) -> Tensor:
        mu, r, x = self.mu, self.r, value
        rising = (r - 0.5) * torch.log1p(x / r) - x + stirling_error(r + x) - stirling_error(r)  # less x log(r + x)
        log_p: Tensor = rising - torch.lgamma(1 + x) - r * torch.log1p(mu / r) + x * (mu.log() + log_ratio(x, mu, r))
        return log_p


def log_ratio(x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """log((r + x) / (r + μ)), exact where r is far above both."""
    return torch.log1p(x / r) - torch.log1p(mean / r)


class ZeroInflated(Distribution):
    """x = 0 with probability π = σ(l), else a draw from `counts`: P(x) = π [x = 0] + (1 - π) P'(x)."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, logits: Tensor, counts: Distribution) -> None:
        self.logits, self.counts = logits, counts
        super().__init__(logits.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.logits) * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """(1 - π) (v + π m²), with the mean m and the variance v of the counts."""
        stays = torch.sigmoid(-self.logits)
        return stays * (self.counts.variance + torch.sigmoid(self.logits) * self.counts.mean**2)

    def log_prob(self, value: Tensor) -> Tensor:
        drawn = F.logsigmoid(-self.logits) + self.counts.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logits), drawn), drawn)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            stays = torch.sigmoid(-self.logits).expand(self._extended_shape(shape))
            return self.counts.sample(shape) * torch.bernoulli(stays)


class BetaBinomialLevels(Distribution):
    """P(x = k/N) = C(N, k) B(k + a, N - k + b) / B(a, b) for k = 0..N: binomial, its probability drawn from Beta(a, b)."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, a: Tensor, b: Tensor, levels: int = 256) -> None:
        self.a, self.b, self.trials = a, b, levels - 1
        super().__init__(a.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Grid(self.trials + 1, 1 / self.trials)

    @property
    def mean(self) -> Tensor:
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> Tensor:
        """a b (a + b + N) / (N (a + b)² (a + b + 1))."""
        c = self.a + self.b
        return (self.a / c) * (self.b / c) * (c + self.trials) / (self.trials * (c + 1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Σ over (k, a), (N - k, b) less (N, a + b) of log Γ(x + y) - log Γ(y): Stirling's -x and N cancel."""
        a, b, c, n = self.a, self.b, self.a + self.b, self.trials
        k = (value * n).round()
        total = c + n
        log_p = k * torch.log((a + k) / total) + (n - k) * torch.log((b + n - k) / total)
        log_p = log_p + (a - 0.5) * torch.log1p(k / a) + (b - 0.5) * torch.log1p((n - k) / b)
        log_p = log_p - (c - 0.5) * torch.log1p(n / c) + stirling_error(c) - stirling_error(total)
        log_p = log_p + stirling_error(a + k) - stirling_error(a) + stirling_error(b + n - k) - stirling_error(b)
        return log_p + log_choose(n, k)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            p = torch.distributions.Beta(self.a, self.b, validate_args=False).sample(torch.Size(sample_shape))
            return torch.binomial(torch.full_like(p, self.trials), p) / self.trials


def log_choose(n: int, k: Tensor) -> Tensor:
    """log C(n, k), in nats; summed once in float64."""
    table = torch.lgamma(torch.arange(n + 1, dtype=torch.float64) + 1)
    choose = (table[n] - table - table.flip(0)).to(dtype=k.dtype, device=k.device)
    return choose[k.long().clamp(0, n)]


class Poisson(Factorized):
    """Poisson on counts 0, 1, 2, ...: φ = log of the mean λ, |log λ| ≤ 10. log p(x) = x log λ - λ - log x!."""

    def elements(self, *parts: Tensor) -> Distribution:
        return torch.distributions.Poisson(scale_from_log(parts[0]), validate_args=False)


class NegativeBinomial(Factorized):
    """Counts that vary more than Poisson's: φ = (log μ, log r), mean μ, variance μ + μ²/r; r → ∞ is Poisson's."""

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return NegativeBinomialCounts(scale_from_log(parts[0]), scale_from_log(parts[1]))


class ZeroInflatedNegativeBinomial(Factorized):
    """Negative binomial counts of which a share π = σ(l) is lost and reads 0: φ = (log μ, log r, l).

    A usual model of single-cell gene expression (Lopez et al. 2018, doi 10.1038/s41592-018-0229-2).
    """

    parameters = 3

    def elements(self, *parts: Tensor) -> Distribution:
        return ZeroInflated(parts[2], NegativeBinomialCounts(scale_from_log(parts[0]), scale_from_log(parts[1])))


class BetaBinomial(Factorized):
    """Beta-binomial on `levels` grey levels in [0, 1], as in BB-ANS (arXiv 1901.04866): φ = (log a, log b)."""

    parameters = 2

    def __init__(self, shape: Shape, levels: int = 256) -> None:
        super().__init__(shape)
        if levels < 2:
            raise ShapeError(f"BetaBinomial needs at least 2 levels; got {levels}.")
        self.levels = levels

    def elements(self, *parts: Tensor) -> Distribution:
        return BetaBinomialLevels(scale_from_log(parts[0]), scale_from_log(parts[1]), self.levels)
