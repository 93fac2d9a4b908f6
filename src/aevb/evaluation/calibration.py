"""Whether a likelihood fits: where each number of x lies among draws of p(x|z), z a draw of the posterior of x.

If a model is right, (x, z) is a draw of its joint, so that x given z is one of p(x|z): its rank among draws of p(x|z)
is uniform. So this works by draws, for any likelihood; ties are broken at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.stats import kstest
from torch import Tensor

from aevb.data.batch import Batch, Indexable
from aevb.data.randomness import derive
from aevb.evaluation.estimate import Estimate
from aevb.models.checks import likelihood_batches
from aevb.models.inference import Model, as_result, inference
from aevb.models.rows import Group, by_batch
from aevb.notation import Brief
from aevb.probability.columns import complete, exposed

DRAWS = 100  # of p(x|z) for each row
PROPOSALS = 20  # z ~ q(z|x), of which one is taken by its importance weight
MEMORY = 2**24  # numbers of draws at a time
INSIDE = 0.9  # of a distribution, the central part whose coverage is counted

Statistics = Callable[[Tensor], Tensor]  # x (..., F) → (..., S)


@dataclass(frozen=True, repr=False)
class Ranks(Brief):
    """Ranks of numbers among draws, and the reliability of what the draws hold for the likeliest value.

    Attributes:
        u: (N, S), the share of draws below, uniform in (0, 1) of a right model; NaN where x is missing.
        outside: (N,), the share of numbers of each row that lie outside the central 90 % of their draws, 0.1 on
            average.
        share: (N, F), how many of half of the draws have the value that is the most frequent among the other half;
            hit: (N, F), 1 where x has it, NaN where it is missing.
        levels: (F,), how many values a number takes, in draws and in data.
    """

    u: Tensor
    outside: Tensor
    share: Tensor
    hit: Tensor
    levels: Tensor


def ranks(model: Model, data: Indexable, seed: int = 0, statistics: Statistics | None = None) -> Ranks:
    """Ranks of the numbers of each row (or of its statistics) among draws of p(x|z).

    Args:
        data: x (N, *X), NaN where a value is missing.
        statistics: what is ranked instead of each number, for many numbers.
    """
    parts: list[tuple[Tensor, ...]] = []
    with inference(model, derive(seed, "calibration")):
        for batch in likelihood_batches(model, data, 100):
            for group in by_batch(model.posterior, batch, seed):
                parts += list(_ranked(model, group, statistics))
    u, outside, share, hit, x, x_draws = (torch.cat(part) for part in zip(*parts, strict=True))
    levels = torch.tensor([len(torch.cat([a, b]).unique()) for a, b in zip(x.T, x_draws.T, strict=True)])
    return Ranks(u, outside, share, hit, levels)


def _ranked(model: Model, group: Group, statistics: Statistics | None) -> Iterator[tuple[Tensor, ...]]:
    """Of rows, as many at a time as memory allows for the draws."""
    z = resampled(model, group)
    size = max(1, MEMORY // (DRAWS * group.batch.x[0].numel()))
    for start in range(0, len(z), size):
        part = slice(start, start + size)
        batch: Batch = group.batch[part]
        p = complete(exposed(model.decode(z[part], batch.y), batch.x))
        draws = as_result(p.sample(torch.Size((DRAWS,)))).flatten(2)
        x = as_result(batch.x).flatten(1)
        u = ranked(x, draws)
        beyond = (u - 0.5).abs() > INSIDE / 2
        seen = ~u.isnan()
        outside = (beyond & seen).sum(1) / seen.sum(1).clamp(min=1)
        share, hit = reliability(x, draws)
        shown = u if statistics is None else ranked(statistics(x), statistics(draws))
        yield shown, outside.double(), share, hit, x, draws[0]


def resampled(model: Model, group: Group) -> Tensor:
    """z (B, *Z) from about the posterior p(z|x): one of twenty draws of q(z|x), by its importance weight."""
    z = group.draw(PROPOSALS)
    log_w = model.log_joint(group.batch, z) - group.q.log_prob(z)
    chosen = torch.distributions.Categorical(logits=log_w.nan_to_num(nan=-math.inf).T).sample()
    return z[chosen, torch.arange(z.shape[1], device=z.device)]


def ranked(x: Tensor, draws: Tensor) -> Tensor:
    """(Σ_s [draw_s < x] + U (1 + Σ_s [draw_s = x])) / (1 + S) with U uniform: (N, F) from x (N, F), draws (S, N, F).

    Uniform on (0, 1) where x is one more draw. NaN where x is.
    """
    below, equal = (draws < x).sum(0), (draws == x).sum(0)
    u = (below + torch.rand(x.shape, dtype=x.dtype) * (1 + equal)) / (1 + len(draws))
    return torch.where(x.isnan(), math.nan, u)


def reliability(x: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Of half of the draws the most frequent value; its share of the other half, and whether x has it, (N, F) both."""
    half = len(draws) // 2
    likeliest = draws[:half].mode(0).values
    share = (draws[half:] == likeliest).double().mean(0)
    return share, torch.where(x.isnan(), math.nan, (x == likeliest).double())


@dataclass(frozen=True)
class Misfit:
    """How far one column's ranks are from uniform.

    Attributes:
        distance: of Kolmogorov and Smirnov; p: its p-value.
        outside: the share of values outside the central 90 %, 0.1 of a right model.
        middle: the mean rank, ½ of a right model.
    """

    distance: float
    p: float
    outside: Estimate
    middle: Estimate


def misfit(u: Tensor) -> Misfit:
    """Of ranks (N,), without those of missing values."""
    u = u[~u.isnan()]
    test = kstest(u.numpy(), "uniform")
    beyond = ((u - 0.5).abs() > INSIDE / 2).double()
    return Misfit(float(test.statistic), float(test.pvalue), Estimate.of(beyond), Estimate.of(u))


@dataclass(frozen=True)
class Bin:
    """Rows for which a value was given about the same probability: that, and how often it came."""

    said: float
    came: Estimate

    @property
    def errors(self) -> float:
        """By how many standard errors of what was said the two differ."""
        se = math.sqrt(max(self.said * (1 - self.said), 1 / self.came.n) / self.came.n)
        return abs(self.came - self.said) / se


def worst_bin(share: Tensor, hit: Tensor, bins: int = 5, least: int = 30) -> Bin | None:
    """Of equally many rows in each of up to five bins of `share` the one that is least reliable."""
    known = ~hit.isnan()
    order = share[known].argsort()
    count = min(bins, len(order) // least)
    if not count:
        return None
    found = [Bin(float(share[known][i].mean()), Estimate.of(hit[known][i])) for i in order.chunk(count)]
    return max(found, key=lambda b: b.errors)
