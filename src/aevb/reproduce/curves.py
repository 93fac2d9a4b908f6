"""A curve: one training of a recipe, measured at fixed numbers of training samples, whole on disk at every moment."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from aevb.data.dataset import Dataset, Split
from aevb.data.sources import load_data
from aevb.errors import RecipeError, RunError, TrainingDiverged
from aevb.evaluation.bound import elbo
from aevb.models.vae import VAE
from aevb.runs.build import build_model, build_objective
from aevb.runs.files import alone, read_tensors, write_json, write_tensors, write_text
from aevb.runs.recipe import Recipe
from aevb.runs.store import machine
from aevb.training.checkpoint import restore, state_tensors
from aevb.training.events import Checkpoint, train_events
from aevb.training.learner import Learner
from aevb.training.start import start_at_data
from aevb.training.train import Step, continue_training

STEPS = (0.01, 0.02, 0.1)  # Adagrad's step sizes in the paper
PILOT = 20_000  # training samples after which the step size is chosen: "the first few iterations"
MARKS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)  # times 10ᵏ: where a curve is measured
FIRST = 10_000  # training samples at the first mark
WORTH_COMPILING = 2_000_000  # training samples that repay the minute for which torch.compile thinks
SAVE_EVERY = 20.0  # seconds between two checkpoints

Row = dict[str, float]
Measure = Callable[[Learner, Split, Split], Row]
Tell = Callable[[str, int], None]  # (name of the curve, training samples seen)


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        name: of its folder.
        recipe, changes: what is trained; `changes` as in `Recipe.replace`.
        source, values: the data, and what their numbers mean.
        measure: (learner, train rows, test rows) → numbers; one row of the table.
        rows: only so many rows of the train split, the first ones.
        steps: the step sizes to choose from, by the `score` of train rows after `pilot` samples; empty: the recipe's
            own.
        marks: where it is measured, times 10ᵏ.
        share: the part of the budget that is its own, for trainings that need not be so long.
        first: training samples at the first mark.
        pilot, score: how the step size is chosen; the bound if None.
        last: what is measured beside it where the budget ends, and nowhere else, since it takes long.
        start: what of the model begins at the train rows; a `VampPrior` does so anyway.
        device: where it is trained and measured: "cpu", or "cuda", on which its steps are recorded.
    """

    name: str
    recipe: str
    source: str
    measure: Measure
    changes: Mapping[str, Any] = field(default_factory=dict)
    values: str = "grey"
    rows: int | None = None
    steps: tuple[float, ...] = STEPS
    marks: tuple[float, ...] = MARKS
    share: float = 1.0
    first: int = FIRST
    pilot: int = PILOT
    score: Callable[[Learner, Split], float] | None = None
    last: Measure | None = None
    start: Callable[[Any, Split], None] | None = None
    device: str = "cpu"

    def budget(self, samples: int) -> int:
        return max(1, round(samples * self.share))

    def learner(self, step_size: float | None, samples: int, compiled: bool = False) -> Learner:
        """The recipe's model, objective and optimiser before the first step."""
        recipe = Recipe.load(self.recipe).replace(**self.changes, training__samples=samples)
        if step_size is not None:
            recipe = recipe.replace(training__optimizer__lr=step_size)
        if compiled:
            recipe = recipe.replace(training__compile=True)
        data, n = self.data(), len(self.train())
        model = build_model(recipe, data.shape, data.train.values.levels).to(self.device)
        start_at_data(model, self.train(), recipe.training().seed)
        if self.start:
            self.start(model, self.train())
        try:
            recorded = recipe.replace(training__graph=self.device != "cpu")
            return Learner(model, build_objective(recorded, model, n), recorded.training(), n)
        except RecipeError:  # its step is none that a graph can repeat
            return Learner(model, build_objective(recipe, model, n), recipe.training(), n)

    def data(self) -> Dataset:
        return dataset(self.source, self.values, self.device)

    def train(self) -> Split:
        return self.data().train if self.rows is None else self.data().train.take(self.rows)


@lru_cache(maxsize=2)
def dataset(source: str, values: str, device: str = "cpu") -> Dataset:
    return load_data(source, values=values).to(device)


def seeded(curve: Curve, seed: int) -> Curve:
    """The same training by another seed, its pilot too; 0 is the curve's own."""
    changes = {**curve.changes, "training__seed": seed}
    return replace(curve, name=f"{curve.name}-s{seed}", changes=changes, last=None) if seed else curve


@dataclass
class Followed:
    """A curve as far as it is on disk: the rows measured so far, and how it was trained.

    Attributes:
        others: the same by other seeds.
    """

    rows: list[Row]
    settings: dict[str, Any]
    others: list[Followed] = field(default_factory=list)

    def spread(self, name: str, samples: float) -> dict[str, float]:
        """Of the numbers `name` at a mark that several seeds have: how many, their mean, their standard deviation."""
        there = [row[name] for f in (self, *self.others) for row in f.rows if row["samples"] == samples and name in row]
        return {"seeds": len(there), "mean": round(mean(there), 2), "sd": round(stdev(there), 2)} if there[1:] else {}

    def column(self, name: str) -> tuple[list[float], list[float]]:
        """Training samples, and the numbers `name` there, where there are any; not those before the first step."""
        pairs = [(r["samples"], r[name]) for r in self.rows if r["samples"] and math.isfinite(r.get(name, math.nan))]
        return [a for a, _ in pairs], [b for _, b in pairs]


def follow(curve: Curve, place: Path, samples: int, tell: Tell | None = None) -> Followed:
    """Train a curve to its share of `samples`, from where its folder left it, and measure it at every mark on the way.

    A training that diverges begins again with the step size that the pilot put next. A folder that holds the
    measurements but no weights, as a repository does, is taken at its word as far as it goes, and trained anew beyond.

    Raises:
        RunError: another process is at work on it, or its folder is of another curve.
        TrainingDiverged: at every step size.
    """
    folder, budget = place / curve.name, curve.budget(samples)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        known = _begun(curve, place)
        if known and known.settings["curve"] != _described(curve):
            raise RunError(f"{folder} holds another curve: {known.settings['curve']}. Reproduce into another folder.")
        if known and known.rows and known.rows[-1]["samples"] >= budget:
            return known
        tensors, notes = _saved(folder)
        settings = notes.get("settings") or _settings(curve)
        curve = replace(curve, device=settings.get("device", "cpu"))  # where it was begun
        state = _State(notes.get("rows", []), settings, notes.get("seconds", 0.0))
        number, left = notes.get("number", 0), len(curve.steps)
        while True:
            try:
                _train(curve, folder, (tensors, number), state, budget, tell)
                return Followed(state.rows, settings)
            except TrainingDiverged:
                left -= 1
                if left < 1:
                    raise
                tensors, number, state = {}, 0, _State([], settings, 0.0)
                give_up_step(settings)


def give_up_step(settings: dict[str, Any]) -> None:
    """After a training that diverged: the step size with the next highest score in the pilot."""
    settings["diverged"] = [*settings.get("diverged", []), settings["step_size"]]
    left = {step: score for step, score in settings["pilot"].items() if float(step) not in settings["diverged"]}
    known = {step: score for step, score in left.items() if score is not None}
    if not known:
        raise TrainingDiverged(f"{settings['curve']} diverged at every step size.")
    settings["step_size"] = float(max(known, key=lambda step: known[step]))


@dataclass
class _State:
    rows: list[Row]
    settings: dict[str, Any]
    seconds: float


def _train(
    curve: Curve,
    folder: Path,
    saved: tuple[dict[str, torch.Tensor], int],
    state: _State,
    budget: int,
    tell: Tell | None,
) -> None:
    """From what was saved, (tensors, step), to the budget."""
    tensors, number = saved
    compiled = curve.recipe != "mcem" and budget >= WORTH_COMPILING and _has_compiler()
    learner = curve.learner(state.settings["step_size"], budget, compiled)
    if number:
        restore(learner, tensors, number)
    elif curve.first <= FIRST:  # later, no one looks for the beginning
        state.rows.append(_row(curve, learner, 0, 0.0))
    state.settings["compiled_from"] = state.settings.get("compiled_from") or (number if compiled else None)
    _advance(curve, folder, learner, state, budget, tell)


def _advance(curve: Curve, folder: Path, learner: Learner, state: _State, budget: int, tell: Tell | None) -> None:
    batch = min(learner.training_settings.batch, len(curve.train()))
    due = {math.ceil(mark / batch) for mark in marks(curve.marks, budget, curve.first)} | {math.ceil(budget / batch)}
    begun = told = time.perf_counter()
    for event in train_events(learner, curve.train(), checkpoint_every=SAVE_EVERY):
        now = time.perf_counter()
        if isinstance(event, Step) and tell and now - told > 1:
            tell(curve.name, event.samples)
            told = now
        measured = isinstance(event, Step) and event.number in due
        if not measured and not isinstance(event, Checkpoint):
            continue
        state.seconds += now - begun
        if isinstance(event, Step):
            state.rows.append(_row(curve, learner, event.samples, state.seconds))
            if curve.last and event.samples >= budget:
                state.rows[-1] |= curve.last(learner, curve.train(), curve.data().test)
        _save(folder, learner, state)
        begun = time.perf_counter()


def marks(multiples: tuple[float, ...], budget: int, first: int = FIRST) -> Iterator[int]:
    """m·10ᵏ from `first` to the budget."""
    for power in range(12):
        for multiple in multiples:
            if first <= multiple * 10**power <= budget:
                yield round(multiple * 10**power)


def _row(curve: Curve, learner: Learner, samples: int, seconds: float) -> Row:
    return {
        "samples": samples,
        "seconds": round(seconds, 2),
        **curve.measure(learner, curve.train(), curve.data().test),
    }


def _settings(curve: Curve) -> dict[str, Any]:
    """What does not change while a curve grows; the step size is chosen here."""
    chosen, pilot = choose_step(curve)
    where = {"machine": machine(), "device": curve.device, "threads": 1}
    return {"curve": _described(curve), "step_size": chosen, "pilot": pilot, **where}


def _described(curve: Curve) -> dict[str, Any]:
    facts = {
        "recipe": curve.recipe,
        "changes": dict(curve.changes),
        "source": curve.source,
        "values": curve.values,
        "rows": curve.rows,
    }
    return json.loads(json.dumps(facts))  # type: ignore[no-any-return]


def choose_step(curve: Curve) -> tuple[float | None, dict[str, float | None]]:
    """The step size with the highest score of train rows after the pilot, and that score for each; None: diverged."""
    if not curve.steps:
        return None, {}
    reached = {step: _pilot(curve, step) for step in curve.steps}
    best = max(curve.steps, key=lambda s: reached[s])
    if reached[best] == -math.inf:
        raise TrainingDiverged(f"{curve.name} diverged at each of the step sizes {curve.steps}.")
    return best, {str(s): round(v, 3) if math.isfinite(v) else None for s, v in reached.items()}


def _pilot(curve: Curve, step: float) -> float:
    learner = curve.learner(step, curve.pilot)
    try:
        for _ in continue_training(learner, curve.train()):
            pass
    except TrainingDiverged:
        return -math.inf
    value = (curve.score or bound)(learner, curve.train())
    return value if math.isfinite(value) else -math.inf


def bound(learner: Learner, rows: Split, most: int = 10_000) -> float:
    """The mean of the ELBO over the first `most` rows, in nats per data point; one sample of z each."""
    model = learner.best_known
    assert isinstance(model, VAE)
    return float(elbo(model, rows.take(most)).elbo.mean())


def bounds(learner: Learner, train: Split, test: Split) -> Row:
    """The two lines of a panel of Fig. 2: the bound on (the first 10,000) train and test rows, and its sd / √N on
    test."""
    model = learner.best_known
    assert isinstance(model, VAE)
    each = elbo(model, test.take(10_000)).elbo
    return {
        "train": bound(learner, train),
        "test": float(each.mean()),
        "test_se": float(each.std()) / math.sqrt(len(each)),
    }


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "c++", "clang++"))


def _save(folder: Path, learner: Learner, state: _State) -> None:
    """One file, whole, from which the curve resumes; and its rows and settings for readers, and for a repository."""
    notes = {"number": learner.number, "rows": state.rows, "seconds": state.seconds, "settings": state.settings}
    write_tensors(folder / "state.safetensors", state_tensors(learner), {"state": json.dumps(notes)})
    write_table(folder / "points.csv", state.rows)
    write_json(folder / "settings.json", state.settings)


def _saved(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if not (folder / "state.safetensors").is_file():
        return {}, {}
    tensors, notes = read_tensors(folder / "state.safetensors")
    return tensors, json.loads(notes["state"])


def read(curve: Curve, place: Path) -> Followed | None:
    """What was measured of a curve, and how it was trained, with or without weights; None if nothing was."""
    found = _begun(curve, place)
    return found if found and found.rows else None


def _begun(curve: Curve, place: Path) -> Followed | None:
    """The same of a curve that was begun, perhaps without a measurement yet; None of others."""
    folder = place / curve.name
    _, notes = _saved(folder)
    if notes:
        return Followed(notes["rows"], notes["settings"])
    if not (folder / "settings.json").is_file():
        return None
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    lines = csv.DictReader((folder / "points.csv").read_text(encoding="utf-8").splitlines())
    return Followed([{k: float(v) for k, v in line.items() if v} for line in lines], settings)


def read_all(curves: Mapping[str, Curve], place: Path) -> dict[str, Followed]:
    """Those of some curves of which there is anything yet, each with what other seeds gave."""
    found = {name: read(curve, place) for name, curve in curves.items()}
    for name, followed in found.items():
        others = (read(seeded(curves[name], seed), place) for seed in count(1))
        if followed:
            followed.others = list(takewhile(bool, others))  # type: ignore[arg-type]  # none is None
    return {name: followed for name, followed in found.items() if followed}


def has_weights(curve: Curve, place: Path) -> bool:
    """Whether `trained` has a model to give."""
    return (place / curve.name / "state.safetensors").is_file()


def trained(curve: Curve, place: Path) -> Learner:
    """The learner of a curve as its folder has it, with the trained model in evaluation mode."""
    tensors, notes = _saved(place / curve.name)
    if not notes:
        raise RunError(f"{place / curve.name} holds no trained curve yet.")
    learner = curve.learner(notes["settings"]["step_size"], PILOT)
    restore(learner, tensors, notes["number"])
    learner.model.eval()
    return learner


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV of all the rows' columns, in the order in which they first come; what a row lacks stays empty."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n", restval=""
    )
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, out.getvalue())
