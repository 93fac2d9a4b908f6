"""Whatever takes a model takes one with contexts: p(x|y) by every estimator, and every verb, against closed forms."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import DTYPE
from test_conditioning import SMALL, O, U, data, exact, linear, shifted
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from typer.testing import CliRunner

from aevb.apps.cli import app
from aevb.data.batch import Batch, take
from aevb.data.labels import Pairs
from aevb.data.sources import load_data
from aevb.data.walk import walking
from aevb.errors import RecipeError
from aevb.evaluation import likelihood
from aevb.evaluation.gradient_noise import gradient_noise
from aevb.evaluation.reports.disentanglement import disentanglement
from aevb.evaluation.reports.surgery import surgery
from aevb.evidence.annealed import Annealing, bidirectional, log_marginal_ais
from aevb.evidence.harmonic import ChainSettings, from_chain, log_marginal_hmc
from aevb.evidence.importance import log_marginal
from aevb.evidence.predictive import log_predictive
from aevb.models.conditional import Conditional
from aevb.models.priors import VampPrior
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO
from aevb.objectives.full_bayes import FullBayes
from aevb.objectives.wake_sleep import WakeSleep
from aevb.probability import families
from aevb.runs.build import build_model
from aevb.runs.evaluate import estimate_likelihood, measure
from aevb.runs.fit import fit
from aevb.runs.parts import AXES
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run
from aevb.use.fit_prior import draw_codes
from aevb.use.generate import generate

Y0 = torch.tensor([0.7, -1.3], dtype=DTYPE)


def constant(wrong: float = 0.3, n: int = 20) -> tuple[VAE, VAE, Pairs]:
    """A conditional model whose context is always y₀, the same without contexts, and their data."""
    moved = type(O)(O.W, O.b + U @ Y0, O.s)
    return shifted(wrong), moved.vae(shift=wrong), Pairs(moved.data(n), Y0.expand(n, 2))


V = torch.randn(3, 2, generator=torch.Generator().manual_seed(9), dtype=DTYPE)


def with_prior() -> VAE:
    """p(z|y) = N(V y, I), a wrong q(z|x) = N(0, I), and p(x|z): p(x|y) = N(x; b + W V y, W Wᵀ + s² I)."""
    q, p, zero = families.Normal(3), families.Normal(6, scale=O.s), torch.zeros(6, dtype=DTYPE)
    prior = linear(torch.cat([V, torch.zeros_like(V)]), bias=zero)
    encoder = linear(torch.zeros(6, 8, dtype=DTYPE), bias=zero)
    decoder = linear(O.W, torch.zeros_like(U), bias=O.b)
    return VAE(Conditional(prior, q), Conditional(encoder, q), Conditional(decoder, p)).double()


def drawn(n: int) -> tuple[Pairs, Tensor]:
    """Pairs of that model, and their exact log p(x|y)."""
    y = torch.randn(n, 2, generator=torch.Generator().manual_seed(3), dtype=DTYPE)
    means = y @ (O.W @ V).T
    x = O.data(n) + means
    return Pairs(x, y), O.evidence.log_prob(x - means)


# log p(x|y) by every estimator


def is_one(ratios: Tensor) -> None:
    """On average, within five standard errors, which say something."""
    se = float(ratios.std()) / math.sqrt(len(ratios))
    assert abs(float(ratios.mean()) - 1) < 5 * se
    assert se < 0.2


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_annealing_estimates_log_px_given_y(start: str) -> None:
    pairs, model = data(30), shifted(wrong=0.5)
    path = Annealing(20, 4, model.posterior if start == "posterior" else None)
    with walking(memory=8 * 6 * 20):  # batches of 20 pairs
        found = log_marginal_ais(model, pairs, 8, path)
    is_one((found.log_px - exact(pairs)).exp())  # E[p̂] = p(x|y)
    other = log_marginal_ais(model, Pairs(pairs.x, pairs.y.flip(0)), 8, path).log_px
    assert float((other - exact(pairs)).abs().mean()) > 1


@pytest.mark.parametrize("estimator", ["ais", "hmc", "chain"])
def test_every_estimator_reads_the_prior_of_the_context(estimator: str) -> None:
    pairs, expected = drawn(40)
    model = with_prior()
    if estimator == "ais":
        found = log_marginal_ais(model, pairs, 8, Annealing(30, 4))
    elif estimator == "hmc":
        found = log_marginal_hmc(model, pairs, 40)
    else:
        found = log_marginal(model, pairs, 2000, proposal=from_chain(model, 100))
    error = found.log_px - expected
    assert abs(float(error.mean())) < 5 * float(error.std()) / math.sqrt(40) + 0.02
    assert float(error.std()) < 0.6


def test_the_bracket_holds_the_evidence_of_each_context() -> None:
    y = torch.randn(120, 2, generator=torch.Generator().manual_seed(4), dtype=DTYPE)
    with walking(memory=4 * 6 * 50):
        b = bidirectional(with_prior(), 120, 4, Annealing(20, 3), y=y)
    expected = O.evidence.log_prob(b.x - y @ (O.W @ V).T)
    for ratio in (b.lower.log_px - expected, expected - b.upper.log_px):  # E[p̂] = p(x|y) and E[1/p̂] = 1/p(x|y)
        is_one(ratio.exp())
    everywhere = bidirectional(with_prior(), 50, 2, Annealing(5, 3), y=y[:1])
    assert abs(float((everywhere.x - O.b - O.W @ V @ y[0]).mean())) < 5 * 1.5 / math.sqrt(50 * 6)


# Measures


def test_a_constant_context_is_measured_as_an_unconditional_model() -> None:
    ours, plain, pairs = constant()
    factors = torch.stack([torch.arange(20) % 2, torch.arange(20) % 3], 1)
    a, b = surgery(ours, pairs), surgery(plain, pairs.x)
    for name in ("mutual_information", "aggregate_kl", "total_correlation", "dimension_kl"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name))
    torch.testing.assert_close(
        disentanglement(ours, pairs, factors).information, disentanglement(plain, pairs.x, factors).information
    )
    np.testing.assert_allclose(draw_codes(ours, pairs, 0), draw_codes(plain, pairs.x, 0))
    batch = pairs[torch.arange(20)]
    noise, same = gradient_noise(ours, ELBO(), batch, 5), gradient_noise(plain, ELBO(), batch.x, 5)
    assert noise.value == pytest.approx(same.value)


def test_the_aggregate_posterior_is_the_mixture_over_pairs() -> None:
    """log q(z_m) = log 1/N Σ_n N(z_m; μ(x_n, y_n), v), by hand; and another one for contexts in another order."""
    pairs, model = data(30), shifted(wrong=0.2)
    found = surgery(model, pairs)
    batch = pairs[torch.arange(30)]
    q = model.posterior(batch)
    information = float(found.mutual_information.mean())
    z = q.sample(torch.Size((4000,)))
    mixture = q.log_prob(z.unsqueeze(2)).logsumexp(2) - math.log(30)
    gains = (q.log_prob(z) - mixture).mean(0)
    se = float(found.mutual_information.std()) / math.sqrt(30)
    assert abs(information - float(gains.mean())) < 5 * se
    torch.testing.assert_close(found.bound.kl.mean(0).sum() > found.aggregate_kl.mean(), torch.tensor(True))
    assert float(surgery(model, Pairs(pairs.x, pairs.y.flip(0))).bound.kl.sum()) != pytest.approx(
        float(found.bound.kl.sum())
    )


def test_surgery_refuses_a_prior_for_each_context() -> None:
    with pytest.raises(RecipeError, match=r"conditional gives no single p\(z\) for all y, which surgery requires"):
        surgery(with_prior(), drawn(5)[0])


# Objectives and priors


def test_wake_sleep_dreams_of_every_context_several_times() -> None:
    ours, plain, pairs = constant()
    found = []
    for model, x in ((ours, Batch(pairs.x, pairs.y)), (plain, pairs.x)):
        torch.manual_seed(0)
        found.append(WakeSleep(dreams=3)(model, x, 0)[1]["sleep"])
    torch.testing.assert_close(*found)
    torch.manual_seed(0)
    # mean log q(z|x̃, y) over dreams of the exact posterior is -H(q): it is an entropy if y belongs to x̃
    y = torch.randn(4000, 2, dtype=DTYPE)
    sleep = WakeSleep(dreams=3).sleep(shifted(), Batch(torch.zeros(4000, 6, dtype=DTYPE), y))
    entropy = Normal(torch.zeros(3, dtype=DTYPE), O.variances.sqrt()).entropy().sum()
    assert abs(float(sleep + entropy)) < 5 * math.sqrt(1.5 / 12_000)  # log q has variance D/2


def test_full_bayes_draws_weights_for_a_conditional_model() -> None:
    """The loss is KL / N and the ELBO of log p(x|y) at the very weights that were drawn."""
    pairs, model = data(), shifted(0.3)
    batch = take(pairs, torch.arange(12))
    objective = FullBayes(model, deviation=0.3)
    torch.manual_seed(0)
    loss, info = objective(model, batch, 0)
    torch.manual_seed(0)
    weights, lent = {k: d.rsample() for k, d in objective.posterior(model).items()}, copy.deepcopy(model)
    lent.load_state_dict(weights, strict=False)
    expected, _ = ELBO()(lent, batch, 0)
    torch.testing.assert_close(loss - info["kl_weights"], expected)
    still = FullBayes(model, deviation=1e-9)
    found = log_predictive(shifted(), still, pairs, 2, samples=5).log_px
    torch.testing.assert_close(found, exact(pairs), rtol=0, atol=1e-6)


def test_pseudo_pairs_that_are_the_data_make_the_prior_the_aggregate_posterior() -> None:
    """Then KL(q(z) ‖ p(z)) = 0, draw by draw."""
    pairs, model = data(15), shifted(0.2)
    vamp = VAE(VampPrior(model.encoder, torch.cat([pairs.x, pairs.y], 1)), model.encoder, model.decoder).double()
    torch.testing.assert_close(surgery(vamp, pairs).aggregate_kl, torch.zeros(15, dtype=DTYPE), rtol=0, atol=1e-9)


def test_a_run_with_pseudo_pairs_begins_at_pairs(tmp_path: Path) -> None:
    digits = load_data("digits", values="dynamic")
    recipe = Recipe.load("conditional").override([*SMALL, "prior=vamp", "prior.components=7", "training.samples=50"])
    run = fit(recipe.replace(training__optimizer__lr=1e-12), digits, tmp_path / "run")
    u = run.model().prior.u.detach()
    assert u.shape == (7, 64 + 10)
    assert u[:, 64:].round().sum(1).tolist() == [1] * 7
    assert set(u[:, :64].round().unique().tolist()) == {0, 1}


@pytest.mark.parametrize("objective", ["full-bayes", "wake-sleep"])
def test_objectives_train_a_conditional_run(objective: str, tmp_path: Path) -> None:
    """From the command line, and log p(x|y) is better than of the labels' wrong way around."""
    more = ["objective.dreams=2"] if objective == "wake-sleep" else []
    recipe = Recipe.load("conditional").override([*SMALL, f"objective={objective}", *more, "training.samples=10_000"])
    recipe = recipe.replace(training__optimizer__lr=5e-3)
    run = fit(recipe, load_data("digits", values="dynamic"), tmp_path / "run")
    test = run.dataset().test
    x, y = test[:], run.recipe.context().given(test)
    assert y is not None
    right, wrong = (log_marginal(run.model(), Pairs(x, c), 20).log_px.mean() for c in (y, y.roll(1, 1)))
    assert float(right - wrong) > 0.3


# A prior for each context


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "prior"
    recipe = Recipe.load("conditional-prior").override([*SMALL, "training.samples=20_000"])
    return fit(recipe.replace(training__optimizer__lr=5e-3), load_data("digits", values="dynamic"), path)


def test_the_kl_from_the_prior_of_the_label_is_the_closed_form(learned: Run) -> None:
    """½ Σ_d (log σ_p²/σ_q² + (σ_q² + (μ_q - μ_p)²) / σ_p² - 1), (μ_p, log σ_p²) the row of the label."""
    model, test = learned.model(), learned.dataset().test.take(20)
    y = learned.recipe.context().given(test)
    assert y is not None
    with torch.no_grad():
        t = model.trace(Batch(test[:], y), 4000)
        mean, log_variance = model.prior.net(torch.eye(10))[test.labels].chunk(2, 1)
        mu, variance = t.q.mean, t.q.variance
        expected = 0.5 * (log_variance - variance.log() + (variance + (mu - mean) ** 2) / log_variance.exp() - 1)
    torch.testing.assert_close(t.kl, expected, rtol=1e-4, atol=1e-5)
    sampled = t.log_qz - t.log_pz
    se = sampled.std(0) / math.sqrt(4000)
    assert bool(((sampled.mean(0) - expected.sum(1)).abs() < 5 * se + 1e-4).all())
    assert float((mean[:, None] - mean[None]).abs().max()) > 1  # it has learned that classes differ


def test_draws_given_a_label_have_the_moments_of_its_prior(learned: Run) -> None:
    model, n = learned.model(), 20_000
    for label in (0, 3):
        y = torch.eye(10)[[label]]
        torch.manual_seed(0)
        z = model.sample_latent(n, y)
        p = model.prior(y)
        assert z.shape == (n, 2)
        assert bool(((z.mean(0) - p.mean[0]).abs() < 5 * p.stddev[0] / math.sqrt(n)).all())
        assert bool(((z.var(0) / p.variance[0] - 1).abs() < 5 * math.sqrt(2 / n)).all())


def test_the_best_prior_of_a_label_has_the_moments_of_its_codes() -> None:
    """μ_c = mean μ_q and σ_c² = mean (σ_q² + (μ_q - μ_c)²) over the data of class c: there the KL's gradient is
    zero."""
    torch.manual_seed(0)
    family, labels = families.Normal(2), torch.arange(60) % 3
    y, q = torch.eye(3, dtype=DTYPE)[labels], family(torch.randn(60, 4, dtype=DTYPE))
    prior = AXES["prior"]["conditional"](family, 3).double()
    best = []
    for c in range(3):
        mean = q.mean[labels == c].mean(0)
        best.append(torch.cat([mean, (q.variance + (q.mean - mean) ** 2)[labels == c].mean(0).log()]))
    with torch.no_grad():
        prior.net[-1].bias.zero_()
        prior.net[-1].weight.copy_(torch.stack(best, 1))
    kl = kl_divergence(q, prior(y)).mean()
    (gradient,) = torch.autograd.grad(kl, [prior.net[-1].weight])
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    assert float(kl) < float(kl_divergence(q, family(torch.zeros(4, dtype=DTYPE))).mean())


def test_a_prior_for_each_label_is_asked_for_one(learned: Run, tmp_path: Path) -> None:
    call("sample", learned.path, "-n", 6, "--given", 3, "--out", tmp_path / "x.npy")
    expected = generate(learned.model(), 6, y=torch.eye(10)[[3]])
    assert torch.equal(array(tmp_path / "x.npy"), in_units(learned, expected))
    result = CliRunner().invoke(app, ["evaluate", str(learned.path), "--report", "surgery"])
    assert "gives no single p(z) for all y, which surgery requires" in str(result.exception)
    refused = r"context gives no labels, which the prior conditional requires\. .* or context\.classes"
    with pytest.raises(RecipeError, match=refused):
        build_model(Recipe.load("bernoulli").override(["prior=conditional"]), (1, 8, 8))
    recipe = Recipe.load("conditional-prior").override(["objective=monte-carlo-em"])
    refused = r"prior conditional gives no single p\(z\) for all y, which .* monte-carlo-em requires"
    with pytest.raises(RecipeError, match=refused):
        fit(recipe, load_data("digits", values="dynamic"), tmp_path / "refused")


@pytest.mark.parametrize("objective", ["m2", "importance-weighted", "full-bayes", "wake-sleep"])
def test_a_prior_for_each_label_goes_with_every_objective(objective: str, tmp_path: Path) -> None:
    """A step moves the prior."""
    few = [*SMALL, f"objective={objective}", "training.samples=50"]
    recipe = Recipe.load("conditional-prior").override(few)
    run = fit(recipe, load_data("digits", values="dynamic"), tmp_path / "run")
    fresh = build_model(run.recipe, (1, 8, 8))
    assert bool((run.model().prior.net[-1].weight != fresh.prior.net[-1].weight).any(0).sum() >= 9)


# Verbs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    fit(
        Recipe.load("conditional").override([*SMALL, "training.samples=5_000"]),
        load_data("digits", values="dynamic"),
        path,
    )
    return path


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None, result.exception
    return result.output


def in_units(run: Run, x: Tensor) -> Tensor:
    """As the file of a run keeps x: grey levels of 0 to 16."""
    return torch.from_numpy(run.values().inverse(x))


def array(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path))


def test_a_conditional_run_is_judged_by_every_estimator(folder: Path) -> None:
    run = Run.open(folder)
    digits, model, context = run.dataset(), run.model(), run.recipe.context()
    rows = context.rows(digits.test.take(6), "cpu")
    path = Annealing(5, start=model.posterior)
    ais, bdmc = (likelihood.Method(estimator, 3, 5) for estimator in ("ais", "bdmc"))
    found = estimate_likelihood(run, digits, method=ais, limit=6)["log_likelihood"]
    assert found == pytest.approx(float(log_marginal_ais(model, rows, 3, path).log_px.mean()))
    bracket = bidirectional(model, 6, 3, path, y=context.each(6))
    found = estimate_likelihood(run, digits, method=bdmc, limit=6)["lower"]
    assert found == pytest.approx(float(bracket.lower.log_px.mean()))
    found = estimate_likelihood(run, digits, method=likelihood.Method("hmc"), limit=6)["log_likelihood"]
    assert found == pytest.approx(float(log_marginal(model, rows, 5000).log_px.mean()), abs=0.5)
    rate = measure(run, digits, "surgery")["rate"]
    assert rate == pytest.approx(float(surgery(model, context.rows(digits.test, "cpu")).bound.kl.sum(1).mean()))


def test_every_verb_takes_a_conditional_run(folder: Path, tmp_path: Path) -> None:
    run = Run.open(folder)
    model, test = run.model(), run.dataset().test
    y = run.recipe.context().given(test)
    assert y is not None
    with torch.no_grad():
        codes = model.encode(Batch(test[:4], y[:4]))
        call("reconstruct", folder, "-n", 4, "--out", tmp_path / "x.npy")
        assert torch.equal(array(tmp_path / "x.npy"), in_units(run, model.decode(codes, y[:4]).mean))
        np.save(tmp_path / "z.npy", codes.numpy())
        call("decode", tmp_path / "z.npy", "--run", folder, "--given", 3, "--out", tmp_path / "x.npy")
        assert torch.equal(
            array(tmp_path / "x.npy"), in_units(run, model.decode(codes, torch.eye(10)[3].expand(4, 10)).mean)
        )
    for verb in ("interpolate", "traverse"):
        assert f"{verb[:5]}" in call(verb, folder, "--out", tmp_path / f"{verb}.png")
    call("plot", folder, "--out", tmp_path)
    figures = ["interpolations", "latent", "loss", "manifold", "reconstructions", "samples", "traversals"]
    assert set(figures) <= {p.stem for p in tmp_path.glob("*.png")}


def test_one_context_may_be_for_all_codes() -> None:
    model, z, y = shifted(), torch.randn(5, 3, dtype=DTYPE), torch.randn(1, 2, dtype=DTYPE)
    torch.testing.assert_close(model.decode(z, y).mean, model.decode(z, y.expand(5, 2)).mean)
    many = torch.randn(4, 2, dtype=DTYPE)
    expected = torch.stack([model.decode(z, c.expand(5, 2)).mean for c in many], 1)
    torch.testing.assert_close(model.decode(z.unsqueeze(1), many).mean, expected)


def test_a_posterior_chain_begins_at_draws_of_its_own_contexts_prior() -> None:
    """Priors N(±200, 1) that do not meet, and x that says nothing of z: from another prior no short chain would
    arrive."""
    y = torch.tensor([[1.0], [-1.0], [-1.0], [1.0], [1.0]], dtype=DTYPE)
    q, p = families.Normal(1), families.Normal(1, scale=1.0)
    prior = linear(torch.tensor([[200.0], [0.0]], dtype=DTYPE), bias=torch.zeros(2, dtype=DTYPE))
    encoder = linear(torch.zeros(2, 2, dtype=DTYPE), bias=torch.zeros(2, dtype=DTYPE))
    decoder = linear(torch.zeros(1, 2, dtype=DTYPE), bias=torch.zeros(1, dtype=DTYPE))
    model = VAE(Conditional(prior, q), Conditional(encoder, q), Conditional(decoder, p)).double()
    x = torch.tensor([[0.5], [-1.0], [0.2], [1.0], [-0.3]], dtype=DTYPE)
    found = log_marginal_hmc(model, Pairs(x, y), 20, ChainSettings(thin=1, burn_in=2))
    exact_ = Normal(0, 1).log_prob(x)[:, 0]
    torch.testing.assert_close(found.log_px, exact_, atol=1.0, rtol=0)
