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

from aevb.errors import ShapeError
from aevb.probability.families import Family, Shape, check_size, scale_from_log

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
        check_size(self, phi)
        mean = phi.unflatten(-1, tuple(self.shape))
        elements = self.around(mean if self.link is None else self.link(mean))
        return Independent(elements, len(self.shape), validate_args=False)


class HomoscedasticNormal(AroundMean):
    """N(μ, σ² I) with σ a parameter of its own: one for each element of the event, or one for all. φ = μ alone.

    Args:
        shape: event shape.
        link: a function applied to μ, such as `torch.sigmoid`.
        each: a σ for each element; one for all if False. They start at 1.
    """

    def __init__(self, shape: Shape, link: Link | None = None, each: bool = True) -> None:
        super().__init__(shape, link)
        self.log_scale = nn.Parameter(torch.zeros(self.shape if each else ()))

    def around(self, mean: Tensor) -> Distribution:
        return torch.distributions.Normal(mean, scale_from_log(self.log_scale).expand_as(mean), validate_args=False)


class OptimalNormal(AroundMean):
    """N(μ, σ² I) with the one σ that is best for the data: σ-VAE (Rybkin et al. 2021, arXiv 2006.13202). φ = μ alone.

        σ*² = mean_B,D (x - μ)²:   log p(x|z) = -D/2 log 2πσ*² - |x - μ|² / 2σ*²

    In training every minibatch has its own σ*, a constant for the gradient, since the bound is flat there in σ; its
    square also goes into a running mean. In evaluation σ is that mean and nothing else, so that what is then reported
    is the likelihood of one model.

    Monte Carlo EM and M2 refuse it: it would tie chains to each other, and weigh all labels alike.

    Args:
        shape: event shape.
        link: a function applied to μ, such as `torch.sigmoid`.
        least: a lower bound of σ, for data that can be met exactly.
        momentum: how much of the running mean of σ*² each minibatch renews; the first sets it.
    """

    mean_square: Tensor
    seen: Tensor

    def __init__(self, shape: Shape, link: Link | None = None, least: float = 1e-3, momentum: float = 0.1) -> None:
        super().__init__(shape, link)
        if not least > 0 or not 0 < momentum <= 1:
            raise ShapeError(f"OptimalNormal: least > 0 and 0 < momentum ≤ 1; got {least} and {momentum}.")
        self.least, self.momentum = least, momentum
        self.register_buffer("mean_square", torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    def around(self, mean: Tensor) -> Distribution:
        scale = self.mean_square.sqrt().clamp(min=self.least).expand_as(mean)
        return Fitted(mean, scale, self.meet) if self.training else torch.distributions.Normal(mean, scale, False)

    @torch.no_grad()
    def meet(self, error: Tensor) -> Tensor:
        """x - μ of a minibatch → σ*, a scalar; the running mean moves towards its square."""
        square = error.square().mean()
        share = torch.where(self.seen > 0, self.momentum, 1.0)
        self.mean_square.add_(share * (square - self.mean_square))
        self.seen.fill_(1.0)
        return square.sqrt().clamp(min=self.least)


class Fitted(torch.distributions.Normal):
    """A normal that chooses its σ when it meets data: σ = fit(x - μ) for all of them together; until then, `scale`."""

    def __init__(self, mean: Tensor, scale: Tensor, fit: Link) -> None:
        self.fit = fit
        super().__init__(mean, scale, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        scale = self.fit(value - self.loc).expand_as(self.loc)
        log_p: Tensor = torch.distributions.Normal(self.loc, scale, validate_args=False).log_prob(value)
        return log_p
