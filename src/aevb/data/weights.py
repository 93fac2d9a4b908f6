"""Weights of rows: how much each counts, in training and in validation. Rows of weight zero count as not there.

A weight w_i stands for w_i rows: the objective is Σ_i w_i L(x_i) / Σ_i w_i. Training draws row i with the probability
w_i / Σ_j w_j, so each objective of a minibatch has that mean. Validation averages with the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.batch import Batch, Indexable, as_batch, name_rows
from aevb.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aevb.data.tables import Frame

KIND = "weight"  # of a column of weights


@dataclass(frozen=True, eq=False)
class Weighted:
    """Rows that are drawn at random in proportion to weights, whatever row is asked for.

    The draws are those of PyTorch's generator, which training seeds at each step. With whole weights they are the
    rows, bit for bit, that are drawn from a table in which each row is there as often.

    Attributes:
        rows: N of them; ends: (N,), the sums of the weights up to and with each row.
    """

    rows: Indexable
    ends: Tensor

    drawn = True  # the numbers of rows that are asked for do not count

    @classmethod
    def of(cls, rows: Indexable, weights: Tensor | None, device: torch.device | str) -> Indexable:
        """The rows on a device, drawn by weights (N,); as they are without weights."""
        return rows if weights is None else cls(rows, weights.to(device, torch.float64).cumsum(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Batch:
        at = torch.rand(len(index), dtype=self.ends.dtype, device=self.ends.device) * self.ends[-1]
        return as_batch(self.rows[torch.searchsorted(self.ends, at, right=True).clamp(max=len(self) - 1)])

    @property
    def holes(self) -> bool:
        return bool(getattr(self.rows, "holes", False))

    def frozen(self, seed: int = 0) -> Indexable:
        """The rows themselves: what is checked is all of them."""
        return self.rows


def averaged(numbers: Tensor, weights: Tensor | None) -> float:
    """Σ_i w_i a_i / Σ_i w_i of numbers (N,); the mean without weights."""
    if weights is None:
        return float(numbers.mean())
    w = weights.to(numbers)
    return float((w * numbers).sum() / w.sum())


def weights_in(frame: Frame, kinds: Mapping[str, str]) -> NDArray[np.float64] | None:
    """The weights (N,) in the column of a table whose kind is asked to be "weight"; None where there is none.

    Raises:
        DataError: a weight is missing, no number, negative or infinite; all are zero; or there are two such columns.
    """
    from aevb.data.cells import NUMBER, cells_of

    names = [name for name, kind in kinds.items() if kind == KIND and name in frame.table.columns]
    if not names:
        return None
    if len(names) > 1:
        raise DataError(f"{frame.name}: the columns {names[0]!r} and {names[1]!r} are both weights. Name one.")
    cells = cells_of(frame, names[0])
    where = f"{frame.name}: column {names[0]!r}"
    if cells.form != NUMBER:
        raise DataError(f"{where} holds no numbers, so it cannot weigh rows.")
    weights = np.full(len(frame), np.nan)
    weights[cells.seen] = cells.floats
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        rows = name_rows(torch.from_numpy(wrong))
        raise DataError(f"{where} has no weight, or a negative or infinite one, in {rows}. Give 0 to leave a row out.")
    if not weights.any():
        raise DataError(f"{where}: all weights are 0, so that no row is left.")
    return weights


def with_weight(frame: Frame, weights: NDArray[np.float64] | None) -> tuple[Frame, NDArray[np.int64]]:
    """The rows whose weight is not zero, and their numbers."""
    if weights is None or weights.all():
        return frame, np.arange(len(frame))
    rows = np.flatnonzero(weights)
    return replace(frame, table=frame.table[rows]), rows
