"""The layers of a hierarchy, one after another from the top: what lies below a latent that is moved by hand."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from aevb.models.given import of_model
from aevb.models.inference import Model, inference
from aevb.probability.joint import Layered, join_layers


def following(model: Model, z: Tensor, layer: int, y: Tensor | None = None) -> Tensor:
    """Codes whose layers below one are the means of p(z_l | the layers above), from there downwards.

    Args:
        z: codes (N, D), the layers side by side, z_1 first; layer: the one that stays, with those above it, from 0.
        y: conditions (N, *C), of a conditional model.

    Returns:
        (N, D); z itself where there is nothing below, or no hierarchy.
    """
    with inference(model, 0):
        codes = of_model(model, z)
        prior: Any = getattr(model, "prior", None)
        p = None if prior is None else prior(*([] if y is None else [of_model(model, y)]))
        if not isinstance(p, Layered):
            return codes.cpu()
        for below in range(layer - 1, -1, -1):
            mean = p.conditionals(codes)[below].mean
            parts = list(p.layers(codes))
            parts[below] = mean.reshape(parts[below].shape)
            codes = join_layers(parts, p.shapes)
        return codes.cpu()
