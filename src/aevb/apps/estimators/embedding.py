"""A table's rows as points in few dimensions, and the density of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from aevb.apps.estimators.base import TableEstimator
from aevb.apps.estimators.fitted import Numbers
from aevb.use.generate import generate


class VAEEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, TableEstimator):  # type: ignore[misc]
    """Embeds the rows of a table as posterior means of few latents, and gives the density of rows.

        z = aevb.VAEEmbedding(2, random_state=0).fit_transform(table)      # (N, 2)

    Parameters and attributes are those of `TableEstimator`; by default there are half as many latents as columns, and
    8 at most.
    """

    def _latents(self, columns: int) -> int:
        return max(1, min((columns + 1) // 2, super()._latents(columns)))

    @property
    def _n_features_out(self) -> int:
        return int(self.fitted_.model.latent_shape.numel())

    def transform(self, X: Any) -> Numbers:
        """The posterior means E[z|x] of rows, (N, D)."""
        numbers = self._numbers(X)[1]
        return self.fitted_.codes(numbers)

    def inverse_transform(self, X: Any) -> Any:
        """The rows that codes (N, D) stand for: E[x|z] of numbers, the most probable of levels.

        Returns:
            A table of the form of the one in `fit`: a frame with its columns and types, or an array.
        """
        check_is_fitted(self)
        z = check_array(X, dtype=np.float64)
        if z.shape[1] != self._n_features_out:
            raise ValueError(f"X has {z.shape[1]} features, but the embedding has {self._n_features_out}.")
        return self.fitted_.table(self.fitted_.decoded(z))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`, in nats per row."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1) -> Any:
        """New rows: z ~ p(z), x ~ p(x|z), in the form of the table in `fit`."""
        check_is_fitted(self)
        x = generate(self.fitted_.model, n_samples, seed=self._seed(), draw=True)
        return self.fitted_.table(self.fitted_.schema.inverse(x).numpy())
