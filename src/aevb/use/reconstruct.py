"""Data through the code and back."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.data.batch import Indexable, batches
from aevb.models.inference import Model, code_batches, dtype_of, inference


def reconstruct(model: Model, data: Indexable) -> Tensor:
    """The means of p(x|z) at z = E_q[z|x] of every data point, (N, *X), on the CPU."""
    with inference(model, 0) as device:
        walk = batches(data, None, device, dtype_of(model))
        return torch.cat([model.decode(model.encode(b), b.y).mean.cpu() for b in walk])


def decode(model: Model, z: Tensor, y: Tensor | None = None) -> Tensor:
    """The means of p(x|z) at codes z (N, *Z), or flattened (N, D), at conditions y (N, *C) if any: (N, *X), on the
    CPU."""
    z, y = z.reshape(len(z), *model.latent_shape), None if y is None else y.expand(len(z), *y.shape[1:])
    with inference(model, 0):
        return torch.cat([model.decode(part, c).mean.cpu() for part, c in code_batches(model, z, y)])
