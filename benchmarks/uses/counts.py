"""Counts: expression of 200 genes in 7,480 blood cells; held-out log-likelihood, and cell types in the embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
from scipy.stats import nbinom, poisson
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import train_test_split

from benchmarks.uses import ours, peers
from benchmarks.uses.cells import DATA, Cell, Numbers, Stopwatch
from benchmarks.uses.tables import Floats

SEEDS = 3
SIZE = 10
ABOUT = """\
`pbmc.h5ad`, counts of 200 genes. The library is told that they are counts, as the file's format implies. *log p(x)*:
nats a cell on a held-out fifth of the cells, one split a seed. The factorised models treat each gene alone: Poisson
with its mean; negative binomial also with its variance, where that is larger. *NMI*: between annotated cell types and
k-means with as many clusters; the 32 cells without a type do not count. k-means runs on ten numbers a cell: the
embedding, or principal components of log(1 + count), or of log(1 + count per 10,000)."""


@cache
def cells_and_types() -> tuple[Floats, np.ndarray[Any, Any]]:
    """Counts (N, D) and the name of each cell's type (N,), "NA" where it is not known."""
    file = peers.call("h5ad", {}, path=str(DATA / "tables" / "pbmc.h5ad"), labels="cell_type")
    return file["counts"].astype(np.float64), file["labels"]


def library(train: Floats, test: Floats, seed: int, likelihood: str = "") -> Floats:
    density = ours.fit_density(train.astype(np.int64), seed, kind="count", likelihood=likelihood)
    return density.score(test.astype(np.int64))


def factorised_poisson(train: Floats, test: Floats, seed: int) -> Floats:
    logs: Floats = poisson(smoothed(train)).logpmf(test).sum(axis=1)
    return logs


def factorised_negative_binomial(train: Floats, test: Floats, seed: int) -> Floats:
    """By moments: r = m^2 / (v - m), p = r / (r + m)."""
    mean, variance = smoothed(train), train.var(axis=0)
    r = mean**2 / np.maximum(variance - mean, 1e-6 * mean)
    logs: Floats = nbinom(r, r / (r + mean)).logpmf(test).sum(axis=1)
    return logs


def smoothed(train: Floats) -> Floats:
    """Means of which none is zero: one count more in all cells."""
    mean: Floats = (train.sum(axis=0) + 1) / len(train)
    return mean


DENSITIES: dict[str, Callable[[Floats, Floats, int], Floats]] = {
    "aevb": library,
    "aevb, negative binomial": partial(library, likelihood="negative-binomial"),
    "aevb, Poisson": partial(library, likelihood="poisson"),
    "factorised negative binomial": factorised_negative_binomial,
    "factorised Poisson": factorised_poisson,
}


def embedded(counts: Floats, seed: int) -> Floats:
    whole = counts.astype(np.int64)
    return ours.fit_embedding(whole, SIZE, seed, kind="count").transform(whole)


def components(counts: Floats, seed: int, *, per_cell: bool = False) -> Floats:
    """Principal components of log(1 + count), or of log(1 + count in 10,000 counts of the cell)."""
    if per_cell:
        counts = 1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    numbers: Floats = PCA(SIZE, random_state=seed).fit_transform(np.log1p(counts))
    return numbers


EMBEDDINGS: dict[str, Callable[[Floats, int], Floats]] = {
    "aevb": embedded,
    "PCA of log counts": components,
    "PCA of log counts in 10,000": partial(components, per_cell=True),
}


def held_out(score: Callable[[Floats, Floats, int], Floats], seed: int) -> Numbers:
    train, test = train_test_split(cells_and_types()[0], test_size=0.2, random_state=seed)
    with Stopwatch() as watch:
        logs = score(train, test, seed)
    return {"log_px": float(logs.mean()), "seconds": watch.seconds}


def agreement(embed: Callable[[Floats, int], Floats], seed: int) -> Numbers:
    """Normalised mutual information of cell types and clusters."""
    counts, types = cells_and_types()
    with Stopwatch() as watch:
        numbers = embed(counts, seed)
    known = types != "NA"
    clusters = KMeans(len(set(types[known])), n_init=10, random_state=seed).fit_predict(numbers)
    return {"nmi": float(normalized_mutual_info_score(types[known], clusters[known])), "seconds": watch.seconds}


def cells(seeds: int | None) -> Iterator[Cell]:
    for seed in range(seeds or SEEDS):
        for method, score in DENSITIES.items():
            yield Cell("counts", "pbmc, held out", method, seed, partial(held_out, score, seed))
        for method, embed in EMBEDDINGS.items():
            yield Cell("counts", "pbmc, cell types", method, seed, partial(agreement, embed, seed))
