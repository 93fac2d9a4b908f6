"""Imputation: cells hidden completely at random, filled by a model that was fitted to the table with the holes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.uses import ours, peers
from benchmarks.uses.cells import Cell, Numbers, Stopwatch
from benchmarks.uses.tables import CONTINUOUS, Floats, Table, imputation_table

SETS = ("wine-red", "wine-white", "breast-cancer", "horse-colic", "penguins", "titanic", "insurance")
WITH_CONTINUOUS = tuple(name for name in SETS if name != "breast-cancer")
RATES = (10, 30, 50)
SEEDS = 5
DRAWS = 100
RULES_SETS = ("wine-red", "wine-white")
ABOUT = """\
Seven tables, five masks each: 10, 30 or 50 % of the observed cells are hidden completely at random. Each method is
fitted to the table with its holes and fills it. MAE and RMSE are over hidden numbers, in standard deviations of the
column; accuracy is over hidden categories. Means are over tables, then over masks. *Mean, mode*: of the column. *k-NN*
(5) and *IterativeImputer*: scikit-learn with defaults on standardised columns. For k-NN a category is one-hot, and the
largest entry is its imputation. For IterativeImputer a category is the number of its level, and the nearest level is
its imputation: one-hot columns of one category would predict each other. *miceforest*: defaults, five iterations; the
mean or mode of five completed tables. *MissForest*: its algorithm with scikit-learn's random forests. Peers are told
which columns are categories; the library infers it. breast-cancer is used without its ids, horse-colic without the
hospital's number and the codes of lesions.

Coverage: the share of hidden cells between the 5 % and 95 % points of 100 draws, pooled over tables and masks; 90 % is
right. Only continuous columns count, not those of at most 20 whole numbers."""
ABOUT_RULES = """\
The protocol of U-VAE (AAAI 2026) on wine: 100 completed tables, pooled by Rubin's rules. The estimand is P(x > mean) of
each continuous column. Coverage is the share of 95 % intervals that contain the value of the complete table. The
interval includes sampling variance and the truth is a fixed table, so complete data would give 1.0. *MICE* is
IterativeImputer with `sample_posterior=True` and 100 seeds."""


@dataclass(frozen=True)
class Filled:
    """Codes (N, F) of the best single values, and of completed tables (M, N, F); none where a method draws none."""

    best: Floats
    draws: Floats | None = None


Impute = Callable[[Table, Floats, int], Filled]  # the table, for its kinds; its codes with holes; seed


def library(table: Table, holes: Floats, seed: int, draws: int = DRAWS) -> Filled:
    best, drawn = ours.impute(table.hidden(np.isnan(holes)), draws, seed)
    return Filled(table.codes(best), np.stack([table.codes(one) for one in drawn]))


def mean_or_mode(table: Table, holes: Floats, seed: int) -> Filled:
    best = holes.copy()
    for j, category in enumerate(table.is_category()):
        known = holes[~np.isnan(holes[:, j]), j]
        best[np.isnan(holes[:, j]), j] = np.bincount(known.astype(int)).argmax() if category else known.mean()
    return Filled(best)


@dataclass(frozen=True)
class Wide:
    """Standardised numbers and one-hot categories, with NaN in all places of a category that is missing."""

    numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    categories: list[int]
    scaler: StandardScaler
    encoders: list[OneHotEncoder]

    @classmethod
    def of(cls, holes: Floats, is_category: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Wide:
        numbers, categories = np.flatnonzero(~is_category), np.flatnonzero(is_category).tolist()
        known = [holes[~np.isnan(holes[:, j]), j][:, None] for j in categories]
        encoders = [OneHotEncoder(sparse_output=False).fit(values) for values in known]
        return cls(numbers, categories, StandardScaler().fit(holes[:, numbers]), encoders)

    def widen(self, holes: Floats) -> Floats:
        parts = [self.scaler.transform(holes[:, self.numbers])]
        for j, encoder in zip(self.categories, self.encoders, strict=True):
            missing = np.isnan(holes[:, j])
            part = encoder.transform(np.where(missing, encoder.categories_[0][0], holes[:, j])[:, None])
            part[missing] = np.nan
            parts.append(part)
        return np.hstack(parts)

    def narrow(self, wide: Floats) -> Floats:
        codes = np.empty((len(wide), len(self.numbers) + len(self.categories)))
        codes[:, self.numbers] = self.scaler.inverse_transform(wide[:, : len(self.numbers)])
        place = len(self.numbers)
        for j, encoder in zip(self.categories, self.encoders, strict=True):
            levels = encoder.categories_[0]
            codes[:, j] = levels[wide[:, place : place + len(levels)].argmax(axis=1)]
            place += len(levels)
        return codes


def nearest(table: Table, holes: Floats, seed: int) -> Filled:
    wide = Wide.of(holes, table.is_category())
    return Filled(wide.narrow(KNNImputer(keep_empty_features=True).fit_transform(wide.widen(holes))))


def iterative(table: Table, holes: Floats, seed: int) -> Filled:
    return Filled(chained(IterativeImputer(random_state=seed), table, holes))


def chained(imputer: IterativeImputer, table: Table, holes: Floats) -> Floats:
    """Codes filled by chained equations on standardised codes; a category is the nearest level."""
    scaler, is_category = StandardScaler().fit(holes), table.is_category()
    filled: Floats = scaler.inverse_transform(imputer.fit_transform(scaler.transform(holes)))
    most = np.array([len(table.levels.get(name, ())) - 1 for name in table.columns])
    filled[:, is_category] = np.clip(np.round(filled), 0, most)[:, is_category]
    return filled


def chained_draws(table: Table, holes: Floats, seed: int) -> Filled:
    """DRAWS completed tables of IterativeImputer, and their mean."""
    seeds = range(1000 * seed, 1000 * seed + DRAWS)
    imputers = [IterativeImputer(sample_posterior=True, random_state=one) for one in seeds]
    draws = np.stack([chained(imputer, table, holes) for imputer in imputers])
    return Filled(draws.mean(axis=0), draws)


def miceforest(table: Table, holes: Floats, seed: int) -> Filled:
    """Means of numbers and modes of categories over five completed tables."""
    arrays = {"codes": holes, "is_category": table.is_category()}
    draws = peers.call("miceforest", arrays, draws=5, seed=seed)["draws"]
    best = draws.mean(axis=0)
    for j in np.flatnonzero(table.is_category()):
        votes = np.stack([(draws[:, :, j] == level).sum(axis=0) for level in range(int(draws[:, :, j].max()) + 1)])
        best[:, j] = votes.argmax(axis=0)
    return Filled(best)


def missforest(table: Table, holes: Floats, seed: int) -> Filled:
    return Filled(peers.call("missforest", {"codes": holes, "is_category": table.is_category()}, seed=seed)["filled"])


METHODS: dict[str, Impute] = {
    "aevb": library,
    "mean, mode": mean_or_mode,
    "k-NN (5)": nearest,
    "IterativeImputer": iterative,
    "miceforest": miceforest,
    "MissForest": missforest,
}
DRAWN: dict[str, Impute] = {"aevb": library, "MICE": chained_draws}


def holes_of(table: Table, rate: int, seed: int) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """The codes with holes, and which cells (N, F) were hidden: observed ones, at random."""
    truth = table.codes(table.columns)
    hidden = ~np.isnan(truth) & (np.random.default_rng((seed, rate)).random(truth.shape) < rate / 100)
    return np.where(hidden, np.nan, truth), hidden


def errors(impute: Impute, name: str, rate: int, seed: int) -> Numbers:
    """MAE and RMSE of hidden numbers, accuracy of hidden categories, coverage of intervals where there are draws."""
    table = imputation_table(name)
    truth, is_category = table.codes(table.columns), table.is_category()
    holes, hidden = holes_of(table, rate, seed)
    with Stopwatch() as watch:
        filled = impute(table, holes, seed)
    off = ((filled.best - truth) / np.nanstd(truth, axis=0))[:, ~is_category][hidden[:, ~is_category]]
    numbers = {"mae": float(np.abs(off).mean()), "rmse": float(np.sqrt((off**2).mean())), "seconds": watch.seconds}
    if is_category.any():
        right = (filled.best == truth)[:, is_category][hidden[:, is_category]]
        numbers["accuracy"] = float(right.mean())
    return numbers | covered(table, filled, truth, hidden)


def covered(
    table: Table, filled: Filled, truth: Floats, hidden: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> Numbers:
    """How many hidden cells of continuous columns there are, and how many lie inside their 90 % interval."""
    continuous = np.array([kind == CONTINUOUS for kind in table.kinds.values()])
    if filled.draws is None or not continuous.any():
        return {}
    cells = hidden & continuous
    low, high = np.quantile(filled.draws[:, cells], [0.05, 0.95], axis=0, method="weibull")
    inside = (truth[cells] >= low) & (truth[cells] <= high)
    return {"cells": float(cells.sum()), "inside": float(inside.sum())}


def rubin(impute: Impute, name: str, rate: int, seed: int) -> Numbers:
    """The share of columns whose P(x > mean) lies inside Rubin's 95 % interval."""
    from scipy.stats import t

    table = imputation_table(name)
    truth = table.codes(table.columns)[:, [kind == CONTINUOUS for kind in table.kinds.values()]]
    holes, hidden = holes_of(table, rate, seed)
    with Stopwatch() as watch:
        filled = impute(table, holes, seed)
    assert filled.draws is not None
    mean = truth.mean(axis=0)
    draws = filled.draws[:, :, [kind == CONTINUOUS for kind in table.kinds.values()]]
    shares = (draws > mean).mean(axis=1)  # (M, columns)
    m, within, between = len(shares), (shares * (1 - shares)).mean(axis=0) / len(truth), shares.var(axis=0, ddof=1)
    total = within + (1 + 1 / m) * between
    degrees = (m - 1) * (1 + within / np.maximum((1 + 1 / m) * between, 1e-300)) ** 2
    reach = t.ppf(0.975, degrees) * np.sqrt(total)
    inside = np.abs(shares.mean(axis=0) - (truth > mean).mean(axis=0)) <= reach
    return {"coverage": float(inside.mean()), "seconds": watch.seconds} | covered(
        table, filled, table.codes(table.columns), hidden
    )


def cells(seeds: int | None) -> Iterator[Cell]:
    for seed in range(seeds or SEEDS):
        for name in SETS:
            for rate in RATES:
                for method, impute in METHODS.items():
                    yield Cell(
                        "imputation", f"{name} {rate} %", method, seed, partial(errors, impute, name, rate, seed)
                    )
    for seed in range(min(seeds or SEEDS, 3)):
        for name in RULES_SETS:
            for rate in RATES:
                for method, impute in DRAWN.items():
                    yield Cell("rubin", f"{name} {rate} %", method, seed, partial(rubin, impute, name, rate, seed))
