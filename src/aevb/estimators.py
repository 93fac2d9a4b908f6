"""Estimators of scikit-learn: one fitted density of a table, as an embedding, an imputer, a detector, a synthesizer.

from aevb.estimators import VAEImputer
"""

from aevb.apps.estimators.embedding import VAEEmbedding
from aevb.apps.estimators.imputer import VAEImputer
from aevb.apps.estimators.outliers import VAEOutlierDetector
from aevb.apps.estimators.synthesizer import VAESynthesizer

__all__ = ["VAEEmbedding", "VAEImputer", "VAEOutlierDetector", "VAESynthesizer"]
