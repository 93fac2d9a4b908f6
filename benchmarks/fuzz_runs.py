"""Damaged run folders and odd recipes: each ends in an answer that is right, or in one sentence.

    python -m benchmarks.fuzz_runs [--folders 4000] [--recipes 10000] [--seed 0]

A run is copied, a file of it is damaged, and a verb is tried: load, evaluate, resume, train for longer, list. It must
end in an `AevbError`, or give the numbers of the run as it was. Recipes are the library's with settings changed: each
must be refused by an `AevbError`, or train two steps, save, load and be evaluated. Everything else is printed, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from aevb.data.dataset import Dataset
from aevb.data.sources import load_data
from aevb.errors import AevbError, AevbWarning
from aevb.evaluation.estimate import flat
from aevb.runs.evaluate import evaluate_run
from aevb.runs.files import read_tensors
from aevb.runs.fit import fit, resume
from aevb.runs.index import summaries
from aevb.runs.recipe import EvaluationSettings, Recipe, recipe_names
from aevb.runs.recipe import flat as settings_of
from aevb.runs.store import Run

FILES = (
    *("recipe.toml", "meta.json", "metrics.jsonl", "weights.safetensors", "checkpoint/state.safetensors"),
    "evaluation-test.json",
)
NEEDS_MORE = {"flow-prior", "iaf", "m2"}  # zuko, or more rows than the fuzz has
SLOW = 5.0  # seconds of the processor


def small() -> Recipe:
    base = Recipe.load("bernoulli").override(["latent=2", "encoder.hidden=[8]", "decoder.hidden=[8]"])
    return base.replace(
        data__values="dynamic",
        training__samples=500,
        training__optimizer={"type": "adam"},
        evaluation__importance_samples=5,
    )


def make(place: Path, data: Dataset) -> Run:
    """The run that is damaged."""
    run = fit(small(), data, place)
    evaluate_run(run, data)
    return run


# Damage


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file with one fault of a disk, of a program that died, or of a hand that changed it."""
    return rng.choice(FAULTS)(bytearray(content), rng)


def _flip(content: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _cut(content: bytearray, rng: random.Random) -> bytes:
    return bytes(content[: rng.randrange(len(content))])


def _zero(content: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    length = min(rng.choice([1, 16, 512]), len(content) - start)
    content[start : start + length] = bytes(length)
    return bytes(content)


def _twice(content: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return bytes(content[:start] + content[start : start + 40] + content[start:])


def _other(content: bytearray, rng: random.Random) -> bytes:
    return rng.choice([b"", b"[]", b"{}", b"5", b"null", b"\xff\xfe\x00", b"[" * 5000, b'{"format": "1"}', b"\xe9"])


def _encoded(content: bytearray, rng: random.Random) -> bytes:
    return bytes(content).decode("latin-1").encode(rng.choice(["utf-16", "utf-8-sig"]))


def _key(content: bytearray, rng: random.Random) -> bytes:
    """A fact of a table of JSON removed, or of another type."""
    try:
        table = json.loads(bytes(content).splitlines()[0] if b"}\n{" in content else bytes(content))
        key = rng.choice(sorted(table))
    except (ValueError, IndexError, TypeError, AttributeError):
        return _flip(content, rng)
    if rng.random() < 0.3:
        del table[key]
    else:
        table[key] = rng.choice([None, -1, 1e400, "x", [], {}, [1], {"a": 1}, True])
    return json.dumps(table).encode()


Fault = Callable[[bytearray, random.Random], bytes]
FAULTS: tuple[Fault, ...] = (
    _flip,
    _flip,
    _cut,
    _zero,
    _twice,
    _other,
    _encoded,
    _key,
)


# Verbs


def loaded(path: Path, data: Dataset) -> Any:
    return {k: v.clone() for k, v in Run.open(path).model().state_dict().items()}


def evaluated(path: Path, data: Dataset) -> Any:
    return flat(evaluate_run(Run.open(path), data))


def resumed(path: Path, data: Dataset) -> Any:
    return loaded(resume(Run.open(path), data).path, data)


def lengthened(path: Path, data: Dataset) -> Any:
    run = resume(Run.open(path), data, samples=700)
    return {k: v.clone() for k, v in read_tensors(run.path / "checkpoint/state.safetensors")[0].items()}


def listed(path: Path, data: Dataset) -> Any:
    return [line for line in summaries(path.parent) if line["run"] == "whole"]


VERBS: dict[str, Callable[[Path, Dataset], Any]] = {
    "load": loaded,
    "evaluate": evaluated,
    "resume": resumed,
    "longer": lengthened,
    "runs": listed,
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and all(isinstance(v, torch.Tensor) for v in a.values()):
        return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())
    return json.dumps(a, default=str) == json.dumps(b, default=str)


# What comes of it


class Found(Counter[str]):
    """Counts of outcomes; the failures in words."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[str] = []

    def fail(self, kind: str, words: str) -> None:
        self[kind] += 1
        self.failures.append(f"{kind}: {words}")


def folders(number: int, seed: int, place: Path, data: Dataset) -> Found:
    """Damage `number` copies of a run, and try a verb on each."""
    rng, found = random.Random(seed), Found()
    whole = make(place / "whole", data).path
    right = {}
    for verb, use in VERBS.items():
        shutil.copytree(whole, place / "copy")
        right[verb] = use(place / "copy", data)
        shutil.rmtree(place / "copy")
    for i in range(number):
        name, verb = rng.choice(FILES), rng.choice(list(VERBS))
        shutil.copytree(whole, place / "copy")
        changed = damaged((whole / name).read_bytes(), rng)
        (place / "copy" / name).write_bytes(changed)
        with outcome(found, f"folder {i}, {name}, {verb}") as settle:
            settle(same(VERBS[verb](place / "copy", data), right[verb]) or name in ("recipe.toml", "meta.json"))
        shutil.rmtree(place / "copy")
    return found


class outcome:
    """Count what a block ends in: an answer, a sentence, another number, a traceback, a long wait."""

    def __init__(self, found: Found, what: str) -> None:
        self.found, self.what, self.right = found, what, True

    def __enter__(self) -> Callable[[bool], None]:
        self.begun = time.process_time()
        return self._settle

    def _settle(self, right: bool) -> None:
        self.right = right

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if time.process_time() - self.begun > SLOW:
            self.found.fail("slow", f"{self.what}, {time.process_time() - self.begun:.0f} s")
        if error is None and self.right:
            self.found["accepted"] += 1
        elif error is None:
            self.found.fail("another number", self.what)
        elif isinstance(error, AevbError):
            self.found["sentence"] += 1
        elif isinstance(error, Exception):
            last = traceback.extract_tb(trace)[-1]
            words = f"{type(error).__name__}: {str(error)[:100]} ({Path(last.filename).name}:{last.lineno})"
            self.found.fail("traceback", f"{self.what}: {words}")
        return isinstance(error, Exception)


VALUES = (
    *("0", "-1", "1", "2", "1e12", "1e20", "1e30", "-1e30", "nan", "inf", "-inf", "0.5", "1e-300", "true", "''"),
    *("x", "[]", "{}", "[1, 2]", "[0]", "{type='linear', start=0.0, end=1.0, steps=2}", "{[]:1}", "9" * 5000),
    *("3", "5", "0.1", "0.01", "10", "[3]", "[8, 8]", "false", "adam", "relu", "2.5", "normal", "elbo", "grey"),
    *("[" * 2000, "-" * 3000 + "1", '{type="normal"}', "1e3", "0.999", "[1e30]", "\x00", "'é'"),
)


def assignments(recipe: Recipe, rng: random.Random) -> Iterator[str]:
    """One to three changes of settings, of those that the recipe has or of others."""
    own = dict(settings_of(recipe.settings))
    numbers = [k for k, v in own.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    if rng.random() < 0.5:
        key = rng.choice(numbers)
        yield f"{key}={_near(own[key], rng)}"
        return
    for _ in range(rng.choice([1, 1, 2, 3])):
        yield f"{rng.choice([*_keys(recipe.settings), *MORE])}={rng.choice(VALUES)}"


def _near(number: float, rng: random.Random) -> float:
    """A number like this one, or its like of another size or sign."""
    return rng.choice([number * 2, number + 1, number * rng.choice([1, 1, 1, -1, 1e3, 1e9]), max(number // 2, 1)])


MORE = (
    *("training.clip", "training.ema", "training.batch", "training.seed", "training.optimizer.lr", "name", "title"),
    *("evaluation.samples", "evaluation.importance_samples", "validation.every", "validation.patience", "data.axes"),
    *("training.optimizer.eps", "objective.beta", "objective.samples", "encoder.init", "decoder.init", "latent"),
    *("training.optimizer.lr", "training.clip", "training.batch", "latent", "training.seed", "objective.beta"),
    *("encoder.hidden", "posterior.flows", "validation.samples", "validation.importance_samples", "data.seed", "prior"),
)


def _keys(settings: dict[str, Any], under: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield f"{under}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{under}{key}.")


KINDS = ("dynamic", "levels", "grey", "standardized", "raw")


def trained(recipe: Recipe, data: Dataset, place: Path) -> None:
    """Two steps of a recipe, its run read again, and evaluated."""
    run = fit(recipe.replace(training__samples=2 * recipe.training().batch), data, place)
    again = Run.open(run.path)
    loaded(again.path, data)
    evaluate_run(again, data, settings=EvaluationSettings(importance_samples=5), limit=20)


def bases(names: Sequence[str], place: Path, sets: Mapping[str, Dataset]) -> dict[str, str]:
    """Of each recipe the values of data that it takes as it is."""
    found = {}
    for name in names:
        for kind in KINDS:
            with suppress(AevbError):
                trained(Recipe.load(name).replace(data__values=kind), sets[kind], place / "base")
                found[name] = kind
            shutil.rmtree(place / "base", ignore_errors=True)
            if name in found:
                break
    return found


def recipes(number: int, seed: int, place: Path, names: Sequence[str]) -> Found:
    """Change settings of `number` recipes, and train each that is accepted for two steps."""
    rng, found = random.Random(seed), Found()
    sets = {kind: rows(load_data("digits", values=kind)) for kind in KINDS}
    kinds = bases(names, place, sets)
    for i in range(number):
        name = rng.choice(sorted(kinds))
        changes = [*assignments(Recipe.load(name), rng)]
        with outcome(found, f"recipe {i}, {name}, {[c[:60] for c in changes]}"):
            changed = Recipe.load(name).replace(data__values=kinds[name]).override(changes)
            trained(changed, sets[kinds[name]], place / "run")
        shutil.rmtree(place / "run", ignore_errors=True)
    return found


def rows(data: Dataset, n: int = 60) -> Dataset:
    """The first rows of each split."""
    parts = [getattr(data, part).take(n) for part in ("train", "validation", "test")]
    return Dataset(data.name, *parts, data.recipe, data.class_names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=int, default=4000)
    parser.add_argument("--recipes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", AevbWarning)
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        for what, number in (("folders", options.folders), ("recipes", options.recipes)):
            home = Path(place) / what
            home.mkdir()
            if what == "folders":
                found = folders(number, options.seed, home, load_data("digits", values="dynamic"))
            else:
                found = recipes(number, options.seed, home, sorted({*recipe_names()} - NEEDS_MORE))
            print(f"{number} {what}: {dict(found)}")
            for line in found.failures:
                print(f"    {line}")
            bad += len(found.failures)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
