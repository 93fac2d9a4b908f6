"""log p(x) by importance sampling, with its error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from aevb.data.batch import Indexable, batches
from aevb.data.memory import keep_freed_memory
from aevb.data.randomness import derive
from aevb.data.walk import Counter, decoded_at_once
from aevb.evidence.defensive import counted, defended, defends
from aevb.evidence.marginal import Marginal, estimated, joined
from aevb.evidence.support import Proposal, refuse_point
from aevb.models.checks import likelihood_batches
from aevb.models.inference import Model, as_result, fitting, inference, numbers_of_columns
from aevb.models.rows import BLOCK, Group, by_batch, by_row


def log_marginal(
    model: Model,
    data: Indexable,
    samples: int = 1000,
    *,
    proposal: Proposal | None = None,
    seed: int = 0,
) -> Marginal:
    """log p(x) by importance sampling from q (Rezende et al. 2014, arXiv 1401.4082, App. E; arXiv 1509.00519, L_K).

        log p̂(x) = log 1/K Σ_k w_k,   w_k = p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)

    Any K is possible: only log Σ w, log Σ w² and the 3√K largest weights are kept, whose tail is in `pareto_k`. One
    block of samples is in memory at a time, and `aevb.walking` sets its size. The noise of a row depends only on its
    content and the seed, so its score does not depend on the rows beside it. With a `proposal`, which may be costly to
    make, it depends on the batch.

    Args:
        model: a trained one.
        data: x (N, *X), as of `aevb.encode`; with contexts, `Pairs`, the estimate is of log p(x|y).
        samples: K.
        seed: of the noise.
        proposal: q; the encoder's if None. For a model without a trained encoder: `from_chain` of `evidence.harmonic`.

    Raises:
        NoLikelihood: no K reaches log p(x): the posterior is a point (`Delta`), or a single code (`VQ`, `FSQ`), or has
            no density where the prior has one (`Uniform`).
    """
    if samples < 1:
        raise ValueError(f"log_marginal: samples must be at least 1; got {samples}.")
    data = fitting(model, data)
    count = Counter(len(data) * samples)
    keep_freed_memory()
    with inference(model, derive(seed, "importance")) as device:
        points = points_at_a_time(data, samples, device, model)
        parts = [
            estimated(log_weights(model, group, samples), samples, count)
            for batch in likelihood_batches(model, data, points)
            for group in (by_batch(proposal, batch, seed) if proposal else by_row(model.posterior, batch, seed))
        ]
    return joined(parts)


def points_at_a_time(data: Indexable, samples: int, device: torch.device, model: Model | None = None) -> int:
    """How many data points to decode at a time, with a block of samples of each: by the numbers of x, or by those that
    the network of a table's columns makes, if they are more."""
    width = max(next(batches(data, 1, device)).x.numel(), 0 if model is None else numbers_of_columns(model))
    return max(1, decoded_at_once(device) // (width * min(samples, BLOCK)))


def log_weights(model: Model, group: Group, samples: int) -> Iterator[Tensor]:
    """log w = log p(x, z) - log q(z|x) of `samples` z ~ q(z|x), in blocks (K', B), float64."""
    refuse_point(group.q, "importance sampling", everywhere=True)
    for z in group.blocks(samples):
        yield as_result(model.log_joint(group.batch, z) - group.q.log_prob(z))


def marginal_of(
    model: Model, group: Group, samples: int, prior: Distribution, count: Callable[[int], None] = lambda n: None
) -> Marginal:
    """log p̂(x) of data points whose posterior is known, from K = `samples` draws.

    They are those of `evidence.defensive` where the latents are few, under the prior p(z); else z ~ q(z|x).
    """
    if not defends(group.q, prior, samples):
        return estimated(log_weights(model, group, samples), samples, count)
    weights = defended(lambda z: model.log_joint(group.batch, z), group, prior, samples)
    count(len(group.batch) * (samples - counted(samples)))
    return replace(estimated((as_result(w) for w in weights), counted(samples), count), samples=samples)
