"""A warm start: a training that begins with the weights of a run, whose parts must be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from aevb.data.alike import alike
from aevb.data.dataset import Dataset
from aevb.errors import RecipeError
from aevb.runs.ranges import shown
from aevb.runs.recipe import Recipe, flat
from aevb.runs.store import Run

MODEL = ("latent", "prior", "posterior", "likelihood", "encoder", "decoder", "chain", "ladder", "context")


@dataclass(frozen=True, eq=False)
class First:
    """A trained model with whose weights another training begins: its recipe, and what to call it in messages."""

    model: nn.Module
    recipe: Recipe
    name: str

    @classmethod
    def of(cls, recipe: Recipe) -> First | None:
        """That of the run that the recipe's `init` names; None where it names none.  RunError: there is no such run."""
        run = first_run(recipe)
        return None if run is None else cls(run.model(), run.recipe, str(run.path))


def first_run(recipe: Recipe) -> Run | None:
    """The run with whose weights a training begins; None: with random ones.  RunError: there is no such run."""
    return Run.open(recipe.init) if recipe.init else None


def read_alike(recipe: Recipe, data: Dataset) -> Dataset:
    """The data, their numbers as the run reads them that the training begins with: its scales, columns and levels."""
    run = first_run(recipe)
    return data if run is None else alike(data, run.values())


def like_run(run: Run) -> Recipe:
    """The recipe of a run for other data: with its parts and the kinds of its columns, without its length."""
    settings = {key: value for key, value in run.recipe.settings.items() if key != "init"}
    lengths = {"training": ("samples",), "validation": ("patience", "every")}
    for table, keys in lengths.items():
        settings[table] = {k: v for k, v in settings[table].items() if k not in keys}
    schema = run.values().schema
    kinds = {} if schema is None else {"columns": {column.name: column.asked for column in schema.columns}}
    data = {**settings["data"], **kinds}
    return Recipe(run.recipe.name, {**settings, "data": data}).replace(init=str(run.path.resolve()))


def begin(model: nn.Module, recipe: Recipe, first: First) -> None:
    """Give the model of a recipe the weights of another of the same parts.

    Raises:
        RecipeError: a part differs; the sentence names the first that does.
    """
    differs = next(_differences(model, recipe, first), None)
    if differs is not None:
        what, there, here = differs
        raise RecipeError(
            f"The weights of {first.name} do not fit: {what} is {shown(there)} there, and {shown(here)} here."
        )
    model.load_state_dict(first.model.state_dict())


def _differences(model: nn.Module, recipe: Recipe, first: First) -> Iterator[tuple[str, Any, Any]]:
    """What differs, and what it is there and here: keys of the recipes, then shapes of weights."""
    ours, theirs = ({k: v for k, v in r.settings.items() if k in MODEL} for r in (recipe, first.recipe))
    for key in MODEL:
        yield from _keys(key, theirs.get(key), ours.get(key))
    here, there = ({k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (model, first.model))
    for name in there | here:
        if there.get(name) != here.get(name):
            yield f"the shape of {name}", there.get(name), here.get(name)


def _keys(key: str, there: Any, here: Any) -> Iterator[tuple[str, Any, Any]]:
    """The settings of one table that differ, by their keys."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        a, b = dict(flat(there, f"{key}.")), dict(flat(here, f"{key}."))
        yield from ((name, a.get(name), b.get(name)) for name in a | b if a.get(name) != b.get(name))
    elif there != here:
        yield key, there, here


def unstarted(recipe: Recipe) -> Recipe:
    """The recipe of a training that resumes from a checkpoint: its weights come from there."""
    return recipe.replace(init=None)
