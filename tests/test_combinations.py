"""Parts of all axes drawn at random: they train, save and load if and only if what they declare says so.

Here the declarations are read once more, from the tables of a recipe alone; the library reads them from the parts it
made.
"""

from __future__ import annotations

import inspect
import math
import random
import re
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aevb.data.batch import Batch
from aevb.data.dataset import Dataset, Split, Values
from aevb.data.sources import load_data
from aevb.errors import DataError, RecipeError, ShapeError, TrainingDiverged
from aevb.parts import (
    CONTEXT,
    HIERARCHY,
    LADDER,
    LIKELIHOOD,
    OBJECTIVE,
    POSTERIOR,
    PRIOR,
    TERM,
    Member,
    Needs,
    Offers,
    Support,
    Tail,
    conflicts,
    find,
    part_of,
    parts_in,
)
from aevb.runs.fit import fit
from aevb.runs.parts import AXES, construct
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
    "elbo": [
        {},
        {"estimator": "A"},
        {"beta": 0},
        {"free_bits": 0.1},
        {"capacity": 3.0},
        {"samples": 2},
        {"balance": 1.0},
    ],
    "importance-weighted": [
        *({"samples": 4, "gradient": g} for g in ("plain", "dreg", "vimco")),
        *({"samples": 4, "groups": 2}, {"samples": 4, "elbo": 0.1}, {"samples": 4, "alpha": 0.5}),
        *({"samples": 4, "encoder_groups": 2}, {"samples": 1, "gradient": "stl"}),
    ],
    "concrete": [{}, {"temperature": {"type": "linear", "start": 1.0, "end": 0.5, "steps": 3}}],
    "wake-sleep": [{}, {"samples": 3, "wake": 0.5}],
    "dip": [{}, {"kind": "II"}],
}
RATES = {"adam": 1e-3, "adagrad": 1e-2, "sgd": 1e-5}
LADDERS = [
    {"type": "mlp", "latents": [3, 2], "hidden": [8, 8]},
    {"type": "conv", "rungs": [1, 1], "width": 4, "channels": 2},
]
SUITED = {  # what the numbers of the data are, for a likelihood on each support
    Support.REAL: "standardized",
    Support.BINARY: "dynamic",
    Support.LEVELS: "levels",
    Support.COUNTS: "raw",
    **dict.fromkeys((Support.POSITIVE, Support.UNIT, Support.ANGLES), "inside"),
}
SENTENCE = re.compile(r"The [\w .|()-]+ gives no .+, which [\w .-]+ requires\. (Choose .+|Leave one of them out)\.")


@cache
def digits(values: str) -> Dataset:
    """Digits; "inside" has no pixel at 0 or 1, which positive numbers and those between 0 and 1 do not cover."""
    if values != "inside":
        return load_data("digits", values=values)
    whole = load_data("digits", values="grey")
    parts = (getattr(whole, name) for name in ("train", "validation", "test"))
    return Dataset("inside", *(Split(0.05 + 0.9 * part[:], part.labels, Values("raw")) for part in parts))


def fitting(posterior: str) -> list[str]:
    """The priors that go with a posterior, by their declarations."""
    q = Member(POSTERIOR, posterior, find(POSTERIOR, posterior).offers)
    return [
        p.word for p in parts_in(PRIOR).values() if not any(conflicts([q, Member(PRIOR, p.word, p.offers, p.needs)]))
    ]


TABLES = {"categories", "columns", "many-categories", "quantiles"}  # likelihoods of vectors; digits are pictures


def drawn(seed: int) -> Recipe:
    """A recipe whose parts are drawn from `AXES`, on data that its likelihood covers, with a prior that mostly fits."""
    pick = random.Random(seed)

    def part(axis: str, name: str | None = None) -> dict[str, Any]:
        word = name or pick.choice(sorted(set(AXES[axis]) - TABLES))
        return {"type": word, **SMALL.get(word, {}), **pick.choice(SETTINGS.get(word, [{}]))}

    tables = {axis: part(axis) for axis in ("prior", "posterior", "likelihood", "encoder", "decoder", "objective")}
    if pick.random() < 0.75:
        tables["prior"] = part("prior", pick.choice(fitting(tables["posterior"]["type"])))
    known = any(find(axis, tables[axis]["type"]).needs.labels for axis in ("prior", "objective"))
    coded = find(POSTERIOR, tables["posterior"]["type"]).offers.uniform
    optimizer = pick.choice(["adam", *RATES])
    settings = {
        **tables,
        "latent": [3, 4] if coded and pick.random() < 0.9 else pick.choice([2, 3]),
        "terms": [part("terms") for _ in range(pick.choice([0, 0, 0, 0, 0, 0, 1, 2]))],
        "data": {"source": "digits", "values": SUITED[find(LIKELIHOOD, tables["likelihood"]["type"]).offers.support]},
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
        ladder = pick.choice(LADDERS)
        replaced = find(LADDER, ladder["type"]).offers.instead
        return {k: v for k, v in settings.items() if k not in replaced} | {"ladder": ladder}
    if pick.random() < 0.75:
        name = pick.choice(["normal", "laplace", "student-t", "full-normal", "planar", "iaf"])
        posterior = {"type": name, **SMALL.get(name, {})}
        settings |= {"latent": 3, "posterior": posterior, "prior": {"type": "standard-student-t"}}
    return {**settings, "chain": [{"latent": 2, "type": pick.choice(sorted(AXES["chain"])), "hidden": [8]}]}


# What the declarations say of a recipe, read off its tables


def needs_of(axis: str, table: dict[str, Any]) -> Needs:
    """What a part with these numbers needs; where it is made of a model, what its class says."""
    part = find(axis, table["type"])
    if "model" in inspect.signature(part.make).parameters:
        return part.needs
    return part_of(construct(axis, part.make, {k: v for k, v in table.items() if k != "type"})).needs


def declared(s: dict[str, Any]) -> list[Member]:
    """All parts of a recipe, by their declarations."""
    classes = s.get("context", {}).get("classes", 0)
    likelihood, objective = find(LIKELIHOOD, s["likelihood"]["type"]), find(OBJECTIVE, s["objective"]["type"])
    found = [
        Member(LIKELIHOOD, likelihood.word, likelihood.offers),
        Member(OBJECTIVE, objective.word, objective.offers, needs_of(OBJECTIVE, s["objective"])),
        *(Member(TERM, t["type"], needs=needs_of(TERM, t)) for t in s["terms"]),
        *(Member(TERM, t["type"], needs=Needs(terms=True)) for t in s["terms"]),
        Member(CONTEXT, "", Offers(labels=classes > 0), Needs(conditions=classes > 0)),
    ]
    if "ladder" in s:
        own = Offers(Support.REAL, layers=2, own_weights=False, conditions=False)
        return [*found, *(Member(role, "normal", own) for role in (POSTERIOR, PRIOR, HIERARCHY))]
    posterior, prior = find(POSTERIOR, s["posterior"]["type"]), find(PRIOR, s["prior"]["type"])
    weights = isinstance(posterior.make, type) and issubclass(posterior.make, nn.Module)
    family = Offers(Support.REAL) if weights or s["chain"] else posterior.offers  # of which a learned prior is
    alike = replace(prior.offers, support=family.support, tolerates=family.tolerates)
    offers = alike if prior.needs.components or prior.word == "vamp" else prior.offers
    found += [Member(POSTERIOR, posterior.word, posterior.offers), Member(PRIOR, prior.word, offers, prior.needs)]
    needs = Needs(kl=True, layered=True, real_latents=True)
    return [*found, *([Member(HIERARCHY, "chain", Offers(layers=2), needs)] if s["chain"] else [])]


def shaped(s: dict[str, Any]) -> bool:
    """Whether the latents have the shape that the posterior needs; and terms are logged by names of their own."""
    names = [find(TERM, t["type"]).make.name for t in s["terms"]]  # type: ignore[attr-defined]
    if "ladder" in s or len(set(names)) < len(names):
        return len(set(names)) == len(names)
    return find(POSTERIOR, s["posterior"]["type"]).offers.uniform == isinstance(s["latent"], list)


def far_draws(s: dict[str, Any]) -> bool:
    """Whether draws of z may lie so far out that they end a training."""
    offers = [find(axis, s[axis]["type"]).offers for axis in (PRIOR, POSTERIOR) if axis in s]
    return any(o.tail > Tail.GAUSSIAN or o.support is Support.POSITIVE for o in offers)


# What happens


def outcome(recipe: Recipe) -> str:
    """ "trained", or the sentence of the refusal; an error of another kind for anything else."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = fit(recipe, digits(recipe.settings["data"]["values"]), Path(folder) / "run")
        except (RecipeError, ShapeError, DataError) as refusal:
            return str(refusal)
        except TrainingDiverged:
            if not far_draws(recipe.settings):
                raise
            return "trained"
        check(run, recipe)
    return "trained"


def check(run: Run, recipe: Recipe) -> None:
    """Every number that was logged is finite, and the run that is opened again gives equal outputs."""
    for line in run.metrics():
        for name, value in [*line["train"].items(), *line.get("validation", {}).items()]:
            assert math.isfinite(value), (name, value)
    y = recipe.context().each(7) if recipe.context().classes else None
    batch = Batch(digits(recipe.settings["data"]["values"]).test[:7], y)
    with torch.no_grad():
        a, b = (opened.model() for opened in (run, Run.open(run.path)))
        codes = a.encode(batch)
        assert codes.isfinite().all()
        assert torch.equal(codes, b.encode(batch))
        assert torch.equal(a.decode(codes, y).mean, b.decode(codes, y).mean)


def against_declarations(seeds: range) -> tuple[int, int, list[str]]:
    """How many recipes the declarations admit, how many train, and where the two differ."""
    admitted, trained, wrong = 0, 0, []
    for seed in seeds:
        recipe = drawn(seed)
        conflict = next(conflicts(declared(recipe.settings)), None)
        expected = conflict is None and shaped(recipe.settings)
        try:
            found = outcome(recipe)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        admitted, trained = admitted + expected, trained + (found == "trained")
        worded = conflict is None or not shaped(recipe.settings) or SENTENCE.fullmatch(found)
        if expected != (found == "trained") or not worded:
            kept = {k: v for k, v in recipe.settings.items() if k in {*AXES, "latent", "terms", "context"}}
            wrong.append(f"{seed}: declared {conflict or expected}: {found[:300]} <- {kept}")
    return admitted, trained, wrong


def test_random_combinations_train_where_their_declarations_admit_them() -> None:
    admitted, trained, wrong = against_declarations(range(60))
    assert wrong == []
    assert trained == admitted >= 25


@pytest.mark.slow
def test_many_random_combinations_train_where_their_declarations_admit_them() -> None:
    admitted, trained, wrong = against_declarations(range(60, 600))
    assert wrong == []
    assert trained == admitted >= 225


def test_the_remedy_of_a_refusal_cures_it() -> None:
    """Each alternative that a sentence names is one with which the declarations conflict no more."""
    cured = 0
    for seed in range(200):
        members = declared(drawn(seed).settings)
        conflict = next(conflicts(members), None)
        for word in [] if conflict is None else remedies(conflict.part, members):
            others = [m for m in members if m.role != conflict.part.role]  # type: ignore[union-attr]
            part = find(conflict.part.role, word)  # type: ignore[union-attr]
            assert not any(conflicts([*others, Member(conflict.part.role, word, part.offers, part.needs)]))
            cured += 1
    assert cured > 100


def remedies(part: Member, members: list[Member]) -> list[str]:
    """The words that the sentence of the first conflict lists for one of its parts."""
    from aevb.parts import sentence

    text = sentence(next(conflicts(members)), members).partition("Choose one of: ")[2]
    return [word for word in re.split(r"[;.]", text)[0].split(", ") if word in parts_in(part.role)]
