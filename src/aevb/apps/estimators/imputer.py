"""Missing cells filled from the density of rows."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin

from aevb.apps.estimators.base import TableEstimator
from aevb.data.frames import filled
from aevb.use.condition import conditional_draws, impute


@dataclass(eq=False, repr=False)
class VAEImputer(OneToOneFeatureMixin, TransformerMixin, TableEstimator):  # type: ignore[misc]
    """Fills missing cells given the observed cells of the row.

        full = aevb.VAEImputer(random_state=0).fit_transform(table)

    A number becomes its conditional mean, a level the most probable one. Observed cells stay bit for bit; so do
    columns, types, order and index of a frame.

    Args:
        sample_posterior: fill by draws from the distribution of the missing cells; with an
            integer as `random_state` they are the same at each call.

    The other parameters and attributes are those of `TableEstimator`.
    """

    _: KW_ONLY
    sample_posterior: bool = False

    def transform(self, X: Any) -> Any:
        """The table with its holes filled, in the form in which it came; an array becomes one of floats.

        Columns that are not modelled, such as free text, keep their holes.
        """
        if self.sample_posterior:
            return self.transform_many(X, 1)[0]
        frame, numbers = self._numbers(X)
        known, data = self.fitted_, self.fitted_.split(numbers)
        if np.isnan(numbers).any():
            model = known.fitting(numbers.size * self.importance_samples)
            full = impute(model, data, self.importance_samples, seed=known.seed).values
            frame = filled(known.schema, frame, full.numpy())
        return frame.native

    def transform_many(self, X: Any, n_imputations: int = 5) -> list[Any]:
        """Tables whose holes are filled by draws from the distribution of the missing cells, given the observed ones.

        They differ by the uncertainty of the missing cells (multiple imputation, Rubin 1987).
        """
        frame, numbers = self._numbers(X)
        known, data, samples = self.fitted_, self.fitted_.split(numbers), self.importance_samples
        draws = conditional_draws(known.model, data, n_imputations, samples=samples, seed=self._seed())
        return [filled(known.schema, frame, full.numpy()).native for full in draws]
