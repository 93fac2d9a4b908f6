"""Terms: what each penalises, held against closed forms, and that no gradient goes where it does not belong."""

from __future__ import annotations

import itertools
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import DTYPE, oracle
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

import aevb
from aevb.data.batch import Batch
from aevb.data.randomness import Order, derive, seeded
from aevb.errors import RecipeError
from aevb.models.compat import check_model
from aevb.models.trace import Trace
from aevb.objectives.bounds import ELBO
from aevb.objectives.importance import ImportanceWeighted
from aevb.objectives.schedules import Cyclical, Linear
from aevb.objectives.terms import DIP, MMD, DensityRatio, Regularized, Term, TotalCorrelation, members_of
from aevb.runs.build import build_model, build_objective
from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run
from aevb.training.checkpoint import restore, state_tensors
from aevb.training.optimizers import SGD, Adam
from aevb.training.train import Learner, Training, continue_training


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    torch.manual_seed(0)


def traced(means: Tensor, scale: float | Tensor, z: Tensor | None = None, n: int = 0) -> Trace:
    """q(z|x_b) = N(mean_b, scale²), the prior N(0, I), N = `n`; z (B, D) are draws if not given."""
    q = Independent(Normal(means, torch.as_tensor(scale, dtype=means.dtype).expand_as(means)), 1)
    p = Independent(Normal(torch.zeros_like(means[0]), 1.0), 1)
    draws = q.rsample() if z is None else z
    batch = Batch(means, of=n)
    return Trace(
        batch, draws.unsqueeze(0), (q, p), lambda: torch.zeros(1, len(means)), lambda: q.log_prob(draws.unsqueeze(0))
    )


def correlated(n: int, rho: float) -> Tensor:
    """(n, 2), unit variances, correlation ρ."""
    a, b = torch.randn(2, n, dtype=DTYPE)
    return torch.stack([a, rho * a + math.sqrt(1 - rho**2) * b], 1)


# Total correlation


@pytest.mark.trap(38)
def test_total_correlation_of_a_normal() -> None:
    """With all data in the batch, q̂ is q(z): means of correlation r and noise s² give TC = -½ log(1 - ρ²)."""
    n, r, s = 1200, 0.9, 0.5
    t = traced(correlated(n, r), s, n=n)
    joint, marginals = TotalCorrelation(sampling="stratified").log_aggregate(t)
    per_point = joint - marginals.sum(-1)
    exact = -0.5 * math.log(1 - (r / (1 + s**2)) ** 2)
    assert exact > 0.3
    assert abs(float(per_point.mean()) - exact) < 4.5 * float(per_point.std()) / math.sqrt(n)
    torch.testing.assert_close(TotalCorrelation(sampling="stratified")(t), per_point.mean())


def test_total_correlation_of_a_product_is_zero() -> None:
    """Means on a grid: q(z) = Π_d q(z_d) exactly, at any z."""
    a, b = torch.tensor([-1.0, 0.3, 2.0], dtype=DTYPE), torch.tensor([-2.0, 0.0, 0.5, 1.0], dtype=DTYPE)
    t = traced(torch.cartesian_prod(a, b), 0.7, n=12)
    assert TotalCorrelation(sampling="stratified")(t).abs() < 1e-12


def test_the_kl_telescopes_into_information_total_correlation_and_the_rest() -> None:
    """E KL(q(z|x) ‖ p) = I + TC + Σ_d KL(q(z_d) ‖ p_d); for the normal all three are known, and so is their sum."""
    n, r, s = 1200, 0.6, 0.5
    t = traced(correlated(n, r), s, n=n)
    joint, marginals = TotalCorrelation(sampling="stratified").log_aggregate(t)
    information, total = t.log_qz - joint, joint - marginals.sum(-1)
    rest = marginals.sum(-1) - t.log_pz
    torch.testing.assert_close((information + total + rest).mean(), (t.log_qz - t.log_pz).mean())
    v = 1 + s**2
    expected = {
        "information": (information, 0.5 * math.log((v**2 - r**2) / s**4)),
        "total": (total, -0.5 * math.log(1 - (r / v) ** 2)),
        "rest": (rest, v - 1 - math.log(v)),
    }
    for name, (found, exact) in expected.items():
        assert abs(float(found.mean()) - exact) < 4.5 * float(found.std()) / math.sqrt(n), name


@pytest.mark.trap(21)
def test_weighted_sampling_adds_a_known_constant() -> None:
    """ω = 1/(N B) at B = N is 1/N of what it should be: (D - 1) log N too much, and the same gradient."""
    means = torch.randn(40, 3, dtype=DTYPE, requires_grad=True)
    z = torch.randn(40, 3, dtype=DTYPE)
    weighted, stratified = (TotalCorrelation(sampling=s)(traced(means, 0.5, z, 40)) for s in ("weighted", "stratified"))
    torch.testing.assert_close(weighted, stratified + 2 * math.log(40))
    a, b = (torch.autograd.grad(tc, [means])[0] for tc in (weighted, stratified))
    torch.testing.assert_close(a, b)


@pytest.mark.trap(7)
def test_stratified_sampling_is_unbiased() -> None:
    """q̂(z) averaged over all minibatches of 3 of 6 points that hold z's own is q(z), exactly; so for each q̂(z_d)."""
    means, z, n = torch.randn(6, 2, dtype=DTYPE), torch.randn(6, 2, dtype=DTYPE), 6
    term = TotalCorrelation(sampling="stratified")
    whole = [d.exp() for d in term.log_aggregate(traced(means, 0.4, z, n))]
    found = [torch.zeros_like(d) for d in whole]
    for batch in combinations(range(n), 3):
        rows = torch.tensor(batch)
        for total, density in zip(found, term.log_aggregate(traced(means[rows], 0.4, z[rows], n)), strict=True):
            total[:, rows] += density.exp()
    for total, density in zip(found, whole, strict=True):
        torch.testing.assert_close(total / math.comb(n - 1, 2), density)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
@pytest.mark.parametrize(("b", "n"), [(2, 2), (2, 100), (50, 50), (50, 60_000)])
def test_the_weights_sum_to_what_is_said(sampling: Any, b: int, n: int) -> None:
    """The rows of ω sum to 1 (stratified) or 1/N (weighted)."""
    rows = TotalCorrelation(sampling=sampling).log_weights(b, n, torch.zeros((), dtype=DTYPE)).exp().sum(1)
    torch.testing.assert_close(rows, torch.full((b,), 1.0 if sampling == "stratified" else 1 / n, dtype=DTYPE))


# DIP


@pytest.mark.trap(20)
def test_dip_by_hand() -> None:
    """Four points on an ellipse: Cov = [[1, ½], [½, 2]], so 2 · ½² + diagonal · 1²."""
    lower = torch.linalg.cholesky(torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=DTYPE))
    means = math.sqrt(2) * torch.cat([lower.T, -lower.T]) + 3.0
    t = traced(means, 0.5)
    assert float(DIP(diagonal=7.0)(t)) == pytest.approx(0.5 + 7.0)
    assert float(DIP(diagonal=7.0, kind="II")(t)) == pytest.approx(0.5 + 7.0 * (0.25**2 + 1.25**2))
    torch.testing.assert_close(DIP().covariance(t), torch.cov(means.T, correction=0))


def test_dip_of_a_full_posterior_has_its_covariance() -> None:
    c = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=DTYPE)
    q = MultivariateNormal(torch.zeros(4, 2, dtype=DTYPE), c)
    t = Trace(
        Batch(torch.zeros(4, 2), of=10), torch.zeros(1, 4, 2), (q, q), lambda: torch.zeros(1), lambda: torch.zeros(1)
    )
    torch.testing.assert_close(DIP(kind="II").covariance(t), c)
    assert DIP(kind="I").covariance(t).abs().max() == 0


# MMD


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_unbiased(kernel: Any) -> None:
    """With 3 points a side the mean over many clouds of one law is 0; the biased estimate would give 2/3 (1 - E k)."""
    a, b = torch.randn(2, 20_000, 3, 2, dtype=DTYPE)
    term = MMD(kernel=kernel)
    each = torch.stack([term.between(x, y) for x, y in zip(a.split(100), b.split(100), strict=True)])
    se = float(each.std()) / math.sqrt(len(each))
    assert abs(float(each.mean())) < 4.5 * se
    assert se < 0.003


def test_mmd_in_closed_form() -> None:
    """RBF, N(0, I) against N(δ, I): ‖a - b‖² over C has E exp(·) = (1 + 4/C)^(-D/2) exp(-‖δ‖²/(C + 4))."""
    d, c, delta = 2, 3.0, torch.tensor([1.0, -0.5], dtype=DTYPE)
    a, b = torch.randn(2, 20_000, 4, d, dtype=DTYPE)
    term = MMD(kernel="rbf", scale=c)
    each = torch.stack([term.between(x + delta, y) for x, y in zip(a.split(100), b.split(100), strict=True)])
    exact = 2 * (1 + 4 / c) ** (-d / 2) * (1 - math.exp(-float(delta.square().sum()) / (c + 4)))
    assert abs(float(each.mean()) - exact) < 4.5 * float(each.std()) / math.sqrt(len(each))


def test_the_scale_of_the_kernel() -> None:
    """2 D is the mean squared distance of draws of N(0, I); the median follows the scale of the codes."""
    z, draws = torch.randn(2, 1, 400, 5, dtype=DTYPE)
    cross = (z.unsqueeze(2) - draws.unsqueeze(1)).square().sum(-1)
    assert MMD().constant(cross, 5) == pytest.approx(float(cross.mean()), rel=0.05)
    assert float(MMD(scale="median").constant(9 * cross, 5)) == pytest.approx(9 * float(cross.median()))
    assert MMD(scale=0.3).constant(cross, 5) == 0.3


def test_mmd_of_a_trace_draws_from_the_prior() -> None:
    """Zero on average where q(z) is the prior: means of variance 1 - s²; far from zero where it is not."""
    term, s = MMD(), 0.6

    def estimates(shift: float) -> Tensor:
        fresh = (math.sqrt(1 - s**2) * torch.randn(30, 3, dtype=DTYPE) + shift for _ in range(200))
        return torch.stack([term(traced(means, s)) for means in fresh])

    at, off = estimates(0.0), estimates(0.7)
    assert abs(float(at.mean())) < 4.5 * float(at.std()) / math.sqrt(200)
    assert float(off.mean()) > 20 * float(off.std()) / math.sqrt(200)


# The density ratio


def small() -> tuple[aevb.VAE, Tensor]:
    truth = oracle()
    return truth.vae(shift=0.2, widen=1.5), truth.data(40)


def ratio(model: aevb.VAE, weight: float = 3.0) -> DensityRatio:
    return DensityRatio(model, weight, hidden=(16,)).double()


@pytest.mark.trap(4)
def test_the_discriminator_and_the_model_leak_no_gradient() -> None:
    """The penalty moves no weight of T, T's loss none of the model."""
    model, x = small()
    term = ratio(model)
    t = model.trace(x)
    penalty, own = term(t), term.own_loss(t)
    theirs, mine = list(model.parameters()), list(term.parameters())
    assert all(g is None for g in torch.autograd.grad(penalty, mine, allow_unused=True, retain_graph=True))
    assert all(g is None for g in torch.autograd.grad(own, theirs, allow_unused=True, retain_graph=True))
    assert any(float(g.abs().max()) > 0 for g in torch.autograd.grad(own, mine))
    into_encoder = torch.autograd.grad(penalty, list(model.encoder.parameters()))
    assert all(float(g.abs().max()) > 0 for g in into_encoder)


def test_each_side_of_factor_vae_gets_its_own_gradient() -> None:
    """Of the summed loss: the model's gradient is bound + γ TC, T's is its own loss, whatever γ."""
    model, x = small()
    for weight in (0.0, 3.0):
        term = ratio(model, weight)
        objective = Regularized(ELBO(), [term])
        torch.manual_seed(1)
        loss, info = objective(model, x, 0)
        found = torch.autograd.grad(loss, [*model.parameters(), *term.parameters()])
        torch.manual_seed(1)
        t = model.trace(x)
        bound, _ = ELBO().of(t, 0)
        total = bound + weight * term(t)
        expected = [*torch.autograd.grad(total, list(model.parameters()), retain_graph=True)]
        expected += torch.autograd.grad(term.own_loss(t), list(term.parameters()))
        torch.testing.assert_close(loss, total)
        assert set(info) == {"elbo", "reconstruction", "kl", "total_correlation", "total_correlation_loss"}
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f, e)


def test_the_discriminator_learns_the_total_correlation() -> None:
    """T's mean over correlated normals approaches -½ log(1 - ρ²); its loss starts at ln 2."""
    rho = 0.7
    term = DensityRatio(oracle(d=2).vae(), hidden=(32, 32)).double()
    optimizer = torch.optim.Adam(term.parameters(), lr=5e-3)
    losses = []
    for step in range(450):
        optimizer.param_groups[0]["lr"] = 5e-3 if step < 350 else 5e-4  # the last hundred steps average the noise
        optimizer.zero_grad()
        loss = term.own_loss(traced(correlated(600, rho), 1e-9))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(math.log(2), abs=0.05)
    assert losses[-1] < 0.66
    estimate = float(term(traced(correlated(4000, rho), 1e-9)).detach())
    assert estimate == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.06)


def moved(
    training: Training, steps: int = 3, lr: float = 0.01
) -> tuple[Learner, list[list[Tensor]], list[list[Tensor]]]:
    """A learner of FactorVAE after some steps; the weights of model and discriminator before and after each."""
    model, x = small()
    torch.manual_seed(0)
    term = DensityRatio(model, 3.0, (16,), lr=lr).double()
    learner = Learner(model, Regularized(ELBO(), [term]), training, len(x))
    models, terms = [copies(model)], [copies(term)]
    for _ in itertools.islice(continue_training(learner, x), steps):
        models.append(copies(model))
        terms.append(copies(term))
    return learner, models, terms


def copies(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_the_discriminator_moves_by_an_adam_of_its_own_and_the_model_stands_still() -> None:
    """θ ← θ - α m̂ / (√v̂ + ε) with β₁ = 0.5 and β₂ = 0.9 by hand, under an SGD of rate 0 for the model."""
    still = Training(SGD(0.0), batch=40, seed=1)
    _, models, found = moved(still)
    assert all(same(weights, models[0]) for weights in models)
    model, x = small()
    theta, m, v = found[0], [0.0] * 4, [0.0] * 4
    order = Order(40, 40, 1)
    for t in range(1, 4):
        with torch.no_grad():
            term = DensityRatio(model, 3.0, (16,)).double()
            for p, value in zip(term.parameters(), theta, strict=True):
                p.copy_(value)
        with seeded(derive(1, "noise", t - 1)):
            own = term.own_loss(model.trace(x[order[t - 1]]))
        gradients = torch.autograd.grad(own, list(term.parameters()))
        m = [0.5 * a + 0.5 * g for a, g in zip(m, gradients, strict=True)]
        v = [0.9 * a + 0.1 * g * g for a, g in zip(v, gradients, strict=True)]
        hats = [(a / (1 - 0.5**t), b / (1 - 0.9**t)) for a, b in zip(m, v, strict=True)]
        theta = [p - 0.01 * a / (b.sqrt() + 1e-8) for p, (a, b) in zip(theta, hats, strict=True)]
        for a, b in zip(found[t], theta, strict=True):
            torch.testing.assert_close(a, b)


def test_the_model_moves_by_bound_and_penalty_alone_and_the_discriminator_stands_still() -> None:
    learner, models, terms = moved(Training(SGD(0.1), batch=40, seed=1), lr=0.0)
    assert all(same(weights, terms[0]) for weights in terms)
    model, x = small()
    term = learner.objective.terms[0]  # type: ignore[attr-defined]
    for t in range(3):
        with torch.no_grad():
            for p, value in zip(model.parameters(), models[t], strict=True):
                p.copy_(value)
        with seeded(derive(1, "noise", t)):
            trace = model.trace(x[Order(40, 40, 1)[t]])
            loss = ELBO().of(trace, t)[0] + 3 * term(trace)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for before, g, after in zip(models[t], gradients, models[t + 1], strict=True):
            torch.testing.assert_close(after, before - 0.1 * g)


def test_the_models_schedule_clip_and_weight_prior_do_not_reach_the_discriminator() -> None:
    _, _, plain = moved(Training(SGD(0.0), batch=40))
    settings: dict[str, Any] = {"clip": 1e-3, "weight_prior": True, "learning_rate": Linear(0.5, 0.0, 2)}
    _, _, found = moved(Training(SGD(0.0), batch=40, **settings))
    assert same(found[-1], plain[-1])
    assert not same(plain[-1], plain[0])


def test_a_discriminators_memory_is_resumed_bit_for_bit() -> None:
    training = Training(Adam(1e-2), batch=10, samples=80)
    whole, _, _ = moved(training, 8)
    half, _, _ = moved(training, 4)
    again, _, _ = moved(training, 0)
    restore(again, state_tensors(half), 4)
    for _ in continue_training(again, small()[1]):
        pass
    expected, found = state_tensors(whole), state_tensors(again)
    assert expected.keys() == found.keys()
    assert sum(key.startswith("adversary1.") for key in found) == 4 * 3  # step, m and v of four tensors
    assert all(torch.equal(expected[key], found[key]) for key in found)


# The sum


def test_terms_are_weighed_and_logged_unweighed() -> None:
    model, x = small()
    terms: list[Term] = [MMD(scale=2.0, weight=3.0), DIP(weight=Linear(0.0, 2.0, 10)), TotalCorrelation(0.5)]
    torch.manual_seed(1)
    loss, info = Regularized(ELBO(beta=2.0), terms)(model, Batch(x, of=100), 5)
    torch.manual_seed(1)
    plain, numbers = ELBO(beta=2.0)(model, x, 5)
    expected = plain + 3 * info["mmd"] + 1.0 * info["dip"] + 0.5 * info["total_correlation"]
    torch.testing.assert_close(loss, expected)
    for name, number in numbers.items():
        torch.testing.assert_close(info[name], number)
    assert all(v.ndim == 0 and not v.requires_grad for v in info.values())


@pytest.mark.parametrize(
    "term",
    [TotalCorrelation(), TotalCorrelation(sampling="stratified"), DIP(), DIP(kind="II")],
    ids=["weighted", "stratified", "I", "II"],
)
def test_the_order_of_the_data_changes_nothing(term: Term) -> None:
    means, z = torch.randn(20, 3, dtype=DTYPE), torch.randn(20, 3, dtype=DTYPE)
    order = torch.randperm(20)
    torch.testing.assert_close(term(traced(means[order], 0.5, z[order], 100)), term(traced(means, 0.5, z, 100)))
    k = MMD(scale="median")
    torch.testing.assert_close(
        k.between(z[order].unsqueeze(0), means.unsqueeze(0)), k.between(z.unsqueeze(0), means.unsqueeze(0))
    )


LACKING: dict[str, tuple[Term, aevb.Family, str]] = {
    "joint latents": (
        TotalCorrelation(),
        aevb.FullNormal(2),
        "density of single latents, .* total-correlation requires",
    ),
    "one code": (TotalCorrelation(), aevb.FSQ((2, 3)), r"density q\(z\|x\), which the term total-correlation requires"),
    "the mean of one code": (
        DIP(),
        aevb.FSQ((2, 3)),
        "mean in closed form with a derivative, which the term dip requires",
    ),
    "the mean of a flow": (DIP(), aevb.Planar(2), "mean in closed form with a derivative, which the term dip requires"),
    "the covariance of a simplex": (DIP(kind="II"), aevb.Dirichlet(3), "covariance in closed form, .* or the kind I"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_a_term_needs_of_the_posterior_is_checked(case: str) -> None:
    """Before training, by what the family declares; and where the objective is called by hand, by what its draws are
    of."""
    term, family, words = LACKING[case]
    shape = family.shape
    encoder = aevb.Conditional(nn.Linear(4, family.size), family)
    prior = aevb.UniformOverCodes(encoder) if "code" in case else aevb.StandardNormal(shape)
    decoder = aevb.Conditional(nn.Sequential(nn.Flatten(), nn.Linear(shape.numel(), 4)), aevb.Normal(4, scale=1.0))
    model, objective = aevb.VAE(prior, encoder, decoder), Regularized(ELBO(), [term])
    with pytest.raises(RecipeError, match=f"posterior .* gives no {words}"):
        check_model(model, *members_of(objective))
    with pytest.raises(RecipeError, match=f"posterior .* gives no {words}"):
        objective(model, Batch(torch.randn(5, 4), of=50), 0)
    if "simplex" not in case:  # which has another prior
        check_model(model, *members_of(Regularized(ELBO(), [MMD()])))


REFUSED = {
    "bound": (lambda: Regularized(ImportanceWeighted(), [MMD()]), "loss to which terms can be added, .* one of: elbo"),
    "twice": (lambda: Regularized(ELBO(), [MMD(), MMD(kernel="rbf")]), "several terms 'mmd'"),
    "kernel": (lambda: MMD(kernel="linear"), "'imq' or 'rbf'; got 'linear'"),  # type: ignore[arg-type]
    "scale": (lambda: MMD(scale=0.0), "positive number, 'dimension' or 'median'; got 0"),
    "kind": (lambda: DIP(kind="III"), "'I' or 'II'"),  # type: ignore[arg-type]
    "weight": (lambda: DIP(weight=-1.0), "weight ≥ 0; got -1"),
    "sampling": (lambda: TotalCorrelation(sampling="exact"), "'weighted' or 'stratified'"),  # type: ignore[arg-type]
    "batch": (lambda: TotalCorrelation(sampling="stratified")(traced(torch.zeros(1, 2), 1.0, n=10)), "of 2 to 10"),
    "no N": (lambda: TotalCorrelation()(traced(torch.zeros(3, 2), 1.0)), "needs N, the number of rows in the data"),
    "one": (lambda: MMD()(traced(torch.zeros(1, 2), 1.0)), "a minibatch of at least 2"),
    "capacity A": (lambda: ELBO("A", capacity=3.0), "capacity excludes estimator = 'A': .* Leave one of them out"),
    "capacity bits": (
        lambda: ELBO(free_bits=1.0, capacity=3.0),
        "capacity excludes free_bits: .* Leave one of them out",
    ),
    "capacity": (lambda: ELBO(capacity=-3.0), "capacity must be at least 0; got -3"),
    "ramp": (lambda: Cyclical(0.0, 1.0, 10, ramp=0.0), "0 < ramp ≤ 1; got 0"),
    "cycle": (lambda: Cyclical(0.0, 1.0, 0), "steps ≥ 1; got 0"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# Capacity and cycles


@pytest.mark.trap(23)
def test_a_capacity_is_met_from_either_side() -> None:
    """loss = β |KL - C| - reconstruction; its derivative in the KL is -β below C and β above."""
    model, x = small()
    for capacity, side in ((100.0, -1.0), (0.1, 1.0), (Linear(0.0, 200.0, 10), -1.0)):
        torch.manual_seed(0)
        loss, info = ELBO(beta=5.0, capacity=capacity)(model, x, 5)
        c = capacity(5) if callable(capacity) else capacity
        torch.testing.assert_close(loss + info["reconstruction"], 5 * (info["kl"] - c).abs())
        torch.manual_seed(0)
        plain, _ = ELBO(beta=side * 5.0 if side > 0 else 0)(model, x, 5)
        g, p = (torch.autograd.grad(o, list(model.encoder.parameters())) for o in (loss, plain))
        if side > 0:
            for a, b in zip(g, p, strict=True):
                torch.testing.assert_close(a, b)
        else:
            t = model.trace(x)
            towards = torch.autograd.grad(t.kl.sum(-1).mean(), list(model.encoder.parameters()))
            for a, b, k in zip(g, p, towards, strict=True):
                torch.testing.assert_close(a, b - 5 * k)


def test_cycles() -> None:
    """Half of each cycle rises, half stays (arXiv 1903.10145, R = 0.5)."""
    schedule = Cyclical(0.0, 1.0, 100)
    for cycle in (0, 100, 700):
        for step, expected in {0: 0.0, 25: 0.5, 49: 0.98, 50: 1.0, 99: 1.0}.items():
            assert schedule(cycle + step) == pytest.approx(expected)
            assert float(schedule(torch.tensor(cycle + step))) == pytest.approx(expected)
    assert Cyclical(1.0, 3.0, 10, ramp=1.0)(15) == pytest.approx(2.0)


# In a recipe


TERMS = '[{type="density-ratio", weight=2.0, hidden=[8]}, {type="mmd", kernel="rbf", scale=2.0}]'


def test_a_recipe_with_terms_trains_and_keeps_its_discriminator(tmp_path: Path) -> None:
    data = aevb.load_data("digits")
    recipe = Recipe.load("digits").override([f"terms={TERMS}"]).replace(training__samples=500)
    run = fit(recipe, data, tmp_path / "run")
    again = Run.open(tmp_path / "run")
    assert again.recipe.settings == run.recipe.settings
    objective = again.objective(again.model())
    assert isinstance(objective, Regularized)
    fresh = build_objective(recipe, build_model(recipe, data.shape, 17), len(data.train))
    assert isinstance(fresh, nn.Module)
    kept, new = (list(o.parameters()) for o in (objective, fresh))
    assert len(kept) == 4
    assert not any(torch.equal(a, b) for a, b in zip(kept, new, strict=True))  # it learned
    assert {"total_correlation", "total_correlation_loss", "mmd"} <= set(run.metrics()[-1]["train"])


def test_terms_without_parameters_keep_nothing(tmp_path: Path) -> None:
    recipe = Recipe.load("digits").override(['terms=[{type="dip"}]']).replace(training__samples=500)
    run = fit(recipe, aevb.load_data("digits"), tmp_path / "run")
    assert isinstance(run.objective(run.model()), Regularized)


@pytest.mark.trap(21)
def test_the_size_of_the_data_reaches_the_total_correlation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does the weight; at training as at validation and evaluation."""
    recipe = Recipe.load("digits").override(['terms=[{type="total-correlation", weight=5.0}]'])
    data, seen, weights = aevb.load_data("digits"), [], TotalCorrelation.log_weights

    def log_weights(term: TotalCorrelation, b: int, n: int, like: Tensor) -> Tensor:
        seen.append((n, term.weight))
        return weights(term, b, n, like)

    monkeypatch.setattr(TotalCorrelation, "log_weights", log_weights)
    fit(recipe.replace(training__samples=500), data, tmp_path / "run")
    assert set(seen) == {(len(data.train), 5.0)}


MISTAKES = {
    'terms=[{type="mdm"}]': r"terms: there is no 'mdm'\. Did you mean 'mmd'",
    'terms=[{type="mmd", wieght=1.0}]': r"terms \(mmd\): there is no 'wieght'\. Did you mean 'weight'",
    'terms=[{type="mmd", kernel="linear"}]': r"terms \(mmd\)\.kernel: expected 'imq' or 'rbf'; got 'linear'",
    'terms=[{type="total-correlation", n=3}]': r"terms \(total-correlation\): there is no 'n'",
    'terms=[{type="dip", weight=-1.0}]': r"terms \(dip\): weight ≥ 0; got -1",
    "terms=mmd": r"terms: expected a list of tables \(\[\[terms\]\]\); got 'mmd'",
    "terms=[3]": r"terms: expected a table with a type",
    'terms=[{type="mmd"}, {type="mmd"}]': r"terms: there are several terms 'mmd'",
    'term=[{type="mmd"}]': r"there is no 'term'\. Did you mean 'terms'",
}


@pytest.mark.parametrize("assignment", MISTAKES)
def test_mistakes_in_terms_are_told(assignment: str) -> None:
    model = build_model(Recipe.load("digits"), (1, 8, 8), 17)
    with pytest.raises(RecipeError, match=MISTAKES[assignment]):
        build_objective(Recipe.load("digits").override([assignment]), model, 1197)


def test_terms_of_another_objective_are_refused() -> None:
    recipe = Recipe.load("digits").override(['terms=[{type="mmd"}]', "objective=wake-sleep"])
    words = "objective wake-sleep gives no loss to which terms can be added, which the term mmd requires"
    with pytest.raises(RecipeError, match=rf"{words}\. Choose one of: elbo\."):
        build_objective(recipe, build_model(recipe, (1, 8, 8), 17), 1197)


def test_the_median_of_mmd_is_held_constant() -> None:
    """Value and gradient are those with the same number as scale."""
    z, draws = torch.randn(1, 12, 3, dtype=DTYPE, requires_grad=True), torch.randn(1, 12, 3, dtype=DTYPE)
    c = float((z.detach().unsqueeze(2) - draws.unsqueeze(1)).square().sum(-1).median())
    values = [MMD(scale=scale).between(z, draws) for scale in ("median", c)]
    torch.testing.assert_close(*values)
    gradients = [torch.autograd.grad(value, z)[0] for value in values]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 1e-3


def test_the_weight_of_a_term_is_one_and_of_the_commitment_a_quarter() -> None:
    """The loss beside that of the bound alone; 0.25 is the paper's β (arXiv 1711.00937)."""
    family = aevb.VQ((2, 3), codes=8)
    encoder = aevb.Conditional(nn.Linear(5, family.size), family)
    decoder = aevb.Conditional(aevb.MLP((2, 3), 5, hidden=[8]), aevb.Normal(5, scale=1.0))
    model, x = (
        aevb.VAE(aevb.UniformOverCodes(encoder), encoder, decoder).double().eval(),
        torch.randn(7, 5, dtype=DTYPE),
    )
    q = model.trace(x).q.base_dist  # type: ignore[attr-defined]
    by_hand = (q.h - q.code).square().flatten(1).sum(1).mean()
    losses = [o(model, x, 0)[0] for o in (aevb.Regularized(ELBO(), [aevb.Commitment()]), ELBO())]
    torch.testing.assert_close(losses[0] - losses[1], 0.25 * by_hand)
    assert by_hand > 0.1
    assert [term.weight for term in (DIP(), MMD(), TotalCorrelation())] == [1.0, 1.0, 1.0]
