"""Models trained as one stack are those that would have been trained alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import aevb
from aevb.errors import AevbError, TrainingDiverged
from aevb.training import precision as precisions
from aevb.training.batched import Joint
from aevb.training.checkpoint import moving_tensors, state_tensors
from aevb.training.draws import Unstackable, draws_of
from aevb.training.events import Checkpoint, Course, End, Event, Record, Validation
from aevb.training.learner import Learner
from aevb.training.optimizers import MakeOptimizer
from aevb.training.precision import Precision
from aevb.training.stacked import train_stacked
from aevb.training.train import Step

X = torch.rand(120, 6, generator=torch.Generator().manual_seed(1)).round()
HELD = X[:30]


def course(
    seed: int,
    beta: float = 1.0,
    *,
    lr: float = 1e-2,
    samples: int = 600,
    patience: int = 0,
    layer: nn.Module | None = None,
    optimizer: MakeOptimizer | None = None,
    clip: float | None = None,
    precision: Precision = "float32",
) -> Course:
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(6, 8), layer or nn.Tanh(), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6))
    model = aevb.VAE(
        aevb.StandardNormal(2),
        aevb.Conditional(encoder, aevb.Normal(2)),
        aevb.Conditional(decoder, aevb.Bernoulli(6)),
    )
    settings = {"batch": 20, "samples": samples, "seed": seed, "clip": clip}
    training = aevb.Training(optimizer or aevb.Adam(lr), precision=precision, **settings)
    learner = Learner(model, aevb.ELBO(beta=beta), training, len(X))
    return Course.of(learner, X, HELD, aevb.Monitor(patience=patience), aevb.TrainingState())


def alone(one: Course) -> list[Event]:
    return list(aevb.train_events(one.learner, X, HELD, one.monitor, one.state))


def together(courses: Sequence[Course]) -> list[list[Event | AevbError]]:
    found: list[list[Event | AevbError]] = [[] for _ in courses]
    for i, event in train_stacked(courses, float("inf")):
        found[i].append(event)
    return found


def weights_of(events: Sequence[object]) -> dict[str, torch.Tensor]:
    end = events[-1]
    assert isinstance(end, End)
    return dict(end.weights)


def test_each_model_is_the_one_that_is_trained_alone() -> None:
    cells = [(seed, beta) for seed in (0, 1) for beta in (0.5, 2.0)]
    for (seed, beta), events in zip(cells, together([course(*cell) for cell in cells]), strict=True):
        own = alone(course(seed, beta))
        assert [type(e) for e in events] == [type(e) for e in own]
        for ours, its in zip(events, own, strict=True):
            if isinstance(ours, Record | Validation):
                assert isinstance(its, Record | Validation)
                assert ours.numbers == pytest.approx(its.numbers, rel=1e-4, abs=1e-5)
        for name, weight in weights_of(own).items():
            assert torch.allclose(weights_of(events)[name], weight, atol=1e-5)


def test_models_in_bfloat16_are_stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their products are rounded in another order; they are compared with the models' own in float32."""
    monkeypatch.setattr(precisions, "has_brain", lambda device: True)
    for seed, events in enumerate(together([course(0, precision="bf16"), course(1, precision="bf16")])):
        for ours, its in zip(events, alone(course(seed, precision="bf16")), strict=True):
            if isinstance(ours, Record | Validation):
                assert isinstance(its, Record | Validation)
                assert ours.numbers == pytest.approx(its.numbers, rel=2e-2, abs=2e-2)


def test_models_that_end_leave_the_others_alone() -> None:
    """The lengths differ, and so do the optimizers' step sizes."""
    cells = {0: (1e-2, 300), 1: (3e-2, 600), 2: (1e-3, 420)}
    found = together([course(seed, lr=lr, samples=n) for seed, (lr, n) in cells.items()])
    for (seed, (lr, n)), events in zip(cells.items(), found, strict=True):
        own = weights_of(alone(course(seed, lr=lr, samples=n)))
        assert all(torch.allclose(weights_of(events)[name], w, atol=1e-5) for name, w in own.items())
        end = events[-1]
        assert isinstance(end, End)
        assert end.samples == n


def test_a_model_that_diverges_does_not_end_the_others() -> None:
    first, second = together([course(0, lr=1e9), course(1)])
    assert isinstance(first[-1], TrainingDiverged)
    own = weights_of(alone(course(1)))
    assert all(torch.allclose(weights_of(second)[name], w, atol=1e-5) for name, w in own.items())


def test_patience_ends_each_model_by_itself() -> None:
    found = together([course(0, lr=0.3, samples=4000, patience=2), course(1, lr=1e-4, samples=4000, patience=2)])
    own = [alone(course(0, lr=0.3, samples=4000, patience=2)), alone(course(1, lr=1e-4, samples=4000, patience=2))]
    ends = [(e[-1].reason, e[-1].number) for e in found if isinstance(e[-1], End)]
    assert ends == [(e[-1].reason, e[-1].number) for e in own if isinstance(e[-1], End)]
    assert "patience" in {reason for reason, _ in ends}


KINDS: list[tuple[MakeOptimizer, float | None]] = [
    *[(aevb.Adam(1e-2), None)] * 3,
    *[(aevb.Adagrad(1e-1), None)] * 2,
    *[(aevb.SGD(1e-3, momentum=0.9), None)] * 2,
    *[(aevb.Adam(1e-2), 0.1)] * 2,
    *[(partial(torch.optim.RMSprop, lr=1e-3), None)] * 2,
]


def test_one_optimizer_moves_models_whose_own_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, and each optimizer's memory, are those of the models trained alone; clipping is of one model."""
    moved: set[range] = set()
    step = Joint.step

    def noted(joint: Joint, gradients: Mapping[str, torch.Tensor | None]) -> bool:
        moved.add(joint.places)
        return step(joint, gradients)

    monkeypatch.setattr(Joint, "step", noted)
    courses = [course(seed, optimizer=kind, clip=clip) for seed, (kind, clip) in enumerate(KINDS)]
    together(courses)
    assert moved == {range(3), range(3, 5), range(5, 7)}
    for seed, (kind, clip) in enumerate(KINDS):
        own = course(seed, optimizer=kind, clip=clip)
        alone(own)
        found = moving_tensors(courses[seed].learner)
        assert found.keys() == moving_tensors(own.learner).keys()
        for name, tensor in moving_tensors(own.learner).items():
            assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), (seed, name)


def test_step_sizes_that_part_are_those_of_each_model() -> None:
    """Two schedules of one step size: alike at first, then not."""

    def scheduled(seed: int) -> Course:
        one = course(seed)
        settings = replace(one.learner.training_settings, learning_rate=aevb.Linear(1.0, float(seed), 20))
        return Course.of(Learner(one.learner.model, aevb.ELBO(), settings, len(X)), X, HELD, one.monitor, one.state)

    for seed, events in enumerate(together([scheduled(0), scheduled(1)])):
        own = weights_of(alone(scheduled(seed)))
        assert all(torch.allclose(weights_of(events)[name], w, atol=1e-5) for name, w in own.items())


def test_a_stop_in_the_middle_of_a_round_saves_the_state_of_a_step() -> None:
    courses = [course(seed, samples=2000) for seed in range(3)]
    saved: dict[int, Checkpoint] = {}
    for i, event in train_stacked(courses, 1e9):
        if isinstance(event, Step) and (i, event.number) == (1, 43):
            for one in courses:
                one.state.stop()
        if isinstance(event, Checkpoint):
            saved[i] = event
    for seed, checkpoint in saved.items():
        own = course(seed, samples=2000)
        for step in aevb.train_events(own.learner, X, HELD, own.monitor, own.state):
            if isinstance(step, Step) and step.number == checkpoint.number:
                break
        assert checkpoint.number == 43
        for name, tensor in state_tensors(own.learner).items():
            assert checkpoint.tensors[name].is_contiguous()
            assert torch.allclose(checkpoint.tensors[name], tensor, rtol=1e-4, atol=1e-5), (seed, name)
    assert len(saved) == 3


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Dropout(0.5), "draws by another law"),
        (nn.BatchNorm1d(8), "batch statistics"),
    ],
)
def test_what_cannot_be_stacked_says_why(layer: nn.Module, why: str) -> None:
    with pytest.raises(Unstackable, match=why):
        train_stacked([course(0, layer=layer), course(1, layer=layer)], float("inf"))


def test_an_autoencoder_and_a_bound_are_no_stack() -> None:
    with pytest.raises(Unstackable, match="beta is zero in some"):
        train_stacked([course(0, 0.0), course(1, 1.0)], float("inf"))


def test_draws_can_be_drawn_again() -> None:
    def work() -> tuple[torch.Tensor, ...]:
        return torch.empty(3).normal_(), torch.rand(2, 2), torch.rand_like(torch.zeros(5))

    draws = draws_of(work, torch.device("cpu"))
    torch.manual_seed(7)
    own = work()
    torch.manual_seed(7)
    assert all(torch.equal(draw(), one) for draw, one in zip(draws, own, strict=True))
