"""A picture and a number for every recipe: each trained briefly on the digits that come with scikit-learn.

    python -m benchmarks.gallery [NAME ...]

It writes docs/images/gallery/NAME.png, 24 samples, and docs/images/gallery/gallery.json, which the page of recipes
shows. One seed and a fixed budget for all, so the numbers say what a recipe does at first, not what it can reach. Names
train these alone, and keep the rest of the file.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import aevb
from aevb.errors import AevbError
from aevb.evaluation.estimate import Estimate
from aevb.runs.evaluate import evaluate_run
from aevb.runs.recipe import EvaluationSettings, recipe_names

PLACE = Path(__file__).parent.parent / "docs" / "images" / "gallery"
BUDGET = {"samples": 30_000, "seed": 0, "data": "digits", "importance_samples": 500}
ROWS, COLUMNS, SCALE, GAP = 2, 12, 4, 2  # of a picture: digits, and pixels for each pixel of theirs
ELSEWHERE = {"table": "It is for rows of a table, and digits are pictures. Tables have a page of their own."}
FEWER = {"ladder-conv": 20}  # importance samples, where one takes long
NUMBERS = ("elbo", "reconstruction", "kl", "log_likelihood")


def schedules(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    """(key, steps) of every schedule below a table of a recipe."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            if isinstance(value.get("steps"), int):
                yield f"{path}{key}__steps", value["steps"]
            yield from schedules(value, f"{path}{key}__")


def brief(recipe: aevb.Recipe) -> aevb.Recipe:
    """The recipe with the budget; schedules of the loss take the share of the training that they take in full."""
    training = recipe.settings["training"]
    changes: dict[str, Any] = {"training__samples": BUDGET["samples"], "training__seed": BUDGET["seed"]}
    if training.get("samples"):
        share = BUDGET["samples"] / training["samples"]
        parts = {axis: recipe.settings.get(axis, {}) for axis in ("objective", "posterior")}
        changes |= {key: max(1, round(share * steps)) for key, steps in schedules(parts)}
    return recipe.replace(**changes)


def picture(rows: Any, most: float) -> Image.Image:
    """Digits (N, 1, 8, 8) between 0 and `most`, row by row."""
    side = 8 * SCALE + GAP
    sheet = torch.full((ROWS * side - GAP, COLUMNS * side - GAP), 255.0)
    for i, digit in enumerate((torch.as_tensor(rows)[:, 0].double() / most).clamp(0, 1)):
        top, left = i // COLUMNS * side, i % COLUMNS * side
        large = digit.repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)
        sheet[top : top + 8 * SCALE, left : left + 8 * SCALE] = 255 * large
    return Image.fromarray(sheet.round().to(torch.uint8).numpy())


def trained(name: str) -> dict[str, Any]:
    """Train a recipe, write its picture, and give its numbers."""
    recipe = brief(aevb.Recipe.load(name))
    data = aevb.load_data("digits", values=recipe.settings["data"]["values"] or None)
    with tempfile.TemporaryDirectory() as folder:
        run = aevb.fit(recipe, data, Path(folder) / name)
        draws = FEWER.get(name, BUDGET["importance_samples"])
        found = evaluate_run(run, data, settings=EvaluationSettings(importance_samples=draws))
        count = ROWS * COLUMNS
        y = run.each(count)
        new = run.values().inverse(aevb.generate(run.model(), count, seed=0, y=y))
    picture(new, float(data.train.stored.max())).save(PLACE / f"{name}.png", optimize=True)
    known = {n: found[n] for n in NUMBERS if isinstance(found.get(n), Estimate) and found[n].known}
    numbers = {n: {"mean": round(float(e), 3), "se": round(e.se, 3)} for n, e in known.items()}
    facts = {
        "importance_samples": draws,
        "values": data.train.values.kind,
        "relaxed": not found["is_likelihood"],
        "given_labels": y is not None,
    }
    return {**numbers, **facts}


def main(names: list[str]) -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    file = PLACE / "gallery.json"
    known = json.loads(file.read_text(encoding="utf-8"))["recipes"] if names and file.is_file() else {}
    for name in names or recipe_names():
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                known[name] = {"reason": ELSEWHERE[name]} if name in ELSEWHERE else trained(name)
            except AevbError as error:
                known[name] = {"reason": str(error)}
        found = {"budget": BUDGET, "version": aevb.__version__, "recipes": dict(sorted(known.items()))}
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{name}: {time.process_time() - start:.0f} s, {known[name]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
