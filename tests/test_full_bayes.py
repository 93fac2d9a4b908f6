"""Full variational Bayes, held against Bayesian models whose evidence and posterior over the weights are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracle import DTYPE, oracle
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, Normal

import aevb
from aevb.data.batch import Batch
from aevb.data.sources import load_data
from aevb.errors import RecipeError
from aevb.evaluation.bound import elbo
from aevb.evaluation.evaluate import table
from aevb.evidence.importance import log_marginal
from aevb.evidence.predictive import log_predictive
from aevb.models.conditional import Conditional
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO
from aevb.objectives.full_bayes import FullBayes
from aevb.probability import families
from aevb.runs.build import build_model, build_objective
from aevb.runs.evaluate import evaluate_run
from aevb.runs.fit import fit, resume
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run
from aevb.training.optimizers import Adam
from aevb.training.train import Learner, Training


def deviations(objective: FullBayes, model: nn.Module) -> dict[str, Tensor]:
    return {k: d.stddev.detach() for k, d in objective.posterior(model).items()}


def spread(objective: FullBayes, seed: int = 0) -> FullBayes:
    """Another log-variance for every weight."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in objective.parameters():
            p.copy_(-3 + torch.randn(p.shape, generator=g, dtype=p.dtype))
    return objective


# The KL of eq. 24


def test_the_kl_is_that_of_equation_24_and_of_monte_carlo() -> None:
    model = oracle().vae()
    objective = spread(FullBayes(model))
    q = objective.posterior(model)
    assert set(q) == {"decoder.net.weight", "decoder.net.bias"}
    mu, var = (torch.cat([f(d).flatten() for d in q.values()]) for f in (lambda d: d.mean, lambda d: d.variance))
    by_hand = -0.5 * (1 + var.log() - mu**2 - var).sum()
    torch.testing.assert_close(objective.kl(q), by_hand)
    torch.manual_seed(0)
    one = Normal(mu, var.sqrt())
    theta = one.sample(torch.Size((20_000,)))
    draws = (one.log_prob(theta) - Normal(0, 1).log_prob(theta)).sum(-1)
    assert abs(draws.mean() - by_hand) < 4 * draws.std() / 20_000**0.5


def test_the_loss_is_the_mean_of_equation_21() -> None:
    """E[loss] = -E[f(x, z, θ)] / N, where f has every term by Monte Carlo, the weights' too."""
    o, n, draws = oracle(), 40, 600
    model, x = o.vae(shift=0.2, widen=1.3), o.data(8)
    objective = spread(FullBayes(model))
    q = objective.posterior(model)
    torch.manual_seed(0)
    with torch.no_grad():
        losses = torch.stack([objective(model, Batch(x, of=n), 0)[0] for _ in range(draws)])
        f = torch.stack([-equation_21(model, x, n, q) / n for _ in range(draws)])
    se = (losses.var() / draws + f.var() / draws).sqrt()
    assert abs(losses.mean() - f.mean()) < 4 * se
    assert se < 0.02 * f.mean().abs()


def equation_21(model: nn.Module, x: Tensor, n: int, q: dict[str, Normal]) -> Tensor:
    """f of eq. 21 at one draw of everything, the mean over a minibatch; the weights are put into a plain model."""
    weights = {k: d.sample() for k, d in q.items()}
    drawn = oracle().vae()
    drawn.load_state_dict({**model.state_dict(), **weights})
    log_p = sum(Normal(0.0, 1.0).log_prob(w).sum() for w in weights.values())
    log_q = sum(d.log_prob(weights[k]).sum() for k, d in q.items())
    return n * drawn.trace(x).log_w.mean() + log_p - log_q


def test_what_is_logged() -> None:
    model, x = oracle().vae(), oracle().data(8)
    loss, info = FullBayes(model)(model, Batch(x, of=100), 0)
    assert {"elbo", "kl", "reconstruction", "kl_weights"} == set(info)
    torch.testing.assert_close(loss.detach(), info["kl_weights"] - info["elbo"])
    assert not any(v.requires_grad for v in info.values())


# Gradients


@pytest.mark.parametrize("over", [("decoder",), ("encoder",), ("decoder", "encoder")])
def test_gradients_are_those_of_finite_differences(over: tuple[str, ...]) -> None:
    """At fixed noise, for every mean, every log-variance and every point estimate."""
    o = oracle(x=3, d=2)
    model, x = o.vae(shift=0.3, widen=1.5), o.data(5)
    function = aevb.Loss(model, spread(FullBayes(model, over=over)))

    def loss() -> Tensor:
        torch.manual_seed(5)
        return function(Batch(x, of=7), torch.tensor(0))[0]

    parameters = dict(function.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(loss(), list(parameters.values())), strict=True))
    assert {k.split(".")[2].split("/")[0] for k in gradients if k.startswith("objective")} == set(over)
    for name, p in parameters.items():
        expected = torch.empty_like(p)
        with torch.no_grad():
            for i in range(p.numel()):
                flat, kept = p.view(-1), p.view(-1)[i].clone()
                flat[i] = kept + 1e-5
                above = loss()
                flat[i] = kept - 1e-5
                expected.view(-1)[i] = (above - loss()) / 2e-5
                flat[i] = kept
        torch.testing.assert_close(gradients[name], expected, rtol=1e-5, atol=1e-7)
        assert bool(gradients[name].abs().sum() > 0), name


def test_without_spread_it_is_maximum_a_posteriori() -> None:
    """σ_θ → 0: the gradient in μ_θ is that of the ELBO plus θ/N, the decay 1/N of `weight_prior`, on biases too."""
    o, n = oracle(), 30
    model, x = o.vae(shift=0.4, widen=1.5), o.data(16)
    objective = FullBayes(model, deviation=1e-9)
    torch.manual_seed(2)
    mine = torch.autograd.grad(objective(model, Batch(x, of=n), 0)[0], list(model.parameters()))
    torch.manual_seed(2)
    for d in objective.posterior(model).values():
        d.sample()  # ζ
    plain = torch.autograd.grad(ELBO()(model, x, 0)[0], list(model.parameters()))
    for (name, p), a, b in zip(model.named_parameters(), mine, plain, strict=True):
        decay = p / n if name.startswith("decoder") else torch.zeros_like(p)
        torch.testing.assert_close(a, b + decay, rtol=1e-6, atol=1e-6)


# A conjugate model: p(θ) = N(0, 1), p(x|z) = N(θ, s² I) whatever z is, and q(z|x) = p(z)


class Constant(nn.Module):
    """A net that gives the same numbers whatever it is asked."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())

    def forward(self, c: Tensor) -> Tensor:
        return self.value.expand(len(c), -1)


class Conjugate:
    """θ | X ~ N(N x̄ / (N + s²), s² / (N + s²)), per dimension of x; X (N, X)."""

    s = 1.5

    def __init__(self, n: int = 20, x: int = 3) -> None:
        g = torch.Generator().manual_seed(3)
        self.n, self.data = n, 0.7 + self.s * torch.randn(n, x, generator=g, dtype=DTYPE)

    @property
    def mean(self) -> Tensor:
        return self.data.sum(0) / (self.n + self.s**2)

    @property
    def variance(self) -> float:
        return self.s**2 / (self.n + self.s**2)

    @property
    def log_evidence(self) -> Tensor:
        """log p(X): a column of X is normal with the covariance s² I + 1 1ᵀ."""
        covariance = self.s**2 * torch.eye(self.n, dtype=DTYPE) + 1
        return MultivariateNormal(torch.zeros(self.n, dtype=DTYPE), covariance).log_prob(self.data.T).sum()

    def vae(self, theta: Tensor) -> VAE:
        encoder = Constant(torch.zeros(2, dtype=DTYPE))
        x = theta.numel()
        decoder = Conditional(Constant(theta), families.Normal(x, scale=self.s))
        return VAE(StandardNormal(1), Conditional(encoder, families.Normal(1)), decoder).double()

    def exact(self) -> tuple[VAE, FullBayes]:
        model = self.vae(self.mean)
        return model, FullBayes(model, deviation=math.sqrt(self.variance))

    def predictive(self) -> Distribution:
        return Normal(self.mean, math.sqrt(self.variance + self.s**2))


def test_at_the_exact_posterior_equation_21_is_the_log_evidence_for_every_draw() -> None:
    c = Conjugate()
    model, objective = c.exact()
    q = objective.posterior(model)
    for seed in range(20):
        torch.manual_seed(seed)
        drawn = objective.draw(model)
        weights = {k: dict(drawn.named_parameters())[k] for k in q}
        f = c.n * ELBO()(drawn, c.data, 0)[1]["elbo"]
        f = f + sum((Normal(0.0, 1.0).log_prob(w) - q[k].log_prob(w)).sum() for k, w in weights.items())
        torch.testing.assert_close(f, c.log_evidence)


def test_at_the_exact_posterior_the_loss_is_the_log_evidence_and_its_gradient_zero() -> None:
    c, draws = Conjugate(), 1000
    model, objective = c.exact()
    parameters = [*model.decoder.parameters(), *objective.parameters()]
    torch.manual_seed(0)
    losses = [objective(model, Batch(c.data, of=c.n), 0)[0] for _ in range(draws)]
    found = [torch.cat([v.flatten() for v in torch.autograd.grad(loss, parameters)]) for loss in losses]
    values, gradients = torch.stack(losses).detach(), torch.stack(found)
    assert abs(values.mean() + c.log_evidence / c.n) < 4 * values.std() / draws**0.5
    assert bool((gradients.mean(0).abs() < 4 * gradients.std(0) / draws**0.5).all())


def test_the_optimum_is_the_exact_posterior_and_its_value_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """To six digits: f is a quadratic of θ here, for which the mean over ζ = ±1 is the mean over ζ ~ N(0, 1)."""
    c = Conjugate()
    model = c.vae(torch.full((3,), -1.0, dtype=DTYPE))
    objective = FullBayes(model, deviation=0.5)
    optimizer = torch.optim.LBFGS(
        [*model.decoder.parameters(), *objective.parameters()], max_iter=200, tolerance_grad=1e-9
    )

    def loss() -> Tensor:
        values = []
        for zeta in (1.0, -1.0):
            monkeypatch.setattr("torch.distributions.normal._standard_normal", noise(zeta))
            values.append(objective(model, Batch(c.data, of=c.n), 0)[0])
        return torch.stack(values).mean()

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return float(value.detach())

    for _ in range(5):
        optimizer.step(closure)
    q = objective.posterior(model)["decoder.net.value"]
    torch.testing.assert_close(q.mean.detach(), c.mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(q.variance.detach(), torch.full((3,), c.variance, dtype=DTYPE), rtol=1e-6, atol=0)
    torch.testing.assert_close(-c.n * loss().detach(), c.log_evidence, rtol=1e-9, atol=0)


def noise(value: float) -> Callable[..., Tensor]:
    return lambda shape, dtype, device: torch.full(shape, value, dtype=dtype, device=device)


def test_training_finds_the_exact_posterior() -> None:
    c, steps = Conjugate(), 1500
    model = c.vae(torch.full((3,), 0.0, dtype=DTYPE))
    objective = FullBayes(model, deviation=0.5)
    settings = Training(Adam(0.02), batch=c.n, samples=c.n * steps, learning_rate=aevb.Cosine(1.0, 0.0, steps))
    for _ in aevb.train(model, objective, c.data, settings):
        pass
    q = objective.posterior(model)["decoder.net.value"]
    sigma = math.sqrt(c.variance)
    assert float((q.mean.detach() - c.mean).abs().max()) < 0.2 * sigma  # the noise of ζ, over the steps it is averaged
    assert float((q.stddev.detach() / sigma - 1).abs().max()) < 0.1
    assert 0 <= c.log_evidence - expected_bound(c, q) < 0.05


def expected_bound(c: Conjugate, q: Normal) -> Tensor:
    """Eq. 14 in closed form: E_q[log p(X|θ)] - KL(q(θ) ‖ p(θ)), in nats for all data."""
    with torch.no_grad():
        log_p = Normal(q.mean, c.s).log_prob(c.data).sum() - c.n * q.variance.sum() / (2 * c.s**2)
        return log_p - FullBayes.kl({"θ": q})


# Evaluation


def test_the_predictive_density_is_that_of_the_conjugate_model() -> None:
    c = Conjugate()
    model, objective = c.exact()
    x = torch.randn(50, 3, dtype=DTYPE, generator=torch.Generator().manual_seed(7)) * 2
    found = log_predictive(model, objective, x, 1000, samples=1)
    exact = c.predictive().log_prob(x).sum(-1)
    z = (found.log_px - exact) / found.se
    assert z.abs().max() < 4.5
    assert found.samples == 1000
    at_mean = log_marginal(model, x, 1).log_px
    assert float((at_mean - exact).abs().max()) > 10 * float(
        found.se.max()
    )  # which the mean's weights alone do not give


def test_draws_are_models_with_weights_from_the_posterior() -> None:
    model = oracle().vae()
    objective = spread(FullBayes(model))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(0)
    drawn = [objective.draw(model).state_dict() for _ in range(400)]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for name, d in objective.posterior(model).items():
        z = (torch.stack([w[name] for w in drawn]) - d.mean.detach()) / d.stddev.detach()
        assert float((z.mean(0) * 20).abs().max()) < 4.5
        assert float((z.std(0) - 1).abs().max()) < 0.2
    torch.testing.assert_close(drawn[0]["encoder.net.weight"], before["encoder.net.weight"], rtol=0, atol=0)


# Refusals


def test_what_is_refused() -> None:
    model = oracle().vae()
    with pytest.raises(ValueError, match=r"no 'decodr' with parameters\. Did you mean 'decoder'"):
        FullBayes(model, over=["decodr"])
    with pytest.raises(ValueError, match="no 'prior' with parameters"):
        FullBayes(model, over=["prior"])
    with pytest.raises(ValueError, match="names no part"):
        FullBayes(model, over=[])
    with pytest.raises(ValueError, match="deviation > 0; got -1"):
        FullBayes(model, deviation=-1)
    for data in (oracle().data(2), Batch(oracle().data(2))):
        with pytest.raises(ValueError, match="needs N, the number of rows in the data"):
            FullBayes(model)(model, data, 0)
    with pytest.raises(ValueError, match="full-bayes gives no point estimates of the weights"):
        Learner(model, FullBayes(model), Training(weight_prior=True), n=3)
    with pytest.raises(ValueError, match="draws must be at least 1"):
        log_predictive(model, FullBayes(model), oracle().data(2), 0)


def test_frozen_weights_have_no_posterior() -> None:
    model = oracle().vae()
    model.decoder.net.bias.requires_grad_(False)
    assert set(FullBayes(model).posterior(model)) == {"decoder.net.weight"}


# Runs


def small(**changes: object) -> Recipe:
    settings = {"latent": 3, "encoder__hidden": [20], "decoder__hidden": [20], "training__samples": 3000}
    return Recipe.load("full-bayes").replace(**{**settings, **changes})


def test_a_run_keeps_the_posterior_of_its_weights(tmp_path: Path) -> None:
    data = load_data("digits", values="grey")
    run = fit(small(), data, tmp_path / "run")
    model = run.model()
    objective = Run.open(run.path).objective(model)
    assert isinstance(objective, FullBayes)
    assert all(bool((s - 0.01).abs().max() > 1e-4) for s in deviations(objective, model).values())  # as learnt
    found = log_predictive(model, objective, data.test.take(10), 3, samples=5)
    assert bool(torch.isfinite(found.log_px).all())
    kl = float(objective.kl(objective.posterior(model)).detach()) / len(
        data.train
    )  # at the last step; logged are means
    assert run.metrics()[-1]["train"]["kl_weights"] == pytest.approx(kl, rel=0.02)
    rows = table(evaluate_run(run, data, limit=10))
    assert [row[1] for row in rows if row[0] == "weights"] == ["posterior mean"]


def test_a_resumed_run_ends_bit_for_bit(tmp_path: Path) -> None:
    data = load_data("digits", values="grey")
    whole = fit(small(), data, tmp_path / "whole")
    half = fit(small(training__samples=1500), data, tmp_path / "half")
    resume(half, data, samples=3000)
    a, b = (deviations(run.objective(run.model()), run.model()) for run in (whole, Run.open(half.path)))  # type: ignore[arg-type]
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_mistakes_in_a_recipe(tmp_path: Path) -> None:
    data = load_data("digits", values="grey")
    for key, value, message in (
        (
            "training__weight_prior",
            True,
            r"full-bayes gives no point estimates of the weights, which training.weight_prior requires",
        ),
        ("objective__over", ["decodr"], r"objective \(full-bayes\): the model has no 'decodr'.*Did you mean 'decoder'"),
        ("objective__over", "decoder", r"objective \(full-bayes\)\.over: expected a list of names; got 'decoder'"),
        ("objective__n", 5, r"objective \(full-bayes\): there is no 'n'\."),
    ):
        with pytest.raises(RecipeError, match=message):
            fit(small(**{key: value}), data, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"objective \(full-bayes\): model must be given"):
        build_objective(small())


# An experiment


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_posterior_over_weights_fits_and_overfits_less(seed: int) -> None:
    """1,000 digits, equal steps, at the posterior mean: a lower train bound, and a smaller gap between train and test.

    The test bound itself is no better than that of point estimates here, so nothing is said of it.
    """
    data = load_data("digits", values="threshold")
    x, test = data.train[:1000], data.test[:]
    bounds = {}
    for name in ("likelihood", "posterior mode", "full"):
        recipe = Recipe.load("bernoulli").replace(latent=10, encoder__hidden=[100], decoder__hidden=[100])
        model = build_model(recipe.replace(training__seed=seed), data.shape)
        objective = FullBayes(model, deviation=0.05) if name == "full" else ELBO()
        settings = Training(Adam(2e-3), samples=250_000, seed=seed, weight_prior=name == "posterior mode")
        for _ in aevb.train(model, objective, x, settings):
            pass
        bounds[name] = [float(elbo(model, split, samples=10).elbo.mean()) for split in (x, test)]
    train, gap = ({k: f(*v) for k, v in bounds.items()} for f in (lambda a, b: a, lambda a, b: a - b))
    assert train["full"] < min(train["posterior mode"], train["likelihood"]) - 0.2, bounds
    assert gap["full"] < 0.85 * min(gap["posterior mode"], gap["likelihood"]), bounds
