"""§2.4: families whose draws are differentiable functions of noise, against SciPy, quadrature and closed forms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Independent, kl_divergence

import aevb
from aevb.data.dataset import Dataset
from aevb.data.sources import load_data
from aevb.errors import DataError, RecipeError, ShapeError
from aevb.models.compat import check_support
from aevb.models.priors import Known
from aevb.models.trace import kl_groups
from aevb.parts import POSTERIOR, PRIOR, Member, conflicts, parts_in
from aevb.probability import distributions as d
from aevb.probability import reparameterized as r
from aevb.probability.families import Factorized, Family
from aevb.runs.build import build_model, build_objective
from aevb.runs.parts import AXES, FAMILIES
from aevb.runs.recipe import Recipe

FACTORIZED: dict[str, type[Factorized]] = {
    "logistic": r.Logistic,
    "gumbel": r.Gumbel,
    "cauchy": r.Cauchy,
    "uniform": r.Uniform,
    "exponential": r.Exponential,
    "weibull": r.Weibull,
    "log-normal": r.LogNormal,
    "gamma": r.Gamma,
    "beta": r.Beta,
}
ALL: dict[str, type[Family]] = {**FACTORIZED, "dirichlet": r.Dirichlet}
REAL = ("logistic", "gumbel", "cauchy")
MATCHING = {  # of each posterior, the one to train with
    "logistic": "standard-logistic",
    "gumbel": "standard-gumbel",
    "cauchy": "standard-cauchy",
    "uniform": "standard-normal",
    "exponential": "unit-exponential",
    "weibull": "unit-exponential",
    "log-normal": "log-normal",
    "gamma": "unit-exponential",
    "beta": "uniform",
    "dirichlet": "flat-dirichlet",
    "normal": "standard-normal",
    "full-normal": "standard-normal",
    "laplace": "standard-laplace",
    "student-t": "standard-student-t",
}


def moderate(size: int, rows: int = 3, seed: int = 0, spread: float = 0.5) -> Tensor:
    return spread * torch.randn(rows, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softplus(x: float) -> float:
    return float(np.logaddexp(0, x))


def in_scipy(name: str, phi: list[float]) -> Any:
    """The definition of each family once more, in SciPy's terms."""
    a, b = (*phi, 0.0)[:2]
    match name:
        case "logistic":
            return scipy.stats.logistic(a, math.exp(b))
        case "gumbel":
            return scipy.stats.gumbel_r(a, math.exp(b))
        case "cauchy":
            return scipy.stats.cauchy(a, math.exp(b))
        case "uniform":
            return scipy.stats.uniform(a - math.exp(b), 2 * math.exp(b))
        case "exponential":
            return scipy.stats.expon(scale=math.exp(a))
        case "weibull":
            return scipy.stats.weibull_min(0.5 + softplus(b), scale=math.exp(a))
        case "log-normal":
            return scipy.stats.lognorm(math.exp(b), scale=math.exp(a))
        case "gamma":
            return scipy.stats.gamma(0.5 + softplus(a), scale=math.exp(b))
        case _:
            return scipy.stats.beta(0.5 + softplus(a), 0.5 + softplus(b))


# Quadrature


def nodes(name: str, q: Any) -> tuple[Tensor, Tensor]:
    """z (M, B, 1) and weights (M, B, 1) of the trapezoidal rule, after a change of variable that tames the ends."""
    if name in REAL:  # z = μ + s sinh u; a Cauchy's tails ask for more
        u = torch.linspace(-1, 1, 4001, dtype=torch.float64)[:, None, None] * (25.0 if name == "cauchy" else 6.5)
        z, slope = q.base_dist.loc + q.base_dist.scale * u.sinh(), q.base_dist.scale * u.cosh()
    elif name == "beta":  # z = σ(u)
        u = torch.linspace(-36, 36, 4001, dtype=torch.float64)[:, None, None]
        z, slope = u.sigmoid(), u.sigmoid() * (-u).sigmoid()
    elif name == "uniform":
        return legendre(q)
    else:  # z = eᵘ
        u = torch.linspace(-60, 40, 5001, dtype=torch.float64)[:, None, None]
        z, slope = u.exp(), u.exp()
    return z.detach(), (slope * (u[1] - u[0])).detach()


def legendre(q: Any) -> tuple[Tensor, Tensor]:
    """z = c + h t at the nodes t of Gauss and Legendre."""
    t, w = (torch.from_numpy(a)[:, None, None] for a in np.polynomial.legendre.leggauss(64))
    return (q.mean + q.base_dist.half * t).detach(), (q.base_dist.half * w).detach()


def simplex() -> tuple[Tensor, Tensor]:
    """Nodes (M, 1, 3) and weights (M, 1) on the simplex: z₁ = σ(u), z₂ = (1 - z₁) σ(v)."""
    line = torch.linspace(-40, 40, 401, dtype=torch.float64)
    u, v = torch.cartesian_prod(line, line).unbind(-1)
    a, b, c, e = u.sigmoid(), (-u).sigmoid(), v.sigmoid(), (-v).sigmoid()
    return torch.stack([a, b * c, b * e], -1)[:, None], (a * b**2 * c * e * 0.2**2)[:, None]


def expectation(name: str, q: Any, f: Callable[[Tensor], Tensor]) -> Tensor:
    """E_q[Σ_d f(z_d)] for each row of φ, (B,)."""
    z, w = simplex() if name == "dirichlet" else nodes(name, q)
    if name == "dirichlet":
        return (f(z).sum(-1) * q.log_prob(z).exp() * w).sum(0)
    return (f(z) * q.base_dist.log_prob(z).exp() * w).sum((0, 2))


def joint(name: str, q: Any, p: Any) -> Tensor:
    """KL(q ‖ p) = ∫ q (log q - log p), (B,)."""
    z, w = simplex() if name == "dirichlet" else nodes(name, q)
    log_q, log_p = q.log_prob(z), p.log_prob(z)
    return (torch.where(log_q.exp() > 0, log_q.exp() * (log_q - log_p), 0.0) * w.view(len(w), -1)).sum(0)


# Against SciPy


@pytest.mark.parametrize("name", FACTORIZED)
def test_log_density_and_moments_are_those_of_scipy(name: str) -> None:
    torch.manual_seed(0)
    family = FACTORIZED[name](1)
    phi = moderate(family.size, rows=20)
    q = family(phi)
    z = q.sample()
    theirs = [in_scipy(name, row) for row in phi.tolist()]
    log_p = [t.logpdf(x) for t, x in zip(theirs, z[:, 0].tolist(), strict=True)]
    np.testing.assert_allclose(q.log_prob(z).numpy(), log_p, rtol=1e-8, atol=1e-9)
    if name == "cauchy":
        np.testing.assert_allclose(q.mean[:, 0].numpy(), [t.median() for t in theirs], rtol=1e-9)
        return
    np.testing.assert_allclose(q.mean[:, 0].numpy(), [t.mean() for t in theirs], rtol=1e-8)
    np.testing.assert_allclose(q.variance[:, 0].numpy(), [t.var() for t in theirs], rtol=1e-8)


def test_dirichlet_agrees_with_scipy() -> None:
    torch.manual_seed(0)
    phi = moderate(4)
    q = r.Dirichlet(4)(phi)
    z = q.rsample((20_000,))
    for i, row in enumerate(phi.tolist()):
        theirs = scipy.stats.dirichlet([0.5 + softplus(k) for k in row])
        np.testing.assert_allclose(
            q.log_prob(z)[:5, i].numpy(), [theirs.logpdf(x) for x in z[:5, i].numpy()], rtol=1e-9
        )
        within(z[:, i], torch.from_numpy(theirs.mean()))
        within((z[:, i] - q.mean[i]) ** 2, torch.from_numpy(theirs.var()))


def within(draws: Tensor, expected: Tensor) -> None:
    """The mean over the first axis, within 4 of its standard errors."""
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - expected).abs() <= 4 * error + 1e-12).all())


@pytest.mark.parametrize("name", FACTORIZED)
def test_draws_have_the_moments_and_quantiles_of_scipy(name: str) -> None:
    torch.manual_seed(0)
    family = FACTORIZED[name](1)
    phi = moderate(family.size)
    z = family(phi).rsample(torch.Size((20_000,)))[..., 0]
    theirs = [in_scipy(name, row) for row in phi.tolist()]
    for level in (0.1, 0.5, 0.9):
        within((z < torch.tensor([t.ppf(level) for t in theirs])).double(), torch.full((3,), level))
    if name != "cauchy":
        within(z, torch.tensor([t.mean() for t in theirs]))
        within((z - z.mean(0)) ** 2, torch.tensor([t.var() for t in theirs]))


def test_logistic_is_stable_and_inverts() -> None:
    p = d.Logistic(torch.tensor(0.0), torch.tensor(1.0))
    assert p.log_prob(torch.tensor([-1e4, 1e4])).tolist() == [-1e4, -1e4]
    torch.manual_seed(0)
    z = p.rsample((9,))
    torch.manual_seed(0)
    torch.testing.assert_close(p.cdf(z), torch.rand(9))


# The pathwise gradient


def bump(z: Tensor) -> Tensor:
    return 1 / (1 + z**2)


SMOOTH: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    **dict.fromkeys(("logistic", "gumbel"), (torch.square, torch.sin)),
    "cauchy": (bump, torch.atan),
    "uniform": (torch.square, torch.sin),
    **dict.fromkeys(("exponential", "weibull", "gamma", "beta"), (torch.square, torch.log)),
    "log-normal": (torch.log1p, torch.log),
    "dirichlet": (torch.square, torch.log),
}


def pathwise(family: Family, phi: Tensor, f: Callable[[Tensor], Tensor], n: int = 50_000) -> tuple[Tensor, Tensor]:
    """The mean over n draws of ∇_φ f(g_φ(ε)), and its standard error: (B, P) each."""
    torch.manual_seed(0)
    many = phi.expand(n, *phi.shape).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(family(many).rsample()).sum(), many)
    return gradient.mean(0), gradient.std(0) / math.sqrt(n)


def exact(name: str, family: Family, phi: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """∇_φ E_q[f(z)], the expectation by quadrature; a uniform's ends move, so its own are closed forms."""
    phi = phi.clone().requires_grad_()
    if name == "uniform":
        c, h = phi[:, 0], phi[:, 1].exp()
        value = c**2 + h**2 / 3 if f is torch.square else c.sin() * h.sin() / h
    else:
        value = expectation(name, family(phi), f)
    (gradient,) = torch.autograd.grad(value.sum(), phi)
    return gradient


@pytest.mark.parametrize(("name", "f"), [(n, f) for n in ALL for f in SMOOTH[n]])
def test_the_pathwise_gradient_is_the_gradient_of_the_expectation(name: str, f: Callable[[Tensor], Tensor]) -> None:
    """∇_φ E_q[f(z)] = E_ε[∇_φ f(g_φ(ε))], §2.4, within 4 standard errors."""
    family = ALL[name](3 if name == "dirichlet" else 1)
    phi = moderate(family.size, seed=1)
    expected = exact(name, family, phi, f)
    estimate, error = pathwise(family, phi, f)
    assert bool((error <= 0.03 * (1 + expected.abs())).all())  # or the comparison would say little
    difference = (estimate - expected).abs()
    assert bool((difference <= 4 * error + 1e-6).all()), (difference / error).tolist()


def test_closed_forms_of_the_expectation() -> None:
    """The quadrature of the test above: E[z²] of a Gamma is α(α+1)θ², E[log z] of a Dirichlet ψ(α) - ψ(Σα)."""
    phi = moderate(2)
    alpha, theta = r.shape_from(phi[:, 0]), phi[:, 1].exp()
    torch.testing.assert_close(expectation("gamma", r.Gamma(1)(phi), torch.square), alpha * (alpha + 1) * theta**2)
    phi = moderate(3)
    alpha = r.shape_from(phi)
    closed = (alpha.digamma() - alpha.sum(-1, keepdim=True).digamma()).sum(-1)
    torch.testing.assert_close(expectation("dirichlet", r.Dirichlet(3)(phi), torch.log), closed, rtol=1e-5, atol=1e-5)


# KL(q ‖ p)


CLOSED = [
    ("gumbel", "standard-gumbel"),
    ("gumbel", "standard-normal"),
    ("cauchy", "standard-cauchy"),
    ("uniform", "standard-normal"),
    ("exponential", "unit-exponential"),
    ("weibull", "unit-exponential"),
    ("gamma", "unit-exponential"),
    ("log-normal", "log-normal"),
    ("beta", "uniform"),
    ("dirichlet", "flat-dirichlet"),
]


def pair(posterior: str, prior: str, phi: Tensor, size: int) -> tuple[Any, Any]:
    return FAMILIES[posterior]((size,))(phi), AXES["prior"][prior](size).to(phi.dtype)()


@pytest.mark.parametrize(("name", "prior"), CLOSED)
def test_the_closed_kl_is_its_integral(name: str, prior: str) -> None:
    size = 3 if name == "dirichlet" else 1
    q, p = pair(name, prior, moderate(ALL[name](size).size, rows=5), size)
    bases = (q.base_dist, p.base_dist) if isinstance(q, Independent) else (q, p)
    closed = kl_divergence(*bases).view(5)
    torch.testing.assert_close(closed, joint(name, q, p), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prior", ["standard-logistic", "standard-normal", "standard-student-t"])
def test_a_kl_without_a_closed_form_is_estimated_without_bias(prior: str) -> None:
    torch.manual_seed(0)
    q, p = pair("logistic", prior, moderate(2), 1)
    z = q.rsample((20_000,))
    assert kl_groups(q, p, z[:1]).shape == (3, 1)
    within(q.log_prob(z) - p.log_prob(z), joint("logistic", q, p))


def test_the_kl_of_a_cauchy_from_a_normal_is_infinite() -> None:
    """∫ q (-log p) over |z| < R grows as R: doubling R doubles it."""
    q, p = pair("cauchy", "standard-normal", torch.zeros(1, 2, dtype=torch.float64), 1)
    u = torch.linspace(-25, 25, 50001, dtype=torch.float64)
    z = u.sinh()
    integrand = q.log_prob(z[:, None, None])[:, 0].exp() * -p.log_prob(z[:, None]) * u.cosh() * (u[1] - u[0])
    below = [float(integrand[z.abs() < reach].sum()) for reach in (1e5, 2e5, 4e5)]
    assert below[1] / below[0] == pytest.approx(2, rel=0.01)
    assert below[2] / below[1] == pytest.approx(2, rel=0.01)


# Supports, priors and pairs


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("logistic", [-1e9, 0.5], [math.nan]),
        ("gumbel", [-3.0, 1e9], [math.nan]),
        ("cauchy", [-1e9, 1e9], [math.nan]),
        ("exponential", [0.0, 1e9], [-0.1, math.nan]),
        ("weibull", [1e-9, 1e9], [0.0, -1.0]),
        ("log-normal", [1e-9, 1e9], [0.0, -1.0]),
        ("gamma", [1e-9, 1e9], [0.0, -1.0]),
        ("beta", [1e-6, 0.999], [0.0, 1.0, -0.1, 2.0]),
    ],
)
def test_as_a_likelihood_each_refuses_data_outside_of_its_support(
    name: str, inside: list[float], outside: list[float]
) -> None:
    family = AXES["likelihood"][name](1)
    p = family(torch.zeros(1, family.size))
    check_support(p, torch.tensor(inside)[:, None])
    assert bool(p.log_prob(torch.tensor(inside)[:, None].clamp(-80, 80)).isfinite().all())
    for x in outside:
        with pytest.raises(DataError, match=f"The likelihood {name} covers"):
            check_support(p, torch.tensor([[x]]), name=family.word)


def test_a_likelihood_says_what_it_covers() -> None:
    with pytest.raises(DataError, match="Beta covers numbers above 0 and below 1, but the data hold 0"):
        check_support(r.Beta(1)(torch.zeros(1, 2)), torch.zeros(1, 1))
    with pytest.raises(DataError, match="Gamma covers numbers above 0, but the data hold 0"):
        check_support(r.Gamma(1)(torch.zeros(1, 2)), torch.zeros(1, 1))


STANDARD = {
    "standard-normal": scipy.stats.norm,
    "standard-logistic": scipy.stats.logistic,
    "standard-laplace": scipy.stats.laplace,
    "standard-student-t": scipy.stats.t(3),
    "standard-cauchy": scipy.stats.cauchy,
    "standard-gumbel": scipy.stats.gumbel_r,
    "unit-exponential": scipy.stats.expon,
    "log-normal": scipy.stats.lognorm(1),
    "uniform": scipy.stats.uniform,
}


ELSEWHERE = (  # priors that have tests of their own
    *("flow", "mixture", "vamp", "uniform-sphere", "conditional", "uniform-codes", "uniform-concrete"),
)


@pytest.mark.parametrize("name", [name for name in AXES["prior"] if name not in ELSEWHERE])
def test_priors_are_fixed_and_those_of_scipy(name: str) -> None:
    torch.manual_seed(0)
    prior = AXES["prior"][name](4).double()
    assert not list(prior.parameters())
    assert not prior.state_dict()
    z = prior().sample((7,))
    assert z.shape == (7, 4)
    expected = math.log(6) * np.ones(7) if name == "flat-dirichlet" else STANDARD[name].logpdf(z.numpy()).sum(-1)
    np.testing.assert_allclose(prior().log_prob(z).numpy(), expected, rtol=1e-8, atol=1e-12)


def test_a_prior_of_your_own() -> None:
    prior = Known(torch.distributions.Gamma, (2.0, 3.0), (2, 2))
    assert prior().event_shape == (2, 2)
    assert prior().mean.eq(2 / 3).all()
    with pytest.raises(ShapeError, match="at least 2 numbers"):
        AXES["prior"]["flat-dirichlet"](1)


HEAVY = "finite KL for tails as heavy as these"
REFUSED = [  # posterior, prior, what the prior lacks, what cures it
    ("gamma", "standard-normal", "density on positive numbers", "unit-exponential"),
    ("normal", "unit-exponential", "density on the real line", "standard-normal"),
    ("beta", "unit-exponential", "density on numbers between 0 and 1", "uniform"),
    ("dirichlet", "uniform", "density on the simplex", "flat-dirichlet"),
    ("uniform", "uniform", "density on the real line", "standard-normal"),
    ("cauchy", "standard-normal", HEAVY, "standard-cauchy"),
    ("cauchy", "standard-gumbel", HEAVY, "standard-cauchy"),
    ("cauchy", "flow", HEAVY, "standard-cauchy"),
    ("student-t", "standard-gumbel", HEAVY, "standard-student-t"),
    ("logistic", "standard-gumbel", HEAVY, "standard-logistic"),
]


@pytest.mark.parametrize(("posterior", "prior", "lack", "cure"), REFUSED)
def test_a_prior_that_does_not_fit_is_refused_with_the_reason(posterior: str, prior: str, lack: str, cure: str) -> None:
    """The message says what is missing, and each prior and posterior that it offers instead is one that trains."""
    with pytest.raises(RecipeError) as refusal:
        build_model(small(posterior, prior), (1, 8, 8))
    first = f"The prior {prior} gives no {lack}, which the posterior {posterior} requires. Choose one of: "
    assert str(refusal.value).startswith(first)
    listed = re.sub(r" and \d+ more", "", str(refusal.value).removeprefix(first).removesuffix("."))
    priors, posteriors = listed.split("; or the posterior ")
    assert cure in priors.split(", ")
    assert "conditional" not in priors  # there are no labels
    pairs = [(posterior, other) for other in priors.split(", ")] + [(other, prior) for other in posteriors.split(", ")]
    for q, p in pairs:
        changed = small(q, p)
        model, objective = build_model(changed, (1, 8, 8)), build_objective(changed)
        assert math.isfinite(next(aevb.train(model, objective, digits().train, changed.training())).info["loss"])


def test_fit_refuses_it_before_it_makes_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no finite KL for tails as heavy as these"):
        aevb.fit(small("cauchy", "standard-normal"), digits(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("posterior", MATCHING)
def test_every_pair_that_is_admitted_has_a_finite_kl(posterior: str) -> None:
    family = FAMILIES[posterior]((3,))
    admitted = []
    for name, part in parts_in(PRIOR).items():
        members = [Member(POSTERIOR, posterior, family.offers), Member(PRIOR, name, part.offers, part.needs)]
        if name in ELSEWHERE or any(conflicts(members)):
            continue
        q, p = family(moderate(family.size)), part.make(3).double()()
        admitted.append(name)
        assert bool(kl_groups(q, p, q.rsample((4,))).isfinite().all())
    assert MATCHING[posterior] in admitted


# Shapes and extremes


@pytest.mark.parametrize("name", FACTORIZED)
def test_shapes(name: str) -> None:
    family = FACTORIZED[name]((2, 3))
    q = family(torch.zeros(5, family.size))
    z = q.rsample(torch.Size((4,)))
    assert z.shape == (4, 5, 2, 3)
    assert q.log_prob(z).shape == (4, 5)
    assert q.mean.shape == (5, 2, 3)


@pytest.mark.parametrize("shape", [(2, 2), 1])
def test_dirichlet_is_over_vectors(shape: Any) -> None:
    with pytest.raises(ShapeError, match="vectors of at least 2"):
        r.Dirichlet(shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_draws_densities_and_gradients_are_finite_at_extremes(name: str, dtype: torch.dtype) -> None:
    """At 300 φ out of 0 and ±1000: z ~ q, log q(z), KL(q ‖ p), and the gradients of all of them."""
    torch.manual_seed(0)
    family, reach = ALL[name](3), 3.0 if name == "gumbel" else 1000.0  # E[e⁻ᶻ] of a Gumbel truly overflows
    phi = (1000.0 * (torch.randint(3, (300, family.size)) - 1)).to(dtype).requires_grad_()
    q = family(phi)
    z = q.rsample(torch.Size((20,)))
    if name != "uniform":  # whose ends are rounded themselves
        assert bool(q.support.check(z).all())
    near = family(phi.clamp(-reach, reach))
    kl = kl_groups(near, AXES["prior"][MATCHING[name]](3).to(dtype)(), near.rsample(torch.Size((20,))))
    for value in (z, q.log_prob(z), q.mean, kl):
        assert bool(value.isfinite().all())
        (gradient,) = torch.autograd.grad(value.sum(), phi, retain_graph=True)
        assert bool(gradient.isfinite().all())


def test_what_a_cauchy_encodes_is_its_median() -> None:
    q = r.Cauchy(2)(torch.tensor([[0.5, -2.0, 0.0, 1.0]]))
    assert q.mean.tolist() == [[0.5, -2.0]]


# Training


@cache
def digits() -> Dataset:
    return load_data("digits", values="dynamic")


def small(posterior: str, prior: str) -> Recipe:
    return Recipe.load("bernoulli").override(
        [
            f"posterior={posterior}",
            f"prior={prior}",
            "latent=3",
            "encoder.hidden=[32]",
            "decoder.hidden=[32]",
            "decoder.activation=tanh",
            "training.optimizer.lr=0.01",
            "training.samples=2000",
        ]
    )


@pytest.mark.parametrize("posterior", MATCHING)
def test_each_trains_as_a_posterior_with_its_prior(posterior: str) -> None:
    recipe = small(posterior, MATCHING[posterior])
    model, objective = build_model(recipe, (1, 8, 8)), build_objective(recipe)
    elbo = [float(s.info["elbo"]) for s in aevb.train(model, objective, digits().train, recipe.training())]
    assert len(elbo) == 20
    assert min(elbo[-3:]) > elbo[0] + 5
    assert bool(model.encode(digits().test[:5]).isfinite().all())


@pytest.mark.parametrize("name", ["uniform", "weibull"])
def test_the_closed_kl_is_its_integral_for_any_scale_of_the_prior(name: str) -> None:
    """KL(U ‖ N(m, s²)) at m = 0.4, s = 2, and KL(Weibull ‖ Exponential(r)) at r = 2.5, by quadrature."""
    m, s, rate = (torch.full((1,), value, dtype=torch.float64) for value in (0.4, 2.0, 2.5))
    other = torch.distributions.Normal(m, s) if name == "uniform" else torch.distributions.Exponential(rate)
    p, family = Independent(other, 1), ALL[name](1)
    q = family(moderate(family.size, rows=5))
    torch.testing.assert_close(kl_divergence(q, p), joint(name, q, p), atol=1e-6, rtol=1e-6)
