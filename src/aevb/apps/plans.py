"""What is to be trained: a recipe, the data that it suits, and what is said of both before the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevb.apps import show
from aevb.errors import DataError, RecipeError

if TYPE_CHECKING:
    from aevb.data.dataset import Dataset
    from aevb.data.sources import Source
    from aevb.runs.recipe import Recipe
    from aevb.runs.recipe import Source as Where


@dataclass(frozen=True)
class Plan:
    """What is to be trained: a recipe and where its data are, which are read once they are needed."""

    recipe: Recipe
    told: bool = False  # whether `line` was said already
    there: tuple[Where, Dataset] | None = None  # data that were read before, and as which settings say

    @cached_property
    def data(self) -> Dataset:
        """The rows, their numbers as the run reads them that the training begins with, if there is one."""
        from aevb.runs.begin import read_alike

        return read_alike(self.recipe, self._read())

    def _read(self) -> Dataset:
        from aevb.runs.sources import read

        if self.there and self.there[0] in (asked := self.recipe.source(), replace(asked, values="")):
            usual = self.there[1]
            if asked.values in (self.there[0].values, usual.train.values.kind):
                return usual
        try:
            return read(self.recipe)
        except DataError as error:
            raise DataError(f"{error}{self.cure(str(error))}", changes=error.changes) from error

    def cure(self, message: str) -> str:
        """The options that help where the recipe's own kind of values does not fit the data; else nothing."""
        from aevb.runs.recipe import Recipe, recipe_names

        name, kind = self.recipe.name, self.recipe.source().values
        fails = name in recipe_names() and f"values={kind!r} does not fit" in message
        if not fails or Recipe.load(name).source().values != kind:
            return ""
        options = "--set data.values=standardized --set likelihood.type=normal"
        return f" The recipe {name} needs {kind}. To keep it for real numbers: {options}. Or leave --recipe out."

    @property
    def known(self) -> Source | None:
        """The source of data that are known by name: their sizes are known before they are read."""
        from aevb.data.sources import SOURCES

        return SOURCES.get(self.recipe.source().source)

    @property
    def rows(self) -> int:
        """Of the train split."""
        return self.known.counts[0] if self.known else len(self.data.train)

    @property
    def shape(self) -> Sequence[int]:
        return self.known.shape if self.known else self.data.shape

    @property
    def name(self) -> str:
        return self.known.name if self.known else self.data.name

    def changed(self, changes: Mapping[str, Any], epochs: float | None, samples: float | None) -> Plan:
        """The same with other numbers in its recipe, and a length in epochs or training samples."""
        given = {key.replace(".", "__"): value for key, value in changes.items() if value is not None}
        if epochs is not None or samples is not None:
            given["training__samples"] = total_samples(epochs, samples, self.rows)
        there = (self.recipe.source(), self.data) if "data" in vars(self) else self.there
        return replace(self, recipe=self.recipe.replace(**given), there=there)

    @property
    def line(self) -> str:
        """digits (1,197 × 1×8×8), recipe digits, 2 latents."""
        return self.line_with()

    def line_with(self, latents: Sequence[object] = ()) -> str:
        """The same with several numbers of latents, of which each is trained."""
        from aevb.runs.build import latents_text

        words = ", ".join(map(str, latents)) or latents_text(self.recipe, self.shape)
        return line(self.name, (self.rows, self.shape), self.recipe.name, words)


def line(name: str, size: tuple[int, Sequence[int]], recipe: str, latents: str) -> str:
    """The first line of a training, in Rich's markup."""
    rows = f"{size[0]:,} × {'×'.join(map(str, size[1]))}"
    return f"[bold]{show.escaped(name)}[/bold] ({rows}), recipe [bold]{show.escaped(recipe)}[/bold], {latents} latents"


def tell_early(source: str | None, recipe: str | None, latent: int | None) -> bool:
    """Say the first line before the parts of models are imported, where names alone tell it; whether it was said."""
    import tomllib
    from importlib import resources

    from aevb.data.sources import SOURCES

    known = SOURCES.get(source or "")
    if known is None:
        return False
    file = resources.files("aevb.runs").joinpath("recipes", f"{recipe or known.recipe}.toml")
    if not file.is_file():
        return False
    settings = tomllib.loads(file.read_text(encoding="utf-8"))
    size = latent or settings.get("latent")
    if not isinstance(size, int) or {"ladder", "chain"} & set(settings):
        return False
    show.note(line(known.name, (known.counts[0], known.shape), recipe or known.recipe, str(size)))
    return True


def choose(source: str | None, recipe: str | None, data_dir: Path | None, assignments: list[str]) -> Plan:
    """The recipe, with what the data say about it."""
    from aevb.data.sources import SOURCES
    from aevb.runs.recipe import Recipe

    named = Recipe.load(recipe) if recipe else _begun(assignments)
    where = source or (named.source().source if named else "")
    if not where:
        raise DataError("Missing SOURCE. Name one, such as: aevb train digits. `aevb data` lists them.")
    changes = _found_at(where, data_dir)
    there = None
    if named is None:
        there = None if where in SOURCES else _read_as_said(changes, assignments)
        named = Recipe.load(there[1].recipe if there else SOURCES[where].recipe)  # the data say which suits them
    return Plan(named.replace(**changes).override(assignments), there=there)


def _begun(assignments: list[str]) -> Recipe | None:
    """The recipe of the run that a training begins with; None without one."""
    from aevb.runs.begin import like_run
    from aevb.runs.recipe import Recipe
    from aevb.runs.store import Run

    init = Recipe("", {}).override([a for a in assignments if a.partition("=")[0].strip() == "init"]).init
    return like_run(Run.open(init)) if init else None


def weighed(weights: str | None, columns: list[str] | None, exposure: str | None = None) -> list[str]:
    """What --column, --weights and --exposure ask for: of the last two are a weight, and the exposure of all counts."""
    from aevb.data.columns import OF_ALL

    more = {weights: "weight", exposure: OF_ALL}
    return [*(columns or []), *(f"{name}={kind}" for name, kind in more.items() if name is not None)]


def beginning(init: str | None) -> list[str]:
    """The assignment that --init stands for: the run's folder.  RunError: there is no such run."""
    import json

    from aevb.apps.rows import open_run

    return [] if init is None else [f"init={json.dumps(str(open_run(init).path.resolve()))}"]


def _found_at(where: str, data_dir: Path | None) -> dict[str, Any]:
    """The settings that say where data are, paths being absolute."""
    from aevb.data.sources import SOURCES

    path = Path(where).expanduser()
    folder = {} if data_dir is None else {"data__dir": str(data_dir.expanduser().resolve())}
    return {"data__source": str(path.resolve()) if where not in SOURCES and path.exists() else where, **folder}


def _read_as_said(changes: dict[str, Any], assignments: list[str]) -> tuple[Where, Dataset]:
    """The data, read as the assignments say, and how that was."""
    from aevb.runs.recipe import Recipe
    from aevb.runs.sources import read

    of_data = [a for a in assignments if a.partition("=")[0].strip().startswith("data")]
    asked = Recipe("", {}).replace(**changes).override(of_data)
    return asked.source(), read(asked)


def total_samples(epochs: float | None, samples: float | None, n: int) -> int:
    if epochs is not None and samples is not None:
        raise RecipeError("--epochs and --samples are mutually exclusive: give one of them.")
    total = epochs * n if epochs is not None else samples
    assert total is not None
    if not 1 <= total < math.inf:
        raise RecipeError(f"Nothing to train: {total:g} training samples. Give --epochs or --samples above zero.")
    return int(total)


def oddities(recipe: Recipe, data: Dataset) -> list[str]:
    """What a training does otherwise than its settings sound."""
    batch, n, values = recipe.training().batch, len(data.train), data.train.values
    found = [f"a batch of {batch:,} is more than the data have: each step takes all {n:,} train rows"] * (batch > n)
    of_colours = len(data.shape) == 3 and data.shape[0] > 1 and values.support == "binary" and values.levels > 2
    if of_colours:
        found.append(
            f"the recipe {recipe.name} turns colours into bits (data.values={values.kind}); "
            "to keep the colours: --recipe conv"
        )
    return found


def show_plan(plan: Plan, as_json: bool) -> None:
    """What would be trained: the recipe under its equation, sizes, parameters; all parts are built and checked."""
    import tomli_w

    from aevb.runs.build import build_model, build_objective, check_recipe
    from aevb.runs.equations import headed

    recipe, data = plan.recipe.of(plan.data), plan.data
    training, n = recipe.training(), len(data.train)
    model = build_model(recipe, data.shape, data.train.values.levels)
    check_recipe(recipe, model, build_objective(recipe, model, n))
    sizes = {
        "train": n,
        "validation": len(data.validation),
        "test": len(data.test),
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": min(training.batch, n),
        "steps": training.steps(n),
        "samples": training.samples,
    }
    if as_json:
        return show.print_json({"recipe": {"name": recipe.name, **recipe.settings}, **sizes})
    show.note(plan.line)
    for told in oddities(recipe, data):
        show.note(told)
    show.text(headed(recipe, tomli_w.dumps({"name": recipe.name, **recipe.settings})).rstrip())
    rows = [(name, f"{size:,}") for name, size in sizes.items()]
    show.out.print(show.table("\nnothing is trained", ("", ""), rows))
    return None


def fitted(
    size: int | None,
    crop: str | None,
    columns: list[str] | None = None,
    schema: Path | None = None,
    missing: str | None = None,
) -> list[str]:
    """The assignments that --size, --crop, --column, --schema and --missing stand for: new data are read the same way.

    Raises:
        DataError: a size, a crop or a kind that there is not; or no such file.
    """
    from aevb.apps.tables import assignment, kinds_asked
    from aevb.data.pictures import Fit

    if schema is not None and not schema.exists():
        raise DataError(f"there is no file {str(schema)!r}. Write it: aevb data TABLE --schema {schema}")

    Fit(size, crop)
    given = {"data.size": size, "data.crop": crop, "data.missing": missing}
    asked = assignment(kinds_asked(columns, schema))
    return [*asked, *(f"{key}={value}" for key, value in given.items() if value is not None)]
