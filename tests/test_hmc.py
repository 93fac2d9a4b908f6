"""HMC: energy error of order ε², reversibility, and moments within Monte-Carlo standard errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aevb.probability.hmc import HMC, Info, adapted, leapfrog

COVARIANCE = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
TARGET = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)


def quartic(z: Tensor) -> Tensor:
    return -(z**4).sum(-1) / 4 - z.square().sum(-1) / 2


def energy_error(step: float, length: float = 1.2) -> float:
    torch.manual_seed(1)
    z, r = torch.randn(64, 2, dtype=torch.float64), torch.randn(64, 2, dtype=torch.float64)
    _, r_end, start, end = leapfrog(quartic, z, r, step, round(length / step))
    error = (end - 0.5 * r_end.square().sum(-1)) - (start - 0.5 * r.square().sum(-1))
    return float(error.abs().mean())


@pytest.mark.trap(6)
def test_energy_error_falls_as_the_square_of_the_step() -> None:
    steps = np.array([0.1, 0.05, 0.025, 0.0125])
    slope = np.polyfit(np.log(steps), np.log([energy_error(s) for s in steps]), 1)[0]
    assert abs(slope - 2) < 0.05


@pytest.mark.trap(6)
def test_leapfrog_is_reversible() -> None:
    torch.manual_seed(2)
    z, r = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64)
    z_end, r_end, *_ = leapfrog(quartic, z, r, 0.1, 25)
    z_back, r_back, *_ = leapfrog(quartic, z_end, -r_end, 0.1, 25)
    assert float((z_end - z).abs().max()) > 0.1
    torch.testing.assert_close(z_back, z, atol=1e-10, rtol=0)
    torch.testing.assert_close(-r_back, r, atol=1e-10, rtol=0)


def test_leapfrog_preserves_volume() -> None:
    def flow(state: Tensor) -> Tensor:
        z, r = state[:2], state[2:]
        for _ in range(3):  # written out, so that autograd sees the whole map
            r = r + 0.5 * 0.3 * torch.func.grad(quartic)(z)
            z = z + 0.3 * r
            r = r + 0.5 * 0.3 * torch.func.grad(quartic)(z)
        return torch.cat([z, r])

    state = torch.tensor([0.3, -0.7, 1.1, 0.2], dtype=torch.float64)
    z, r, *_ = leapfrog(quartic, state[None, :2], state[None, 2:], 0.3, 3)
    torch.testing.assert_close(torch.cat([z[0], r[0]]), flow(state))
    assert abs(float(torch.linalg.det(torch.func.jacrev(flow)(state))) - 1) < 1e-10


def chain_means(kernel: HMC, z: Tensor, burn: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per-chain averages of z and z zᵀ, and of the acceptance."""
    for _ in range(burn):
        z, _ = kernel(z)
    first, second, acceptance = torch.zeros_like(z), torch.zeros(*z.shape, z.shape[-1], dtype=z.dtype), []
    for _ in range(steps):
        z, info = kernel(z)
        first += z / steps
        second += z.unsqueeze(-1) * z.unsqueeze(-2) / steps
        acceptance.append(info.acceptance)
    return first, second, torch.stack(acceptance)


def test_moments_of_a_correlated_normal_within_standard_errors() -> None:
    torch.manual_seed(3)
    z = torch.zeros(400, 2, dtype=torch.float64)  # far from stationary; the burn-in has to forget it
    first, second, _ = chain_means(HMC(TARGET.log_prob, 0.35, 8), z, burn=60, steps=60)
    true_second = COVARIANCE + MEAN[:, None] * MEAN
    for estimate, exact in ((first, MEAN), (second.flatten(1), true_second.flatten())):
        se = estimate.std(0) / len(estimate) ** 0.5
        assert bool(((estimate.mean(0) - exact).abs() < 4.5 * se).all()), (estimate.mean(0), exact, se)


def test_moments_without_the_metropolis_test_would_be_wrong() -> None:
    """At a coarse step the leapfrog alone samples another density: the accept step is what makes the kernel exact."""
    torch.manual_seed(4)
    z = TARGET.sample((4000,))
    kernel = HMC(TARGET.log_prob, 0.95, 3, jitter=0.1)
    proposal, _, _, _ = leapfrog(TARGET.log_prob, z, torch.randn_like(z), 0.95, 3)
    moved, info = kernel(z)
    assert 0.5 < float(info.acceptance.mean()) < 0.97
    exact = COVARIANCE.diagonal()
    se = exact * (2 / 4000) ** 0.5
    assert bool(((moved.var(0) - exact).abs() < 4.5 * se).all())
    assert bool(((proposal.var(0) - exact).abs() > 6 * se).any())


def test_step_adapts_to_the_target_acceptance() -> None:
    torch.manual_seed(5)
    z, step = TARGET.sample((500,)), torch.full((500,), 1.0, dtype=torch.float64)
    for _ in range(150):
        z, info = HMC(TARGET.log_prob, step, 10)(z)
        step = adapted(step, info, 0.9, rate=0.1)
    kernel = HMC(TARGET.log_prob, float(step.mean()), 10)
    _, _, acceptance = chain_means(kernel, z, burn=0, steps=20)
    assert abs(float(acceptance.mean()) - 0.9) < 0.03


def test_a_fixed_path_resonates_and_jitter_mends_it() -> None:
    """ε L = 2π is a whole period of N(0, 1): without jitter the chain returns to where it was."""
    torch.manual_seed(6)
    z = torch.full((300, 1), 2.0, dtype=torch.float64)

    def after(jitter: float) -> float:
        moved = z
        for _ in range(5):
            moved, _ = HMC(lambda v: -0.5 * v.square().sum(-1), 2 * torch.pi / 40, 40, jitter)(moved)
        return float((moved - z).abs().mean())

    assert after(0.0) < 0.15
    assert after(0.3) > 1.0


def test_divergent_path_is_rejected() -> None:
    z = torch.ones(4, 2, dtype=torch.float64)
    moved, info = HMC(quartic, 50.0, 10)(z)
    assert bool((moved == z).all())
    assert isinstance(info, Info)
    assert not bool(info.accepted.any())
    assert float(info.acceptance.max()) == 0.0


@pytest.mark.parametrize("slope", ["zero", "nan"])
def test_a_chain_that_starts_where_there_is_no_density_moves_in(slope: str) -> None:
    """Case G20: -∞ → finite is accepted whatever the gradient says there; then the chain stays inside."""
    torch.manual_seed(7)

    def log_density(z: Tensor) -> Tensor:
        value = -0.5 * z.square().sum(-1)
        if slope == "nan":
            return value + torch.log((25 - z.square().sum(-1)).clamp(min=0)) * 0.1
        return torch.where(z.abs().amax(-1) < 5, value, -torch.inf)

    z = torch.tensor([[5.05], [0.0]], dtype=torch.float64)
    for _ in range(200):
        z, info = HMC(log_density, 0.3, 5)(z)
        assert not bool(info.acceptance.isnan().any())
    assert bool((z.abs() < 5).all())
