"""A run is a folder: recipe.toml, weights.safetensors, metrics.jsonl, meta.json, checkpoint/, figures/."""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor, nn

import aevb
from aevb.data.alike import alike
from aevb.data.dataset import Dataset, Split
from aevb.data.prints import print_of
from aevb.data.values import Values
from aevb.errors import AevbError, AevbWarning, RecipeError, RunError, suggest
from aevb.models.inputs import unset
from aevb.models.ladder import Ladder
from aevb.models.vae import VAE
from aevb.objectives.bounds import Objective, PerPoint
from aevb.runs.build import build_model, build_objective
from aevb.runs.files import (
    alone,
    disk_error,
    identity,
    partial,
    read_tensors,
    sweep_beside,
    write_json,
    write_tensors,
    write_text,
)
from aevb.runs.meta import FORMAT, check_meta, read_meta
from aevb.runs.recipe import Recipe
from aevb.runs.sources import KEPT, keep, kept, read

HUB_WEIGHTS = "model.safetensors"  # what a model hub looks for


class Run:
    """One training, on disk."""

    def __init__(self, path: Path, recipe: Recipe, meta: dict[str, Any]) -> None:
        self.path, self.recipe, self.meta = path, recipe, meta
        self._folder, self._logged = identity(path), False

    @classmethod
    def create(cls, path: Path, recipe: Recipe, meta: Mapping[str, Any]) -> Run:
        """Start a run in a new or empty folder, which appears with recipe.toml and meta.json in it, or not at all.

        Raises:
            RunError: the folder holds something already, or another process is at work in it.
        """
        with created(path, recipe, meta) as run:
            return run

    @classmethod
    def open(cls, path: str | Path | None = None) -> Run:
        """The run in `path`, or in the folder of that name among the runs; the latest one if None.

        Raises:
            RunError: no such folder, an incomplete one, or one from a newer version.
        """
        folder = find(path)
        for name in ("recipe.toml", "meta.json"):
            if not (folder / name).is_file():
                raise RunError(f"{folder} is not a complete run: {name} is missing. Train again, into another folder.")
        meta = read_meta(folder)
        return cls(folder, Recipe.load(folder / "recipe.toml"), meta)

    def place(self, name: str) -> Path:
        """Where to write a file of this run.

        Raises:
            RunError: its folder was moved or removed since it was opened; a half run is never made anew.
        """
        if identity(self.path) != self._folder:
            raise RunError(
                f"{self.path} was moved or removed while this process worked on it, so {name} was not written. "
                f"Put it back, then resume: aevb train --resume {self.path}"
            )
        return self.path / name

    def write_recipe(self) -> None:
        write_text(self.place("recipe.toml"), self._recipe_text())

    def _recipe_text(self) -> str:
        try:
            return tomli_w.dumps({"name": self.recipe.name, **self.recipe.settings})
        except (TypeError, ValueError, RecursionError) as error:
            raise RecipeError(f"recipe {self.recipe.name!r} cannot be written as TOML: {error}.") from error

    def check_recipe(self) -> None:
        """Write recipe.toml anew, with a warning, where it is no longer that of the model in training."""
        path = self.place("recipe.toml")
        try:
            same = path.read_bytes() == self._recipe_text().encode()
        except OSError:
            same = False
        if not same:
            words = f"{path} was changed while training. It is written anew, as the weights are of the old one."
            warnings.warn(words, AevbWarning, stacklevel=2)
            self.write_recipe()

    def write_meta(self, **changes: Any) -> None:
        self.meta |= changes
        write_json(self.place("meta.json"), self.meta)

    def model(self, device: str | torch.device = "cpu") -> VAE | Ladder:
        """The trained model, in evaluation mode."""
        if not self.weights.is_file():
            slower = " --set training.optimizer.lr=..." * (self.meta.get("status") == "diverged")
            why = "its training diverged" if slower else "its training did not finish"
            raise RunError(f"{self.path} has no weights yet: {why}. Continue: aevb train --resume {self.path}{slower}")
        check_meta(self.path, self.meta)
        model = build_model(self.recipe, self.meta["shape"], self.meta["levels"])
        tensors, _ = read_tensors(self.weights)
        load_weights(model, tensors, self.weights)
        return model.to(device).eval()

    @property
    def weights(self) -> Path:
        """weights.safetensors; in a folder for a model hub model.safetensors."""
        own, hub = self.path / "weights.safetensors", self.path / HUB_WEIGHTS
        return hub if hub.is_file() and not own.is_file() else own

    def dataset(self, data_dir: str | Path | None = None) -> Dataset:
        """The data of this run, cut as they were, and checked to be the same."""
        check_meta(self.path, self.meta)
        data, now = self._found(data_dir)
        self.check_same(now)
        return data

    def check_same(self, now: Mapping[str, Any]) -> None:
        """Raise a `RunError` where `now`, the fingerprints of data, are not those of the data that it was trained
        on."""
        changed = differences(self.meta["splits"], now)
        if changed:
            raise RunError(
                f"The data of {self.path} have changed since it was trained: {changed}. Its numbers would mean "
                "something else: bring the old data back, or train again."
            )

    def _found(self, data_dir: str | Path | None) -> tuple[Dataset, dict[str, dict[str, Any]]]:
        """The data that are there, and their fingerprints; for a run of aevb 0.1, with the labels and the prints of
        0.1."""
        beside = self.path / KEPT
        data = kept(beside) if beside.is_file() else read(self.recipe, data_dir)
        if self.recipe.init and "values" in self.meta:  # those of the run that it began with
            data = alike(data, Values.from_dict(self.meta["values"]))
        if "values" in self.meta:
            return data, fingerprints(data)
        data = numbered(data)
        prints = fingerprints(data)
        for part in ("validation", "test") if data.train.values.kind == "dynamic" else ():
            del prints[part]["sha256"]  # of bits that 0.1 drew from another stream
        return data, prints

    def values(self, data_dir: str | Path | None = None) -> Values:
        """What the numbers of the data mean, to convert outputs of the model to their units; of 0.1, read from the
        data."""
        if "values" in self.meta:
            return Values.from_dict(self.meta["values"])
        return self.dataset(data_dir).train.values

    def classes(self) -> dict[int, str]:
        """The classes that training saw, and what they are called; none where the model is not conditioned on
        labels."""
        count = self.recipe.context().classes
        if not count:
            return {}
        seen, names = self.meta.get("classes"), self.meta.get("class_names")
        if seen is None:  # a run of aevb 0.1
            seen, names = self._classes_of_data(count)
        return {c: names[c] if names else str(c) for c in seen}

    def _classes_of_data(self, count: int) -> tuple[list[int], Sequence[str] | None]:
        try:
            data = self.dataset()
        except AevbError:
            return list(range(count)), None
        assert data.train.labels is not None
        return data.train.labels.unique().tolist(), data.class_names

    def each(self, n: int) -> Tensor | None:
        """n contexts, one after another of the classes that training saw; None where the model has no contexts."""
        classes = self.classes()
        return self.recipe.context().each(n, list(classes)) if classes else None

    def objective(self, model: nn.Module) -> Objective:
        """The objective with what it has learnt beside the model's weights, such as their spread under `FullBayes`."""
        check_meta(self.path, self.meta)
        n = self.meta["splits"]["train"]["n"]
        objective = build_objective(self.recipe, model, n)
        if isinstance(objective, PerPoint):
            objective.start(model, n)
        if isinstance(objective, nn.Module) and objective.state_dict():
            tensors, _ = read_tensors(self.path / "objective.safetensors")
            load_weights(objective, tensors, self.path / "objective.safetensors")
        return objective

    def save_weights(self, weights: Mapping[str, Tensor], objective: Mapping[str, Tensor]) -> None:
        """weights.safetensors, and objective.safetensors where the objective has learnt something itself."""
        if objective:
            write_tensors(self.place("objective.safetensors"), objective)
        write_tensors(self.place("weights.safetensors"), weights)

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        path = self.place("metrics.jsonl")
        if self._logged and not path.exists():
            words = f"{path} was removed while training: its earlier lines are lost, all else is untouched."
            warnings.warn(words, AevbWarning, stacklevel=2)
        try:
            with path.open("a", encoding="utf-8") as f:
                f.write(json.dumps(record) + "\n")
        except OSError as error:
            raise disk_error(path, error) from error
        self._logged = True

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; one that a crash cut off or that is damaged is left out."""
        path = self.path / "metrics.jsonl"
        try:
            lines = path.read_bytes().splitlines() if path.is_file() else []
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
        return [record for line in lines if (record := _parse(line)) is not None]

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps after `step`: they will be written again."""
        kept = [json.dumps(r) + "\n" for r in self.metrics() if r["step"] <= step]
        write_text(self.place("metrics.jsonl"), "".join(kept))

    def figure(self, name: str) -> Path:
        folder = self.place("figures")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        return folder / name

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


@contextmanager
def created(path: Path, recipe: Recipe, meta: Mapping[str, Any], data: Dataset | None = None) -> Iterator[Run]:
    """As `Run.create`; inside of the block no other process can work in the folder, see `alone`.

    Args:
        data: to be kept in the folder.
    """
    facts = {"format": FORMAT, "aevb": aevb.__version__, **machine(), **meta}
    sweep_beside(path)
    if path.is_dir():  # it may be the working folder: written into, not replaced
        with alone(path):
            if any(path.iterdir()):  # now that no other process can begin
                raise occupied(path)
            yield _begun(Run(path, recipe, facts), data)
        return
    if path.exists():
        raise occupied(path)
    beside = partial(path)
    try:
        try:
            beside.mkdir(parents=True)
        except OSError as error:
            raise disk_error(path, error) from error
        with alone(beside):
            run = _begun(Run(beside, recipe, facts), data)
            try:
                beside.rename(path)
            except OSError as error:  # perhaps another process was faster
                raise (occupied(path) if path.exists() else disk_error(path, error)) from error
            run.path = path
            yield run
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _begun(run: Run, data: Dataset | None) -> Run:
    run.write_meta()
    if data is not None:
        keep(run.place(KEPT), data)
    run.write_recipe()  # the last: `all_runs` looks for it
    return run


def load(run: str | Path | None = None, device: str | torch.device = "cpu") -> VAE | Ladder:
    """The trained model of a run (a folder, or a name among `runs/`; the latest if None), ready to use."""
    return Run.open(run).model(device)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """model.load_state_dict, with an error that names what is missing, extra or of another shape."""
    tensors = {**unset(model), **tensors}
    expected = model.state_dict()
    retyped = [
        f"{k} is {_type(tensors[k])}, the recipe says {_type(expected[k])}"
        for k in sorted(expected.keys() & tensors.keys())
        if tensors[k].dtype != expected[k].dtype
    ]
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    reshaped = [
        f"{k} is {tuple(tensors[k].shape)}, the recipe says {tuple(expected[k].shape)}"
        for k in sorted(expected.keys() & tensors.keys())
        if tensors[k].shape != expected[k].shape
    ]
    faults = [f"missing {_few(missing)}"] * bool(missing) + [f"extra {_few(extra)}"] * bool(extra) + reshaped[:3]
    faults += retyped[:3]
    if faults:
        raise RunError(f"{where} does not fit its recipe: {'; '.join(faults)}. Is it from another run?")
    model.load_state_dict(dict(tensors))


def runs_root() -> Path:
    """Where runs live: $AEVB_RUNS, or runs/ in the working folder."""
    return Path(os.environ.get("AEVB_RUNS", "runs"))


def new_folder(data: str, recipe: str) -> Path:
    """runs/DATA-RECIPE-TIME, or runs/DATA-TIME where both have one name; a name that is not taken."""
    words = dict.fromkeys([Path(data).stem, recipe])
    name = f"{'-'.join(words)}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    free = (runs_root() / (name if i == 1 else f"{name}-{i}") for i in itertools.count(1))
    return next(path for path in free if not path.exists())


def all_runs(root: Path | None = None) -> list[Path]:
    """The folders of all runs, the oldest first."""
    folder = root or runs_root()
    found = [p.parent for p in folder.glob("*/recipe.toml") if not p.parent.name.startswith(".")]
    return sorted(found, key=lambda p: (p / "recipe.toml").stat().st_mtime_ns)


def find(run: str | Path | None) -> Path:
    if run is None:
        runs = all_runs()
        if not runs:
            raise RunError(f"There is no run in {runs_root()}/ yet. Make one: aevb train digits")
        return runs[-1]
    for path in (Path(run), runs_root() / run):
        if path.is_dir():
            return path
    names = [p.name for p in all_runs()]
    raise RunError(
        f"There is no run {str(run)!r}." + (suggest(str(run), names) if names else " Make one: aevb train digits")
    )


def fingerprints(data: Dataset) -> dict[str, dict[str, Any]]:
    """Of each split: its size, and hashes of its rows (as aevb 0.1 stored them), their exact numbers and its labels."""

    def one(split: Split) -> dict[str, Any]:
        labels = None if split.labels is None else print_of(split.labels, repr(data.class_names))
        weights = {} if split.weights is None else {"weights": print_of(split.weights)}
        return {"n": len(split), **split.prints, **weights, "labels": labels}

    return {name: one(getattr(data, name)) for name in ("train", "validation", "test")}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two `fingerprints`, as text; empty if nothing does.  Hashes that aevb 0.1 lacks are left
    out."""
    return "; ".join(text for name in now if (text := _difference(name, then.get(name, {}), now[name])))


def _difference(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if then.get("n") != now["n"]:
        return f"{name} had {then.get('n')} rows and has {now['n']}"
    changed = [key for key in now if key in then and then[key] != now[key]]
    what = "labels" if changed == ["labels"] else "values"
    return f"{name} has other {what} in its {now['n']} rows" if changed else ""


def numbered(data: Dataset) -> Dataset:
    """The data with the labels of aevb 0.1, which kept whole numbers as they came instead of counting the classes from
    0."""
    names = data.class_names or ()
    usual = names == tuple(map(str, range(len(names))))
    if usual or not all(name.removeprefix("-").isdecimal() for name in names):
        return data
    numbers = torch.tensor([int(name) for name in names])
    parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return replace(data, class_names=None, **{n: replace(p, labels=numbers[p.labels]) for n, p in parts.items()})


def occupied(path: Path) -> RunError:
    return RunError(f"{path} already exists. Resume it: aevb train --resume {path}; or choose another --out.")


def machine() -> dict[str, Any]:
    """What a number depends on besides the seed."""
    return {
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _type(v: Tensor) -> str:
    return str(v.dtype).removeprefix("torch.")


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None if it is not one that `log` wrote."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and _is_record(record) else None


def _is_record(record: Mapping[str, Any]) -> bool:
    """Whether its steps are whole and its numbers are numbers."""
    whole = all(type(record.get(name)) is int and record[name] >= 0 for name in ("step", "samples"))
    tables = [{"seconds": record.get("seconds", 0)}, record.get("train", {}), record.get("validation", {})]
    return whole and all(isinstance(t, dict) and _are_numbers(t.values()) for t in tables)


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)
