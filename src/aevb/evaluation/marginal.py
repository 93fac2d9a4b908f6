"""log p(x) by importance sampling, with its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to, constraints

from aevb.errors import AevbError
from aevb.evaluation.batches import Model, batches, inference, kept
from aevb.evaluation.pareto import pareto_k, tail_size
from aevb.models.given import Batch, arguments, conditioned
from aevb.models.latents import drawn, log_prob
from aevb.models.trace import covered
from aevb.probability.codes import Quantized
from aevb.probability.distributions import Delta
from aevb.training.memory import keep_freed_memory
from aevb.training.randomness import derive
from aevb.training.train import Indexable

Progress = Callable[[int, int], None]  # (decoded so far, to decode in all)
Proposal = Callable[..., Distribution]  # x (B, *X), or x and y (B, *C) of pairs → a distribution of z, batch (B)

CPU_MEMORY = 2**20  # numbers decoded at a time: few enough for the processor's cache, enough for a matrix product
GPU_MEMORY = 2**26  # enough to keep thousands of cores busy
POINTS = 64  # data points at a time, at least: below, encoding them one by one is felt
HEAVY = 0.7  # the Pareto k above which an estimate is not what it says
TOLERATED = 0.1  # the share of data points with a larger k that goes without a warning


class NoLikelihood(AevbError, TypeError):
    """The model is no density over data, so a likelihood was asked of it in vain."""


@dataclass(frozen=True)
class Marginal:
    """Importance-sampling estimates of log p(x) for each of N data points, float64 on the CPU.

    Attributes:
        log_px: (N,), log 1/K Σ_k w_k in nats.
        se: (N,), its Monte-Carlo standard error in nats, sd(w) / (mean(w) √K) by the delta method; NaN for K = 1.
        ess: (N,), the effective sample size (Σ w)² / Σ w², between 1 and K.
        samples: K.
        pareto_k: (N,), how heavy the tail of the weights is: above 0.7 neither `log_px` nor `se` can be trusted. NaN where
            K < 25 is too few to say, -∞ where all weights are equal.

    The estimate is below log p(x) in expectation, by about se²/2. Both `se` and `ess` are themselves estimates from the
    same weights: where `ess` is near one, the estimate rests on one sample, and its error is larger than `se` says.
    """

    log_px: Tensor
    se: Tensor
    ess: Tensor
    samples: int
    pareto_k: Tensor

    @property
    def heavy(self) -> float:
        """The share of data points with k > 0.7; NaN where no k is known."""
        known = self.pareto_k[~self.pareto_k.isnan()]
        return float((known > HEAVY).double().mean())

    @property
    def warning(self) -> str | None:
        """In words, where more than a tenth of the data points have k > 0.7."""
        if not self.heavy > TOLERATED:
            return None
        return (
            f"The weights of {self.heavy:.0%} of the data points have too heavy a tail (Pareto k > {HEAVY}): with K ="
            f" {self.samples:,} their log p(x) is probably off by more than its error says. Take more samples, or"
            " annealed importance sampling."
        )


def log_marginal(
    model: Model,
    data: Indexable,
    samples: int = 1000,
    *,
    proposal: Proposal | None = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Marginal:
    """log p(x) by importance sampling from q (Rezende et al. 2014, arXiv 1401.4082, App. E; arXiv 1509.00519, L_K).

        log p̂(x) = log 1/K Σ_k w_k,   w_k = p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)

    Any K is possible: kept are log Σ w, log Σ w² and the 3√K largest weights, whose tail is in `pareto_k`; no two chunks of
    samples are in memory at once.

    Args:
        data: x (N, *X), a float tensor on the model's device, or an object indexed by a tensor of row numbers; with
            contexts, `Pairs`, the estimate is of log p(x|y).
        samples: K.
        proposal: q; the encoder's if None. For a model without a trained encoder: `from_chain` of `evaluation.reciprocal`.
        memory: how many numbers to decode at a time; by default what is fastest on the model's device.
        progress: called with (samples decoded so far, N K).

    Raises:
        NoLikelihood: the posterior is a point (`Delta`), or a single code (`VQ`, `FSQ`).
    """
    if samples < 1 or (memory is not None and memory < 1):
        raise ValueError(f"log_marginal: samples and memory must be at least 1; got {samples} and {memory}.")
    count = Counter(len(data) * samples, progress)
    keep_freed_memory()
    with inference(model, derive(seed, "importance")) as device:
        decoded = _decoded(data, memory or (CPU_MEMORY if device.type == "cpu" else GPU_MEMORY), device)
        points = min(decoded, max(POINTS, decoded // samples))
        parts = [
            estimated(_log_weights(model, proposal or model.posterior, batch, samples, decoded), samples, count)
            for batch in batches(data, points, device)
        ]
    return joined(parts)


def _decoded(data: Indexable, memory: int, device: torch.device) -> int:
    """How many samples hold about `memory` numbers when decoded."""
    x, *_ = arguments(next(batches(data, 1, device)))
    return max(1, memory // x.numel())


def _log_weights(model: Model, proposal: Proposal, batch: Batch, samples: int, decoded: int) -> Iterator[Tensor]:
    """log w = log p(x, z) - log q(z|x) of `samples` z ~ q(z|x), in chunks (K', B) of ≤ `decoded`."""
    q, (given, x) = proposal(*arguments(batch)), conditioned(model, batch)
    refuse_point(q)
    draws = max(1, decoded // len(x))
    for start in range(0, samples, draws):
        z = drawn(q, min(draws, samples - start))
        yield kept(given.log_joint(x, z) - log_prob(q, z))


def estimated(chunks: Iterable[Tensor], samples: int, count: Callable[[int], None] = lambda n: None) -> Marginal:
    """log 1/K Σ_k w_k of B data points and what is known of its error, from chunks of log w (·, B), float64, K in all.

    With m = Σw/K and ess = (Σw)²/Σw²: sd(w)²/m² = (K/ess - 1) K/(K-1), hence se² = (K/ess - 1)/(K-1). Kept from one chunk
    to the next are log Σ w, log Σ w², and the largest weights.
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
    return Marginal(log_px, se, ess, parts[0].samples, k)


def refuse_point(q: Distribution) -> None:
    """Raise `NoLikelihood` for an autoencoder, and for a posterior that is one of several codes."""
    if isinstance(getattr(q, "base_dist", q), Quantized):
        raise NoLikelihood(
            "The posterior (vq, fsq) is a single code, with probability one: draws of it never meet the other codes, whose "
            "share of p(x) stays unknown. The ELBO is all that can be known so, and it is a bound: -ELBO nats code x."
        )
    if isinstance(q, Delta):
        raise NoLikelihood(
            "An autoencoder has no likelihood: its posterior is a point (Delta), whose KL from the prior is infinite. "
            "Its reconstruction can be evaluated; for log p(x) train a model with a density as posterior, such as Normal."
        )


def unconstraining(p: Distribution) -> Transform:
    """T: ℝᴰ → the support of p, for methods that move z in ℝᴰ; a mixture has that of its components.

    Raises:
        AevbError: there is none, as for codes or for a sphere.
    """
    support = p.support
    if isinstance(support, constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    try:
        transform: Transform = biject_to(support)
    except NotImplementedError as error:
        raise AevbError(
            f"Hamiltonian Monte Carlo moves z through ℝᴰ, but these latents are on {covered(p)}. Take importance sampling."
        ) from error
    return transform


class Counter:
    """Tells `progress` how many samples are done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self, n: int) -> None:
        self.done += n
        if self.progress is not None:
            self.progress(self.done, self.total)
