"""Exposures of counts: a count x over a known exposure e, a time, an area or a library, has the mean e μ(z).

e stands in the row beside x, and is given: it has no density. A count whose exposure nobody knows is left out, as a
missing cell is.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.probability.counts import NegativeBinomialCounts, ZeroInflated
from aevb.probability.distributions import Poisson


class Given(Distribution):
    """Cells that are given: `value` where one is drawn, and no density: log p is 0 everywhere.

    Args:
        value: (*, n).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.positive

    def __init__(self, value: Tensor) -> None:
        self.value = value
        super().__init__(value.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.value

    @property
    def mode(self) -> Tensor:
        return self.value

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.value)

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value + self.value)

    def cdf(self, value: Tensor) -> Tensor:
        return (value >= self.value).to(value)

    def icdf(self, value: Tensor) -> Tensor:
        return self.value.to(value) + torch.zeros_like(value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.value.expand(self._extended_shape(torch.Size(sample_shape)))


@singledispatch
def over(p: Distribution, e: Tensor) -> Distribution:
    """Counts over an exposure e (*, 1) or (*, n), of the counts p over one unit: their mean times e."""
    raise NotImplementedError(type(p).__name__)


@over.register
def _(p: Poisson, e: Tensor) -> Distribution:
    return Poisson(p.rate * e, validate_args=False)


@over.register
def _(p: NegativeBinomialCounts, e: Tensor) -> Distribution:
    return NegativeBinomialCounts(*torch.broadcast_tensors(p.mu * e, p.r))


@over.register
def _(p: ZeroInflated, e: Tensor) -> Distribution:
    counts = over(p.counts, e)
    return ZeroInflated(p.logits.expand(counts.batch_shape), counts)
