"""How rows of a table are drawn: each column on one scale of its own, named, with its range in the data's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aevb.data.columns import Schema
from aevb.data.dataset import Dataset, Split
from aevb.data.values import Values
from aevb.notation import short

SPAN = 2.5  # standard deviations of a column from white to full red or blue
NAMED = 30  # columns that are named one by one, at most
SCALED = 10_000  # rows at most, from which mean and standard deviation are taken


@dataclass(frozen=True)
class Table:
    """The columns of a table.

    Attributes:
        names: of F columns; mean, std: (F,), in the model's numbers; values: back to the data's units.
    """

    names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    values: Values

    @classmethod
    def of(cls, x: Tensor, values: Values | None = None, names: Sequence[str] | None = None) -> Table:
        """The columns of rows x (N, F) of a model's numbers."""
        rows = x[:SCALED].detach().cpu().double().flatten(1)
        mean = rows.nanmean(0).nan_to_num()
        std = (rows - mean).square().nanmean(0).sqrt()  # NaN where a column has no number
        named = tuple(names or (f"column {i}" for i in range(rows.shape[1])))
        return cls(named, mean, torch.where(std > 0, std, 1.0), values or Values("raw"))

    @classmethod
    def of_units(cls, x: Tensor, values: Values, names: Sequence[str] | None = None) -> Table | None:
        """The columns of rows x (N, F) that a model read or made; None of images.

        Standardised columns are on the scale of their train rows, others on that of x.
        """
        if x.ndim != 2:
            return None
        made = cls.of(x, values, names)
        if values.kind != "standardized":
            return made
        return replace(made, mean=torch.zeros_like(made.mean), std=torch.ones_like(made.std))

    @classmethod
    def of_data(cls, data: Any) -> Table | None:
        """The columns of a data set's train split, or of a split; None where its data points are no rows of numbers."""
        split = data.train if isinstance(data, Dataset) else data
        if not isinstance(split, Split) or len(split.shape) != 1 or not len(split):
            return None
        schema = split.values.schema
        names = getattr(data, "columns", None) or ([column.name for column in schema.model] if schema else None)
        return cls.of_units(split[torch.arange(min(len(split), SCALED))], split.values, names)

    def colours(self, x: Tensor) -> Tensor:
        """x (N, F) → from -1, blue, to 1, red."""
        return ((x.detach().cpu().double().flatten(1) - self.mean) / (SPAN * self.std)).float()

    def ranges(self) -> list[str]:
        """Of each column what blue and red are, in the data's units."""
        if self.values.schema is not None:
            return self.ranges_of(self.values.schema)
        if self.values.dtype and self.values.dtype != "bool":
            ends = [self.values.inverse((self.mean + s * SPAN * self.std).float()) for s in (-1, 1)]
        else:
            ends = [(self.mean + s * SPAN * self.std).numpy() for s in (-1, 1)]
        return [f"{short(low)} to {short(high)}" for low, high in zip(*ends, strict=True)]

    def ranges_of(self, schema: Schema) -> list[str]:
        """Of each column of a table what blue and red are, in its own words."""
        from aevb.data.writing import array_named

        each = torch.stack([self.mean - SPAN * self.std, self.mean + SPAN * self.std])
        ends = schema.inverse(each).numpy().T
        words = [array_named(column, low_high).to_pylist() for column, low_high in zip(schema.model, ends, strict=True)]
        return [" to ".join(short(w) if isinstance(w, float) else str(w) for w in pair) for pair in words]

    def labels(self) -> list[str]:
        """A name and a range for each column; none where there are too many."""
        if len(self.names) > NAMED:
            return []
        return [f"{name}, {ends}" for name, ends in zip(self.names, self.ranges(), strict=True)]
