"""How surprising each cell of a row is given the others: why a row is unusual.

    -log p(x_d | x_{O∖d}) = log p(x_{O∖d}) - log p(x_O),   O: the observed cells

Both terms come from the same draws of z, so that their errors largely cancel. The draws are from all posteriors,

    r(z) = 1/(F+1) [q(z | x_O) + Σ_d q(z | x_{O∖d})],   w_k = p(x_O, z_k) / r(z_k),
    -log p̂(x_d | x_{O∖d}) = log Σ_k w_k / p(x_d | z_k) - log Σ_k w_k

(multiple importance sampling, Veach & Guibas 1995): q(z | x_O) alone misses the z that explain the other cells where
x_d is unusual, and q(z | x_{O∖d}) misses those that explain x_d. A linear normal model with K = 200 had cells shifted
by up to 24 σ of their noise. The root mean square error was 0.23 nats for usual cells, and 2.2 for unusual ones, of 6
to 100 nats. Draws from q(z | x_O) alone had 0.34 and 3.1. Draws from each q(z | x_{O∖d}) for its own cell had 0.24 and
3.0, in four times the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from aevb.data.batch import Batch, Indexable
from aevb.data.columns import EXPOSURE
from aevb.data.randomness import derive
from aevb.data.walk import Counter
from aevb.errors import DataError
from aevb.evidence.support import refuse_point
from aevb.models.checks import likelihood_batches, split_of
from aevb.models.given import admits_holes, unknown_in
from aevb.models.inference import Model, as_result, fitting, inference
from aevb.models.rows import by_row
from aevb.probability.columns import ProductOfColumns
from aevb.use.condition import rows_at_a_time


def surprise(model: Model, data: Indexable, samples: int = 200, *, seed: int = 0) -> Tensor:
    """-log p(x_d | the other cells of the row), nats, of each observed cell: which cells make a row unusual.

    It is log p(x_{O∖d}) - log p(x_O) by importance sampling, see `aevb.use.surprise`. For a split of a table it is a
    density of the data as given, so for a column of real numbers it depends on their unit. If the likelihood does not
    support holes, as for images, all draws are from q(z|x); large values are then too small.

    Args:
        data: x (N, *X), as of `aevb.encode`; NaN where a cell of a table is missing.
        samples: K, about; there is at least one of each posterior.
        seed: of the noise, which is a function of the row.

    Returns:
        (N, *X), float64, on the CPU; NaN where a cell is missing, and of exposures, which are given.

    Raises:
        NoLikelihood: the model is not a density, such as an autoencoder.
    """
    if samples < 1:
        raise ValueError(f"surprise: samples must be at least 1; got {samples}.")
    data = fitting(model, data)
    count = Counter(len(data) * samples)
    parts = []
    with inference(model, derive(seed, "surprise")) as device:
        for batch in likelihood_batches(model, data, rows_at_a_time(model, samples, device)):
            parts.append(as_result(_surprises(model, batch, samples, derive(seed, "surprise"))))
            count(samples * len(batch))
    found = torch.cat(parts)
    split = split_of(data)
    if split is None or split.values.schema is None:
        return found
    model_columns = split.values.schema.model
    columns = zip(model_columns, as_result(split.stored).unbind(1), strict=True)
    found = found - torch.stack([column.log_abs_det(cells) for column, cells in columns], 1)
    return found.masked_fill(torch.tensor([column.kind == EXPOSURE for column in model_columns]), torch.nan)


def _surprises(model: Model, batch: Batch, samples: int, seed: int) -> Tensor:
    """Of one batch, (B, *X)."""
    z, log_r = mixed_draws(model, batch, samples, seed)
    q = model.posterior(batch)
    each = log_prob_each(model.decode(z, batch.y), batch.x)
    log_w = each.flatten(2).sum(-1) + model.trace_at(batch, q, z).log_pz - log_r
    total = log_w.double().logsumexp(0)
    extra = (1,) * (each.ndim - 2)
    without = (log_w.reshape(*log_w.shape, *extra) - each).double().logsumexp(0)
    return torch.where(batch.x.isnan(), torch.nan, without - total.reshape(-1, *extra))


def mixed_draws(model: Model, batch: Batch, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """z (S, B, *Z) from the mixture r of the posteriors given all cells and all but one, and log r(z), (S, B)."""
    others = batch.x.shape[1] if admits_holes(model) else 0
    rows = torch.cat(list(_with_holes(batch, others, unknown_in(model))))
    y = None if batch.y is None else batch.y.repeat(others + 1, *[1] * (batch.y.ndim - 1))
    wide = Batch(rows, y)
    each = math.ceil(samples / (others + 1))
    z = torch.cat([group.draw(each) for group in by_row(model.posterior, wide, seed)], 1)
    z = z.reshape(each * (others + 1), len(batch), *z.shape[2:])
    q = model.posterior(wide)
    refuse_point(q, "importance sampling", everywhere=True)
    log_q = q.log_prob(z.repeat(1, others + 1, *[1] * (z.ndim - 2))).reshape(len(z), others + 1, len(batch))
    return z, log_q.logsumexp(1) - math.log(others + 1)


def _with_holes(batch: Batch, columns: int, unknown: float) -> Iterator[Tensor]:
    """x (B, F), and x without column d for each d."""
    yield batch.x
    for d in range(columns):
        x = batch.x.clone()
        x[:, d] = unknown
        yield x


def log_prob_each(p: Distribution, x: Tensor) -> Tensor:
    """log p of each cell, (K, B, *X); of an image of each number."""
    if isinstance(p, ProductOfColumns):
        return p.log_prob_each(x)
    cells: Any = getattr(p, "base_dist", None)
    if cells is None:
        raise DataError("The likelihood is not a product over cells, so no cell has a surprise of its own.")
    each: Tensor = cells.log_prob(x)
    return each
