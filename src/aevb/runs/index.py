"""Lists: of runs, of recipes, of what is in a data set."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from aevb.data.sources import load_data
from aevb.errors import AevbError
from aevb.runs.build import latents_text
from aevb.runs.equations import equation, headed
from aevb.runs.files import busy
from aevb.runs.recipe import Recipe, recipe_names
from aevb.runs.store import Run, all_runs

COLUMNS = (
    *("run", "status", "data", "recipe", "latent", "samples"),
    *("test ELBO", "test ELBO se", "log p(x)", "log p(x) se"),
)


def summaries(root: Path | None = None) -> list[dict[str, Any]]:
    """One line per run; a folder that cannot be read is listed as incomplete."""
    return [_summary(path) for path in all_runs(root)]


def _summary(path: Path) -> dict[str, Any]:
    line: dict[str, Any] = dict.fromkeys(COLUMNS)
    line |= {"run": path.name, "status": "incomplete"}
    try:
        run = Run.open(path)
    except AevbError:
        return line
    s = run.recipe.settings
    line |= {"status": status(run), "data": Path(s["data"]["source"]).name, "recipe": run.recipe.name}
    layered = "ladder" in s or s["chain"]
    line |= {"latent": latents_text(run.recipe, run.meta["shape"]) if layered else s["latent"]}
    line |= {"samples": run.meta.get("samples")}
    verdict = path / "evaluation-test.json"
    if verdict.is_file():
        result = json.loads(verdict.read_text(encoding="utf-8"))
        for name, key in (("test ELBO", "elbo"), ("log p(x)", "log_likelihood")):
            line |= {name: _rounded(result[key]), f"{name} se": _rounded(result.get(f"{key}_se"))}
    return line


def status(run: Run) -> str:
    """As the run says; but one that trains no more, because it was killed, is interrupted."""
    said = str(run.meta.get("status"))
    return "interrupted" if said == "training" and not busy(run.path) else said


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)


def recipe_summaries() -> list[dict[str, str]]:
    recipes = [Recipe.load(name) for name in recipe_names()]
    return [{"recipe": r.name, "what it is": r.settings["title"], "paper": r.settings["paper"]} for r in recipes]


def recipe_text(name: str) -> str:
    """The TOML of a recipe, with its comments, under its equation, which is a comment too."""
    recipe, own = Recipe.load(name), Path(name).suffix == ".toml"
    file = Path(name) if own else resources.files("aevb.runs").joinpath("recipes", f"{name}.toml")
    return headed(recipe, file.read_text(encoding="utf-8")).rstrip()


def recipe_details(name: str) -> dict[str, Any]:
    """What it is, its equation, and all settings, defaults filled in."""
    recipe = Recipe.load(name)
    return {"recipe": recipe.name, "equation": equation(recipe), **recipe.settings}


def describe_data(source: str, data_dir: Path | None = None) -> dict[str, Any]:
    """What is in a data set: its shape, splits, values, labels, recipe, licence and citation."""
    data = load_data(source, data_dir=data_dir)
    described = {
        "what it is": data.description,
        "shape": "×".join(map(str, data.shape)),
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
        "values": f"{data.train.values.kind} ({data.support})",
        "labels": ", ".join(data.class_names) if data.class_names else None,
        "default recipe": data.recipe,
        "licence": data.licence,
        "cite": data.citation,
    }
    return {k: v for k, v in described.items() if v is not None and v != ""}
