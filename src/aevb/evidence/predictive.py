"""log p(x) under a posterior over the parameters: the models that q(θ) draws, averaged."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from aevb.data.batch import Indexable
from aevb.data.randomness import derive, seeded
from aevb.evidence.importance import log_marginal
from aevb.evidence.marginal import Marginal, estimated
from aevb.models.inference import Model
from aevb.objectives.full_bayes import FullBayes


def log_predictive(
    model: Model,
    objective: FullBayes,
    data: Indexable,
    draws: int = 10,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Marginal:
    """The posterior predictive density of each data point, by weights from q(θ) (arXiv 1312.6114, App. F).

        log p(x | X) ≃ log 1/S Σ_s p̂(x|θ_s),   θ_s ~ q(θ)

    with p̂(x|θ_s) by importance sampling, as in `log_marginal`. In the result the S = `draws` take the place of
    samples: `se` and `ess` are those of the average over draws, whose spread holds the error of each p̂ too.

    Args:
        model: at the posterior mean, as trained.
        data: x (N, *X). Rows must be equal whenever they are read: a split of fresh Bernoulli draws has to be
            `frozen()`.
        draws: S.
        samples: importance samples per data point and draw.
    """
    if draws < 1:
        raise ValueError(f"log_predictive: draws must be at least 1; got {draws}.")
    device = next(model.parameters()).device
    found = []
    for s in range(draws):
        with seeded(derive(seed, "weights", s), device):
            drawn = cast(Model, objective.draw(cast(nn.Module, model)))
        found.append(log_marginal(drawn, data, samples, seed=derive(seed, "predictive", s)).log_px)
    return estimated([torch.stack(found)], draws)
