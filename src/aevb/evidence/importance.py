"""log p(x) by importance sampling, with its error."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from aevb.data.batch import Indexable, batches
from aevb.data.memory import keep_freed_memory
from aevb.data.randomness import derive
from aevb.evidence.marginal import Marginal, estimated, joined
from aevb.evidence.support import Counter, Progress, Proposal, memory_on, refuse_point
from aevb.models.checks import likelihood_batches
from aevb.models.inference import Model, as_result, inference
from aevb.models.rows import BLOCK, Group, by_batch, by_row


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

    Any K is possible: kept are log Σ w, log Σ w² and the 3√K largest weights, whose tail is in `pareto_k`; no two
        blocks of
    samples are in memory at once. The noise of a row is a function of its content and of the seed, so that its score
    does not depend on the rows beside it. With a `proposal`, which may be costly to make, it depends on the batch.

    Args:
        data: x (N, *X), a float tensor on the model's device, or an object indexed by a tensor of row numbers; with
            contexts, `Pairs`, the estimate is of log p(x|y).
        samples: K.
        proposal: q; the encoder's if None. For a model without a trained encoder: `from_chain` of `evidence.harmonic`.
        memory: how many numbers to decode at a time; by default what is fastest on the model's device.
        progress: called with (samples decoded so far, N K).

    Raises:
        NoLikelihood: the posterior is a point (`Delta`), or a single code (`VQ`, `FSQ`), or has no density where the
            prior has one (`Uniform`), so that no K reaches log p(x).
    """
    if samples < 1 or (memory is not None and memory < 1):
        raise ValueError(f"log_marginal: samples and memory must be at least 1; got {samples} and {memory}.")
    count = Counter(len(data) * samples, progress)
    keep_freed_memory()
    with inference(model, derive(seed, "importance")) as device:
        points = points_at_a_time(data, samples, memory or memory_on(device), device)
        parts = [
            estimated(log_weights(model, group, samples), samples, count)
            for batch in likelihood_batches(model, data, points)
            for group in (by_batch(proposal, batch, seed) if proposal else by_row(model.posterior, batch, seed))
        ]
    return joined(parts)


def points_at_a_time(data: Indexable, samples: int, memory: int, device: torch.device) -> int:
    """How many data points hold about `memory` numbers when a block of samples of each is decoded."""
    x = next(batches(data, 1, device)).x
    return max(1, memory // (x.numel() * min(samples, BLOCK)))


def log_weights(model: Model, group: Group, samples: int) -> Iterator[Tensor]:
    """log w = log p(x, z) - log q(z|x) of `samples` z ~ q(z|x), in blocks (K', B), float64."""
    refuse_point(group.q, "importance sampling", everywhere=True)
    for z in group.blocks(samples):
        yield as_result(model.log_joint(group.batch, z) - group.q.log_prob(z))
