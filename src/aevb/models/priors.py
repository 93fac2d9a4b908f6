"""Priors p(z): conditionals without a context."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from aevb.probability.families import Shape, as_shape


class StandardNormal(nn.Module):
    """p(z) = N(0, I), the paper's prior (§3). Event shape `shape`."""

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        event = as_shape(shape)
        self.register_buffer("loc", torch.zeros(event), persistent=False)
        self.register_buffer("scale", torch.ones(event), persistent=False)

    def forward(self, *context: Tensor) -> Distribution:
        return Independent(Normal(self.loc, self.scale, validate_args=False), self.loc.ndim, validate_args=False)
