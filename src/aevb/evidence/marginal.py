"""Estimates of log p(x) from weights, with what is known of their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aevb.evidence.pareto import pareto_k, tail_size
from aevb.notation import Brief

HEAVY = 0.7  # the Pareto k above which an estimate is not what it says
ALONE = 1.1  # an effective sample size below which one weight outweighs all others
EVEN = 0.9  # of K, an effective sample size from which weights are about equal, whatever their tail
REMEDY = {  # where weights are too uneven, of importance samples and of annealed chains
    False: "Use annealed importance sampling (log_marginal_ais, --estimator ais), or more samples.",
    True: "Use more temperatures, or train longer.",
}
TOLERATED = 0.1  # the share of data points with a larger k that goes without a warning


@dataclass(frozen=True, repr=False)
class Marginal(Brief):
    """Importance-sampling estimates of log p(x) for each of N data points, float64 on the CPU.

    Attributes:
        log_px: (N,), log 1/K Σ_k w_k in nats.
        se: (N,), its Monte-Carlo standard error in nats, sd(w) / (mean(w) √K) by the delta method; NaN for K = 1.
        ess: (N,), the effective sample size (Σ w)² / Σ w², between 1 and K.
        samples: K.
        pareto_k: (N,), how heavy the tail of the weights is: above 0.7 neither `log_px` nor `se` can be trusted. NaN
            where K < 25 is too few to say, -∞ where all weights are equal.
        annealed: whether they are weights of annealed chains.

    The estimate is below log p(x) in expectation, by about se²/2. Both `se` and `ess` are themselves estimates from the
    same weights: where `ess` is near one, the estimate rests on one sample, and its error is larger than `se` says,
    which is never above 1 nat.
    """

    log_px: Tensor
    se: Tensor
    ess: Tensor
    samples: int
    pareto_k: Tensor
    annealed: bool = False

    @property
    def heavy(self) -> float:
        """The share of data points with k > 0.7, unless their weights are about equal; NaN where no k is known."""
        known = ~self.pareto_k.isnan()
        uneven = self.ess[known] < EVEN * self.samples
        return float(((self.pareto_k[known] > HEAVY) & uneven).double().mean())

    @property
    def warning(self) -> str | None:
        """What is wrong where more than a tenth of the data points rest on one sample, or have k > 0.7."""
        alone, one = float((self.ess < ALONE).double().mean()), "chain" if self.annealed else "sample"
        if self.samples > 1 and alone > TOLERATED:
            return (
                f"The estimate has not converged: log p(x) of {alone:.0%} of the data points rests on one {one} of"
                f" {self.samples:,} (effective sample size below {ALONE}). Its Monte-Carlo error is unknown: the one"
                f" reported cannot exceed 1 nat. {REMEDY[self.annealed]}"
            )
        if not self.heavy > TOLERATED:
            return None
        return (
            f"The weights of {self.heavy:.0%} of the data points have too heavy a tail (Pareto k > {HEAVY}): with K ="
            f" {self.samples:,} their log p(x) is probably off by more than its error says. {REMEDY[self.annealed]}"
        )


def estimated(chunks: Iterable[Tensor], samples: int, count: Callable[[int], None] = lambda n: None) -> Marginal:
    """log 1/K Σ_k w_k of B data points and what is known of its error, from chunks of log w (·, B), float64, K in all.

    With m = Σw/K and ess = (Σw)²/Σw²: sd(w)²/m² = (K/ess - 1) K/(K-1), hence se² = (K/ess - 1)/(K-1). Kept from one
    chunk to the next are log Σ w, log Σ w², and the largest weights.
    """
    total = squares = torch.tensor(-math.inf, dtype=torch.float64)
    top: list[Tensor] = []
    for log_w in chunks:
        total = torch.logaddexp(total, log_w.logsumexp(0))
        squares = torch.logaddexp(squares, (2 * log_w).logsumexp(0))
        found = torch.cat([*top, log_w])
        top = [found.topk(min(tail_size(samples) + 1, len(found)), 0, sorted=False).values]
        count(log_w.numel())
    ess = (2 * total - squares).exp().clamp(1, samples)
    se = ((samples / ess - 1) / (samples - 1)).sqrt() if samples > 1 else torch.full_like(ess, math.nan)
    return Marginal(total - math.log(samples), se, ess, samples, pareto_k(top[0]))


def joined(parts: Sequence[Marginal]) -> Marginal:
    """The estimates of several batches of data points as one."""
    log_px, se, ess, k = (torch.cat(p) for p in zip(*((m.log_px, m.se, m.ess, m.pareto_k) for m in parts), strict=True))
    return Marginal(log_px, se, ess, parts[0].samples, k, parts[0].annealed)


def reciprocal(inverse: Marginal) -> Marginal:
    """log p̂(x) from an estimate of log 1/p(x); relative errors stay what they are."""
    return replace(inverse, log_px=-inverse.log_px)
