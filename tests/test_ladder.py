"""Ladders: against a linear-Gaussian model of two layers, and what holds of any."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import close
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from typer.testing import CliRunner

import aevb
from aevb.apps.cli import app
from aevb.data.sources import load_data
from aevb.errors import DataError, RecipeError, ShapeError
from aevb.models.rungs import Climb, ImageRung, PreciseRung, TopRung
from aevb.runs.recipe import Recipe

DTYPE = torch.float64
R, S, C = 0.7, 0.6, 1.3  # spreads of p(z_1|z_2) and p(x|z_1), length of the columns of W


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    torch.manual_seed(0)


def fixed(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], len(weight), dtype=DTYPE)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def columns(n: int, d: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, d, generator=g, dtype=DTYPE)).Q


V, W = columns(3, 2, 0) * torch.tensor([0.8, 1.5], dtype=DTYPE), columns(5, 3, 1) * C


def oracle(shift: float = 0.0) -> aevb.Ladder:
    """p(z_2) = N(0, I), p(z_1|z_2) = N(V z_2, R² I), p(x|z_1) = N(W z_1, S² I), and its exact posterior as a ladder.

    With W = C times orthonormal columns, p(x|z_1) ∝ N(z_1; Wᵀx/C², S²/C²), so p(z_1|z_2, x) is the product of that and
    p(z_1|z_2); and given z_2, Wᵀx/C² is N(V z_2, R² + S²/C²), from which p(z_2|x) follows. The mean is off by `shift`.
    """
    noise = R**2 + S**2 / C**2
    v = noise / (noise + V.square().sum(0))
    low, high = W.T / C**2, v[:, None] * V.T @ W.T / C**2 / noise
    head_1 = fixed(torch.cat([low, 0 * low]), torch.cat([torch.zeros(3), torch.full((3,), math.log(S**2 / C**2))]))
    head_2 = fixed(torch.cat([high, 0 * high]), torch.cat([torch.full((2,), shift), v.log()]))
    down = fixed(torch.cat([V, 0 * V]), torch.cat([torch.zeros(3), torch.full((3,), math.log(R**2))]))
    decoder = aevb.Conditional(fixed(W, torch.zeros(5)), aevb.Normal(5, scale=S))
    up = Climb([nn.Identity(), nn.Identity()], [head_1, head_2])
    return aevb.Ladder(up, [TopRung(2), PreciseRung(down, 3)], torch.zeros(1, 0), decoder).double()


EVIDENCE = MultivariateNormal(
    torch.zeros(5, dtype=DTYPE),
    W @ (V @ V.T + R**2 * torch.eye(3, dtype=DTYPE)) @ W.T + S**2 * torch.eye(5, dtype=DTYPE),
)
with torch.random.fork_rng():
    torch.manual_seed(1)
    X = EVIDENCE.sample(torch.Size((30,)))
LOG_PX = EVIDENCE.log_prob(X)


def test_annealing_knows_the_evidence() -> None:
    """From the exact posterior log w is log p(x), as nothing changes on the way; else E[p̂] = p(x) and E[1/p̂] = 1/p(x)."""
    model = oracle()
    annealed = aevb.log_marginal_ais(model, X, 2, aevb.Annealing(5, 2, model.posterior))
    torch.testing.assert_close(annealed.log_px, LOG_PX)
    b = aevb.bidirectional(oracle(0.5), 200, 4, aevb.Annealing(40, 4))
    for ratio in (torch.exp(b.lower.log_px - EVIDENCE.log_prob(b.x)), torch.exp(EVIDENCE.log_prob(b.x) - b.upper.log_px)):
        close(ratio.mean(), torch.ones(()).double(), ratio.std() / math.sqrt(200))
        assert float(ratio.std()) < 1


def vectors(size: int = 8) -> aevb.Ladder:
    shape = (1, size, size)
    return aevb.vector_ladder(shape, aevb.Bernoulli(shape), (5, 4, 3), (16, 12, 8), nn.Tanh).double()


def images(size: int = 8) -> aevb.Ladder:
    """Moved away from its start, where p = N(0, I)."""
    shape = (1, size, size)
    model = aevb.image_ladder(shape, aevb.Bernoulli(shape), (1, 1, 2), width=8, channels=2).double()
    with torch.no_grad():
        for p in model.rungs.parameters():
            p += 0.05 * torch.randn_like(p)
    return model


MODELS = {"vectors": vectors, "images": images}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
Make = Callable[..., aevb.Ladder]


def pictures(n: int = 6, size: int = 8) -> Tensor:
    return (torch.rand(n, 1, size, size, dtype=DTYPE) < 0.4).double()


def gradient(of: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(of.parameters()))])


# The oracle


def test_log_weights_are_the_evidence_at_the_exact_posterior() -> None:
    """Which holds only if the product of two normals is right, and the layers above are those that were drawn."""
    model = oracle()
    torch.testing.assert_close(model.trace(X, 20).log_w, LOG_PX.expand(20, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(aevb.log_marginal(model, X, 3, memory=40).log_px, LOG_PX, atol=1e-5, rtol=0)
    assert (oracle(shift=0.3).trace(X, 20).log_w - LOG_PX).abs().max() > 0.1


def test_path_gradients_vanish_at_the_exact_posterior() -> None:
    model = oracle()
    stuck = gradient(model.up, model.trace(X, 3, stick=True).log_w.mean())
    plain = gradient(model.up, model.trace(X, 3).log_w.mean())
    assert stuck.abs().max() < 1e-5
    assert plain.abs().max() > 1e-2


def test_sticking_keeps_the_expected_gradient() -> None:
    """In all parameters: those of p(z_1|z_2) are in q(z_1|z_2, x) too."""
    model = oracle(shift=0.3)
    objectives = aevb.ELBO("A"), aevb.ImportanceWeighted(1, gradient="stl")
    a, b = (torch.stack([gradient(model, o(model, X[:5], 0)[0]) for _ in range(200)]) for o in objectives)
    close(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / 200).sqrt().clamp(min=1e-9))


def test_draws_of_the_prior_have_its_moments() -> None:
    z_1, z_2 = oracle().sample_latent(20_000)
    found = torch.cat([z_1, z_2], -1).T.cov()
    marginal = V @ V.T + R**2 * torch.eye(3, dtype=DTYPE)
    expected = torch.cat([torch.cat([marginal, V], 1), torch.cat([V.T, torch.eye(2, dtype=DTYPE)], 1)])
    d = expected.diagonal()
    close(found, expected, ((d[:, None] * d + expected.square()) / 20_000).sqrt())


# Any ladder


@each_model
def test_log_weights_are_joint_less_posterior(make: Make) -> None:
    """Each by a pass of its own."""
    model, x = make(), pictures()
    t = model.trace(x, 4)
    torch.testing.assert_close(t.log_w, model.log_joint(x, t.z) - model.log_posterior(x, t.z))
    torch.testing.assert_close(t.log_px, model.decode(t.z).log_prob(x))
    assert t.log_w.shape == (4, 6)


@each_model
def test_the_kl_of_each_layer_is_the_mean_log_ratio(make: Make) -> None:
    model, x = make(), pictures(2)
    t = model.trace(x, 1)
    assert t.kl.shape == (2, len(t.z))
    differences = []
    for _ in range(100):
        q = model.posterior(x)
        z = q.rsample((20,))
        found = q.at(z)
        flat = [z_l.flatten(0, 1) for z_l in z]
        ratio = torch.stack([a.log_prob(y) - b.log_prob(y) for a, b, y in zip(found.q, found.p, flat, strict=True)], -1)
        kl = torch.stack([torch.distributions.kl_divergence(a, b) for a, b in zip(found.q, found.p, strict=True)], -1)
        differences.append((ratio - kl).detach().unflatten(0, (20, 2)).mean(0))
    d = torch.stack(differences)
    close(d.mean(0), torch.zeros_like(d[0]), d.std(0) / math.sqrt(100))
    torch.manual_seed(1)
    t = model.trace(x, 3)
    whole = aevb.ELBO(free_bits=0.5).of(t, 0)[0] + t.log_px.mean()
    torch.testing.assert_close(whole, torch.stack([max(g, g.new_tensor(0.5)) for g in t.kl.mean(0)]).sum())


def test_balance_by_hand() -> None:
    """γ ∝ (0.01 + |KL_g|) / D_g of mean 1; no gradient goes through it, and at the end of its schedule it is gone."""
    model, x = vectors(), pictures()
    objective = aevb.ELBO(balance=aevb.Linear(1.0, 0.0, 10), beta=0.5)
    t = model.trace(x, 2)
    kl = t.kl.mean(0)
    a = (kl.detach() + 0.01) / torch.tensor([5.0, 4.0, 3.0])
    weights = a / a.sum() * 3
    torch.testing.assert_close(objective.shares(t, 0), weights)
    assert (weights - 1).abs().max() > 0.1
    loss, info = objective.of(t, 0)
    expected = 0.5 * (weights * kl).sum() - t.log_px.mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(info["elbo"], t.log_px.mean() - kl.sum())
    found, by_hand = (torch.autograd.grad(v, list(model.up.parameters()), retain_graph=True) for v in (loss, expected))
    torch.testing.assert_close(found, by_hand)
    half = a.sqrt() / a.sqrt().mean()
    torch.testing.assert_close(objective.shares(t, torch.tensor(5)), half)
    for step in (10, torch.tensor(10), 99):
        torch.testing.assert_close(objective.of(t, step)[0], aevb.ELBO(beta=0.5).of(t, step)[0])
    free = aevb.ELBO(balance=1.0, free_bits=1.0).of(t, 0)[0]
    torch.testing.assert_close(free, (weights * kl.clamp(min=1.0)).sum() - t.log_px.mean())
    for wrong in ({"balance": -1.0}, {"balance": 1.0, "estimator": "A"}, {"balance": 1.0, "capacity": 2.0}):
        with pytest.raises(ValueError, match="balance ≥ 0, with estimator 'B' and no capacity"):
            aevb.ELBO(**wrong)


def switched_off(model: aevb.Ladder) -> aevb.Ladder:
    """Nothing of x reaches q: it is p."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for i, rung in enumerate(model.rungs):
            if isinstance(rung, ImageRung):
                width, phi = rung.back.out_channels, 2 * rung.shape[0]
                for ours, its in zip(rung.q, rung.p, strict=True):
                    if isinstance(ours, nn.Conv2d):
                        ours.weight.zero_()[:, :width] = its.weight[: len(ours.weight)]
                        ours.bias.copy_(its.bias[: len(ours.bias)])
                assert rung.q[-1].out_channels == phi
            else:
                head = model.up.heads[len(model.rungs) - 1 - i]
                head.weight.zero_()
                head.bias.copy_(torch.tensor([0.0, 0.0 if i == 0 else 20.0]).repeat_interleave(len(head.bias) // 2))
    return model


@each_model
def test_without_the_pass_up_the_posterior_is_the_prior(make: Make) -> None:
    on = make()
    model, x = switched_off(on), pictures()
    kl = model.trace(x, 50).kl
    torch.testing.assert_close(kl, torch.zeros_like(kl), atol=1e-6, rtol=0)
    assert on.trace(x, 50).kl.max() > 1e-2
    prior = model.sample_latent(2000)
    posterior = model.posterior(x[:1]).sample((2000,))
    for p, q in zip(prior, posterior, strict=True):
        a, b = p.flatten(1), q.flatten(1)
        close(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / 2000).sqrt())
        a, b = (a - a.mean(0)).square(), (b - b.mean(0)).square()
        close(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / 2000).sqrt())


@each_model
def test_more_samples_give_tighter_bounds(make: Make) -> None:
    model, x = make(), pictures(4)
    log_w = model.trace(x, 1000).log_w.detach()
    bounds = [aevb.ImportanceWeighted(k).bound(log_w.unflatten(0, (k, -1)), 1).mean() for k in (1, 5, 50)]
    assert bounds[0] < bounds[1] < bounds[2]


@each_model
def test_data_points_do_not_know_each_other(make: Make) -> None:
    model, x = make(), pictures()
    t = model.trace(x, 3)
    alone = [model.log_joint(x[i : i + 1], tuple(z[:, i : i + 1] for z in t.z)) for i in range(len(x))]
    torch.testing.assert_close(model.log_joint(x, t.z), torch.cat(alone, 1))
    codes = [model.encode(x[i : i + 1]) for i in range(len(x))]
    for whole, parts in zip(model.encode(x), zip(*codes, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts))
    assert all(torch.equal(a, b) for a, b in zip(model.encode(x), model.encode(x), strict=True))


@each_model
def test_what_wake_and_sleep_would_train(make: Make) -> None:
    """No gradient of log p(x, z) reaches the pass up, none of log q(z|x̃) the decoder; but it reaches what p(z) is made of.

    So recipes refuse wake-sleep for a ladder.
    """
    model, x = make(), pictures()
    z = model.posterior(x).sample((2,))

    def moves(value: Tensor) -> set[str]:
        names, parameters = zip(*model.named_parameters(), strict=True)
        found = torch.autograd.grad(value.mean(), parameters, allow_unused=True)
        return {name for name, g in zip(names, found, strict=True) if g is not None and g.any()}

    joint, posterior, prior = (
        moves(f) for f in (model.log_joint(x, z), model.log_posterior(x, z), model.prior().log_prob(z))
    )
    assert {name.partition(".")[0] for name in joint} == {"rungs", "decoder"}
    assert {name.partition(".")[0] for name in posterior} == {"up", "rungs"}
    assert prior & posterior


@pytest.mark.parametrize("size", [8, 28, 32])
def test_image_ladders_of_any_size(size: int) -> None:
    shape = (1, size, size)
    model = aevb.image_ladder(shape, aevb.DiscretizedLogistic(shape), (1, 2, 2, 1), width=8)
    sides = [z.shape[-1] for z in model.sample_latent(2)]
    half = [math.ceil(size / 2**i) for i in range(4)]
    assert sides == [half[0], half[1], half[1], half[2], half[2], half[3]]
    x = torch.rand(3, *shape)
    t = model.trace(x)
    assert model.decode(t.z).mean.shape == (1, 3, *shape)
    assert torch.equal(model.prior().at(t.z).p[0].mean, torch.zeros_like(t.z[0][0]))  # p starts at N(0, I)


@pytest.mark.slow
def test_a_compiled_ladder_is_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    x, begun, learners = pictures(20), vectors(), []
    for compiled in (False, True):
        settings = aevb.Training(batch=10, samples=80, compile=compiled)
        learners.append(aevb.Learner(copy.deepcopy(begun), aevb.ELBO(samples=2), settings, len(x)))
        for _ in aevb.train(learners[-1].model, learners[-1].objective, x, learner=learners[-1]):
            pass
    assert learners[1].fused not in (None, learners[1].plain_update)
    for a, b in zip(learners[0].parameters(), learners[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


# What is refused


def test_refusals() -> None:
    model, x = vectors(), pictures()
    with pytest.raises(DataError, match="Ladder: takes no contexts"):
        model.trace(x, given=torch.zeros(6, 2))
    with pytest.raises(ShapeError, match="latents are a tuple"):
        model.decode(torch.zeros(6, 5))
    with pytest.raises(ValueError, match="'dreg' is biased where z is a hierarchy"):
        aevb.ImportanceWeighted(3, gradient="dreg")(model, x, 0)
    with pytest.raises(ShapeError, match="surgery needs latents that are one tensor"):
        aevb.surgery(model, x)
    with pytest.raises(ShapeError, match="as many latents as hidden widths"):
        aevb.vector_ladder(64, aevb.Bernoulli(64), (3, 2), (8,))
    with pytest.raises(ShapeError, match="built for images"):
        images()(pictures(size=9))


MISTAKES = {
    "latent=3": r"latent: a \[ladder\] has its own latents and networks",
    "context.classes=10": r"context: a \[ladder\] has its own",
    "ladder.latens=[3]": r"ladder \(mlp\): there is no 'latens'\. Did you mean 'latents'",
    "ladder.latents=[3]": r"ladder \(mlp\): as many latents as hidden widths",
    "terms=[{type='mmd'}]": r"terms: they compare codes that are one tensor; a ladder's",
    "objective=monte-carlo-em": r"ladder: not with",
    "objective=m2": r"ladder: not with the objective m2, as a ladder takes no labels",
    "objective=wake-sleep": r"ladder: not with the objective wake-sleep, as q\(z\|x\) and p\(z\) walk .* Take another",
}


@pytest.mark.parametrize("assignment", MISTAKES)
def test_a_mistake_is_told_where_it_is(assignment: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=MISTAKES[assignment]):
        aevb.fit(Recipe.load("lvae").override([assignment]), load_data("digits", values="dynamic"), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_every_verb_takes_a_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def aevb_(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception!r}"
        return str(result.output)

    small = ["--set", "ladder.latents=[4, 3]", "--set", "ladder.hidden=[8, 8]"]
    assert "of 7" in aevb_("train", "digits", "--recipe", "lvae", "--samples", "200", "--out", "run", "--no-figures", *small)
    assert "layers side by side: 4 + 3 numbers" in aevb_("encode", "run", "--out", "codes.npy")
    aevb_("decode", "codes.npy", "--run", "run", "--out", "decoded.npy")
    aevb_("reconstruct", "run", "-n", "9", "--out", "reconstructed.npy")
    np.testing.assert_allclose(np.load("decoded.npy")[:9], np.load("reconstructed.npy"), atol=1e-6)
    for verb in ("sample", "interpolate", "traverse"):
        aevb_(verb, "run", "--out", f"{verb}.png")
    monkeypatch.setenv("AEVB_RUNS", str(tmp_path))
    assert "4 + 3" in aevb_("runs")
