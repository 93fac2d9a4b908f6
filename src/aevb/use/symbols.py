"""Data of finitely many values as whole numbers, and p(x|z) as a table of their probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from aevb.errors import DataError
from aevb.parts import Support
from aevb.probability.offers import constraint_of, elements_of, support_text

Symbols = NDArray[np.int64]
NUMBERS = 2**21  # in the table of a row of counts at most
WINDOW = 2**6, 2**12  # counts in the table of one number: at least, at most
TINY = 1e-30  # a probability, so that no row of a table is all zeros
BEYOND = 1e-4  # the share of counts that may be beyond the table
STEADY = 2.0**12  # steps in a unit of what both sides compute: float64 is off by 10⁻¹², and no step is lost


def steady(x: Tensor) -> Tensor:
    """x rounded to 2⁻¹², so that the last digits, in which two computations may differ, are gone."""
    return torch.round(x * STEADY) / STEADY


@dataclass(frozen=True)
class Alphabet:
    """The values k · `spacing` of a number x, k = 0, 1, ..., and which of them have a place of their own in a table.

    Attributes:
        size: k of the table: those below `size`; if `moving`, as many around the mean of p(x|z).
        spacing: of the values.
        open: whether there are further values, counts, for which the table has one more place, the escape.
        moving: whether the table moves with the mean.
    """

    size: int
    spacing: float = 1.0
    open: bool = False
    moving: bool = False

    @classmethod
    def of(cls, px: Distribution, support: Support | None, x: Tensor) -> Alphabet:
        """That of p(x|z), whose elements are on this support; of counts by the largest one in x (N, *X)."""
        if support is Support.COUNTS:
            return cls.of_counts(x, max(1, px.event_shape.numel()))
        grid: Any = constraint_of(px)
        return cls(2) if support is Support.BINARY else cls(grid.levels, grid.spacing)

    @classmethod
    def of_counts(cls, x: Tensor, numbers: int) -> Alphabet:
        """A table of nearly all counts x, if it is not too large for rows of so many numbers; else a moving one."""
        most = int(np.clip(NUMBERS // numbers, *WINDOW))
        size = WINDOW[0]
        while size < most and float((x >= size).double().mean()) > BEYOND:
            size *= 2
        return cls(size, open=True, moving=float((x >= size).double().mean()) > BEYOND)

    @property
    def columns(self) -> int:
        """Of a table."""
        return self.size + self.open

    def values(self, k: Tensor) -> Tensor:
        """k · spacing, float64; by a division where 1 / spacing is whole, which is how the data came to be."""
        steps = round(1 / self.spacing)
        whole = abs(steps * self.spacing - 1) < 1e-9
        return k.double() / steps if whole else k.double() * self.spacing

    def numbers(self, symbols: Symbols, dtype: torch.dtype) -> Tensor:
        """The values of whole numbers, in the type of the data."""
        return self.values(torch.from_numpy(symbols)).to(dtype)

    def symbols(self, x: Tensor, px: Distribution) -> Symbols:
        """Values x (N, *X) as whole numbers k, (N, *X).

        Raises:
            DataError: one is not exactly such a value, and would come back as another.
        """
        k: Symbols = (x.double() / self.spacing).round().to(torch.int64).numpy()
        lost = (self.numbers(k, x.dtype) != x).flatten(1).any(1).nonzero()
        if len(lost):
            row = int(lost[0])
            at = int((self.numbers(k[row], x.dtype) != x[row]).flatten().nonzero()[0])
            raise DataError(
                f"Row {row} holds {float(x[row].flatten()[at]):.9g}, which would not come back exactly: the values"
                f" that can be coded are {support_text(px)}. Round the data to these values."
            )
        return k

    def table(self, px: Distribution) -> tuple[NDArray[np.float64], Symbols]:
        """Of p(x|z), batch (B): P(x = k) for each number, (B·X, columns), and the first k of each row of it, (B·X)."""
        elements = elements_of(px)
        first = torch.zeros(px.batch_shape + px.event_shape, dtype=torch.int64)
        if self.moving:
            first = (px.mean - self.size / 2).floor().clamp(min=0).to(torch.int64)
        k = first + torch.arange(self.size).view(-1, *[1] * first.ndim)
        inside = steady(elements.log_prob(self.values(k))).exp().nan_to_num(0.0).clamp(TINY, 1.0)
        inside = inside.movedim(0, -1).reshape(first.numel(), self.size)
        if self.open:
            inside = torch.cat([inside, (1 - inside.sum(-1, keepdim=True)).clamp(min=0)], -1)
        return inside.contiguous().numpy(), first.flatten().numpy()
