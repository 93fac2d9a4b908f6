"""A grid of recipes: every combination of some settings, with every seed."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from aevb.errors import RecipeError
from aevb.runs.plain import type_of
from aevb.runs.ranges import shown
from aevb.runs.recipe import Recipe, parse_value

OPEN, CLOSED, QUOTES = "[{(", "]})", "\"'"
LONGEST = 120  # letters in the name of a run
MOST = 10_000  # runs of a grid


@dataclass(frozen=True, eq=False)
class Cell:
    """One training of a grid.

    Attributes:
        settings: what this cell sets, by keys such as objective.beta.
        name: of the run's folder.
    """

    settings: Mapping[str, Any]
    seed: int
    recipe: Recipe
    name: str


def grid(recipe: Recipe, data: str, settings: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> list[Cell]:
    """The cells: every combination of the settings' values, each with every seed.

    Args:
        data: the name of the data.

    Raises:
        RecipeError: a setting without a value, a value or a seed twice, or a seed that is no whole number.
    """
    for key, values in settings.items():
        _check_values(key, values)
    seeds = _checked_seeds(seeds, math.prod(map(len, settings.values())))
    points = [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]
    cells = []
    for point in points:
        changed = recipe.replace(**{key.replace(".", "__"): value for key, value in point.items()})
        stem = _named(data, recipe.name, point)
        cells += [Cell(point, s, changed.replace(training__seed=s), f"{stem}-seed={s}") for s in seeds]
    return cells


def _check_values(key: str, values: Sequence[Any]) -> None:
    if key == "training.seed":
        raise RecipeError("sweep: training.seed is set by the seeds: --seeds 0:8.")
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise RecipeError(f"sweep: {key} needs a list of values, such as [{shown(values)}]; got {shown(values)}.")
    if not len(values):
        raise RecipeError(f"sweep: {key} has no values. Give at least one.")
    words = [written(v) for v in values]
    twice = next((v for i, v in enumerate(values) if v in values[:i] or words[i] in words[:i]), None)
    if twice is not None:
        raise RecipeError(f"sweep: {key} has the value {shown(twice)} twice. Give it once.")


def _check_many(runs: int) -> None:
    if runs > MOST:
        raise RecipeError(f"sweep: {runs:,} runs are more than {MOST:,}. Give fewer values or seeds.")


def _checked_seeds(seeds: Sequence[int], points: int) -> Sequence[int]:
    """The seeds, as Python's whole numbers."""
    if not isinstance(seeds, Iterable):
        raise RecipeError(f"sweep: the seeds are a list, such as range(3); got {shown(seeds)}.")
    seeds = seeds if isinstance(seeds, range) else list(seeds)
    if not len(seeds):
        raise RecipeError("sweep: there are no seeds. Give some: --seeds 0:8.")
    _check_many(points * len(seeds))
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
            raise RecipeError(f"sweep: a seed is a whole number of at least 0; got {shown(seed)}.")
    if len(set(seeds)) < len(seeds):
        raise RecipeError("sweep: a seed is given twice. Give each once.")
    return [int(seed) for seed in seeds]


def seeds_of(text: str) -> Sequence[int]:
    """«0:8» → 0 to 7; «3» → 3; «0,5,7» → these.

    Raises:
        RecipeError: it is none of them, or more than a sweep can have.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text.strip())
    seeds: Sequence[int]
    try:
        seeds = range(int(found[1]), int(found[2])) if found else [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if isinstance(seeds, range):
        _check_many(seeds.stop - seeds.start)
    if not seeds:
        raise RecipeError(f"--seeds {text}: give a range, such as 0:8 for 0 to 7, or a list, such as 0,1,2.")
    return seeds


def alternatives(assignments: Sequence[str]) -> dict[str, list[Any]]:
    """«objective.beta=1,2,4» → {"objective.beta": [1, 2, 4]}; commas in brackets and in quotes separate nothing.

    Raises:
        RecipeError: an assignment without «=», without a value, or two of one key.
    """
    found: dict[str, list[Any]] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not key or not text:
            raise RecipeError(
                f"--set {assignment!r}: write key=value, or key=value,value, such as objective.beta=1,2,4."
            )
        if key in found:
            raise RecipeError(f"--set {key} is given twice. Give all its values at once: --set {key}=1,2.")
        found[key] = [parse_value(part.strip()) for part in split(text) if part.strip()]
    return found


def split(text: str) -> Iterator[str]:
    """The parts of a text between its commas, those in brackets and in quotes not counted."""
    depth, quote, start = 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in QUOTES:
            quote = c
        elif c in OPEN + CLOSED:
            depth += 1 if c in OPEN else -1
        elif c == "," and depth <= 0:
            yield text[start:i]
            start = i + 1
    yield text[start:]


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """What keys are called in names and tables: their last part, or all of them where two have the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: end if last.count(end) == 1 else key for key, end in zip(keys, last, strict=True)}


def written(value: Any) -> str:
    """A value in a name or a table; of a part its type alone where it has nothing else."""
    table = isinstance(value, Mapping) and set(value) == {"type"}
    return str(type_of(value)) if table else str(value)


def _brief(value: Any) -> str:
    """A value in a name: of a list of sizes 32x32."""
    sizes = isinstance(value, list) and all(isinstance(part, int) for part in value)
    return "x".join(map(str, value)) if sizes and value else written(value)


def _named(data: str, recipe: str, point: Mapping[str, Any]) -> str:
    """digits-beta=2, without what no file name takes; values that would be confused have a hash behind them."""
    words = [*dict.fromkeys([Path(data).stem, recipe])]
    whole = [f"{short_keys(list(point))[key]}={_brief(value)}" for key, value in point.items()]
    plain = [re.sub(r"[^\w.=+-]+", "_", word) for word in (*words, *whole)]
    name = "-".join(plain)
    if plain[len(words) :] == whole and len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(repr(whole).encode()).hexdigest()[:8]
    return f"{name[:LONGEST]}-{digest}"
