"""Hierarchies seen as one vector: the layers of z side by side, for methods that move z as a point of ℝᴰ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.errors import ShapeError
from aevb.models.ladder import Downwards
from aevb.models.latents import Latent, Latents, apart, layers, side_by_side
from aevb.models.trace import LatentModel, Trace
from aevb.probability.joint import Joint


def flat(model: LatentModel, like: Latent) -> LatentModel:
    """A model whose latents are one tensor: itself, or its layers side by side. `like` is any z of it, (N, *Z)."""
    return model if isinstance(like, Tensor) else SideBySide(model, like)


class SideBySide:
    """The same p(x, z) and q(z|x) of z (K, B, D), which holds the layers (z_1, ..., z_L), flattened, D = Σ_l D_l.

    A `LatentModel`. To have the layers side by side moves no mass: densities are the same numbers.

    Args:
        like: a tuple of latents (N, *Z_l) with the shapes of the layers.
    """

    def __init__(self, model: LatentModel, like: Latents) -> None:
        self.model, self.like = model, like

    def trace(self, x: Tensor, samples: int = 1, *, stick: bool = False, given: Tensor | None = None) -> Trace:
        t = self.model.trace(x, samples, stick=stick, given=given)
        pair = flattened(t.q), flattened(t.p)
        return Trace(x, side_by_side(t.z, 2), pair, lambda: t.log_px, lambda: t.log_qz, lambda: t.kl)

    def log_joint(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log p(x, z), (K, B)."""
        return self.model.log_joint(x, self._apart(z), given)

    def log_posterior(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log q(z | x), (K, B)."""
        return self.model.log_posterior(x, self._apart(z), given)

    def posterior(self, x: Tensor, given: Tensor | None = None) -> Distribution:
        return flattened(self.model.posterior(x, given))

    def sample_latent(self, n: int, given: Tensor | None = None) -> Tensor:
        return side_by_side(self.model.sample_latent(n, given))

    def encode(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        return side_by_side(self.model.encode(x, given))

    def decode(self, z: Latent, given: Tensor | None = None) -> Distribution:
        return self.model.decode(self._apart(z), given)

    def _apart(self, z: Latent) -> Latent:
        return apart(z, self.like) if isinstance(z, Tensor) else z


def flattened(p: Distribution) -> Distribution:
    """A distribution of tuples as one of vectors; one of tensors as it is."""
    return Flattened(p) if isinstance(p, Joint | Downwards) else p


class Flattened(Distribution):
    """p(z_1, ..., z_L) over z (*sample, *batch, D), the layers side by side."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, p: Joint | Downwards) -> None:
        self.p, self.has_rsample = p, p.has_rsample
        self.like = tuple(z_l if p.batch_shape else z_l.unsqueeze(0) for z_l in p.mean)
        super().__init__(p.batch_shape, torch.Size((sum(z_l[0].numel() for z_l in self.like),)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """ℝᴰ, or what each layer covers, one beside the other."""
        found = [_of_numbers(p_l.support) for p_l in self.p.conditionals(self.p.mean)]
        if all(isinstance(c, type(constraints.real)) for c in found):
            return constraints.real_vector
        sizes = [z_l[0].numel() for z_l in self.like]
        return constraints.cat([constraints.independent(c, 1) for c in found], -1, sizes)

    @property
    def mean(self) -> Tensor:
        return side_by_side(self.p.mean, len(self.batch_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return side_by_side(self.p.rsample(torch.Size(sample_shape)), len(sample_shape) + len(self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return side_by_side(self.p.sample(torch.Size(sample_shape)), len(sample_shape) + len(self.batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.p.log_prob(layers(apart(value, self.like)))


def _of_numbers(support: Any) -> Any:
    """What each number of a layer is constrained to."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support.event_dim:
        raise ShapeError(
            f"The layers of a hierarchy stand side by side where each number is free; one of these is on {support}."
        )
    return support
