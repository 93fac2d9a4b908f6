"""What a model gives: data from its prior, and draws from its posteriors."""

from __future__ import annotations

from itertools import repeat

import torch
from torch import Tensor

from aevb.errors import ShapeError
from aevb.evaluation.batches import BATCH, Model, conditioned_batches, inference
from aevb.models.latents import side_by_side, split
from aevb.training.randomness import derive
from aevb.training.train import Indexable


def generate(model: Model, n: int, *, seed: int = 0, draw: bool = False, given: Tensor | None = None) -> Tensor:
    """n new data points, (n, *X), on the CPU: z ~ p(z), then the mean of p(x|z), or with `draw` x ~ p(x|z).

    Of a conditional model: z ~ p(z|y), then p(x|z, y), with `given` the contexts y, (n, *C), or (1, *C) for all.
    """
    if n < 1:
        raise ShapeError(f"generate: n must be at least 1; got {n}.")
    if given is not None and len(given) not in (1, n):
        raise ShapeError(f"generate: {n} data points need {n} contexts, or one for all; got {len(given)}.")
    with inference(model, derive(seed, "generate")) as device:
        y = None if given is None else given.to(device).expand(n, *given.shape[1:])
        contexts = repeat(None) if y is None else y.split(BATCH)
        px = [model.decode(z, c) for z, c in zip(split(model.sample_latent(n, y), BATCH), contexts, strict=False)]
        return torch.cat([(p.sample() if draw else p.mean).cpu() for p in px])


def posterior_draws(model: Model, data: Indexable, samples: int, *, seed: int = 0) -> Tensor:
    """z ~ q(z|x), (K, N, *Z) with K = `samples`, on the CPU; the layers of a hierarchy side by side, (K, N, Σ_l D_l)."""
    with inference(model, derive(seed, "posterior")) as device:
        walk = conditioned_batches(model, data, BATCH, device)
        draws = [side_by_side(m.posterior(x).sample(torch.Size((samples,))), 2).cpu() for m, x in walk]
    return torch.cat(draws, 1)
