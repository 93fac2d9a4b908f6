"""What a single latent does: the decoded data while it moves and the others stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.data.batch import Data
from aevb.errors import ShapeError
from aevb.models.given import given
from aevb.models.inference import Model, dtype_of, inference
from aevb.notation import Brief
from aevb.use.reconstruct import decode


@dataclass(frozen=True, repr=False)
class Traversal(Brief):
    """Decoded data while R latents move, one at a time, over T values.

    Attributes:
        latents: (R,), which numbers of z move; values: (T,), where each goes; x: (R, T, *X), the means of p(x|z).
    """

    latents: Tensor
    values: Tensor
    x: Tensor


def traverse(
    model: Model, data: Data | None, latents: Tensor | Sequence[int], span: float = 2.5, steps: int = 11
) -> Traversal:
    """The means of p(x|z) while each of some latents moves from -span to span, and the others stay.

    Where the prior's draws are never negative, they move between its percentiles 1 and 99.

    Args:
        data: one data point, x (1, *X), as of `encode`, at whose posterior mean the other latents stay; None for the
            mean 0.
        latents: (R,), numbers of z, counted from 0; in a hierarchy z_1 comes first.
        span: where latents end.
        steps: T, values of each.

    Raises:
        ShapeError: there are several data points, no such latent, or no steps.
    """
    latents = _numbers(latents, model.latent_shape.numel(), steps)
    with inference(model, 0):
        batch = None if data is None else given(model, data)
        if batch is not None and len(batch) != 1:
            raise ShapeError(f"traverse: one data point stays, x (1, ...); got {len(batch)}. Take one, as in x[:1].")
        y = None if batch is None else batch.y
        rest = torch.zeros(1, *model.latent_shape, dtype=dtype_of(model))
        centre = rest if batch is None else model.encode(batch).cpu()
        values = _values(model.sample_latent(1000, y).cpu(), span, steps)
    z = centre.flatten(1).repeat(len(latents), steps, 1)
    for row, latent in enumerate(latents.tolist()):
        z[row, :, latent] = values
    return Traversal(latents, values, decode(model, z.flatten(0, 1), y).unflatten(0, (len(latents), steps)))


def _numbers(latents: Tensor | Sequence[int], size: int, steps: int) -> Tensor:
    """Which latents move, (R,)."""
    found = torch.as_tensor(latents).reshape(-1)
    wrong = [latent for latent in found.tolist() if latent != int(latent) or not 0 <= latent < size]
    if wrong or not len(found):
        raise ShapeError(f"traverse: latents are numbers from 0 to {size - 1}; got {wrong or 'none'}.")
    if steps < 1:
        raise ShapeError(f"traverse: steps must be at least 1; got {steps}.")
    return found.long()


def _values(draws: Tensor, span: float, steps: int) -> Tensor:
    if bool((draws < 0).any()):
        return torch.linspace(-span, span, steps)
    return torch.quantile(draws.flatten().float(), torch.linspace(0.01, 0.99, steps))
