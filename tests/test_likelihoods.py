"""Likelihoods of counts, levels, angles, mixtures, and normals with a σ of their own: totals, scipy, moments,
extremes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import aevb
from aevb.errors import DataError
from aevb.models.compat import check_support
from aevb.models.conditional import Conditional
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.probability import families as f
from aevb.probability.circular import VonMises
from aevb.probability.counts import (
    BetaBinomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    stirling_error,
)
from aevb.probability.mixtures import LogisticMixture
from aevb.probability.scales import HomoscedasticNormal, OptimalNormal

Make = Callable[[f.Shape], f.Family]
COUNTS: dict[str, Make] = {
    "poisson": Poisson,
    "negative-binomial": NegativeBinomial,
    "zero-inflated": ZeroInflatedNegativeBinomial,
}
LEVELS: dict[str, Make] = {
    "beta-binomial-256": BetaBinomial,
    "beta-binomial-17": lambda shape: BetaBinomial(shape, levels=17),
    "logistic-mixture-256": LogisticMixture,
    "logistic-mixture-17": lambda shape: LogisticMixture(shape, components=3, levels=17),
}
ALL: dict[str, Make] = {**COUNTS, **LEVELS, "von-mises": VonMises}


def levels(name: str) -> int:
    return int(name.rsplit("-", 1)[1])


def support(name: str) -> Tensor:
    """What the total is taken over, (N, 1, 1): counts far beyond the mean, all levels, or Gauss' nodes for angles."""
    if name in COUNTS:
        return torch.arange(20_000).double()[:, None, None]
    if name in LEVELS:
        return (torch.arange(levels(name)).double() / (levels(name) - 1))[:, None, None]
    return torch.from_numpy(np.linspace(-math.pi, math.pi, 2000, endpoint=False)).double()[:, None, None]


def moderate(size: int, rows: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(rows, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weights(name: str, p: torch.distributions.Distribution) -> Tensor:
    """P(x), or p(x) dx, over `support`; the trapezoidal rule is spectrally exact for periodic functions."""
    mass = p.log_prob(support(name)).exp()
    return mass * (2 * math.pi / 2000) if name == "von-mises" else mass


def points(name: str, rows: int) -> Tensor:
    """A value for each of so many rows, (rows, 1); small counts and 0 among them."""
    g = torch.Generator().manual_seed(2)
    if name in COUNTS:
        return torch.randint(6, (rows, 1), generator=g).double()
    grid = support(name)[:, 0]
    return grid[torch.randint(len(grid), (rows,), generator=g)]


def assert_mean(draws: Tensor, expected: Tensor) -> None:
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - expected).abs() <= 4.5 * error + 1e-12).all())


@pytest.mark.parametrize("name", [*COUNTS, *LEVELS])
def test_moments_are_exact_and_those_of_the_draws(name: str) -> None:
    torch.manual_seed(0)
    family = ALL[name](1)
    p = family(0.7 * moderate(family.size, 6))
    x, w = support(name), weights(name, p).unsqueeze(-1)
    mean = (w * x).sum(0)
    torch.testing.assert_close(p.mean, mean, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(p.variance, (w * (x - mean) ** 2).sum(0), rtol=1e-7, atol=1e-10)
    draws = p.sample(torch.Size((10_000,)))
    assert bool(p.support.check(draws).all())
    assert_mean(draws, p.mean)
    assert_mean((draws - mean) ** 2, p.variance)


def test_the_direction_and_the_spread_of_angles() -> None:
    torch.manual_seed(0)
    p = VonMises(1)(2 * moderate(2, 6))
    x, w = support("von-mises"), weights("von-mises", p).unsqueeze(-1)
    torch.testing.assert_close((w * (x - p.mean).sin()).sum(0), torch.zeros(6, 1).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(p.variance, 1 - (w * (x - p.mean).cos()).sum(0), rtol=1e-5, atol=1e-6)
    draws = p.sample(torch.Size((5000,)))
    assert bool(p.support.check(draws).all())
    assert_mean(torch.cos(draws - p.mean), 1 - p.variance)
    assert_mean(torch.sin(draws - p.mean), torch.zeros(6, 1).double())


def test_no_direction_is_the_uniform_and_has_a_slope() -> None:
    """At η = 0, where an angle μ would have none: ∇_η log p = (cos x, sin x)."""
    eta = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    log_p = VonMises(1)(eta).log_prob(torch.tensor([[0.7]]).double())
    assert log_p.item() == pytest.approx(-math.log(2 * math.pi), abs=1e-5)
    (slope,) = torch.autograd.grad(log_p.sum(), eta)
    assert slope[0].tolist() == pytest.approx([math.cos(0.7), math.sin(0.7)], abs=1e-6)


def test_the_error_of_stirling() -> None:
    x = torch.logspace(-4, 5, 400, dtype=torch.float64)
    exact = torch.lgamma(x) - (x - 0.5) * x.log() + x - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(stirling_error(x)[x < 100], exact[x < 100], rtol=0, atol=2e-11)
    torch.testing.assert_close(stirling_error(x)[x > 100], 1 / (12 * x[x > 100]), rtol=1e-5, atol=0)


def test_a_negative_binomial_with_large_r_is_a_poisson() -> None:
    x = torch.arange(30.0).double()[:, None]
    a, b = NegativeBinomial(1)(torch.tensor([1.5, 10.0]).double()), Poisson(1)(torch.tensor([1.5]).double())
    torch.testing.assert_close(a.log_prob(x), b.log_prob(x), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("family", "inside", "outside"),
    [
        (Poisson(1), [0.0, 3.0, 1e5], [-1.0, 0.5, math.nan]),
        (NegativeBinomial(1), [0.0, 3.0, 1e5], [-1.0, 0.5, math.nan]),
        (ZeroInflatedNegativeBinomial(1), [0.0, 3.0], [-1.0, 0.5, math.nan]),
        (BetaBinomial(1), [0.0, 17 / 255, 1.0], [0.5, 17.0, -1 / 255, math.nan]),
        (LogisticMixture(1), [0.0, 17 / 255, 1.0], [0.5, 17.0, -1 / 255, math.nan]),
        (VonMises(1), [-3.1415, 0.0, 3.1415], [-3.2, 4.0, 180.0, math.nan]),
        (HomoscedasticNormal(1), [-1e9, 0.5], [math.nan]),
        (OptimalNormal(1), [-1e9, 0.5], [math.nan]),
    ],
    ids=repr,
)
def test_support_accepts_and_refuses(family: f.Family, inside: list[float], outside: list[float]) -> None:
    p = family(torch.zeros(1, family.size))
    check_support(p, torch.tensor(inside)[:, None])
    for x in outside:
        with pytest.raises(DataError, match=f"The likelihood {family.word} covers .* in row 1"):
            check_support(p, torch.tensor([[inside[0]], [x]]), name=family.word)


@pytest.mark.parametrize("name", [*COUNTS, "beta-binomial-256", "von-mises"])
def test_shapes_and_the_order_of_the_parameters(name: str) -> None:
    """φ is (P, *shape) flattened."""
    family, one = ALL[name]((2, 3)), ALL[name](1)
    phi, x = moderate(family.size, 1)[0], points(name, 6)[:, 0]
    parts = [one(phi.view(-1, 6)[:, i]).log_prob(x[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(family(phi).log_prob(x.view(2, 3)), torch.stack(parts).sum())
    draws = family(phi.expand(4, 5, -1)).sample()
    assert draws.shape == (4, 5, 2, 3)


@pytest.mark.parametrize("shape", [(3, 4, 2), (1, 4, 2), (5,), (2, 3)], ids=str)
def test_a_mixture_of_logistics_by_hand(shape: tuple[int, ...]) -> None:
    """log Σ_m π_m Π_c P(x_c; μ_mc, s_mc) for each pixel of an image, and for each number of anything else."""
    family = LogisticMixture(shape, components=4, levels=17)
    c = shape[0] if len(shape) == 3 else 1
    pixels = math.prod(shape) // c
    phi, x = (
        moderate(family.size, 3),
        torch.randint(17, (3, *shape), generator=torch.Generator().manual_seed(0)).double() / 16,
    )
    assert family.size == 4 * (1 + 2 * c) * pixels
    expected = torch.zeros(3).double()
    one = f.DiscretizedLogistic(1, levels=17)
    parts, flat = phi.view(3, 4, 1 + 2 * c, pixels), x.reshape(3, c, pixels)
    for i in range(pixels):
        log_share = parts[:, :, 0, i].log_softmax(-1)
        masses = [
            one(torch.stack([parts[:, :, 1 + j, i], parts[:, :, 1 + c + j, i]], -1)).log_prob(flat[:, None, j, i, None])
            for j in range(c)
        ]
        expected += (log_share + torch.stack(masses).sum(0)).logsumexp(-1)
    p = family(phi)
    torch.testing.assert_close(p.log_prob(x), expected)
    assert (p.batch_shape, p.event_shape) == ((3,), shape)
    assert p.log_prob(x.expand(2, 3, *shape)).shape == (2, 3)
    assert p.mean.shape == p.variance.shape == (3, *shape)
    assert p.sample(torch.Size((2,))).shape == (2, 3, *shape)


def test_the_channels_of_a_pixel_share_their_component() -> None:
    """All or nothing: two sharp components at 0 and at 1 give pixels of one value in all channels."""
    torch.manual_seed(0)
    family = LogisticMixture((3, 2, 2), components=2)
    phi = torch.zeros(2, 7, 4)
    phi[1, 1:4] = 1.0  # μ
    phi[:, 4:] = -10.0  # log s
    x = family(phi.flatten()).sample(torch.Size((200,)))
    assert torch.equal(x, x[:, :1].expand_as(x))
    assert 0.4 < float(x.mean()) < 0.6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BetaBinomial(1, levels=1), "2 levels; got 1"),
        (lambda: LogisticMixture(1, components=0), "components ≥ 1"),
        (lambda: LogisticMixture(1, levels=1), "levels ≥ 2"),
        (lambda: OptimalNormal(1, least=0.0), "least > 0"),
        (lambda: OptimalNormal(1, momentum=0.0), "momentum"),
        (lambda: LogisticMixture((3, 2, 2))(torch.zeros(5)), r"needs 140 numbers .* gave 5"),
    ],
)
def test_refusals(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# The variance of discrete families


@pytest.mark.parametrize("log_scale", [-10.0, -5.0, 0.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_variance_of_a_discretised_logistic(log_scale: float, dtype: torch.dtype) -> None:
    phi = torch.tensor([[[-30.0], [log_scale]], [[0.4], [log_scale]], [[1.2], [log_scale]]], dtype=dtype).flatten(1)
    p = f.DiscretizedLogistic(1)(phi)
    x = (torch.arange(256).double() / 255)[:, None, None]
    w = f.DiscretizedLogistic(1)(phi.double()).log_prob(x).exp().unsqueeze(-1)
    exact = (w * (x - (w * x).sum(0)) ** 2).sum(0)
    torch.testing.assert_close(p.variance.double(), exact, rtol=1e-4, atol=1e-7)


def test_the_variance_of_a_categorical() -> None:
    p = f.Categorical(2, 5, spacing=0.25)(moderate(10, 4))
    x = (torch.arange(5).double() / 4)[:, None, None, None]
    w = torch.stack([p.base_dist.log_prob(v) for v in x.expand(5, 4, 2, 1)[..., 0]]).exp()  # type: ignore[attr-defined]
    mean = (w * x[..., 0]).sum(0)
    torch.testing.assert_close(p.variance, (w * (x[..., 0] - mean) ** 2).sum(0))


# A σ of the likelihood's own


def linear_vae(family: f.Family) -> VAE:
    torch.manual_seed(0)
    q = aevb.Normal(1)
    return VAE(StandardNormal(1), Conditional(nn.Linear(3, q.size), q), Conditional(nn.Linear(1, family.size), family))


@pytest.mark.parametrize("each", [True, False])
def test_a_learned_scale_is_a_parameter_of_the_decoder(each: bool) -> None:
    family = HomoscedasticNormal(3, each=each)
    model = linear_vae(family)
    assert family.size == 3
    assert model.state_dict()["decoder.family.log_scale"].shape == ((3,) if each else ())
    with torch.no_grad():
        family.log_scale.fill_(math.log(0.3))
    p, mean = model.decode(torch.zeros(2, 1)), model.decoder.net(torch.zeros(2, 1))
    x = torch.randn(2, 3)
    torch.testing.assert_close(p.log_prob(x), aevb.Normal(3, scale=0.3)(mean).log_prob(x))


def test_a_learned_scale_becomes_that_of_the_data() -> None:
    """Columns of noise with σ of 0.1, 1 and 3, that no latent explains."""
    torch.manual_seed(0)
    x = torch.randn(2000, 3) * torch.tensor([0.1, 1.0, 3.0])
    model = linear_vae(HomoscedasticNormal(3))
    settings = aevb.Training(samples=30_000, optimizer=aevb.Adam(0.02))
    for _ in aevb.train(model, aevb.ELBO(beta=4.0), x, settings):
        pass
    scale = model.decoder.family.log_scale.exp().tolist()
    assert scale == pytest.approx([0.1, 1.0, 3.0], rel=0.1)


def test_the_optimal_scale_is_that_of_maximum_likelihood() -> None:
    """σ*² = mean (x - μ)²: no other σ gives the minibatch a higher likelihood; and its gradient in μ is that at fixed
    σ*."""
    family, x = OptimalNormal(3), torch.randn(50, 3).double()
    family.double().train()
    phi = torch.zeros(50, 3).double().requires_grad_()
    log_p = family(phi).log_prob(x)
    best = x.square().mean().sqrt()
    fixed = aevb.Normal(3, scale=float(best))(phi).log_prob(x)
    torch.testing.assert_close(log_p, fixed)
    for other in (0.9, 1.1):
        assert aevb.Normal(3, scale=float(best) * other)(phi).log_prob(x).sum() < log_p.sum()
    slopes = [torch.autograd.grad(v.sum(), phi, retain_graph=True)[0] for v in (log_p, fixed)]
    torch.testing.assert_close(*slopes)


def test_the_optimal_scale_learns_when_training_says_so_and_at_no_call() -> None:
    """σ² is a running mean of the minibatches' σ*², read off their densities; a density itself changes nothing."""
    family, x = OptimalNormal(3), torch.randn(50, 3)
    model = linear_vae(family).train()
    with torch.no_grad():
        model.decoder.net.weight.zero_()
        model.decoder.net.bias.zero_()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.trace(x, 2).log_px.sum()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    family.learn(model.trace(x, 2))
    first = family.mean_square.clone()
    torch.testing.assert_close(first, x.square().mean())
    family.learn(model.trace(2 * x))
    torch.testing.assert_close(family.mean_square, 0.9 * first + 0.1 * 4 * first)
    model.eval()
    p, scale = family(torch.zeros(2, 3)), family.mean_square.sqrt()
    torch.testing.assert_close(p.log_prob(x[:2]), aevb.Normal(3, scale=float(scale))(torch.zeros(2, 3)).log_prob(x[:2]))
    torch.testing.assert_close(p.stddev, scale.expand(2, 3))


def test_data_that_are_met_exactly_have_the_least_scale() -> None:
    family = OptimalNormal(2, least=0.01).train()
    log_p = family(torch.zeros(4, 2)).log_prob(torch.zeros(4, 2))
    assert log_p.tolist() == pytest.approx([-2 * math.log(0.01 * math.sqrt(2 * math.pi))] * 4, rel=1e-5)


def test_a_model_with_an_optimal_scale_survives_saving() -> None:
    x = torch.randn(200, 3)
    model = linear_vae(OptimalNormal(3))
    for _ in aevb.train(model, aevb.ELBO(), x, aevb.Training(samples=2000, batch=50)):
        pass
    again = linear_vae(OptimalNormal(3))
    again.load_state_dict(model.state_dict())
    z = torch.zeros(5, 1)
    assert float(model.decoder.family.mean_square) != 1.0
    assert torch.equal(model.eval().decode(z).log_prob(x[:5]), again.eval().decode(z).log_prob(x[:5]))


def test_the_optimal_scale_is_a_constant_for_the_gradient() -> None:
    """Of one row of a minibatch alone, whose bound is not flat in σ*: as of a normal with that number for σ."""
    family = OptimalNormal(4).double().train()
    mean = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(6, 4, dtype=torch.float64)
    sigma = float((x - mean.detach()).square().mean().sqrt())
    ours, fixed = family(mean).log_prob(x)[0], torch.distributions.Normal(mean, sigma).log_prob(x).sum(-1)[0]
    torch.testing.assert_close(ours, fixed)
    torch.testing.assert_close(torch.autograd.grad(ours, mean), torch.autograd.grad(fixed, mean))
    assert not family.mean_square.requires_grad
