"""Embedding: ten numbers a digit of MNIST, judged by nearest neighbours, and clusters judged by the labels."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.uses import ours
from benchmarks.uses.cells import DATA, Cell, Numbers, Stopwatch

SEEDS = 3
SIZE = 10
ABOUT = """\
MNIST, 60,000 training and 10,000 test images. The library's recipe `mnist` with ten latents sees 3,000,000 images
(`aevb train mnist --latent 10 --samples 3000000`). *10-NN*: the share of test images whose label is the most frequent
one of their ten nearest training images, by Euclidean distance between codes. *Clusters*: of ten clusters, the share of
test images whose cluster is matched with their label, by the best matching. The clusters are the components of a
learned mixture prior (recipe `mixture-prior`), or of a mixture of normals fitted to the codes. *Untrained*: the
library's network before its first step. Where there was a GPU, the seconds leave out its time."""

Images = np.ndarray[Any, np.dtype[np.uint8]]
Array = np.ndarray[Any, Any]


@cache
def images(part: str) -> tuple[Images, Array]:
    """Images (N, 28, 28) and labels (N,) of "train" or "t10k"."""
    with gzip.open(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(DATA / "mnist" / f"{part}-labels-idx1-ubyte.gz") as file:
        return pixels, np.frombuffer(file.read(), np.uint8, offset=8)


def flat(pixels: Images) -> Array:
    return pixels.reshape(len(pixels), -1) / np.float32(255)


def library(train: Images, test: Images, seed: int, *, untrained: bool = False) -> tuple[Array, Array]:
    model = ours.fit_embedding(train, SIZE, seed, untrained=untrained)
    return model.transform(train), model.transform(test)


def components(train: Images, test: Images, seed: int) -> tuple[Array, Array]:
    model = PCA(SIZE, random_state=seed).fit(flat(train))
    return model.transform(flat(train)), model.transform(flat(test))


def library_clusters(train: Images, test: Images, seed: int, *, recipe: str) -> Array:
    return ours.fit_clusters(train, 10, seed, recipe=recipe).predict(test)


def kmeans(train: Images, test: Images, seed: int) -> Array:
    first, second = components(train, test, seed)
    clusters: Array = KMeans(10, n_init=10, random_state=seed).fit(first).predict(second)
    return clusters


EMBEDDINGS: dict[str, Callable[[Images, Images, int], tuple[Array, Array]]] = {
    "aevb": library,
    "PCA": components,
    "aevb, untrained": partial(library, untrained=True),
}
CLUSTERS: dict[str, Callable[[Images, Images, int], Array]] = {
    "aevb": partial(library_clusters, recipe="mixture-prior"),
    "aevb, mixture of codes": partial(library_clusters, recipe="mnist"),
    "k-means on PCA": kmeans,
}


def neighbours(embed: Callable[[Images, Images, int], tuple[Array, Array]], seed: int) -> Numbers:
    (train, labels), (test, truth) = images("train"), images("t10k")
    with Stopwatch() as watch:
        first, second = embed(train, test, seed)
    right = KNeighborsClassifier(10).fit(first, labels).score(second, truth)
    return {"accuracy": float(right), "seconds": watch.seconds}


def matched(cluster: Callable[[Images, Images, int], Array], seed: int) -> Numbers:
    """Accuracy under the best one-to-one matching of clusters and labels."""
    test, truth = images("t10k")
    with Stopwatch() as watch:
        clusters = cluster(images("train")[0], test, seed).astype(int)
    table = np.zeros((clusters.max() + 1, 10))
    np.add.at(table, (clusters, truth), 1)
    return {"accuracy": float(table[linear_sum_assignment(-table)].sum() / len(truth)), "seconds": watch.seconds}


def cells(seeds: int | None) -> Iterator[Cell]:
    for seed in range(seeds or SEEDS):
        for method, embed in EMBEDDINGS.items():
            yield Cell("embedding", "MNIST, 10-NN", method, seed, partial(neighbours, embed, seed))
        for method, cluster in CLUSTERS.items():
            yield Cell("embedding", "MNIST, clusters", method, seed, partial(matched, cluster, seed))
