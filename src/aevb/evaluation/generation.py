"""What a model gives: data from its prior, and draws from its posteriors."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.errors import ShapeError
from aevb.evaluation.batches import BATCH, Model, batches, inference
from aevb.training.randomness import derive
from aevb.training.train import Indexable


def generate(model: Model, n: int, *, seed: int = 0, draw: bool = False) -> Tensor:
    """n new data points, (n, *X), on the CPU: z ~ p(z), then the mean of p(x|z), or with `draw` x ~ p(x|z)."""
    if n < 1:
        raise ShapeError(f"generate: n must be at least 1; got {n}.")
    with inference(model, derive(seed, "generate")):
        px = [model.decode(z) for z in model.sample_latent(n).split(BATCH)]
        return torch.cat([(p.sample() if draw else p.mean).cpu() for p in px])


def posterior_draws(model: Model, data: Indexable, samples: int, *, seed: int = 0) -> Tensor:
    """z ~ q(z|x), (K, N, *Z) with K = `samples`, on the CPU."""
    with inference(model, derive(seed, "posterior")) as device:
        draws = [model.posterior(x).sample(torch.Size((samples,))).cpu() for x in batches(data, BATCH, device)]
    return torch.cat(draws, 1)
