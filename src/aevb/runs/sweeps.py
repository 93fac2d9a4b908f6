"""Many trainings of a recipe: a grid of settings and seeds, each a run, with one table of results."""

from __future__ import annotations

import csv
import io
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from aevb.data.dataset import Dataset
from aevb.data.room import fits
from aevb.errors import AevbError, AevbWarning, RecipeError, RunError
from aevb.evaluation.estimate import UNDEFINED, Estimate, with_errors
from aevb.runs.begin import read_alike
from aevb.runs.build import build_model, build_objective, check_recipe
from aevb.runs.evaluate import evaluate_run
from aevb.runs.files import read_json, write_text
from aevb.runs.fit import Show, fit, resume
from aevb.runs.grid import Cell, grid, short_keys, written
from aevb.runs.interrupt import Terminated
from aevb.runs.ranges import shown
from aevb.runs.recipe import Recipe, parse_toml
from aevb.runs.sources import given, named, read
from aevb.runs.stacks import Place, alike, differences, fit_stacked
from aevb.runs.store import Run, fingerprints, runs_root
from aevb.runs.trackers import trackers, tracking
from aevb.runs.workers import each, workers
from aevb.training.draws import Unstackable

NUMBERS = {"elbo": "test ELBO", "log_likelihood": "log p(x)"}
MOST = 64  # models of one stack
DONE = ("complete", "diverged")
LABELS = ("title", "paper")  # of a recipe, on which no number depends
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep and what it reached.

    Attributes:
        settings: what this run sets, by keys such as objective.beta.
        numbers: of the test split, nats: `elbo` and `log_likelihood`; none where its training failed.
    """

    settings: Mapping[str, Any]
    seed: int
    path: Path
    status: str
    numbers: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A number at one point of a sweep: its mean over seeds.

    Attributes:
        sd: the standard deviation over seeds; NaN of one seed.
        se: the standard error over the test points, of one model.
        n: how many seeds.
    """

    mean: float
    sd: float
    se: float
    n: int

    @classmethod
    def of(cls, found: Sequence[Estimate]) -> Summary:
        known = [e for e in found if e.known]
        if not known:
            return cls(math.nan, math.nan, math.nan, 0)
        sd = statistics.stdev(known) if len(known) > 1 else math.nan
        return cls(statistics.fmean(known), sd, statistics.fmean(e.se for e in known), len(known))

    def text(self, digits: int = 2) -> str:
        """-91.90 ± 0.12 (se 0.31): the mean, the sd over seeds, the se over points."""
        mean = Estimate(self.mean, self.sd).text(digits)
        return mean + f" (se {self.se:.{digits}f})" * math.isfinite(self.se)


@dataclass(frozen=True)
class Sweep:
    """What `aevb.sweep` gives: the runs, and tables of their results.

    Attributes:
        name: of its files.
        trials: one for each run, setting after setting, seed after seed.
        notes: what was not trained as a stack, and why; what failed.
    """

    name: str
    folder: Path
    trials: Sequence[Trial]
    notes: Sequence[str]

    @property
    def runs(self) -> list[Run]:
        """The runs, as `aevb.Run.open` gives them."""
        return [Run.open(trial.path) for trial in self.trials]

    @property
    def points(self) -> list[tuple[Mapping[str, Any], dict[str, Summary]]]:
        """Each setting with its numbers over all seeds."""
        found = []
        for _, group in groupby(self.trials, key=lambda t: repr(t.settings)):
            trials = list(group)
            of = {n: Summary.of([t.numbers.get(n, UNDEFINED) for t in trials]) for n in NUMBERS}
            found.append((trials[0].settings, of))
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row for each setting, with mean, sd and se of each number, in nats, and how many seeds."""
        names = short_keys(list(self.trials[0].settings))
        rows = []
        for settings, numbers in self.points:
            row: dict[str, Any] = {names[key]: written(value) for key, value in settings.items()}
            row["seeds"] = max(s.n for s in numbers.values())
            for name, s in numbers.items():
                row |= {name: s.mean, f"{name}_sd": s.sd, f"{name}_se": s.se}
            rows.append(row)
        return rows

    def csv(self) -> str:
        """The table as CSV; what is not known is empty."""
        rows, text = self.rows(), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in r.items()} for r in rows])
        return text.getvalue()

    def lines(self) -> list[dict[str, str]]:
        """The table as it is printed: the mean ± sd over seeds, and the se over test points."""
        names = short_keys(list(self.trials[0].settings))
        return [
            {names[key]: written(value) for key, value in settings.items()}
            | {"seeds": str(max(s.n for s in numbers.values()))}
            | {NUMBERS[name]: s.text() for name, s in numbers.items()}
            for settings, numbers in self.points
        ]


def sweep(
    recipe: Recipe | str | Path,
    data: Any,
    settings: Mapping[str, Sequence[Any]] | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    jobs: int = 1,
    device: str | torch.device = "cpu",
    show: Show | None = None,
    tell: Tell | None = None,
) -> Sweep:
    """Train a recipe at every combination of settings with every seed, each as a run of its own, and compare them.

        found = aevb.sweep("digits", "digits", {"objective.beta": [1, 2, 4]}, seeds=range(8))
        print(found.csv())
        aevb.figures.sweep(found.trials)

    Models of one architecture are trained as one stack: at each step all losses are computed by one call, and each
    model is the one that it would be alone, up to rounding. What cannot be stacked is trained one after another.
    The same call skips complete runs and resumes others.

    Args:
        recipe: one, or its name, or the path of its file.
        data: as `fit` takes them.
        settings: values by key, such as {"objective.beta": [1, 2, 4]}.
        out: the folder of the run folders; runs/ if None. NAME.csv is written there, too.
        jobs: processes at a time, for what is not stacked. In a script, several need `if __name__ == "__main__":`.
        show: called several times a second with where the training stands.
        tell: called with what was trained one by one and why, and with what failed.

    Raises:
        RecipeError: a setting that the recipe does not have, values or seeds given twice.
        ValueError: no jobs.
        RunError: a folder is there already with other settings, or other data.
    """
    if jobs < 1:
        raise ValueError(f"sweep: jobs={jobs}. Give at least one.")
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    base, first = given(chosen, data)
    cells = grid(base, first.name, settings or {}, seeds)
    if isinstance(data, Dataset):
        _refuse_other_data(settings or {})
    folder = Path(out) if out else runs_root()
    work = Work(folder, device, jobs, show, tell or (lambda text: None))
    if trackers().names:
        work.note("a sweep logs to no tracker.")
    groups = list(work.read(cells, first if isinstance(data, Dataset) else data))  # mistakes come before the first run
    with tracking():
        for rows, group in groups:
            work.train(group, rows)
    name = _name(cells, settings or {})
    found = Sweep(name, folder, [work.trial(cell) for cell in cells], work.notes)
    place, text = folder / f"{name}.csv", found.csv()
    if place.is_file() and _loses(_points(place.read_text(encoding="utf-8")), _points(text)):
        work.note(f"{place}: replaces the table of a sweep over other settings, or more seeds.")
    write_text(place, text)
    return found


def _points(text: str) -> dict[tuple[str, ...], int]:
    """The settings in a table, with their names: a key for each line; and how many seeds it has."""
    lines = list(csv.reader(io.StringIO(text)))
    at = lines[0].index("seeds") if lines and "seeds" in lines[0] else 0
    return {
        (*lines[0][:at], *line[:at]): int(line[at]) if line[at].isdigit() else 0 for line in lines[1:] if len(line) > at
    }


def _loses(before: Mapping[tuple[str, ...], int], after: Mapping[tuple[str, ...], int]) -> bool:
    return any(after.get(point, -1) < seeds for point, seeds in before.items())


def _refuse_other_data(settings: Mapping[str, Sequence[Any]]) -> None:
    """Raise a RecipeError where data that are read already would have to be read in another way."""
    wrong = next((key for key in settings if key.startswith("data.") and key != "data.missing"), None)
    if wrong:
        raise RecipeError(f"{wrong} is set, but these data are read already. Give their source, such as a path.")


def _name(cells: Sequence[Cell], settings: Mapping[str, Sequence[Any]]) -> str:
    """sweep-digits-beta: of the files of a sweep."""
    stem = cells[0].name.partition("-seed=")[0]
    for key in short_keys(list(settings)).values():
        stem = stem.partition(f"-{key}=")[0]
    swept = [short for key, short in short_keys(list(settings)).items() if len(settings[key]) > 1]
    return "-".join(["sweep", stem, *swept])


@dataclass
class Work:
    """The trainings of a sweep."""

    folder: Path
    device: str | torch.device
    jobs: int
    show: Show | None
    tell: Tell
    notes: list[str] = field(default_factory=list)
    data: dict[Path, Dataset] = field(default_factory=dict)

    def read(self, cells: Sequence[Cell], data: Any) -> Iterator[tuple[Dataset, list[Place]]]:
        """The data as each group of cells reads them, and the places of its runs."""
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(repr((cell.recipe.settings["data"], cell.recipe.init)), []).append(cell)
        for group in groups.values():
            rows = read_alike(group[0].recipe, given(group[0].recipe, data)[1])
            places = [Place(named(cell.recipe.of(rows), rows)[0], self.folder / cell.name) for cell in group]
            self.data |= {place.path: rows for place in places}
            begun = [place for place in places if (place.path / "recipe.toml").is_file()]
            prints = fingerprints(rows) if begun else {}
            for place in begun:
                _agrees(place, rows, prints)
            _check_parts([place for place, cell in zip(places, group, strict=True) if cell.seed == group[0].seed], rows)
            yield rows, places

    def train(self, places: Sequence[Place], data: Dataset) -> None:
        """Train what is left to train: in stacks where that goes."""
        states = {place.path: status(place.path) for place in places}
        for path in [path for path, state in states.items() if state == "diverged"]:
            self.note(f"{path.name}: diverged before, and is not trained again. Remove its folder to train it anew.")
        left = [place for place in places if states[place.path] not in DONE]
        groups: dict[str, list[Place]] = {}
        for place in left:
            groups.setdefault(alike(place.recipe), []).append(place)
        singly: list[Place] = []
        for group in groups.values():
            for start in range(0, len(group), MOST):
                singly += self.stacked(group[start : start + MOST], data)
        self.alone(singly, data)

    def stacked(self, group: Sequence[Place], data: Dataset, strictly: bool = False) -> list[Place]:
        """Train a group as a stack; else the parts of it whose settings are the same; gives those that are left."""
        if len(group) < 2:
            return list(group)
        try:
            failed = fit_stacked(group, data, device=self.device, show=self.show)
        except Unstackable as why:
            parts: dict[str, list[Place]] = {}
            for place in group:
                parts.setdefault(alike(place.recipe, strictly=True), []).append(place)
            if len(parts) > 1:
                return [place for part in parts.values() for place in self.stacked(part, data)]
            self.note(f"{len(group)} runs, such as {group[0].path.name}, are trained one by one: {why}.")
            return list(group)
        for path, error in failed.items():
            self.note(f"{path.name}: {error}")
        return []

    def alone(self, places: Sequence[Place], data: Dataset) -> None:
        """Train runs one after another, or several at a time in processes of their own."""
        if self.jobs < 2 or len(places) < 2:
            for place in places:
                self.ended(place, _trained(place, data, self.device, self.show))
            return
        jobs = min(self.jobs, len(places))
        items = ((place, _sent(place, data), str(self.device)) for place in places)
        try:
            with workers(jobs, torch.set_num_threads, max(1, torch.get_num_threads() // jobs)) as pool:
                for (place, *_), future in each(pool, jobs, _worked, items):
                    error, words = future.result()
                    self.ended(place, error)
                    for text in words:
                        warnings.warn(text, AevbWarning, stacklevel=4)
        except BrokenProcessPool as error:
            raise RunError(
                "A process that trained one of the runs ended too early. If memory is short, fewer jobs take less of "
                "it, and the same sweep again resumes. In a script, call aevb.sweep below if __name__ == '__main__'."
            ) from error

    def ended(self, place: Place, error: str) -> None:
        if error:
            self.note(f"{place.path.name}: {error}")

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.tell(text)

    def trial(self, cell: Cell) -> Trial:
        """What a run reached; it is evaluated where that was not done."""
        path = self.folder / cell.name
        state = status(path)
        if state != "complete":
            return Trial(cell.settings, cell.seed, path, state)
        verdict = path / "evaluation-test.json"
        data = self.data[path]
        if not verdict.is_file() and len(data.test):
            evaluate_run(Run.open(path), data, device=str(self.device))
        numbers = with_errors(read_json(verdict)) if verdict.is_file() else {}
        known = {name: numbers[name] for name in NUMBERS if isinstance(numbers.get(name), Estimate)}
        return Trial(cell.settings, cell.seed, path, state, known)


def _sent(place: Place, data: Dataset) -> Dataset | None:
    """The data for another process; None where it is to read them again, since they are kept in a file, and sending
    would bring all of them into memory."""
    return data if fits(data.train.stored.nbytes) or named(place.recipe, data)[1] else None


def _trained(place: Place, data: Dataset | None, device: str | torch.device, show: Show | None = None) -> str:
    """Begin or resume one run; its error as text, or nothing."""
    try:
        data = read_alike(place.recipe, read(place.recipe)) if data is None else data
        if (place.path / "recipe.toml").is_file():
            resume(place.path, data, device=device, show=show)
        else:
            fit(place.recipe, data, place.path, device=device, show=show)
    except AevbError as error:
        if not (place.path / "recipe.toml").is_file():
            raise
        return str(error)
    return ""


def _worked(item: tuple[Place, Dataset | None, str]) -> tuple[str, list[str]]:
    """`_trained` in another process: its error, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AevbWarning)
        try:
            error = _trained(*item)
        except Terminated:
            error = "its process was told to end. The same sweep again resumes it."
    return error, [str(one.message) for one in caught if issubclass(one.category, AevbWarning)]


def status(path: Path) -> str:
    """Of a run's folder: as its meta.json says, or "new"."""
    return str(Run.open(path).meta.get("status")) if (path / "recipe.toml").is_file() else "new"


def _agrees(place: Place, data: Dataset, prints: Mapping[str, Any]) -> None:
    """Raise where the folder of a run holds one with other settings, or of other data than those with these
    fingerprints."""
    import tomli_w

    run = Run.open(place.path)
    ours = parse_toml(tomli_w.dumps(dict(named(place.recipe, data)[0].settings)), str(place.path))
    labels = {key: ours.get(key) for key in LABELS}
    found = list(differences(ours, {**run.recipe.settings, **labels}))
    if not any(key.startswith("data.") for key, *_ in found):
        run.check_same(prints)  # first, since a batch can follow from the number of rows
    for key, asked, there in found:
        raise RunError(
            f"{place.path} is a run with {key} = {shown(there)}, and this sweep has {shown(asked)}. "
            "Choose another --out, or move that run."
        )
    run.check_same(prints)


def _check_parts(places: Sequence[Place], data: Dataset) -> None:
    """Build the parts of each setting once, so that a mistake is found before the first training."""
    for place in places:
        model = build_model(place.recipe, data.shape, data.train.values.levels)
        check_recipe(place.recipe, model, build_objective(place.recipe, model, len(data.train)))
