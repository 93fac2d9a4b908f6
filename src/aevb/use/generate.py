"""Sampling: data from the prior, and draws from the posteriors."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.data.randomness import derive
from aevb.errors import ShapeError
from aevb.models.inference import Model, code_batches, inference


def generate(model: Model, n: int, *, seed: int = 0, draw: bool = False, y: Tensor | None = None) -> Tensor:
    """n new data points, (n, *X), on the CPU: z ~ p(z), then the mean of p(x|z), or with `draw` x ~ p(x|z).

    Of a conditional model: z ~ p(z|y), then p(x|z, y), with y (n, *C), or (1, *C) for all.
    """
    if n < 1:
        raise ShapeError(f"generate: n must be at least 1; got {n}.")
    if y is not None and len(y) not in (1, n):
        raise ShapeError(f"generate: {n} data points need {n} conditions y, or one for all; got {len(y)}.")
    with inference(model, derive(seed, "generate")) as device:
        y = None if y is None else y.to(device).expand(n, *y.shape[1:])
        px = (model.decode(z, c) for z, c in code_batches(model, model.sample_latent(n, y), y))
        return torch.cat([(p.sample() if draw else p.mean).cpu() for p in px])
