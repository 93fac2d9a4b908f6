"""Synthetic rows: drawn from a model of training rows, and told apart from these by a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from benchmarks.uses import ours, peers
from benchmarks.uses.cells import Cell, Numbers, Stopwatch
from benchmarks.uses.tables import CATEGORY, Columns, Table, complete_table

TARGETS = {"adult": "income", "beijing_pm25": "pm2.5", "online_shoppers": "Revenue"}
SEEDS = 3
ABOUT = """\
Three tables; each seed has its own split, 90 % for training and 10 % for testing, and its own training. As in the
published experiments, rows with a missing number are left out, a missing word is a level of its own, and the running
number of beijing is left out. As many rows are drawn as there are in training. *C2ST*: the detection score of sdmetrics
with `XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0)`: 1 where it cannot tell drawn rows
from training rows, 0 where it always can. *Shape* and *pairs*: the quality of columns and of pairs by sdmetrics. *MLE*:
XGBoost with defaults, trained on drawn rows and tested on the real test part. Its number is the AUROC of the label, for
beijing the RMSE of log PM2.5 (lower is better). Seconds are of fitting and drawing. *TVAE*: the package ctgan with
defaults. *Factorised*: each column drawn from the training rows independently. *SMOTE*: a row moved a random part of
the way to one of its five nearest neighbours, its categories from either. *Copy*: training rows drawn with replacement,
an upper limit."""

Synthesise = Callable[[Table, int, int], Columns]  # training rows, how many, seed


def factorised(train: Table, n: int, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    return {name: rng.choice(values, n) for name, values in train.columns.items()}


def copied(train: Table, n: int, seed: int) -> Columns:
    return train.rows_of(np.random.default_rng(seed).integers(0, train.rows, n)).columns


def smote(train: Table, n: int, seed: int) -> Columns:
    """Rows between neighbours, as SMOTE-NC makes them; the distance is over standardised numbers."""
    rng = np.random.default_rng(seed)
    numbers = StandardScaler().fit_transform(train.codes(train.columns)[:, ~train.is_category()])
    base = rng.integers(0, train.rows, n)
    near = NearestNeighbors(n_neighbors=6).fit(numbers).kneighbors(numbers[base], return_distance=False)
    other, part = near[np.arange(n), rng.integers(1, 6, n)], rng.random(n)
    return {name: between(train, name, (base, other), part) for name in train.columns}


def between(train: Table, name: str, rows: tuple[Any, Any], part: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A column of rows between two others; whole numbers stay whole."""
    first, second = (train.columns[name][places] for places in rows)
    if train.kinds[name] == CATEGORY:
        chosen: np.ndarray[Any, Any] = np.where(part < 0.5, first, second)
        return chosen
    moved: np.ndarray[Any, Any] = first + part * (second - first)
    return np.round(moved).astype(np.int64) if first.dtype == np.int64 else moved


def tvae(train: Table, n: int, seed: int) -> Columns:
    return peers.call("tvae", named("train", train.columns), n=n, categories=train.named(CATEGORY), seed=seed)


def library(train: Table, n: int, seed: int) -> Columns:
    return ours.synthesise(train.columns, n, seed)


METHODS: dict[str, Synthesise] = {
    "aevb": library,
    "factorised": factorised,
    "SMOTE": smote,
    "copy": copied,
    "TVAE": tvae,
}


def named(prefix: str, columns: Columns) -> peers.Arrays:
    return {f"{prefix}:{name}": values for name, values in columns.items()}


def judged(synthesise: Synthesise, name: str, seed: int) -> Numbers:
    """C2ST, shape, pairs and MLE of as many rows as there are for training."""
    table = complete_table(name)
    rows, test_rows = train_test_split(np.arange(table.rows), test_size=0.1, random_state=seed)
    train, test = table.rows_of(rows), table.rows_of(test_rows)
    with Stopwatch() as watch:
        made = synthesise(train, train.rows, seed)
    arrays = named("train", train.columns) | named("test", test.columns) | named("made", made)
    numbers = peers.call("judge", arrays, categories=train.named(CATEGORY), target=TARGETS[name], seed=seed)
    return {number: float(value) for number, value in numbers.items()} | {"seconds": watch.seconds}


def cells(seeds: int | None) -> Iterator[Cell]:
    for seed in range(seeds or SEEDS):
        for name in sorted(TARGETS, key=lambda name: name != "online_shoppers"):  # the shortest first
            for method, synthesise in METHODS.items():
                yield Cell("synthesis", name, method, seed, partial(judged, synthesise, name, seed))
