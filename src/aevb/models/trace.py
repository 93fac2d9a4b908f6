"""The trace, and what may be asked of a model: the one interface between models and everything above them.

One key of dimensions for the whole library: K samples, B data points, D latent size, G groups of latents; *X and *Z are
event shapes. All densities are in nats, with every constant kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from aevb.data.batch import Batch, Data
from aevb.errors import ShapeError
from aevb.parts import HIERARCHY, Member, Needs, Offers, check
from aevb.probability.joint import Layered
from aevb.probability.offers import seen

Lazy = Callable[[], Tensor]


class once:
    """A property computed when first read; `functools.cached_property` less its lock, which torch.compile cannot
    trace."""

    def __init__(self, compute: Callable[[Any], Tensor]) -> None:
        self.compute, self.name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, trace: Any, owner: type) -> Tensor:
        value = self.compute(trace)
        setattr(trace, self.name, value)  # found from now on before this descriptor
        return value


class Trace:
    """One pass x → z_k ~ q(z|x) → p(x|z_k), k = 1..K. A density is computed when it is first read.

    Attributes:
        batch: x (B, *X), with y, rows and N where these are known; z: (K, B, *Z), in a hierarchy (K, B, D), the layers
            side by side; q: q(z|x); p: p(z).
        log_px: (K, B), log p(x|z);  log_pz: (K, B), log p(z);  log_qz: (K, B), log q(z|x).
        kl: (B, G), KL(q(z|x) ‖ p(z)) per group of latents, in closed form where there is one.
        log_w: (K, B), log p(x|z) + log p(z) - log q(z|x), the log importance weight.
    """

    def __init__(
        self,
        batch: Batch,
        z: Tensor,
        pair: tuple[Distribution, Distribution],
        log_px: Lazy,
        log_qz: Lazy,
        kl: Lazy | None = None,
    ) -> None:
        self.batch, self.z, (self.q, self.p) = batch, z, pair
        if self.q.event_shape != self.p.event_shape:
            ours, its = tuple(self.q.event_shape), tuple(self.p.event_shape)
            raise ShapeError(f"q(z|x) is over the shape {ours}, but the prior p(z) over {its}. Give both one shape.")
        self._log_px, self._log_qz, self._kl = log_px, log_qz, kl

    @property
    def x(self) -> Tensor:
        """The data of the batch, (B, *X)."""
        return self.batch.x

    def with_frozen(self, log_qz: Lazy) -> Trace:
        """The same trace with log q(z|x) computed by `log_qz`, which holds q's parameters constant."""
        return Trace(self.batch, self.z, (self.q, self.p), self._log_px, log_qz, self._kl)

    @once
    def log_px(self) -> Tensor:
        return self._log_px()

    @once
    def log_qz(self) -> Tensor:
        return self._log_qz()

    @once
    def log_pz(self) -> Tensor:
        return self.p.log_prob(self.z)

    @once
    def kl(self) -> Tensor:
        return kl_groups(self.q, self.p, self.z) if self._kl is None else self._kl()

    @property
    def group_sizes(self) -> Tensor:
        """D_g, how many numbers there are in each group of the KL, (G,): in each layer of a hierarchy, else all
        alike."""
        if isinstance(self.p, Layered):
            return self.kl.new_tensor([shape.numel() for shape in self.p.shapes])
        return self.kl.new_full(self.kl.shape[1:], self.z[0, 0].numel() / self.kl.shape[1])

    @property
    def log_w(self) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x), the log importance weight, (K, B)."""
        return self.log_px + self.log_pz - self.log_qz


@runtime_checkable
class LatentModel(Protocol):
    """All that objectives, training and evaluation need of a model. `data` is a `Batch`, or a tensor x (B, *X)."""

    @property
    def latent_shape(self) -> torch.Size:
        """*Z, the event shape of z; (D,) in a hierarchy."""

    def trace(self, data: Data, samples: int = 1, *, stick: bool = False) -> Trace:
        """A trace with K = `samples`; `stick` holds q's parameters constant inside log q(z|x)."""

    def trace_at(self, data: Data, q: Distribution, z: Tensor) -> Trace:
        """The trace of given draws z (K, B, *Z) of q = q(z|x)."""

    def log_joint(self, data: Data, z: Tensor) -> Tensor:
        """log p(x, z), (K, B)."""

    def log_posterior(self, data: Data, z: Tensor) -> Tensor:
        """log q(z | x), (K, B)."""

    def posterior(self, data: Data) -> Distribution:
        """q(z | x), batch (B)."""

    def sample_latent(self, n: int, y: Tensor | None = None) -> Tensor:
        """n draws z ~ p(z), (n, *Z), or z ~ p(z|y)."""

    def encode(self, data: Data) -> Tensor:
        """The mean of q(z | x), (B, *Z): the same at every call."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """p(x | z), or p(x | z, y), with z's batch dimensions."""


FOLLOWED = Needs(
    reparameterized=True,
    otherwise={"reparameterized": "the objective wake-sleep, or importance-weighted with the gradient vimco"},
)


def draw(q: Distribution, samples: int) -> Tensor:
    """z_k ~ q, k = 1..K, (K, B, *Z): a differentiable function of noise where gradients are recorded (eq. 4).

    Raises:
        RecipeError: it cannot be one, as the draws of q have no derivative.
    """
    shape = torch.Size((samples,))
    if q.has_rsample:
        return q.rsample(shape)
    if torch.is_grad_enabled():
        check([seen(q), Member("", "an objective that follows these draws", needs=FOLLOWED)])
    return q.sample(shape)


def sampled(p: Distribution, shape: Sequence[int] = ()) -> Tensor:
    """Draws of p without a gradient, (*shape, *batch, *event), as `p.sample` gives them.

    PyTorch's own of a normal looks for negative scales first, for which a GPU waits, and which a graph cannot repeat.
    """
    base = p.base_dist if isinstance(p, Independent) else p
    with torch.no_grad():
        return (p.rsample if type(base) is Normal else p.sample)(torch.Size(shape))


def check_trace(t: Trace, members: Sequence[Member]) -> None:
    """Refuse a posterior or a hierarchy that lacks what the members need, as training does before its first step.

    Raises:
        RecipeError: it does.
    """
    if torch.compiler.is_compiling():  # training has compared them
        return
    check([Member(HIERARCHY, "", Offers(layers=len(t.p.shapes))) if isinstance(t.p, Layered) else seen(t.q), *members])


def kl_groups(q: Distribution, p: Distribution, z: Tensor) -> Tensor:
    """KL(q ‖ p), (B, G): one group per latent where both factorise, else one group; Monte Carlo over K as a last
    resort.

    Each layer of a hierarchy is a group, log q(z_l|·) - log p(z_l|·) by Monte Carlo: only their sum is a KL, and
    positive.
    """
    if isinstance(q, Layered) and isinstance(p, Layered):
        layers = zip(q.log_probs(z), p.log_probs(z), strict=True)
        return torch.stack([(log_q - log_p).mean(0) for log_q, log_p in layers], -1)
    try:
        if isinstance(q, Independent) and isinstance(p, Independent):
            return kl_divergence(q.base_dist, p.base_dist).flatten(1)
        return kl_divergence(q, p).unsqueeze(-1)
    except NotImplementedError:
        return (q.log_prob(z) - p.log_prob(z)).mean(0).unsqueeze(-1)
