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
LEAST = 0.2  # σ_0: of the noise of a column, in its standard deviations
TRIM = 0.2  # of the rows of each minibatch do not count, those of the lowest bound
STEPS, BATCH, PASSES = 400, 100, 3  # of a training: the fewest steps, their rows, the fewest passes through all rows
LINEAR = {
    "encoder__hidden": [32, 32],
    "decoder__hidden": [],
    "training__optimizer__lr": 0.02,
    "training__holes": 0.0,
    "objective__samples": 1,
}
NOISE = "homoscedastic-normal"
NUMERIC = ("real", "positive", "bounded", "count")
FENCE = 1.5  # interquartile ranges below the lower quartile: Tukey's fence


@dataclass(eq=False, repr=False)
class VAEOutlierDetector(OutlierMixin, TableEstimator):  # type: ignore[misc]
    """Finds rows of low density log p(x), under a density that is fitted robustly.

        p(x) = ∫ N(z; 0, I) Π_j N(x_j; (W z + b)_j, s_j² + σ_0²) dz,   σ_0 = 0.2

    x_j is a column in units of its standard deviation. The decoder is linear, and each column has one noise s_j for all
    rows: so no row and no column gains density by a small σ. Words and dates have the likelihoods of `TableEstimator`.
    `hidden` makes the decoder a network.

    The rows of `fit` may hold outliers themselves. So each step leaves out the fifth of its rows of the lowest bound:
    a trimmed likelihood (Hadi & Luceño 1997, Computational Statistics & Data Analysis 25). Steps that choose the rows
    anew are the concentration steps of Rousseeuw & Van Driessen (1999, Technometrics 41). No held-out rows choose the
    length of the training, since they may hold outliers too.

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

    def _held(self, n: int) -> int:
        return 0

    def _suited(self, n: int) -> dict[str, Any]:
        batch = min(BATCH, n)
        return LINEAR | {"training__batch": batch, "training__samples": max(STEPS * batch, PASSES * n)}

    def _recipe(self, columns: int, n: int, seed: int) -> Recipe:
        recipe = super()._recipe(columns, n, seed)
        return recipe if self.recipe else recipe.replace(objective__trim=TRIM, training__learning_rate=falling(recipe))

    def _fit(self, frame: Frame, weights: Numbers | None) -> Numbers:
        share = self.contamination
        if share != "auto" and not (isinstance(share, float) and 0 < share <= 0.5):
            raise ValueError(f"contamination is a share above 0 and up to 0.5, or 'auto'; got {share!r}.")
        numbers = super()._fit(frame, weights)
        self.offset_ = threshold(self.fitted_.log_px(numbers[:SCORED], self.importance_samples), share)
        return numbers

    def decision_function(self, X: Any) -> Numbers:
        """`score_samples` minus `offset_`, (N,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for outliers, 1 for others, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def falling(recipe: Recipe) -> dict[str, Any]:
    """A step size that falls to 0 along half a cosine, over the whole training."""
    training = recipe.settings["training"]
    steps = -(-training["samples"] // training["batch"])
    return {"type": "cosine", "start": 1.0, "end": 0.0, "steps": steps}


def is_number(column: Column) -> bool:
    """Whether a column holds numbers, if of few values; not dates, angles or words."""
    levels = column.kind in ("binary", "ordinal") and all(type(level) in (int, float) for level in column.levels)
    return column.modelled and (column.kind in NUMERIC or levels)


def robust(column: Column, mean: float, std: float) -> Column:
    """A column of numbers with a normal of one σ for all rows, in units of its standard deviation."""
    scale = float(std) if std > 0 else 1.0
    center = float(mean)
    return replace(column, likelihood=NOISE, map="identity", center=center, scale=scale, least=LEAST)


def threshold(scores: Numbers, share: Any) -> float:
    """The score below which a row is an outlier."""
    if share == "auto":
        low, high = np.quantile(scores, [0.25, 0.75])
        return float(low - FENCE * (high - low))
    return float(np.quantile(scores, share))
