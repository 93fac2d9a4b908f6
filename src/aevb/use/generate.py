"""Sampling: data from the prior, and draws from the posteriors."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from aevb.data.randomness import derive
from aevb.errors import ShapeError
from aevb.models.given import of_model
from aevb.models.inference import Model, code_batches, inference
from aevb.use.reconstruct import conditions_of


def generate(model: Model, n: int, *, seed: int = 0, draw: bool = False, y: Tensor | None = None) -> Tensor:
    """n new data points: z ~ p(z), then the mean of p(x|z); of a conditional model z ~ p(z|y), then p(x|z, y).

    Args:
        n: how many.
        seed: of the draws.
        draw: x ~ p(x|z) instead of the mean.
        y: conditions (n, *C), or (1, *C) for all, of a conditional model.

    Returns:
        (n, *X), on the CPU, without a gradient, in the model's numbers: `Values.inverse` gives the data's units.

    Raises:
        ShapeError: n is no whole number from 1, or there are not as many conditions, or none of a conditional model.
    """
    if not isinstance(n, Integral) or n < 1:
        raise ShapeError(f"generate: n must be a whole number of at least 1; got {n!r}.")
    y = conditions_of(None if y is None else of_model(model, y), n, "generate")
    with inference(model, derive(seed, "generate")):
        px = (model.decode(z, c) for z, c in code_batches(model, model.sample_latent(n, y), y))
        return torch.cat([(p.sample() if draw else p.mean).cpu() for p in px])
