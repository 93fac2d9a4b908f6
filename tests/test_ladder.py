"""Ladders: against a linear-Gaussian model of two layers, and what holds of any."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from aevb.objectives.bounds import shares
from aevb.probability.joint import split_layers
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
    """From the exact posterior log w is log p(x), as nothing changes on the way; else E[p̂] = p(x) and E[1/p̂] =
    1/p(x)."""
    model = oracle()
    annealed = aevb.log_marginal_ais(model, X, 2, aevb.Annealing(5, 2, model.posterior))
    torch.testing.assert_close(annealed.log_px, LOG_PX)
    b = aevb.bidirectional(oracle(0.5), 200, 4, aevb.Annealing(60, 4))
    for ratio in (
        torch.exp(b.lower.log_px - EVIDENCE.log_prob(b.x)),
        torch.exp(EVIDENCE.log_prob(b.x) - b.upper.log_px),
    ):
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
    x = X[:5].repeat(10, 1)
    a, b = (torch.stack([gradient(model, o(model, x, 0)[0]) for _ in range(40)]) for o in objectives)
    close(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / 40).sqrt().clamp(min=1e-9))


def test_draws_of_the_prior_have_its_moments() -> None:
    found = oracle().sample_latent(20_000).T.cov()
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
    assert t.kl.shape == (2, len(model.shapes))
    differences = []
    for _ in range(100):
        q = model.posterior(x)
        z = q.rsample((20,))
        found = q.at(z)
        flat = [z_l.flatten(0, 1) for z_l in split_layers(z, model.shapes)]
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
    torch.testing.assert_close(shares(t, 1.0), weights)
    assert (weights - 1).abs().max() > 0.1
    loss, info = objective.of(t, 0)
    expected = 0.5 * (weights * kl).sum() - t.log_px.mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(info["elbo"], t.log_px.mean() - kl.sum())
    found, by_hand = (torch.autograd.grad(v, list(model.up.parameters()), retain_graph=True) for v in (loss, expected))
    torch.testing.assert_close(found, by_hand)
    half = a.sqrt() / a.sqrt().mean()
    torch.testing.assert_close(shares(t, 0.5), half)
    torch.testing.assert_close(objective.of(t, torch.tensor(5))[0], 0.5 * (half * kl).sum() - t.log_px.mean())
    for step in (10, torch.tensor(10), 99):
        torch.testing.assert_close(objective.of(t, step)[0], aevb.ELBO(beta=0.5).of(t, step)[0])
    free = aevb.ELBO(balance=1.0, free_bits=1.0).of(t, 0)[0]
    torch.testing.assert_close(free, (weights * kl.clamp(min=1.0)).sum() - t.log_px.mean())
    wrong: dict[str, dict[str, Any]] = {
        "balance must be at least 0; got -1": {"balance": -1.0},
        "balance excludes estimator = 'A': only estimator 'B' has a KL for each group": {
            "balance": 1.0,
            "estimator": "A",
        },
        "capacity excludes balance: .* Leave one of them out": {"balance": 1.0, "capacity": 2.0},
    }
    for words, settings in wrong.items():
        with pytest.raises(ValueError, match=words):
            aevb.ELBO(**settings)


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
    a, b = prior, posterior.squeeze(1)
    close(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / 2000).sqrt())
    a, b = (a - a.mean(0)).square(), (b - b.mean(0)).square()
    close(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / 2000).sqrt())


@each_model
def test_data_points_do_not_know_each_other(make: Make) -> None:
    model, x = make(), pictures()
    t = model.trace(x, 3)
    alone = [model.log_joint(x[i : i + 1], t.z[:, i : i + 1]) for i in range(len(x))]
    torch.testing.assert_close(model.log_joint(x, t.z), torch.cat(alone, 1))
    codes = [model.encode(x[i : i + 1]) for i in range(len(x))]
    torch.testing.assert_close(model.encode(x), torch.cat(codes))
    assert torch.equal(model.encode(x), model.encode(x))
    pairs = model.posterior(x).log_prob(t.z[0].unsqueeze(1))  # (M, B), each draw under each posterior
    each = [model.log_posterior(x[i : i + 1], t.z[0].unsqueeze(1)) for i in range(len(x))]
    torch.testing.assert_close(pairs, torch.cat(each, 1))


@each_model
def test_the_density_of_a_vector_is_the_product_over_its_layers(make: Make) -> None:
    model = make()
    t = model.trace(pictures(), 3)
    layers = split_layers(t.z, model.shapes)
    for p in (t.q, t.p):
        found = [
            p_l.log_prob(z_l.flatten(0, 1)).unflatten(0, (3, 6))
            for p_l, z_l in zip(p.conditionals(t.z), layers, strict=True)
        ]
        torch.testing.assert_close(p.log_prob(t.z), sum(found))
        torch.testing.assert_close(torch.stack(p.log_probs(t.z)), torch.stack(found))
        assert p.event_shape == model.latent_shape == t.z.shape[2:]


@each_model
def test_what_wake_and_sleep_would_train(make: Make) -> None:
    """No gradient of log p(x, z) reaches the pass up, none of log q(z|x̃) the decoder; but it reaches what p(z) is made
    of.

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
    sides = [z.shape[-1] for z in split_layers(model.sample_latent(2), model.shapes)]
    half = [math.ceil(size / 2**i) for i in range(4)]
    assert sides == [half[0], half[1], half[1], half[2], half[2], half[3]]
    x = torch.rand(3, *shape)
    t = model.trace(x)
    assert model.decode(t.z).mean.shape == (1, 3, *shape)
    z = split_layers(t.z[0], model.shapes)[0]
    assert torch.equal(model.prior().at(t.z).p[0].mean, torch.zeros_like(z))  # p starts at N(0, I)


@pytest.mark.slow
def test_a_compiled_ladder_is_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_, functions = torch.compile, []

    def compiling(function: Any) -> Any:
        functions.append(function)
        return compile_(function, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compiling)
    x, begun, learners = pictures(20), vectors(), []
    for compiled in (False, True):
        settings = aevb.Training(batch=10, samples=80, compile=compiled)
        learners.append(aevb.Learner(copy.deepcopy(begun), aevb.ELBO(samples=2), settings, len(x)))
        for _ in aevb.continue_training(learners[-1], x):
            pass
    assert len(functions) == 1
    for a, b in zip(learners[0].parameters(), learners[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


# What is refused


def test_refusals() -> None:
    model, x = vectors(), pictures()
    with pytest.raises(DataError, match="Ladder: contexts are not supported"):
        model.trace(aevb.Batch(x, torch.zeros(6, 2)))
    for wrong in (torch.zeros(6, 11), torch.zeros(6, 13)):
        with pytest.raises(ShapeError, match=r"z has 12 numbers, \(5,\) \+ \(4,\) \+ \(3,\); got 1[13]"):
            model.decode(wrong)
    with pytest.raises(
        RecipeError, match=r"hierarchy gives no single layer of latents, which .*importance-weighted requires"
    ):
        aevb.ImportanceWeighted(3, gradient="dreg")(model, x, 0)
    with pytest.raises(RecipeError, match=r"ladder gives no weights for q\(z\|x\) alone, which fit_prior requires"):
        aevb.fit_prior(model, x)
    with pytest.raises(ShapeError, match="as many latents as hidden widths"):
        aevb.vector_ladder(64, aevb.Bernoulli(64), (3, 2), (8,))
    with pytest.raises(ShapeError, match="built for images"):
        images()(pictures(size=9))


POSSIBLE = r"Choose the objective elbo, full-bayes, importance-weighted\."
MISTAKES = {
    "latent=3": r"latent: a \[ladder\] defines its own latents and networks, without labels\. Remove latent",
    "context.classes=10": r"context: a \[ladder\] defines its own latents and networks, without labels\. Remove "
    r"context",
    "ladder.latens=[3]": r"ladder \(mlp\): there is no 'latens'\. Did you mean 'latents'",
    "ladder.latents=[3]": r"ladder \(mlp\): as many latents as hidden widths",
    "terms=[{type='dip'}]": r"ladder gives no single layer .* which the term dip requires\. Choose the term mmd,",
    "objective=monte-carlo-em": rf"ladder gives no single layer .* monte-carlo-em requires\. {POSSIBLE}",
    "objective=m2": rf"ladder gives no way to be conditioned on labels, which the objective m2 requires\. {POSSIBLE}",
    "objective=wake-sleep": rf"ladder gives no weights for q\(z\|x\) alone, .* wake-sleep requires\. {POSSIBLE}",
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
    assert "of 7" in aevb_(
        "train", "digits", "--recipe", "lvae", "--samples", "200", "--out", "run", "--no-figures", *small
    )
    assert "layers side by side: 4 + 3 numbers" in aevb_("encode", "run", "--out", "codes.npy")
    aevb_("decode", "codes.npy", "--run", "run", "--out", "decoded.npy")
    aevb_("reconstruct", "run", "-n", "9", "--out", "reconstructed.npy")
    np.testing.assert_allclose(np.load("decoded.npy")[:9], np.load("reconstructed.npy"), atol=1e-6)
    for verb in ("sample", "interpolate", "traverse"):
        aevb_(verb, "run", "--out", f"{verb}.png")
    monkeypatch.setenv("AEVB_RUNS", str(tmp_path))
    assert "4 + 3" in aevb_("runs")


# What a trace holds


@each_model
def test_the_kl_of_a_trace_is_that_of_q_from_p_at_its_own_draws(make: Make) -> None:
    """KL(q(z_l|z_>l, x) ‖ p(z_l|z_>l)), the mean over K draws of the layers above."""
    model, x = make(), pictures()
    t = model.trace(x, 4)
    layers = zip(t.q.conditionals(t.z), t.p.conditionals(t.z), strict=True)
    each = torch.stack([torch.distributions.kl_divergence(q, p) for q, p in layers], -1)
    torch.testing.assert_close(t.kl, each.unflatten(0, (4, 6)).mean(0))


def test_the_kl_of_a_trace_is_the_mean_log_ratio() -> None:
    """On the oracle, at a posterior that is not the exact one: Σ_l KL_l and mean log q - log p have one expectation."""
    model = oracle(shift=0.7)
    differences = []
    for _ in range(60):
        t = model.trace(X, 50)
        differences.append((t.kl.sum(-1) - (t.log_qz - t.p.log_prob(t.z)).mean(0)).detach())
    d = torch.stack(differences).mean(1)
    close(d.mean(), torch.zeros(()).double(), d.std() / math.sqrt(60))
    assert float(d.std()) / math.sqrt(60) < 0.01


@each_model
def test_a_draw_without_gradients_is_scored_with_them(make: Make) -> None:
    """log q(z|x) of z from `sample` has the gradient of a pass of its own, which is what VIMCO follows."""
    model, x = make(), pictures()
    q = model.posterior(x)
    z = q.sample(torch.Size((3,)))
    found = gradient(model.up, q.log_prob(z).sum())
    torch.testing.assert_close(found, gradient(model.up, model.log_posterior(x, z).sum()))
    assert found.abs().max() > 1e-2


def test_vimco_and_plain_share_their_expected_gradient() -> None:
    model, n, x = oracle(shift=0.3), 40, X[:5].repeat(10, 1)
    objectives = aevb.ImportanceWeighted(3), aevb.ImportanceWeighted(3, gradient="vimco")
    a, b = (torch.stack([gradient(model, o(model, x, 0)[0]) for _ in range(n)]) for o in objectives)
    close(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / n).sqrt().clamp(min=1e-9))
    assert a.mean(0).abs().max() > 0.1


def test_what_an_image_rung_adds_to_the_state_without_a_latent() -> None:
    """(φ_p, r) = f_p(h), h ← h + r: the prior and the deterministic path come from one network."""
    rung = ImageRung(width=6, channels=2, size=(4, 4), enlarge=False, depth=3).double()
    with torch.no_grad():
        for p in rung.p[-1].parameters():
            p.normal_()
    h = torch.randn(5, 6, 4, 4, dtype=DTYPE)
    p, q, after = rung.meet(h, None)
    phi, r = rung.p(h).split([4, 6], 1)
    torch.testing.assert_close(after, h + r)
    torch.testing.assert_close(p.mean, phi[:, :2])
    assert q is None
    assert r.abs().min() > 0


def test_residual_blocks_start_smaller_in_a_deeper_ladder() -> None:
    """Those on the way up 1/√(sizes) as large as PyTorch's own start, U(±1/√fan), those on the way down 1/√L."""
    shape, width = (1, 16, 16), 64
    model = aevb.image_ladder(shape, aevb.Bernoulli(shape), (1, 3, 0, 1), width=width, channels=2)
    up = [block[-1].weight for block in model.up.blocks]
    down = [rung.block[-1].weight for rung in model.rungs]
    for weights, depth in ((up, 4), (down, 5)):
        assert len(weights) == depth
        for w in weights:
            bound = 1 / math.sqrt(width // 2) / math.sqrt(depth)
            assert 0.98 * bound < float(w.abs().max().detach()) <= bound * (1 + 1e-6)
    for rung in model.rungs:
        bound = 1 / math.sqrt(2) / math.sqrt(5)
        assert 0.9 * bound < float(rung.back.weight.abs().max().detach()) <= bound * (1 + 1e-6)


def test_the_way_of_a_state_through_an_image_rung_by_hand() -> None:
    """Enlarged to the rung's size and moved by its offset; then h ← h + V z, h ← h + f(h)."""
    rung = ImageRung(width=6, channels=2, size=(4, 4), enlarge=True, depth=3).double()
    with torch.no_grad():
        for p in rung.parameters():
            p.normal_(std=0.3)
    h, feature, z = (torch.randn(5, *shape, dtype=DTYPE) for shape in ((6, 2, 2), (6, 4, 4), (2, 4, 4)))
    large = h.repeat_interleave(2, 2).repeat_interleave(2, 3) + rung.offset
    p, q, after = rung.meet(h, feature)
    phi, r = rung.p(large).split([4, 6], 1)
    torch.testing.assert_close(after, large + r)
    torch.testing.assert_close(p.mean, phi[:, :2])
    assert q is not None
    torch.testing.assert_close(q.mean, rung.q(torch.cat([large, feature], 1))[:, :2])
    known = after + rung.back(z)
    torch.testing.assert_close(rung.carry(after, z), known + rung.block(known))


def test_the_features_of_an_image_are_residual_blocks_at_each_size() -> None:
    """The first at the image's own size, then means over 2 × 2 pixels; the top rung's feature stands first."""
    shape = (1, 8, 8)
    model, x = aevb.image_ladder(shape, aevb.Bernoulli(shape), (1, 2), width=8, channels=2).double(), pictures(3)
    up = model.up
    large = up.first(x)
    large = large + up.blocks[0](large)
    small = large.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    small = small + up.blocks[1](small)
    for found, expected in zip(up(x), (small, small, large), strict=True):
        torch.testing.assert_close(found, expected)
