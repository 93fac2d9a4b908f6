"""Codes: one-hot, relaxed, of a codebook, of a grid. By enumeration, by hand and by quadrature."""

from __future__ import annotations

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent

import aevb
from aevb.data.sources import load_data
from aevb.errors import AevbError, RecipeError, ShapeError
from aevb.evidence.support import NoLikelihood
from aevb.models.compat import check_model
from aevb.objectives import schedules
from aevb.probability.codes import (
    FSQ,
    VQ,
    Concrete,
    OneHot,
    Quantized,
    Relaxed,
    UniformCodes,
    likeliest,
    perplexity,
    usage,
)
from aevb.runs.build import build_model, build_objective
from aevb.runs.fit import fit, resume
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

G, C, X = 2, 3, 5  # choices, classes, numbers of a data point


def one_hots() -> Tensor:
    """All C^G codes, (C^G, G, C), in float64."""
    rows = torch.tensor(list(itertools.product(range(C), repeat=G)))
    return nn.functional.one_hot(rows, C).double()


def coded(family: aevb.Family, prior: type[nn.Module] = aevb.UniformOverCodes) -> aevb.VAE:
    torch.manual_seed(0)
    encoder = aevb.Conditional(nn.Linear(X, family.size), family)
    decoder = aevb.Conditional(aevb.MLP(tuple(family.shape), X, hidden=[8]), aevb.Bernoulli(X))
    return aevb.VAE(prior(encoder), encoder, decoder).double()


def binary(rows: int, seed: int = 1) -> Tensor:
    return (torch.rand(rows, X, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < 0.4).double()


def exact(model: aevb.VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """log w (C^G, B) and q(z|x) (C^G, B) at every code."""
    z = one_hots().unsqueeze(1).expand(-1, len(x), -1, -1)
    log_q = model.posterior(x).log_prob(z)
    return model.log_joint(x, z) - log_q, log_q.exp()


# One-hot: everything can be enumerated


def test_the_bound_and_the_evidence_are_those_of_enumeration() -> None:
    model, x = coded(OneHot((G, C))), binary(4)
    with torch.no_grad():
        log_w, q = exact(model, x)
        t = model.trace(x, 4000)
    torch.testing.assert_close(q.sum(0), torch.ones(4, dtype=torch.float64))
    elbo, error = (q * log_w).sum(0), t.log_w.std(0) / math.sqrt(4000)
    assert bool(((t.log_w.mean(0) - elbo).abs() < 5 * error).all())
    torch.testing.assert_close((t.kl.sum(-1)), (q * (q.log() + G * math.log(C))).sum(0))
    evidence = (log_w + q.log()).logsumexp(0)  # log Σ_z p(x, z)
    found = aevb.log_marginal(model, x, 4000)
    assert bool(((found.log_px - evidence).abs() < 5 * found.se + 1e-9).all())


def test_vimco_is_unbiased_for_the_gradient_by_enumeration() -> None:
    """∇_φ E log 1/K Σ_k w_k, K = 2, over all C^2G pairs of codes, against the mean of many VIMCO gradients."""
    model, x = coded(OneHot((G, C))), binary(1)
    parameters = list(model.encoder.parameters())
    log_w, q = exact(model, x)
    pairs = (log_w[:, None, 0].logaddexp(log_w[None, :, 0]) - math.log(2)) * q[:, None, 0] * q[None, :, 0]
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-pairs.sum(), parameters)])
    torch.manual_seed(0)
    objective, n = aevb.ImportanceWeighted(2, gradient="vimco"), 250
    rows = []
    for _ in range(n):  # 100 copies of x at once are 100 draws
        loss, _ = objective(model, x.expand(100, X), 0)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    g = torch.stack(rows)
    assert bool(((g.mean(0) - expected).abs() < 5 * g.std(0) / math.sqrt(n) + 1e-12).all())
    assert float(expected.norm()) > 5 * float((g.std(0) / math.sqrt(n)).norm())  # there was something to see


def test_objectives_that_follow_the_draws_are_refused_with_the_reason() -> None:
    model, x = coded(OneHot((G, C))), binary(3)
    for objective in (aevb.ELBO(), aevb.ImportanceWeighted(5)):
        with pytest.raises(
            RecipeError, match=r"one-hot gives no derivative of its draws, .*wake-sleep.*gradient vimco"
        ):
            objective(model, x, 0)
    loss, _ = aevb.WakeSleep(samples=3)(model, x, 0)
    assert bool(loss.isfinite())


def test_a_vector_that_is_no_code_has_no_probability() -> None:
    q = OneHot((1, 3))(torch.zeros(1, 3))
    z = torch.tensor([[[[0.0, 1.0, 0.0]]], [[[0.2, 0.5, 0.3]]]])
    assert q.log_prob(z).flatten().tolist() == pytest.approx([-math.log(3), -math.inf])


# Concrete


@pytest.mark.parametrize("tau", [0.4, 1.0, 2.0])
def test_a_relaxed_choice_integrates_to_one(tau: float) -> None:
    """C = 2 over u = logit z, in which z has the density p(z) z (1 - z)."""
    u = torch.linspace(-60, 60, 24_001, dtype=torch.float64)
    z = torch.stack([u.sigmoid(), (-u).sigmoid()], -1)
    p = Relaxed(torch.tensor(tau, dtype=torch.float64), logits=torch.tensor([0.8, -0.4], dtype=torch.float64))
    mass = (p.log_prob(z).exp() * z.prod(-1)).sum() * (120 / 24_000)
    assert float(mass) == pytest.approx(1, abs=1e-6)


def test_a_relaxed_choice_of_three_integrates_to_one() -> None:
    """Over y = log(z_c / z_3), c = 1, 2, in which it has the density p(z) z_1 z_2 z_3."""
    t = torch.linspace(-50, 50, 1001, dtype=torch.float64)
    y = torch.cartesian_prod(t, t)
    z = torch.cat([y, torch.zeros_like(y[:, :1])], -1).softmax(-1)
    p = Relaxed(torch.tensor(0.9, dtype=torch.float64), logits=torch.tensor([0.5, -0.7, 0.1], dtype=torch.float64))
    mass = (p.log_prob(z.clamp(min=1e-300)).exp() * z.prod(-1)).sum() * 0.1**2
    assert float(mass) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("tau", [0.05, 0.5, 3.0])
def test_the_largest_element_is_the_choice_at_every_temperature(tau: float) -> None:
    torch.manual_seed(0)
    logits = torch.tensor([1.0, -0.5, 0.3])
    z = Relaxed(torch.tensor(tau), logits=logits).rsample(torch.Size((20_000,)))
    torch.testing.assert_close(z.sum(-1), torch.ones(20_000))
    shares = nn.functional.one_hot(z.argmax(-1), 3).double().mean(0)
    p = logits.double().softmax(-1)
    assert bool(((shares - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt()).all())
    if tau == 0.05:  # the limit: all draws are near corners
        assert float(z.amax(-1).mean()) > 0.97


def test_concrete_is_relaxed_in_training_and_one_hot_afterwards() -> None:
    family = Concrete((G, C), temperature=0.7)
    phi = torch.randn(4, G * C, generator=torch.Generator().manual_seed(0))
    relaxed = family(phi)
    family.eval()
    hard = family(phi)
    assert not bool((relaxed.rsample() == 1).any())
    z = hard.sample(torch.Size((50,)))
    assert bool(((z == 0) | (z == 1)).all())
    torch.testing.assert_close(hard.log_prob(z), OneHot((G, C))(phi).log_prob(z))
    torch.testing.assert_close(relaxed.mean, hard.mean)


def test_both_priors_of_concrete() -> None:
    """Relaxed against relaxed: a Monte-Carlo KL, 0 at equal logits. Against one-hot codes: the KL of the choices."""
    torch.manual_seed(0)
    relaxed, usual = coded(Concrete((G, C)), aevb.UniformConcrete), coded(Concrete((G, C)))
    x = binary(3)
    t, u = relaxed.trace(x, 4000), usual.trace(x, 7)
    torch.testing.assert_close(t.kl[:, 0], (t.log_qz - t.log_pz).mean(0))
    logits = usual.encoder.net(x).unflatten(-1, (G, C))
    torch.testing.assert_close(u.kl, (logits.softmax(-1) * (logits.log_softmax(-1) + math.log(C))).sum(-1))
    with torch.no_grad():
        for p in relaxed.encoder.parameters():
            p.zero_()
    torch.testing.assert_close(relaxed.trace(x).kl, torch.zeros(3, 1, dtype=torch.float64))
    for model in (relaxed, usual):  # and afterwards the same
        model.eval()
        with torch.no_grad():
            check_model(model, seen=model.trace(x))
        assert isinstance(model.prior().sample(), Tensor)


def test_the_relaxed_bound_is_below_the_relaxed_evidence() -> None:
    """One choice of two: p(x) = ∫ p(z) p(x|z) dz by quadrature over logit z; more samples of the bound come near to
    it."""
    torch.manual_seed(0)
    model, x = coded(Concrete((1, 2), 0.8), aevb.UniformConcrete), binary(3)
    u = torch.linspace(-50, 50, 4001, dtype=torch.float64)
    z = torch.stack([u.sigmoid(), (-u).sigmoid()], -1)[:, None, None].expand(-1, 3, 1, 2)
    with torch.no_grad():
        evidence = (model.log_joint(x, z) + z[..., 0, :].log().sum(-1) + math.log(100 / 4000)).logsumexp(0)
        t = model.trace(x, 20_000)
    error = 5 * t.log_w.std(0) / math.sqrt(20_000)
    assert bool((t.log_w.mean(0) < evidence + error).all())
    assert bool((((t.log_w - evidence).exp().mean(0) - 1).abs() < 5 * (t.log_w - evidence).exp().std(0) / 141).all())


def test_a_draw_at_a_corner_has_a_finite_density_and_gradient() -> None:
    torch.manual_seed(0)
    phi = (300.0 * torch.randn(50, 12)).requires_grad_()
    q = Concrete((3, 4), 0.1)(phi)
    z = q.rsample(torch.Size((20,)))
    loss = q.log_prob(z).sum() + z.square().sum()
    (g,) = torch.autograd.grad(loss, phi)
    assert bool(loss.isfinite())
    assert bool(g.isfinite().all())


def test_a_draw_for_evaluation_is_moved_inside_of_the_simplex_as_well() -> None:
    torch.manual_seed(0)
    p = Relaxed(torch.tensor(0.667), logits=20 * torch.randn(200, 5))
    z = p.sample(torch.Size((50,)))
    assert bool(p.log_prob(z).isfinite().all())
    torch.manual_seed(0)
    again = Relaxed(torch.tensor(0.667), logits=20 * torch.randn(200, 5).requires_grad_())
    torch.testing.assert_close(again.sample(torch.Size((50,))), z, rtol=0, atol=0)
    assert not again.sample().requires_grad


def test_a_temperature_that_will_not_stay_positive_is_refused_at_once() -> None:
    for ends in (
        schedules.Linear(1.0, 0.0, 5000),
        schedules.Linear(1.0, -0.5, 10**6),
        schedules.Cosine(1.0, 0.0, 5000),
        schedules.Cyclical(1.0, 0.0, 1000),
        schedules.Piecewise([1.0, 0.0], [10**6]),
    ):
        with pytest.raises(ValueError, match=r"must be positive at every step; got -?0\.\d+ at step \d+"):
            Concrete((2, 2), ends)
    for rate in (0.5, 2.0):  # positive for ever, though a float holds it for a while only
        assert float(Concrete((2, 2), schedules.Exponential(1.0, rate, 1000)).temperature) == 1


def test_a_temperature_follows_its_schedule_and_is_saved(tmp_path: Path) -> None:
    changes = ["latent=[3, 4]", "training.samples=800", "encoder.hidden=[8]", "decoder.hidden=[8]"]
    changes += ['posterior.temperature={type="linear",start=1.0,end=0.2,steps=16}']
    recipe, data = Recipe.load("concrete").override(changes), load_data("digits", values="dynamic")
    run = fit(recipe, data, tmp_path / "run")
    assert float(run.model().encoder.family.temperature) == pytest.approx(1 - 0.8 * 7 / 16)  # of step 8, counted from 0
    with pytest.raises(ValueError, match=r"must be positive at every step; got 0\.0"):
        Concrete((2, 2), 0.0)


# VQ


def quantized(q: Any) -> Quantized:
    assert isinstance(q, Independent)
    assert isinstance(q.base_dist, Quantized)
    return q.base_dist


def test_without_memory_the_codebook_takes_the_step_of_k_means() -> None:
    torch.manual_seed(0)
    family, h = VQ((4, 3), codes=5, decay=0.0, restart=0.0).double(), torch.randn(30, 12, dtype=torch.float64)
    before, rows = family.codebook.clone(), h.view(-1, 3)
    q = quantized(family(h))
    nearest = torch.cdist(rows, before).argmin(-1)
    assert torch.equal(q.index.flatten(), nearest)
    assert torch.equal(family.codebook, before)  # a call changes nothing
    family.follow(h)
    for k in range(5):
        own = rows[nearest == k]
        torch.testing.assert_close(family.codebook[k], own.mean(0) if len(own) else before[k])


def test_running_means_by_hand_whatever_the_size_of_the_minibatch() -> None:
    family = VQ((1, 1), codes=2, decay=0.9, restart=0.0).double()
    family.codebook.copy_(torch.tensor([[-1.0], [1.0]]))
    family.follow(torch.tensor([[-2.0], [-4.0], [3.0], [-3.0]], dtype=torch.float64))
    torch.testing.assert_close(family.share, torch.tensor([0.075, 0.025], dtype=torch.float64))
    torch.testing.assert_close(family.codebook, torch.tensor([[-3.0], [3.0]], dtype=torch.float64))
    family.follow(torch.tensor([[5.0], [5.0]], dtype=torch.float64))
    torch.testing.assert_close(family.share, torch.tensor([0.0675, 0.1225], dtype=torch.float64))
    expected = (0.9 * 0.025 * 3 + 0.1 * 5) / 0.1225
    torch.testing.assert_close(family.codebook[1], torch.tensor([expected], dtype=torch.float64))
    twice, once = VQ((1, 1), 2, restart=0.0), VQ((1, 1), 2, restart=0.0)
    twice.load_state_dict(once.state_dict())
    rows = torch.randn(8, 1)
    once.follow(rows)
    twice.follow(rows.repeat(3, 1))
    for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_codes_begin_at_data_and_dead_ones_begin_again() -> None:
    torch.manual_seed(0)
    family, h = VQ((1, 2), codes=4, decay=0.5, restart=0.5), torch.randn(64, 2)
    family.follow(h)
    family.codebook[2], family.share[2], family.total[2] = 1e6, 1e-9, 0.0  # far from all, and not used
    state = {k: v.clone() for k, v in family.state_dict().items()}
    torch.manual_seed(7)
    family.follow(h)
    assert float(family.codebook.abs().max()) < 5
    first = family.codebook.clone()
    for seed, same in ((7, True), (8, False)):
        family.load_state_dict(state)
        torch.manual_seed(seed)
        family.follow(h)
        assert torch.equal(family.codebook, first) == same
    few = VQ((1, 2), codes=4)
    few.follow(h[:3])  # fewer rows than codes
    assert bool(few.codebook.isfinite().all())


@pytest.mark.parametrize("training", [True, False])
def test_only_training_moves_the_codebook(training: bool) -> None:
    """Neither a call, a density nor an evaluation does, in whichever mode; and two passes find the same codes."""
    model, x = coded(VQ((3, 2), codes=8)).train(training), binary(40)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.trace(x)
    assert torch.equal(model.encode(x), model.encode(x))
    loss, _ = aevb.WakeSleep(samples=2, wake=1.0)(model, x, 0)  # passes x through the encoder twice
    assert bool(loss.isfinite())
    a, b = (aevb.evaluate(model, x, seed=seed) for seed in (0, 1))
    assert a.to_dict() == b.to_dict()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_training_lets_the_codebook_learn_once_a_step_from_the_updated_encoder() -> None:
    family, x = VQ((3, 2), codes=4, decay=0.0, restart=0.0), binary(40)
    model, twin = coded(family), VQ((3, 2), codes=4, decay=0.0, restart=0.0).double()
    twin.load_state_dict(family.state_dict())
    for _ in aevb.train(model, aevb.ELBO(), x, aevb.Training(samples=40, batch=40)):
        pass
    assert not torch.equal(family.codebook, twin.codebook)
    twin.follow(model.encoder.net(x).view(-1, 2))
    torch.testing.assert_close(family.codebook, twin.codebook)


@pytest.mark.parametrize("family", [VQ((3, 2), codes=8), FSQ((3, 2), levels=(3, 4))], ids=["vq", "fsq"])
def test_the_gradient_goes_straight_through(family: VQ | FSQ) -> None:
    """∂f(z)/∂h is f's own slope at the code (times tanh's, for a grid), and the value is the code's to the last
    digit."""
    h = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    q = family.double()(h) if isinstance(family, VQ) else family(h)
    z = q.rsample()
    assert torch.equal(z, q.mean)
    weights = torch.randn(z.shape, dtype=torch.float64)
    (g,) = torch.autograd.grad((weights * z**3).sum(), h)
    slope = (3 * weights * q.mean**2).flatten(1)
    expected = slope if isinstance(family, VQ) else slope * (1 - h.tanh() ** 2)
    torch.testing.assert_close(g, expected)


@pytest.mark.parametrize("family", [VQ((3, 2), codes=8), FSQ((3, 2), levels=(3, 4))], ids=["vq", "fsq"])
def test_the_kl_is_the_length_of_the_code(family: VQ | FSQ) -> None:
    model, x = coded(family), binary(5)
    codes = 8 if isinstance(family, VQ) else 12
    for mode in (True, False):
        model.train(mode)
        t = model.trace(x)
        torch.testing.assert_close(t.kl, torch.full((5, 3), math.log(codes), dtype=torch.float64))
        a, _ = aevb.ELBO("A").of(t, 0)
        b, _ = aevb.ELBO("B").of(t, 0)
        torch.testing.assert_close(a, b)


def test_the_bound_of_a_codebook_is_below_the_evidence_by_enumeration() -> None:
    """p(x) = Σ_z p(x|z) / K^L; -ELBO is one of its terms, so a code length of x; and sampling from q says no more."""
    model, x = coded(FSQ((2, 2), levels=(2, 3))), binary(5)
    with torch.no_grad():
        book = model.prior().base_dist.codebook  # type: ignore[attr-defined]
        z = book[torch.cartesian_prod(torch.arange(6), torch.arange(6))]
        evidence = model.log_joint(x, z.unsqueeze(1).expand(-1, 5, -1, -1)).logsumexp(0)
        t = model.trace(x)
        assert bool((t.log_w[0] < evidence).all())
        torch.testing.assert_close(t.log_w[0], t.log_px[0] - 2 * math.log(6))
    with pytest.raises(
        NoLikelihood, match=r"posterior of single codes gives no density q\(z\|x\), which importance sampling requires"
    ):
        aevb.log_marginal(model, x, 10)
    found = aevb.evaluate(model, x)
    assert math.isnan(found.log_likelihood)
    assert found.elbo.known
    assert found.is_likelihood
    with pytest.raises(AevbError, match="no coordinates that move through ℝᴰ, which Hamiltonian Monte Carlo requires"):
        aevb.log_marginal_ais(model, x)


def test_commitment_is_of_one_data_point_whatever_the_size_of_the_minibatch() -> None:
    model, x = coded(VQ((3, 2), codes=8)).eval(), binary(6)
    one = [float(aevb.Commitment()(model.trace(x[i : i + 1])).detach()) for i in range(6)]
    whole = aevb.Commitment()(model.trace(x)).detach()
    assert float(whole) == pytest.approx(sum(one) / 6)
    assert float(aevb.Commitment()(model.trace(x.repeat(5, 1))).detach()) == pytest.approx(float(whole))
    h = model.encoder.net(x).view(6, 3, 2)
    torch.testing.assert_close(whole, (h - model.posterior(x).mean).square().sum((1, 2)).mean())
    with pytest.raises(RecipeError, match=r"no quantised codes, which the term commitment requires.*one of: vq, fsq;"):
        aevb.Regularized(aevb.ELBO(), [aevb.Commitment()])(coded(Concrete((G, C))), x, 0)


def test_the_perplexity_of_equal_use_is_the_number_of_codes() -> None:
    assert float(perplexity(torch.full((1, 7), 1 / 7))) == pytest.approx(7)
    assert float(perplexity(torch.eye(1, 7))) == pytest.approx(1)
    assert float(perplexity(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))) == pytest.approx(1.5)
    grid = FSQ((1, 2), levels=(2, 4))
    used = usage(grid(torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([-2.0, -0.3, 0.3, 2.0]))))
    assert used is not None
    assert torch.equal(used, torch.full((1, 8), 1 / 8))
    assert usage(aevb.Normal(2)(torch.zeros(1, 4))) is None


def test_the_codes_in_use_are_those_that_are_the_likeliest_of_some_x() -> None:
    """Of one-hot codes in two groups, by hand; of a codebook, those that some h is nearest to; a union over batches."""
    logits = torch.tensor([[[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]], [[0.0, 1.0, 0.9], [0.0, 0.0, 1.0]]])
    for family in (OneHot((2, 3)), Concrete((2, 3)), Concrete((2, 3)).eval()):
        found = likeliest(family(logits.flatten(1)))
        assert found is not None
        assert found.tolist() == [[False, True, False], [True, False, True]]
    family, h = FSQ((1, 2), levels=(2, 4)), torch.tensor([[-1.0, -2.0], [1.0, 0.3], [1.0, 0.3]])
    parts = [likeliest(family(rows)) for rows in (h[:1], h[1:])]
    assert (parts[0] | parts[1]).sum(-1).tolist() == [2]  # type: ignore[operator]
    assert likeliest(aevb.Normal(2)(torch.zeros(1, 4))) is None


# FSQ


def test_the_grid_has_the_middles_of_equal_parts() -> None:
    family = FSQ((1, 2), levels=(3, 4))
    u = torch.linspace(-0.999, 0.999, 401, dtype=torch.float64)
    q = family(torch.stack([u.atanh(), u.atanh()], -1))
    z = q.mean[:, 0]
    assert torch.unique(z[:, 0]).tolist() == pytest.approx([-2 / 3, 0, 2 / 3], abs=1e-12)
    assert torch.unique(z[:, 1]).tolist() == pytest.approx([-0.75, -0.25, 0.25, 0.75])
    assert bool(((z - u.unsqueeze(-1)).abs() <= torch.tensor([1 / 3, 1 / 4]) + 1e-9).all())
    p = family.uniform(u).base_dist  # type: ignore[attr-defined]
    assert isinstance(p, UniformCodes)
    codes = {tuple(row) for row in p.codebook.tolist()}
    assert len(codes) == 12
    assert {tuple(row) for row in z.tolist()} <= codes
    index = quantized(q).index[:, 0]
    torch.testing.assert_close(p.codebook[index], z)
    for edge in (-1e4, 1e4):
        assert float(family(torch.full((1, 2), edge)).mean.abs().max()) == 0.75


def test_draws_of_the_uniform_codes_are_uniform() -> None:
    torch.manual_seed(0)
    p = FSQ((2, 1), levels=4).uniform(torch.zeros(1))
    z = p.sample(torch.Size((8000,)))
    assert z.shape == (8000, 2, 1)
    for value in (-0.75, -0.25, 0.25, 0.75):
        assert abs(float((z == value).double().mean()) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 16_000)


# All of them


def test_a_prior_of_codes_asks_for_codes() -> None:
    encoder = aevb.Conditional(nn.Linear(X, 4), aevb.Normal(2))
    decoder = aevb.Conditional(nn.Linear(6, X), aevb.Bernoulli(X))
    words = "posterior normal gives no finite set of codes, which the prior uniform-codes requires"
    with pytest.raises(RecipeError, match=rf"{words}\. Choose one of: one-hot, concrete, vq, fsq;"):
        check_model(aevb.VAE(aevb.UniformOverCodes(encoder), encoder, decoder))
    hard = aevb.Conditional(nn.Linear(X, 6), OneHot((2, 3)))
    words = "posterior one-hot gives no relaxed codes, which the prior uniform-concrete requires"
    with pytest.raises(RecipeError, match=rf"{words}\. Choose one of: concrete;"):
        check_model(aevb.VAE(aevb.UniformConcrete(hard), hard, decoder))
    for family in (OneHot((2, 3)), VQ((2, 3)), FSQ((2, 3))):
        coding = aevb.Conditional(nn.Linear(X, family.size), family)
        words = f"prior standard-normal gives no density on .*, which the posterior {family.word} requires"
        with pytest.raises(RecipeError, match=rf"{words}\. Choose one of: .*uniform-codes"):
            check_model(aevb.VAE(aevb.StandardNormal((2, 3)), coding, decoder))
        check_model(aevb.VAE(aevb.UniformOverCodes(coding), coding, decoder))
    with pytest.raises(ShapeError, match="two sizes, such as latent"):
        VQ(16)
    with pytest.raises(ValueError, match=r"needs as many levels, each at least 2; got \[5, 5\]"):
        FSQ((4, 3), levels=(5, 5))


def test_the_prior_holds_no_second_codebook() -> None:
    model = coded(VQ((3, 2), codes=8))
    assert not model.prior.state_dict()
    model.train()
    model.trace(binary(9))
    assert model.prior().base_dist.codebook is model.encoder.family.codebook  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["vq-vae", "fsq", "concrete", "vimco"])
def test_a_resumed_run_ends_bit_for_bit_as_if_it_had_never_stopped(name: str, tmp_path: Path) -> None:
    changes = ["latent=[3, 4]", "encoder.hidden=[16]", "decoder.hidden=[16]", "training.ema=0.9"]
    recipe = Recipe.load(name).override(changes)
    data = load_data("digits", values=recipe.source().values)
    short, whole = recipe.replace(training__samples=600), recipe.replace(training__samples=1500)
    a = fit(whole, data, tmp_path / "whole")
    fit(short, data, tmp_path / "short")
    b = resume(Run.open(tmp_path / "short"), data, samples=1500)
    left, right = _state(a), _state(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[k], right[k]) for k in left)


def _state(run: Run) -> dict[str, Tensor]:
    from aevb.runs.files import read_tensors

    tensors, _ = read_tensors(run.path / "checkpoint" / "state.safetensors")
    return {k: v for k, v in tensors.items() if not k.startswith("best.")}


def test_verbs_that_move_a_code_are_refused_and_the_others_draw(tmp_path: Path) -> None:
    from aevb.figures import plots
    from aevb.figures.gallery import draw_all

    for name, moved in (("vq-vae", False), ("hyperspherical", True)):
        latent = "[2, 3]" if name == "vq-vae" else "3"
        changes = [f"latent={latent}", "encoder.hidden=[8]", "decoder.hidden=[8]", "training.samples=300"]
        recipe = Recipe.load(name).override(changes)
        data = load_data("digits", values=recipe.source().values)
        run = fit(recipe, data, tmp_path / name)
        drawn = {path.stem for path in draw_all(run, run.model(), data, ["samples", "reconstructions", "latent"])}
        assert drawn == {"samples", "reconstructions", "latent"}
        x = data.test[:4]
        with pytest.raises(AevbError, match="cannot be moved without the others"):
            plots.traversals(run.model(), x[0], torch.zeros(3))
        with pytest.raises(
            AevbError, match="'traversals' does not fit this run: its latents are codes, or on a sphere"
        ):
            draw_all(run, run.model(), data, ["traversals"])
        if moved:
            plots.interpolations(run.model(), x[:2], x[2:])
        else:
            with pytest.raises(
                AevbError, match="on the vectors of a codebook: between two of them there are no others"
            ):
                plots.interpolations(run.model(), x[:2], x[2:])


def test_fit_refuses_the_wrong_objective_before_it_makes_a_folder(tmp_path: Path) -> None:
    recipe = Recipe.load("vimco").override(["objective=elbo", "latent=[2, 3]"])
    with pytest.raises(RecipeError, match=r"no derivative of its draws, .*: concrete, vq, fsq; .*gradient vimco\."):
        fit(recipe, load_data("digits", values="dynamic"), tmp_path / "run")
    relaxed = Recipe.load("concrete").override(["objective.estimator=A", "latent=[2, 3]"])
    with pytest.raises(
        RecipeError, match=r"no density of relaxed codes, .* one of: uniform-concrete, .*estimator = 'B'"
    ):
        fit(relaxed, load_data("digits", values="dynamic"), tmp_path / "run")
    for name, samples, gradient in (("vq-vae", 5, "dreg"), ("fsq", 1, "stl")):
        objective = f'objective={{type="importance-weighted",samples={samples},gradient="{gradient}"}}'
        stuck = Recipe.load(name).override([objective, "terms=[]", "latent=[2, 3]"])
        with pytest.raises(
            RecipeError, match=r"no density q\(z\|x\), .*importance-weighted requires\. Choose the objective elbo"
        ):
            fit(stuck, load_data("digits", values="levels"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vq-vae", "fsq", "concrete", "vimco", "hyperspherical"])
def test_a_compiled_step_is_the_eager_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codebook, temperature and weights, after ten steps of either."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    latent = "3" if name == "hyperspherical" else "[2, 3]"
    changes = [f"latent={latent}", "encoder.hidden=[8]", "decoder.hidden=[8]", "training.samples=1000"]
    recipe = Recipe.load(name).override(changes)
    data = load_data("digits", values=recipe.source().values)
    states = []
    for compiled in (False, True):
        model = build_model(recipe, data.shape, data.train.values.levels)
        training = recipe.replace(training__compile=compiled).training()
        learner = aevb.Learner(model, build_objective(recipe, model, len(data.train)), training, len(data.train))
        for _ in aevb.continue_training(learner, data.train):
            pass
        states.append(model.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-4, msg=key)
