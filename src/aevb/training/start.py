"""Parts of a model that begin at the training data."""

from __future__ import annotations

import torch
from torch import nn

from aevb.data.batch import Batch, Indexable, take
from aevb.data.labels import one_hot
from aevb.data.randomness import derive, seeded
from aevb.models.conditional import concatenate
from aevb.models.inputs import BEGINNING, start_at
from aevb.models.priors import VampPrior

STARTED = 10_000  # rows at most, from which the maps of `models.inputs` are set


def start_at_data(model: nn.Module, data: Indexable, seed: int) -> None:
    """Set what begins at rows of the data: the maps of `models.inputs`, and the pseudo-inputs of a `VampPrior`."""
    device = next(model.parameters()).device
    if any(isinstance(part, BEGINNING) for part in model.modules()):
        count = STARTED if _drawn(data) else min(len(data), STARTED)
        start_at(model, some_rows(data, count, seed, device).x)
    for part in model.modules():
        if isinstance(part, VampPrior):
            batch = some_rows(data, len(part.u), seed, device)
            part.start_at(concatenate((batch.x, *batch.contexts), 1) if batch.contexts else batch.x)


def some_rows(data: Indexable, n: int, seed: int, device: torch.device | str = "cpu") -> Batch:
    """n different rows of the data, or all of them as often as it takes.

    Where a label is unknown, the condition all zeros, one is drawn: no training sees an x under none.
    """
    with seeded(derive(seed, "pseudo-inputs"), torch.device(device)):
        rows = torch.arange(n) if _drawn(data) else torch.randperm(len(data))[torch.arange(n) % len(data)]
        batch = take(data, rows.to(device))
        for y in batch.contexts:
            unknown = ~y.flatten(1).any(1)
            drawn = one_hot(torch.randint(y[0].numel(), (int(unknown.sum()),)), y[0].numel())
            y[unknown] = drawn.view(-1, *y.shape[1:]).to(y)
    return batch


def _drawn(data: Indexable) -> bool:
    """Whether rows are drawn by weights, whichever are asked for."""
    return bool(getattr(data, "drawn", False))
