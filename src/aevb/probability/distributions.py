"""Distributions that `torch.distributions` does not have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import (
    Distribution,
    Exponential,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    Transform,
    biject_to,
    constraints,
)
from torch.distributions.kl import register_kl

from aevb.parts import Offers, Support

EULER = 0.5772156649015329  # γ, the limit of 1 + 1/2 + ... + 1/n - log n


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


class Open(constraints.Constraint):
    """low < x < high: torch's own intervals hold their ends, where a Gamma or a Beta density is 0 or ∞."""

    def __init__(self, low: float, high: float) -> None:
        self.lower_bound, self.upper_bound = low, high
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return (value > self.lower_bound) & (value < self.upper_bound)

    def __repr__(self) -> str:
        ends = f" and below {self.upper_bound:g}" if math.isfinite(self.upper_bound) else ""
        return f"numbers above {self.lower_bound:g}{ends}"


@biject_to.register(Open)  # type: ignore[untyped-decorator]
def _of_the_real_line(support: Open) -> Transform:
    """The real line to these numbers, as for torch's own intervals."""
    low, high = support.lower_bound, support.upper_bound
    interval = constraints.interval(low, high) if math.isfinite(high) else constraints.greater_than(low)
    transform: Transform = biject_to(interval)
    return transform


class Poisson(torch.distributions.Poisson):
    """Poisson(λ). The terms x log λ, λ and log x! are summed in float64: of counts of 10⁵ float32 would lose 0.1
    nats."""

    def log_prob(self, value: Tensor) -> Tensor:
        return precisely(torch.distributions.Poisson, value, self.rate)


class Gamma(torch.distributions.Gamma):
    """Gamma(α, rate) on z > 0, without the 0 that torch's own support holds; its density is summed in float64."""

    support: constraints.Constraint = Open(0.0, math.inf)  # type: ignore[assignment]

    def log_prob(self, value: Tensor) -> Tensor:
        return precisely(torch.distributions.Gamma, value, self.concentration, self.rate)


class Weibull(torch.distributions.Weibull):
    """Weibull(λ, k) on x > 0, whose torch density goes by xᵏ and back, and is lost where that underflows."""

    support: constraints.Constraint = Open(0.0, math.inf)  # type: ignore[assignment]

    def log_prob(self, value: Tensor) -> Tensor:
        """log k/λ + (k - 1) log x/λ - (x/λ)ᵏ."""
        k, log_ratio = self.concentration, value.log() - self.scale.log()
        log_p: Tensor = (k / self.scale).log() + (k - 1) * log_ratio - (k * log_ratio).exp()
        return log_p


class Beta(torch.distributions.Beta):
    """Beta(a, b) on 0 < z < 1, without the ends that torch's own support holds; its density is summed in float64."""

    support: constraints.Constraint = Open(0.0, 1.0)  # type: ignore[assignment]

    def log_prob(self, value: Tensor) -> Tensor:
        return precisely(torch.distributions.Beta, value, self.concentration1, self.concentration0)


class Dirichlet(torch.distributions.Dirichlet):
    """Dirichlet(α), whose density is summed in float64."""

    def log_prob(self, value: Tensor) -> Tensor:
        return precisely(torch.distributions.Dirichlet, value, self.concentration)


def precisely(make: Callable[..., Distribution], value: Tensor, *parameters: Tensor) -> Tensor:
    """log p(value) of make(*parameters), in float64, where large terms cancel; given back in the type of the
    parameters."""
    p = make(*(t.double() for t in parameters), validate_args=False)
    log_p: Tensor = p.log_prob(value.double())
    return log_p.to(parameters[0].dtype)


class Cauchy(torch.distributions.Cauchy):
    """Cauchy(μ, γ), whose `mean` is its median μ: there is no mean, and what a model encodes or shows must be a
    number."""

    @property
    def mean(self) -> Tensor:
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        """-log πγ - 2 log √(1 + u²), u = (z - μ)/γ, where no square overflows."""
        u = (value - self.loc) / self.scale
        log_p: Tensor = -math.log(math.pi) - self.scale.log() - 2 * torch.hypot(u, torch.ones_like(u)).log()
        return log_p


class StudentT(torch.distributions.StudentT):
    """Student's t, where degrees of freedom that are no number, of a training that diverged, give NaN and no error."""

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor) -> None:
        super().__init__(df.where(df.isfinite(), 1.0), loc, scale, validate_args=False)
        self.df = df


class Logistic(Distribution):
    """p(z) = σ(u) σ(-u) / s with u = (z - μ)/s, and F(z) = σ(u), so that z = F⁻¹(v) = μ + s log(v / (1 - v))."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool = False) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """π² s² / 3."""
        return self.scale**2 * (math.pi**2 / 3)

    def log_prob(self, value: Tensor) -> Tensor:
        u = (value - self.loc) / self.scale
        return F.logsigmoid(u) + F.logsigmoid(-u) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        return torch.sigmoid((value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * torch.logit(value)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        v = torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * torch.logit(v, eps=torch.finfo(v.dtype).eps)


class Uniform(Distribution):
    """p(z) = 1 / 2h for |z - c| ≤ h. From centre and half-width: torch's own, from its ends, is 0/0 where they round to
    one.

    The ends are let out by the rounding of z, so that every draw has its density.
    """

    word, offers = "uniform", Offers(Support.REAL, everywhere=False, components=False)

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, centre: Tensor, half: Tensor) -> None:
        self.centre, self.half = centre, half
        super().__init__(centre.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.interval(self.centre - self.half, self.centre + self.half)

    @property
    def mean(self) -> Tensor:
        return self.centre

    @property
    def variance(self) -> Tensor:
        """h² / 3."""
        return self.half**2 / 3

    def log_prob(self, value: Tensor) -> Tensor:
        rounding = 2 * torch.finfo(value.dtype).eps * (self.centre.abs() + self.half)
        inside = (value - self.centre).abs() <= self.half + rounding
        return torch.where(inside, -(2 * self.half).log(), -torch.inf)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        v = torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.half.dtype, device=self.half.device)
        return self.centre + self.half * (2 * v - 1)


class Delta(Distribution):
    """A point: z = v with probability one. The code of a plain autoencoder.

    It has no density, so KL(q ‖ p) = ∞ for every continuous p; an objective that never reads the KL can still use it.
    """

    word = "delta"
    offers = Offers(Support.REAL, density=False, kl=False, factorized=False, known_covariance=False, components=False)

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

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """u < p with u ~ U(0, 1): three times as fast on a CPU as `torch.bernoulli`."""
        with torch.no_grad():
            p = self.probs.expand(self._extended_shape(torch.Size(sample_shape)))
            return (torch.rand(p.shape, dtype=p.dtype, device=p.device) < p).to(p.dtype)


class ContinuousBernoulli(Distribution):
    """p(x) = eˡˣ l / (eˡ - 1) on [0, 1], from logits l (Loaiza-Ganem & Cunningham 2019, arXiv 1907.06845).

    log p(x) = x·l - log(1 + eˡ) + log C, with C = l / tanh(l/2). In terms of l nothing needs to be clamped; PyTorch's
    own, in terms of σ(l), is 0.6 nats off at l = 30 in float32. Near l = 0, where these are 0/0, their Taylor series.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.small = logits.abs() < 0.3
        self.far = torch.where(
            self.small, 1.0, logits.abs()
        )  # |l|, or 1 where the series is taken: no 0/0 in gradients
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


WIDE = 2.0  # levels: a scale beyond which sums over levels are integrals
BLOCK = 32  # levels at a time
SATURATED = 50.0  # σ(50) is 1, σ(-50) is 0, to all digits
MIDPOINT = 1 / 24, -7 / 5760, 31 / 967680, -127 / 154828800  # Euler's and Maclaurin's, of midpoints
SLOPES: tuple[Callable[[Tensor], Tensor], ...] = (  # derivatives of σ, of odd order, in terms of s = σ
    lambda s: s * (1 - s),
    lambda s: s * (1 - s) * (1 - 6 * s * (1 - s)),
    lambda s: s * (1 - s) * (1 - 30 * s * (1 - s) * (1 - 4 * s * (1 - s))),
    lambda s: s * (1 - s) * (1 - 126 * s * (1 - s) * (1 - 40 / 3 * s * (1 - s) * (1 - 3 * s * (1 - s)))),
)


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
        n, eps = self.levels - 1, torch.finfo(self.scale.dtype).eps
        count = 2 * math.ceil(-WIDE * math.log(eps))  # levels around μ, beyond which a narrow σ is 1 or 0
        if n <= count:
            return self._sum_near(self.scale, n) / n
        wide = self.scale * n > WIDE
        far = self._sum_by_integral(torch.where(wide, self.scale, 1.0))
        return torch.where(wide, far, self._sum_near(torch.where(wide, 1 / n, self.scale), count)) / n

    def _sum_near(self, scale: Tensor, count: int) -> Tensor:
        """Σ_j σ((μ - c_j)/s), c_j = (j - ½)/(n - 1), by so many terms around μ: below them σ is 1, and above them 0."""
        n = self.levels - 1
        below = ((self.loc * n).floor() - count // 2).clamp(0, n - count).detach()
        m, w = (self.loc - (below + 0.5) / n) / scale, 1 / (n * scale)
        steps = torch.arange(count, dtype=scale.dtype, device=scale.device)
        return below + torch.sigmoid(torch.addcmul(m.unsqueeze(-1), w.unsqueeze(-1), steps, value=-1)).sum(-1)

    def _sum_by_integral(self, scale: Tensor) -> Tensor:
        """The same sum by Euler and Maclaurin, for a wide s to the last digits.

        With w = 1/((n-1) s), the width of a level: ∫ σ(m - t) dt / w over 0 < t < 1/s, and at both ends derivatives of
        σ.
        """
        w, reach = 1 / (scale * (self.levels - 1)), 1 / scale
        m = torch.minimum((self.loc / scale).clamp(min=-SATURATED), reach + SATURATED)
        low, high, short = torch.sigmoid(m - reach), torch.sigmoid(m), reach.clamp(max=1.0)
        area = torch.where(reach < 1, torch.log1p(low * torch.expm1(short)), F.logsigmoid(reach - m) - F.logsigmoid(-m))
        ends = sum(
            c * w ** (2 * i + 1) * (f(low) - f(high)) for i, (c, f) in enumerate(zip(MIDPOINT, SLOPES, strict=True))
        )
        return area / w + ends

    @property
    def variance(self) -> Tensor:
        """Σ_j P(x_j) (x_j - E[x])², with no difference of large numbers."""
        n, mean = self.levels - 1, self.mean.unsqueeze(-1)
        loc, scale, total = self.loc.unsqueeze(-1), self.scale.unsqueeze(-1), torch.zeros_like(self.loc)
        for levels in torch.arange(n + 1, dtype=loc.dtype, device=loc.device).split(BLOCK):
            edges = torch.cat([levels - 0.5, levels[-1:] + 0.5])
            above = torch.sigmoid((loc - edges / n) / scale)  # P(x ≥ x_j) of these levels, and of the next
            above = torch.where(edges < 0, 1.0, torch.where(edges > n, 0.0, above))
            total = total - (above.diff(dim=-1) * (levels / n - mean) ** 2).sum(-1)
        return total

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
    def mode(self) -> Tensor:
        return self.base.logits.argmax(-1).to(self.base.logits.dtype) * self.spacing

    @property
    def mean(self) -> Tensor:
        k = torch.arange(self.base.logits.shape[-1], dtype=self.base.logits.dtype, device=self.base.logits.device)
        return (self.base.probs * k).sum(-1) * self.spacing

    @property
    def variance(self) -> Tensor:
        k = torch.arange(self.base.logits.shape[-1], dtype=self.base.logits.dtype, device=self.base.logits.device)
        far = k - self.mean.unsqueeze(-1) / self.spacing
        return (self.base.probs * far**2).sum(-1) * self.spacing**2

    def log_prob(self, value: Tensor) -> Tensor:
        log_p: Tensor = self.base.log_prob((value / self.spacing).round().long())
        return log_p

    def sample(self, sample_shape: Any = ()) -> Tensor:
        k: Tensor = self.base.sample(torch.Size(sample_shape))
        return k.to(self.base.logits.dtype) * self.spacing


def _kl_point(q: Delta, p: Distribution) -> Tensor:
    return q.value.new_full(q.batch_shape, torch.inf)


def kl_from_diagonal(q: Distribution, p: Independent[Any]) -> Tensor:
    """KL(q ‖ N(m, diag s²)) of a normal q of any covariance: ½ Σ_d [(μ_d - m_d)² + Σ_dd] / s_d² + log 2π s_d², less
    H[q]."""
    if not isinstance(p.base_dist, Normal):
        raise NotImplementedError
    far = ((q.mean - p.mean) ** 2 + q.variance) / p.variance
    cross: Tensor = 0.5 * (far + (2 * math.pi * p.variance).log()).sum(-1)
    return cross - q.entropy()


def _kl_uniform_normal(q: Uniform, p: Normal) -> Tensor:
    """KL(U(c ± h) ‖ N(m, s²)) = ½ log 2πs² - log 2h + ((c - m)² + h²/3) / 2s²."""
    log_p = -0.5 * ((q.mean - p.loc) ** 2 + q.variance) / p.scale**2 - p.scale.log() - 0.5 * math.log(2 * math.pi)
    return -(2 * q.half).log() - log_p


def _kl_weibull_exponential(q: Weibull, p: Exponential) -> Tensor:
    """KL(Weibull(λ, k) ‖ Exponential(r)) = log(k/λ) - γ (1 - 1/k) - 1 - log r + r λ Γ(1 + 1/k), γ = 0.577..."""
    k, scale = q.concentration, q.scale
    entropy = EULER * (1 - 1 / k) + (scale / k).log() + 1
    return p.rate * scale * torch.lgamma(1 + 1 / k).exp() - p.rate.log() - entropy


register_kl(Uniform, Normal)(_kl_uniform_normal)
register_kl(Weibull, Exponential)(_kl_weibull_exponential)
register_kl(Delta, Distribution)(_kl_point)
register_kl(MultivariateNormal, Independent)(kl_from_diagonal)
register_kl(LowRankMultivariateNormal, Independent)(kl_from_diagonal)
