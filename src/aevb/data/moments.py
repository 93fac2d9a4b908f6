"""Mean, standard deviation and extremes of rows (N, *X), in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from aevb.data.walk import passed

ROWS, NUMBERS = 4096, 2**16  # at most so many rows, or numbers of them, in float64 at a time


@dataclass(frozen=True)
class Moments:
    """Of n rows: their mean and standard deviation (ddof 0), (*X), float64, less an origin; and their extremes.

    Two parts a and b of the rows, w_a = n_a/n and w_b = n_b/n, are joined by (Chan, Golub & LeVeque 1983, Am. Stat. 37)

        m = w_a m_a + w_b m_b,   s² = w_a s_a² + w_b s_b² + w_a w_b (m_a - m_b)²
    """

    n: int
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        here, there = self.n / n, other.n / n
        between = (math.sqrt(here * there) * self.mean - math.sqrt(here * there) * other.mean).abs()
        within = torch.hypot(math.sqrt(here) * self.std, math.sqrt(there) * other.std)
        return Moments(
            n,
            here * self.mean + there * other.mean,
            torch.hypot(within, between),  # no square is too large or too small for float64
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
        )

    @property
    def constant(self) -> Tensor:
        """Which entries (*X) are the same in all rows."""
        return self.low == self.high


def moments(
    stored: Tensor, shifted: Callable[[Tensor], Tensor] = Tensor.double, also: Callable[[Tensor], None] | None = None
) -> Moments:
    """Those of rows (N, *X) in one pass.

    Args:
        shifted: from rows to float64, such as their differences to an origin.
        also: called with the rows of each part, in their order.
    """

    def of(part: Tensor) -> Moments:
        if also is not None:
            also(part)
        return _of_part(part, shifted(part))

    rows = max(1, min(ROWS, NUMBERS // max(1, math.prod(stored.shape[1:]))))
    return reduce(Moments.__add__, map(of, passed(torch.split(stored, rows), len(stored))))


def _of_part(stored: Tensor, x: Tensor) -> Moments:
    n = len(x)
    mean = (x / n).sum(0)
    deviations = (x - mean).abs()
    largest = deviations.amax(0)
    unit = torch.where(largest > 0, largest, 1.0)
    std = unit * (deviations / unit).square().mean(0).sqrt()
    return Moments(n, mean, std, stored.amin(0), stored.amax(0))
