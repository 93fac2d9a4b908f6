"""Bounds, estimators, gradients and importance sampling against a model with everything in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracle import Oracle, close, exact, inexact, log_px, truth
from torch import Tensor, nn

from aevb.data.batch import Batch
from aevb.data.walk import walking
from aevb.evaluation.bound import elbo
from aevb.evidence.importance import log_marginal
from aevb.models.rows import by_row
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO


@pytest.fixture(scope="module")
def x(truth: Oracle) -> Tensor:
    return truth.data(50)


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    torch.manual_seed(0)


# An inexact posterior: ELBO = log p(x) - KL(q ‖ p(z|x))


def test_the_bound_is_the_evidence_less_the_gap(
    truth: Oracle, exact: VAE, inexact: VAE, x: Tensor, log_px: Tensor
) -> None:
    for model in (exact, inexact):
        runs = torch.stack([elbo(model, x, samples=100, seed=s).elbo for s in range(20)])
        close(runs.mean(0), log_px - truth.gap(model, x), runs.std(0) / math.sqrt(20), limit=6)
        pooled = runs.mean(1)
        close(pooled.mean(), (log_px - truth.gap(model, x)).mean(), pooled.std() / math.sqrt(20))


def test_both_parts_of_the_bound(truth: Oracle, inexact: VAE, x: Tensor) -> None:
    """E_q[log p(x|z)] and KL(q ‖ N(0, I)) of every unit, written out."""
    q = inexact.posterior(x)
    m, v = q.mean, q.variance
    bound = elbo(inexact, x, samples=4000)
    torch.testing.assert_close(bound.kl, 0.5 * (m.square() + v - v.log() - 1), atol=1e-6, rtol=0)
    residual = (x - m @ truth.W.T - truth.b).square().sum(-1) + (truth.W.square() @ v.T).sum(0)
    expected = -0.5 * (residual / truth.s**2 + x.shape[1] * math.log(2 * math.pi * truth.s**2))
    se = inexact.trace(x, 4000).log_px.std(0) / math.sqrt(4000)
    close(bound.reconstruction, expected, se)


def test_estimators_a_and_b_have_one_value(inexact: VAE, x: Tensor) -> None:
    t = inexact.trace(x, 4000)
    a, b = t.log_w.mean(0), t.log_px.mean(0) - t.kl.sum(-1)
    close(a, b, (t.log_pz - t.log_qz).std(0) / math.sqrt(4000))


# Importance sampling


@pytest.mark.trap(1)
def test_importance_sampling_finds_the_evidence(inexact: VAE, x: Tensor, log_px: Tensor) -> None:
    m = log_marginal(inexact, x, 4000)
    close(m.log_px, log_px, m.se)
    assert m.samples == 4000


def test_standard_error_and_effective_sample_size(inexact: VAE, x: Tensor) -> None:
    """se is the spread over seeds, and the ess is K / (1 + sd(w)² / mean(w)²)."""
    runs = [log_marginal(inexact, x[:20], 500, seed=s) for s in range(100)]
    spread = torch.stack([m.log_px for m in runs]).std(0)
    ratio = torch.stack([m.se for m in runs]).mean(0) / spread
    assert abs(float(ratio.log().mean())) < 0.06
    assert float(ratio.log().abs().max()) < 0.35
    m = runs[0]
    torch.testing.assert_close(m.ess, 500 / (1 + m.se.square() * 499), rtol=1e-9, atol=0)
    assert bool((m.ess < 480).all())
    assert bool((m.ess > 50).all())


def test_streaming_equals_direct(inexact: VAE, x: Tensor) -> None:
    """The running sums of w and w² give what all weights at once give, in float64."""
    with walking(memory=6):
        m = log_marginal(inexact, x[:1], 1000, seed=3)
    (group,) = by_row(inexact.posterior, Batch(x[:1]), seed=3)
    with torch.no_grad():
        z = torch.cat(list(group.blocks(1000)))
        log_w = inexact.log_joint(x[:1], z) - inexact.log_posterior(x[:1], z)
    w = log_w.exp()
    torch.testing.assert_close(m.log_px, w.mean(0).log())
    torch.testing.assert_close(m.ess, w.sum(0).square() / w.square().sum(0))
    torch.testing.assert_close(m.se, w.std(0) / w.mean(0) / math.sqrt(1000))


@pytest.mark.parametrize("memory", [1, 6, 50, 1000, 10**6])
def test_chunks_change_nothing(exact: VAE, inexact: VAE, x: Tensor, log_px: Tensor, memory: int) -> None:
    with walking(memory=memory):
        found, m = log_marginal(exact, x, 13), log_marginal(inexact, x[:7], 300)
    torch.testing.assert_close(found.log_px, log_px, atol=1e-5, rtol=0)
    whole = log_marginal(inexact, x[:7], 300)
    close(m.log_px, log_px[:7], m.se)
    torch.testing.assert_close(m.log_px, whole.log_px, rtol=1e-10, atol=1e-10)


# Gradients


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def test_estimators_share_their_gradient_and_b_varies_less(inexact: VAE, x: Tensor) -> None:
    """Same expectation in every coordinate; less variance for the closed-form KL (arXiv 1312.6114, §2.3)."""
    a, b = (torch.stack([gradient(inexact, ELBO(e)(inexact, x[:5], 0)[0]) for _ in range(1200)]) for e in ("A", "B"))
    difference = a.mean(0) - b.mean(0)
    se = ((a.var(0) + b.var(0)) / 1200).sqrt()
    moves = se > 1e-12
    z = difference[moves] / se[moves]
    assert z.abs().max() < 4.5
    assert z.square().mean() < 2
    assert torch.all(difference[~moves].abs() < 1e-9)
    assert b.var(0).sum() < 0.9 * a.var(0).sum()


def test_stick_has_no_gradient_at_the_exact_posterior(exact: VAE, x: Tensor) -> None:
    """Sticking the landing (arXiv 1703.09194): the path gradient of log w vanishes at q = p(z|x), draw by draw."""
    encoder = exact.encoder
    stuck = gradient(encoder, exact.trace(x, 3, stick=True).log_w.mean())
    plain = gradient(encoder, exact.trace(x, 3).log_w.mean())
    assert stuck.abs().max() < 1e-6
    assert plain.abs().max() > 1e-2


def test_stick_keeps_the_expected_gradient(inexact: VAE, x: Tensor) -> None:
    def draws(stick: bool) -> Tensor:
        one = [gradient(inexact.encoder, inexact.trace(x[:5], 1, stick=stick).log_w.mean()) for _ in range(1000)]
        return torch.stack(one)

    a, b = draws(True), draws(False)
    z = (a.mean(0) - b.mean(0)) / ((a.var(0) + b.var(0)) / 1000).sqrt()
    assert z.abs().max() < 4.5
