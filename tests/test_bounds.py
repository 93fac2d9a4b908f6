"""What holds of every model with a known evidence: the linear-Gaussian one, and two of two layers, a chain and a
ladder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import test_chain
import test_ladder
import torch
from oracle import oracle
from torch import Tensor

import aevb


@dataclass(frozen=True)
class Known:
    """Data of which log p(x) is known, and models of it: with the exact posterior, and with another."""

    x: Tensor
    log_px: Tensor
    exact: Callable[[], Any]
    inexact: Callable[[], Any]


def one_layer() -> Known:
    o = oracle()
    x = o.data(40)
    return Known(x, o.evidence.log_prob(x), o.vae, lambda: o.vae(shift=0.2, widen=1.5))


MODELS = {
    "one layer": one_layer(),
    "chain": Known(test_chain.X, test_chain.LOG_PX, test_chain.EXACT.vae, test_chain.INEXACT.vae),
    "ladder": Known(test_ladder.X, test_ladder.LOG_PX, test_ladder.oracle, lambda: test_ladder.oracle(shift=0.3)),
}
each_model = pytest.mark.parametrize("known", MODELS.values(), ids=MODELS)


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    torch.manual_seed(0)


@each_model
def test_log_weights_are_the_evidence_at_the_exact_posterior(known: Known) -> None:
    """Which holds only if every density is right, and those of the layers given the very draws of the others."""
    log_w = known.exact().trace(known.x, 20).log_w
    torch.testing.assert_close(log_w, known.log_px.expand(20, -1), atol=1e-5, rtol=0)
    assert (known.inexact().trace(known.x, 20).log_w - known.log_px).abs().max() > 0.1


@pytest.mark.trap(2)
@each_model
@pytest.mark.parametrize(("samples", "memory"), [(1, None), (7, None), (7, 1), (7, 40)])
def test_importance_sampling_is_exact_at_the_exact_posterior(known: Known, samples: int, memory: int | None) -> None:
    """In batches and chunks of any size; as many samples as were asked for are effective."""
    with aevb.walking(memory=memory):
        m = aevb.log_marginal(known.exact(), known.x, samples)
    torch.testing.assert_close(m.log_px, known.log_px, atol=1e-5, rtol=0)
    torch.testing.assert_close(m.ess, torch.full_like(m.ess, samples))
    assert bool((m.se < 1e-6).all()) if samples > 1 else bool(m.se.isnan().all())


@each_model
def test_elbo_a_is_the_evidence_at_the_exact_posterior(known: Known) -> None:
    loss, info = aevb.ELBO("A", samples=3)(known.exact(), known.x, 0)
    torch.testing.assert_close(-loss, known.log_px.mean(), atol=1e-5, rtol=0)
    torch.testing.assert_close(info["elbo"], known.log_px.mean(), atol=1e-5, rtol=0)


@each_model
def test_more_samples_give_tighter_bounds(known: Known) -> None:
    """L₁ ≤ L₅ ≤ L₅₀ ≤ log p(x) (arXiv 1509.00519, theorem 1); the mean of L_K over groups is MIWAE's bound."""
    log_w = known.inexact().trace(known.x, 10_000).log_w.detach()
    bounds = [aevb.ImportanceWeighted().bound(log_w, 10_000 // k).mean() for k in (1, 5, 50)]
    for tighter, looser in zip([*bounds[1:], known.log_px.mean()], bounds, strict=True):
        assert tighter > looser
    assert known.log_px.mean() - bounds[2] < 0.1 * (known.log_px.mean() - bounds[0])
    torch.testing.assert_close(bounds[0], log_w.mean())
