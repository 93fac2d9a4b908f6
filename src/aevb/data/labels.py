"""Contexts for data: pairs of a data point and what it is conditioned on, such as its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from aevb.data.batch import Batch, Fixable, has_holes, log_abs_dets
from aevb.data.forms import as_tensor, rows_of
from aevb.errors import DataError, ShapeError

UNKNOWN = -(2**63)  # the label of a data point whose label was hidden; no file's label, since those are classes 0..C-1


class Rows(Protocol):
    """A tensor (N, *X), a `Split`, or whatever gives x (B, *X) for a tensor of row numbers."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Pairs:
    """Data with a context for each data point, to train and evaluate p(x|y): an item is a `Batch` of x and y.

    Args:
        x: the data: a tensor, an array, a split, or a data set of rows.
        y: (N, *C), a tensor or an array on the same device, such as `one_hot(labels, 10)`.

    Raises:
        ShapeError: there are not as many conditions as data points.
    """

    x: Rows
    y: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", rows_of(self.x) or self.x)
        object.__setattr__(self, "y", as_tensor(self.y))
        if len(self.x) != len(self.y):
            raise ShapeError(f"Pairs: {len(self.x)} data points need as many conditions y; got {len(self.y)}.")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def log_abs_dets(self) -> Tensor:
        return log_abs_dets(self.x)

    @property
    def holes(self) -> bool:
        """Whether x may hold NaN, a missing cell."""
        return has_holes(self.x)

    def frozen(self, seed: int = 0) -> Pairs:
        """With x drawn once, where its pixels are dynamic."""
        return Pairs(cast(Rows, self.x.frozen(seed)), self.y) if isinstance(self.x, Fixable) else self

    def __getitem__(self, index: Tensor) -> Batch:
        x = self.x[index]
        return Batch(x[0] if isinstance(x, tuple) else x, self.y[index])


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (N,), int64, as contexts (N, classes), float32: 1 at the label, and all zeros where `hide_labels` hid it.

    Raises:
        DataError: a label that is not one of 0 to classes - 1.
    """
    beyond = labels[((labels < 0) & (labels != UNKNOWN)) | (labels >= classes)]
    if len(beyond):
        raise DataError(f"There is a label {int(beyond[0])}, but {classes} classes have the labels 0 to {classes - 1}.")
    return (labels.unsqueeze(1) == torch.arange(classes, device=labels.device)).float()


def hide_labels(labels: Tensor, known: int, seed: int = 0) -> Tensor:
    """The labels (N,) of `known` data points of each class, chosen by the seed; those of the others are hidden.

    A hidden label is a number that no class has; `one_hot` maps it to zeros.

    Raises:
        DataError: a class has fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    out = torch.full_like(labels, UNKNOWN)
    for label in labels.unique():
        rows = order[labels[order] == label][:known]
        if len(rows) < known:
            raise DataError(
                f"Of class {int(label)} there are only {len(rows)} data points; {known} were to be labelled."
            )
        out[rows] = label
    return out
