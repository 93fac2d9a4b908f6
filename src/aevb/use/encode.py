"""Codes of data: posterior means, and draws from posteriors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from aevb.data.batch import Indexable, batches
from aevb.data.randomness import derive
from aevb.errors import ShapeError
from aevb.models.inference import Model, dtype_of, inference, with_holes


def encode(model: Model, data: Indexable, batch: int | None = None) -> Tensor:
    """E_q[z|x] of every data point, without a gradient; `model.encode` is the same with one, of one minibatch.

    Args:
        data: x (N, *X): a tensor or an array of any type, a memory map, a split, `Pairs`, a data set of rows, or a
            `DataLoader`. They are converted to the model's device and type.
        batch: data points at a time; None for as many as memory allows.

    Returns:
        (N, *Z), on the CPU; the layers of a hierarchy side by side, (N, D).

    Raises:
        DataError: there are no rows, or NaN or infinity in them.
        ShapeError: the model reads data of another size.
    """
    with inference(model, 0) as device:
        walk = batches(with_holes(model, data), batch, device, dtype_of(model))
        return torch.cat([model.encode(b).cpu() for b in walk])


def posterior_draws(model: Model, data: Indexable, samples: int, *, seed: int = 0) -> Tensor:
    """z ~ q(z|x), (K, N, *Z) with K = `samples`, on the CPU; the layers of a hierarchy side by side, (K, N, D).

    Args:
        data: as of `encode`.
        samples: K, draws of each data point.
    """
    return torch.cat(list(draws_of_parts(model, [data], samples, seed)), 1)


def draws_of_parts(model: Model, parts: Iterable[Indexable], samples: int, seed: int) -> Iterator[Tensor]:
    """The numbers of `posterior_draws` of data that come in parts, (K, B, *Z) of some rows at a time, in their order.

    Args:
        parts: each but the last of a multiple of `rows_at_once` rows, so that batches are those of the whole.
    """
    if samples < 1:
        raise ShapeError(f"posterior_draws: samples must be at least 1; got {samples}.")
    with inference(model, derive(seed, "posterior")) as device:
        for data in parts:
            for batch in batches(with_holes(model, data), None, device, dtype_of(model)):
                yield model.posterior(batch).sample(torch.Size((samples,))).cpu()
