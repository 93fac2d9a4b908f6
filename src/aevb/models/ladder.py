"""Ladders: hierarchies whose posterior and prior walk down the same steps, so that they share features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from aevb.errors import DataError
from aevb.models.conditional import condition, frozen_log_prob, refuse_second_pass
from aevb.models.latents import Latent, Latents, layers
from aevb.models.trace import Trace

Choose = Callable[[int, Distribution], Tensor]


class Rung(nn.Module, ABC):
    """One layer z_l of a ladder, met on the way down with a state h, which is all that is known of the layers above."""

    shape: torch.Size  # of z_l

    @abstractmethod
    def meet(self, h: Tensor, feature: Tensor | None) -> tuple[Distribution, Distribution | None, Tensor]:
        """h (N, ...) → p(z_l|z_>l), q(z_l|z_>l, x) if there is a feature (N, ...) of x, and h as it goes on from here."""

    @abstractmethod
    def carry(self, h: Tensor, z: Tensor) -> Tensor:
        """The state below: h with what z_l (N, *Z_l) adds to it."""


@dataclass(frozen=True)
class Descent:
    """One pass down: latents z, z_1 first, each layer's p and, where x was known, q (batch N), the state h at the end."""

    z: Latents
    p: list[Distribution]
    q: list[Distribution]
    h: Tensor
    graded: bool  # whether gradients can be taken


class Ladder(nn.Module):
    """p(z) = p(z_L) Π_l p(z_l|z_>l),  q(z|x) = q(z_L|x) Π_l q(z_l|z_>l, x):  both from the top z_L down to z_1.

    A deterministic pass up gives a feature of x for each layer. The pass down is one loop: each rung says what p and q are,
    given the state that it meets, a latent is drawn from either, and the state goes on with it. At its end stands p(x|z).
    As p and q of a layer are given the same layers above, KL(q ‖ p) has a term for each, in closed form, at the draws of
    the layers above: G = L groups, z_1 first as in the tuple z.

    Args:
        up: x (B, *X) → features, one for each rung in its order.
        rungs: from the top one down.
        start: (1, ...), the state that the top rung meets.
        decoder: the state at the end → p(x|z), usually a `Conditional`.
    """

    start: Tensor

    def __init__(self, up: nn.Module, rungs: Sequence[Rung], start: Tensor, decoder: nn.Module) -> None:
        super().__init__()
        self.up, self.rungs, self.decoder = up, nn.ModuleList(rungs), decoder
        self.register_buffer("start", start, persistent=False)

    def forward(self, x: Tensor, samples: int = 1) -> Trace:
        return self.trace(x, samples)

    def trace(self, x: Tensor, samples: int = 1, *, stick: bool = False, given: Tensor | None = None) -> Trace:
        if stick:
            refuse_second_pass(self.up, self.rungs)
        q = self.posterior(x, given)
        z = q.rsample((samples,))
        found = q.at(z)
        p = Downwards(self, known=found)

        def log_qz() -> Tensor:
            return frozen_log_prob(_Posterior(self), z, x) if stick else q.log_prob(z)

        def kl() -> Tensor:
            each = [kl_divergence(a, b) for a, b in zip(found.q, found.p, strict=True)]
            return torch.stack(each, -1).reshape(*z[0].shape[:2], -1).mean(0)

        return Trace(x, z, (q, p), lambda: self._read(found, z).log_prob(x), log_qz, kl)

    def log_joint(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z), (K, B)."""
        p = self.prior(given)
        return p.log_prob(layers(z)) + self._read(p.at(layers(z)), layers(z)).log_prob(x)

    def log_posterior(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log q(z | x), (K, B)."""
        return self.posterior(x, given).log_prob(layers(z))

    def posterior(self, x: Tensor, given: Tensor | None = None) -> Downwards:
        _refuse(given)
        return Downwards(self, self.up(x), x.shape[:1])

    def prior(self, given: Tensor | None = None) -> Downwards:
        _refuse(given)
        return Downwards(self)

    def sample_latent(self, n: int, given: Tensor | None = None) -> Latents:
        return self.prior(given).sample((n,))

    def encode(self, x: Tensor, given: Tensor | None = None) -> Latents:
        """The chain of means of q, each at the means above it: the same at every call."""
        return self.posterior(x, given).mean

    def decode(self, z: Latent, given: Tensor | None = None) -> Distribution:
        return self._read(self.prior(given).at(layers(z)), layers(z))

    def _read(self, found: Descent, z: Latents) -> Distribution:
        """p(x|z), with the batch dimensions of z."""
        lead = self.lead(z)
        return condition(self.decoder, found.h.unflatten(0, lead), batch_dims=len(lead))

    def lead(self, z: Latents) -> torch.Size:
        """The dimensions of z that are no event's."""
        shape: torch.Size = self.rungs[-1].shape  # type: ignore[assignment]
        return z[0].shape[: z[0].ndim - len(shape)]

    def descend(self, choose: Choose, n: int, features: Sequence[Tensor] | None) -> Descent:
        """The loop: N = `n` passes at a time, z_l = choose(l, its q, or its p where there are no features), l from 0."""
        h = self.start.expand(n, *self.start.shape[1:])
        z, ps, qs = [], [], []
        for i, rung in enumerate(self.rungs):
            p, q, h = rung.meet(h, None if features is None else features[i])  # type: ignore[operator]
            z.append(choose(len(self.rungs) - 1 - i, p if q is None else q))
            h = rung.carry(h, z[-1])  # type: ignore[operator]
            ps.append(p)
            qs += [] if q is None else [q]
        return Descent(tuple(z[::-1]), ps[::-1], qs[::-1], h, torch.is_grad_enabled())


class Downwards(Distribution):
    """q(z|x) of a ladder, or p(z) where there are no features: samples are tuples (z_1, ..., z_L), (*sample, *batch, *Z_l).

    The latest pass is kept, so that the density of a draw costs no second one.
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(
        self,
        ladder: Ladder,
        features: Sequence[Tensor] | None = None,
        batch: torch.Size = torch.Size(),
        known: Descent | None = None,
    ) -> None:
        super().__init__(batch, validate_args=False)
        self.ladder, self.features, self._known = ladder, features, known

    def rsample(self, sample_shape: Sequence[int] = ()) -> Latents:  # type: ignore[override]
        return self._pass(lambda _, p: p.rsample(), torch.Size((*sample_shape, *self.batch_shape)))

    def sample(self, sample_shape: Sequence[int] = ()) -> Latents:  # type: ignore[override]
        with torch.no_grad():
            return self._pass(lambda _, p: p.sample(), torch.Size((*sample_shape, *self.batch_shape)))

    @property
    def mean(self) -> Latents:  # type: ignore[override]
        return self._pass(lambda _, p: p.mean, self.batch_shape)

    def log_prob(self, z: Latents) -> Tensor:  # type: ignore[override]
        lead, each = self.ladder.lead(z), zip(self.conditionals(z), z, strict=True)
        return sum(p.log_prob(z_l.reshape(-1, *z_l.shape[len(lead) :])).reshape(lead) for p, z_l in each)  # type: ignore[return-value]

    def conditionals(self, z: Latents) -> list[Distribution]:
        """Of each layer given those above, with the dimensions of z that are no event's as one."""
        found = self.at(z)
        return found.p if self.features is None else found.q

    def at(self, z: Latents) -> Descent:
        """The pass with these latents."""
        if not self._knows(z):
            n = len(self.ladder.lead(z))
            self._pass(lambda l, _: z[l].reshape(-1, *z[l].shape[n:]), self.ladder.lead(z), z)
        assert self._known is not None
        return self._known

    def _knows(self, z: Latents) -> bool:
        """Whether the latest pass was this one; one without gradients serves only where none are asked."""
        known = self._known
        if known is None or known.graded != torch.is_grad_enabled():
            return False
        return all(a is b for a, b in zip(known.z, z, strict=True))

    def _pass(self, choose: Choose, lead: torch.Size, z: Latents | None = None) -> Latents:
        """A pass for all of `lead`, flattened; the features are the same for every sample."""
        features = self.features and [f.expand(*lead[:-1], *f.shape).reshape(-1, *f.shape[1:]) for f in self.features]
        found = self.ladder.descend(choose, lead.numel(), features)
        drawn = z or tuple(z_l.reshape(*lead, *z_l.shape[1:]) for z_l in found.z)
        self._known = Descent(drawn, found.p, found.q, found.h, found.graded)
        return drawn


class _Posterior(nn.Module):
    """x → q(z|x), as a module."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.ladder = ladder

    def forward(self, x: Tensor) -> Distribution:
        return self.ladder.posterior(x)


def _refuse(given: Tensor | None) -> None:
    if given is not None:
        raise DataError("Ladder: takes no contexts, but the data are pairs. A VAE takes them, with a Chain for a hierarchy.")
