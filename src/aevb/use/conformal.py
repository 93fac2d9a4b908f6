"""p-values of scores with a false-alarm rate that holds for any model: split-conformal prediction.

With the scores c_1..c_n of rows that the model was not fitted to, the p-value of a row with the score s is

    p = (1 + #{i: c_i ≤ s}) / (n + 1)

If the row and the n others are exchangeable, P(p ≤ α) ≤ α, whatever the model (Vovk, Gammerman & Shafer 2005,
Algorithmic Learning in a Random World; Laxhammar & Falkman 2010). So rows with p ≤ α are alarms. Among normal rows
their share is at most α, on average over draws of the n rows too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.errors import DataError


def p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """(1 + #{c ≤ s}) / (n + 1) of scores (N,), of which low ones are unusual, given those of n other rows.

    Args:
        scores: (N,), such as log p(x).
        calibration: (n,), scores of normal rows that the model was not fitted to.

    Returns:
        (N,), float64; 1/(n + 1) at least.

    Raises:
        DataError: n is 0.
    """
    return (1 + _at_most(scores, calibration, right=True)) / (len(calibration) + 1)


def percentiles(scores: Tensor, calibration: Tensor) -> Tensor:
    """How many per cent of the n other rows have a lower score, ties counted half, (N,), float64."""
    both = _at_most(scores, calibration, right=True) + _at_most(scores, calibration, right=False)
    return 50 * both / len(calibration)


def least_rows(alarm: float) -> int:
    """How many calibration rows it takes that some p-value can be at or below a rate of alarms."""
    return max(1, -int(-1 // alarm) - 1)


def _at_most(scores: Tensor, calibration: Tensor, right: bool) -> Tensor:
    """#{c ≤ s}, or #{c < s} unless `right`, float64."""
    if not len(calibration):
        raise DataError("There are no calibration scores, so that no p-value can be given.")
    ordered = calibration.double().sort().values
    return torch.searchsorted(ordered, scores.double().contiguous(), right=right).double()
