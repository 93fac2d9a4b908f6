"""What lies between two codes: the decoded images of a straight line."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.errors import DataError
from aevb.evaluation.batches import BATCH, Model, inference


def paths(model: Model, starts: Tensor, ends: Tensor, steps: int = 11) -> Tensor:
    """The means of p(x|z) at z = (1-t) z₀ + t z₁, t = 0, ..., 1 in equal steps: (N, T, *X) with T = `steps`, on the CPU.

    Args:
        starts, ends: codes z₀ and z₁, (N, *Z) each.
    """
    with inference(model, 0) as device:
        t = torch.linspace(0, 1, steps, device=device).view(1, -1, *[1] * (starts.ndim - 1))
        z = torch.lerp(starts.to(device).unsqueeze(1), ends.to(device).unsqueeze(1), t).flatten(0, 1)
        images = torch.cat([model.decode(part).mean.cpu() for part in z.split(BATCH)])
    return images.reshape(len(starts), steps, *images.shape[1:])


def different_pairs(labels: Tensor, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n random pairs of rows whose labels (N,) differ: two tensors of row numbers, (n,).

    Raises:
        DataError: all labels are the same.
    """
    if len(labels.unique()) < 2:
        raise DataError("Pairs of different classes need at least two classes; all labels are the same.")
    generator = torch.Generator().manual_seed(seed)
    found = torch.empty(2, 0, dtype=torch.int64)
    while found.shape[1] < n:
        pairs = torch.randint(len(labels), (2, 2 * n), generator=generator)
        found = torch.cat([found, pairs[:, labels[pairs[0]] != labels[pairs[1]]]], 1)
    return found[0, :n], found[1, :n]
