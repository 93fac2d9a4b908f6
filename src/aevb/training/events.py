"""A training as a stream of events: steps, records of their means, validation, checkpoints, the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from aevb.data.batch import Indexable, look, rows_at_once, take
from aevb.data.weights import averaged
from aevb.evaluation.bound import Bound, elbo
from aevb.evidence.importance import log_marginal
from aevb.models.checks import check_data, split_of
from aevb.models.compat import check_model
from aevb.models.inference import Model, fitting
from aevb.models.rows import by_batch, is_diagonal
from aevb.models.shares import group
from aevb.objectives.bounds import Info, PerPoint
from aevb.parts import Member, Needs
from aevb.probability.families import single
from aevb.training.checkpoint import moving_tensors, state_tensors
from aevb.training.learner import Learner
from aevb.training.processes import check_alike, largest
from aevb.training.train import Step, check_training, look_ahead, steps

SMALL = 2**19  # numbers that are passed through a network at a time, whatever the minibatch
RECORDS = 100  # records in a whole training, besides those at a validation


@dataclass(frozen=True)
class Record:
    """The means of what was logged over the steps since the last record, in nats per data point where losses are.

    Attributes:
        number, samples: steps and training samples done.
        seconds: of training, from its very beginning.
    """

    number: int
    samples: int
    seconds: float
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Validation:
    """The bound on the validation data, by the weights of this moment: `elbo`, `reconstruction`, `kl`, perhaps
    `log_px`.

    Attributes:
        number, samples: steps and training samples done.
        numbers: means over the validation data, in nats; without `elbo` and `kl` where the KL is infinite.
        best: whether this is the best validation so far.
    """

    number: int
    samples: int
    numbers: Mapping[str, float]
    best: bool


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to resume bit for bit; see `TrainingState.of` and `training.checkpoint.restore`.

    Attributes:
        tensors: copies of everything that moves, and of the best weights as best.NAME.
        notes: the rest, plain numbers for JSON.
    """

    number: int
    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """The end of a training.

    Attributes:
        number, samples: steps and training samples done.
        reason: "samples", all were seen; "patience", see `Monitor`; "interrupted", by `TrainingState.stop`.
        weights: the best weights of the model, or the last where nothing was validated: for `model.load_state_dict`.
        objective: likewise the objective's own, such as a classifier's.
        best: the number of the step that they are from.
        seconds: of training.
    """

    number: int
    samples: int
    reason: str
    weights: Mapping[str, Tensor]
    objective: Mapping[str, Tensor]
    best: int
    seconds: float


Event = Step | Record | Validation | Checkpoint | End


@dataclass(frozen=True)
class Monitor:
    """How a training is validated: a bound on the validation data, every so many training samples.

    Attributes:
        every: training samples between two validations; by default one pass, or a hundredth of the training if that is
            more.
        samples: Monte-Carlo samples per data point.
        patience: stop after so many validations without a better bound; never if 0.
        importance_samples: K of the bound that says which weights are the best, log 1/K Σ_k w_k; if 0, the ELBO says
            it.
    """

    every: int = 0
    samples: int = 1
    patience: int = 0
    importance_samples: int = 0

    def members(self) -> list[Member]:
        """What validation requires of a model, as a part beside the others."""
        needs = Needs(
            density=True, everywhere=True, otherwise=dict.fromkeys(("density", "everywhere"), "importance_samples = 0")
        )
        return [Member("", "validation.importance_samples", needs=needs)] if self.importance_samples else []

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("samples", 1), ("patience", 0), ("importance_samples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}.")


@dataclass
class TrainingState:
    """The state of a training beyond its `Learner`: sums since the last record, and the best weights so far.

    Attributes:
        weights: the best, those of the objective as objective.NAME; empty before the first validation.
        score: their validation bound, in nats.
        best: the number of the step that they are from.
        since: validations since then.
        stopped: set by `stop`; the training then ends after the current step.
    """

    sums: dict[str, Any] = field(default_factory=dict)
    counted: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    score: float = -math.inf
    best: int = 0
    since: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def stop(self) -> None:
        """End the training after the current step."""
        self.stopped = True

    def add(self, info: Info) -> None:
        for name, number in info.items():
            exact = single(number) if isinstance(number, Tensor) else number  # a sum in bfloat16 would stand still
            self.sums[name] = self.sums.get(name, 0.0) + exact
        self.counted += 1

    def means(self) -> dict[str, float]:
        """Of what was logged since the last record."""
        return {name: float(total) / max(self.counted, 1) for name, total in self.sums.items()}

    def record(self, step: Step) -> Record:
        """The means, which begin anew."""
        record = Record(step.number, step.samples, self.seconds, self.means())
        self.sums, self.counted = {}, 0
        return record

    def observe(self, learner: Learner, score: float) -> bool:
        """Whether a validation is the best so far; its weights are then kept."""
        self.since += 1
        if not score > self.score:
            return False
        self.score, self.best, self.since = score, learner.number, 0
        self.weights = learnt(learner)
        return True

    def checkpoint(self, learner: Learner) -> Checkpoint:
        """Everything of this moment.

        Raises:
            TrainingDiverged: something in it is not finite.
        """
        tensors = state_tensors(learner)
        learner.watch.look_at(learner.number, tensors)
        notes = {
            "number": learner.number,
            "sums": {k: float(v) for k, v in self.sums.items()},
            "counted": self.counted,
            "best_score": self.score if math.isfinite(self.score) else None,
            "best_step": self.best,
            "looks_since": self.since,
            "seconds": self.seconds,
        }
        return Checkpoint(learner.number, tensors | {f"best.{k}": v for k, v in self.weights.items()}, notes)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> TrainingState:
        """The state in a checkpoint; for its `Learner` see `checkpoint.restore`."""
        notes = checkpoint.notes
        return cls(
            dict(notes["sums"]),
            notes["counted"],
            {k.removeprefix("best."): v for k, v in checkpoint.tensors.items() if k.startswith("best.")},
            -math.inf if notes["best_score"] is None else notes["best_score"],
            notes["best_step"],
            notes["looks_since"],
            notes["seconds"],
        )


def learnt(learner: Learner) -> dict[str, Tensor]:
    """Copies of what a finished training keeps: the weights, and the objective's own parameters where it has some."""
    objective = learner.objective
    own = objective.state_dict() if isinstance(objective, nn.Module) else {}
    model: dict[str, Tensor] = (learner.model if learner.average is None else learner.average.module).state_dict()
    parts = {**model, **{f"objective.{k}": v for k, v in own.items()}}
    return {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in parts.items()}


def train_events(
    learner: Learner,
    data: Indexable,
    validation: Indexable | None = None,
    monitor: Monitor | None = None,
    state: TrainingState | None = None,
    checkpoint_every: float = math.inf,
) -> Iterator[Event]:
    """Train a learner from its current step; what happens comes as `Step | Record | Validation | Checkpoint | End`.

    An estimator in memory, with validation and early stopping:

        learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(), len(x))
        for event in aevb.train_events(learner, x, held, aevb.Monitor(patience=5)):
            if isinstance(event, aevb.End):
                model.load_state_dict(event.weights)

    A tracker, such as TensorBoard (`writer = SummaryWriter()`) or Weights & Biases:

        for event in aevb.train_events(learner, x, held):
            match event:
                case aevb.Record() | aevb.Validation():
                    where = type(event).__name__.lower()
                    for name, number in event.numbers.items():
                        writer.add_scalar(f"{where}/{name}", number, event.samples)
                        # or wandb.log({f"{where}/{name}": number}, step=event.samples)

    There is a `Record` after each hundredth of the training, and after each `Validation`. The best weights are those of
    the best validation bound of the trained model: the plain ELBO, whatever the loss adds to it or weights in it. It is
    the reconstruction where the KL is infinite, and the importance-weighted bound if `monitor` sets it. The data are
    checked now, before the generator is asked for its first event. It leaves the model in evaluation mode.

    Args:
        validation: data as `data` are; no rows, or None, for none. Not used with an objective that trains no encoder.
        state: of an earlier part of this training, to continue it; `state.stop()` ends it after the current step.
        checkpoint_every: seconds between two checkpoints, at least; there is one at the end too. By default none.

    Raises:
        DataError, ShapeError, RecipeError, TrainingDiverged: as `train`; the data errors for the validation data too.
        ValueError: patience without validation data.
    """
    course = Course.of(learner, data, validation, monitor or Monitor(), state or TrainingState())
    return cast(Iterator[Event], course.events(steps(learner, course.data), checkpoint_every))  # without pauses


def validated(learner: Learner, validation: Indexable | None, monitor: Monitor) -> Indexable | None:
    """The validation data, if a bound on them can be watched.

    Raises:
        ValueError: it cannot, but a patience asks for it.
    """
    if validation is not None and len(validation) and not isinstance(learner.objective, PerPoint):
        return validation
    if monitor.patience:
        raise ValueError(
            "patience: there is no validation bound, so training would never stop early. Leave it "
            "out, or train by a bound "
            "with validation data."
        )
    return None


@dataclass(frozen=True)
class Rhythm:
    """After which steps a training is looked at: every `validations` and `records` of them, and after the last."""

    validations: int
    records: int
    total: int

    @classmethod
    def of(cls, learner: Learner, monitor: Monitor) -> Rhythm:
        settings, total = learner.training_settings, learner.training_settings.steps(learner.n)
        samples = monitor.every or max(learner.n, settings.samples // 100)
        return cls(max(1, samples // _batch(learner)), max(1, total // RECORDS), total)

    def validates(self, number: int) -> bool:
        return number % self.validations == 0 or number == self.total

    def looks(self, number: int) -> bool:
        return self.validates(number) or number % self.records == 0


def _batch(learner: Learner) -> int:
    """Training samples that a step sees."""
    return min(learner.training_settings.batch, learner.n)


@dataclass
class Course:
    """A training with all that it reads and watches, on data that were checked.

    Attributes:
        held: the validation data; None for none.
        bound: the bound on them by the weights of the moment, and the score: see `validation_bound`.
    """

    learner: Learner
    data: Indexable
    held: Indexable | None
    monitor: Monitor
    state: TrainingState
    bound: Callable[[], tuple[dict[str, float], float]]

    @classmethod
    def of(
        cls, learner: Learner, data: Indexable, validation: Indexable | None, monitor: Monitor, state: TrainingState
    ) -> Course:
        """With data of any form, which are checked; for the errors see `train_events`."""
        data = fitting(learner.model, data, "train")
        held = validated(learner, validation, monitor)
        held = None if held is None else fitting(learner.model, held)
        state.stopped = False
        check_training(learner.model, learner.objective, data)
        if learner.training_settings.graph:
            look_ahead(learner, data)
        if held is not None:
            check_data(learner.model, held)
            check_model(learner.model, *monitor.members())
        return cls(learner, data, held, monitor, state, lambda: validation_bound(learner, held, monitor))  # type: ignore[arg-type]

    @property
    def rhythm(self) -> Rhythm:
        return Rhythm.of(self.learner, self.monitor)

    def events(self, walk: Generator[Step | None, None, None], every: float) -> Iterator[Event | None]:
        """What happens while the steps of `walk` are taken; for `every` see `train_events`.

        A None of `walk` is handed on: a pause before a step, in which other trainings get ready for theirs.
        """
        learner, monitor, state, rhythm = self.learner, self.monitor, self.state, self.rhythm
        begun, saved, before, first = Clock(), Clock(), state.seconds, learner.number
        with closing(walk):
            for step in walk if not _spent(monitor, state) else ():
                if step is None:
                    yield None
                    continue
                state.add(step.info)
                yield step
                if rhythm.looks(learner.number):
                    state.seconds = before + begun.age
                    yield from self.looks(step, rhythm)
                if _over(monitor, state):
                    break
                if saved.age >= every and state.counted == 0:
                    yield state.checkpoint(learner)
                    saved = Clock()
        learner.eval()
        if learner.number > first:  # else all is as the last checkpoint says
            state.seconds = before + begun.age
            if math.isfinite(every):
                yield state.checkpoint(learner)
        yield _end(learner, state, _reason(monitor, state))

    def looks(self, step: Step, rhythm: Rhythm) -> Iterator[Event]:
        """What is known after a step: the bound on the validation data, where it is due, and the record."""
        if self.held is not None and rhythm.validates(self.learner.number):
            yield self.validation(step)
        record = self.state.record(step)
        check_alike(record.numbers["loss"])
        if group() is not None:  # the loss is of rows that all have gathered
            check_alike(_length(self.learner.model.parameters()), "weights' lengths")
        yield record

    def validation(self, step: Step) -> Validation:
        learner = self.learner
        with learner.watch.divergence(step.number, lambda: moving_tensors(learner)):
            numbers, score = self.bound()
        if not math.isfinite(score):
            raise learner.watch.diverged(f"The validation bound became {score} at step {step.number}.")
        return Validation(step.number, step.samples, numbers, self.state.observe(learner, score))


def _spent(monitor: Monitor, state: TrainingState) -> bool:
    """Whether the patience is at its end."""
    return 0 < monitor.patience <= state.since


def _over(monitor: Monitor, state: TrainingState) -> bool:
    """Whether training ends before all its samples are seen; processes that train one model stop together."""
    state.stopped = bool(largest(state.stopped))
    return state.stopped or _spent(monitor, state)


def _reason(monitor: Monitor, state: TrainingState) -> str:
    """Why a training ended."""
    if state.stopped:
        return "interrupted"
    return "patience" if _spent(monitor, state) else "samples"


def validation_bound(learner: Learner, held: Indexable, monitor: Monitor) -> tuple[dict[str, float], float]:
    """The bound on the validation data, a mean by the weights of rows, and the number that says which model is the
    best, in nats."""
    return scored(held_bound(learner.best_known, learner, held, monitor), learner, held, monitor)


def held_bound(model: Model, learner: Learner, held: Indexable, monitor: Monitor) -> Bound:
    """The bound of each of the validation data by a model of a learner's."""
    size = max(1, _rows_of_validation(learner, held) // monitor.samples)
    return elbo(model, held, samples=monitor.samples, batch=size, groups=by_batch)


def scored(bound: Bound, learner: Learner, held: Indexable, monitor: Monitor) -> tuple[dict[str, float], float]:
    """What `validation_bound` makes of the bound of each data point."""
    split = split_of(held)
    w = None if split is None else split.weights
    numbers = {"reconstruction": averaged(bound.reconstruction, w)}
    score = numbers["reconstruction"]
    if bool(torch.isfinite(bound.kl).all()):
        numbers |= {"elbo": averaged(bound.elbo, w), "kl": averaged(bound.kl.sum(-1), w)}
        score = numbers["elbo"]
    if k := monitor.importance_samples:
        model = learner.best_known
        q = model.posterior(take(held, torch.arange(1, device=next(model.parameters()).device)))
        proposal = None if is_diagonal(q) else model.posterior  # batch by batch, as row by row takes its time
        score = numbers["log_px"] = averaged(log_marginal(model, held, k, proposal=proposal).log_px, w)
    return numbers, score


def _rows_of_validation(learner: Learner, held: Indexable) -> int:
    """As many rows at a time as a training step takes, so that what trains has memory enough; more of small ones."""
    shape = look(held, next(learner.model.parameters()).device)[1].x.shape[1:]
    return min(rows_at_once(shape), max(learner.training_settings.batch, SMALL // shape.numel()))


def _length(tensors: Iterable[Tensor]) -> float:
    """The Euclidean length of all numbers."""
    return float(torch.stack([t.detach().norm() for t in tensors]).norm())


def _end(learner: Learner, state: TrainingState, reason: str) -> End:
    kept = state.weights or learnt(learner)
    own = {k.removeprefix("objective."): v for k, v in kept.items() if k.startswith("objective.")}
    weights = {k: v for k, v in kept.items() if not k.startswith("objective.")}
    best = state.best if state.weights else learner.number
    return End(learner.number, learner.number * _batch(learner), reason, weights, own, best, state.seconds)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def age(self) -> float:
        return max(time.perf_counter() - self.start, 1e-9)
