"""What can be read off a distribution: its support, and what it offers where no part declares it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from aevb.parts import POSTERIOR, Member, Offers, Support, Tail, word_of
from aevb.probability.distributions import Grid

WRAPPED = constraints.independent, constraints.MixtureSameFamilyConstraint
UNKNOWN = Offers(tolerates=Tail.CAUCHY)  # of a part that declares nothing, before its distribution is seen


def elements_of(p: Distribution) -> Distribution:
    """The distributions of the elements of p, where these are independent; else p itself."""
    while isinstance(p, Independent):
        p = p.base_dist
    return p


SUPPORTS = {  # PyTorch's constraints, by their types; of an interval its ends say more
    type(constraints.real): Support.REAL,
    type(constraints.simplex): Support.SIMPLEX,
    type(constraints.boolean): Support.BINARY,
    Grid: Support.LEVELS,
}
INTERVALS: dict[Any, Support] = {  # by their ends, and whether they hold whole numbers alone
    (0, math.inf, False): Support.POSITIVE,
    (0, 1, False): Support.UNIT,
    (0, math.inf, True): Support.COUNTS,
    (-math.pi, math.pi, False): Support.ANGLES,
}


def support_of(p: Distribution) -> Support | None:
    """The support of the elements of p; None where it is not known. That of a uniform, which moves, is the real
    line."""
    try:
        support = constraint_of(p)
    except NotImplementedError:
        return None
    if type(support) in SUPPORTS:
        return SUPPORTS[type(support)]
    ends = getattr(support, "lower_bound", None), getattr(support, "upper_bound", math.inf)
    if isinstance(ends[0], Tensor):
        return Support.REAL
    known = INTERVALS.get((*ends, getattr(support, "is_discrete", False)))
    return known or next((found for found in Support if found.value == str(support)), None)


def constraint_of(p: Distribution) -> Any:
    """The support of the elements of p, as a constraint of PyTorch."""
    support: Any = p.support
    while isinstance(support, WRAPPED):
        support = support.base_constraint
    return support


def support_text(p: Distribution) -> str:
    """The support of the elements of p, as text."""
    support, known = constraint_of(p), support_of(p)
    own = type(support).__module__.startswith("aevb")
    return str(support) if own or known is None else known.value


def read_offers(p: Distribution) -> Offers:
    """What p declares; else what its support, its draws and its independence say, and nothing that would refuse it."""
    elements, support = elements_of(p), support_of(p)
    declared: Offers | None = getattr(elements, "offers", None)
    if declared is not None:
        return replace(declared, support=declared.support or support)
    independent = isinstance(p, Independent) and not elements.event_shape
    return replace(
        UNKNOWN,
        support=support,
        reparameterized=p.has_rsample,
        everywhere=not isinstance(getattr(constraint_of(p) if support else None, "lower_bound", None), Tensor),
        factorized=isinstance(p, Independent),
        diagonal=independent and type(elements) is Normal,
        known_covariance=independent or "covariance_matrix" in dir(type(p)),
    )


WORDS = {  # what a recipe calls distributions of aevb's own
    "BetaBinomialLevels": "beta-binomial",
    "ContinuousBernoulli": "continuous-bernoulli",
    "Directions": "von-mises-fisher",
    "DiscreteLogistic": "discretized-logistic",
    "Logistic": "logistic",
    "PixelMixture": "logistic-mixture",
    "Quantized": "of single codes",
    "Reflected": "householder",
    "Uniform": "uniform",
    "UniformCodes": "uniform-codes",
    "UniformSphere": "uniform-sphere",
    "ZeroInflated": "zero-inflated-negative-binomial",
}


def name_of(p: Distribution) -> str:
    """What to call a distribution in a message."""
    p = elements_of(p)
    return WORDS.get(type(p).__name__) or word_of(p)


def seen(p: Distribution, role: str = POSTERIOR) -> Member:
    """A distribution in its role, by what it says of itself."""
    return Member(role, name_of(p), read_offers(p))


def common(layers: Sequence[Offers]) -> Offers:
    """What all layers of a hierarchy offer."""
    names = ("reparameterized", "density", "kl", "everywhere", "known_mean")
    shared: dict[str, Any] = {name: all(getattr(offers, name) for offers in layers) for name in names}
    support = layers[0].support if len({offers.support for offers in layers}) == 1 else None
    return replace(layers[0], support=support, layers=len(layers), factorized=False, known_covariance=False, **shared)
