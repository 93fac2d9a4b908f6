"""Distribution functions F of single cells, their inverses, and averages of cells over latents, for every family.

With F⁻¹ a draw is a function of one uniform number: x = F⁻¹(u). So a row's draws can come from a stream of its own, and
a draw within a range is F⁻¹(F(a) + u (F(b) - F(a))), without rejection.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, Gamma, NegativeBinomial, Poisson, StudentT

from aevb.probability.circular import Angles
from aevb.probability.counts import ZeroInflated
from aevb.probability.distributions import Levels
from aevb.probability.many_levels import ManyLevels
from aevb.probability.shapes import side_by_side

EDGE = 1e-12  # how near to 0 and 1 a probability comes whose F⁻¹ is taken
POINTS = 257  # of the table of an angle's F
REACH = 8.0  # standard deviations that the table spans
UNORDERED = (Levels, ManyLevels, Angles)


@singledispatch
def cdf(p: Distribution, x: Tensor) -> Tensor:
    """F(x) = P(X ≤ x) of cells x (*, n), float64."""
    found: Tensor = p.cdf(x.double())
    return found


@singledispatch
def icdf(p: Distribution, u: Tensor) -> Tensor:
    """F⁻¹(u), the smallest x with F(x) ≥ u, (*, n), in the type of u where that is as fine as the parameters'."""
    found: Tensor = p.icdf(within(u))
    return found


def within(u: Tensor) -> Tensor:
    """Probabilities a little off 0 and 1."""
    edge = max(EDGE, torch.finfo(u.dtype).eps / 2)
    return u.clamp(edge, 1 - edge)


@singledispatch
def average(p: Distribution, w: Tensor) -> Tensor:
    """Σ_k w_k E[x | z_k], (B, n), of cells (K, B, n) and weights w (K, B) that sum to 1."""
    return (w.unsqueeze(-1) * p.mean.to(w)).sum(0)


def between(p: Distribution, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """F just below `low`, and F at `high`: P(low ≤ x ≤ high) is their difference."""
    first = low.ceil() - 1 if p.support.is_discrete else low  # type: ignore[union-attr]
    return cdf(p, first), cdf(p, high)


def has_order(p: Distribution) -> bool:
    """Whether a cell's values have quantiles that mean something: not levels, nor angles."""
    return not isinstance(p, UNORDERED)


@cdf.register
def _(p: Levels, x: Tensor) -> Tensor:
    k = torch.arange(p.base.logits.shape[-1], device=x.device) * p.spacing
    return torch.where(k <= x.unsqueeze(-1) + 0.5 * p.spacing, p.base.probs.double(), 0.0).sum(-1)


@icdf.register
def _(p: Levels, u: Tensor) -> Tensor:
    mass = p.base.probs.to(u).cumsum(-1)
    return (mass / mass[..., -1:] < within(u).unsqueeze(-1)).sum(-1).to(u) * p.spacing


@average.register
def _(p: Levels, w: Tensor) -> Tensor:
    """The most probable level, argmax_c Σ_k w_k P(x = c | z_k): a mean of levels is none."""
    shares = torch.einsum("kb,kbnc->bnc", w, p.base.probs.to(w))
    return shares.argmax(-1).double() * p.spacing


@average.register
def _(p: ManyLevels, w: Tensor) -> Tensor:
    """The most probable level, argmax_c Σ_k w_k P(x = c | z_k)."""
    return p.likeliest(w)


@average.register
def _(p: Angles, w: Tensor) -> Tensor:
    """The direction of Σ_k w_k E[eⁱˣ | z_k]."""
    length = w.unsqueeze(-1) * (1 - p.variance.to(w))
    return torch.atan2((length * p.mean.sin()).sum(0), (length * p.mean.cos()).sum(0))


def _scipy(p: Distribution) -> Any:
    """The same distribution of SciPy, of those that PyTorch gives no F of."""
    from scipy import stats

    match p:
        case Poisson():
            return stats.poisson(_array(p.rate))
        case NegativeBinomial():
            return stats.nbinom(_array(p.total_count), _array(torch.sigmoid(-p.logits.double())))
        case Gamma():
            return stats.gamma(_array(p.concentration), scale=1 / _array(p.rate))
        case Beta():
            return stats.beta(_array(p.concentration1), _array(p.concentration0))
        case StudentT():
            return stats.t(_array(p.df), _array(p.loc), _array(p.scale))
        case _:
            raise NotImplementedError(type(p).__name__)


def _array(x: Tensor) -> Any:
    return x.detach().cpu().double().numpy()


def _tensor(x: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(x, dtype=like.dtype, device=like.device)


@cdf.register(Poisson)
@cdf.register(NegativeBinomial)
@cdf.register(Gamma)
@cdf.register(Beta)
@cdf.register(StudentT)
def _(p: Distribution, x: Tensor) -> Tensor:
    return _tensor(_scipy(p).cdf(_array(x)), x.double())


@icdf.register(Poisson)
@icdf.register(NegativeBinomial)
@icdf.register(Gamma)
@icdf.register(Beta)
@icdf.register(StudentT)
def _(p: Distribution, u: Tensor) -> Tensor:
    return _tensor(_scipy(p).ppf(_array(within(u))), u)


@cdf.register
def _(p: ZeroInflated, x: Tensor) -> Tensor:
    lost = torch.sigmoid(p.logits.double())
    return torch.where(x < 0, 0.0, lost + (1 - lost) * cdf(p.counts, x))


@icdf.register
def _(p: ZeroInflated, u: Tensor) -> Tensor:
    lost = torch.sigmoid(p.logits.to(u))
    rest = ((u - lost) / (1 - lost).clamp(min=EDGE)).clamp(0, 1)
    return torch.where(u <= lost, 0.0, icdf(p.counts, rest))


@cdf.register
def _(p: Angles, x: Tensor) -> Tensor:
    """From -π on: the mass between -π and x, read in a table of the mass from μ - π on."""
    table = _Turned(p)
    start, turns = table.mass(torch.full_like(x, -math.pi).double()), table.mass(x.double()).clone()
    inside = (turns - start) % 1.0
    return torch.where(x >= math.pi, 1.0, inside)


@icdf.register
def _(p: Angles, u: Tensor) -> Tensor:
    table = _Turned(p)
    start = table.mass(torch.full_like(u, -math.pi).double())
    return table.angle((start + u.double()) % 1.0).to(u)


class _Turned:
    """The mass of an angle's density from μ - π on, at points around μ."""

    def __init__(self, p: Angles) -> None:
        self.mean = p.mean.double()
        kappa = p.kappa.double().unsqueeze(-1)
        reach = (REACH / kappa.clamp(min=1e-6).sqrt()).clamp(max=math.pi)
        self.t = torch.linspace(-1, 1, POINTS, dtype=torch.float64, device=kappa.device) * reach
        density = (kappa * (self.t.cos() - 1)).exp()
        steps = (density[..., 1:] + density[..., :-1]).cumsum(-1)
        self.f = torch.nn.functional.pad(steps / steps[..., -1:], (1, 0))

    def mass(self, x: Tensor) -> Tensor:
        return _interpolated(turned(x - self.mean), self.t, self.f)

    def angle(self, mass: Tensor) -> Tensor:
        return turned(_interpolated(mass, self.f, self.t) + self.mean)


def turned(x: Tensor) -> Tensor:
    """An angle in [-π, π)."""
    return (x + math.pi) % (2 * math.pi) - math.pi


def _interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y at points `at` (*, n) between the points x of tables (*, n, P), constant beyond them."""
    shape = side_by_side(at.shape, x.shape[:-1])
    x, y = (part.expand(*shape, part.shape[-1]).contiguous() for part in (x, y))
    at = at.expand(shape).unsqueeze(-1).contiguous()
    right = torch.searchsorted(x, at).clamp(1, x.shape[-1] - 1)
    x0, x1, y0, y1 = (part.gather(-1, i) for part in (x, y) for i in (right - 1, right))
    share = ((at - x0) / (x1 - x0).clamp(min=1e-300)).clamp(0, 1)
    return (y0 + share * (y1 - y0)).squeeze(-1)
