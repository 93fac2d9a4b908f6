"""The cells of a table that a code stands for: a value for each column, with an interval or a probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.data.columns import Schema
from aevb.models.given import of_model
from aevb.models.inference import Model, as_result, inference
from aevb.probability.inverse import icdf
from aevb.use.condition import columns_of, in_units, ordered_columns


@dataclass(frozen=True)
class Cells:
    """What p(x|z) says of each column, in the units of the data; N: codes, F: columns.

    Attributes:
        values: (N, F), the median; the most probable of levels without an order and of angles.
        low, high: (N, F), the ends of the central interval; NaN where there is no order.
        share: (N, F), the probability of a level without an order; NaN of others.
    """

    values: Tensor
    low: Tensor
    high: Tensor
    share: Tensor


def cells(model: Model, z: Tensor, schema: Schema, share: float = 0.9, y: Tensor | None = None) -> Cells:
    """The columns of a table at codes z (N, *Z).

    Args:
        share: what an interval holds, a probability.
        y: conditions (N, *C), of a conditional model.

    Raises:
        DataError: the model's likelihood is not one of columns.
    """
    if not 0 < share < 1:
        raise ValueError(f"cells: share must be between 0 and 1; got {share}.")
    with inference(model, 0):
        codes = of_model(model, z)
        p = columns_of(model.decode(codes.reshape(len(codes), *model.latent_shape), y))
        shape = (len(codes), p.event_shape[0])
        levels = ((1 - share) / 2, 0.5, (1 + share) / 2)
        at = [p.of_cells(icdf, torch.full(shape, u, device=codes.device)) for u in levels]
        ordered = ordered_columns(p, schema)
        there = ordered.to(codes.device)
        best = torch.where(there, at[1], p.mode)
        likely = torch.where(there, torch.nan, p.log_prob_each(best).exp())
    low, high = (torch.where(ordered, in_units(x, schema), torch.nan) for x in (at[0], at[2]))
    return Cells(in_units(best, schema), low, high, as_result(likely))
