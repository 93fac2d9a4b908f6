"""Every family that a recipe can name: ∫p = 1, draws that follow p, scipy's density, no overflow, in float32 and
float64.

Whoever registers a family in `FAMILIES` gives it an entry here; without one the first test fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.special as special
import scipy.stats as stats
import torch
from torch import Tensor

import aevb
from aevb.parts import Support, builtin, find, part_of
from aevb.probability import counts, families, mixtures, scales
from aevb.probability.families import Family
from aevb.probability.offers import support_of
from aevb.runs.parts import AXES, FAMILIES

DTYPE = torch.float64
Density = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, φ → log p(x)
Nodes = tuple[Tensor, Tensor]  # x (P, *X) and weights (P): ∫ f = Σ w f(x)


def stretched(low: float, high: float, x: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Nodes:
    """Equal steps in u between `low` and `high`, x = x(u)."""
    u = low + (high - low) * (torch.arange(40_000, dtype=DTYPE) + 0.5) / 40_000
    return x(u).unsqueeze(-1), slope(u) * (u[1] - u[0])


def listed(values: Tensor) -> Nodes:
    return values.double().unsqueeze(-1), torch.ones(len(values), dtype=DTYPE)


def plane() -> Nodes:
    u = torch.linspace(-12, 12, 241, dtype=DTYPE)
    x = torch.cartesian_prod(u, u)
    return x, torch.full((len(x),), 0.01, dtype=DTYPE)


def sphere() -> Nodes:
    """z = (√(1 - t²) cos a, √(1 - t²) sin a, t), by Gauss in t and equal steps in a."""
    t, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
    a = 2 * math.pi * torch.arange(200, dtype=DTYPE) / 200
    t, a, r = t.repeat_interleave(200), a.repeat(200), (1 - t**2).sqrt().repeat_interleave(200)
    return torch.stack([r * a.cos(), r * a.sin(), t], -1), w.repeat_interleave(200) * 2 * math.pi / 200


def logistic(u: Tensor) -> Tensor:
    return torch.sigmoid(u) * torch.sigmoid(-u)


LINE = stretched(-20, 20, torch.sinh, torch.cosh)
POSITIVE = stretched(-60, 20, torch.exp, torch.exp)
UNIT = stretched(-60, 35, torch.sigmoid, logistic)
CIRCLE = stretched(-math.pi, math.pi, lambda u: u, torch.ones_like)
EDGE, _SLOPE = stretched(-35, 35, torch.sigmoid, logistic)
SIMPLEX = torch.cat([EDGE, 1 - EDGE], -1), _SLOPE
LEVELS = listed(torch.arange(17) / 16)
COUNTS = listed(torch.arange(4000))


@dataclass(frozen=True)
class Entry:
    """Of one family: over what it is, and log p by scipy (None for flows: their determinants are held to autograd's).

    Attributes:
        nodes: to sum over its support.
        density: log p(x) of one x and one φ, both arrays.
        make: the family over the smallest event.
        mean: whether `mean` is E[x].
        reach: of |φ| at which log p of a given x stays finite; beyond it log p itself is below -10³⁰⁸, or a flow's
            inverse is lost in rounding. Draws are tested at any φ.
    """

    nodes: Nodes
    density: Density | None
    make: Callable[[], Family] | None = None
    mean: bool = True
    reach: float = 1000.0


def full(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lower = np.array([[math.exp(p[2]), 0.0], [p[3], math.exp(p[4])]])
    return p[:2], lower @ lower.T


def low_rank(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    w = np.exp(p[2:4] / 2)[:, None] * p[4:].reshape(2, 2)
    return p[:2], w @ w.T + np.diag(np.exp(p[2:4]))


def householder(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q = np.eye(2)
    for v in p[4:].reshape(-1, 2):
        q = q @ (np.eye(2) - 2 * np.outer(v, v) / (v @ v))
    return q @ p[:2], q @ np.diag(np.exp(p[2:4])) @ q.T


def bins(x: np.ndarray, loc: np.ndarray, scale: np.ndarray, n: int = 16) -> np.ndarray:
    """Mass of the bin of x among n + 1, of a logistic; the outermost bins reach to infinity."""
    cut, half = lambda a: stats.logistic.cdf(a, loc, scale), 0.5 / n
    return np.where(x > 1 - half, 1, cut(x + half)) - np.where(x < half, 0, cut(x - half))


def mixture(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    logits, loc, log_scale = p.reshape(2, 3).T
    return np.log((special.softmax(logits) * bins(x, loc, np.exp(log_scale))).sum())


def zero_inflated(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    share = special.expit(p[2])
    return np.log(share * (x[0] == 0) + (1 - share) * np.exp(negative_binomial(x, p[:2])))


def negative_binomial(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    mean, r = np.exp(p)
    return stats.nbinom.logpmf(x, r, r / (r + mean))


def shape(k: np.ndarray) -> np.ndarray:
    """½ + softplus(κ)."""
    return 0.5 + np.logaddexp(0, k)


def mean_direction(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    return stats.vonmises_fisher(p[:3] / np.linalg.norm(p[:3]), 3 * np.logaddexp(0, p[3])).logpdf(x)


def vector(name: str, density: Density | None, nodes: Nodes | None = None) -> Entry:
    flow = density is None  # whose `mean` is the middle of the flow
    return Entry(nodes or plane(), density, lambda: FAMILIES[name](2), not flow, 30.0 if flow else 1000.0)


def steps(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """63 bins on [-3, 3], and exponential tails of scale 1."""
    edges, share = torch.linspace(-3, 3, 63).double().numpy(), special.log_softmax(p)
    m = np.searchsorted(edges, x[0], side="right")
    beyond = np.maximum(edges[0] - x[0], 0) + np.maximum(x[0] - edges[-1], 0)
    return share[m] - beyond - (np.log(edges[m] - edges[m - 1]) if 0 < m < 63 else 0.0)


ENTRIES: dict[str, Entry | str] = {
    "columns": "a product of others: test_columns.py::test_the_density_is_the_product_over_the_cells_that_are_there",
    "categories": Entry(
        listed(torch.arange(5)),
        lambda x, p: special.log_softmax(p)[x.astype(int)],
        lambda: aevb.Categories(1, [5]),
    ),
    "many-categories": "vectors of levels: test_many_levels.py::test_everything_is_that_of_all_probabilities_at_once",
    "quantiles": Entry(LINE, steps),
    "normal": Entry(LINE, lambda x, p: stats.norm.logpdf(x, p[0], np.exp(p[1] / 2))),
    "full-normal": vector("full-normal", lambda x, p: stats.multivariate_normal.logpdf(x, *full(p))),
    "low-rank-normal": vector("low-rank-normal", lambda x, p: stats.multivariate_normal.logpdf(x, *low_rank(p))),
    "householder": vector("householder", lambda x, p: stats.multivariate_normal.logpdf(x, *householder(p))),
    "bernoulli": Entry(listed(torch.arange(2)), lambda x, p: stats.bernoulli.logpmf(x, special.expit(p))),
    "continuous-bernoulli": Entry(UNIT, lambda x, p: p * x - np.log(np.expm1(p) / p)),
    "categorical": Entry(
        listed(torch.arange(5)),
        lambda x, p: special.log_softmax(p)[x.astype(int)],
        lambda: families.Categorical(1, 5),
    ),
    "discretized-logistic": Entry(
        LEVELS, lambda x, p: np.log(bins(x, p[0], np.exp(p[1]))), lambda: families.DiscretizedLogistic(1, 17)
    ),
    "laplace": Entry(LINE, lambda x, p: stats.laplace.logpdf(x, p[0], np.exp(p[1]))),
    "student-t": Entry(LINE, lambda x, p: stats.t.logpdf(x, 2.01 + np.logaddexp(0, p[2]), p[0], np.exp(p[1]))),
    "delta": "a point has no density: test_families.py::test_a_point_is_its_mean_and_all_its_samples",
    "logistic": Entry(LINE, lambda x, p: stats.logistic.logpdf(x, p[0], np.exp(p[1]))),
    "gumbel": Entry(LINE, lambda x, p: stats.gumbel_r.logpdf(x, p[0], np.exp(p[1])), reach=3.0),
    "cauchy": Entry(LINE, lambda x, p: stats.cauchy.logpdf(x, p[0], np.exp(p[1])), mean=False),
    "uniform": Entry(LINE, lambda x, p: stats.uniform.logpdf(x, p[0] - np.exp(p[1]), 2 * np.exp(p[1]))),
    "exponential": Entry(POSITIVE, lambda x, p: stats.expon.logpdf(x, scale=np.exp(p))),
    "weibull": Entry(POSITIVE, lambda x, p: stats.weibull_min.logpdf(x, shape(p[1]), scale=np.exp(p[0])), reach=3.0),
    "log-normal": Entry(POSITIVE, lambda x, p: stats.lognorm.logpdf(x, np.exp(p[1]), scale=np.exp(p[0]))),
    "gamma": Entry(POSITIVE, lambda x, p: stats.gamma.logpdf(x, shape(p[0]), scale=np.exp(p[1]))),
    "beta": Entry(UNIT, lambda x, p: stats.beta.logpdf(x, *shape(p))),
    "dirichlet": vector("dirichlet", lambda x, p: stats.dirichlet.logpdf(x / x.sum(), shape(p)), SIMPLEX),
    "planar": vector("planar", None),
    "sylvester": vector("sylvester", None),
    "iaf": vector("iaf", None),
    "homoscedastic-normal": Entry(LINE, lambda x, p: stats.norm.logpdf(x, p)),
    "optimal-normal": Entry(LINE, lambda x, p: stats.norm.logpdf(x, p)),
    "logistic-mixture": Entry(LEVELS, mixture, lambda: mixtures.LogisticMixture(1, 2, 17)),
    "beta-binomial": Entry(
        LEVELS,
        lambda x, p: stats.betabinom.logpmf(np.round(16 * x), 16, *np.exp(p)),
        lambda: counts.BetaBinomial(1, 17),
    ),
    "poisson": Entry(COUNTS, lambda x, p: stats.poisson.logpmf(x, np.exp(p))),
    "negative-binomial": Entry(COUNTS, negative_binomial),
    "zero-inflated-negative-binomial": Entry(COUNTS, zero_inflated),
    "von-mises": Entry(CIRCLE, lambda x, p: stats.vonmises.logpdf(x, np.hypot(*p), np.arctan2(p[1], p[0])), mean=False),
    "von-mises-fisher": Entry(sphere(), mean_direction, lambda: FAMILIES["von-mises-fisher"](3)),
    "one-hot": "enumerated: test_codes.py::test_the_bound_and_the_evidence_are_those_of_enumeration",
    "concrete": "over the simplex: test_codes.py::test_a_relaxed_choice_of_three_integrates_to_one",
    "vq": "a point among codes: test_codes.py::test_the_kl_is_the_length_of_the_code",
    "fsq": "a point among codes: test_codes.py::test_the_kl_is_the_length_of_the_code",
}
VARIANTS: dict[str, Entry] = {  # the same families with other arguments
    "normal, fixed": Entry(LINE, lambda x, p: stats.norm.logpdf(x, p, 0.3), lambda: families.Normal(1, scale=0.3)),
    "normal, sigmoid": Entry(
        LINE,
        lambda x, p: stats.norm.logpdf(x, special.expit(p[0]), np.exp(p[1] / 2)),
        lambda: families.Normal(1, link=torch.sigmoid),
    ),
    "homoscedastic-normal, least": Entry(
        LINE, lambda x, p: stats.norm.logpdf(x, p, np.hypot(1, 0.3)), lambda: scales.HomoscedasticNormal(1, least=0.3)
    ),
    "student-t, least": Entry(
        LINE,
        lambda x, p: stats.t.logpdf(x, 2.01 + np.logaddexp(0, p[2]), p[0], np.hypot(np.exp(p[1]), 0.3)),
        lambda: families.StudentT(1, least=0.3),
    ),
    "categorical, pixels": Entry(
        listed(torch.arange(5) / 4),
        lambda x, p: special.log_softmax(p)[np.rint(4 * x).astype(int)],
        lambda: families.Categorical(1, 5, spacing=0.25),
    ),
    "discretized-logistic, 256": Entry(
        listed(torch.arange(256) / 255),
        lambda x, p: np.log(bins(x, p[0], np.exp(p[1]), 255)),
        lambda: families.DiscretizedLogistic(1),
    ),
    "beta-binomial, 256": Entry(
        listed(torch.arange(256) / 255),
        lambda x, p: stats.betabinom.logpmf(np.round(255 * x), 255, *np.exp(p)),
        lambda: counts.BetaBinomial(1),
    ),
}
JUMPS = "uniform", "quantiles"  # densities that a sum over nodes integrates less well
KNOWN = {name: entry for name, entry in {**ENTRIES, **VARIANTS}.items() if isinstance(entry, Entry)}
each = pytest.mark.parametrize("name", KNOWN)


def made(name: str) -> Family:
    torch.manual_seed(0)
    make = KNOWN[name].make
    family: Family = make() if make else FAMILIES[name](1)
    return family.eval().double() if isinstance(family, torch.nn.Module) else family


def parameters(name: str, seed: int = 0) -> Tensor:
    """φ (size), near zero, where nothing is far out in the plane."""
    size, g = made(name).size, torch.Generator().manual_seed(seed)
    return (0.7 if KNOWN[name].density else 0.3) * torch.randn(size, dtype=DTYPE, generator=g)


def test_every_family_has_an_entry() -> None:
    assert set(ENTRIES) == set(FAMILIES)


@pytest.mark.trap("c")
@each
@pytest.mark.parametrize("seed", [0, 1])
def test_the_total_is_one_and_draws_follow_the_density(name: str, seed: int) -> None:
    """E[tanh x] and E[cos x] of 5,000 draws against their integrals, which exist however heavy the tails; and the
    mean."""
    (x, w), p = KNOWN[name].nodes, made(name)(parameters(name, seed))
    with torch.no_grad():
        mass = w * p.log_prob(x).exp()
        assert float(mass.sum()) == pytest.approx(1, abs=1e-3 if name in JUMPS else 1e-5)
        torch.manual_seed(seed)
        draws = p.sample(torch.Size((5000,)))
        for f in (torch.tanh, torch.cos):
            expected, found = (mass.unsqueeze(-1) * f(x)).sum(0), f(draws)
            se = found.std(0) / math.sqrt(5000) + 1e-3 * (name in JUMPS)
            assert bool(((found.mean(0) - expected).abs() < 5 * se + 1e-9).all())
        if KNOWN[name].mean:
            torch.testing.assert_close(
                (mass.unsqueeze(-1) * x).sum(0), p.mean, rtol=2e-3, atol=2e-3 if name in JUMPS else 1e-4
            )


@pytest.mark.parametrize("name", [name for name, entry in KNOWN.items() if entry.density])
def test_the_density_is_that_of_scipy(name: str) -> None:
    for seed in range(5):
        phi = parameters(name, seed)
        p = made(name)(phi)
        torch.manual_seed(seed)
        for x in p.sample(torch.Size((10,))):
            expected = float(np.sum(KNOWN[name].density(x.numpy(), phi.numpy())))  # type: ignore[misc]
            assert float(p.log_prob(x).detach()) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.trap(31)
@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nothing_overflows_at_extreme_parameters(name: str, dtype: torch.dtype) -> None:
    """log p and its gradient at φ out of 0, ±3, ±30, ±1000, at points of the support and at draws; and the mean."""
    family, nodes = made(name), KNOWN[name].nodes[0]
    family = family.to(dtype) if isinstance(family, torch.nn.Module) else family
    choice = torch.randint(7, (100, family.size), generator=torch.Generator().manual_seed(0))
    phi = torch.tensor([0.0, 3.0, -3.0, 30.0, -30.0, 1000.0, -1000.0], dtype=dtype)[choice].requires_grad_()
    points = nodes[torch.arange(-1, 2) + len(nodes) // 2 - 1].to(dtype).unsqueeze(1)
    given = family(phi.clamp(-KNOWN[name].reach, KNOWN[name].reach)).log_prob(points.expand(3, 100, *nodes.shape[1:]))
    given = given[given > -math.inf] if name == "uniform" else given  # its support moves
    torch.manual_seed(0)
    p = family(phi)
    drawn = p.rsample() if p.has_rsample else p.sample()
    for value in (given, drawn, p.log_prob(drawn), p.mean):
        assert bool(value.isfinite().all())
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), phi, retain_graph=True)
            assert bool(slope.isfinite().all())


@each
def test_float32_agrees_with_float64(name: str) -> None:
    """To 10⁻⁴ nats, at moderate φ and at ones of 9.9; and of flows, whose inverse is sought by halving, to 10⁻²."""
    low = high = made(name)
    if isinstance(low, torch.nn.Module):
        low, high = made(name), made(name)
        low.float()
    tolerance = 1e-4 if KNOWN[name].density else 1e-2
    for phi in (parameters(name).float(), torch.full((low.size,), 9.9))[: 2 if KNOWN[name].density else 1]:
        torch.manual_seed(0)
        x = low(phi).sample(torch.Size((50,)))
        assert x.dtype == torch.float32
        found, expected = low(phi).log_prob(x).double(), high(phi.double()).log_prob(x.double())
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_every_part_that_has_a_word_is_public_and_can_be_named() -> None:
    """A new class is named in `MODULES` by its module alone; from Python it is `aevb.NAME`."""
    for part in builtin():
        assert find(part.roles[0], part.word).make is part.make
        if isinstance(part.make, type) and part.word != "exponential":  # aevb.Exponential is the schedule
            assert getattr(aevb, part.make.__name__) is part.make
            assert part.make.__doc__


def test_words_are_unambiguous() -> None:
    pairs = [(role, part.word) for part in builtin() for role in part.roles]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_what_a_family_declares_is_what_its_distribution_says(name: str) -> None:
    """Support, and whether draws have a derivative, and latents a density of their own."""
    coded = name in AXES["posterior"] and find("posterior", name).offers.uniform
    shape, more = (2, 3) if coded else 3, {"classes": 4} if name == "categorical" else {}
    family: Family = FAMILIES[name](shape, **more)
    if isinstance(family, torch.nn.Module):
        family.eval()
    found, p = part_of(family).offers, family(0.3 * torch.randn(2, family.size))
    if name != "concrete":  # in evaluation it is one-hot
        assert support_of(p) in (found.support, *((None,) if found.support in (Support.LEVELS, Support.ANGLES) else ()))
        assert p.has_rsample == found.reparameterized
    assert isinstance(p, torch.distributions.Independent) >= found.factorized or name == "logistic-mixture"
    if name in AXES["posterior"]:
        z = p.sample((4,))
        far = p.log_prob(z + (0.0 if coded or found.support is not Support.REAL else 100.0))
        assert bool(far.isfinite().all()) == (found.density and found.everywhere) or found.quantized
