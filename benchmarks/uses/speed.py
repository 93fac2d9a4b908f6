"""Speed: seconds to fit small tables, rows a second of what is done with many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

from benchmarks.uses import ours
from benchmarks.uses.cells import Cell, Numbers, Stopwatch
from benchmarks.uses.tables import Floats, imputation_table

SEEDS = 3
ROWS, COLUMNS, TRAIN, SAMPLES = 1_000_000, 20, 2_000, 100
ABOUT = f"""\
*Fit*: a density of the first rows of white wine, with defaults. *Encode* and *score*: {ROWS:,} and {ROWS // 10:,} rows
of {COLUMNS} numbers (linear mixtures of {COLUMNS // 2} normal ones, with noise) by a model trained on {TRAIN:,} of
them; a score uses {SAMPLES} importance samples a row. Wall seconds include other work on the machine; seconds are of
the processor, over all threads."""


@cache
def mixtures(rows: int) -> Floats:
    """(rows, COLUMNS) numbers with a structure; the first rows are the same for any number of rows."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(COLUMNS // 2, COLUMNS))
    noise = rng.normal(size=(rows, COLUMNS + COLUMNS // 2))
    mixed: Floats = noise[:, COLUMNS:] @ mix + 0.5 * noise[:, :COLUMNS]
    return mixed


def timed(work: Callable[[], object], rows: int) -> Numbers:
    """Wall seconds, and rows a second of them."""
    start = time.perf_counter()
    with Stopwatch() as watch:
        work()
    wall = time.perf_counter() - start
    return {"wall": wall, "rows_per_second": rows / wall, "seconds": watch.seconds}


def fit(method: str, rows: int, seed: int) -> Numbers:
    table = imputation_table("wine-white")
    numbers = table.codes(table.columns)[:rows]
    fits: dict[str, Callable[[], object]] = {
        "aevb": lambda: ours.fit_density(numbers, seed),
        "IsolationForest": lambda: IsolationForest(random_state=seed).fit(numbers),
    }
    return timed(fits[method], rows)


def encode(method: str, seed: int) -> Numbers:
    rows, train = mixtures(ROWS), mixtures(TRAIN)
    embed = ours.fit_embedding(train, 10, seed) if method == "aevb" else PCA(10).fit(train)
    return timed(lambda: embed.transform(rows), ROWS)


def score(method: str, seed: int) -> Numbers:
    rows, train = mixtures(ROWS // 10), mixtures(TRAIN)
    if method == "aevb":
        density = ours.fit_density(train, seed)
        return timed(lambda: density.score(rows, samples=SAMPLES), len(rows))
    forest = IsolationForest(random_state=seed).fit(train)
    return timed(lambda: forest.score_samples(rows), len(rows))


def cells(seeds: int | None) -> Iterator[Cell]:
    for seed in range(seeds or SEEDS):
        for rows in (100, 500):
            for method in ("aevb", "IsolationForest"):
                yield Cell("speed", f"fit {rows} rows", method, seed, partial(fit, method, rows, seed))
        for method in ("aevb", "PCA"):
            yield Cell("speed", "encode", method, seed, partial(encode, method, seed))
        for method in ("aevb", "IsolationForest"):
            yield Cell("speed", "score", method, seed, partial(score, method, seed))
