"""Counts: Poisson, negative binomial, its zero-inflated form; and levels as counts of successes, the beta-binomial.

The terms of log P(x) are as large as x log x, and cancel: they are summed in float64. PyTorch's own negative binomial
takes differences of log Γ, which are off where r is large. With Stirling's series,
log Γ(x) = (x - ½) log x - x + ½ log 2π + δ(x), nothing large in r is left to be subtracted:

    log Γ(r + x) - log Γ(r) = x log(r + x) - x + (r - ½) log(1 + x/r) + δ(r + x) - δ(r)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.notation import product_of
from aevb.parts import LIKELIHOOD, Offers, Support
from aevb.probability import distributions as d
from aevb.probability.families import Factorized, Shape, mean_from_log, scale_from_log
from aevb.probability.shapes import readable

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
        """log P(x) = -r log(1 + μ/r), of a zero all there is, and `_of_counted` of what was counted.

        Most counts of a sparse table are zeros, and the others are the dear ones: they alone are computed.
        """
        mu, r, x = self.mu.double(), self.r.double(), value.double()
        rate = torch.log1p(mu / r)
        log_p: Tensor = _where_counted(_of_counted, x, (mu, r, rate)) - r * rate
        return log_p.to(self.mu.dtype)


def _of_counted(x: Tensor, mu: Tensor, r: Tensor, rate: Tensor) -> Tensor:
    """log Γ(r + x) - log Γ(r) - log x! + x log(μ / (r + μ)), with rate = log(1 + μ/r); 0 at x = 0."""
    rising = (r + x - 0.5) * torch.log1p(x / r) - x + stirling_error(r + x) - stirling_error(r)  # less x log r
    return rising - torch.lgamma(1 + x) + x * (mu.log() - rate)


def _where_counted(density: Callable[..., Tensor], x: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """`density` of x and of parts (*, *X), which is 0 where x (*X) is; computed for the other x alone, if they are
    few."""
    part = parts[0]
    same = part.shape == parts[-1].shape and part.shape[part.ndim - x.ndim :] == x.shape
    if not same or not readable(x) or 2 * x.count_nonzero() > x.numel():
        return density(x, *parts)
    at, lead = x.flatten().nonzero().squeeze(1), part.shape[: part.ndim - x.ndim]
    index = at.expand(*lead, -1)
    found = density(x.flatten()[at], *(p.reshape(*lead, -1).gather(-1, index) for p in parts))
    return found.new_zeros(*lead, x.numel()).scatter(-1, index, found).view(part.shape)


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
    """P(x = k/N) = C(N, k) B(k + a, N - k + b) / B(a, b) for k = 0..N: binomial, its probability drawn from Beta(a,
    b)."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, a: Tensor, b: Tensor, levels: int = 256) -> None:
        self.a, self.b, self.trials = a, b, levels - 1
        super().__init__(a.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return d.Grid(self.trials + 1, 1 / self.trials)

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
        a, b, n = self.a.double(), self.b.double(), self.trials
        c, k = a + b, (value * n).round()
        total = c + n
        log_p = k * torch.log((a + k) / total) + (n - k) * torch.log((b + n - k) / total)
        log_p = log_p + (a - 0.5) * torch.log1p(k / a) + (b - 0.5) * torch.log1p((n - k) / b)
        log_p = log_p - (c - 0.5) * torch.log1p(n / c) + stirling_error(c) - stirling_error(total)
        log_p = log_p + stirling_error(a + k) - stirling_error(a) + stirling_error(b + n - k) - stirling_error(b)
        return (log_p + log_choose(n, k)).to(self.a.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            p = torch.distributions.Beta(self.a, self.b, validate_args=False).sample(torch.Size(sample_shape))
            return torch.binomial(torch.full_like(p, self.trials), p) / self.trials


def log_choose(n: int, k: Tensor) -> Tensor:
    """log C(n, k), in nats, float64."""
    return chosen_of(n, k.device)[k.long().clamp(0, n)]


@cache
def chosen_of(n: int, device: torch.device) -> Tensor:
    """log C(n, k) for k = 0, ..., n."""
    table = torch.lgamma(torch.arange(n + 1, dtype=torch.float64, device=device) + 1)
    return table[n] - table - table.flip(0)


def log_mean(x: Tensor) -> Tensor:
    """log of the mean over rows (N, *X) of counts; of a column of zeros, as if half a count had been seen."""
    return x.mean(0).clamp(min=0.5 / len(x)).log()


def log_r(x: Tensor) -> Tensor:
    """log r of counts (N, *X) of variance μ + μ²/r; r is at most 10⁴, where they vary no more than Poisson's."""
    mean, variance = x.mean(0).clamp(min=0.5 / len(x)), x.var(0, correction=0)
    return 2 * mean.log() - torch.maximum(variance - mean, 1e-4 * mean**2).log()


class Poisson(Factorized):
    """Poisson on counts 0, 1, 2, ...: φ = log of the mean λ, |log λ| ≤ 30. log p(x) = x log λ - λ - log x!."""

    starts = True

    def start(self, x: Tensor) -> Tensor:
        return log_mean(x).flatten()

    word, roles = "poisson", (LIKELIHOOD,)
    offers = Offers(Support.COUNTS, reparameterized=False)
    equation = product_of("Poisson", "λ_d", "log λ")

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Poisson(mean_from_log(parts[0]), validate_args=False)


class NegativeBinomial(Factorized):
    """Counts that vary more than Poisson's: φ = (log μ, log r), mean μ, variance μ + μ²/r; r → ∞ is Poisson's."""

    word, roles = "negative-binomial", (LIKELIHOOD,)
    offers = Offers(Support.COUNTS, reparameterized=False)
    equation = product_of("NegBin", "mean μ_d, variance μ_d + μ_d²/r_d", "(log μ, log r)")

    parameters, starts = 2, True

    def start(self, x: Tensor) -> Tensor:
        return torch.stack([log_mean(x), log_r(x)]).flatten()

    def elements(self, *parts: Tensor) -> Distribution:
        return NegativeBinomialCounts(mean_from_log(parts[0]), scale_from_log(parts[1]))


class ZeroInflatedNegativeBinomial(Factorized):
    """Negative binomial counts of which a share π = σ(l) is lost and reads 0: φ = (log μ, log r, l).

    A usual model of single-cell gene expression (Lopez et al. 2018, doi 10.1038/s41592-018-0229-2).
    """

    word, roles = "zero-inflated-negative-binomial", (LIKELIHOOD,)
    offers = Offers(Support.COUNTS, reparameterized=False)
    equation = (
        "Π_d π_d [x_d = 0] + (1 - π_d) NegBin(x_d; mean μ_d, variance μ_d + μ_d²/r_d),  (log μ, log r, logit π) = {net}"
    )

    parameters, starts = 3, True

    def start(self, x: Tensor) -> Tensor:
        """As if half of the zeros were lost."""
        lost = (0.5 * (x == 0).double().mean(0)).clamp(min=0.01)
        return torch.stack([log_mean(x) - torch.log1p(-lost), log_r(x), lost.logit()]).flatten()

    def elements(self, *parts: Tensor) -> Distribution:
        return ZeroInflated(parts[2], NegativeBinomialCounts(mean_from_log(parts[0]), scale_from_log(parts[1])))


class BetaBinomial(Factorized):
    """Beta-binomial on `levels` grey levels in [0, 1], as in BB-ANS (arXiv 1901.04866): φ = (log a, log b)."""

    word, roles = "beta-binomial", (LIKELIHOOD,)
    offers = Offers(Support.LEVELS, reparameterized=False)
    equation = product_of("BetaBinomial", "a_d, b_d", "(log a, log b)", ", over the levels of x")

    parameters = 2

    def __init__(self, shape: Shape, levels: int = 256) -> None:
        super().__init__(shape)
        if levels < 2:
            raise ValueError(f"BetaBinomial needs at least 2 levels; got {levels}.")
        self.levels = levels

    def elements(self, *parts: Tensor) -> Distribution:
        return BetaBinomialLevels(scale_from_log(parts[0]), scale_from_log(parts[1]), self.levels)
