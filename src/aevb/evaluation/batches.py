"""How evaluation walks through data: without gradients, in evaluation mode, seeded, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from aevb.errors import DataError
from aevb.models.given import Batch, conditioned
from aevb.models.trace import LatentModel
from aevb.training.randomness import seeded
from aevb.training.train import Indexable

BATCH = 500  # data points encoded at a time


class Model(LatentModel, Protocol):
    """A latent model that is a module: what evaluation needs."""

    def eval(self) -> object: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


@contextmanager
def inference(model: Model, seed: int) -> Iterator[torch.device]:
    """Run a block on the model's device without gradients, in evaluation mode, under `seed`; then restore every mode."""
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), seeded(seed, device):
            yield device
    finally:
        for module, mode in modes:
            module.training = mode


def conditioned_batches(
    model: LatentModel, data: Indexable, size: int, device: torch.device
) -> Iterator[tuple[LatentModel, Tensor]]:
    """As `batches`, but x alone, with the model to ask about it: of pairs, the model given their contexts."""
    return (conditioned(model, batch) for batch in batches(data, size, device))


def batches(data: Indexable, size: int, device: torch.device) -> Iterator[Batch]:
    """The data in order, x (B, *X) or a `Pair`, with B = `size` but for the last."""
    if not len(data):
        raise DataError("There are no data points to evaluate: the data have length 0. Choose a split that has rows.")
    for start in range(0, len(data), size):
        batch = data[torch.arange(start, min(start + size, len(data)), device=device)]
        if not batch.dtype.is_floating_point:
            raise DataError(f"Evaluation needs floating-point data; got {batch.dtype}. Convert them, as in x.float() / 255.")
        yield batch


def kept(x: Tensor) -> Tensor:
    """A result as it is handed back: float64 on the CPU, where sums over many data points lose nothing."""
    return x.to("cpu", torch.float64)
