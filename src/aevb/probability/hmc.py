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


def leapfrog(
    log_density: LogDensity, z: Tensor, momentum: Tensor, step: Tensor | float, steps: int
) -> tuple[Tensor, ...]:
    """`steps` leapfrog steps of size ε along H(z, r) = -log π(z) + ½|r|²: volume preserving and reversible.

        r ← r + ½ε ∇log π(z);   z ← z + ε r;   r ← r + ½ε ∇log π(z)

    Shapes: z and momentum (*C, D), step (*C, 1) or a number. Returns z', r', log π(z), log π(z').
    """
    start, slope = gradient(log_density, z)
    end = start
    for _ in range(steps):
        momentum = momentum + 0.5 * step * slope
        z = z + step * momentum
        end, slope = gradient(log_density, z)
        momentum = momentum + 0.5 * step * slope
    return z, momentum, start, end


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
        chains = z.shape[:-1]
        step = torch.as_tensor(self.step, dtype=z.dtype, device=z.device).expand(chains)
        step = step * (1 + self.jitter * (2 * self.noise.uniform(z) - 1))
        r = self.noise.normal(z)
        proposal, r_end, start, end = leapfrog(self.log_density, z, r, step.unsqueeze(-1), self.leapfrogs)
        error = (start - 0.5 * r.square().sum(-1)) - (end - 0.5 * r_end.square().sum(-1))
        error = torch.where(torch.isfinite(end), error, torch.inf).nan_to_num(torch.inf, torch.inf, -torch.inf)
        acceptance = torch.exp(-error).clamp(max=1)
        accepted = self.noise.uniform(z) < acceptance
        return torch.where(accepted.unsqueeze(-1), proposal, z), Info(acceptance, accepted, error)


def adapted(step: Tensor | float, info: Info, target: float = 0.9, rate: float = 0.05) -> Tensor:
    """A step size nearer to the `target` acceptance: ε · exp(rate · (acceptance - target)), chain by chain.

    Adapt while burning in, then keep the step fixed: an adapting chain does not leave π invariant.
    """
    return torch.as_tensor(step) * torch.exp(rate * (info.acceptance - target))
