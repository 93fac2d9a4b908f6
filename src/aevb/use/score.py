"""How likely each data point is under a model, such as to find the unusual ones."""

from __future__ import annotations

from dataclasses import replace

from aevb.data.batch import Indexable, log_abs_dets
from aevb.evidence.importance import log_marginal
from aevb.evidence.marginal import Marginal
from aevb.models.inference import Model, fitting


def score(model: Model, data: Indexable, samples: int = 1000, *, seed: int = 0) -> Marginal:
    """log p(x) of each data point with its Monte-Carlo error: the higher, the more usual the data point.

    A row's score is a function of the row, the model and the seed. It depends neither on the rows beside it nor on
    their order. It is a density of the data as given: of a standardised split, of its stored numbers.

    Args:
        data: x (N, *X), as of `encode`; of `Pairs` the score is log p(x|y).
        samples: K, importance samples of each data point.
        seed: of their noise.

    Returns:
        `log_px` (N,) in nats and its standard error `se` (N,); `warning` says where the error cannot be trusted.

    Raises:
        DataError: a data point is outside of the likelihood's support.
        NoLikelihood: the model is not a density, such as an autoencoder.
    """
    data = fitting(model, data)
    found = log_marginal(model, data, samples, seed=seed)
    return replace(found, log_px=found.log_px + log_abs_dets(data))
