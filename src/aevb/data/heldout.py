"""Which of two likelihoods suits a column: by the density of rows that were held out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from aevb.data.columns import Column, step_of
from aevb.probability import counts
from aevb.probability.quantiles import Quantiles

HELD = 0.2  # of the rows
MOST = 10_000  # rows that are looked at
GAIN, OF_COUNTS = 0.05, 0.01  # nats a cell that the likelihood of more parameters must be better by
ERRORS = 3.0  # standard errors that it must be better by
COUNTS = {
    family.word: family for family in (counts.Poisson, counts.NegativeBinomial, counts.ZeroInflatedNegativeBinomial)
}
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """By how much one likelihood is better than another on held-out rows: nats a cell, with its standard error."""

    mean: float
    se: float
    least: float

    @property
    def clear(self) -> bool:
        return self.mean > max(self.least, ERRORS * self.se)

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.se:.2f} nats a cell on held-out rows"


def bins_for(n: int) -> int:
    """How many bins the likelihood "quantiles" has for n rows: twenty rows for each, 128 at most."""
    return min(128, max(8, n // 20))


def gain_of_quantiles(column: Column, x: Numbers) -> Gain:
    """log p of held-out numbers by quantiles, less that by the column's own likelihood; both fitted to the others.

    Args:
        column: with its map, center, scale and likelihood.
        x: (N,), stored numbers.
    """
    order = np.random.default_rng(0).permutation(len(x))[:MOST]
    held = max(1, int(HELD * len(order)))
    train, test = (torch.from_numpy(x[rows]).unsqueeze(1) for rows in (order[held:], order[:held]))
    unit = float(train.std(correction=0)) or 1.0
    steps = [step_of(column) / unit]
    family = Quantiles(1, bins_for(len(train)), steps).double()
    ours = family(family.start(train / unit)).log_prob(test / unit) - math.log(unit)
    difference = (ours - _own(column, train, test)).numpy()
    least = OF_COUNTS if column.kind == "count" else GAIN
    return Gain(float(difference.mean()), float(difference.std() / math.sqrt(len(difference))), least)


def _own(column: Column, train: Tensor, test: Tensor) -> Tensor:
    """log p of held-out numbers (n, 1) as stored, by the column's likelihood fitted to the others: (n,)."""
    if column.kind == "count":
        family = COUNTS[column.likelihood](1)
        return family(family.start(train)).log_prob(test).double()
    a, b = (column.numbers(part).squeeze(1).numpy() for part in (train, test))
    if column.likelihood == "student-t":
        log_p = stats.t.logpdf(b, *stats.t.fit(a[:1000]))
    else:
        log_p = stats.norm.logpdf(b, a.mean(), max(float(a.std()), 1e-9))
    return torch.from_numpy(log_p) + column.log_abs_det(test.squeeze(1))
