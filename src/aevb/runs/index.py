"""Lists: of runs, of recipes, of what is in a data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from aevb.data.sources import load_data
from aevb.errors import AevbError
from aevb.runs.build import latents_text
from aevb.runs.equations import equation, headed
from aevb.runs.files import busy, read_json
from aevb.runs.meta import check_meta
from aevb.runs.recipe import Recipe, flat, read_text, recipe_names
from aevb.runs.store import Run, all_runs

COLUMNS = (
    *("run", "status", "data", "recipe", "latent", "samples"),
    *("test ELBO", "test ELBO se", "log p(x)", "log p(x) se"),
)

SHOWN = ("title", "paper", "latent", "training.samples")  # in columns of their own, or not at all


def summaries(root: Path | None = None) -> list[dict[str, Any]]:
    """One line per run; a folder that cannot be read is listed as incomplete, and damaged numbers are left out.

    After `COLUMNS` come the settings in which runs of the same data and recipe differ, by their keys.
    """
    opened = [(path, _opened(path)) for path in all_runs(root)]
    own = differing([run for _, run in opened if run is not None])
    return [_summary(path, run) | {key: _setting(run, key) for key in own} for path, run in opened]


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys of settings in which runs of the same data and recipe differ, such as objective.beta."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((str(run.recipe.source().source), run.recipe.name), []).append(
            dict(flat(run.recipe.settings))
        )
    found = dict.fromkeys(key for members in groups.values() for key in _unequal(members))
    return [key for key in found if key not in SHOWN and not key.startswith("data.")]


def _unequal(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all of them."""
    keys = dict.fromkeys(key for settings in members for key in settings)
    return [key for key in keys if any(m.get(key) != members[0].get(key) for m in members)]


def _setting(run: Run | None, key: str) -> Any:
    return None if run is None else dict(flat(run.recipe.settings)).get(key)


def _opened(path: Path) -> Run | None:
    try:
        return Run.open(path)
    except AevbError:
        return None


def _summary(path: Path, run: Run | None) -> dict[str, Any]:
    line: dict[str, Any] = dict.fromkeys(COLUMNS)
    line |= {"run": path.name, "status": "incomplete"}
    if run is None:
        return line
    s = run.recipe.settings
    line |= {"status": status(run), "data": Path(s["data"]["source"]).name, "recipe": run.recipe.name}
    with suppress(AevbError):  # of a recipe that was changed by hand
        check_meta(run.path, run.meta)
        layered = "ladder" in s or s["chain"]
        line |= {"latent": latents_text(run.recipe, run.meta["shape"]) if layered else s["latent"]}
    return line | {"samples": run.meta.get("samples")} | _numbers(path / "evaluation-test.json")


def _numbers(verdict: Path) -> dict[str, Any]:
    """The numbers of an evaluation that a line of the list shows; none of a file that is damaged or not there."""
    if not verdict.is_file():
        return {}
    found: dict[str, Any] = {}
    with suppress(AevbError):
        result = read_json(verdict)
        for name, key in (("test ELBO", "elbo"), ("log p(x)", "log_likelihood")):
            found |= {name: _rounded(result.get(key)), f"{name} se": _rounded(result.get(f"{key}_se"))}
    return found


def status(run: Run) -> str:
    """As the run says; but one that trains no more, because it was killed, is interrupted."""
    said = str(run.meta.get("status"))
    return "interrupted" if said == "training" and not busy(run.path) else said


def _rounded(number: Any) -> float | None:
    known = isinstance(number, int | float) and math.isfinite(number)
    return round(number, 2) if known else None


def recipe_summaries() -> list[dict[str, str]]:
    recipes = [Recipe.load(name) for name in recipe_names()]
    return [{"recipe": r.name, "what it is": r.settings["title"], "paper": r.settings["paper"]} for r in recipes]


def recipe_text(name: str) -> str:
    """The TOML of a recipe, with its comments, under its equation, which is a comment too."""
    recipe, own = Recipe.load(name), Path(name).suffix == ".toml"
    file = resources.files("aevb.runs").joinpath("recipes", f"{name}.toml")
    return headed(recipe, read_text(Path(name)) if own else file.read_text(encoding="utf-8")).rstrip()


def recipe_details(name: str) -> dict[str, Any]:
    """What it is, its equation, and all settings, defaults filled in."""
    recipe = Recipe.load(name)
    return {"recipe": recipe.name, "equation": equation(recipe), **recipe.settings}


def describe_data(
    source: str, data_dir: Path | None = None, size: int | None = None, crop: str | None = None
) -> dict[str, Any]:
    """What is in a data set: its shape, splits, values, labels, recipe, licence and citation."""
    data = load_data(source, data_dir=data_dir, size=size, crop=crop)
    kind = data.train.values.kind
    described = {
        "what it is": data.description,
        "shape": "×".join(map(str, data.shape)),
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
        "values": kind if kind == data.support else f"{kind} ({data.support})",
        "labels": ", ".join(data.class_names) if data.class_names else None,
        "default recipe": data.recipe,
        "licence": data.licence,
        "cite": data.citation,
    }
    return {k: v for k, v in described.items() if v is not None and v != ""}
