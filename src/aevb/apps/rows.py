"""Which rows a verb is asked for: a split of a run's data, or new data read as the run's were."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevb.errors import DataError, RecipeError, RunError, suggest

if TYPE_CHECKING:
    from aevb.data.batch import Indexable
    from aevb.data.dataset import Split
    from aevb.data.tables import Frame
    from aevb.data.unsplit import Unsplit
    from aevb.runs.store import Run


@dataclass(frozen=True)
class Asked:
    """What the command line names: a run, perhaps new data, or else a part of the run's own."""

    run: Run
    new: str | None = None
    part: str = "test"
    data_dir: Path | None = None
    given: str | None = None

    @property
    def stem(self) -> str:
        """What to call files that are made of these rows."""
        from aevb.data.addresses import bare

        return self.part if self.new is None else Path(bare(self.new)).stem

    @property
    def title(self) -> str:
        return f"{self.run.path.name}, {f'{self.part} split' if self.new is None else self.new}"


@dataclass(frozen=True)
class Found:
    """Rows for a model, and what to call them.

    Attributes:
        split: the rows (N, *X), with labels where the model is conditioned on them.
        column: "row" or "file"; names: (N,), the number of each row in its source, or its file.
        frame: the table, where new rows are of one.
    """

    run: Run
    split: Split
    column: str
    names: Sequence[Any]
    frame: Frame | None = None

    def first(self, n: int) -> Found:
        """The first n rows, or all if there are fewer."""
        return Found(self.run, self.split.take(n), self.column, self.names[:n])

    def data(self, device: str = "cpu") -> Indexable:
        """The rows on a device, with their contexts where the model has any."""
        return self.run.recipe.context().rows(self.split, device)


def open_run(name: str | None, option: str | None = None, moved: str | None = None) -> Run:
    """The run that is named, as an argument or by --run, or the latest one; `moved`: where its data are now."""
    from aevb.runs.store import Run

    if name is not None and option is not None:
        raise RunError(f"Two runs are named: {name} and --run {option}. Name one.")
    chosen = option if name is None else name
    run = Run.open(None if chosen is None else run_folder(chosen) or chosen)
    if moved is not None:
        run.recipe = run.recipe.replace(data__source=_place(moved))
    return run


def _place(data: str) -> str:
    """A data set's name, an address, or the whole path of one's own data."""
    path = Path(data).expanduser()
    return str(path.resolve()) if path.exists() else data


def run_folder(name: str) -> Path | None:
    """The folder of a run of this name or path; None if there is none."""
    from aevb.runs.store import runs_root

    bare = Path(name).name == name.rstrip("/" + os.sep)
    places = [Path(name).expanduser(), *([runs_root() / name] if bare else [])]
    return next((path for path in places if (path / "recipe.toml").is_file()), None)


def run_and_new(first: str | None, second: str | None, option: str | None) -> tuple[str | None, str | None]:
    """Which run and which new data two arguments [RUN] [NEW] and --run name; None: the latest run, no new data.

    Raises:
        RunError: they name two runs, or a name that is both a run's and that of data, or neither.
    """
    if option is not None:
        if second is not None:
            raise RunError(f"Two runs are named: {first} and --run {option}. Name one.")
        return option, first
    if second is not None or first is None:
        return first, second
    return (first, None) if _names_a_run(first) else (None, first)


def _names_a_run(name: str) -> bool:
    """Whether a name is a run's, or else that of data.  RunError if it is both, or neither."""
    folder, data = run_folder(name), is_data(name)
    if folder is not None and data and folder != Path(name):
        raise RunError(
            f"{name!r} is a run, {folder}, and a name of data. Write --run {name} for the run; for the data write"
            f" ./{name} if they are a file or folder, or --run RUN {name}."
        )
    if folder is None and not data:
        raise RunError(f"There is neither a run nor data of the name {name!r}.{_near(name)}")
    return folder is not None


def _near(name: str) -> str:
    from aevb.data.sources import SOURCES
    from aevb.runs.store import all_runs

    return suggest(name, {*SOURCES, *(path.name for path in all_runs())})


def is_data(name: str) -> bool:
    """Whether this is an address, or there are data of this name, or a file or folder of it that is no run."""
    from aevb.data.addresses import is_address
    from aevb.data.sources import SOURCES

    path = Path(name).expanduser()
    return name in SOURCES or is_address(name) or (path.exists() and not (path / "recipe.toml").is_file())


def asked_for(
    first: str | None, second: str | None, run: str | None, moved: str | None, part: str, rest: dict[str, Any]
) -> Asked:
    """What [RUN] [NEW], --run and --data name."""
    name, new = run_and_new(first, second, run)
    return Asked(open_run(name, None, moved), new, part, **rest)


def is_run(name: str | None) -> bool:
    """Whether this names a run, and no data."""
    return name is not None and run_folder(name) is not None and not is_data(name)


def rows(asked: Asked) -> Found:
    """The rows, checked against what the model reads, in the data's order.

    Raises:
        DataError: they do not fit the model, or lack labels that it needs.
    """
    from aevb.runs.evaluate import rows_of

    run = asked.run
    if asked.new is None:
        _refuse_given(asked)
        split = rows_of(run, run.dataset(asked.data_dir), asked.part)
        names = range(len(split)) if split.names is None else split.names.tolist()
        return Found(run, split, "file" if names and isinstance(names[0], str) else "row", names)
    return new_rows(asked, asked.new)


def _refuse_given(asked: Asked) -> None:
    if asked.given is not None:
        raise RecipeError(f"--given {asked.given} is for NEW data; the {asked.part} split has labels of its own.")


def new_rows(asked: Asked, source: str) -> Found:
    """All rows of new data, read by the run's own values."""
    from dataclasses import replace

    from aevb.data.pictures import Fit
    from aevb.data.unsplit import Reader, read_unsplit

    run = asked.run
    where = run.recipe.source()
    values = run.values(asked.data_dir)
    new = read_unsplit(source, asked.data_dir, Fit(where.size or None, where.crop or None), values.schema)
    reader = Reader(tuple(run.meta["shape"]), values, where.axes, f"run {run.path.name}")
    split = reader.split(new)
    labels = labels_of(run, new, asked.given)
    split = split if labels is None else replace(split, labels=labels)
    names = new.files or range(len(split))
    return Found(run, split, "row" if new.files is None else "file", names, new.frame)


def labels_of(run: Run, new: Unsplit, given: str | None) -> Any:
    """The labels of new rows as the run's classes, (N,), where its model is conditioned on them."""
    import torch

    classes = run.classes()
    if not classes:
        if given is not None:
            raise unconditional(run, given)
        return None
    if given is not None:
        return torch.full((len(new.x),), class_named(given, classes))
    if new.labels is None:
        raise DataError(
            f"{new.where} has no labels, but {run.path.name} models p(x|y). Name the class of all rows: --given CLASS."
        )
    numbers = {name: class_named(name, classes, f"{new.where}, label") for name in set(new.labels)}
    return torch.tensor([numbers[name] for name in new.labels])


def unconditional(run: Run, given: str) -> RecipeError:
    """What to say of a class that a model without classes is asked for."""
    why = f"--given {given}: {run.path.name} has no classes, since it was trained without labels."
    if run.recipe.source().source and run.meta.get("splits", {}).get("train", {}).get("labels"):
        return RecipeError(f"{why} Its data have labels: train one with --recipe conditional.")
    return RecipeError(f"{why} Leave --given out; or train on data with labels, by --recipe conditional.")


def class_named(name: str, classes: Mapping[int, str], asked: str = "--given") -> int:
    """The number of a class: that of the name, or the number itself where names are words."""
    for number, called in classes.items():
        if called == name:
            return number
    words = not any(called.removeprefix("-").isdecimal() for called in classes.values())
    if words and name.isdecimal() and int(name) in classes:
        return int(name)
    raise DataError(f"{asked} {name}: there is no such class in the train split.{suggest(name, classes.values())}")
