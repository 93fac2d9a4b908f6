"""Parts of all axes drawn at random: they train, save and load, or are refused in words: which part, and what else."""

from __future__ import annotations

import math
import random
import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from aevb.data.dataset import Dataset, Split, Values
from aevb.data.sources import load_data
from aevb.errors import DataError, RecipeError, ShapeError, TrainingDiverged
from aevb.models.latents import side_by_side
from aevb.runs.fit import fit
from aevb.runs.hierarchies import INSTEAD_OF_LADDER
from aevb.runs.parts import AXES
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

SMALL: dict[str, dict[str, Any]] = {  # of each part: numbers that keep it small
    "mlp": {"hidden": [8]},
    "gated": {"hidden": [8]},
    "conv": {"channels": [4, 4]},
    "residual": {"channels": [4, 4]},
    "flow": {"flows": 1, "hidden": [8]},
    "mixture": {"components": 3},
    "vamp": {"components": 5},
    "planar": {"flows": 2},
    "sylvester": {"flows": 1, "reflections": 2},
    "iaf": {"flows": 1, "hidden": [8], "features": 4},
    "householder": {"reflections": 2},
    "logistic-mixture": {"components": 2},
    "density-ratio": {"hidden": [8]},
    "m2": {"hidden": [8]},
    "monte-carlo-em": {"leapfrogs": 2, "updates": 2},
}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "elbo": [{}, {"estimator": "A"}, {"beta": 0}, {"free_bits": 0.1}, {"capacity": 3.0}, {"samples": 2}, {"balance": 1.0}],
    "importance-weighted": [
        *({"samples": 4, "gradient": g} for g in ("plain", "stl", "dreg", "vimco")),
        *({"samples": 4, "groups": 2}, {"samples": 4, "elbo": 0.1}, {"samples": 4, "alpha": 0.5}),
        *({"samples": 4, "encoder_groups": 2}, {"samples": 1, "gradient": "stl"}),
    ],
    "concrete": [{}, {"temperature": {"type": "linear", "start": 1.0, "end": 0.5, "steps": 3}}],
    "wake-sleep": [{}, {"samples": 3, "wake": 0.5}],
}
RATES = {"adam": 1e-3, "adagrad": 1e-2, "sgd": 1e-5}
LADDERS = [
    {"type": "mlp", "latents": [3, 2], "hidden": [8, 8]},
    {"type": "conv", "rungs": [1, 1], "width": 4, "channels": 2},
]
SUITED = {  # what the numbers of the data are, for likelihoods that are not over all real numbers
    **dict.fromkeys(("bernoulli",), "dynamic"),
    **dict.fromkeys(("continuous-bernoulli",), "grey"),
    **dict.fromkeys(("categorical", "discretized-logistic", "logistic-mixture", "beta-binomial"), "levels"),
    **dict.fromkeys(("poisson", "negative-binomial", "zero-inflated-negative-binomial"), "raw"),
    **dict.fromkeys(("exponential", "weibull", "gamma", "log-normal", "beta", "von-mises"), "inside"),
}
MATCHING = {  # priors on what a posterior covers; any of the others is over the real line
    **{name: ["unit-exponential", "log-normal"] for name in ("exponential", "weibull", "gamma", "log-normal")},
    "beta": ["uniform", "mixture", "vamp"],
    "dirichlet": ["flat-dirichlet", "vamp"],
    "von-mises-fisher": ["uniform-sphere"],
    **{name: ["uniform-codes"] for name in ("one-hot", "vq", "fsq")},
    "concrete": ["uniform-concrete"],
}
CODES = ("one-hot", "concrete", "vq", "fsq")
LINE = ["standard-normal", "standard-laplace", "standard-student-t", "flow", "mixture", "vamp", "conditional"]
# of far draws, which may end a training, told so
HEAVY = {"gumbel", "cauchy", "standard-cauchy", "student-t", "standard-student-t", "log-normal"}
WAYS = "take|choose|use|give|leave|rescale|possible|let|add|train|draw|condition|or another|such as|is a prior for|needs"
ELSE = re.compile(rf"(?i)\b({WAYS})\b")


@cache
def digits(values: str) -> Dataset:
    """Digits; "inside" has no pixel at 0 or 1, which positive numbers and those between 0 and 1 do not cover."""
    if values != "inside":
        return load_data("digits", values=values)
    whole = load_data("digits", values="grey")
    parts = (getattr(whole, name) for name in ("train", "validation", "test"))
    return Dataset("inside", *(Split(0.05 + 0.9 * part[:], part.labels, Values("raw")) for part in parts))


def drawn(seed: int) -> Recipe:
    """A recipe whose parts are drawn from `AXES`; mostly, but not always, with data that its likelihood covers."""
    pick = random.Random(seed)

    def part(axis: str) -> dict[str, Any]:
        name = pick.choice(sorted(AXES[axis]))
        return {"type": name, **SMALL.get(name, {}), **pick.choice(SETTINGS.get(name, [{}]))}

    tables = {axis: part(axis) for axis in ("prior", "posterior", "likelihood", "encoder", "decoder", "objective")}
    if pick.random() < 0.75:  # else the prior is likely to be refused
        name = pick.choice(MATCHING.get(tables["posterior"]["type"], LINE))
        tables["prior"] = {"type": name, **SMALL.get(name, {})}
    known = tables["objective"]["type"] == "m2" or tables["prior"]["type"] == "conditional"
    kind = SUITED.get(tables["likelihood"]["type"], "standardized")
    wild = pick.random() < 0.1
    optimizer = pick.choice(["adam", *RATES])
    settings = {
        **tables,
        "latent": [3, 4] if tables["posterior"]["type"] in CODES and pick.random() < 0.9 else pick.choice([2, 3]),
        "terms": [part("terms") for _ in range(pick.choice([0, 0, 0, 0, 0, 0, 1, 2]))],
        "data": {"source": "digits", "values": pick.choice(["dynamic", "grey", "levels"]) if wild else kind},
        "training": {"batch": 20, "samples": 60, "optimizer": {"type": optimizer, "lr": RATES[optimizer]}},
        "context": {"classes": 10} if pick.random() < (0.8 if known else 0.2) else {},
    }
    return Recipe(f"drawn-{seed}", layered(settings, pick) if pick.random() < 0.25 else settings)


def layered(settings: dict[str, Any], pick: random.Random) -> dict[str, Any]:
    """The same with a `[[chain]]` or a `[ladder]`; mostly without what these refuse."""
    if pick.random() < 0.75:
        settings = {**settings, "terms": []}
    if pick.random() < 0.5:
        if pick.random() < 0.75:
            settings |= {"objective": {"type": "elbo", **pick.choice(SETTINGS["elbo"])}}
        return {k: v for k, v in settings.items() if k not in INSTEAD_OF_LADDER} | {"ladder": pick.choice(LADDERS)}
    if pick.random() < 0.75:
        name = pick.choice(["normal", "laplace", "student-t", "full-normal", "planar", "iaf"])
        settings |= {
            "latent": 3,
            "posterior": {"type": name, **SMALL.get(name, {})},
            "prior": {"type": "standard-student-t"},
        }
    return {**settings, "chain": [{"latent": 2, "type": pick.choice(sorted(AXES["chain"])), "hidden": [8]}]}


def outcome(seed: int) -> str:
    """ "trained", or the words of the refusal; an error of another kind for anything else."""
    recipe = drawn(seed)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = fit(recipe, digits(recipe.settings["data"]["values"]), Path(folder) / "run")
        except (RecipeError, ShapeError, DataError) as refusal:
            return told(str(refusal), recipe)
        except TrainingDiverged as explosion:
            if not HEAVY & {recipe.settings[axis]["type"] for axis in ("prior", "posterior") if axis in recipe.settings}:
                raise
            return str(explosion)
        check(run, recipe)
    return "trained"


def told(words: str, recipe: Recipe) -> str:
    """A refusal is one line that names a part, by its word or by its class, and what to do instead."""
    s = recipe.settings
    tables = [s[axis] for axis in AXES if isinstance(s.get(axis), dict)] + s["terms"]
    named = {*(t["type"] for t in tables), *AXES, "network", "data", "context", "latent"}
    plain = words.lower().replace("-", "").replace("_", "")
    assert "\n" not in words
    assert any(name.replace("-", "") in plain for name in named), words
    assert ELSE.search(words), words
    return words


def check(run: Run, recipe: Recipe) -> None:
    """Every number that was logged is finite, and the run that is opened again gives equal outputs."""
    for line in run.metrics():
        for name, value in [*line["train"].items(), *line.get("validation", {}).items()]:
            assert math.isfinite(value), (name, value)
    data = digits(recipe.settings["data"]["values"])
    x = data.test[:7]
    y = recipe.context().each(7) if recipe.context().classes else None
    with torch.no_grad():
        a, b = (opened.model() for opened in (run, Run.open(run.path)))
        codes = a.encode(x, y)
        assert side_by_side(codes).isfinite().all()
        assert torch.equal(side_by_side(codes), side_by_side(b.encode(x, y)))
        assert torch.equal(a.decode(codes, y).mean, b.decode(codes, y).mean)


def failures(seeds: range) -> Iterator[str]:
    for seed in seeds:
        try:
            outcome(seed)
        except Exception as error:
            kept = {k: v for k, v in drawn(seed).settings.items() if k in AXES}
            yield f"{seed}: {type(error).__name__}: {str(error)[:300]} <- {kept}"


def test_random_combinations_train_or_are_refused_in_words() -> None:
    assert list(failures(range(60))) == []


@pytest.mark.slow
def test_many_random_combinations_train_or_are_refused_in_words() -> None:
    assert list(failures(range(60, 600))) == []
