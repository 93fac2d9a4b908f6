"""Ladders: hierarchies whose posterior and prior walk down the same steps, so that they share features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from aevb.data.batch import Data
from aevb.errors import DataError
from aevb.models.conditional import condition, frozen_log_prob, refuse_second_pass
from aevb.models.given import call, given, of_model
from aevb.models.shares import shared
from aevb.models.trace import Trace
from aevb.probability.joint import Layered, Layers, join_layers
from aevb.probability.shapes import side_by_side

Choose = Callable[[int, Distribution], Tensor]


class Rung(nn.Module, ABC):
    """One layer z_l of the top-down pass; the state h summarises the layers above."""

    shape: torch.Size  # of z_l

    @abstractmethod
    def meet(self, h: Tensor, feature: Tensor | None) -> tuple[Distribution, Distribution | None, Tensor]:
        """h (N, ...) → p(z_l|z_>l), q(z_l|z_>l, x) if there is a feature (N, ...) of x, and h for the next
        rung."""

    @abstractmethod
    def carry(self, h: Tensor, z: Tensor) -> Tensor:
        """The state below: h with what z_l (N, *Z_l) adds to it."""


@dataclass(frozen=True)
class Descent:
    """One pass down: each layer's z (N, *Z_l), p and, where x was known, q (batch N), z_1 first; the state h at the
    end."""

    z: Layers
    p: list[Distribution]
    q: list[Distribution]
    h: Tensor


class Ladder(nn.Module):
    """p(z) = p(z_L) Π_l p(z_l|z_>l),  q(z|x) = q(z_L|x) Π_l q(z_l|z_>l, x):  both from the top z_L down to z_1.

    A deterministic pass up gives a feature of x for each layer. The pass down is one loop: each rung says what p and q
    are, given the state that enters it, a latent is drawn from either, and updates the state. At its end stands p(x|z).
    As p and q of a layer are given the same layers above, KL(q ‖ p) has a term for each, in closed form, at the draws
    of the layers above: G = L groups, z_1 first as in z.

    Args:
        up: x (B, *X) → features, one for each rung in its order.
        rungs: from the top one down.
        start: (1, ...), the state that enters the top rung.
        decoder: the state at the end → p(x|z), usually a `Conditional`.
    """

    start: Tensor

    def __init__(self, up: nn.Module, rungs: Sequence[Rung], start: Tensor, decoder: nn.Module) -> None:
        super().__init__()
        self.up, self.rungs, self.decoder = up, nn.ModuleList(rungs), decoder
        self.register_buffer("start", start, persistent=False)

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """The event shapes of z_1, ..., z_L."""
        return tuple(rung.shape for rung in reversed(self.rungs))  # type: ignore[misc]

    @property
    def latent_shape(self) -> torch.Size:
        """(D,), all layers side by side."""
        return torch.Size((sum(shape.numel() for shape in self.shapes),))

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The parts whose weights have the prior p(θ) = N(0, I), where training asks for one."""
        return (self.up, self.rungs, self.decoder)

    def forward(self, data: Data, samples: int = 1) -> Trace:
        """As `trace`."""
        return self.trace(data, samples)

    def trace(self, data: Data, samples: int = 1, *, stick: bool = False) -> Trace:
        """One pass x → z_k ~ q(z|x) → p(x|z_k), k = 1..K, differentiable.

        Args:
            data: x (B, *X), or what `aevb.encode` takes, all rows at a time.
            samples: K.
            stick: hold q's parameters constant inside log q(z|x) (arXiv 1703.09194).

        Raises:
            DataError: NaN or infinity in the data, or no rows.
            ShapeError: the model reads data of another size.
        """
        if stick:
            refuse_second_pass(self.up, self.rungs)
        batch = given(self, data)
        q = self.posterior(batch)
        t = self.trace_at(batch, q, q.rsample((samples,)))
        return t.with_frozen(lambda: frozen_log_prob(_Posterior(self), t.z, batch.x)) if stick else t

    def trace_at(self, data: Data, q: Distribution, z: Tensor) -> Trace:
        """The trace of given draws z (K, B, D) of q = q(z|x)."""
        batch = given(self, data)
        assert isinstance(q, Downwards)
        found = q.at(z)
        p = Downwards(self, known=(z, found))

        def kl() -> Tensor:
            each = [kl_divergence(a, b) for a, b in zip(found.q, found.p, strict=True)]
            return torch.stack(each, -1).reshape(*z.shape[:2], -1).mean(0)

        return Trace(
            batch, z, (q, p), lambda: self._read(found, z.shape[:2]).log_prob(batch.x), lambda: q.log_prob(z), kl
        )

    def log_joint(self, data: Data, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z), (K, B)."""
        batch = given(self, data)
        p = self.prior(batch.y)
        return p.log_prob(z) + self._read(p.at(z), z.shape[:-1]).log_prob(batch.x)

    def log_posterior(self, data: Data, z: Tensor) -> Tensor:
        """log q(z | x), (K, B)."""
        return self.posterior(data).log_prob(z)

    def posterior(self, data: Data) -> Downwards:
        """q(z | x), batch (B)."""
        batch = given(self, data)
        _refuse(batch.y)
        return Downwards(self, shared(self.up, self._climb, batch.x), batch.x.shape[:1])

    def _climb(self, x: Tensor) -> Sequence[Tensor]:
        return call(self.up, "encoder x", x)  # type: ignore[no-any-return]

    def prior(self, y: Tensor | None = None) -> Downwards:
        """p(z)."""
        _refuse(y)
        return Downwards(self)

    def sample_latent(self, n: int, y: Tensor | None = None) -> Tensor:
        """n draws z ~ p(z), (n, D)."""
        return self.prior(y).sample((n,))

    def encode(self, data: Data) -> Tensor:
        """The chain of means of q, each at the means above it, (B, D): the same at every call."""
        return self.posterior(data).mean

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """p(x | z), with z's batch dimensions."""
        z = of_model(self, z)
        return self._read(self.prior(y).at(z), z.shape[:-1])

    def _read(self, found: Descent, lead: torch.Size) -> Distribution:
        """p(x|z), with batch dimensions `lead`."""
        return condition(self.decoder, found.h.unflatten(0, lead), batch_dims=len(lead))

    def descend(self, choose: Choose, n: int, features: Sequence[Tensor] | None) -> Descent:
        """The loop: N = `n` passes at a time, z_l = choose(l, its q, or its p where there are no features), l from
        0."""
        h = self.start.expand(n, *self.start.shape[1:])
        z, ps, qs = [], [], []
        for i, rung in enumerate(self.rungs):
            p, q, h = rung.meet(h, None if features is None else features[i])  # type: ignore[operator]
            z.append(choose(len(self.rungs) - 1 - i, p if q is None else q))
            h = rung.carry(h, z[-1])  # type: ignore[operator]
            ps.append(p)
            qs += [] if q is None else [q]
        return Descent(tuple(z[::-1]), ps[::-1], qs[::-1], h)


class Downwards(Layered):
    """q(z|x) of a ladder, or p(z) where there are no features, over z (*sample, *batch, D).

    The latest pass is kept, so that the density of a draw costs no second one.
    """

    has_rsample = True

    def __init__(
        self,
        ladder: Ladder,
        features: Sequence[Tensor] | None = None,
        batch: torch.Size = torch.Size(),
        known: tuple[Tensor, Descent] | None = None,
    ) -> None:
        super().__init__(batch, ladder.shapes)
        self.ladder, self.features = ladder, features
        self._known = None if known is None else (*known, torch.is_grad_enabled())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._pass(lambda _, p: p.rsample(), torch.Size((*sample_shape, *self.batch_shape)))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return self._pass(lambda _, p: p.sample(), torch.Size((*sample_shape, *self.batch_shape)))

    @property
    def mean(self) -> Tensor:
        return self._pass(lambda _, p: p.mean, self.batch_shape)

    def log_probs(self, z: Tensor) -> list[Tensor]:
        lead = side_by_side(z.shape[:-1], self.batch_shape)
        z = z if z.shape[:-1] == lead else z.expand(*lead, z.shape[-1])
        found = zip(self.conditionals(z), self.layers(z), self.shapes, strict=True)
        return [p.log_prob(z_l.reshape(-1, *shape)).reshape(lead) for p, z_l, shape in found]

    def conditionals(self, z: Tensor) -> list[Distribution]:
        """Of each layer given those above, with the dimensions of z that are no event's as one."""
        found = self.at(z)
        return found.p if self.features is None else found.q

    def at(self, z: Tensor) -> Descent:
        """The pass with these latents."""
        if not self._knows(z):
            layers = [z_l.reshape(-1, *shape) for z_l, shape in zip(self.layers(z), self.shapes, strict=True)]
            self._pass(lambda l, _: layers[l], z.shape[:-1], z)
        assert self._known is not None
        return self._known[1]

    def _knows(self, z: Tensor) -> bool:
        """Whether the latest pass was this one; one without gradients serves only where none are recorded."""
        return self._known is not None and self._known[0] is z and self._known[2] == torch.is_grad_enabled()

    def _pass(self, choose: Choose, lead: torch.Size, z: Tensor | None = None) -> Tensor:
        """A pass for all of `lead`, flattened; the features are the same for every sample."""
        features = self.features and [f.expand(*lead[:-1], *f.shape).reshape(-1, *f.shape[1:]) for f in self.features]
        found = self.ladder.descend(choose, lead.numel(), features)
        drawn = join_layers(found.z, self.shapes).reshape(*lead, -1) if z is None else z
        self._known = drawn, found, torch.is_grad_enabled()
        return drawn


class _Posterior(nn.Module):
    """x → q(z|x), as a module."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.ladder = ladder

    def forward(self, x: Tensor) -> Distribution:
        return self.ladder.posterior(x)


def _refuse(y: Tensor | None) -> None:
    if y is not None:
        raise DataError(
            "Ladder: contexts are not supported, but the data are pairs. A VAE takes contexts, with a Chain for layers."
        )
