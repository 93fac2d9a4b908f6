"""Seconds of the estimators: `python benchmarks/estimators.py`, on an idle machine.

Fits of small tables, and rows per second of a table of a million rows and 20 columns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import aevb

REPEATS = 3


def rows(n: int, columns: int, seed: int = 0) -> np.ndarray:
    """Normal rows that depend on 8 latents."""
    g = np.random.default_rng(seed)
    return g.normal(size=(n, 8)) @ g.normal(size=(8, columns)) + 0.3 * g.normal(size=(n, columns))


def seconds(work: Callable[[], object]) -> tuple[float, float, float]:
    """The median, the least and the most of several times."""
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found), min(found), max(found)


def main() -> None:
    print(f"{torch.get_num_threads()} threads; medians of {REPEATS}, least and most in brackets")
    small = rows(500, 6)
    aevb.VAEEmbedding(random_state=0, samples=500).fit(small)  # imports
    for n in (100, 500):
        middle, least, most = seconds(lambda n=n: aevb.VAEEmbedding(random_state=0).fit(small[:n]))
        print(f"fit {n} rows x 6: {middle:.2f} s ({least:.2f} to {most:.2f})")
    table = rows(1_000_000, 20)
    model = aevb.VAEEmbedding(random_state=0, samples=50_000).fit(table[:50_000])
    for name, work, n in (
        ("encode", model.transform, len(table)),
        ("score (K = 100)", model.score_samples, 20_000),
    ):
        middle, least, most = (n / s for s in seconds(lambda w=work, n=n: w(table[:n])))
        print(f"{name}: {middle:,.0f} rows/s ({most:,.0f} to {least:,.0f})")


if __name__ == "__main__":
    main()
