"""The unit sphere: von Mises-Fisher against SciPy's Bessel functions, quadrature and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import kl_divergence

import aevb
from aevb.errors import AevbError, RecipeError, ShapeError
from aevb.models.compat import check_model
from aevb.models.trace import kl_groups
from aevb.probability.circular import Angles
from aevb.probability.sphere import Directions, Sphere, UniformSphere, VonMisesFisher, draw_gaps, log_area, slope
from aevb.runs.build import build_model
from aevb.runs.parts import AXES
from aevb.runs.recipe import Recipe

DIMENSIONS = [2, 3, 5, 20, 50, 100]
KAPPA = torch.logspace(-3, 4, 15, dtype=torch.float64)


def around_first(kappa: Tensor, dimension: int) -> Directions:
    """μ = (1, 0, ..., 0) for each κ (*)."""
    mu = torch.eye(1, dimension, dtype=kappa.dtype)[0]
    return Directions(mu.expand(*kappa.shape, dimension), kappa)


def bessel(kappa: Tensor, order: float) -> Tensor:
    """log (e^-κ I_order(κ))."""
    return torch.from_numpy(np.log(scipy.special.ive(order, kappa.numpy())))


@pytest.mark.parametrize("d", DIMENSIONS)
def test_the_normaliser_is_that_of_bessel_functions(d: int) -> None:
    """C_D(κ) = κ^(D/2-1) / ((2π)^(D/2) I_{D/2-1}(κ)), for κ from 10⁻³ to 10⁴, and in float32 to its last digits."""
    nu = d / 2 - 1
    expected = nu * KAPPA.log() - d / 2 * math.log(2 * math.pi) - bessel(KAPPA, nu)  # log C + κ
    z = torch.eye(1, d, dtype=torch.float64)[0]
    log_p = around_first(KAPPA, d).log_prob(z.expand(15, d))
    torch.testing.assert_close(log_p, expected, rtol=1e-12, atol=1e-11)
    single = around_first(KAPPA.float(), d).log_prob(z.float().expand(15, d))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_the_mean_and_the_slope_of_the_normaliser_are_ratios_of_bessel_functions(d: int) -> None:
    kappa = KAPPA.clone().requires_grad_()
    q = around_first(kappa, d)
    ratio = (bessel(KAPPA, d / 2) - bessel(KAPPA, d / 2 - 1)).exp()
    torch.testing.assert_close(q.mean[:, 0].detach(), ratio, rtol=1e-10, atol=1e-12)
    (rate,) = torch.autograd.grad(q.log_mass.sum(), kappa, create_graph=True)
    torch.testing.assert_close(rate.detach(), ratio - 1, rtol=1e-9, atol=1e-12)
    (curve,) = torch.autograd.grad(rate.sum(), kappa)  # 1 - A² - (D-1)/κ A, the variance of μᵀz
    torch.testing.assert_close(curve, q.gap_variance.detach(), rtol=1e-9, atol=1e-16)


def test_on_the_circle_it_is_von_mises() -> None:
    angle = torch.linspace(-3, 3, 13, dtype=torch.float64)
    eta = torch.tensor([1.5, -2.0], dtype=torch.float64)
    ours = Directions(F.normalize(eta, dim=0), eta.norm()).log_prob(torch.stack([angle.cos(), angle.sin()], -1))
    torch.testing.assert_close(ours, Angles(eta[0], eta[1]).log_prob(angle))


@pytest.mark.parametrize("d", [2, 3, 4, 10, 100])
@pytest.mark.parametrize("kappa", [1e-3, 2.0, 50.0, 1e4])
def test_draws_lie_on_the_sphere_and_follow_the_density(d: int, kappa: float) -> None:
    """Length 1; the gap's distribution function at the draws is uniform; across μ nothing is preferred."""
    torch.manual_seed(0)
    n = 4000
    q = around_first(torch.tensor(kappa, dtype=torch.float64), d)
    z = q.sample(torch.Size((n,)))
    assert bool(Sphere().check(z).all())
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(n, dtype=torch.float64))
    v = (0.5 * (z - q.mu).square().sum(-1)).numpy()
    grid = np.linspace(0, 1, 20001) ** 3 * min(2.0, (0.5 * d + 9 * math.sqrt(d) + 40) / kappa)
    middle = (grid[1:] + grid[:-1]) / 2
    mass = np.exp(-kappa * middle + (d - 3) / 2 * np.log(middle * (2 - middle))) * np.diff(grid)
    cdf = np.interp(v, grid[1:], np.cumsum(mass) / mass.sum())
    assert scipy.stats.kstest(cdf, "uniform").pvalue > 1e-4
    for draws, exact in ((z, q.mean), ((z - q.mean) ** 2, q.variance)):
        assert bool(((draws.mean(0) - exact).abs() < 5 * draws.std(0) / math.sqrt(n) + 1e-15).all())


@pytest.mark.parametrize("d", [2, 3, 10, 50])
def test_the_derivative_of_a_draw_keeps_its_quantile(d: int) -> None:
    """F(v + δ ∂v/∂κ; κ + δ) = F(v; κ): by the distribution function, at draws and by central differences."""
    torch.manual_seed(0)
    kappa = torch.tensor([0.1, 3.0, 40.0, 900.0], dtype=torch.float64).repeat(25)
    v = draw_gaps(kappa, d)
    rate = slope(v, kappa, around_first(kappa, d).gap, d)
    step = 1e-4 * kappa

    def cdf(k: Tensor) -> Tensor:
        from aevb.probability.sphere import gaps_below

        moved = v + (k - kappa) * rate
        return (gaps_below(k, moved, d)[0] + log_area(d - 1) - around_first(k, d).log_mass).exp()

    torch.testing.assert_close(cdf(kappa + step), cdf(kappa - step), rtol=0, atol=3e-8)


@pytest.mark.parametrize("d", [2, 3, 10, 100])
def test_the_gradient_of_an_expectation_is_that_of_finite_differences(d: int) -> None:
    """∂/∂κ of E[μᵀz] = I_{D/2}(κ) / I_{D/2-1}(κ), and of E[(aᵀz)²] in κ and μ, by pathwise draws."""
    torch.manual_seed(0)
    n = 4000
    for value in (0.3, 8.0, 300.0):
        kappa = torch.full((n,), value, dtype=torch.float64, requires_grad=True)
        z = around_first(kappa, d).rsample()
        (g,) = torch.autograd.grad(z[:, 0].sum(), kappa)
        ends = torch.tensor([value * (1 - 1e-4), value * (1 + 1e-4)], dtype=torch.float64)
        ratio = (bessel(ends, d / 2) - bessel(ends, d / 2 - 1)).exp()
        exact = float(ratio[1] - ratio[0]) / float(ends[1] - ends[0])
        assert abs(float(g.mean()) - exact) < 5 * float(g.std()) / math.sqrt(n)


def test_the_gradient_in_the_direction_is_that_of_finite_differences() -> None:
    """E[(aᵀz)²] = aᵀ Cov a + (aᵀ E z)² is known; its derivative in φ, a direction of any length, against pathwise
    draws."""
    torch.manual_seed(0)
    family, n, a = VonMisesFisher(4), 8000, torch.tensor([0.3, -1.0, 0.5, 0.8], dtype=torch.float64)

    def exact(phi: Tensor) -> Tensor:
        q = family(phi)
        assert isinstance(q, Directions)
        ring = (2 * q.gap - q.gap**2 - q.gap_variance) / 3
        along = (a * q.mu).sum(-1) ** 2
        return ring * (a.square().sum() - along) + along * ((1 - q.gap) ** 2 + q.gap_variance)

    phi = torch.tensor([0.5, -0.2, 1.1, 0.4, 0.6], dtype=torch.float64)
    steps = 1e-5 * torch.eye(5, dtype=torch.float64)
    expected = torch.stack([(exact(phi + s) - exact(phi - s)) / 2e-5 for s in steps])
    rows = phi.expand(n, 5).clone().requires_grad_()
    (g,) = torch.autograd.grad((family(rows).rsample() @ a).square().sum(), rows)
    assert bool(((g.mean(0) - expected).abs() < 5 * g.std(0) / math.sqrt(n)).all())


def test_the_kl_to_the_uniform_is_its_closed_form_and_its_monte_carlo_estimate() -> None:
    torch.manual_seed(0)
    kappa = torch.tensor([1e-3, 1.0, 30.0, 1e4], dtype=torch.float64, requires_grad=True)
    for d in (2, 3, 20):
        q, p = around_first(kappa, d), UniformSphere(torch.zeros(d, dtype=torch.float64))
        z = q.sample(torch.Size((20_000,)))
        kl = kl_groups(q, p, z)[:, 0]
        ratio = (bessel(kappa.detach(), d / 2) - bessel(kappa.detach(), d / 2 - 1)).exp()
        nu = d / 2 - 1
        log_c = nu * kappa.detach().log() - d / 2 * math.log(2 * math.pi) - bessel(kappa.detach(), nu) - kappa.detach()
        torch.testing.assert_close(kl.detach(), kappa.detach() * ratio + log_c + log_area(d), rtol=1e-9, atol=1e-11)
        gap = (q.log_prob(z) - p.log_prob(z)).detach()
        assert bool(((gap.mean(0) - kl).abs() < 5 * gap.std(0) / math.sqrt(len(z))).all())
        (rate,) = torch.autograd.grad(kl.sum(), kappa)
        torch.testing.assert_close(rate, kappa.detach() * q.gap_variance.detach(), rtol=1e-8, atol=1e-14)


def test_the_uniform_sphere() -> None:
    """Its area; no direction preferred; and what von Mises-Fisher becomes as κ falls to 0."""
    torch.manual_seed(0)
    assert math.exp(log_area(2)) == pytest.approx(2 * math.pi)
    assert math.exp(log_area(3)) == pytest.approx(4 * math.pi)
    p = AXES["prior"]["uniform-sphere"](3)()
    z = p.sample(torch.Size((20_000,)))
    assert bool(Sphere().check(z).all())
    assert bool((z.mean(0).abs() < 5 / math.sqrt(3 * 20_000)).all())
    torch.testing.assert_close(z.square().mean(0), p.variance, rtol=0, atol=0.02)
    flat = around_first(torch.tensor(1e-9, dtype=torch.float64), 3)
    torch.testing.assert_close(flat.log_prob(z.double()), p.log_prob(z.double()))


def test_float32_is_finite_at_extremes() -> None:
    """φ of 0 and ±1000, with draws and gradients; a direction of length 0 points along the first axis."""
    family = VonMisesFisher(3)
    phi = torch.cartesian_prod(*[torch.tensor([-1000.0, 0.0, 1000.0])] * 4).requires_grad_()
    q = family(phi)
    z = q.rsample(torch.Size((20,)))
    assert bool(Sphere().check(z).all())
    loss = q.log_prob(z).sum() + kl_divergence(q, UniformSphere(torch.zeros(3))).sum() + z.sum()
    (g,) = torch.autograd.grad(loss, phi)
    assert bool(loss.isfinite())
    assert bool(g.isfinite().all())
    assert torch.equal(family(torch.zeros(4)).mu, torch.tensor([1.0, 0.0, 0.0]))  # type: ignore[attr-defined]


def model(prior: str) -> aevb.VAE:
    changes = ["posterior=von-mises-fisher", f"prior={prior}", "latent=3"]
    return build_model(Recipe.load("bernoulli").override(changes), (1, 4, 4))


def test_only_the_uniform_sphere_is_its_prior() -> None:
    x = torch.zeros(2, 1, 4, 4)
    good = model("uniform-sphere")
    check_model(good, seen=good.trace(x))
    words = "prior standard-normal gives no density on the unit sphere, which the posterior von-mises-fisher requires"
    with pytest.raises(RecipeError, match=rf"{words}\. Choose one of: .*uniform-sphere"):
        model("standard-normal")
    with pytest.raises(ShapeError, match="at least 2 numbers"):
        VonMisesFisher(1)


def test_both_estimators_of_the_bound_agree_and_chains_are_refused() -> None:
    torch.manual_seed(0)
    vae = model("uniform-sphere")
    x = torch.bernoulli(torch.full((4, 1, 4, 4), 0.5))
    with torch.no_grad():
        t = vae.trace(x, 5000)
        gap = (t.log_qz - t.log_pz).double()
    assert bool(((gap.mean(0) - t.kl[:, 0]).abs() < 5 * gap.std(0) / math.sqrt(5000) + 1e-5).all())
    for estimate in (aevb.log_marginal_ais, aevb.log_marginal_hmc):
        with pytest.raises(
            AevbError, match="no coordinates that move through ℝᴰ, which Hamiltonian Monte Carlo requires"
        ):
            estimate(vae, x)


def test_the_concentration_is_bounded_from_above_and_below() -> None:
    """κ = D softplus(c), from 10⁻³ to 10⁴."""
    for c, expected in ((1e6, 1e4), (-1e6, 1e-3), (0.0, 3 * math.log(2)), (2.0, 3 * math.log1p(math.exp(2)))):
        q = VonMisesFisher(3)(torch.tensor([1.0, 0.0, 0.0, c], dtype=torch.float64))
        assert float(q.kappa) == pytest.approx(expected, rel=1e-9)


def test_draws_have_length_one_even_where_their_noise_points_along_the_mean() -> None:
    """On the circle some of 20,000 draws of noise lie within 10⁻⁴ of ±μ, and what is left of them is rounded."""
    torch.manual_seed(0)
    z = VonMisesFisher(2)(torch.tensor([0.6, 0.8, 0.0])).rsample(torch.Size((20_000,)))
    assert float((z.norm(dim=-1) - 1).abs().max()) < 2e-6
