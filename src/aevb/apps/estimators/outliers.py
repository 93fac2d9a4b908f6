"""Rows of low density."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin

from aevb.apps.estimators.base import TableEstimator
from aevb.apps.estimators.fitted import Numbers
from aevb.data.columns import Column, Schema
from aevb.data.frames import stored
from aevb.data.kinds import look
from aevb.data.tables import Frame
from aevb.runs.recipe import Recipe

SCORED = 50_000  # rows of `fit` that set the threshold, in random order
LEAST = 0.3  # of the scale of a column, in its standard deviations
TRIM = 0.2  # of the rows of each minibatch do not count, those of the lowest bound
NUMERIC = ("real", "positive", "bounded", "count")
FENCE = 1.5  # interquartile ranges below the lower quartile: Tukey's fence


@dataclass(eq=False, repr=False)
class VAEOutlierDetector(OutlierMixin, TableEstimator):  # type: ignore[misc]
    """Finds rows of low density log p(x), under a density that is fitted robustly.

    The rows of `fit` may hold outliers themselves. So each step leaves out the fifth of its rows of the lowest bound
    (a trimmed likelihood), and numbers have Student's t as their likelihood, whatever the shape of their columns.

        labels = aevb.VAEOutlierDetector(random_state=0).fit_predict(table)     # -1: an outlier, 1: none

    Args:
        contamination: the share of outliers among the rows of `fit`, above 0 and up to 0.5; "auto": rows below Tukey's
            fence, 1.5 interquartile ranges of the scores below their lower quartile.

    The other parameters and attributes are those of `TableEstimator`.

    Attributes:
        offset_: the score below which a row is an outlier, in nats.
    """

    _: KW_ONLY
    contamination: float | str = "auto"

    def _look(self, frame: Frame) -> Schema:
        """As of all, but with numbers as numbers: no column of them is one of levels, or of quantiles."""
        schema = super()._look(frame)
        asked = dict(self.columns or {})
        numbers = [c.name for c in schema.columns if c.name not in asked and is_number(c)]
        schema = look(frame, asked | dict.fromkeys(numbers, "real"))
        moments = np.nanmean(rows := stored(schema, frame)[0], 0), np.nanstd(rows, 0)
        of = dict(zip(schema.modelled, zip(*moments, strict=True), strict=True))
        columns = (robust(c, *of[i]) if c.name in numbers else c for i, c in enumerate(schema.columns))
        return Schema(tuple(columns))

    def _recipe(self, columns: int, n: int, seed: int) -> Recipe:
        recipe = super()._recipe(columns, n, seed)
        return recipe if self.recipe else recipe.replace(objective__trim=TRIM, training__holes=0.0)

    def _fit(self, frame: Frame, weights: Numbers | None) -> Numbers:
        share = self.contamination
        if share != "auto" and not (isinstance(share, float) and 0 < share <= 0.5):
            raise ValueError(f"contamination is a share above 0 and up to 0.5, or 'auto'; got {share!r}.")
        numbers = super()._fit(frame, weights)
        self.offset_ = threshold(self.fitted_.log_px(numbers[:SCORED], self.importance_samples), share)
        return numbers

    def decision_function(self, X: Any) -> Numbers:
        """`score_samples` less `offset_`, (N,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for outliers, 1 for others, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def is_number(column: Column) -> bool:
    """Whether a column holds numbers, if of few values; not dates, angles or words."""
    levels = column.kind in ("binary", "ordinal") and all(type(level) in (int, float) for level in column.levels)
    return column.modelled and (column.kind in NUMERIC or levels)


def robust(column: Column, mean: float, std: float) -> Column:
    """A column of numbers with Student's t as its likelihood, in units of its standard deviation."""
    scale = float(std) if std > 0 else 1.0
    center = float(mean)
    return replace(column, likelihood="student-t", map="identity", center=center, scale=scale, least=LEAST)


def threshold(scores: Numbers, share: Any) -> float:
    """The score below which a row is an outlier."""
    if share == "auto":
        low, high = np.quantile(scores, [0.25, 0.75])
        return float(low - FENCE * (high - low))
    return float(np.quantile(scores, share))
