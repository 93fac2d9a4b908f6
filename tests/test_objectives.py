"""Objectives: the two estimators of the bound, its weights, its schedules, and that a number means one thing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

import aevb
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO
from aevb.objectives.schedules import Cosine, Exponential, Linear, Piecewise, value

SCHEDULES = [
    Linear(0.0, 4.0, 100),
    Cosine(1.0, 0.1, 100),
    Exponential(2.0, 0.5, 10),
    Piecewise((1.0, 0.5, 0.1), (37, 99)),
]


def small(latent: int = 3, family: aevb.Family | None = None) -> VAE:
    torch.manual_seed(0)
    z = family or aevb.Normal(latent)
    encoder = Conditional(MLP(6, z.size, (8,)), z)
    return VAE(StandardNormal(latent), encoder, Conditional(MLP(latent, 6, (8,)), aevb.Bernoulli(6)))


def binary(rows: int) -> Tensor:
    return torch.bernoulli(torch.full((rows, 6), 0.5), generator=torch.Generator().manual_seed(1))


class Given(nn.Module):
    """q(z|x) = N(x, σ²), so that a test sets the KL by hand; σ is a parameter."""

    def __init__(self, log_scale: float = 0.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(log_scale))

    def forward(self, x: Tensor) -> Distribution:
        return Independent(Normal(x, self.log_scale.exp().expand_as(x)), 1)


class Blind(nn.Module):
    """p(x|z) that ignores z."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor) -> Distribution:
        return Independent(Normal(self.mean.expand(*z.shape[:-1], -1), 1.0), 1)


def loss_of(objective: ELBO, model: VAE, x: Tensor, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    return objective(model, x, 0)


def gradients(objective: ELBO, model: VAE, x: Tensor, seed: int = 0) -> list[Tensor]:
    loss, _ = loss_of(objective, model, x, seed)
    return [g.clone() for g in torch.autograd.grad(loss, list(model.parameters()))]


# The bound


def test_a_and_b_estimate_the_same_bound() -> None:
    """Same noise, so that A - B = mean(log q - log p) - KL, zero within its own standard error."""
    model, x = small(), binary(4)
    with torch.no_grad():
        torch.manual_seed(0)
        t = model.trace(x, 20_000)
        difference = (t.log_qz - t.log_pz).mean(1) - t.kl.sum(-1).mean()
        a, b = (loss_of(ELBO(e, samples=20_000), model, x)[1] for e in ("A", "B"))  # type: ignore[arg-type]
    error = float(difference.std()) / math.sqrt(20_000)
    assert error < 0.01
    assert abs(float(difference.mean())) < 4 * error
    assert float(b["elbo"] - a["elbo"]) == pytest.approx(float(difference.mean()), abs=1e-4)
    assert torch.equal(a["reconstruction"], b["reconstruction"])


def test_the_gradients_of_a_and_b_have_one_expectation() -> None:
    """Each of 200 estimates per parameter; the mean difference in standard errors, over all 100-odd parameters."""
    model, x = small(), binary(4)

    def estimates(estimator: Any) -> Tensor:
        draws = [gradients(ELBO(estimator, samples=50), model, x, seed) for seed in range(200)]
        return torch.stack([torch.cat([g.flatten() for g in draw]) for draw in draws])

    difference = estimates("A") - estimates("B")
    z = difference.mean(0) / (difference.std(0) / math.sqrt(200)).clamp(min=1e-7)
    assert float(z.abs().max()) < 4.5
    assert float((z**2).mean()) < 1.6


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_the_loss_is_minus_the_bound(estimator: Any) -> None:
    model, x = small(), binary(4)
    loss, info = loss_of(ELBO(estimator, samples=3), model, x)
    torch.manual_seed(0)
    t = model.trace(x, 3)
    expected = t.log_w.mean() if estimator == "A" else t.log_px.mean() - t.kl.sum(-1).mean()
    torch.testing.assert_close(loss, -expected)
    torch.testing.assert_close(loss, -info["elbo"])
    torch.testing.assert_close(info["elbo"], info["reconstruction"] - info["kl"])
    assert not any(v.requires_grad for v in info.values())
    assert all(v.ndim == 0 for v in info.values())


@pytest.mark.parametrize("estimator", ["A", "B"])
@pytest.mark.parametrize("beta", [4.0, 0.5, Linear(4.0, 1.0, 10)])
def test_beta_weighs_the_kl_and_leaves_the_logged_bound_plain(estimator: Any, beta: Any) -> None:
    model, x = small(), binary(4)
    loss, info = loss_of(ELBO(estimator, beta=beta), model, x)
    weight = value(beta, 0)
    torch.testing.assert_close(loss, weight * info["kl"] - info["reconstruction"])
    assert torch.equal(info["elbo"], loss_of(ELBO(estimator), model, x)[1]["elbo"])


def test_the_bound_is_log_px_at_the_true_posterior_and_below_it_elsewhere() -> None:
    """Linear-Gaussian in one dimension: z ~ N(0, 1), x|z ~ N(w z, s²), log p(x) in closed form."""
    w, s = 1.5, 0.5
    variance = w**2 + s**2
    encoder, decoder = (
        Conditional(nn.Linear(1, 2), aevb.Normal(1)),
        Conditional(nn.Linear(1, 1), aevb.Normal(1, scale=s)),
    )
    model, x = VAE(StandardNormal(1), encoder, decoder), torch.tensor([[0.3], [-2.0], [1.0]])
    with torch.no_grad():
        decoder.net.weight.fill_(w)
        decoder.net.bias.zero_()
        encoder.net.weight.copy_(torch.tensor([[w / variance], [0.0]]))
        encoder.net.bias.copy_(torch.tensor([0.0, math.log(s**2 / variance)]))
        log_px = Normal(0.0, math.sqrt(variance)).log_prob(x).mean()
        exact = loss_of(ELBO("A"), model, x)[1]["elbo"]  # log w is constant: no Monte-Carlo error
        torch.testing.assert_close(exact, log_px)
        many = loss_of(ELBO("B", samples=50_000), model, x)[1]["elbo"]
        assert float(many) == pytest.approx(float(log_px), abs=0.02)
        encoder.net.bias += 0.3
        assert loss_of(ELBO("B", samples=50_000), model, x)[1]["elbo"] < log_px - 0.05


# β = 0


def test_without_a_kl_there_is_no_kl() -> None:
    """No gradient of it, even into a posterior variance that nothing else sees, and no number that pretends."""
    model, x = VAE(StandardNormal(2), Given(0.5), Blind(2)), torch.randn(4, 2)
    loss, info = loss_of(ELBO(beta=0), model, x)
    (free,) = torch.autograd.grad(loss, [model.encoder.log_scale], allow_unused=True)
    assert set(info) == {"reconstruction"}
    assert free is None
    charged, _ = loss_of(ELBO(), model, x)
    (paid,) = torch.autograd.grad(charged, [model.encoder.log_scale])
    assert float(paid) == pytest.approx(2 * (math.e - 1), rel=1e-5)  # d/d log σ of Σ ½(σ² - 2 log σ), σ² = e


def test_a_plain_autoencoder() -> None:
    """A point's KL is infinite, and no one reads it."""
    model, x = small(family=aevb.Delta(3)), binary(4)
    loss, info = loss_of(ELBO(beta=0), model, x)
    torch.testing.assert_close(loss, -model.decode(model.encode(x)).log_prob(x).mean())
    assert all(bool(g.isfinite().all()) for g in gradients(ELBO(beta=0), model, x))
    assert bool(loss_of(ELBO(), model, x)[0].isinf())
    assert info["reconstruction"] == -loss


# Free bits


def test_free_bits_by_hand() -> None:
    """Σ_g max(λ, mean_B KL_g) with KL = ½x²: groups of mean 1.0625 and 0.0125 at λ = ½ cost 1.0625 + 0.5."""
    x = torch.tensor([[0.5, 0.1], [2.0, 0.2]])
    model = VAE(StandardNormal(2), Given(), Blind(2))
    loss, info = loss_of(ELBO(free_bits=0.5), model, x)
    assert (loss + info["reconstruction"]).item() == pytest.approx(1.0625 + 0.5)
    assert float(info["kl"]) == pytest.approx(1.0625 + 0.0125)
    assert float(info["elbo"]) == pytest.approx(float(info["reconstruction"]) - 1.075, rel=1e-5)


def test_what_is_free_has_no_gradient() -> None:
    x = torch.tensor([[0.5, 0.1], [2.0, 0.2]], requires_grad=True)
    model = VAE(StandardNormal(2), Given(), Blind(2))
    t = model.trace(x)
    objective = ELBO(free_bits=0.5)
    (gradient,) = torch.autograd.grad(objective.charged(t, objective.kl(t)), [x])
    torch.testing.assert_close(gradient, torch.tensor([[0.25, 0.0], [1.0, 0.0]]))


# One number, one meaning


@pytest.mark.parametrize("objective", [ELBO("A"), ELBO("B"), ELBO("B", samples=2, beta=3.0)], ids=["A", "B", "beta"])
def test_the_loss_is_a_mean_over_data_points(objective: ELBO) -> None:
    """A batch twice over, or cut in halves: the same loss and gradient, exactly, without noise (z is the posterior
    mean)."""

    class Mean(nn.Module):
        """A posterior whose draws are its mean."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Distribution:
            q = self.inner(x)
            q.rsample = lambda shape: q.mean.expand(*shape, *q.mean.shape)
            return q

    base = small()
    model, x = VAE(base.prior, Mean(base.encoder), base.decoder), binary(8)
    whole, doubled = gradients(objective, model, x), gradients(objective, model, torch.cat([x, x]))
    halves = [gradients(objective, model, part) for part in x.split(4)]
    for w, d, a, b in zip(whole, doubled, *halves, strict=True):
        torch.testing.assert_close(w, d, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(w, (a + b) / 2, rtol=1e-4, atol=1e-6)
    loss = loss_of(objective, model, x)[0]
    torch.testing.assert_close(loss, loss_of(objective, model, torch.cat([x, x]))[0])
    torch.testing.assert_close(loss, torch.stack([loss_of(objective, model, part)[0] for part in x.split(4)]).mean())


def test_free_bits_do_not_depend_on_the_batch_size() -> None:
    x = torch.tensor([[0.5, 0.1], [2.0, 0.2]])
    model = VAE(StandardNormal(2), Given(), Blind(2))
    objective = ELBO(free_bits=0.5)
    once, twice = (objective.charged(t, objective.kl(t)) for t in (model.trace(x), model.trace(torch.cat([x, x]))))
    torch.testing.assert_close(once, twice)


def test_more_samples_change_the_noise_and_not_the_value() -> None:
    model, x = small(), binary(4)
    with torch.no_grad():
        one = torch.stack([loss_of(ELBO("A"), model, x, seed)[0] for seed in range(200)])
        ten = torch.stack([loss_of(ELBO("A", samples=10), model, x, 1000 + seed)[0] for seed in range(200)])
    error = math.sqrt(float(one.var() + ten.var()) / 200)
    assert abs(float(one.mean() - ten.mean())) < 4 * error
    assert 6 < float(one.var() / ten.var()) < 17  # 10 within 4 standard errors of its logarithm, √(4/200)


# Schedules


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Linear(0.0, 4.0, 100), {0: 0.0, 25: 1.0, 50: 2.0, 100: 4.0, 1000: 4.0}),
        (Linear(1.0, 0.5, 10), {0: 1.0, 5: 0.75, 10: 0.5, 11: 0.5}),
        (Cosine(1.0, 0.0, 100), {0: 1.0, 50: 0.5, 100: 0.0, 1000: 0.0, 25: 0.5 + 0.5 * math.sqrt(0.5)}),
        (Cosine(0.0, 2.0, 100), {0: 0.0, 50: 1.0, 100: 2.0}),
        (Exponential(2.0, 0.5, 10), {0: 2.0, 10: 1.0, 20: 0.5, 5: 2 * math.sqrt(0.5)}),
        (Piecewise((1.0, 0.5, 0.1), (10, 40)), {0: 1.0, 9: 1.0, 10: 0.5, 39: 0.5, 40: 0.1, 1000: 0.1}),
        (Piecewise((3.0,), ()), {0: 3.0, 5: 3.0}),
    ],
)
def test_values_of_schedules(schedule: Any, values: dict[int, float]) -> None:
    for step, expected in values.items():
        assert schedule(step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_step_may_be_a_tensor(schedule: Any) -> None:
    for step in (0, 1, 37, 99, 100, 12345):
        assert float(schedule(torch.tensor(step))) == pytest.approx(schedule(step), rel=1e-5, abs=1e-6)


def test_a_warm_up_weighs_the_kl_by_the_step() -> None:
    model, x = small(), binary(4)
    objective = ELBO(beta=Linear(0.0, 1.0, 10))
    for step, beta in ((0, 0.0), (5, 0.5), (10, 1.0)):
        for number in (step, torch.tensor(step)):
            torch.manual_seed(0)
            loss, info = objective(model, x, number)
            torch.testing.assert_close(
                loss + info["reconstruction"], beta * info.get("kl", torch.zeros(())), rtol=1e-5, atol=1e-5
            )


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ELBO("C"), r"'A' \(eq. 6\) or 'B' \(eq. 7\); got 'C'"),  # type: ignore[arg-type]
        (lambda: ELBO(samples=0), "samples must be at least 1; got 0"),
        (lambda: ELBO(free_bits=-0.1), "free_bits must be at least 0; got -0.1"),
        (lambda: ELBO(beta=-1.0), "beta must be at least 0; got -1"),
        (lambda: ELBO("A", free_bits=0.5), "only estimator 'B'"),
        (lambda: Linear(0.0, 1.0, 0), "steps ≥ 1; got 0"),
        (lambda: Cosine(0.0, 1.0, -5), "steps ≥ 1"),
        (lambda: Exponential(1.0, 0.5, 0), "steps ≥ 1"),
    ],
)
def test_refusals(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
