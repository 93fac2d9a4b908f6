"""A run as a folder for a model hub: weights, recipe, and a card with its numbers and their errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import tomli_w

import aevb
from aevb.data.sources import SOURCES
from aevb.errors import RunError
from aevb.evaluation.estimate import Estimate, with_errors
from aevb.evaluation.evaluate import table
from aevb.runs.equations import equation
from aevb.runs.files import read_json, write_json, write_text
from aevb.runs.recipe import Recipe
from aevb.runs.store import HUB_WEIGHTS, Run

OF_A_MACHINE = ("platform", "threads", "device", "seconds")  # facts of meta.json that are not of the model
ALONG = ("objective.safetensors", "evaluation-test.json", "evaluation-validation.json")
CARD = "README.md"


def write_hub(run: Run, folder: Path) -> list[Path]:
    """A folder that `aevb.load` reads, and a model hub shows: weights, recipe, numbers, a card. No data are in it.

    Names of columns, their levels and their ranges are, since the model cannot be used without them.

    Returns:
        The files.

    Raises:
        RunError: the run has no weights, or the folder is not empty.
    """
    run.model()  # all of it can be read
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    recipe = of_nobody(run.recipe)
    shutil.copyfile(run.weights, folder / HUB_WEIGHTS)
    write_text(folder / "recipe.toml", tomli_w.dumps({"name": recipe.name, **recipe.settings}))
    write_json(folder / "meta.json", {k: v for k, v in run.meta.items() if k not in OF_A_MACHINE})
    for name in ALONG:
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, folder / name)
    write_text(folder / CARD, card(run, folder.name))
    return sorted(folder.iterdir())


def of_nobody(recipe: Recipe) -> Recipe:
    """The recipe without the folders of the machine that trained it."""
    source = recipe.source().source
    bare = source if source in SOURCES else Path(source).name
    return recipe.replace(data__source=bare, data__dir="")


# The card


def card(run: Run, name: str) -> str:
    """The model card: Markdown under YAML."""
    kept = run.path / "evaluation-test.json"
    numbers = with_errors(read_json(kept)) if kept.is_file() else {}
    recipe = of_nobody(run.recipe)
    sizes = ", ".join(f"{facts['n']:,} {part}" for part, facts in run.meta["splits"].items())
    parts = [
        _front(recipe, numbers, name),
        f"# {cell(name)}",
        f"{cell(recipe.settings.get('title', ''))}. A variational autoencoder, trained with aevb {aevb.__version__}"
        f" on {cell(recipe.source().source or 'data given in Python')}: {sizes} rows.",
        "## How to use it",
        _block(_usage(run, name), "python"),
        "## Numbers",
        *_numbers(numbers),
        "## The model",
        _block("\n".join(equation(run.recipe)), "text"),
        *_columns(run),
        "## Limits",
        "The numbers hold for rows like those of the test split. On data of another origin they may differ:"
        " `aevb score` says how unusual a row is. Generated rows are not facts about any person or thing.",
    ]
    return "\n\n".join(parts) + "\n"


def _front(recipe: Recipe, numbers: Mapping[str, Any], name: str) -> str:
    """What a hub reads, as YAML; each value is JSON, which is YAML too."""
    metrics = [
        {"type": key, "name": words, "value": round(float(numbers[key]), 4)}
        for key, words in (("elbo", "ELBO, nats"), ("log_likelihood", "log p(x), nats"))
        if isinstance(numbers.get(key), Estimate) and numbers[key].known
    ]
    data = {"type": recipe.source().source or "own", "name": recipe.source().source or "own"}
    task = {"type": "density-estimation", "name": "density estimation"}
    index = [{"name": name, "results": [{"task": task, "dataset": data, "metrics": metrics}]}]
    tags = ["aevb", "variational-autoencoder", "vae", "generative-model", recipe.name]
    lines = {"library_name": "aevb", "tags": tags, **({"model-index": index} if metrics else {})}
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in lines.items()), "---"])


def _usage(run: Run, name: str) -> str:
    classes = run.recipe.context().classes
    given = f", y=torch.eye({classes})[:1]" if classes else ""
    lines = ["import torch"] * bool(classes) + ["import aevb", "", f"model = aevb.load({name!r})  # this folder"]
    return "\n".join([*lines, f"x = aevb.generate(model, 10{given})"])


def _numbers(numbers: Mapping[str, Any]) -> Iterable[str]:
    if not numbers:
        yield "The model was not evaluated: `aevb evaluate` does that."
        return
    yield f"Of {numbers['n']:,} test rows; ± is one standard error over rows."
    yield _table(("", "value", "unit"), table(dict(numbers)))
    if numbers.get("importance_warning"):
        yield cell(numbers["importance_warning"])


def _columns(run: Run) -> Iterable[str]:
    schema = run.values().schema
    if schema is not None:
        yield "## Columns"
        rows = [(c.name, c.kind, c.likelihood or "not modelled") for c in schema.columns]
        yield _table(("column", "kind", "likelihood"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [[cell(part.strip()) for part in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [[*head], ["---"] * len(head), *lines])


def _block(text: str, language: str) -> str:
    fence = "```" if "```" not in text else "`````"
    return f"{fence}{language}\n{text}\n{fence}"


def cell(text: str) -> str:
    """Text that is neither markup of HTML nor of Markdown."""
    plain = escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in plain)
