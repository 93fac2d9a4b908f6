"""Contexts: a batch of pairs (x, y), and a model that knows the y of its batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from aevb.models.latents import Latent
from aevb.models.trace import LatentModel, Trace


class Pair(NamedTuple):
    """A batch of data and of their contexts: x (B, *X), y (B, *C). `Pair(x, y).x`; an index would be the tuple's."""

    x: Tensor
    y: Tensor

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        return self.x.dtype


Batch = Tensor | Pair


class Given:
    """p(x, z | y) = p(z|y) p(x|z, y) with q(z|x, y), at the contexts y of one batch (Sohn et al. 2015, conditional VAE).

    A `LatentModel` like the one it wraps, whose `given` is y unless another is passed. So an objective of log p(x) is one of
    log p(x|y) without knowing it. Training and evaluation wrap a model in it where the data come as pairs.

    Args:
        model: whose networks read the context: `Conditional` puts it beside x or z; a `Conditional` as prior reads it alone.
        y: (B, *C), a context for each of the B data points, or of the B draws from the prior, that are asked about.
    """

    def __init__(self, model: LatentModel, y: Tensor) -> None:
        self.model, self.y = model, y

    def trace(self, x: Tensor, samples: int = 1, *, stick: bool = False, given: Tensor | None = None) -> Trace:
        return self.model.trace(x, samples, stick=stick, given=self._context(given))

    def log_joint(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log p(x, z | y), (K, B)."""
        return self.model.log_joint(x, z, self._context(given))

    def log_posterior(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log q(z | x, y), (K, B)."""
        return self.model.log_posterior(x, z, self._context(given))

    def posterior(self, x: Tensor, given: Tensor | None = None) -> Distribution:
        return self.model.posterior(x, self._context(given))

    def sample_latent(self, n: int, given: Tensor | None = None) -> Latent:
        return self.model.sample_latent(n, self._context(given))

    def encode(self, x: Tensor, given: Tensor | None = None) -> Latent:
        return self.model.encode(x, self._context(given))

    def decode(self, z: Latent, given: Tensor | None = None) -> Distribution:
        return self.model.decode(z, self._context(given))

    def _context(self, given: Tensor | None) -> Tensor:
        return self.y if given is None else given


def arguments(batch: Batch) -> tuple[Tensor, ...]:
    """(x,), or (x, y) of a `Pair`: the arguments of `posterior`."""
    return tuple(batch) if isinstance(batch, Pair) else (batch,)


def repeated(model: LatentModel, times: int) -> LatentModel:
    """The model for a batch `times` over, one after another: where it is given y, so is y."""
    return Given(model.model, torch.cat([model.y] * times)) if isinstance(model, Given) else model


def conditioned(model: LatentModel, batch: Batch) -> tuple[LatentModel, Tensor]:
    """The model and x as they are for a batch of x alone; the model given y, and x, for a `Pair`."""
    return (Given(model, batch.y), batch.x) if isinstance(batch, Pair) else (model, batch)
