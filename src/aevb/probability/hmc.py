"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011, arXiv 1206.1901) for any number of chains at once.

A kernel maps z to (z', info) for a fixed log density. It knows no model: MCEM (App. E of arXiv 1312.6114), the marginal
likelihood estimator of App. D and annealed importance sampling all give it theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Info:
    """What one transition did, per chain (*C).

    Attributes:
        acceptance: min(1, e^-ΔH), the probability with which the proposal was accepted.
        accepted: whether it was.
        energy_error: ΔH = H(end) - H(start), of order ε²; -∞ where π(start) = 0 < π(end), which is accepted.
    """

    acceptance: Tensor
    accepted: Tensor
    energy_error: Tensor


def gradient(log_density: LogDensity, z: Tensor) -> tuple[Tensor, Tensor]:
    """log π(z), (*C), and ∇ log π(z), (*C, D); chains do not see each other, so one backward pass serves all.

    Where π is 0, the gradient may be no number: it is 0 then, and z moves on freely, which keeps volume as any force
    does.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        value = log_density(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), torch.where(slope.isfinite(), slope, 0.0)


@dataclass(frozen=True)
class Place:
    """Where chains are, and what is known there, so that the next path need not compute it again.

    Attributes:
        z: (*C, D).
        value: log π(z), (*C).
        slope: ∇ log π(z), (*C, D).
        parts: what log π is made of, if one asks for it: each (*C) or (*C, D).
    """

    z: Tensor
    value: Tensor
    slope: Tensor
    parts: tuple[Tensor, ...] = ()

    def where(self, chosen: Tensor, other: Place) -> Place:
        """This place for the chosen chains (*C), the other for the rest."""
        z, value, slope = (each(chosen, getattr(self, name), getattr(other, name)) for name in ("z", "value", "slope"))
        return Place(z, value, slope, tuple(each(chosen, a, b) for a, b in zip(self.parts, other.parts, strict=True)))


Look = Callable[[Tensor], Place]  # z → all that is known there


def each(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a for the chosen chains (*C), b for the rest; both (*C) or (*C, D)."""
    return torch.where(chosen if a.ndim == chosen.ndim else chosen.unsqueeze(-1), a, b)


def looking(log_density: LogDensity) -> Look:
    """z → its place under a log density."""
    return lambda z: Place(z, *gradient(log_density, z))


def path(look: Look, at: Place, momentum: Tensor, step: Tensor | float, steps: int) -> tuple[Place, Tensor]:
    """`steps` leapfrog steps of size ε along H(z, r) = -log π(z) + ½|r|²: volume preserving and reversible.

        r ← r + ½ε ∇log π(z);   z ← z + ε r;   r ← r + ½ε ∇log π(z)

    Shapes: momentum (*C, D), step (*C, 1) or a number. Returns where it ends, and the momentum there.
    """
    for _ in range(steps):
        momentum = momentum + 0.5 * step * at.slope
        at = look(at.z + step * momentum)
        momentum = momentum + 0.5 * step * at.slope
    return at, momentum


def leapfrog(
    log_density: LogDensity, z: Tensor, momentum: Tensor, step: Tensor | float, steps: int
) -> tuple[Tensor, ...]:
    """A `path` from z (*C, D) under a log density. Returns z', r', log π(z), log π(z')."""
    look = looking(log_density)
    start = look(z)
    end, momentum = path(look, start, momentum, step, steps)
    return end.z, momentum, start.value, end.value


class Noise(Protocol):
    """Where a kernel's random numbers come from."""

    def normal(self, like: Tensor) -> Tensor:
        """ε ~ N(0, I), of the shape and type of z (*C, D)."""

    def uniform(self, like: Tensor) -> Tensor:
        """u ~ U(0, 1), one for each chain of z (*C, D), (*C)."""


class Global:
    """Noise of torch's own generators."""

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn_like(like)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape[:-1], dtype=like.dtype, device=like.device)


class HMC:
    """The kernel: fresh momentum, a leapfrog path, a Metropolis test; leaves π invariant for every step size.

    Args:
        log_density: z (*C, D) → log π(z) up to a constant, (*C).
        step: ε, a number or one per chain, (*C).
        leapfrogs: L, steps per path.
        jitter: each path's ε is multiplied by 1 + jitter·u, u ~ U(-1, 1). Paths of one length resonate with a Gaussian
            target, whose orbits all have the same period, and then never forget where they began.
        noise: where momenta and uniform numbers come from.
    """

    def __init__(
        self,
        log_density: LogDensity,
        step: Tensor | float,
        leapfrogs: int = 10,
        jitter: float = 0.3,
        noise: Noise = Global(),
    ) -> None:
        self.log_density, self.step, self.leapfrogs, self.jitter, self.noise = (
            log_density,
            step,
            leapfrogs,
            jitter,
            noise,
        )

    def __call__(self, z: Tensor) -> tuple[Tensor, Info]:
        at, info = self.move(self.at(z))
        return at.z, info

    def at(self, z: Tensor) -> Place:
        """The place from which a chain at z moves."""
        return looking(self.log_density)(z)

    def move(self, at: Place) -> tuple[Place, Info]:
        """The same from a place of this density to another, with one gradient less."""
        return transition(looking(self.log_density), at, self.step, self.leapfrogs, self.jitter, self.noise)


def transition(
    look: Look,
    at: Place,
    step: Tensor | float,
    leapfrogs: int = 10,
    jitter: float = 0.3,
    noise: Noise = Global(),
) -> tuple[Place, Info]:
    """What an `HMC` does: from a place to the next, both as `look` sees them. The settings are those of `HMC`."""
    z = at.z
    step = torch.as_tensor(step, dtype=z.dtype, device=z.device).expand(z.shape[:-1])
    step = step * (1 + jitter * (2 * noise.uniform(z) - 1))
    r = noise.normal(z)
    end, r_end = path(look, at, r, step.unsqueeze(-1), leapfrogs)
    error = (at.value - 0.5 * r.square().sum(-1)) - (end.value - 0.5 * r_end.square().sum(-1))
    error = torch.where(torch.isfinite(end.value), error, torch.inf).nan_to_num(torch.inf, torch.inf, -torch.inf)
    acceptance = torch.exp(-error).clamp(max=1)
    accepted = noise.uniform(z) < acceptance
    return end.where(accepted, at), Info(acceptance, accepted, error)


def adapted(step: Tensor | float, info: Info, target: float = 0.9, rate: float = 0.05) -> Tensor:
    """A step size nearer to the `target` acceptance: ε · exp(rate · (acceptance - target)), chain by chain.

    Adapt while burning in, then keep the step fixed: an adapting chain does not leave π invariant.
    """
    return torch.as_tensor(step) * torch.exp(rate * (info.acceptance - target))
