"""The variance of the gradient, held against a model where that of either estimator has a closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracle import Oracle, oracle
from torch import Tensor

from aevb.evaluation.gradient_noise import GradientNoise, gradient_noise, minibatch_noise
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP
from aevb.models.priors import StandardNormal
from aevb.models.trace import LatentModel
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO
from aevb.objectives.schedules import Step
from aevb.objectives.wake_sleep import WakeSleep
from aevb.probability.families import Bernoulli, Delta, Normal
from aevb.training.optimizers import Adam
from aevb.training.train import Training, train

ESTIMATORS: Any = ("A", "B")


def exact(o: Oracle, x: Tensor, estimator: str) -> float:
    """tr Cov of the encoder's gradient at the exact posterior N(m, v) of z, for one sample, in closed form.

    log w is constant in z there, so all that is left of A's gradient is the score of q: -ε/√v in the means, -½(ε² - 1)
    in the log-variances. B's is m - aε, with a = (1 - v)/√v, in the means, ½√v ε as often in the log-variances. Row d
    of the encoder's weights gets either times x, its bias times one, and a minibatch the mean.
    """
    m, v = o.posterior(x).mean, o.variances.expand(len(x), -1)
    a = (1 - v) / v.sqrt()
    of_a = 1 / v + 0.5
    of_b = a**2 + v / 4 * (m**2 + 2 * a**2)
    each = of_a if estimator == "A" else of_b
    return float((each.sum(1) * (x.square().sum(1) + 1)).sum() / len(x) ** 2)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    t = torch.tensor(values, dtype=torch.float64)
    return float(t.mean()), float(t.std()) / math.sqrt(len(t))


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_variance_is_that_of_the_closed_form(estimator: Any, samples: int) -> None:
    o = oracle()
    model, x = o.vae(), o.data(8)
    noises = [gradient_noise(model, ELBO(estimator, samples), x, 40, seed=seed) for seed in range(10)]
    mean, error = mean_and_error([n.variance["encoder"] for n in noises])
    expected = exact(o, x, estimator) / samples
    assert error < 0.1 * expected
    assert abs(mean - expected) < 4 * error


def test_b_has_less_variance_than_a_at_the_exact_posterior_and_its_value_more() -> None:
    """The gradient of B is less noisy, though the value of A has no noise at all there."""
    o = oracle()
    model, x = o.vae(), o.data(8)
    a, b = (gradient_noise(model, ELBO(e), x, 200) for e in ESTIMATORS)
    assert exact(o, x, "B") < 0.7 * exact(o, x, "A")
    assert b.variance["encoder"] < 0.8 * a.variance["encoder"]
    assert a.value < 1e-20 < 0.01 < b.value


def test_the_decoder_has_the_same_gradient_under_both() -> None:
    o = oracle()
    model, x = o.vae(shift=0.3, widen=1.5), o.data(8)
    a, b = (gradient_noise(model, ELBO(e, 2), x, 50) for e in ESTIMATORS)
    assert a.variance["decoder"] == pytest.approx(b.variance["decoder"], rel=1e-12)
    torch.testing.assert_close(a.mean["decoder"], b.mean["decoder"])


def test_both_have_one_expectation() -> None:
    """The squared distance of the mean gradients, which noise alone would make 2 · variance / draws, or less."""
    o, draws = oracle(), 600
    model, x = o.vae(shift=0.3, widen=1.5), o.data(4)
    a, b = (gradient_noise(model, ELBO(e), x, draws, seed=seed) for seed, e in enumerate(ESTIMATORS))
    for part in ("encoder", "decoder"):
        noise = (a.variance[part] + b.variance[part]) / draws
        assert float((a.mean[part] - b.mean[part]).square().sum()) < 3 * noise
        assert float(a.mean[part].square().sum()) > 10 * noise  # so that the distance is small beside the gradient


def test_the_variance_falls_as_one_over_the_samples() -> None:
    """The slope of log variance against log L is -1, within four of its standard errors."""
    o = oracle()
    model, x = o.vae(shift=0.3, widen=1.5), o.data(8)
    counts = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)
    slopes: dict[str, list[float]] = {"encoder": [], "decoder": [], "value": []}
    for seed in range(6):
        noises = [gradient_noise(model, ELBO("B", int(c)), x, 50, seed=seed) for c in counts]
        for name, found in slopes.items():
            found.append(
                slope(counts.log(), torch.tensor([(n.variance | {"value": n.value})[name] for n in noises]).log())
            )
    for name, found in slopes.items():
        mean, error = mean_and_error(found)
        assert error < 0.1
        assert abs(mean + 1) < 4 * error, name


def slope(x: Tensor, y: Tensor) -> float:
    """Of the regression line."""
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.parametrize("steps", [1, 200])
def test_b_is_less_noisy_on_a_small_network(steps: int) -> None:
    """As the paper says of the typical case, after a first step and trained."""
    torch.manual_seed(0)
    z = Normal(3)
    encoder, decoder = Conditional(MLP(6, z.size, (8,)), z), Conditional(MLP(3, 6, (8,)), Bernoulli(6))
    model = VAE(StandardNormal(3), encoder, decoder)
    x = (torch.rand(200, 1) > 0.5).float().repeat(1, 6)
    for _ in train(model, ELBO(), x, Training(Adam(0.01), batch=20, samples=20 * steps)):
        pass
    a, b = (gradient_noise(model, ELBO(e), x[:20], 150) for e in ESTIMATORS)
    assert b.variance["encoder"] < 0.9 * a.variance["encoder"]


def test_the_minibatch_adds_the_variance_of_the_mean_gradient() -> None:
    """Two parts of the variance make up the whole, which is measured by itself: a fresh minibatch for every draw."""
    o, n, draws = oracle(), 100, 6
    model = o.vae(shift=0.3, widen=1.5)
    noises = [gradient_noise(model, ELBO(samples=8), o.data(5, seed=10 + k), draws, seed=k) for k in range(n)]
    between = {part: mean_and_error(values.tolist()) for part, values in minibatch_noise(noises).items()}

    def fresh(model: LatentModel, x: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        return ELBO(samples=8)(model, o.data(5, seed=int(torch.randint(2**40, ()))), step)

    whole = [gradient_noise(model, fresh, o.data(5), 15, seed=k) for k in range(40)]
    for part, (found, error) in between.items():
        total, its_error = mean_and_error([w.variance[part] for w in whole])
        within, third = mean_and_error([w.variance[part] for w in noises])
        error = math.hypot(error, its_error, third)
        assert error < 0.2 * total
        assert abs(found + within - total) < 4 * error, part
        assert found > 3 * error


def test_without_noise_there_is_no_variance() -> None:
    torch.manual_seed(0)
    z = Delta(3)
    encoder, decoder = Conditional(MLP(6, z.size, (8,)), z), Conditional(MLP(3, 6, (8,)), Bernoulli(6))
    noise = gradient_noise(VAE(StandardNormal(3), encoder, decoder), ELBO(beta=0), torch.ones(4, 6), 5)
    assert noise.variance == {"encoder": 0.0, "decoder": 0.0}
    assert noise.value == 0.0
    assert noise.mean["decoder"].dtype == torch.float64


def test_any_objective_and_what_it_leaves_out() -> None:
    """Wake-sleep has two losses; of a part that no loss reaches the gradient is zero; the global generator stays."""
    o = oracle()
    model, x = o.vae(), o.data(4)
    state = torch.get_rng_state()
    assert set(gradient_noise(model, WakeSleep(), x, 3).variance) == {"encoder", "decoder"}
    blind = gradient_noise(model, lambda m, x, step: (m.posterior(x).mean.square().mean(), {}), x, 3)
    assert bool((blind.mean["decoder"] == 0).all())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least 2 draws; got 1"):
        gradient_noise(oracle().vae(), ELBO(), oracle().data(2), 1)
    with pytest.raises(ValueError, match="at least 2 minibatches; got 1"):
        minibatch_noise([GradientNoise({}, {}, 0.0, 2)])


def test_the_noise_within_a_minibatch_is_taken_off() -> None:
    """By hand: n/(n - 1) |ḡ_b - mean ḡ|² - tr Cov_ε / S, of two minibatches and two parts."""
    means = torch.tensor([[1.0, 2.0], [4.0, -2.0]], dtype=torch.float64)
    noises = [
        GradientNoise({"a": 60.0, "b": v}, {"a": m, "b": 0 * m}, 0.0, 10) for m, v in zip(means, (8, 5), strict=True)
    ]
    found = minibatch_noise(noises)
    assert found["a"].tolist() == [2 * 6.25 - 6, 2 * 6.25 - 6]
    assert found["b"].tolist() == [-0.8, -0.5]
