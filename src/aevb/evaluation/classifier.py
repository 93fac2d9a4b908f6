"""A classifier that distinguishes two clouds of rows: a test of whether they come from one distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold

from aevb.errors import DataError
from aevb.evaluation.estimate import Estimate

Rows = NDArray[np.float64]  # (N, F), NaN where a value is missing
FOLDS, TREES = 5, 100
LEVELS = 254  # of a category that the classifier tells apart; rarer levels are one more
FEWEST = 10  # rows on either side


@dataclass(frozen=True)
class Separation:
    """How well a classifier distinguishes two clouds.

    Attributes:
        auc: the area under the ROC curve, 1/2 where it cannot, 1 where it always can; with its error.
        first, second: the probability of the second cloud for rows of the first (N,) and of the second (M,), each by a
            classifier that has not seen the row, as if both clouds had as many rows.
    """

    auc: Estimate
    first: Rows
    second: Rows

    @property
    def score(self) -> Estimate:
        """1 - max(0, 2 AUC - 1): 1 where the clouds cannot be distinguished, 0 where every row can."""
        return Estimate(1 - max(0.0, 2 * self.auc.mean - 1), 2 * self.auc.se, self.auc.n)


def separation(first: Rows, second: Rows, categories: NDArray[np.bool_] | None = None, seed: int = 0) -> Separation:
    """Distinguish rows of two clouds by gradient-boosted trees, five-fold cross-validated (C2ST, arXiv 1610.06545).

    AUC is the mean over the folds, each of rows that its trees have not seen; its error is DeLong's (1988).

    Args:
        first, second: (N, F) and (M, F); NaN is a value of its own.
        categories: (F,), which columns hold codes of levels without an order; none by default.
        seed: of the folds.

    Raises:
        DataError: fewer than ten rows on either side.
    """
    if min(len(first), len(second)) < FEWEST:
        got = f"{len(first)} and {len(second)}"
        raise DataError(f"To tell two clouds apart, at least {FEWEST} rows of either are needed; got {got}.")
    known = np.zeros(first.shape[1], bool) if categories is None else categories
    x = _told(np.concatenate([first, second]), known)
    y = np.repeat([0, 1], [len(first), len(second)])
    p, areas = np.empty(len(x)), []
    for train, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        trees = HistGradientBoostingClassifier(
            max_iter=TREES, categorical_features=known, early_stopping=False, random_state=seed
        )
        p[held] = trees.fit(x[train], y[train]).predict_proba(x[held])[:, 1]
        areas.append(area(p[held][y[held] == 0], p[held][y[held] == 1]))
    se = math.sqrt(sum(a.se**2 for a in areas)) / FOLDS
    mean = sum(a.mean for a in areas) / FOLDS
    p = p * len(first) / (p * len(first) + (1 - p) * len(second))
    return Separation(Estimate(mean, se, len(x)), p[: len(first)], p[len(first) :])


def area(low: Rows, high: Rows) -> Estimate:
    """AUC = P(low < high) + P(low = high) / 2 of scores (N,) and (M,), with the error of DeLong et al. (1988).

    The error is that of the means of the placements P(low < high_j) and P(low_i < high) over their rows.
    """
    n, m = len(low), len(high)
    ranks = rankdata(np.concatenate([low, high]))
    placed = 1 - (ranks[:n] - rankdata(low)) / m, (ranks[n:] - rankdata(high)) / n
    variance = sum(float(part.var(ddof=1)) / len(part) for part in placed)
    return Estimate(float(placed[1].mean()), math.sqrt(variance), n + m)


def _told(x: Rows, categories: NDArray[np.bool_]) -> Rows:
    """Rows whose categories are numbered from 0 by how frequent they are, the rare ones as one."""
    x = x.copy()
    for j in np.flatnonzero(categories):
        here = ~np.isnan(x[:, j])
        _, codes, counts = np.unique(x[here, j], return_inverse=True, return_counts=True)
        order = np.argsort(np.argsort(-counts, kind="stable"))
        x[here, j] = np.minimum(order[codes], LEVELS)
    return x
