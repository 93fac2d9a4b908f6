"""What a single latent does: the decoded data while it moves and the others stay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.data.batch import Data, as_batch
from aevb.models.inference import Model, dtype_of, inference
from aevb.use.reconstruct import decode


@dataclass(frozen=True)
class Traversal:
    """Decoded data while R latents move, one at a time, over T values.

    Attributes:
        latents: (R,), which numbers of z move; values: (T,), where each goes; x: (R, T, *X), the means of p(x|z).
    """

    latents: Tensor
    values: Tensor
    x: Tensor


def traverse(model: Model, data: Data | None, latents: Tensor, span: float = 2.5, steps: int = 11) -> Traversal:
    """The means of p(x|z) while each of some latents moves from -span to span, and the others stay.

    Where the prior's draws are never negative, they move between its percentiles 1 and 99.

    Args:
        data: one data point, x (1, *X) or a `Batch`, at whose posterior mean the other latents stay; None for the mean
            0.
        latents: (R,), numbers of z, counted from 0; in a hierarchy z_1 comes first.
        steps: T.
    """
    with inference(model, 0) as device:
        batch = None if data is None else as_batch(data).to(device)
        y = None if batch is None else batch.y
        centre = (
            torch.zeros(1, *model.latent_shape, dtype=dtype_of(model)) if batch is None else model.encode(batch).cpu()
        )
        values = _values(model.sample_latent(1000, y).cpu(), span, steps)
    z = centre.flatten(1).repeat(len(latents), steps, 1)
    for row, latent in enumerate(latents.tolist()):
        z[row, :, latent] = values
    return Traversal(latents, values, decode(model, z.flatten(0, 1), y).unflatten(0, (len(latents), steps)))


def _values(draws: Tensor, span: float, steps: int) -> Tensor:
    if bool((draws < 0).any()):
        return torch.linspace(-span, span, steps)
    return torch.quantile(draws.flatten().float(), torch.linspace(0.01, 0.99, steps))
