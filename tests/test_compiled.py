"""The compiled step: its update rules against PyTorch's optimizers, its trajectory against the eager one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import aevb
from aevb.training import compiled
from aevb.training.checkpoint import restore, state_tensors
from aevb.training.optimizers import MakeOptimizer, parameter_groups

OPTIMIZERS = {"adam": aevb.Adam(0.01, betas=(0.8, 0.95), eps=1e-6), "adagrad": aevb.Adagrad(0.1, eps=1e-8)}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_rule_is_the_optimizers_own(make: MakeOptimizer) -> None:
    """Twelve steps along given gradients, with weight decay, in double precision: the same parameters and memory."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    theirs.load_state_dict(ours.state_dict())
    mine, reference = make(parameter_groups(ours, 0.3)), make(parameter_groups(theirs, 0.3))
    rule = compiled.RULES[type(reference)]
    for p in ours.parameters():
        compiled.begin(mine, rule, p)
    for t in range(1, 13):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            q.grad = torch.randn_like(q)
            p.grad = q.grad.clone()
        reference.step()
        with torch.no_grad():
            for group in mine.param_groups:
                numbers = rule.numbers(group, group["lr"], torch.tensor(t, dtype=torch.float64))
                for p in group["params"]:
                    assert p.grad is not None
                    rule.update(p, p.grad + group["weight_decay"] * p, mine.state[p], group, numbers)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
        for name in rule.memory:
            torch.testing.assert_close(mine.state[p][name], reference.state[q][name], rtol=1e-9, atol=1e-14)


def tiny(seed: int = 0) -> tuple[aevb.VAE, Tensor]:
    torch.manual_seed(seed)
    q, p = aevb.Normal(2), aevb.Bernoulli(12)
    encoder = aevb.Conditional(aevb.MLP(12, q.size, hidden=[16]), q)
    decoder = aevb.Conditional(aevb.MLP(2, p.size, hidden=[16]), p)
    return aevb.VAE(aevb.StandardNormal(2), encoder, decoder), (torch.rand(60, 12) < 0.3).float()


def losses(training: aevb.Training, learner: aevb.Learner | None = None) -> tuple[list[float], aevb.Learner]:
    model, x = tiny()
    learner = learner or aevb.Learner(model, aevb.ELBO(), training, len(x))
    return [float(s.info["loss"]) for s in aevb.continue_training(learner, x)], learner


@pytest.mark.slow
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_compiled_training_is_eager_training(make: MakeOptimizer) -> None:
    settings = {"optimizer": make, "batch": 20, "samples": 600, "weight_prior": True, "ema": 0.9}
    schedule = aevb.Linear(1.0, 0.1, 20)
    eager, a = losses(aevb.Training(learning_rate=schedule, **settings))
    fused, b = losses(aevb.Training(learning_rate=schedule, compile=True, **settings))
    assert isinstance(b.step, FunctionType)
    torch.testing.assert_close(torch.tensor(fused), torch.tensor(eager), rtol=1e-4, atol=1e-4)
    left, right = state_tensors(a), state_tensors(b)
    assert left.keys() == right.keys()
    for key, value in left.items():
        torch.testing.assert_close(right[key], value, rtol=2e-3, atol=2e-4, msg=key)


def regularized(model: aevb.VAE) -> aevb.Regularized:
    return aevb.Regularized(aevb.ELBO(), [aevb.DensityRatio(model, 1.0, (8,)), aevb.DIP(), aevb.MMD()])


OBJECTIVES = {
    "dreg": lambda model: aevb.ImportanceWeighted(4, gradient="dreg"),
    "piwae": lambda model: aevb.ImportanceWeighted(4, encoder_groups=2, gradient="dreg"),
    "vimco": lambda model: aevb.ImportanceWeighted(4, gradient="vimco"),
    "rws": lambda model: aevb.WakeSleep(samples=3, wake=0.5),
    "terms": regularized,
}


@pytest.mark.slow
@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_objectives_compile_with_all_their_gradients(
    make: Callable[[aevb.VAE], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks, stopped parameters and losses of a side's own come through: the same weights, also of a discriminator."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    learners = []
    for compiled_ in (False, True):
        model, x = tiny()
        settings = aevb.Training(batch=20, samples=160, compile=compiled_)
        learners.append(aevb.Learner(model, make(model), settings, len(x)))
        for _ in aevb.continue_training(learners[-1], x):
            pass
    eager, fused = learners
    assert isinstance(fused.step, FunctionType)
    for a, b in zip(eager.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_training_resumes_bit_for_bit() -> None:
    whole, a = losses(aevb.Training(batch=20, samples=600, compile=True))
    half, b = losses(aevb.Training(batch=20, samples=300, compile=True))
    model, x = tiny(seed=9)
    again = aevb.Learner(model, aevb.ELBO(), aevb.Training(batch=20, samples=600, compile=True), len(x))
    restore(again, state_tensors(b), 15)
    rest, _ = losses(again.training_settings, again)
    assert half + rest == whole
    for key, value in state_tensors(a).items():
        assert torch.equal(state_tensors(again)[key], value), key


def test_unknown_rules_fall_back() -> None:
    """Momentum, clipping and changing buffers are left to PyTorch's own update."""
    model, _ = tiny()
    adam = aevb.Adam()(parameter_groups(model, 0.0))
    assert compiled.compiled_update(model, [aevb.SGD(0.1)(parameter_groups(model, 0.0))], None) is None
    assert compiled.compiled_update(model, [adam], 1.0) is None
    normed = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert compiled.compiled_update(normed, [aevb.Adam()(parameter_groups(normed, 0.0))], None) is None
    assert compiled.compiled_update(model, [adam], None) is not None


@pytest.mark.slow
def test_the_bound_has_no_graph_breaks() -> None:
    model, x = tiny()
    objective = aevb.ELBO()
    objective(model, x, 0)  # fills the table of KL formulas
    found = torch._dynamo.explain(lambda batch: objective(model, batch, 0))(x)
    assert found.graph_break_count == 0, found.break_reasons
