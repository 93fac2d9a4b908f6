"""Tiny runs on disk, and a JavaScript engine, for tests of pages and exports."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from tabular import mixed_table
from torch import Tensor

import aevb
from aevb.data.columns import Schema
from aevb.data.dataset import Dataset, Split
from aevb.data.values import Values
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

STATIC = Path(aevb.__file__).parent / "apps" / "pages" / "static"
FEW = {"training": {"samples": 64, "batch": 32}, "evaluation": {"importance_samples": 4}}
FOLDER = TemporaryDirectory()  # gone with the process
NODE = shutil.which("node") or shutil.which("nodejs")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no JavaScript engine: node")


def images(n: int, shape: tuple[int, ...], kind: str, labels: bool = False) -> Dataset:
    """Random blobs of so many levels, a third of them to each split."""
    g = torch.Generator().manual_seed(3)
    x = (torch.rand(n, *shape, generator=g) * 256).to(torch.uint8)
    y = torch.arange(n) % 3 if labels else None
    values = Values(kind)  # type: ignore[arg-type]
    parts = [slice(0, n // 2), slice(n // 2, 3 * n // 4), slice(3 * n // 4, n)]
    splits = [Split(x[p], None if y is None else y[p], values) for p in parts]
    names = ("</script><b>zero", "one", "two") if labels else None
    return Dataset("blobs", *splits, recipe="conv", class_names=names)  # type: ignore[misc]


def holed_table() -> Dataset:
    """Mixed columns with holes; the angle is in degrees."""
    data = mixed_table(160)
    columns = [replace(c, levels=(0.0, 360.0)) if c.kind == "angle" else c for c in data.train.values.columns.columns]
    values = Values("columns", schema=Schema(tuple(columns)))
    splits = {name: Split(getattr(data, name).stored, values=values) for name in ("train", "validation", "test")}
    return replace(data, **splits)


def nets(kind: str, *sizes: int) -> dict[str, Any]:
    """Encoder and decoder of a recipe."""
    key = "hidden" if kind == "mlp" else "channels"
    return {side: {"type": kind, key: [*sizes]} for side in ("encoder", "decoder")}


Make = Callable[[], Dataset]
MADE: Mapping[str, tuple[str, dict[str, Any], Make]] = {  # recipe, what changes, data
    "mlp": ("aevb", {"latent": 3, **nets("mlp", 40)}, lambda: images(96, (1, 8, 8), "dynamic")),
    "conv": ("conv", {"latent": 2, **nets("conv", 8, 12)}, lambda: images(96, (1, 9, 7), "grey")),
    "colour": ("residual", {"latent": 4, **nets("residual", 8, 8)}, lambda: images(96, (3, 8, 8), "levels")),
    "conditional": ("conditional", {"latent": 2}, lambda: images(96, (1, 6, 6), "threshold", labels=True)),
    "hierarchy": (
        "lvae",
        {"ladder": {"latents": [4, 2], "hidden": [16, 8]}},
        lambda: images(96, (1, 6, 6), "threshold"),
    ),
    "table": ("table", {"latent": 2, **nets("mlp", 16)}, holed_table),
}


def settings(name: str, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with few training samples."""
    recipe = Recipe.load(name)
    merged = {**recipe.settings}
    for key, value in {**FEW, **changes}.items():
        plain = isinstance(value, dict) and "type" not in value and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if plain else value
    return Recipe(name, merged)


@cache
def tiny(name: str) -> tuple[Run, Dataset]:
    """A run of this kind, trained for two steps."""
    recipe, changes, data = MADE[name]
    found = data()
    folder = Path(FOLDER.name) / name
    run = aevb.fit(settings(recipe, changes), found, folder)
    return run, found


def decoded(content: Mapping[str, Any], inputs: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """What decoder.js makes of a network and its inputs, by name."""
    assert NODE is not None
    for name, part in (("network", content), ("inputs", {k: v.flatten().tolist() for k, v in inputs.items()})):
        (folder / f"{name}.json").write_text(json.dumps(part))
    script = (
        f"import {{ Network }} from {json.dumps((STATIC / 'decoder.js').as_uri())}; import fs from 'fs';"
        f"const read = (n) => JSON.parse(fs.readFileSync({json.dumps(str(folder))} + '/' + n + '.json'));"
        "const out = new Network(read('network')).run(read('inputs'));"
        "console.log(JSON.stringify(Object.fromEntries(Object.entries(out).map(([k, v]) => [k, [...v]]))))"
    )
    (folder / "run.mjs").write_text(script)
    done = subprocess.run([NODE, str(folder / "run.mjs")], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return {name: torch.tensor(x, dtype=torch.float64) for name, x in json.loads(done.stdout).items()}
