"""From a recipe and data to a finished run: the events of a training, written into a folder."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aevb.data.batch import Indexable
from aevb.data.dataset import Dataset
from aevb.data.weights import Weighted
from aevb.errors import AevbWarning, RecipeError, RunError, TrainingDiverged
from aevb.models.shares import group
from aevb.runs.begin import First, begin, read_alike, unstarted
from aevb.runs.build import build_model, build_objective, check_recipe, unfinished
from aevb.runs.checkpoint import load_checkpoint, save_checkpoint
from aevb.runs.files import alone, sweep, sweep_beside
from aevb.runs.interrupt import Heard, deferred_interrupt
from aevb.runs.objective_check import check_objective
from aevb.runs.parts import wrap_errors
from aevb.runs.recipe import Recipe
from aevb.runs.sources import given, named
from aevb.runs.store import Run, created, fingerprints, new_folder
from aevb.runs.trackers import trackers
from aevb.training.events import (
    Checkpoint,
    Clock,
    End,
    Event,
    Record,
    TrainingState,
    Validation,
    train_events,
    validated,
)
from aevb.training.learner import Learner
from aevb.training.processes import check_same_rows, first, largest, told, wait
from aevb.training.start import start_at_data
from aevb.training.train import Step


@dataclass(frozen=True)
class Progress:
    """Where a training stands: samples seen of all, the latest numbers logged, samples per second, seconds left."""

    step: int
    samples: int
    total: int
    numbers: Mapping[str, float]
    rate: float
    left: float


Show = Callable[[Progress], None]


def fit(
    recipe: Recipe | str | Path,
    data: Any,
    out: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    show: Show | None = None,
    checkpoint_every: float = 10.0,
) -> Run:
    """Train a recipe on data into a new run folder.

    The weights of the best validation bound are kept, see `train_events`. Without a validation split, or where no
    encoder is trained (`MonteCarloEM`), the last are. All data are checked before there is a folder.

    Args:
        recipe: one, or its name, or the path of its file. If its `init` names a run, the training begins with the
            weights of that run, and reads the data as that run does. The parts must be the same.
        data: a `Dataset`, or what `load_data` takes: a name, a path, an array, a tensor, a data set of PyTorch, which
            the recipe's table [data] says how to read. Of data in memory, which no source gives, the run keeps a copy.
        out: the folder; runs/SOURCE-RECIPE-TIME if None.
        show: called several times a second with where the training stands.
        checkpoint_every: seconds between two checkpoints, at least.

    A schedule of the loss that is longer than the training gives an `AevbWarning`.

    Raises:
        TrainingDiverged: the loss became NaN or exploded; the last good checkpoint stays.
        KeyboardInterrupt: after Ctrl-C, with everything saved; `resume` continues the run.
    """
    asked, data = given(recipe if isinstance(recipe, Recipe) else Recipe.load(recipe), data)
    data = read_alike(asked, data)
    chosen, own = named(asked.of(data), data)
    path = Path(out) if out else new_folder(data.name, chosen.name)
    job = Job.of(chosen, data, device)  # builds every part first: a wrong recipe leaves no folder
    state = TrainingState()
    events = job.events(state, checkpoint_every)
    check_objective(job.learner, job.rows)
    meta, path = facts_of(chosen, data, device), Path(told(str(path)))
    wait()
    if not first():
        return follow(Run(path, chosen, meta), events, state)
    with created(path, chosen, meta, data if own else None) as run:
        return write_events(run, events, state, job.learner, show)


def resume(
    run: Run | str | Path,
    data: Dataset | None = None,
    *,
    samples: int | None = None,
    device: str | torch.device = "cpu",
    show: Show | None = None,
    checkpoint_every: float = 10.0,
) -> Run:
    """Continue a run from its last checkpoint; it ends bit for bit as if it had never stopped.

    Args:
        run: one, or its folder or name.
        data: those that it was trained on; None to read them again.
        samples: a new total of training samples, to train a finished run for longer. The model that is trained is bit
            for bit the one that as many samples at once would give. But there is one validation more, at the old end,
            and `validation.every` counted from the total may place them otherwise: so the weights that are kept, those
            of the best validation, are from another set of candidates.

    Raises:
        RunError: the data are not those of the run; the checkpoint is damaged, does not fit the recipe, or stands
            beyond the new total; or another process is training this run.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if data is None:
        data = run.dataset()
    elif "values" in run.meta:  # runs of aevb 0.1 lack what can be compared
        run.check_same(fingerprints(data))
    if samples is not None:
        run.recipe = run.recipe.replace(training__samples=samples)
    job = Job.of(unstarted(run.recipe), data, device)
    if not first():
        state = load_checkpoint(run, job.learner)
        events = job.events(state, checkpoint_every)
        wait()
        return follow(run, events, state)
    with alone(run.path):
        sweep(run.path)
        sweep_beside(run.path)
        state = load_checkpoint(run, job.learner)
        events = job.events(state, checkpoint_every)
        wait()
        run.write_recipe()
        run.write_meta(status="training")
        return write_events(run, events, state, job.learner, show)


def facts_of(recipe: Recipe, data: Dataset, device: str | torch.device) -> dict[str, Any]:
    """What meta.json says of a training that begins."""
    return {
        "status": "training",
        "shape": list(data.shape),
        "levels": data.train.values.levels,
        "values": data.train.values.to_dict(),
        "splits": fingerprints(data),
        **seen_classes(recipe, data),
        "device": str(device),
    }


def seen_classes(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """Of a recipe that conditions on labels: the classes of the train split, and what they are called."""
    if not recipe.context().classes or data.train.labels is None:
        return {}
    names = None if data.class_names is None else list(data.class_names)
    return {"classes": data.train.labels.unique().tolist(), "class_names": names}


AMENDABLE = (
    "training.samples",
    "training.optimizer.lr",
    "training.learning_rate",
    "training.clip",
    "training.precision",
    "validation",
    "evaluation",
)


def amendable(key: str) -> bool:
    """Whether a training can be resumed with another value of this key."""
    return any(key == possible or key.startswith(f"{possible}.") for possible in AMENDABLE)


def amend(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A recipe with changes under which a checkpoint of its training can be resumed.

    Raises:
        RecipeError: the change is another model, other data, or another order of them.
    """
    for assignment in assignments:
        key = assignment.partition("=")[0].strip()
        if not amendable(key):
            raise RecipeError(
                f"--resume cannot change {key!r}, only {', '.join(AMENDABLE)}. Train anew for anything else."
            )
    return recipe.override(assignments)


@dataclass(frozen=True)
class Job:
    """A recipe's learner before its first step, and the data that it trains on."""

    recipe: Recipe
    learner: Learner
    rows: Indexable
    held: Indexable

    @classmethod
    def of(cls, recipe: Recipe, data: Dataset, device: str | torch.device, first: First | None = None) -> Job:
        """The job before its first step, with the weights of `first`, or of the run that the recipe begins with."""
        if group() is not None:
            check_same_rows({name: (found["n"], found) for name, found in fingerprints(data).items()})
        training, context, n = recipe.training(), recipe.context(), len(data.train)
        recipe.evaluation()  # a mistake there is reported now, and not after the training
        model = build_model(recipe, data.shape, data.train.values.levels).to(device)
        rows: Indexable = context.rows(data.train, device, context.visible_labels(data.train, recipe.source().seed))
        rows = Weighted.of(rows, data.train.weights, device)
        start_at_data(model, rows, training.seed)
        first = first or First.of(recipe)
        if first is not None:
            begin(model, recipe, first)
        objective = build_objective(recipe, model, n)
        if isinstance(objective, nn.Module):
            objective.to(device)  # a classifier or a discriminator is no part of the model
        check_recipe(recipe, model, objective)
        learner = wrap_errors("training", lambda: Learner(model, objective, training, n))
        job = cls(recipe, learner, rows, context.rows(data.validation, device))
        wrap_errors("validation", lambda: validated(learner, job.held, recipe.validation()))
        unused = [name for name in ("compile", "graph") if getattr(training, name) and group() is not None]
        eager = [f"training.{name} is not used by several processes; the numbers are the same." for name in unused]
        for words in [*unfinished(recipe, n), *eager]:
            warnings.warn(words, AevbWarning, stacklevel=3)
        return job

    def events(self, state: TrainingState, checkpoint_every: float) -> Iterator[Event]:
        return train_events(self.learner, self.rows, self.held, self.recipe.validation(), state, checkpoint_every)


def write_events(
    run: Run, events: Iterator[Event], state: TrainingState, learner: Learner, show: Show | None = None
) -> Run:
    """Write what happens into the run's folder, to the end or to where the training stops."""
    writer, shared = Writer(run, Reporter(learner, state, show)), group() is not None
    try:
        with deferred_interrupt(state.stop) as heard:
            for event in trackers().events(run, events):
                writer(event)
            if shared:  # the signal of another process may be followed by one's own
                writer.finish()
                wait()
    except BaseException as error:
        writer.failed(error)
        raise
    end = writer.end if shared and writer.end is not None else writer.finish()
    return ended(run, end, heard)


def follow(run: Run, events: Iterator[Event], state: TrainingState) -> Run:
    """Train beside the process that writes."""
    with deferred_interrupt(state.stop) as heard:
        end = next(event for event in events if isinstance(event, End))
        wait()
    return ended(run, end, heard)


def ended(run: Run, end: End, heard: Heard) -> Run:
    """The run of a training that ended; where a signal stopped it, that signal, in every process."""
    if end.reason == "interrupted":
        heard.number = int(largest(heard.number))
        raise heard.error()
    return run


class Writer:
    """Writes what happens in a training into a run's folder.

    Attributes:
        end: of the training, once it has come.
    """

    def __init__(self, run: Run, report: Callable[[Step], None]) -> None:
        self.run, self.report = run, report
        self.end: End | None = None
        self.validation: dict[str, Mapping[str, float]] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Step():
                self.report(event)
            case Validation():
                self.validation = {"validation": event.numbers}
            case Record():
                facts = {"step": event.number, "samples": event.samples, "seconds": round(event.seconds, 3)}
                self.run.log({**facts, "train": event.numbers, **self.validation})
                self.validation = {}
            case Checkpoint():
                save_checkpoint(self.run, event)
            case End():
                self.end = event

    def failed(self, error: BaseException) -> None:
        """Say of the run that its training failed."""
        with suppress(RunError):  # the error itself says more
            self.run.write_meta(status="diverged" if isinstance(error, TrainingDiverged) else "interrupted")

    def finish(self) -> End:
        """Write the weights of the training, which has ended, and what is to be said of it."""
        assert self.end is not None, "the events of a training have an end"
        _finish(self.run, self.end)
        return self.end


def _finish(run: Run, end: End) -> None:
    """Write the weights of a training that ended, and what is to be said of it."""
    run.check_recipe()
    for verdict in run.path.glob("evaluation-*.json"):
        _remove(verdict)  # it is of other weights
    run.save_weights(end.weights, end.objective)
    run.write_meta(
        status="interrupted" if end.reason == "interrupted" else "complete",
        stopped=end.reason,
        steps=end.number,
        samples=end.samples,
        best_step=end.best,
        seconds=round(end.seconds, 2),
    )


def _remove(path: Path) -> None:
    """Remove a file, or what has taken its place."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path} could not be removed: {error.strerror or error}.") from error


class Reporter:
    """Tells `show`, several times a second, where the training stands."""

    def __init__(self, learner: Learner, state: TrainingState, show: Show | None) -> None:
        self.learner, self.state, self.show = learner, state, show
        self.first, self.begun, self.shown = learner.number, Clock(), Clock()
        self.total = learner.training_settings.steps(learner.n)

    def __call__(self, step: Step) -> None:
        if self.show is None or not (self.shown.age > 0.2 or step.number == self.total):
            return
        self.shown = Clock()
        rate = (step.number - self.first) / self.begun.age
        batch = step.samples // step.number
        left = (self.total - step.number) / rate
        self.show(Progress(step.number, step.samples, self.total * batch, self.state.means(), rate * batch, left))
