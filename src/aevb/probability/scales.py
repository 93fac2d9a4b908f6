"""Normal likelihoods whose σ does not depend on the latent: learned by gradient, or in closed form (σ-VAE).

A family with something to learn is a module: in a `Conditional` it is trained, moved and saved with the net.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from aevb.notation import plain
from aevb.parts import LIKELIHOOD, Offers, Support, Values
from aevb.probability.families import Family, Pass, Shape, check_size, linked, scale_from_log, single

Link = Callable[[Tensor], Tensor]


class AroundMean(Family, nn.Module):
    """A family of which φ gives the mean alone, μ = link(φ), and which is a module for the rest."""

    def __init__(self, shape: Shape, link: Link | None) -> None:
        nn.Module.__init__(self)
        Family.__init__(self, shape)
        self.link = link

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @abstractmethod
    def around(self, mean: Tensor) -> Distribution:
        """The distributions of the elements, from their means (*, *shape)."""

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        mean = phi.unflatten(-1, tuple(self.shape))
        elements = self.around(mean if self.link is None else self.link(mean))
        return Independent(elements, len(self.shape), validate_args=False)


def around_mean(v: Values, variance: str, more: str) -> str:
    """The equation of a normal whose network gives the mean alone."""
    mean = "m" if v["link"] else "μ"
    return f"Π_d N({v['v']}_d; μ_d, {variance}),  {mean} = {v['net']}{linked(v)}, {more}"


class HomoscedasticNormal(AroundMean):
    """N(μ, σ² I) with σ a parameter of its own: one for each element of the event, or one for all. φ = μ alone.

    Args:
        shape: event shape.
        link: a function applied to μ, such as `torch.sigmoid`.
        each: a σ for each element; one for all if False. They start at 1, beside the least.
        least: a lower bound of σ, so that no density grows without bound: σ² = s² + least², s learned.
    """

    word, roles = "homoscedastic-normal", (LIKELIHOOD,)
    offers = Offers(Support.REAL)

    @staticmethod
    def equation(v: Values) -> str:
        name = ("s" if v["least"] else "σ") + ("_d" if v["each"] else "")
        least = f" + {plain(v['least'])}²" if v["least"] else ""
        return around_mean(v, f"{name}²{least}", f"{name[0]} learned")

    def __init__(self, shape: Shape, link: Link | None = None, each: bool = True, least: float = 0.0) -> None:
        super().__init__(shape, link)
        if least < 0:
            raise ValueError(f"HomoscedasticNormal: the least scale must not be negative; got {least}.")
        self.least = least
        self.log_scale = nn.Parameter(torch.zeros(self.shape if each else ()))

    def around(self, mean: Tensor) -> Distribution:
        scale = scale_from_log(single(self.log_scale))
        scale = ((scale.square() + self.least**2).sqrt() if self.least else scale).expand_as(mean)
        return torch.distributions.Normal(mean, scale, validate_args=False)


class OptimalNormal(AroundMean):
    """N(μ, σ² I) with the one σ that is best for the data: σ-VAE (Rybkin et al. 2021, arXiv 2006.13202). φ = μ alone.

        σ*² = mean_B,D (x - μ)²:   log p(x|z) = -D/2 log 2πσ*² - |x - μ|² / 2σ*²

    In training every minibatch has its own σ*, a constant for the gradient, since the bound is flat there in σ.
    Training calls `learn` once a step, which moves a running mean of σ*². In evaluation σ² is that mean and nothing
    else, so that what is then reported is the likelihood of one model. A density changes nothing.

    Monte Carlo EM and M2 do not support it: it would couple the chains, and weight all labels equally.

    Args:
        shape: event shape.
        link: a function applied to μ, such as `torch.sigmoid`.
        least: a lower bound of σ, for data that can be fitted exactly.
        momentum: how much of the running mean of σ*² each minibatch renews; the first sets it.
    """

    word, roles = "optimal-normal", (LIKELIHOOD,)
    offers = Offers(Support.REAL, couples_batch=True)

    @staticmethod
    def equation(v: Values) -> str:
        return around_mean(v, "σ²", "σ² = mean (x - μ)² over the minibatch")

    mean_square: Tensor
    seen: Tensor

    def __init__(self, shape: Shape, link: Link | None = None, least: float = 1e-3, momentum: float = 0.1) -> None:
        super().__init__(shape, link)
        if not least > 0 or not 0 < momentum <= 1:
            raise ValueError(f"OptimalNormal: least > 0 and 0 < momentum ≤ 1; got {least} and {momentum}.")
        self.least, self.momentum = least, momentum
        self.register_buffer("mean_square", torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    def around(self, mean: Tensor) -> Distribution:
        scale = single(self.mean_square).sqrt().clamp(min=self.least).expand_as(mean)
        return Fitted(mean, scale, self.least) if self.training else torch.distributions.Normal(mean, scale, False)

    @torch.no_grad()
    def learn(self, t: Pass) -> None:
        """One step of the running mean towards σ*² of this minibatch.

        At σ* the density per number is the entropy of the noise, -½ log 2πe σ*², on average: so σ*² is read off log
        p(x|z).
        """
        square = torch.exp(-2 * t.log_px.mean() / math.prod(self.shape) - 1) / (2 * math.pi)
        share = torch.where(self.seen > 0, self.momentum, 1.0)
        self.mean_square.add_(share * (square - self.mean_square))
        self.seen.fill_(1.0)


class Fitted(torch.distributions.Normal):
    """A normal whose density takes the one σ that is best for the values it is asked for; its draws take `scale`."""

    def __init__(self, mean: Tensor, scale: Tensor, least: float) -> None:
        self.least = least
        super().__init__(mean, scale, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        best = (value - self.loc).detach().square().mean().sqrt().clamp(min=self.least)
        log_p: Tensor = torch.distributions.Normal(self.loc, best.expand_as(self.loc), validate_args=False).log_prob(
            value
        )
        return log_p
