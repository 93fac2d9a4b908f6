"""Monte Carlo EM: its chains reach the posterior, its M-step follows the marginal likelihood, and it resumes bit for
bit.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from oracle import DTYPE, Oracle, oracle
from torch import Tensor, nn

import aevb
from aevb.data.batch import Batch, take
from aevb.data.randomness import Order
from aevb.data.sources import load_data
from aevb.errors import RecipeError
from aevb.evidence.harmonic import ChainSettings, from_chain, log_marginal_hmc
from aevb.evidence.importance import log_marginal
from aevb.objectives.monte_carlo_em import MonteCarloEM
from aevb.runs.build import build_model, build_objective
from aevb.runs.files import read_tensors
from aevb.training.checkpoint import restore, state_tensors


def begun(model: aevb.VAE, n: int) -> MonteCarloEM:
    """N chains at draws of the prior."""
    em = MonteCarloEM()
    em.start(model, n)
    return em


def whole(x: Tensor) -> Batch:
    """All data points as one batch."""
    return take(x, torch.arange(len(x)))


def chains(
    o: Oracle, n: int, transitions: int, wide: float = 1.0
) -> tuple[aevb.VAE, Tensor, MonteCarloEM, list[float]]:
    """The oracle with a wrong encoder, its data, and chains after so many transitions; and the acceptance at each.

    The chains begin with step sizes `wide` times as large as they would.
    """
    model, x = o.vae(shift=1.0), o.data(n)
    torch.manual_seed(0)
    em = begun(model, n)
    em.step_size.mul_(wide)
    acceptance = []
    for _ in range(transitions):
        em.transit(model, whole(x))
        acceptance.append(float(em.acceptance))
    return model, x, em, acceptance


def maximum_likelihood(x: Tensor, d: int) -> Oracle:
    """Probabilistic PCA in closed form: W = U (Λ - s²)^½, s² the mean of the other eigenvalues (Tipping & Bishop
    1999)."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    variance = values[:-d].mean()
    return Oracle(vectors[:, -d:] * (values[-d:] - variance).sqrt(), x.mean(0), float(variance.sqrt()))


def test_chains_have_the_exact_posterior_moments_and_the_target_acceptance() -> None:
    o = oracle()
    _, x, em, acceptance = chains(o, 2000, 110, wide=10.0)
    assert acceptance[0] < 0.1
    exact = o.posterior(x)
    standard = (em.z - exact.mean) / exact.stddev
    for power, moment in ((1, 0.0), (2, 1.0)):
        values = standard**power
        assert bool(((values.mean(0) - moment).abs() < 4.5 * values.std(0) / len(x) ** 0.5).all()), values.mean(0)
    assert abs(sum(acceptance[-30:]) / 30 - 0.9) < 0.02


def test_the_m_step_follows_the_gradient_of_the_marginal_likelihood() -> None:
    """Fisher's identity: E_p(z|x)[∇ log p(x, z)] = ∇ log p(x), with the latter from the exact evidence."""
    o = oracle()
    model, x, em, _ = chains(o, 3000, 100)
    w, b = o.W.clone().requires_grad_(), (o.b + 0.3).requires_grad_()  # away from where the data come from
    moved = Oracle(w, b, o.s)
    exact = torch.autograd.grad(moved.evidence.log_prob(x).mean(), (w, b))
    with torch.no_grad():
        model.decoder.net.bias.copy_(b)
    for _ in range(60):
        em.transit(model, whole(x))
    assert_gradient(em, model, x, exact)


def test_maximum_likelihood_is_a_fixed_point() -> None:
    x = oracle().data(3000)
    best = maximum_likelihood(x, 3)
    model = best.vae()
    torch.manual_seed(1)
    em = begun(model, len(x))
    for _ in range(100):
        em.transit(model, whole(x))
    assert_gradient(em, model, x, (torch.zeros_like(best.W), torch.zeros_like(best.b)))


def assert_gradient(em: MonteCarloEM, model: aevb.VAE, x: Tensor, exact: tuple[Tensor, ...]) -> None:
    """The mean of the M-step's gradient over data points, against the exact one, in standard errors over data
    points."""
    net = dict(model.decoder.net.named_parameters())

    def log_joint(weights: dict[str, Tensor], row: Tensor, z: Tensor) -> Tensor:
        mean = z @ weights["weight"].T + weights["bias"]
        return model.decoder.family(mean).log_prob(row)  # log p(z) does not move with the weights

    each = torch.func.vmap(torch.func.grad(log_joint), (None, 0, 0))({k: p.detach() for k, p in net.items()}, x, em.z)
    loss, info = em(model, whole(x), 1)
    slopes = torch.autograd.grad(-loss, list(net.values()))
    for (name, gradients), slope, wanted in zip(each.items(), slopes, exact, strict=True):
        torch.testing.assert_close(gradients.mean(0), slope, msg=name)
        assert bool(((slope - wanted).abs() < 4.5 * gradients.std(0) / len(x) ** 0.5).all()), (name, slope, wanted)
    torch.testing.assert_close(info["log_joint"], -loss.detach())


def small(batch: int, samples: int = 1000) -> tuple[aevb.Learner, Tensor]:
    o = oracle()
    model, x = o.vae(), o.data(40)
    torch.manual_seed(2)
    return aevb.Learner(
        model, MonteCarloEM(), aevb.Training(aevb.Adagrad(0.05), batch, samples, weight_prior=True), len(x)
    ), x


def test_only_chains_of_the_batch_move_and_once_for_five_updates() -> None:
    learner, x = small(batch=10)
    em, steps = learner.objective, aevb.continue_training(learner, x)
    encoder = [p.detach().clone() for p in learner.model.encoder.parameters()]
    order = Order(len(x), 10, 0, torch.device("cpu"))
    met = torch.zeros(len(x), dtype=torch.bool)
    for batch in range(4):
        before, weights = em.z.clone(), learner.model.decoder.net.weight.detach().clone()
        for _ in range(5):
            next(steps)
            if learner.number % 5 == 1:
                first = em.z.clone()
        assert torch.equal(em.z, first)
        moved = (em.z != before).any(1)
        assert not bool(moved[~torch.isin(torch.arange(len(x)), order[batch])].any())
        assert int(moved.sum()) > 5
        assert not torch.equal(learner.model.decoder.net.weight, weights)
        met[order[batch]] = True
        assert int(met.sum()) == 10 * (batch + 1)  # the batches of four E-steps are the first pass over the data
    assert all(torch.equal(a, b) for a, b in zip(encoder, learner.model.encoder.parameters(), strict=True))


@pytest.mark.parametrize("batch", [10, 40])
def test_resumes_bit_for_bit(batch: int) -> None:
    straight, x = small(batch)
    whole = [step.info for step in aevb.continue_training(straight, x)]
    stopped, _ = small(batch)
    steps = aevb.continue_training(stopped, x)
    for _ in range(13):  # in the middle of the updates of one E-step
        next(steps)
    again, _ = small(batch)
    restore(again, state_tensors(stopped), stopped.number)
    rest = [step.info for step in aevb.continue_training(again, x)]
    a, b = state_tensors(straight), state_tensors(again)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [{k: float(v) for k, v in i.items()} for i in rest] == [
        {k: float(v) for k, v in i.items()} for i in whole[13:]
    ]


def test_refusals() -> None:
    model = oracle().vae()
    with pytest.raises(
        ValueError, match=r"updates and leapfrogs ≥ 1, and a target between 0 and 1; got 0, 10 and 0\.9"
    ):
        MonteCarloEM(updates=0)
    for data in (torch.zeros(5, 6, dtype=DTYPE), Batch(torch.zeros(5, 6, dtype=DTYPE), of=5)):
        with pytest.raises(ValueError, match="needs the row numbers of the data points"):
            begun(model, 5)(model, data, 0)
    positive = aevb.Known(torch.distributions.Exponential, (1.0,), 3)
    fitted = aevb.Conditional(nn.Linear(3, 6), aevb.OptimalNormal(6))
    for changed, compiled, words in (
        (
            aevb.VAE(positive, model.encoder, model.decoder),
            False,
            "prior unit-exponential gives no density over the real line",
        ),
        (
            aevb.VAE(model.prior, model.encoder, fitted),
            False,
            "likelihood optimal-normal gives no likelihood of single data",
        ),
        (
            model,
            True,
            "objective monte-carlo-em gives no loss that torch.compile can trace, which training.compile requires",
        ),
    ):
        with pytest.raises(RecipeError, match=words):
            aevb.Learner(changed, MonteCarloEM(), aevb.Training(compile=compiled), 5)


def test_the_same_seed_gives_the_same_chains() -> None:
    recipe = aevb.Recipe.load("mcem")
    model = build_model(recipe, (1, 8, 8))
    other = recipe.replace(training__seed=1)
    a, b, c = (
        aevb.Learner(model, build_objective(r, model, 7), r.training(), 7).objective for r in (recipe, recipe, other)
    )
    assert torch.equal(a.z, b.z)
    assert not torch.equal(a.z, c.z)


def test_a_run_keeps_its_chains(tmp_path: Path) -> None:
    data, kept = load_data("digits", values="dynamic"), tmp_path / "run" / "objective.safetensors"
    recipe = aevb.Recipe.load("mcem").replace(training__samples=500, objective__leapfrogs=2, decoder__hidden=[8])
    run = aevb.fit(recipe, data, tmp_path / "run")
    objective = aevb.Run.open(run.path).objective(run.model())
    assert torch.equal(objective.z, read_tensors(kept)[0]["z"])
    other = aevb.Learner(run.model(), MonteCarloEM(), recipe.training(), len(data.train)).objective
    assert objective.z.shape == other.z.shape == (len(data.train), 3)
    assert 0 < int((objective.z != other.z).any(1).sum()) <= 100  # one batch of rows was visited


# The likelihood without an encoder


@pytest.mark.parametrize("d", [1, 3])
def test_importance_sampling_from_a_chain_is_exact(d: int) -> None:
    o = oracle(d=d)
    x, model = o.data(100), o.vae(shift=1.0, widen=0.1)
    found = log_marginal(model, x, 400, proposal=from_chain(model))
    error = found.log_px - o.evidence.log_prob(x)
    assert abs(float(error.mean())) < 4 * float(error.std()) / 10 + 0.005
    assert 0.5 < float((error / found.se).std()) < 2
    assert float(found.ess.min()) > 100


def test_both_estimators_agree_with_quadrature_where_the_posterior_has_several_modes() -> None:
    """A decoder that folds the plane, for which z and -z are equally likely; a chain that sees one sign misses log
    2."""
    model = aevb.VAE(aevb.StandardNormal(2), aevb.Conditional(nn.Linear(2, 4), aevb.Normal(2)), Folded()).double()
    torch.manual_seed(4)
    with torch.no_grad():
        x = model.decode(model.sample_latent(60)).sample()
        side = torch.linspace(-6, 6, 161, dtype=DTYPE)
        z = torch.cartesian_prod(side, side)
        exact = model.log_joint(x, z.unsqueeze(1).expand(-1, len(x), -1)).logsumexp(0) + 2 * math.log(12 / 160)
    importance = log_marginal(model, x, 1000, proposal=from_chain(model, draws=100))
    assert abs(float((importance.log_px - exact).mean())) < 0.05
    paper = log_marginal_hmc(
        model, x, 100, ChainSettings(burn_in=50)
    )  # too high in expectation: one kernel width for all modes
    assert -0.05 < float((paper.log_px - exact).mean()) < 0.3


class Folded(nn.Module):
    """p(x|z) = N(z ⊙ z, 4 I): even in each latent."""

    def forward(self, z: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Independent(torch.distributions.Normal(z.square(), torch.full_like(z, 2.0)), 1)


def test_each_row_of_a_batch_meets_its_own_chain() -> None:
    """Whatever the order of the batch: the loss is -mean_B log p(x_n, z_n) at the chains of its rows."""
    o = oracle()
    model, x, em, _ = chains(o, 40, 5)
    rows = torch.arange(39, -1, -3)
    loss, _ = em(model, take(x, rows), 1)  # no E-step at step 1
    paired = model.log_joint(x, em.z.unsqueeze(0))[0, rows].mean()
    assert float(loss.detach()) == pytest.approx(-float(paired.detach()), rel=1e-12)
