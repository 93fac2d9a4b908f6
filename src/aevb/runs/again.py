"""The same command line once more: what it asks of a run that is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aevb.errors import RecipeError
from aevb.runs.fit import amendable
from aevb.runs.recipe import Recipe, flat
from aevb.runs.store import Run

ABSENT = object()
NAMES = {
    "training.batch": "--batch",
    "training.seed": "--seed",
    "training.compile": "--compile",
    "training.precision": "--precision",
    "latent": "--latent",
}


@dataclass(frozen=True)
class CommandLine:
    """What was asked for: a source, a recipe, other settings by their keys, assignments, and the length.

    Attributes:
        options: such as {"training.batch": 50}; None for one that was not given.
    """

    source: str | None
    recipe: str | None
    options: Mapping[str, Any]
    assignments: Sequence[str]
    epochs: float | None = None
    samples: float | None = None

    def over(self, recipe: Recipe, samples: int | None) -> Recipe:
        """A recipe with the options that were given, and a total of training samples."""
        given = {key.replace(".", "__"): value for key, value in self.options.items() if value is not None}
        return recipe.replace(**given, **({} if samples is None else {"training__samples": samples}))


def agree(run: Run, asked: CommandLine) -> list[str]:
    """The assignments that change what may be changed in a run, such as its step size; all others must be as it is.

    Raises:
        RecipeError: an option contradicts the run; the message has both values.
    """
    for name, its, yours in _pairs(run, asked):
        if its != yours:
            raise RecipeError(
                f"{name} contradicts {run.path}: the run has {_text(its)}, you gave {_text(yours)}. "
                "Leave the option as it was, or choose another --out."
            )
    return [a for a in asked.assignments if amendable(_key(a)) and _at(run.recipe, _key(a)) != _given(run, a)]


def longer(run: Run, samples: int | None) -> int | None:
    """A new total of training samples, if it is more than the run was to see; else None."""
    return samples if samples is not None and samples > run.recipe.training().samples else None


def _pairs(run: Run, asked: CommandLine) -> Iterator[tuple[str, Any, Any]]:
    """(option, the run's value, yours) of each option that a run cannot take anew."""
    if asked.source is not None:
        yield "SOURCE", _last(run.recipe.source().source), _last(asked.source)
    if asked.recipe is not None:
        given = Recipe.load(asked.recipe)
        yield "--recipe", run.recipe.name, given.name
        own = Path(asked.recipe).suffix == ".toml"
        over = {key for key, value in asked.options.items() if value is not None} | set(map(_key, asked.assignments))
        yield from _of_file(run, given, over) if own else ()
    for key, value in asked.options.items():
        if value is not None:
            yield NAMES[key], _at(run.recipe, key), value
    for assignment in asked.assignments:
        if not amendable(_key(assignment)):
            yield f"--set {_key(assignment)}", _at(run.recipe, _key(assignment)), _given(run, assignment)


def _of_file(run: Run, given: Recipe, over: set[str]) -> Iterator[tuple[str, Any, Any]]:
    """The settings of a recipe file of one's own, which may have changed, but for those that options replace."""
    for key, value in flat(given.settings):
        replaced = any(key == other or key.startswith(f"{other}.") for other in over)
        if value != {} and not replaced and not amendable(key) and not key.startswith(("data.", "context.")):
            yield f"--recipe: {key}", _at(run.recipe, key), value


def _key(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _given(run: Run, assignment: str) -> Any:
    return _at(run.recipe.override([assignment]), _key(assignment))


def _at(recipe: Recipe, key: str) -> Any:
    """The value of a key, or the default of a training's; ABSENT where a recipe does not say it."""
    found: Any = recipe.settings
    for name in key.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return getattr(recipe.training(), name, ABSENT) if key == f"training.{name}" else ABSENT
        found = found[name]
    return found


def _last(source: str) -> str:
    """A name, or the last part of a path: a file may have moved, and its fingerprint says whether it is the same."""
    return Path(source).name


def _text(value: Any) -> str:
    return "none" if value is ABSENT else repr(value)
