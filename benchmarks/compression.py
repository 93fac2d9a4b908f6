"""How many bits a pixel the test images of MNIST take, and how many their bound says.

    python benchmarks/compression.py [--runs FOLDER] [--seeds 0 1 2] [--epochs 20] [--rows 10000] [--values dynamic]

Trains a model for each seed, where FOLDER/mnist-SEED is not there yet: the recipe `mnist` with 40 latents, Bernoulli
pixels drawn anew; of grey levels (`--values levels`, FOLDER/levels-SEED) a beta-binomial over 256 of them. Then the
test images, binarised once (`Split.frozen`), are compressed and decompressed in one thread. Prints a table in Markdown:
bits a pixel, mean ± standard deviation over the seeds, beside gzip, bz2 and xz at their highest levels on the same
images.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import lzma
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aevb
from aevb.apps.cli import app
from aevb.runs.store import Run

GENERAL: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda b: gzip.compress(b, 9),
    "bz2 -9": lambda b: bz2.compress(b, 9),
    "xz -9e": lambda b: lzma.compress(b, preset=9 | lzma.PRESET_EXTREME),
}
LEVELS = ["--set", "likelihood.type=beta-binomial", "--set", "data.values=levels"]


def trained(place: Path, values: str, seed: int, epochs: float) -> Run:
    """The run in FOLDER, trained now where it is not there."""
    folder = place / f"{'mnist' if values == 'dynamic' else values}-{seed}"
    if not folder.exists():
        words = ["train", "mnist", "--recipe", "mnist", "--latent", 40, "--epochs", epochs, "--seed", seed]
        more = [*(LEVELS if values == "levels" else []), "--no-figures", "--quiet", "--out", folder]
        app([str(word) for word in [*words, *more]], standalone_mode=False)
    return Run.open(folder)


def measured(run: Run, rows: int) -> dict[str, float]:
    """Bits a pixel by the bound, Σ -L(x) of one and of many draws of z, and of the file; seconds of both ways."""
    model, split = run.model(), run.dataset().test.take(rows)
    x = split[:]
    bits = x.numel() * math.log(2)
    bound = float(-aevb.elbo(model, x, samples=5).elbo.sum()) / bits
    begun = time.perf_counter()
    packed = aevb.compress(model, split)
    turned = time.perf_counter()
    found = aevb.decompress(model, packed)
    seconds = turned - begun, time.perf_counter() - turned
    if not torch.equal(found, x):
        raise SystemExit(f"{run.path}: the rows did not come back")
    file = 8 * len(packed) / x.numel()
    said = f"{run.path.name}: -ELBO {bound:.5f}, file {file:.5f} bits a pixel ({100 * (file / bound - 1):+.2f} %)"
    print(f"{said}, {len(packed):,} bytes, {seconds[0]:.0f} s, {seconds[1]:.0f} s", file=sys.stderr, flush=True)
    return {
        "bound": bound,
        "file": file,
        "excess": 100 * (file / bound - 1),
        "compress": seconds[0],
        "decompress": seconds[1],
    }


def general(run: Run, rows: int) -> dict[str, float]:
    """Bits a pixel of compressors for any bytes: one pixel to a byte, or eight where these are bits; the better one."""
    split = run.dataset().test.take(rows)
    pixels = split.stored.numpy()
    given = [pixels.tobytes(), *([np.packbits(pixels).tobytes()] if split.values.levels == 2 else [])]
    return {name: min(8 * len(press(b)) for b in given) / pixels.size for name, press in GENERAL.items()}


def spread(found: list[dict[str, float]], name: str, digits: int) -> str:
    values = [one[name] for one in found]
    error = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{error}"


def table(found: list[dict[str, float]], others: dict[str, float], raw: float, rows: int) -> str:
    """In Markdown."""
    lines: list[tuple[Any, ...]] = [
        ("raw", f"{raw:g}"),
        *((name, f"{value:.4f}") for name, value in others.items()),
        ("-ELBO, 5 draws of z a row", spread(found, "bound", 4)),
        ("**`aevb compress`**", f"**{spread(found, 'file', 4)}**"),
        ("its excess over -ELBO, %", spread(found, "excess", 2)),
        (f"seconds to compress {rows:,} images", spread(found, "compress", 0)),
        (f"seconds to decompress {rows:,} images", spread(found, "decompress", 0)),
    ]
    return "\n".join(["| | bits a pixel |", "|---|---|", *(f"| {a} | {b} |" for a, b in lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/compression"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--values", choices=["dynamic", "levels"], default="dynamic")
    given = parser.parse_args()
    runs = [trained(given.runs, given.values, seed, given.epochs) for seed in given.seeds]
    found = [measured(run, given.rows) for run in runs]
    raw = 1 if given.values == "dynamic" else 8
    print(table(found, general(runs[0], given.rows), raw, min(given.rows, len(runs[0].dataset().test))))


if __name__ == "__main__":
    main()
