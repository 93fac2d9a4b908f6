"""A small table of mixed columns with holes, and an exact model of one, for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.data.columns import Column, Schema
from aevb.data.dataset import Dataset, Split
from aevb.data.values import Values

MIXED = Schema(
    (
        Column("real", "real", likelihood="normal", center=5.0, scale=2.0),
        Column("positive", "positive", likelihood="normal", map="log", scale=1.5, low=0.01, high=90.0),
        Column("number", "id"),
        Column("count", "count", likelihood="negative-binomial", decimals=0),
        Column("level", "categorical", likelihood="categorical", levels=("u", "v", "w")),
        Column("spiky", "real", likelihood="quantiles", scale=10.0),
        Column("angle", "angle", likelihood="von-mises"),
    )
)


def mixed_rows(n: int, seed: int = 0, holes: float = 0.1) -> Tensor:
    """Stored numbers (n, 6), float64, NaN where missing, of columns that depend on two latents."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 2, generator=g, dtype=torch.float64)
    noise = torch.randn(n, 4, generator=g, dtype=torch.float64)
    logits = 2 * torch.stack([z[:, 0], z[:, 1], -z[:, 0]], 1)
    columns = (
        5 + 2 * z[:, 0] + 0.3 * noise[:, 0],
        (z[:, 1] + 0.2 * noise[:, 1]).exp(),
        torch.poisson((1 + 0.5 * z[:, 0]).exp(), generator=g),
        torch.multinomial(logits.softmax(1), 1, generator=g).squeeze(1).double(),
        torch.where(z[:, 1] > 0, 0.0, 10 * noise[:, 2].abs()),
        torch.atan2(z[:, 1] + 0.1 * noise[:, 3], z[:, 0]),
    )
    rows = torch.stack(columns, 1)
    rows[torch.rand(rows.shape, generator=g) < holes] = torch.nan
    return rows


def mixed_table(n: int = 400) -> Dataset:
    """3/4 of n rows to train, 1/8 to validate, 1/8 to test."""
    rows, values = mixed_rows(n), Values("columns", schema=MIXED)
    parts = rows.split([n - 2 * (n // 8), n // 8, n // 8])
    return Dataset("mixed", *(Split(part, values=values) for part in parts), recipe="table")  # type: ignore[misc]
