"""Several recipes of one architecture, trained as one stack into run folders of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aevb.data.dataset import Dataset
from aevb.errors import AevbError
from aevb.runs.begin import unstarted
from aevb.runs.checkpoint import load_checkpoint
from aevb.runs.files import alone, sweep, sweep_beside
from aevb.runs.fit import Job, Progress, Reporter, Show, Writer, facts_of
from aevb.runs.interrupt import deferred_interrupt
from aevb.runs.objective_check import check_objective
from aevb.runs.plain import type_of
from aevb.runs.recipe import Recipe, flat
from aevb.runs.sources import named
from aevb.runs.store import Run, created
from aevb.training.events import Course, End, Event, TrainingState
from aevb.training.stacked import train_stacked

FREE = ("training.seed", "training.samples", "training.optimizer", "training.learning_rate", "training.clip")
NUMERIC = ("objective.", "terms")  # where numbers may differ, and nothing else
Happening = Iterator[tuple[int, Event | AevbError]]


@dataclass(frozen=True)
class Place:
    """A recipe, as it is for its data, and the folder of its run."""

    recipe: Recipe
    path: Path


def alike(recipe: Recipe, strictly: bool = False) -> str:
    """A text that recipes share which may be one stack: all settings but seeds, optimizers, lengths, and numbers of
    the objective; `strictly`, with the latter."""
    kept: dict[str, Any] = {}
    for key, value in flat(recipe.settings):
        if any(key == free or key.startswith(f"{free}.") for free in FREE):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and value
        kept[key] = "number" if number and key.startswith(NUMERIC) and not strictly else value
    return repr(sorted(kept.items())) + str(type_of(recipe.settings["objective"]))


class Opened:
    """One run of a stack: its training before its next step, and its folder once it is open."""

    def __init__(self, place: Place, data: Dataset, device: str | torch.device, files: ExitStack) -> None:
        self.place, self.data, self.device = place, data, device
        self.run: Run | None = None
        self.recipe, self.own = named(place.recipe, data)
        if (place.path / "recipe.toml").is_file():
            self.run = Run.open(place.path)
            self.recipe = self.run.recipe
            files.enter_context(alone(place.path))
            sweep(place.path)
            sweep_beside(place.path)
        self.job = Job.of(self.recipe if self.run is None else unstarted(self.recipe), data, device)
        self.state = TrainingState() if self.run is None else load_checkpoint(self.run, self.job.learner)
        if self.run is None:
            check_objective(self.job.learner, self.job.rows)

    def course(self) -> Course:
        job = self.job
        return Course.of(job.learner, job.rows, job.held, job.recipe.validation(), self.state)

    def writer(self, files: ExitStack, show: Show | None) -> Writer:
        """What writes into the folder, which is made where there is none yet."""
        if self.run is None:
            facts = facts_of(self.recipe, self.data, self.device)
            kept = self.data if self.own else None
            self.run = files.enter_context(created(self.place.path, self.recipe, facts, kept))
        self.run.write_meta(status="training")
        return Writer(self.run, Reporter(self.job.learner, self.state, show))


def fit_stacked(
    places: Sequence[Place],
    data: Dataset,
    *,
    device: str | torch.device = "cpu",
    show: Show | None = None,
    checkpoint_every: float = 10.0,
) -> dict[Path, AevbError]:
    """Train recipes of one architecture on one data set as a stack; each begins or resumes its own run folder.

    Returns:
        The errors of trainings that failed, by folder; the others continue.

    Raises:
        Unstackable: they are no stack; no folder was made.
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    with ExitStack() as files:
        opened = [Opened(place, data, device, files) for place in places]
        events = train_stacked([one.course() for one in opened], checkpoint_every)
        told = Together(len(opened), show)
        writers = [one.writer(files, told) for one in opened]

        def stop() -> None:
            for one in opened:
                one.state.stop()

        return _write_all(writers, events, told, stop)


def _write_all(
    writers: Sequence[Writer], events: Happening, told: Together, stop: Callable[[], None]
) -> dict[Path, AevbError]:
    """Write what happens into the folders, to the end of all."""
    failed: dict[Path, AevbError] = {}
    try:
        with deferred_interrupt(stop) as heard:
            for i, event in events:
                if isinstance(event, AevbError):
                    failed[writers[i].run.path] = event
                if isinstance(event, AevbError | End):
                    told.trained.remove(i)
                told.current = i
                _write(writers[i], event)
    except BaseException as error:
        for writer in writers:
            if writer.end is None and writer.run.path not in failed:
                writer.failed(error)
        raise
    if any(writer.end is not None and writer.end.reason == "interrupted" for writer in writers):
        raise heard.error()
    return failed


def _write(writer: Writer, event: Event | AevbError) -> None:
    """Write what happened in one training; the weights at its end."""
    if isinstance(event, AevbError):
        writer.failed(event)
        return
    writer(event)
    if writer.end is not None:
        writer.finish()


class Together:
    """Shows the progress of the first model that is still trained, at the rate of all.

    Attributes:
        trained: the models that are still trained.
        current: the model whose event is written.
    """

    def __init__(self, models: int, show: Show | None) -> None:
        self.trained, self.show = list(range(models)), show
        self.current = 0

    def __call__(self, p: Progress) -> None:
        if self.show is not None and self.current == self.trained[0]:
            self.show(replace(p, rate=p.rate * len(self.trained)))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, ours, theirs) of settings that are not the same."""
    a, b = dict(flat(ours)), dict(flat(theirs))
    for key in dict.fromkeys([*a, *b]):
        if a.get(key) != b.get(key):
            yield key, a.get(key), b.get(key)
