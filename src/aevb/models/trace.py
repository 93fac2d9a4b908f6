"""The trace, and what may be asked of a model: the one interface between models and everything above them.

One key of dimensions for the whole library: K samples, B data points, D latent size, G groups of latents; *X and *Z are
event shapes. All densities are in nats, with every constant kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Distribution,
    Gumbel,
    Independent,
    Laplace,
    Normal,
    StudentT,
    constraints,
    kl_divergence,
)

from aevb.errors import DataError, RecipeError, ShapeError
from aevb.models.latents import Latent, log_prob
from aevb.probability.codes import CODEBOOK, GRID
from aevb.probability.distributions import Delta, Logistic, Uniform
from aevb.probability.flows import Flow
from aevb.probability.joint import Joint
from aevb.probability.mixtures import FiniteMixture

Lazy = Callable[[], Tensor]


class once:
    """A property computed when first read; `functools.cached_property` less its lock, which torch.compile cannot trace."""

    def __init__(self, compute: Callable[[Any], Tensor]) -> None:
        self.compute, self.name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, trace: Any, owner: type) -> Tensor:
        value = self.compute(trace)
        setattr(trace, self.name, value)  # found from now on before this descriptor
        return value


class Trace:
    """One pass x → z_k ~ q(z|x) → p(x|z_k), k = 1..K. A density is computed when it is first read.

    Attributes:
        x: (B, *X); z: (K, B, *Z), or a tuple of such in a hierarchy; q: q(z|x); p: p(z).
        log_px: (K, B), log p(x|z);  log_pz: (K, B), log p(z);  log_qz: (K, B), log q(z|x).
        kl: (B, G), KL(q(z|x) ‖ p(z)) per group of latents, in closed form where there is one.
        log_w: (K, B), log p(x|z) + log p(z) - log q(z|x), the log importance weight.
    """

    def __init__(
        self,
        x: Tensor,
        z: Latent,
        posterior: tuple[Distribution, Distribution],
        log_px: Lazy,
        log_qz: Lazy,
        kl: Lazy | None = None,
    ) -> None:
        self.x, self.z, (self.q, self.p) = x, z, posterior
        self._log_px, self._log_qz, self._kl = log_px, log_qz, kl

    @once
    def log_px(self) -> Tensor:
        return self._log_px()

    @once
    def log_qz(self) -> Tensor:
        return self._log_qz()

    @once
    def log_pz(self) -> Tensor:
        return log_prob(self.p, self.z)

    @once
    def kl(self) -> Tensor:
        return kl_groups(self.q, self.p, self.z) if self._kl is None else self._kl()

    @property
    def group_sizes(self) -> Tensor:
        """D_g, how many numbers there are in each group of the KL, (G,): in each layer of a hierarchy, else all alike."""
        if isinstance(self.z, tuple):
            return self.kl.new_tensor([z_l[0, 0].numel() for z_l in self.z])
        return self.kl.new_full(self.kl.shape[1:], self.z[0, 0].numel() / self.kl.shape[1])

    @property
    def log_w(self) -> Tensor:
        return self.log_px + self.log_pz - self.log_qz


@runtime_checkable
class LatentModel(Protocol):
    """All that objectives, training and evaluation may ask of a model."""

    def trace(self, x: Tensor, samples: int = 1, *, stick: bool = False, given: Tensor | None = None) -> Trace:
        """x (B, *X) → a trace with K = `samples`; `stick` holds q's parameters constant inside log q(z|x)."""

    def log_joint(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log p(x, z), (K, B)."""

    def log_posterior(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log q(z | x), (K, B)."""

    def posterior(self, x: Tensor, given: Tensor | None = None) -> Distribution:
        """q(z | x), batch (B)."""

    def sample_latent(self, n: int, given: Tensor | None = None) -> Latent:
        """n draws z ~ p(z), (n, *Z)."""

    def encode(self, x: Tensor, given: Tensor | None = None) -> Latent:
        """The mean of q(z | x), (B, *Z): the same at every call."""

    def decode(self, z: Latent, given: Tensor | None = None) -> Distribution:
        """p(x | z), with z's batch dimensions."""


def kl_groups(q: Distribution, p: Distribution, z: Latent) -> Tensor:
    """KL(q ‖ p), (B, G): one group per latent where both factorise, else one group; Monte Carlo over K as a last resort.

    Of a tuple each layer is a group, log q(z_l|·) - log p(z_l|·) by Monte Carlo: only their sum is a KL, and positive.
    """
    if isinstance(q, Joint) and isinstance(p, Joint) and not isinstance(z, Tensor):
        layers = zip(q.log_probs(z), p.log_probs(z), strict=True)
        return torch.stack([(log_q - log_p).mean(0) for log_q, log_p in layers], -1)
    try:
        if isinstance(q, Independent) and isinstance(p, Independent):
            return kl_divergence(q.base_dist, p.base_dist).flatten(1)
        return kl_divergence(q, p).unsqueeze(-1)
    except NotImplementedError:
        return (log_prob(q, z) - log_prob(p, z)).mean(0).unsqueeze(-1)


def check_support(px: Distribution, x: Tensor) -> None:
    """Refuse data that do not fit the likelihood p(x|z), where log p(x|z) would be a number but no log-likelihood.

    x (B, *X) against the event shape, which broadcasting could hide, and against the support.
    """
    if x.shape[1:] != px.event_shape:
        raise ShapeError(
            f"The decoder's {_name(px)} is over the shape {tuple(px.event_shape)}, but one data point has the shape "
            f"{tuple(x.shape[1:])}. Give the decoder's family the shape of the data, or reshape the data."
        )
    support = px.support
    if support is None:
        return
    inside = support.check(x)
    if bool(inside.all()):
        return
    element = getattr(support, "base_constraint", support)
    first = x[~element.check(x)].flatten()[0].item()
    name = _name(px)
    hint = (
        "Grey levels under a Bernoulli are not a likelihood: draw or threshold binary pixels (values='dynamic' or "
        "'threshold'), take ContinuousBernoulli or DiscretizedLogistic, or ask for it by name with relaxed=True."
        if name == "Bernoulli" and 0 <= first <= 1
        else "Rescale the data, or choose a likelihood that covers them (Normal covers every real number)."
    )
    raise DataError(f"The decoder's {name} covers {element}, but the data hold {first:.6g}. {hint}")


MATCHING = {  # what a latent covers, and the priors on it that a recipe can name
    "the real line": "standard-normal, standard-logistic, standard-laplace, standard-student-t, and more",
    "positive numbers": "unit-exponential, log-normal",
    "numbers between 0 and 1": "uniform",
    "the simplex": "flat-dirichlet",
    "the unit sphere": "uniform-sphere",
    "one-hot vectors": "uniform-codes",
    CODEBOOK: "uniform-codes",
    GRID: "uniform-codes",
}
TOO_HEAVY: dict[type[Distribution], tuple[type[Distribution], ...]] = {  # posterior: priors p with E_q[-log p(z)] = ∞
    Cauchy: (Normal, Laplace, Logistic, Gumbel, Flow),  # a flow's own base is normal
    StudentT: (Gumbel,),
    Laplace: (Gumbel,),  # and likewise Logistic: ∞ where the scale is 1 or more, as E[e⁻ᶻ] is
    Logistic: (Gumbel,),
}


def check_pair(q: Distribution, p: Distribution) -> None:
    """Refuse a prior p(z) on other numbers than the posterior q(z|x), or one with tails so light that KL(q ‖ p) = ∞."""
    if isinstance(q, Joint) and isinstance(p, Joint):
        z = q.mean
        for q_l, p_l in zip(q.conditionals(z), p.conditionals(z), strict=True):
            check_pair(q_l, p_l)
        return
    ours, its = covered(q), covered(p)
    if ours != its and ours and its:
        raise RecipeError(
            f"The posterior {_name(q)} covers {ours}, but the prior {_name(p)} covers {its}. Where only the posterior has a "
            f"density the KL is infinite, and where only the prior has one no z is ever coded. Choose a prior on {ours}"
            f"{f' ({MATCHING[ours]})' if ours in MATCHING else ''}, or another posterior."
        )
    kind = getattr(p.component_distribution, "base_dist", p.component_distribution) if isinstance(p, FiniteMixture) else None
    if isinstance(kind, Uniform | Delta):
        raise RecipeError(
            f"A mixture of {_name(kind).lower()}s has no density between them: KL(q ‖ p) = ∞. Choose another prior."
        )
    base, heavy = getattr(p, "base_dist", p) if kind is None else kind, TOO_HEAVY.items()
    if any(isinstance(getattr(q, "base_dist", q), kind) and isinstance(base, light) for kind, light in heavy):
        raise RecipeError(
            f"KL(q ‖ p) is infinite (or is at some scales) for a posterior {_name(q)} and a prior {_name(p)}: its"
            f" tails are too heavy. Choose the prior standard-cauchy or standard-student-t, or another posterior."
        )


def covered(p: Distribution) -> str | None:
    """The support of the elements of z, in words; None where it is not known. A uniform's moves, over the real line."""
    try:
        support = p.support
    except NotImplementedError:
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", math.inf)
    if isinstance(support, type(constraints.real)) or isinstance(low, Tensor):
        return "the real line"
    if isinstance(support, type(constraints.simplex)):
        return "the simplex"
    if low == 0 and high in (1, math.inf):
        return "numbers between 0 and 1" if high == 1 else "positive numbers"
    return None if support is None else str(support)


FAMILY_NAMES = {  # of distributions that are named otherwise than the family
    "Pixels": "Bernoulli",
    "Levels": "Categorical",
    "DiscreteLogistic": "DiscretizedLogistic",
    "PixelMixture": "LogisticMixture",
    "BetaBinomialLevels": "BetaBinomial",
    "NegativeBinomialCounts": "NegativeBinomial",
    "ZeroInflated": "ZeroInflatedNegativeBinomial",
    "Angles": "VonMises",
    "Directions": "VonMisesFisher",
    "OneHots": "OneHot",
    "Relaxed": "Concrete",
    "Fitted": "OptimalNormal",
    "FiniteMixture": "Mixture",
}


def _name(px: Distribution) -> str:
    """The name of the family by which the user asked for this distribution."""
    name = type(getattr(px, "base_dist", px)).__name__
    return FAMILY_NAMES.get(name, name)
