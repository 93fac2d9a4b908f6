"""A run's decoder as a page holds it: its steps, its weights, and what its numbers mean in the units of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aevb.apps.pages.graph import Graph, graph_of
from aevb.apps.pages.weights import packed
from aevb.data.columns import Column, Schema
from aevb.data.values import Values
from aevb.models.inference import evaluation_mode
from aevb.probability.columns import Group, ProductOfColumns
from aevb.probability.distributions import Levels
from aevb.probability.inverse import icdf

SHARES = (0.5, 0.05, 0.95)  # below the median of a cell, and below the ends of its interval


class Means(nn.Module):
    """z (1, D), and perhaps y (1, C), → the mean of p(x|z), (1, *X)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.model.decode(z.reshape(len(z), *self.model.latent_shape), y).mean,)


class CellsOf(nn.Module):
    """z (1, D) → of each group of columns median and interval, else the mean, (1, n); of levels shares (1, n, C)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        p = self.model.decode(z.reshape(len(z), *self.model.latent_shape), y)
        return tuple(x for group in p.groups for x in self._of(group.cells))

    def _of(self, cells: Any) -> list[Tensor]:
        if isinstance(cells, Levels):
            return [cells.base.probs]
        mean = cells.mean
        return [icdf(cells, torch.full_like(mean, u)) for u in SHARES] if has_interval(cells) else [mean]


def has_interval(cells: Any) -> bool:
    """Whether PyTorch itself knows the quantiles of these cells."""
    return icdf.dispatch(type(cells)) is icdf.dispatch(object)


def names_of(groups: Sequence[Group]) -> list[str]:
    """What `CellsOf` gives, by name."""
    found = []
    for i, group in enumerate(groups):
        if isinstance(group.cells, Levels):
            found.append(f"shares{i}")
        else:
            found += [f"median{i}", f"low{i}", f"high{i}"] if has_interval(group.cells) else [f"mean{i}"]
    return found


@dataclass(frozen=True)
class PageDecoder:
    """A decoder for a page.

    Attributes:
        graph: its steps; about: for JSON, what goes in and what comes out.
    """

    graph: Graph
    about: Mapping[str, Any]

    def to_dict(self, small: bool = False) -> dict[str, Any]:
        """For JSON, with the weights as float16, or as int8 where they are to be `small`."""
        network = {**self.graph.to_dict(), "constants": packed(self.graph.constants, small)}
        return {**self.about, "weights": "int8" if small else "float16", "network": network}

    def fitting(self, room: int) -> dict[str, Any] | None:
        """As `to_dict`, of at most `room` bytes as JSON; None where even int8 is too large."""
        for small in (False, True):
            made = self.to_dict(small)
            if len(json.dumps(made)) <= room:
                return made
        return None


def page_decoder(model: Any, values: Values, limits: tuple[float, float], classes: Sequence[str] = ()) -> PageDecoder:
    """The decoder of a model for a page.

    Args:
        values: of the data.
        limits: the values of black and of white, of images.
        classes: names of all classes of y, in the order of its numbers, of a conditional model.

    Raises:
        UnknownStep: it takes a step that no page knows.
    """
    z = torch.zeros(1, model.latent_shape.numel())
    inputs = {"z": z, **({"y": torch.eye(len(classes))[:1]} if classes else {})}
    with torch.no_grad(), evaluation_mode(model):
        p = model.decode(z.reshape(1, *model.latent_shape), inputs.get("y"))
        if isinstance(p, ProductOfColumns):
            graph = graph_of(CellsOf(model), inputs, names_of(p.groups))
            return PageDecoder(graph, {"form": "table", "columns": table_columns(values.columns, p.groups)})
        image = len(p.event_shape) in (2, 3)
        graph = graph_of(Means(model), inputs, ["mean" if image else "mean0"])
    if image:
        return PageDecoder(graph, {"form": "image", "shape": list(p.event_shape), "limits": list(limits)})
    return PageDecoder(graph, {"form": "table", "columns": plain_columns(values, p.event_shape.numel())})


def table_columns(schema: Schema, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The modelled columns for JSON, each with its group, its place in it, and the group's size."""
    keys = ("group", "place", "of")
    at = {
        int(place): dict(zip(keys, (i, k, len(group.places)), strict=True))
        for i, group in enumerate(groups)
        for k, place in enumerate(group.places)
    }
    return [{**column_of(column), **at[d]} for d, column in enumerate(schema.model)]


def column_of(column: Column) -> dict[str, Any]:
    """What a column means, for JSON."""
    keys = ("name", "kind", "map", "center", "scale", "low", "high", "decimals", "multiple", "holes", "why")
    own = {key: getattr(column, key) for key in (*keys, "likelihood")}
    return {**own, "levels": [str(level) for level in column.levels]}


def plain_columns(values: Values, count: int) -> list[dict[str, Any]]:
    """The columns of rows without a schema: numbers, on the scale of the data."""
    one = torch.ones(count, dtype=torch.float64)
    known = values.mean is not None and values.std is not None
    mean, std = (values.mean, values.std) if known else (0 * one, one)
    assert mean is not None
    assert std is not None
    pairs = zip(mean.flatten().tolist(), std.flatten().tolist(), strict=True)
    return [
        column_of(Column(f"column {i}", "real", center=center, scale=scale)) | {"group": 0, "place": i}
        for i, (center, scale) in enumerate(pairs)
    ]
