"""Families: φ ↦ a distribution. Posterior families and likelihoods are the same thing.

A family turns a tensor φ of shape (*, size) into a distribution with batch shape (*) and event shape `shape`. Which
of its two uses it is put to, q(z|x) or p(x|z), is not its business.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from aevb.errors import ShapeError
from aevb.notation import plain, product_of
from aevb.parts import LIKELIHOOD, POSTERIOR, Offers, Support, Tail, Values
from aevb.probability import distributions as d

LOG_SCALE_BOUNDS = -18.0, 30.0  # float32 holds x²/σ⁴, the slope of a normal in σ, for |x| ≤ 1000, and σ⁴ in variances
LOG_MEAN_BOUND = 30.0  # of positive numbers and counts: float32 holds the square of e³⁰ = 10¹³
LOG_TURNED_BOUND = 10.0  # of scales along turned or bent axes, where z is known to its rounding times |μ| only
LARGEST_LOADING = 100.0  # of a low-rank normal
HALF = torch.float16, torch.bfloat16
Shape = int | tuple[int, ...] | list[int]


def as_shape(shape: Shape) -> torch.Size:
    """20 → (20,); refuses a size below one, which no distribution over numbers can have."""
    size = torch.Size((shape,)) if isinstance(shape, int) else torch.Size(shape)
    if not size or min(size) < 1:
        raise ShapeError(f"A shape needs sizes of at least 1; got {tuple(size)}. Choose a latent or data size ≥ 1.")
    return size


class Pass(Protocol):
    """What a family may learn from, in `learn`: q(z|x) of a minibatch, and log p(x|z) (K, B); see
    `models.trace.Trace`."""

    q: Distribution

    @property
    def log_px(self) -> Tensor: ...


class Family(ABC):
    """φ (*, size) ↦ distribution with batch (*) and event `shape`; `size` numbers per data point come from the
    network."""

    word: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    offers: ClassVar[Offers | None] = None

    starts: ClassVar[bool] = (
        False  # whether it has a `start`: it is over counts or positive numbers, which may be of any size
    )

    def __init__(self, shape: Shape) -> None:
        self.shape = as_shape(shape)

    def start(self, x: Tensor) -> Tensor:
        """φ₀ (size), which suits all rows x (N, *shape) alike, by their moments."""
        raise NotImplementedError(f"{type(self).__name__} has no start.")

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers the network must produce for one data point."""

    @abstractmethod
    def __call__(self, phi: Tensor) -> Distribution: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}{tuple(self.shape)}"


class Factorized(Family):
    """Every element of the event has a distribution of its own, with `parameters` numbers each, parameter axis
    first."""

    parameters = 1

    @property
    def size(self) -> int:
        return self.parameters * math.prod(self.shape)

    @abstractmethod
    def elements(self, *parameters: Tensor) -> Distribution:
        """The distributions of the elements, from their parameters, each of shape (*, *shape)."""

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        axis, phi = -1 - len(self.shape), phi.unflatten(-1, (self.parameters, *self.shape))
        parts = (phi.squeeze(axis),) if self.parameters == 1 else phi.unbind(axis)  # one part needs no copied gradient
        return Independent(self.elements(*parts), len(self.shape), validate_args=False)


def single(x: Tensor) -> Tensor:
    """x, in float32 where it is in half precision."""
    return x.float() if x.dtype in HALF else x


def check_size(family: Family, phi: Tensor) -> Tensor:
    """φ, in float32 where it is in half precision, in which the sums of a density would lose whole nats.

    Raises:
        ShapeError: the network gives another number of outputs than the family needs.
    """
    if phi.shape[-1] != family.size:
        raise ShapeError(
            f"{family!r} needs {family.size} numbers per data point, but the network gave {phi.shape[-1]}. "
            f"Let its last layer have {family.size} outputs."
        )
    return single(phi)


def scale_from_log_variance(log_variance: Tensor) -> Tensor:
    """σ = exp(½ log σ²), eq. 9, with -18 ≤ log σ ≤ 30."""
    return scale_from_log(0.5 * log_variance)


def scale_from_log(log_scale: Tensor) -> Tensor:
    """σ = exp(log σ), -18 ≤ log σ ≤ 30."""
    return bounded(log_scale, *LOG_SCALE_BOUNDS).exp()


def turned_scale(log_scale: Tensor) -> Tensor:
    """σ = exp(log σ), |log σ| ≤ 10: along axes that are found again from z with the rounding errors of a product."""
    return bounded(log_scale, -LOG_TURNED_BOUND, LOG_TURNED_BOUND).exp()


def mean_from_log(log_mean: Tensor) -> Tensor:
    """μ = exp(log μ), |log μ| ≤ 30: of positive numbers and counts, in any units."""
    return bounded(log_mean, -LOG_MEAN_BOUND, LOG_MEAN_BOUND).exp()


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """x, in the value within [low, high], in the gradient not: what is thrown beyond a bound can come back."""
    inside = x.clamp(low, high)
    return inside.detach() + (x - x.detach()) if x.requires_grad else inside


def linked(v: Values) -> str:
    """Of an equation whose mean goes through a link."""
    return f", μ = {v['link']}(m)" if v["link"] else ""


class Normal(Factorized):
    """N(μ, σ² I), eq. 9 and App. C.2: φ = (μ, log σ²).

    Args:
        shape: event shape.
        link: a function applied to μ; `torch.sigmoid` for data in (0, 1), as the paper does for Frey Face.
        scale: a fixed σ; then φ = μ alone.
        least: a lower bound of σ, so that no density grows without bound: σ² = e^φ₂ + least².
    """

    word, roles = "normal", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.REAL, diagonal=True)

    @staticmethod
    def equation(v: Values) -> str:
        least = f" + {plain(v['least'])}²" if v["least"] else ""
        mean = "m" if v["link"] else "μ"
        net = (
            f"({mean}, log σ²) = {v['net']}" if v["scale"] is None else f"{mean} = {v['net']}, σ = {plain(v['scale'])}"
        )
        return f"Π_d N({v['v']}_d; μ_d, σ_d²{least}),  {net}{linked(v)}"

    def __init__(
        self,
        shape: Shape,
        link: Callable[[Tensor], Tensor] | None = None,
        scale: float | None = None,
        least: float = 0.0,
    ) -> None:
        super().__init__(shape)
        if scale is not None and not scale > 0:
            raise ValueError(f"Normal: a fixed scale must be positive; got {scale}.")
        if least < 0:
            raise ValueError(f"Normal: the least scale must not be negative; got {least}.")
        self.link, self.scale, self.least = link, scale, least
        self.parameters = 2 if scale is None else 1

    def elements(self, *parts: Tensor) -> Distribution:
        mean = parts[0] if self.link is None else self.link(parts[0])
        scale = scale_from_log_variance(parts[1]) if self.scale is None else torch.full_like(mean, self.scale)
        scale = (scale.square() + self.least**2).sqrt() if self.least else scale
        return torch.distributions.Normal(mean, scale, validate_args=False)


class FullNormal(Family):
    """N(μ, L Lᵀ) with a full covariance: φ = (μ, the rows of L's lower triangle, its diagonal as logarithms)."""

    word, roles = "full-normal", (POSTERIOR,)
    offers = Offers(Support.REAL, factorized=False)
    equation = "N({v}; μ, L Lᵀ),  (μ, L) = {net}, L a lower triangle"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        if len(self.shape) != 1:
            raise ShapeError(f"FullNormal is over vectors; got the shape {tuple(self.shape)}. Use Normal, or flatten.")

    @property
    def size(self) -> int:
        n = self.shape[0]
        return n + n * (n + 1) // 2

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        n = self.shape[0]
        rows, columns = torch.tril_indices(n, n, device=phi.device)
        lower = phi.new_zeros(*phi.shape[:-1], n, n)
        lower[..., rows, columns] = phi[..., n:]
        diagonal = torch.diag_embed(turned_scale(lower.diagonal(dim1=-2, dim2=-1)))
        tril = lower.tril(-1) + diagonal
        return torch.distributions.MultivariateNormal(phi[..., :n], scale_tril=tril, validate_args=False)


class LowRankNormal(Family):
    """N(μ, W Wᵀ + diag σ²), correlated along a few directions: φ = (μ, log σ², V row by row), W = diag(σ) V, |V_dr| ≤
    100.

    So bounded, I + Vᵀ V can be factorised in float32, which is all that density and KL need.

    Between `Normal`, of D variances, and `FullNormal`, whose D (D + 1) / 2 numbers are many for a network.

    Args:
        shape: (D,).
        rank: R, columns of W.
    """

    word, roles = "low-rank-normal", (POSTERIOR,)
    offers = Offers(Support.REAL, factorized=False)
    equation = "N({v}; μ, W Wᵀ + diag σ²),  (μ, log σ², V) = {net}, W = diag(σ) V of {rank} columns"

    def __init__(self, shape: Shape, rank: int = 2) -> None:
        super().__init__(shape)
        if len(self.shape) != 1:
            raise ShapeError(
                f"LowRankNormal is over vectors; got the shape {tuple(self.shape)}. Use Normal, or flatten."
            )
        if rank < 1:
            raise ValueError(f"LowRankNormal: rank must be at least 1; got {rank}. Without any it is Normal.")
        self.rank = rank

    @property
    def size(self) -> int:
        return self.shape[0] * (2 + self.rank)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        n = self.shape[0]
        loc, log_variance, v = phi.split((n, n, n * self.rank), -1)
        scale = turned_scale(0.5 * log_variance)
        w = scale.unsqueeze(-1) * bounded(v.unflatten(-1, (n, self.rank)), -LARGEST_LOADING, LARGEST_LOADING)
        parts = loc, w, scale**2
        return torch.distributions.LowRankMultivariateNormal(*parts, validate_args=False)


class Bernoulli(Factorized):
    """Bernoulli from logits φ, App. C.1: log p(x) = Σ x log y + (1 - x) log(1 - y), y = σ(φ).

    `relaxed=True` admits grey levels in [0, 1]. The formula is then a cross-entropy, not a likelihood; the paper's own
    MNIST experiments are of this kind.
    """

    word, roles = "bernoulli", (LIKELIHOOD,)
    offers = Offers(Support.BINARY, reparameterized=False)

    @staticmethod
    def equation(v: Values) -> str:
        grey = "; of grey x a cross-entropy, no likelihood" if v["relaxed"] else ""
        return f"Π_d π_d^{v['v']}_d (1 - π_d)^(1 - {v['v']}_d),  π = sigmoid({v['net']}){grey}"

    def __init__(self, shape: Shape, relaxed: bool = False) -> None:
        super().__init__(shape)
        self.relaxed = relaxed

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Pixels(parts[0], self.relaxed)


class ContinuousBernoulli(Factorized):
    """Continuous Bernoulli on [0, 1] (Loaiza-Ganem & Cunningham 2019, arXiv 1907.06845) from logits φ."""

    word, roles = "continuous-bernoulli", (LIKELIHOOD,)
    offers = Offers(Support.UNIT, reparameterized=False)
    equation = "Π_d C(π_d) π_d^{v}_d (1 - π_d)^(1 - {v}_d),  π = sigmoid({net}), C so that ∫p = 1 on [0, 1]"

    def elements(self, *parts: Tensor) -> Distribution:
        return d.ContinuousBernoulli(parts[0])


class Categorical(Factorized):
    """A categorical over `classes` values 0, h, 2h, ... (h = `spacing`) per element: φ = logits, class axis first."""

    word, roles = "categorical", (LIKELIHOOD,)
    offers = Offers(Support.LEVELS, reparameterized=False)
    equation = "Π_d softmax(l_d) at {v}_d,  logits l = {net}, one for each value"

    def __init__(self, shape: Shape, classes: int, spacing: float = 1.0) -> None:
        super().__init__(shape)
        if classes < 2:
            raise ValueError(f"Categorical needs at least 2 classes; got {classes}.")
        self.classes, self.spacing, self.parameters = classes, spacing, classes

    def elements(self, *parts: Tensor) -> Distribution:
        return d.Levels(torch.stack(parts, -1), self.spacing)


class DiscretizedLogistic(Factorized):
    """Logistic cut into `levels` bins on [0, 1] (arXiv 1606.04934): φ = (μ, log s)."""

    word, roles = "discretized-logistic", (LIKELIHOOD,)
    offers = Offers(Support.LEVELS, reparameterized=False)
    equation = (
        "Π_d F_d({v}_d + h/2) - F_d({v}_d - h/2),  F_d(a) = sigmoid((a - μ_d)/s_d), (μ, log s) = {net}, levels h apart"
    )

    parameters = 2

    def __init__(self, shape: Shape, levels: int = 256) -> None:
        super().__init__(shape)
        if levels < 2:
            raise ValueError(f"DiscretizedLogistic needs at least 2 levels; got {levels}.")
        self.levels = levels

    def elements(self, *parts: Tensor) -> Distribution:
        return d.DiscreteLogistic(parts[0], scale_from_log(parts[1]), self.levels)


class Laplace(Factorized):
    """Laplace(μ, b): φ = (μ, log b)."""

    word, roles = "laplace", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.REAL, Tail.EXPONENTIAL)
    equation = product_of("Laplace", "μ_d, b_d", "(μ, log b)")

    parameters = 2

    def elements(self, *parts: Tensor) -> Distribution:
        return torch.distributions.Laplace(parts[0], scale_from_log(parts[1]), validate_args=False)


class StudentT(Factorized):
    """Student's t: φ = (μ, log s, κ) with ν = 2.01 + softplus(κ) degrees of freedom, so that the variance exists.

    Args:
        shape: event shape.
        least: a lower bound of s, so that no density grows without bound: s² = e^(2 φ₂) + least².
    """

    word, roles = "student-t", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.REAL, Tail.POLYNOMIAL, tolerates=Tail.CAUCHY)

    @staticmethod
    def equation(v: Values) -> str:
        least = f", s ≥ {plain(v['least'])}" if v["least"] else ""
        template = product_of("StudentT", "μ_d, s_d, ν_d", "(μ, log s, κ)", f", ν = 2.01 + softplus(κ){least}")
        return template.format(v=v["v"], net=v["net"])

    parameters = 3

    def __init__(self, shape: Shape, least: float = 0.0) -> None:
        super().__init__(shape)
        if least < 0:
            raise ValueError(f"StudentT: the least scale must not be negative; got {least}.")
        self.least = least

    def elements(self, *parts: Tensor) -> Distribution:
        df = 2.01 + torch.nn.functional.softplus(parts[2])
        scale = scale_from_log(parts[1])
        scale = (scale.square() + self.least**2).sqrt() if self.least else scale
        return d.StudentT(df, parts[0], scale)


class Delta(Family):
    """A point, z = φ: the code of a plain autoencoder. Its KL to any density is infinite: use it with β = 0."""

    word, roles = "delta", (POSTERIOR,)
    offers = d.Delta.offers
    equation = "δ({v} - {net}), a point"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        return d.Delta(phi.unflatten(-1, tuple(self.shape)), len(self.shape))
