"""Flows: they integrate to one, their inverses invert, their determinants are autograd's; zuko leaves PyTorch as it
was.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

import aevb
from aevb.errors import RecipeError
from aevb.models.compat import check_model
from aevb.models.conditional import Conditional
from aevb.models.priors import FlowPrior, StandardNormal
from aevb.models.trace import kl_groups
from aevb.models.vae import VAE
from aevb.probability.flows import (
    IAF,
    LEAST,
    Flow,
    Planar,
    Sylvester,
    invertible,
    planar,
    planar_inverse,
    reflected,
    upper,
)
from aevb.runs.build import build_model
from aevb.runs.recipe import Recipe


def family(name: str, latent: int = 2) -> aevb.Family:
    torch.manual_seed(0)
    if name == "planar":
        return Planar(latent, flows=4)
    if name == "sylvester":
        return Sylvester(latent, flows=3, reflections=2)
    return IAF(latent, flows=3, hidden=(16,), features=5).double()


def posterior(name: str, latent: int = 2, rows: int = 2) -> Distribution:
    f = family(name, latent)
    phi = 0.4 * torch.randn(rows, f.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    phi[:, latent : 2 * latent] = -0.5
    return f(phi)


def flow_prior(latent: int = 2) -> FlowPrior:
    torch.manual_seed(0)
    prior = FlowPrior(latent, flows=2, hidden=(16,)).double()
    with torch.no_grad():
        for p in prior.parameters():
            p.mul_(1.3)  # well away from the identity
    return prior


def plane() -> Tensor:
    """A grid over [-9, 9]², (361², 2); each point stands for 1/400 of area."""
    t = torch.linspace(-9, 9, 361, dtype=torch.float64)
    return torch.cartesian_prod(t, t)


@pytest.mark.parametrize(
    "make",
    [lambda: posterior("planar"), lambda: posterior("sylvester"), lambda: posterior("iaf"), lambda: flow_prior()()],
)
def test_a_flow_integrates_to_one_over_the_plane(make: Callable[[], Distribution]) -> None:
    p = make()
    with torch.no_grad():
        total = p.log_prob(plane()[:, None] if p.batch_shape else plane()).exp().sum(0) / 400
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=3e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: posterior("planar", 4),
        lambda: posterior("sylvester", 4),
        lambda: posterior("iaf", 4),
        lambda: flow_prior(4)(),
    ],
)
def test_the_inverse_inverts_and_the_determinant_is_that_of_autograd(make: Callable[[], Distribution]) -> None:
    p = make()
    assert isinstance(p, Flow)
    epsilon = p.base.sample(torch.Size((5,)))
    z, log_det = p.bend(epsilon)
    back, inverse_det = p.unbend(z)
    torch.testing.assert_close(back, epsilon, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(inverse_det, -log_det, rtol=1e-6, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda e: p.bend(e)[0].sum(0), epsilon)  # (*B, D, 5, *B, D)
    if p.batch_shape:
        blocks = torch.stack([jacobian[i, :, :, i] for i in range(len(epsilon[0]))])  # (B, D, 5, D)
        exact = blocks.permute(2, 0, 1, 3).slogdet().logabsdet
    else:
        exact = jacobian.permute(1, 0, 2).slogdet().logabsdet
    torch.testing.assert_close(log_det, exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["planar", "sylvester", "iaf"])
def test_what_is_remembered_of_a_draw_is_its_density_and_gradient(name: str) -> None:
    """The density of the drawn tensor, and of a copy that has to be inverted: equal values, equal slopes in φ."""
    f = family(name, 3)
    phi = torch.randn(4, f.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    q = f(phi)
    z = q.rsample(torch.Size((5,)))
    remembered, computed = q.log_prob(z), q.log_prob(z * 1.0)
    torch.testing.assert_close(remembered, computed, rtol=1e-6, atol=1e-6)
    a, b = (torch.autograd.grad(v.sum(), phi, retain_graph=True)[0] for v in (remembered, computed))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_draw_without_gradients_remembers_none() -> None:
    """Wake-sleep draws so, and then asks for the gradient of the density there."""
    f = Planar(2)
    phi = torch.randn(3, f.size).requires_grad_()
    q = f(phi)
    z = q.sample()
    assert q.log_prob(z).requires_grad
    with torch.no_grad():
        assert q.drawn is not None
        assert q.log_prob(z) is q.drawn[1]


def test_the_slope_of_a_planar_inverse_is_that_of_finite_differences() -> None:
    g = torch.Generator().manual_seed(0)
    y, u, w = (torch.randn(4, 3, dtype=torch.float64, generator=g).requires_grad_() for _ in range(3))
    b = torch.randn(4, dtype=torch.float64, generator=g).requires_grad_()
    w2 = (w * (w * u).sum(-1, keepdim=True).sign()).detach().requires_grad_()  # w·u > 0: invertible
    assert torch.autograd.gradcheck(planar_inverse, (y, u, w2, b), atol=1e-6)
    x, _ = planar_inverse(y, u, w2, b)
    torch.testing.assert_close(planar(x, u, w2, b)[0], y)


def test_reflections_are_orthogonal_and_undone() -> None:
    v, x = torch.randn(3, 2, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)
    y = reflected(x, v)
    torch.testing.assert_close(reflected(y, v, back=True), x)
    torch.testing.assert_close(y.square().sum(-1), x.square().sum(-1))
    assert not torch.allclose(y, x)


def test_an_upper_triangle_is_filled_row_by_row() -> None:
    matrix = upper(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([7.0, 8.0, 9.0]))
    assert matrix.tolist() == [[7, 1, 2], [0, 8, 3], [0, 0, 9]]


def test_a_planar_flow_never_folds_however_short_its_w() -> None:
    """w·û > -1 (App. A.1 of 1505.05770), so that its log-determinant is that of a bijection."""
    short, long = torch.meshgrid(10.0 ** torch.arange(-4, 2), 10.0 ** torch.arange(-2, 5), indexing="ij")
    w = torch.stack([short, 0.3 * short], -1).double()
    for sign in (-1, 1):
        u = sign * torch.stack([long, -long], -1).double()
        slope = (w * invertible(u, w)).sum(-1)
        assert bool((slope > -1).all())
        torch.testing.assert_close(slope, F.softplus((w * u).sum(-1)) - 1 + LEAST, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("f", [Planar(2, flows=3), Sylvester(2, flows=3)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_posterior_is_finite_at_extremes(dtype: torch.dtype, f: aevb.Family) -> None:
    choice = torch.randint(3, (300, f.size), generator=torch.Generator().manual_seed(0)) - 1
    phi = (30.0 * choice).to(dtype).requires_grad_()
    q = f(phi)
    z = q.rsample(torch.Size((2,)))
    log_q = q.log_prob(z)
    assert bool(z.isfinite().all())
    assert bool(log_q.isfinite().all())
    (slope,) = torch.autograd.grad(log_q.sum(), phi)
    assert bool(slope.isfinite().all())


@pytest.mark.parametrize("name", ["planar", "sylvester", "iaf"])
@torch.no_grad()
def test_the_kl_of_a_flow_is_that_of_quadrature(name: str) -> None:
    torch.manual_seed(0)
    q, p = posterior(name), StandardNormal(2).double()()
    log_q = q.log_prob(plane()[:, None])
    exact = (log_q.exp() * (log_q - p.log_prob(plane()[:, None]))).sum(0) / 400
    z = q.rsample(torch.Size((20_000,)))
    gap = q.log_prob(z) - p.log_prob(z)
    assert bool(((gap.mean(0) - exact).abs() < 4.5 * gap.std(0) / math.sqrt(20_000) + 2e-3).all())
    torch.testing.assert_close(kl_groups(q, p, z)[:, 0], gap.mean(0))


@torch.no_grad()
def test_the_kl_from_a_flow_prior_is_that_of_quadrature() -> None:
    torch.manual_seed(0)
    q, p = aevb.Normal(2)(torch.tensor([[0.5, -1.0, -1.0, 0.3]], dtype=torch.float64)), flow_prior()()
    log_q = q.log_prob(plane())
    exact = (log_q.exp() * (log_q - p.log_prob(plane()))).sum() / 400
    z = q.rsample(torch.Size((20_000,)))
    gap = (q.log_prob(z) - p.log_prob(z))[:, 0]
    assert abs(float(gap.mean() - exact)) < 4.5 * float(gap.std()) / math.sqrt(20_000) + 1e-3


@torch.no_grad()
def test_draws_of_a_flow_prior_follow_its_density() -> None:
    torch.manual_seed(0)
    p = flow_prior()()
    z = p.sample(torch.Size((5000,)))
    mean = (p.log_prob(plane()).exp()[:, None] * plane()).sum(0) / 400
    assert bool(((z.mean(0) - mean).abs() < 4.5 * z.std(0) / math.sqrt(5000) + 1e-3).all())


def test_a_flow_prior_over_images_of_latents() -> None:
    p = FlowPrior((2, 3))()
    z = p.sample(torch.Size((4,)))
    assert z.shape == (4, 2, 3)
    assert p.log_prob(z).shape == (4,)


@pytest.mark.filterwarnings("ignore::UserWarning")  # zuko's own, with PyTorch's checks on
def test_a_flow_of_zuko_is_a_prior_as_it_is() -> None:
    """Design: their lazy distributions drop in, as a prior and as an encoder."""
    from aevb.probability.flows import zuko

    torch.manual_seed(0)
    prior, decoder = zuko().MAF(2, transforms=2), Conditional(nn.Linear(2, 4), aevb.Normal(4, scale=1.0))
    x = torch.randn(6, 4)
    for encoder in (Conditional(nn.Linear(4, 4), aevb.Normal(2)), zuko().MAF(2, 4, transforms=2)):
        t = VAE(prior, encoder, decoder).trace(x, 3)
        assert t.log_w.shape == (3, 6)
        assert bool(t.log_w.isfinite().all())
        loss, _ = aevb.ELBO()(VAE(prior, encoder, decoder), x, 0)
        loss.backward()


@pytest.mark.parametrize(
    "posterior", ["normal", "full-normal", "low-rank-normal", "planar", "sylvester", "iaf", "householder", "logistic"]
)
def test_a_flow_prior_goes_with_every_posterior_over_the_line(posterior: str) -> None:
    model = build_model(
        Recipe.load("bernoulli").override([f"posterior={posterior}", "prior=flow", "latent=3"]), (1, 4, 4)
    )
    x = torch.bernoulli(torch.full((5, 1, 4, 4), 0.5))
    check_model(model)
    check_model(model, seen=model.trace(x))
    loss, _ = aevb.ELBO()(model, x, 0)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters() if p.requires_grad)
    assert model.decode(model.sample_latent(4)).mean.shape == (4, 1, 4, 4)


def test_a_flow_prior_under_a_positive_posterior_is_refused() -> None:
    recipe = Recipe.load("bernoulli").override(["posterior=gamma", "prior=flow", "latent=2"])
    with pytest.raises(
        RecipeError, match="prior flow gives no density on positive numbers, which the posterior gamma requires"
    ):
        build_model(recipe, (1, 4, 4))


class Ring(nn.Module):
    """x = |z|² and a little noise: p(z|x) lies on a circle."""

    def forward(self, z: Tensor) -> Distribution:
        return aevb.Normal(1, scale=0.3)(z.square().sum(-1, keepdim=True))


def test_flows_bend_a_posterior_that_no_normal_fits() -> None:
    x, bounds = torch.full((16, 1), 2.0), {}
    for f in (aevb.Normal(2), Planar(2, flows=6), Sylvester(2, flows=2), IAF(2, flows=3, hidden=(32,))):
        torch.manual_seed(0)
        model = VAE(StandardNormal(2), Conditional(nn.Linear(1, f.size), f), Ring())
        for _ in aevb.train(
            model, aevb.ELBO(), x, aevb.Training(samples=16 * 300, batch=16, optimizer=aevb.Adam(0.01))
        ):
            pass
        with torch.no_grad():
            bounds[type(f).__name__] = float(model.trace(x, 100).log_w.mean())
    assert min(bounds[name] for name in ("Planar", "Sylvester", "IAF")) > bounds["Normal"] + 0.2


@pytest.mark.parametrize("parts", ["planar", "iaf", "vamp"])
def test_estimators_share_their_expectation_with_flows_and_shared_encoders(parts: str) -> None:
    """DReG holds log q(z|x) at constant parameters, which for a flow is a density at points that it did not draw.

    Of a VampPrior's encoder only the posterior is held: its part in p(z) keeps its gradient.
    """
    torch.manual_seed(0)
    q = {"planar": Planar(2, flows=2), "iaf": IAF(2, flows=1, hidden=(4,), features=2), "vamp": aevb.Normal(2)}[parts]
    encoder = Conditional(nn.Linear(3, q.size), q)
    prior = aevb.VampPrior(encoder, torch.randn(4, 3)) if parts == "vamp" else StandardNormal(2)
    model = VAE(prior, encoder, Conditional(nn.Linear(2, 3), aevb.Normal(3, scale=1.0))).double()
    x = torch.randn(50, 3, dtype=torch.float64)
    weights = [p for p in model.parameters() if p.requires_grad]
    means, errors = [], []
    for gradient in ("plain", "dreg"):
        draws = []
        for _ in range(150):
            loss, _ = aevb.ImportanceWeighted(4, gradient=gradient)(model, x, 0)  # type: ignore[arg-type]
            draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
        stacked = torch.stack(draws)
        means.append(stacked.mean(0))
        errors.append(stacked.var(0) / len(draws))
    assert bool(((means[0] - means[1]).abs() < 4.5 * (errors[0] + errors[1]).sqrt() + 1e-9).all())


def test_importing_zuko_leaves_the_checks_of_pytorch_on() -> None:
    code = (
        "import torch, aevb; from torch.distributions import Normal, Distribution; before = "
        "Distribution.arg_constraints;"
        "f = aevb.FlowPrior(2); q = aevb.IAF(2)(torch.zeros(1, aevb.IAF(2).size)); q.log_prob(q.rsample());"
        "f().sample((3,)); f().log_prob(torch.zeros(4, 2));"
        "assert Distribution.arg_constraints is before, 'arg_constraints';"
        "assert Distribution._validate_args is "
        "True, 'validate_args'\ntry: Normal(0.0, -1.0)\n"
        "except ValueError: print('refused')"
    )
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "refused", out.stderr


def test_without_zuko_a_flow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(RecipeError, match=r"pip install zuko \(the extra aevb\[flows\]\)"):
        build_model(Recipe.load("bernoulli").override(["prior=flow"]), (1, 4, 4))
    assert Planar(2)(torch.zeros(1, Planar(2).size)).sample().shape == (1, 2)  # which needs none


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Planar(2, flows=0), "at least 1"),
        (lambda: Planar((2, 2)), "vectors"),
        (lambda: Sylvester((2, 2)), "vectors"),
        (lambda: Sylvester(2, reflections=0), "at least 1"),
        (lambda: IAF((2, 2)), "vectors"),
        (lambda: IAF(2, features=0), "at least 1"),
        (lambda: Planar(2)(torch.zeros(3)), r"needs 54 numbers .* gave 3"),
    ],
)
def test_refusals(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
