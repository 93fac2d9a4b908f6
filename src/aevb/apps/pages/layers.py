"""The layers of a hierarchy in a page: those below one that is moved take the means of p(z_l | the layers above)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aevb.apps.pages.graph import UnknownStep, graph_of
from aevb.apps.pages.weights import packed
from aevb.models.inference import evaluation_mode
from aevb.probability.joint import join_layers


class Below(nn.Module):
    """z (1, D), and perhaps y (1, C), → z with one layer at its mean, given those above it."""

    def __init__(self, model: Any, layer: int) -> None:
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        p = self.model.prior() if y is None else self.model.prior(y)
        parts = list(p.layers(z))
        mean = p.conditionals(z)[self.layer].mean
        parts[self.layer] = mean.reshape(parts[self.layer].shape)
        return (join_layers(parts, p.shapes),)


def steps_below(model: Any, layers: int, classes: int = 0) -> list[dict[str, Any]]:
    """For JSON, of each layer but the last the network that gives its mean; nothing where no page knows a step.

    Args:
        layers: of the hierarchy; classes: of a conditional model.
    """
    inputs = {"z": torch.zeros(1, model.latent_shape.numel()), **({"y": torch.eye(classes)[:1]} if classes else {})}
    try:
        with torch.no_grad(), evaluation_mode(model):
            found = [graph_of(Below(model, layer), inputs, ["z"]) for layer in range(layers - 1)]
    except UnknownStep:
        return []
    return [{**graph.to_dict(), "constants": packed(graph.constants)} for graph in found]
