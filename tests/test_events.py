"""A training as events: what comes when, by which weights, and that consumers need no folder."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import aevb
from aevb.apps.show import progress_line
from aevb.evaluation.bound import elbo
from aevb.models.priors import UniformOverCodes
from aevb.models.rows import by_batch
from aevb.runs.fit import Progress
from aevb.training.checkpoint import restore, state_tensors
from aevb.training.events import Event, validation_bound

D = 6


def data(n: int, seed: int = 1) -> Tensor:
    return torch.bernoulli(torch.full((n, D), 0.3), generator=torch.Generator().manual_seed(seed))


X, HELD = data(100), data(40, seed=2)


def vae(seed: int = 0) -> aevb.VAE:
    torch.manual_seed(seed)
    q, p = aevb.Normal(2), aevb.Bernoulli(D)
    encoder = aevb.Conditional(aevb.MLP(D, q.size, [8]), q)
    return aevb.VAE(aevb.StandardNormal(2), encoder, aevb.Conditional(aevb.MLP(2, p.size, [8]), p))


def learner(objective: Any = None, **settings: Any) -> aevb.Learner:
    settings = {"batch": 10, "samples": 2000, "optimizer": aevb.Adam(1e-2), **settings}
    return aevb.Learner(vae(), objective or aevb.ELBO(), aevb.Training(**settings), len(X))


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_what_comes_when() -> None:
    """200 steps, a record every second, a validation each pass of 10 steps, and the end; a validation before its
    record."""
    events = list(aevb.train_events(learner(), X, HELD))
    assert [e.number for e in of(aevb.Step, events)] == list(range(1, 201))
    assert [e.number for e in of(aevb.Record, events)] == list(range(2, 201, 2))
    assert [e.number for e in of(aevb.Validation, events)] == list(range(10, 201, 10))
    assert not of(aevb.Checkpoint, events)
    kinds = [type(e).__name__ for e in events if getattr(e, "number", 0) == 10]
    assert kinds == ["Step", "Validation", "Record"]
    (end,) = of(aevb.End, events)
    assert events[-1] is end
    assert (end.number, end.samples, end.reason) == (200, 2000, "samples")


def test_the_steps_are_those_of_train() -> None:
    """Validation and records draw nothing from the training."""
    one, other = learner(), learner()
    plain = [s.info["loss"] for s in aevb.continue_training(one, X)]
    events = list(aevb.train_events(other, X, HELD, aevb.Monitor(every=30), checkpoint_every=0))
    assert torch.equal(torch.stack(plain), torch.stack([s.info["loss"] for s in of(aevb.Step, events)]))
    a, b = state_tensors(one), state_tensors(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_record_holds_the_means_since_the_last_one() -> None:
    events, since = list(aevb.train_events(learner(), X, HELD)), []
    for event in events:
        if isinstance(event, aevb.Step):
            since.append(event.info)
        if isinstance(event, aevb.Record):
            for name, number in event.numbers.items():
                assert number == pytest.approx(sum(float(info[name]) for info in since) / len(since), rel=1e-5)
            assert set(event.numbers) == {"loss", "elbo", "reconstruction", "kl"}
            since = []
    assert not since


def test_the_best_weights_are_those_of_the_best_validation() -> None:
    """Too large a step size, so that the best is not the last."""
    job = learner(optimizer=aevb.Adam(0.3))
    events = list(aevb.train_events(job, X, HELD))
    bounds = {e.number: e.numbers["elbo"] for e in of(aevb.Validation, events)}
    best = max(bounds, key=lambda number: bounds[number])
    (end,) = of(aevb.End, events)
    assert end.best == best < 200
    assert [e.number for e in of(aevb.Validation, events) if e.best][-1] == best
    model = vae(seed=9)
    model.load_state_dict(end.weights)
    found = elbo(model, HELD, groups=by_batch)  # as validation draws its noise
    assert float(found.elbo.mean()) == pytest.approx(bounds[best], abs=1e-6)
    assert float(elbo(job.best_known, HELD, groups=by_batch).elbo.mean()) == pytest.approx(bounds[200], abs=1e-6)


def test_patience_ends_a_training_and_stopping_keeps_the_best() -> None:
    monitor = aevb.Monitor(every=10, patience=4)
    events = list(aevb.train_events(learner(optimizer=aevb.SGD(0.0)), X, HELD, monitor))
    (end,) = of(aevb.End, events)
    assert (end.reason, end.number, end.best) == ("patience", 5, 1)  # weights that stand still: the first is the best


def test_without_validation_data_the_last_weights_are_kept() -> None:
    for held in (None, HELD[:0]):
        job = learner()
        events = list(aevb.train_events(job, X, held))
        assert not of(aevb.Validation, events)
        (end,) = of(aevb.End, events)
        assert end.best == end.number == 200
        assert all(torch.equal(v, end.weights[k]) for k, v in job.model.state_dict().items())
        with pytest.raises(ValueError, match=r"patience: there is no validation bound"):
            aevb.train_events(learner(), X, held, aevb.Monitor(patience=3))


@pytest.mark.parametrize("name", ["every", "patience", "importance_samples"])
def test_settings_of_the_monitor_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0; got -1"):
        aevb.Monitor(**{name: -1})
    with pytest.raises(ValueError, match="samples must be at least 1; got 0"):
        aevb.Monitor(samples=0)


def test_the_importance_weighted_bound_chooses_if_asked() -> None:
    events = list(aevb.train_events(learner(), X, HELD, aevb.Monitor(every=500, importance_samples=20)))
    numbers = [e.numbers for e in of(aevb.Validation, events)]
    assert all(set(n) == {"reconstruction", "elbo", "kl", "log_px"} for n in numbers)
    assert all(n["log_px"] > n["elbo"] - 0.2 for n in numbers)
    _, score = validation_bound(learner(), HELD, aevb.Monitor(importance_samples=20))
    assert score == pytest.approx(float(aevb.log_marginal(vae(), HELD, 20).log_px.mean()), abs=1e-6)


def test_a_training_resumes_from_any_checkpoint_bit_for_bit() -> None:
    """In memory: with a moving average, patience, and a checkpoint at each record."""
    settings = {"ema": 0.9, "clip": 5.0}
    whole = learner(**settings)
    events = list(aevb.train_events(whole, X, HELD, checkpoint_every=0))
    saved = of(aevb.Checkpoint, events)
    assert len(saved) == 101  # and one at the end
    for checkpoint in (saved[0], saved[42], saved[-1]):
        again = learner(**settings)
        restore(again, dict(checkpoint.tensors), checkpoint.number)
        state = aevb.TrainingState.of(checkpoint)
        rest = list(aevb.train_events(again, X, HELD, state=state, checkpoint_every=0))
        assert len(of(aevb.Step, rest)) == 200 - checkpoint.number
        a, b = state_tensors(whole), state_tensors(again)
        assert all(torch.equal(a[k], b[k]) for k in a)
        ends = of(aevb.End, events)[0], of(aevb.End, rest)[0]
        assert all(torch.equal(v, ends[1].weights[k]) for k, v in ends[0].weights.items())
        assert ends[0].best == ends[1].best
        later = [e.numbers for e in of(aevb.Record, events) if e.number > checkpoint.number]
        assert [e.numbers for e in of(aevb.Record, rest)] == later


@pytest.mark.parametrize("at", [1, 7, 10, 199, 200])
def test_a_training_that_is_stopped_within_a_record_resumes_bit_for_bit(at: int) -> None:
    whole = list(aevb.train_events(learner(), X, HELD))
    job, state, first = learner(), aevb.TrainingState(), []
    for event in aevb.train_events(job, X, HELD, state=state, checkpoint_every=3600):
        first.append(event)
        if isinstance(event, aevb.Step) and event.number == at:
            state.stop()
    assert (first[-1].number, first[-1].reason) == (at, "interrupted")  # type: ignore[union-attr]
    (checkpoint,) = of(aevb.Checkpoint, first)
    again = learner()
    restore(again, dict(checkpoint.tensors), checkpoint.number)
    rest = list(aevb.train_events(again, X, HELD, state=aevb.TrainingState.of(checkpoint)))
    for kind in (aevb.Record, aevb.Validation):
        both = [(e.number, e.numbers) for e in (*of(kind, first), *of(kind, rest))]
        assert both == [(e.number, e.numbers) for e in of(kind, whole)]
    assert of(aevb.End, rest)[0].reason == "samples"


def test_an_estimator_in_memory_takes_five_lines() -> None:
    """As the docstring has it."""
    model = vae()
    before = float(elbo(model, HELD).elbo.mean())
    job = aevb.Learner(model, aevb.ELBO(), aevb.Training(batch=10, samples=4000, optimizer=aevb.Adam(1e-2)), len(X))
    for event in aevb.train_events(job, X, HELD, aevb.Monitor(patience=5)):
        if isinstance(event, aevb.End):
            model.load_state_dict(event.weights)
    assert float(elbo(model, HELD).elbo.mean()) > before + 0.1
    assert not model.training


def test_an_objective_with_parameters_keeps_them_too() -> None:
    x, y = X, aevb.one_hot(aevb.hide_labels(torch.arange(100) % 2, 20), 2)
    torch.manual_seed(0)
    q, p = aevb.Normal(2), aevb.Bernoulli(D)
    encoder = aevb.Conditional(aevb.MLP(D + 2, q.size, [8]), q)
    model = aevb.VAE(aevb.StandardNormal(2), encoder, aevb.Conditional(aevb.MLP(4, p.size, [8]), p))
    m2 = aevb.M2(aevb.MLP(D, 2, [4]), labeled_fraction=0.4)
    job = aevb.Learner(model, m2, aevb.Training(batch=10, samples=200), len(x))
    end = list(aevb.train_events(job, aevb.Pairs(x, y)))[-1]
    assert isinstance(end, aevb.End)
    assert set(end.objective) == set(m2.state_dict())
    assert set(end.weights) == set(model.state_dict())


# The mode in which a training leaves the model


def vq() -> tuple[aevb.VAE, Tensor]:
    torch.manual_seed(0)
    q, p = aevb.VQ((4, 2), codes=8), aevb.Normal(16)
    encoder = aevb.Conditional(aevb.MLP(16, q.size, [32]), q)
    return aevb.VAE(UniformOverCodes(encoder), encoder, aevb.Conditional(aevb.MLP((4, 2), p.size, [32]), p)), q.codebook


def test_a_trained_model_does_not_learn_from_its_use() -> None:
    model, codebook = vq()
    x = torch.rand(200, 16)
    for _ in aevb.train(model, aevb.ELBO(), x, aevb.Training(samples=1000)):
        assert model.training
    before = codebook.clone()
    assert torch.equal(model.encode(x), model.encode(x))
    assert torch.equal(codebook, before)


def test_training_leaves_the_model_in_evaluation_mode_however_it_ends() -> None:
    def modes(model: nn.Module) -> set[bool]:
        return {part.training for part in model.modules()}

    ended, closed, broken, raised = (learner() for _ in range(4))
    for _ in aevb.continue_training(ended, X):
        pass
    steps = aevb.continue_training(closed, X)
    next(iter(steps))
    assert modes(closed.model) == {True}
    steps.close()  # type: ignore[attr-defined]
    for _ in aevb.train_events(broken, X, HELD):
        break
    raised.loss = raising
    with pytest.raises(RuntimeError, match="on purpose"):
        next(iter(aevb.continue_training(raised, X)))
    for job in (ended, closed, broken, raised):
        assert modes(job.model) == {False}


def raising(*_: Any) -> Any:
    raise RuntimeError("on purpose")


def test_a_learner_is_for_data_of_one_size() -> None:
    with pytest.raises(ValueError, match=r"made for 100 rows of data; got 40"):
        next(iter(aevb.continue_training(learner(), HELD)))


def test_train_takes_no_learner() -> None:
    """What was passed beside one used to be ignored."""
    job = learner()
    with pytest.raises(TypeError, match="learner"):
        aevb.train(vae(), aevb.ELBO(), X, learner=job)  # type: ignore[call-arg]
    assert len(list(itertools.islice(aevb.continue_training(job, X), 3))) == 3


# What a progress line shows


def test_the_progress_line_shows_what_the_objective_logs() -> None:
    """Of Monte Carlo EM, which has no bound, the joint density; of an objective of one's own at least its loss."""

    def line(**numbers: float) -> str:
        return progress_line(Progress(30, 3000, 6000, {"loss": 40.1, **numbers}, 15000.0, 2.0))

    assert line(elbo=-40.1, reconstruction=-30.0, kl=10.1).startswith("step 30/60 · ELBO -40.1 nats · 15,000 samples/s")
    assert line(reconstruction=-30.0).startswith("step 30/60 · reconstruction -30.0 nats")
    assert line(log_joint=-40.1, acceptance=0.9).startswith("step 30/60 · log p(x, z) -40.1 nats")
    assert line(accuracy=0.5).startswith("step 30/60 · loss 40.1 nats")


@pytest.mark.parametrize(("batch", "rows"), [(4, 42), (100, 100), (5000, 170)])
def test_validation_takes_no_more_rows_at_a_time_than_memory_trains(batch: int, rows: int) -> None:
    """Of pictures as many as a minibatch has, or half a million numbers; and never more than `rows_at_once`."""
    torch.manual_seed(0)
    q, p = aevb.Normal(1), aevb.Bernoulli((3, 64, 64))
    nets = nn.Sequential(nn.Flatten(), nn.Linear(12288, q.size)), nn.Linear(1, p.size)
    model = aevb.VAE(aevb.StandardNormal(1), aevb.Conditional(nets[0], q), aevb.Conditional(nets[1], p))
    seen: list[int] = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    held = torch.zeros(180, 3, 64, 64)
    learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(batch=batch), 5000)
    validation_bound(learner, held, aevb.Monitor())
    assert max(seen) == rows
    assert sum(n for n in seen if n > 1) == 180  # after one row that shows the shapes
