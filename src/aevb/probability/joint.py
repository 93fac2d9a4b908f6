"""The joint distribution of several latents, each drawn given the one before: its samples are tuples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

Latents = tuple[Tensor, ...]
Link = Callable[..., Distribution]  # (z, batch_dims=...) → the distribution of the latent that is drawn next


class Joint(Distribution):
    """p(z_1, ..., z_L) = Π_l p(z_l | z_before(l)); samples are tuples (z_1, ..., z_L), shapes (*sample, *batch, *Z_l).

    `event_shape` is that of z_1. `mean` is the chain of means, each at the mean before: the same at every call, but the mean
    of the joint only where the means are affine in what they are given. The distributions of the links at the latest tuple
    are kept, so that the density of a draw costs no second pass through their networks.

    Args:
        first: the distribution of the latent that is drawn first, which gives the batch shape.
        links: one per latent, in the order of the tuple; that of the first draw is not called.
        order: of drawing, positions in the tuple: (0, 1, 2) from z_1 up, (2, 1, 0) from z_L down.
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(self, first: Distribution, links: Sequence[Link], order: Sequence[int]) -> None:
        super().__init__(first.batch_shape, validate_args=False)
        self.first, self.links, self.order = first, links, order
        self._known: tuple[Latents, list[Distribution], bool] | None = None

    @property
    def event_shape(self) -> torch.Size:
        return self.conditionals(self.mean)[0].event_shape

    @property
    def mean(self) -> Latents:  # type: ignore[override]
        return self._walk(lambda _, p: p.mean)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Latents:  # type: ignore[override]
        shape = torch.Size(sample_shape)
        return self._walk(lambda _, p: p.rsample(shape) if p is self.first else p.rsample())

    def sample(self, sample_shape: Sequence[int] = ()) -> Latents:  # type: ignore[override]
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            return self._walk(lambda _, p: p.sample(shape) if p is self.first else p.sample())

    def log_prob(self, z: Latents) -> Tensor:  # type: ignore[override]
        """log p(z_1, ..., z_L), (*sample, *batch), in nats."""
        parts = self.log_probs(z)
        return sum(parts[1:], parts[0])

    def log_probs(self, z: Latents) -> list[Tensor]:
        """log p(z_l | z_before(l)) of each l, (*sample, *batch)."""
        return [p.log_prob(z_l) for p, z_l in zip(self.conditionals(z), z, strict=True)]

    def conditionals(self, z: Latents) -> list[Distribution]:
        """p(z_l | z_before(l)) of each l, in the order of the tuple."""
        if not self._knows(z):
            self._walk(lambda l, _: z[l])
        assert self._known is not None
        return self._known[1]

    def _knows(self, z: Latents) -> bool:
        """Whether the latest tuple was this one; what was computed without gradients serves only where none are asked."""
        if self._known is None or self._known[2] != torch.is_grad_enabled():
            return False
        return all(a is b for a, b in zip(self._known[0], z, strict=True))

    def _walk(self, choose: Callable[[int, Distribution], Tensor]) -> Latents:
        """Latent after latent in the order of drawing, each chosen by its place and its distribution given the last."""
        found: dict[int, Tensor] = {}
        parts: dict[int, Distribution] = {}
        p = self.first
        for l, following in zip(self.order, (*self.order[1:], None), strict=True):
            found[l], parts[l] = choose(l, p), p
            if following is not None:
                p = self.links[following](found[l], batch_dims=found[l].ndim - len(p.event_shape))
        z = tuple(found[l] for l in range(len(found)))
        self._known = z, [parts[l] for l in range(len(parts))], torch.is_grad_enabled()
        return z
