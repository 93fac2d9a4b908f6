"""Importance sampling for few latents that finds what q(z|x) misses: defensive mixtures, the second made of the first.

q(z|x) of a trained encoder is often narrower than p(z|x), and misses modes of it. Weights of draws from q then have no
variance, and log p̂(x) is too low by nats. A third of the K draws are a pilot from a defensive mixture (Hesterberg
1995, Technometrics 37, 185). The others are from kernels around the pilot's draws (population Monte Carlo: Cappé et al.
2004, J. Comput. Graph. Stat. 13, 907), mixed with the pilot's mixture:

    r₁(z) = 1/5 N(μ, σ²) + 2/5 N(μ, (2σ)²) + 1/5 N(μ, (4σ)²) + 1/5 p(z),   q(z|x) = N(μ, σ²)
    r₂(z) = 1/2 r₁(z) + 1/2 · 1/J Σ_j N(c_j, (1.5σ)²),   c_j the (j - ½)/J quantiles of the pilot's draws by weight
    log p̂(x) = log 1/K₂ Σ_k p(x, z_k) / r₂(z_k),   z_k ~ r₂

Given the pilot r₂ is fixed, so that p̂(x) is unbiased; only the second draws count. Each component has its share of
them exactly: the balance heuristic (Veach & Guibas 1995; Owen & Zhou 2000, JASA 95, 135). The prior has about a tenth
of the second draws, so that no weight is larger than about 10 p(x|z).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from aevb.models.rows import BLOCK, Group, is_diagonal

SCALES = (1.0, 2.0, 4.0)  # of σ, in the pilot's mixture
TURNS = (0, 1, 2, 1, 3, 0, 1, 2, 1, 3)  # the component of each draw, over and over; 3 is the prior
KERNELS, WIDTH = 16, 1.5  # J, and the width of a kernel in σ
FEW = 4  # latents: draws of twice the width are worth 1.5 times less for each of them
LEAST = 100  # draws: fewer find no mode, and are known by the name of L_K

LogJoint = Callable[[Tensor], Tensor]  # z (K, B, *Z) → log p(x, z) (K, B)


def defends(q: Distribution, p: Distribution, samples: int) -> bool:
    """Whether there is such a mixture: of few latents and many draws, q(z|x) and the prior independent normals."""
    return samples >= LEAST and is_diagonal(q) and is_diagonal(p) and q.event_shape.numel() <= FEW


def counted(samples: int) -> int:
    """K₂ of K."""
    return samples - samples // 3


@dataclass(frozen=True)
class Proposals:
    """A mixture of C normals for each of B data points: mean and std (C, B, *Z), and whose turn each draw is, (K,)."""

    mean: Tensor
    std: Tensor
    turns: Tensor

    def draws(self, group: Group, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """z (K', B, *Z) and log r(z) (K', B) in blocks, from the rows' own streams, the block `first` and later."""
        shares = torch.bincount(self.turns, minlength=len(self.mean)).double() / len(self.turns)
        normals = Normal(self.mean[:, None], self.std[:, None], validate_args=False)
        log_shares = shares.log().to(self.mean)[:, None, None]
        start = 0
        for own in group.blocks(len(self.turns), first):
            turn = self.turns[start : start + len(own)].to(own.device)
            z = self.mean[turn] + self.std[turn] * (own - group.q.mean) / group.q.stddev
            yield z, (normals.log_prob(z).flatten(3).sum(-1) + log_shares).logsumexp(0)
            start += len(own)


def defended(log_joint: LogJoint, group: Group, p: Distribution, samples: int) -> Iterator[Tensor]:
    """log w of the K₂ draws that count, in blocks (K', B)."""
    mean, std = group.q.mean, group.q.stddev
    means = torch.stack([*[mean] * len(SCALES), p.mean.expand_as(mean)])
    stds = torch.stack([*(s * std for s in SCALES), p.stddev.expand_as(mean)])
    turns = torch.tensor(TURNS).repeat(samples // len(TURNS) + 1)
    pilot = Proposals(means, stds, turns[: samples - counted(samples)])
    centres = _centres(log_joint, pilot.draws(group))
    second = turns[: counted(samples)].clone()
    second[1::2] = len(means) + torch.arange(len(second) // 2) % KERNELS
    kernels = torch.cat([stds, (WIDTH * std).expand_as(centres)])
    for z, log_r in Proposals(torch.cat([means, centres]), kernels, second).draws(group, samples // BLOCK + 1):
        yield log_joint(z) - log_r


def _centres(log_joint: LogJoint, draws: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """The draws at evenly spaced quantiles of the weights, (J, B, *Z)."""
    found = [(z, log_joint(z) - log_r) for z, log_r in draws]
    z, log_w = (torch.cat(parts) for parts in zip(*found, strict=True))
    mass = log_w.double().softmax(0).cumsum(0).T.contiguous()  # (B, K)
    levels = (torch.arange(KERNELS, dtype=mass.dtype, device=mass.device) + 0.5) / KERNELS
    chosen = torch.searchsorted(mass, levels.expand(len(mass), -1).contiguous()).clamp(max=len(z) - 1).T  # (J, B)
    return z[chosen, torch.arange(z.shape[1], device=z.device)]
