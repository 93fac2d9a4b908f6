"""Families: densities that integrate to one, agree with scipy, stay finite, and refuse what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from aevb.errors import DataError, ShapeError
from aevb.models.compat import check_support
from aevb.models.priors import StandardNormal
from aevb.models.trace import kl_groups
from aevb.probability import distributions as d
from aevb.probability import families as f

Make = Callable[[f.Shape], f.Family]
REAL: dict[str, Make] = {
    "normal": f.Normal,
    "normal-fixed": lambda shape: f.Normal(shape, scale=0.3),
    "normal-sigmoid": lambda shape: f.Normal(shape, link=torch.sigmoid),
    "laplace": f.Laplace,
    "student": f.StudentT,
}
DISCRETE: dict[str, Make] = {
    "bernoulli": f.Bernoulli,
    "categorical": lambda shape: f.Categorical(shape, 5),
    "categorical-pixels": lambda shape: f.Categorical(shape, 5, spacing=0.25),
    "logistic-256": f.DiscretizedLogistic,
    "logistic-17": lambda shape: f.DiscretizedLogistic(shape, levels=17),
}
FACTORIZED: dict[str, Make] = {**REAL, **DISCRETE, "continuous": f.ContinuousBernoulli}
ALL: dict[str, Make] = {**FACTORIZED, "full": f.FullNormal}
GRID = {
    "bernoulli": torch.arange(2).double(),
    "categorical": torch.arange(5).double(),
    "categorical-pixels": torch.arange(5).double() / 4,
    "logistic-256": torch.arange(256).double() / 255,
    "logistic-17": torch.arange(17).double() / 16,
}
PARAMETERS = {
    "normal": 2,
    "normal-fixed": 1,
    "normal-sigmoid": 2,
    "laplace": 2,
    "student": 3,
    "bernoulli": 1,
    "categorical": 5,
    "categorical-pixels": 5,
    "logistic-256": 2,
    "logistic-17": 2,
    "continuous": 1,
}


def moderate(size: int, rows: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(rows, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def spread(size: int) -> Tensor:
    """φ (B, size): moderate rows, wide rows, and rows of 0 and ±30."""
    signs = 1.0 - 2.0 * (torch.arange(size) % 2)
    ends = torch.stack([torch.zeros(size), *(s * 30 * torch.ones(size) for s in (1, -1)), 30 * signs, -30 * signs])
    return torch.cat([moderate(size), 3 * moderate(size, seed=1), ends.double()])


# The total is one


@pytest.mark.parametrize("name", REAL)
def test_integrates_to_one_over_the_line(name: str) -> None:
    """∫ p(x) dx by the trapezoidal rule in u, x = μ + s sinh u, which reaches far into heavy tails."""
    family = REAL[name](1)
    p = family(spread(family.size))
    assert isinstance(p, Independent)
    u = torch.linspace(-20, 20, 20001, dtype=torch.float64)[:, None, None]
    scale = p.base_dist.scale
    density = p.log_prob(p.mean + scale * u.sinh()).exp() * (scale * u.cosh()).squeeze(-1)
    total = torch.trapezoid(density, u[:, :, 0], dim=0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", DISCRETE)
def test_sums_to_one_over_the_grid(name: str) -> None:
    family = DISCRETE[name](1)
    total = family(spread(family.size)).log_prob(GRID[name][:, None, None]).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-12, rtol=0)


def test_continuous_bernoulli_integrates_to_one() -> None:
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(400))
    phi = torch.cat([spread(1), torch.tensor([[0.299], [0.301], [1e-8], [-1000.0], [1000.0]]).double()])
    p = f.ContinuousBernoulli(1)(phi).log_prob((nodes[:, None, None] + 1) / 2).exp()
    total = (weights[:, None] / 2 * p).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-8, rtol=0)


def test_full_normal_integrates_to_one_over_the_plane() -> None:
    p = f.FullNormal(2)(spread(5))
    t = torch.linspace(-9, 9, 91, dtype=torch.float64)
    plane = torch.cartesian_prod(t, t)[:, None, :, None]  # x = μ + L t
    x = p.mean + (p.scale_tril @ plane).squeeze(-1)
    volume = p.scale_tril.diagonal(dim1=-2, dim2=-1).prod(-1) * 0.2**2
    total = p.log_prob(x).exp().sum(0) * volume
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)  # L t + μ - μ loses digits at ±30


# Agreement with scipy


def draws_of_support(name: str, rows: int) -> Tensor:
    g = torch.Generator().manual_seed(2)
    if name in REAL:
        return 3 * torch.randn(rows, 1, dtype=torch.float64, generator=g)
    if name == "continuous":
        return torch.rand(rows, 1, dtype=torch.float64, generator=g)
    grid = GRID[name]
    return grid[torch.randint(len(grid), (rows, 1), generator=g)]


# Moments


def assert_mean(draws: Tensor, expected: Tensor) -> None:
    """Within 4.5 standard errors of the Monte-Carlo mean (dozens of comparisons each)."""
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - expected).abs() <= 4.5 * error + 1e-12).all())


def exact_moments(name: str, p: Distribution) -> tuple[Tensor, Tensor]:
    grid = GRID[name][:, None, None]
    weights = p.base_dist.log_prob(grid).exp()  # type: ignore[attr-defined]
    mean = (weights * grid).sum(0)
    return mean, (weights * (grid - mean) ** 2).sum(0)


@pytest.mark.parametrize("name", FACTORIZED)
def test_moments_are_those_of_the_samples(name: str) -> None:
    torch.manual_seed(0)
    family = FACTORIZED[name](3)
    phi = moderate(family.size, 4)
    if name == "student":
        phi[:, 6:] = 10.0  # the variance of a sample variance exists for ν > 4 only
    p = family(phi)
    x = p.sample(torch.Size((20_000,)))
    assert x.shape == (20_000, 4, 3)
    assert bool(p.support.check(x).all())
    mean, variance = exact_moments(name, p) if name in DISCRETE else (p.mean, p.variance)
    torch.testing.assert_close(p.mean, mean, rtol=1e-10, atol=1e-12)
    assert_mean(x, mean)
    assert_mean((x - mean) ** 2, variance)


@pytest.mark.parametrize("name", ["continuous", "categorical-pixels", "logistic-256", "logistic-17"])
def test_mean_at_the_extremes(name: str) -> None:
    """Against the sum, or the integral, at φ of up to ±30."""
    p = FACTORIZED[name](1)(spread(PARAMETERS[name]))
    if name == "continuous":
        nodes, weights = (torch.from_numpy(a)[:, None, None] for a in np.polynomial.legendre.leggauss(200))
        x, w = (nodes + 1) / 2, weights / 2 * p.base_dist.log_prob((nodes + 1) / 2).exp()
        mean = (w * x).sum(0)
        torch.testing.assert_close(p.variance, (w * (x - mean) ** 2).sum(0), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(p.mean, mean, rtol=1e-8, atol=1e-9)
    else:
        torch.testing.assert_close(p.mean, exact_moments(name, p)[0], rtol=1e-9, atol=1e-12)


def test_full_normal_moments() -> None:
    torch.manual_seed(0)
    p = f.FullNormal(3)(moderate(9, 2))
    z = p.rsample((20_000,))
    assert_mean(z, p.mean)
    centred = z - p.mean
    assert_mean(centred[..., :, None] * centred[..., None, :], p.covariance_matrix)


def test_student_has_more_than_two_degrees_of_freedom() -> None:
    assert f.StudentT(1)(torch.tensor([0.0, 0.0, -5.0])).variance.isfinite().all()


# Supports


@pytest.mark.parametrize(
    ("family", "inside", "outside"),
    [
        (f.Normal(1), [-1e9, 0.0, 0.5], [math.nan]),
        (f.Laplace(1), [-1e9, 0.5], [math.nan]),
        (f.Bernoulli(1), [0.0, 1.0], [0.5, -1.0, 2.0, math.nan]),
        (f.Bernoulli(1, relaxed=True), [0.0, 0.3, 1.0], [-0.01, 1.01, math.nan]),
        (f.ContinuousBernoulli(1), [0.0, 0.3, 1.0], [-0.01, 1.01, math.nan]),
        (f.Categorical(1, 3), [0.0, 1.0, 2.0], [-1.0, 3.0, 0.5, math.nan]),
        (f.Categorical(1, 3, spacing=0.5), [0.0, 0.5, 1.0], [0.25, 1.5, -0.5]),
        (f.DiscretizedLogistic(1), [0.0, 17 / 255, 1.0], [0.5, 17.0, 1 + 1 / 255, math.nan]),
        (f.DiscretizedLogistic(1, levels=17), [0.0, 3 / 16, 1.0], [3 / 255, -1 / 16]),
    ],
)
def test_support_accepts_and_refuses(family: f.Family, inside: list[float], outside: list[float]) -> None:
    p = family(torch.zeros(1, family.size))
    check_support(p, torch.tensor(inside)[:, None])
    for x in outside:
        with pytest.raises(DataError):
            check_support(p, torch.tensor([[inside[0]], [x]]))


def test_grey_levels_under_a_bernoulli_are_refused_with_advice() -> None:
    p = f.Bernoulli((1, 2, 2))(torch.zeros(5, 4))
    x = torch.zeros(5, 1, 2, 2)
    x[3, 0, 1, 1] = 0.25
    with pytest.raises(DataError) as refusal:
        check_support(p, x, name="bernoulli")
    for word in (
        "bernoulli",
        "0.25",
        "row 3",
        "values='dynamic'",
        "'threshold'",
        "relaxed=True",
        "continuous-bernoulli",
    ):
        assert word in str(refusal.value)


@pytest.mark.parametrize("family", [f.Bernoulli(1), f.Categorical(1, 3), f.DiscretizedLogistic(1)], ids=repr)
def test_a_refusal_names_the_family_and_the_number(family: f.Family) -> None:
    with pytest.raises(DataError, match=rf"The likelihood {family.word} covers .* hold 7\.5 in row 9\. Rescale"):
        check_support(family(torch.zeros(1, family.size)), torch.tensor([[7.5]]), 9, family.word)


def test_data_of_another_shape_are_refused_even_where_they_would_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"bernoulli is over the shape \(4,\).*\(1,\)"):
        check_support(f.Bernoulli(4)(torch.zeros(9, 4)), torch.zeros(9, 1), name="bernoulli")


def test_relaxed_bernoulli_is_the_cross_entropy() -> None:
    """App. C.1: Σ x log y + (1 - x) log(1 - y)."""
    phi, x = moderate(3), torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.sigmoid(phi)
    expected = (x * y.log() + (1 - x) * (1 - y).log()).sum(-1)
    torch.testing.assert_close(f.Bernoulli(3, relaxed=True)(phi).log_prob(x), expected)


# Nothing overflows


def test_continuous_bernoulli_is_smooth_where_its_series_ends() -> None:
    """Value and slope on both sides of |l| = 0.3, and at 0, where slope = x - E[x] = x - 1/2."""
    l = torch.tensor([[0.2999999], [0.3000001], [0.0]], dtype=torch.float64, requires_grad=True)
    log_p = f.ContinuousBernoulli(1)(l).log_prob(torch.full((3, 1), 0.9, dtype=torch.float64))
    (slope,) = torch.autograd.grad(log_p.sum(), l)
    mean = f.ContinuousBernoulli(1)(l).mean
    torch.testing.assert_close(slope, 0.9 - mean, rtol=0, atol=1e-6)
    assert log_p[2].item() == pytest.approx(0, abs=1e-15)
    assert log_p[0].item() == pytest.approx(log_p[1].item(), abs=1e-6)


# Sizes and shapes


@pytest.mark.parametrize("name", FACTORIZED)
def test_shapes_of_images_and_batches(name: str) -> None:
    family = FACTORIZED[name]((1, 28, 28))
    assert family.size == PARAMETERS[name] * 784
    for batch in ((), (2,), (3, 2)):
        p = family(torch.zeros(*batch, family.size))
        assert (p.batch_shape, p.event_shape) == (batch, (1, 28, 28))
        x = p.sample()
        assert x.shape == (*batch, 1, 28, 28)
        assert p.log_prob(x).shape == batch


@pytest.mark.parametrize("name", FACTORIZED)
def test_the_parameter_axis_comes_first(name: str) -> None:
    """φ is (P, *shape) flattened: channels-first images out of a convolution need no permutation."""
    family, one = FACTORIZED[name]((2, 3)), FACTORIZED[name](1)
    phi = moderate(family.size, 1)[0]
    x = draws_of_support(name, 6)[:, 0]
    parts = [one(phi.view(-1, 6)[:, i]).log_prob(x[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(family(phi).log_prob(x.view(2, 3)), torch.stack(parts).sum())


@pytest.mark.parametrize("name", [*ALL, "delta"])
def test_a_wrong_number_of_outputs_names_both(name: str) -> None:
    family = f.Delta(3) if name == "delta" else ALL[name](3)
    with pytest.raises(ShapeError, match=rf"needs {family.size} numbers .* gave {family.size + 1}"):
        family(torch.zeros(2, family.size + 1))


def test_full_normal_size() -> None:
    assert [f.FullNormal(n).size for n in (1, 2, 20)] == [2, 5, 20 + 210]


@pytest.mark.parametrize("shape", [0, (), (3, 0), -1])
@pytest.mark.parametrize("name", [*ALL, "delta"])
def test_empty_shapes_are_refused(name: str, shape: f.Shape) -> None:
    make = f.Delta if name == "delta" else ALL[name]
    with pytest.raises(ShapeError, match="at least 1"):
        make(shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: f.Normal(1, scale=0.0), "positive; got 0.0"),
        (lambda: f.Normal(1, scale=-1.0), "positive"),
        (lambda: f.Categorical(1, 1), "2 classes; got 1"),
        (lambda: f.DiscretizedLogistic(1, levels=1), "2 levels; got 1"),
        (lambda: f.FullNormal((2, 2)), "vectors"),
    ],
)
def test_refusals(make: Callable[[], f.Family], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# KL(q || p)


def test_kl_of_normals_is_appendix_b() -> None:
    """-KL(q ‖ p) = ½ Σ_j (1 + log σ_j² - μ_j² - σ_j²), one group per latent."""
    phi = moderate(8)
    q, p = f.Normal(4)(phi), StandardNormal(4).double()()
    mu, log_variance = phi[:, :4], phi[:, 4:]
    expected = -0.5 * (1 + log_variance - mu**2 - log_variance.exp())
    kl = kl_groups(q, p, q.rsample((1,)))
    assert kl.shape == (40, 4)
    torch.testing.assert_close(kl, expected)


def test_kl_of_a_full_normal_is_the_diagonal_one_where_it_is_diagonal() -> None:
    mu, log_scale = moderate(3), moderate(3, seed=1)
    phi = torch.zeros(40, 9, dtype=torch.float64)
    phi[:, :3], phi[:, [3, 5, 8]] = mu, log_scale
    p = StandardNormal(3).double()()
    full = kl_groups(f.FullNormal(3)(phi), p, mu[None])
    diagonal = kl_groups(f.Normal(3)(torch.cat([mu, 2 * log_scale], -1)), p, mu[None])
    assert full.shape == (40, 1)
    torch.testing.assert_close(full, diagonal.sum(-1, keepdim=True))


def test_kl_of_a_full_normal_is_its_monte_carlo_estimate() -> None:
    torch.manual_seed(0)
    q, p = f.FullNormal(3)(moderate(9, 8)), StandardNormal(3).double()()
    z = q.rsample((20_000,))
    assert_mean(q.log_prob(z) - p.log_prob(z), kl_groups(q, p, z)[:, 0])


@pytest.mark.parametrize("make", [f.Laplace, f.Normal])
def test_kl_of_image_latents_has_a_group_for_each(make: Make) -> None:
    torch.manual_seed(0)
    q, p = make((2, 2, 2))(moderate(16, 3)), StandardNormal((2, 2, 2)).double()()
    z = q.rsample((20_000,))
    kl = kl_groups(q, p, z)
    assert kl.shape == (3, 8)
    assert_mean(q.log_prob(z) - p.log_prob(z), kl.sum(-1))


def test_kl_without_a_closed_form_is_estimated() -> None:
    q, p = f.StudentT(2)(moderate(6, 5)), StandardNormal(2).double()()
    torch.manual_seed(0)
    z = q.rsample((50,))
    kl = kl_groups(q, p, z)
    assert kl.shape == (5, 1)
    torch.testing.assert_close(kl[:, 0], (q.log_prob(z) - p.log_prob(z)).mean(0))


def test_a_point_is_infinitely_far_from_every_density() -> None:
    z = moderate(3)
    q = f.Delta(3)(z)
    assert torch.equal(kl_groups(q, StandardNormal(3)(), z[None]), torch.full((40, 1), math.inf, dtype=torch.float64))
    assert torch.equal(kl_divergence(q, f.FullNormal(3)(moderate(9))), torch.full((40,), math.inf, dtype=torch.float64))


def test_a_point_is_its_mean_and_all_its_samples() -> None:
    z = moderate(6).requires_grad_()
    q = f.Delta((2, 3))(z)
    assert (q.batch_shape, q.event_shape) == ((40,), (2, 3))
    assert torch.equal(q.rsample((4,)), z.view(1, 40, 2, 3).expand(4, 40, 2, 3))
    assert torch.equal(q.mean, z.view(40, 2, 3))
    assert q.variance.eq(0).all()
    assert q.rsample((1,)).requires_grad
    assert q.log_prob(z.view(40, 2, 3)).eq(math.inf).all()
    assert q.log_prob(z.view(40, 2, 3) + 1).eq(-math.inf).all()


def test_a_scale_beyond_its_bound_can_come_back() -> None:
    """The value is bounded, the gradient is not: dσ / d log σ = σ everywhere."""
    log_scale = torch.tensor([-50.0, -1.0, 0.5, 50.0], requires_grad=True)
    scale = f.scale_from_log(log_scale)
    assert scale.tolist() == pytest.approx(torch.tensor([-18.0, -1.0, 0.5, 30.0]).exp().tolist())
    (slope,) = torch.autograd.grad(scale.sum(), log_scale)
    assert torch.equal(slope, scale.detach())


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
def test_moments_of_a_discretised_logistic_are_their_sums_over_all_levels(
    levels: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Means inside, at the edges and far outside; scales from a thousandth of a level to far beyond all of them."""
    g, n = torch.Generator().manual_seed(0), levels - 1
    loc = torch.cat([1.4 * torch.rand(2000, generator=g) - 0.2, 100 * torch.randn(50, generator=g)]).to(dtype)
    scale = (torch.rand(2050, generator=g) * 16 - 8).exp().to(dtype) / n
    p = d.DiscreteLogistic(loc, scale, levels)
    edges = (torch.arange(1, n + 1, dtype=torch.float64) - 0.5) / n
    above = torch.sigmoid((loc.double()[:, None] - edges) / scale.double()[:, None])
    mean = above.sum(-1) / n
    torch.testing.assert_close(p.mean.double(), mean, rtol=tolerance, atol=tolerance)
    masses = -torch.cat([torch.ones(2050, 1), above, torch.zeros(2050, 1)], -1).diff(dim=-1)
    x = torch.arange(levels, dtype=torch.float64) / n
    variance = (masses * (x - mean[:, None]) ** 2).sum(-1)
    torch.testing.assert_close(p.variance.double(), variance, rtol=tolerance, atol=tolerance)


def test_the_kl_from_torchs_own_mixture_is_its_integral() -> None:
    """Both spellings of two normals in each dimension, as priors without a closed form: by the draws, without bias."""
    torch.manual_seed(0)
    q = f.Normal(2)(torch.tensor([[0.3, -0.8, -0.2, 0.4]]))
    loc, weights = torch.tensor([[-1.0, 1.5]] * 2), torch.distributions.Categorical(torch.tensor([[0.3, 0.7]] * 2))
    each = torch.distributions.MixtureSameFamily(weights, torch.distributions.Normal(loc, torch.ones(2, 2)))
    vectors = torch.distributions.Independent(torch.distributions.Normal(loc.T, torch.ones(2, 2)), 1)
    whole = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.tensor([0.3, 0.7])), vectors)
    line = torch.linspace(-12, 12, 601)
    z = torch.cartesian_prod(line, line)[:, None]
    for p in (Independent(each, 1), whole):
        log_q = q.log_prob(z)[:, 0]
        exact = float((log_q.exp() * (log_q - p.log_prob(z[:, 0]))).sum() * (line[1] - line[0]) ** 2)
        draws = q.rsample((40_000,))
        log_ratio = q.log_prob(draws) - p.log_prob(draws)
        kl = kl_groups(q, p, draws)
        assert kl.shape == (1, 1)
        assert float(kl) == pytest.approx(exact, abs=5 * float(log_ratio.std()) / 200)


@pytest.mark.parametrize("make", [f.FullNormal, f.LowRankNormal])
def test_kl_of_a_correlated_normal_from_any_diagonal_one(make: type[f.Family]) -> None:
    """Against PyTorch's formula for two full covariances, at a mean and scales other than 0 and 1."""
    family = make(3)
    q = family(moderate(family.size, rows=5))
    mean, scale = torch.tensor([[0.5, -1.0, 2.0], [0.3, 2.0, 1.7]], dtype=torch.float64)
    full = torch.distributions.MultivariateNormal(q.mean, q.covariance_matrix)  # type: ignore[attr-defined]
    expected = kl_divergence(full, torch.distributions.MultivariateNormal(mean, torch.diag(scale**2)))
    torch.testing.assert_close(kl_divergence(q, Independent(torch.distributions.Normal(mean, scale), 1)), expected)


def test_the_least_scale_adds_in_quadrature() -> None:
    """σ² = e^φ + least²: 1 + ¼ at φ = 0, and least² where e^φ vanishes."""
    for phi, expected in ((0.0, math.sqrt(1.25)), (-60.0, 0.5), (math.log(4.0), math.sqrt(4.25))):
        q = f.Normal(1, least=0.5)(torch.tensor([3.0, phi], dtype=torch.float64))
        assert float(q.stddev) == pytest.approx(expected, rel=1e-6)
        assert float(q.mean) == 3.0
    fixed = f.Normal(1, scale=1.2, least=0.5)(torch.zeros(1, dtype=torch.float64))
    assert float(fixed.stddev) == pytest.approx(1.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loadings_of_a_low_rank_normal_are_bounded(dtype: torch.dtype) -> None:
    """|V_dr| ≤ 100: Var z_d = σ_d² (1 + 2 · 100²) however large φ is, and the density is finite."""
    phi = torch.cat([torch.zeros(6), torch.tensor([1e4, -1e4] * 3)]).to(dtype)
    q = f.LowRankNormal(3, rank=2)(phi)
    torch.testing.assert_close(q.variance, torch.full((3,), 20_001.0, dtype=dtype))
    assert bool(q.log_prob(torch.randn(5, 3, dtype=dtype)).isfinite().all())
