"""Which cells of a row are there, as a random variable beside the cells themselves.

    p(x_O, m | z) = Π_{d ∈ O} p_d(x_d | z) Π_d π_d(z)^{m_d} (1 - π_d(z))^{1 - m_d},   m_d = 1 where cell d is there

Given z, whether a cell is there depends on no value, but all of it on z (Collier et al. 2020, arXiv 2006.05301). In x a
hole is NaN. `UNKNOWN` stands where nobody knows whether there is a cell: its m_d is integrated out, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

UNKNOWN = math.inf


def known(x: Tensor) -> Tensor:
    """The same rows with NaN in the place of what is unknown."""
    return torch.where(x == UNKNOWN, torch.nan, x)


def start_of(x: Tensor) -> Tensor:
    """The log odds that a cell is there, of columns (N, n): half a row counts for each side beyond those seen."""
    holes = x.isnan().sum(0)
    return ((len(x) - holes + 0.5) / (holes + 0.5)).log()


@dataclass(frozen=True)
class Mask:
    """Bernoulli variables: is the cell there?

    Attributes:
        places: of the n columns whose holes are modelled, in the row of F; logits: log π/(1 - π), (*, n).
    """

    places: Tensor
    logits: Tensor

    def log_prob_each(self, x: Tensor) -> Tensor:
        """log p(m_d | z), (*, n), of rows x (*, F): NaN is a hole; 0 where it is unknown."""
        cells = x.index_select(-1, self.places)
        log_p = F.logsigmoid(torch.where(cells.isnan(), -self.logits, self.logits))
        return torch.where(cells == UNKNOWN, 0.0, log_p)

    def log_there(self, asked: Tensor) -> Tensor:
        """log P(all cells of the columns `asked` (F,) are there | z), (*)."""
        each = F.logsigmoid(self.logits)
        return torch.where(asked.index_select(-1, self.places), each, 0.0).sum(-1)

    def holes(self, columns: int, sample_shape: Sequence[int] = ()) -> Tensor:
        """Drawn holes of rows of F = `columns` cells, (*sample_shape, *, F), bool."""
        shape: Any = (*sample_shape, *self.logits.shape)
        drawn = torch.rand(shape, device=self.logits.device) >= torch.sigmoid(self.logits)
        none = torch.zeros((*shape[:-1], columns), dtype=torch.bool, device=drawn.device)
        return none.index_copy(-1, self.places, drawn)
