"""Data of any size: counts of 10⁵ and prices of 2·10⁵, φ beyond every bound, half precision, and φ that are no
numbers.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

import aevb
from aevb.data.arrays import array_dataset
from aevb.models.inputs import Standardized, Start, start_at
from aevb.probability import reparameterized as r
from aevb.probability.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from aevb.probability.families import Family, LowRankNormal, bounded, mean_from_log, scale_from_log
from aevb.probability.sphere import VonMisesFisher
from aevb.runs.build import build_model
from aevb.runs.fit import fit, resume
from aevb.runs.parts import AXES, FAMILIES
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run, load_weights


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Large numbers


@pytest.mark.parametrize("mean", [1e-9, 1.0, 1e5, 1e9])
def test_counts_and_positive_numbers_of_any_size_have_scipys_density_in_float32(mean: float) -> None:
    """At the mean and three standard deviations off, to the rounding of φ itself; with a gradient that is a number."""
    l = math.log(mean)
    cases: list[tuple[Family, list[float], Any]] = [
        (Poisson(1), [l], scipy.stats.poisson),
        (NegativeBinomial(1), [l, 1.0], lambda m: scipy.stats.nbinom(math.e, math.e / (math.e + m))),
        (NegativeBinomial(1), [l, 20.0], lambda m: scipy.stats.nbinom(math.exp(20), 1 / (1 + m / math.exp(20)))),
        (r.Exponential(1), [l], lambda m: scipy.stats.expon(scale=m)),
        (r.Gamma(1), [5000.0, l - math.log(5000.5)], lambda m: scipy.stats.gamma(5000.5, scale=m / 5000.5)),
        (r.LogNormal(1), [l, -1.0], lambda m: scipy.stats.lognorm(math.exp(-1), scale=m)),
        (r.Weibull(1), [l, 1.0], lambda m: scipy.stats.weibull_min(0.5 + math.log1p(math.e), scale=m)),
    ]
    for family, numbers, make in cases:
        phi = torch.tensor(numbers, requires_grad=True)
        rounded = math.exp(phi.tolist()[-1 if isinstance(family, r.Gamma) else 0])
        theirs = make(rounded * 5000.5 if isinstance(family, r.Gamma) else rounded)
        counted = isinstance(family, Poisson | NegativeBinomial)
        for x in (
            theirs.median(),
            max(theirs.mean() + 3 * theirs.std(), 0.0),
            max(theirs.mean() - 3 * theirs.std(), mean / 9),
        ):
            x = float(np.float32(np.round(x) if counted else x))
            expected = theirs.logpmf(x) if counted else theirs.logpdf(x)
            log_p = family(phi).log_prob(torch.tensor([x]))
            assert log_p.dtype == torch.float32
            assert float(log_p.detach()) == pytest.approx(float(expected), rel=2e-4, abs=5e-3), (family, x)
            (slope,) = torch.autograd.grad(log_p.sum(), phi)
            assert bool(slope.isfinite().all())


def test_a_poisson_of_a_hundred_thousand() -> None:
    p = Poisson(1)(torch.tensor([math.log(1e5)]))
    assert float(p.mean) == pytest.approx(1e5, rel=1e-5)
    assert float(p.log_prob(torch.tensor([1e5]))) == pytest.approx(-6.68, abs=0.01)


@pytest.mark.parametrize("mu", [5.3, 12.2])
def test_a_scale_thrown_beyond_its_bound_is_found_again_by_adam(mu: float) -> None:
    """Case 2: -log p is that of maximum likelihood, in thousands of euros and in euros."""
    torch.manual_seed(0)
    x = torch.exp(mu + 0.4 * torch.randn(500, 1))
    phi = torch.tensor([5.3, 1.7]).requires_grad_()
    optimizer = torch.optim.Adam([phi], 1e-2)
    for _ in range(1500):
        optimizer.zero_grad()
        loss = -r.LogNormal(1)(phi).log_prob(x).mean()
        loss.backward()
        optimizer.step()
    logs = x.log()
    best = (
        scipy.stats.lognorm(float(logs.std(correction=0)), scale=math.exp(float(logs.mean()))).logpdf(x.numpy()).mean()
    )
    assert float(loss.detach()) == pytest.approx(-best, abs=1e-3)
    assert phi.detach().exp().tolist()[1] == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize(
    "value",
    [
        lambda phi: bounded(phi, -1.0, 1.0),
        scale_from_log,
        mean_from_log,
        r.shape_from,
        lambda phi: r.LogNormal(1)(torch.stack([phi, phi])).base_dist.loc,  # type: ignore[attr-defined]
        lambda phi: r.LogNormal(1)(torch.stack([phi, phi])).base_dist.scale,  # type: ignore[attr-defined]
        lambda phi: LowRankNormal(1, 1)(torch.stack([phi * 0, phi * 0, phi])).cov_factor,  # type: ignore[attr-defined]
        lambda phi: VonMisesFisher(2)(torch.stack([1 + 0 * phi, phi * 0, phi])).kappa,  # type: ignore[attr-defined]
    ],
)
def test_what_is_beyond_an_upper_bound_has_a_gradient(value: Callable[[Tensor], Tensor]) -> None:
    phi = torch.tensor(1e7, requires_grad=True)
    (slope,) = torch.autograd.grad(value(phi).sum(), phi)
    assert float(value(phi).detach().abs().max()) < 1e14
    assert float(slope) > 0


# Where a training starts


def moments(family: Family, x: Tensor) -> torch.distributions.Distribution:
    return family(family.start(x))


def test_a_start_has_the_moments_of_the_rows() -> None:
    """Means and variances (of logarithms, where these are the family's own); the zeros of a column of zeros have a
    place."""
    g, n = rng(), 50_000
    positive = torch.from_numpy(np.exp([12.2, -20.0, 0.0] + np.array([0.3, 1.0, 0.6]) * g.normal(size=(n, 3))))
    counts = torch.from_numpy(g.negative_binomial(2, [1e-5, 0.01, 0.8], size=(n, 3))).double()
    for family, x in ((r.Exponential(3), positive), (Poisson(3), counts)):
        torch.testing.assert_close(moments(family, x).mean, x.mean(0), rtol=1e-6, atol=0)
    for family, x in ((r.Gamma(3), positive), (NegativeBinomial(3), counts)):
        found = moments(family, x)
        torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-3, atol=0)
        torch.testing.assert_close(found.variance, x.var(0), rtol=0.01, atol=0)
    p = moments(r.LogNormal(3), positive).base_dist  # type: ignore[attr-defined]
    torch.testing.assert_close(p.loc, positive.log().mean(0))
    torch.testing.assert_close(p.scale, positive.log().std(0), rtol=1e-3, atol=0)
    weibull = torch.from_numpy(2e5 * g.weibull([0.8, 2.0, 9.0], size=(n, 3)))
    found = moments(r.Weibull(3), weibull).base_dist  # type: ignore[attr-defined]
    torch.testing.assert_close(found.concentration, torch.tensor([0.8, 2.0, 9.0]).double(), rtol=0.02, atol=0)
    torch.testing.assert_close(found.scale, torch.full((3,), 2e5).double(), rtol=0.02, atol=0)
    lost = torch.where(torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) < 0.5, 0.0, counts)
    torch.testing.assert_close(moments(ZeroInflatedNegativeBinomial(3), lost).mean, lost.mean(0), rtol=1e-3, atol=0)
    for family in (Poisson(2), NegativeBinomial(2), ZeroInflatedNegativeBinomial(2), r.Exponential(2)):
        assert bool(family.start(torch.zeros(9, 2).double()).isfinite().all())
    constant = torch.full((9, 2), 3e-9).double()
    for family in (r.Gamma(2), r.LogNormal(2), r.Weibull(2)):
        assert bool(family.start(constant).isfinite().all())
        for by in (-1.0, 1.0):  # what an untrained net may add to a logarithm
            moved = family(family.start(constant) + torch.tensor([by, by, 0.0, 0.0]))
            assert float(moved.log_prob(constant).min()) > -2e4


def test_the_encoder_sees_logarithms_of_unit_variance_and_a_label_as_it_is() -> None:
    x = torch.from_numpy(np.exp(12.2 + 0.3 * rng().normal(size=(500, 2)))).float()
    part = Standardized(2)
    beside = torch.cat([x, torch.ones(500, 1)], 1)
    torch.testing.assert_close(part(beside), beside)  # unset
    part.start_at(x)
    seen = part(beside)
    torch.testing.assert_close(seen[:, :2].mean(0), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen[:, :2].std(0, correction=0), torch.ones(2), rtol=1e-3, atol=0)
    assert bool((seen[:, 2] == 1).all())
    counts = Standardized(1)
    counts.start_at(torch.tensor([[0.0], [9.0]]))
    torch.testing.assert_close(counts(torch.tensor([[0.0], [9.0], [-9.0]])), torch.tensor([[-1.0], [1.0], [1.0]]))


SMALL = ["encoder.hidden=[8]", "decoder.hidden=[8]", "latent=1"]


def large_counts() -> np.ndarray[Any, Any]:
    g, mean = rng(), np.array([1.06e5, 3.0e4, 99, 0.48])
    return g.poisson(g.gamma(2.0, mean / 2.0, size=(600, 4)))


def test_counts_of_a_hundred_thousand_train_to_the_evidence_of_scipy(tmp_path: Path) -> None:
    """Independent negative binomials (r = 2): no model can be better, and this one is as good to 0.1 nats a column."""
    x = large_counts()
    recipe = Recipe.load("negative-binomial").override([*SMALL, "training.samples=6000"])
    data = array_dataset(x, values="raw")
    run = fit(recipe, data, tmp_path / "run")
    test = data.test[:]
    mean = np.array([1.06e5, 3.0e4, 99, 0.48])
    truth = scipy.stats.nbinom(2.0, 2.0 / (2.0 + mean)).logpmf(test.numpy()).sum(-1)
    found = aevb.log_marginal(run.model(), test, 200).log_px.numpy()
    assert found.mean() == pytest.approx(truth.mean(), abs=0.4)
    assert run.model().decode(torch.zeros(1, 1)).mean[0, 0] > 6e4


def test_a_ladder_starts_at_the_data_as_well() -> None:
    recipe = Recipe.load("lvae").override(
        ["likelihood.type=negative-binomial", "ladder.latents=[2, 2]", "ladder.hidden=[8, 8]"]
    )
    model, x = build_model(recipe, (4,)), torch.from_numpy(large_counts()).float()
    start_at(model, x)
    with torch.no_grad():
        ratio = model.decode(model.sample_latent(50)).mean.log().mean(0) - x.mean(0).log()
    assert float(ratio.abs().max()) < 2  # whatever an untrained net adds


def test_prices_in_euros_and_in_thousands_train_to_the_same_model(tmp_path: Path) -> None:
    """The start and the input are relative to the data: in other units log p moves by the logarithm of the unit
    alone."""
    x = np.exp(12.2 + 0.3 * rng().normal(size=(300, 3)))
    recipe = Recipe.load("gaussian").override([*SMALL, "likelihood.type=log-normal", "training.samples=3000"])
    found = []
    for unit in (1.0, 1000.0):
        data = array_dataset(x / unit, values="raw")
        run = fit(recipe.replace(data__values="raw"), data, tmp_path / f"run{unit}")
        found.append(float(aevb.log_marginal(run.model(), data.test[:], 50).log_px.mean()) - 3 * math.log(unit))
    assert found[0] == pytest.approx(found[1], abs=0.02)


def test_a_run_without_these_maps_loads_and_resumes_as_it_was(tmp_path: Path) -> None:
    """Runs of version 0.1 hold neither an input map nor a start: they change nothing then."""
    recipe = Recipe.load("poisson").override([*SMALL, "training.samples=300"])
    model = build_model(recipe, (4,))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(("encoder.inputs", "decoder.outputs"))}
    other = build_model(recipe, (4,))
    start_at(other, torch.from_numpy(large_counts()).float())
    load_weights(other, state, tmp_path)
    x = torch.rand(5, 4)
    plain = model.encoder.net(x)
    torch.testing.assert_close(other.posterior(x).mean, plain[:, :1])
    torch.testing.assert_close(other.decode(plain[:, :1]).mean, model.decoder.net(plain[:, :1]).exp())
    assert not any(
        isinstance(part, Standardized | Start) for part in build_model(Recipe.load("bernoulli"), (1, 8, 8)).modules()
    )
    data = array_dataset(large_counts(), values="raw")
    whole = fit(recipe, data, tmp_path / "whole")
    fit(recipe.replace(training__samples=100), data, tmp_path / "short")
    again = resume(Run.open(tmp_path / "short"), data, samples=300)
    for a, b in zip(whole.model().state_dict().values(), again.model().state_dict().values(), strict=True):
        assert torch.equal(a, b)


# Half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["bernoulli", "normal", "laplace", "gamma", "categorical", "beta-binomial"])
def test_a_likelihood_in_half_precision_sums_in_float32(name: str, dtype: torch.dtype) -> None:
    """The same rounded φ in float32 gives the same density, to the last digit."""
    family = FAMILIES[name](784, classes=9) if name == "categorical" else FAMILIES[name](784)
    phi = torch.randn(6, family.size, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = family(phi.float()).sample()
    log_p = family(phi).log_prob(x)
    assert log_p.dtype == torch.float32
    assert torch.equal(log_p, family(phi.float()).log_prob(x))


@pytest.mark.parametrize("prior", ["standard-normal", "mixture"])
def test_a_model_in_bfloat16_agrees_with_its_rounded_weights_in_float32(prior: str) -> None:
    """Case 19: log p(x) to 10⁻³ of itself, not nats off."""
    recipe = Recipe.load("bernoulli").override(["latent=5", f"prior={prior}"])
    half = build_model(recipe, (1, 28, 28)).bfloat16()
    full = build_model(recipe, (1, 28, 28))
    full.load_state_dict({k: v.float() for k, v in half.state_dict().items()})
    x = (torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    found, expected = (aevb.log_marginal(model.eval(), x, 200).log_px for model in (half, full))
    assert float(found.mean()) == pytest.approx(float(expected.mean()), rel=1e-3)
    torch.testing.assert_close(found.float(), expected.float(), rtol=3e-3, atol=0)


# No numbers


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "name", [name for name in FAMILIES if name not in ("vq", "fsq", "one-hot", "concrete", "categorical")]
)
def test_draws_of_a_phi_that_is_no_number_end(name: str) -> None:
    """As NaN, or as torch's error: a loop that waits for a draw to be taken would wait for ever, as NaN < p is
    false."""
    family = FAMILIES[name](3)
    with within(20), suppress(RuntimeError):
        family(torch.full((2, family.size), math.nan)).sample()


def test_a_direction_of_no_concentration_is_no_number_and_spoils_no_other() -> None:
    phi = torch.tensor([[1.0, 0.0, 0.0, math.nan], [1.0, 0.0, 0.0, 1.0]])
    z = VonMisesFisher(3)(phi).sample()
    assert bool(z[0].isnan().all())
    assert float(z[1].norm()) == pytest.approx(1, abs=1e-5)
    torch.manual_seed(0)
    x, q, p = torch.randn(100, 6), aevb.VonMisesFisher(3), aevb.Normal(6)
    encoder, decoder = aevb.Conditional(nn.Linear(6, q.size), q), aevb.Conditional(nn.Linear(3, p.size), p)
    model = aevb.VAE(AXES["prior"]["uniform-sphere"](3), encoder, decoder)
    with within(60), pytest.raises(aevb.TrainingDiverged):
        for _ in aevb.train(model, aevb.ELBO(), x, aevb.Training(samples=20_000, optimizer=aevb.SGD(1e3))):
            pass
