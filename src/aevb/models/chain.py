"""Several layers of latents in a row: a conditional whose samples hold all layers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from aevb.errors import ShapeError
from aevb.models.conditional import Conditional, condition
from aevb.probability.joint import Joint


class Chain(nn.Module):
    """A Markov chain of latents z = (z_1, ..., z_L), z_1 being the one that the decoder reads.

        encoder   Chain(link_1, ..., link_L):        q(z|x) = q(z_1|x) q(z_2|z_1) ... q(z_L|z_{L-1})
        prior     Chain.prior(link_1, ..., link_L):  p(z) = p(z_L) p(z_{L-1}|z_L) ... p(z_1|z_2)

    the model of the importance-weighted autoencoder with several stochastic layers (Burda et al. 2015, arXiv
    1509.00519). `VAE` takes both as its encoder and its prior. z is one vector (K, B, D), D = Σ_l D_l; `layers` gives
    its parts. The KL has a group for each layer, estimated from the draws.

    Args:
        links: link_l gives z_l: a `Conditional` of the latent drawn before. The one that is drawn first is called with
            the contexts: x, and y where there is one; the prior's with y or nothing, as a `StandardNormal` is.
        order: in which the latents are drawn, positions in the hierarchy.
    """

    def __init__(self, *links: nn.Module, order: Sequence[int] | None = None) -> None:
        super().__init__()
        self.links = nn.ModuleList(links)
        self.order = tuple(range(len(links)) if order is None else order)
        if not links or sorted(self.order) != list(range(len(links))):
            raise ShapeError(f"Chain: {len(links)} links need an order of 0 to {len(links) - 1}; got {self.order}.")
        self.shapes = tuple(_shape(link) for link in links)
        self.shape = torch.Size((sum(shape.numel() for shape in self.shapes),))

    @classmethod
    def prior(cls, *links: nn.Module) -> Chain:
        """p(z_1|z_2), ..., p(z_L), drawn from the last to the first."""
        return cls(*links, order=range(len(links))[::-1])

    def forward(self, *context: Tensor, batch_dims: int = 1) -> Joint:
        first = condition(self.links[self.order[0]], *context, batch_dims=batch_dims)
        return Joint(first, [partial(condition, link) for link in self.links], self.order, self.shapes)


def _shape(link: nn.Module) -> torch.Size:
    """The event shape of a link's latent."""
    if isinstance(link, Conditional):
        return link.family.shape
    shape: torch.Size = link().event_shape
    return shape
