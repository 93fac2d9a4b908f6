"""The joint distribution of several layers of latents, each drawn given the one before; a sample is one vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.errors import ShapeError
from aevb.parts import Offers
from aevb.probability.offers import common, read_offers

Layers = tuple[Tensor, ...]
Link = Callable[..., Distribution]  # (z, batch_dims=...) → the distribution of the latent that is drawn next


def split_layers(z: Tensor, shapes: Sequence[torch.Size]) -> Layers:
    """z (*lead, D) as its layers (*lead, *Z_l), D = Σ_l D_l; they are views of z.

    Raises:
        ShapeError: z has another size.
    """
    sizes = [shape.numel() for shape in shapes]
    if z.shape[-1] != sum(sizes):
        each = " + ".join(str(tuple(shape)) for shape in shapes)
        raise ShapeError(f"The layers of a hierarchy: z has {sum(sizes)} numbers, {each}; got {z.shape[-1]}.")
    parts = z.split(sizes, -1)
    return tuple(part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True))


def join_layers(layers: Sequence[Tensor], shapes: Sequence[torch.Size]) -> Tensor:
    """Layers (*lead, *Z_l) as one vector (*lead, D)."""
    return torch.cat(
        [z.reshape(*z.shape[: z.ndim - len(shape)], shape.numel()) for z, shape in zip(layers, shapes, strict=True)], -1
    )


class Layered(Distribution, ABC):
    """p(z_1, ..., z_L) over vectors z (*sample, *batch, D), which hold the flattened layers side by side.

    Attributes:
        shapes: the event shapes of z_1, ..., z_L.
    """

    arg_constraints = {}

    def __init__(self, batch_shape: torch.Size, shapes: Sequence[torch.Size]) -> None:
        self.shapes = tuple(shapes)
        size = torch.Size((sum(shape.numel() for shape in self.shapes),))
        super().__init__(batch_shape, size, validate_args=False)

    @abstractmethod
    def conditionals(self, z: Tensor) -> Sequence[Distribution]:
        """The distribution of each layer given those that are drawn before it, z_1 first."""

    @abstractmethod
    def log_probs(self, z: Tensor) -> list[Tensor]:
        """The log density of each layer given those that are drawn before it, (*sample, *batch), in nats."""

    def layers(self, z: Tensor) -> Layers:
        """The layers of z, z_1 first."""
        return split_layers(z, self.shapes)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z_1, ..., z_L) = Σ_l log p(z_l | ·), (*sample, *batch), in nats."""
        parts = self.log_probs(value)
        return sum(parts[1:], parts[0])

    @property
    def offers(self) -> Offers:
        """What all layers offer."""
        return common([read_offers(p) for p in self.conditionals(self.mean)])

    @property
    def support(self) -> Any:
        """ℝᴰ, or what each layer covers, one beside the other."""
        found = [_of_numbers(p.support) for p in self.conditionals(self.mean)]
        if all(isinstance(c, type(constraints.real)) for c in found):
            return constraints.real_vector
        sizes = [shape.numel() for shape in self.shapes]
        return constraints.cat([constraints.independent(c, 1) for c in found], -1, sizes)


def _of_numbers(support: Any) -> Any:
    """The constraint of each number of a layer."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support.event_dim:
        raise ShapeError(
            f"The layers of a hierarchy need numbers that are free of each other; one layer is on {support}."
        )
    return support


class Joint(Layered):
    """p(z_1, ..., z_L) = Π_l p(z_l | z_before(l)).

    `mean` is the chain of means, each at the mean before: the same at every call, but the mean of the joint only where
    the means are affine in their condition. The distributions of the links at the latest z are kept, so that the
    density of a draw costs no second pass through their networks.

    Args:
        first: the distribution of the latent that is drawn first, which gives the batch shape.
        links: one per latent, z_1 first; the link of the first draw is not called.
        order: of drawing, positions in the hierarchy: (0, 1, 2) from z_1 up, (2, 1, 0) from z_L down.
        shapes: the event shapes of z_1, ..., z_L.
    """

    def __init__(
        self, first: Distribution, links: Sequence[Link], order: Sequence[int], shapes: Sequence[torch.Size]
    ) -> None:
        super().__init__(first.batch_shape, shapes)
        self.first, self.links, self.order = first, links, order
        self._known: tuple[Tensor, list[Distribution], bool] | None = None

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether each layer's draws have a derivative; links that are not called yet count as the first does."""
        return self.first.has_rsample

    @property
    def mean(self) -> Tensor:
        return self._walk(lambda _, p: p.mean)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        return self._walk(lambda _, p: p.rsample(shape) if p is self.first else p.rsample())

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            return self._walk(lambda _, p: p.sample(shape) if p is self.first else p.sample())

    def log_probs(self, z: Tensor) -> list[Tensor]:
        return [p.log_prob(z_l) for p, z_l in zip(self.conditionals(z), self.layers(z), strict=True)]

    def conditionals(self, z: Tensor) -> list[Distribution]:
        """p(z_l | z_before(l)) of each l, z_1 first."""
        if not self._knows(z):
            layers = self.layers(z)
            self._walk(lambda l, _: layers[l], z)
        assert self._known is not None
        return self._known[1]

    def _knows(self, z: Tensor) -> bool:
        """Whether the latest z was this one; a pass without gradients serves only where none are recorded."""
        return self._known is not None and self._known[0] is z and self._known[2] == torch.is_grad_enabled()

    def _walk(self, choose: Callable[[int, Distribution], Tensor], z: Tensor | None = None) -> Tensor:
        """Layer after layer in the order of drawing, each chosen by its place and its distribution given the last."""
        found: dict[int, Tensor] = {}
        parts: dict[int, Distribution] = {}
        p = self.first
        for l, following in zip(self.order, (*self.order[1:], None), strict=True):
            found[l], parts[l] = choose(l, p), p
            if following is not None:
                p = self.links[following](found[l], batch_dims=found[l].ndim - len(p.event_shape))
        z = join_layers([found[l] for l in range(len(found))], self.shapes) if z is None else z
        self._known = z, [parts[l] for l in range(len(parts))], torch.is_grad_enabled()
        return z
