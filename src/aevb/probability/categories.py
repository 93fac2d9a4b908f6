"""Columns of levels, each with as many as it has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from aevb.errors import ShapeError
from aevb.parts import LIKELIHOOD, Offers, Support
from aevb.probability import distributions as d
from aevb.probability.families import Family, Shape, check_size

UNSEEN = 0.5  # rows that a level counts beyond those that hold it, at the start


class Categories(Family, nn.Module):
    """A categorical over the levels 0, ..., C_d - 1 of each column d, all at once: φ = the logits, column by column.

    `Categorical` has the same number of classes in every element.

    Args:
        shape: (n,).
        classes: C_d, one for each column, or one number for all.
    """

    word, roles = "categories", (LIKELIHOOD,)
    offers = Offers(Support.LEVELS, reparameterized=False)
    equation = "Π_d softmax(l_d) at {v}_d,  logits l = {net}, one for each level of column d"

    at: Tensor
    starts = True

    def __init__(self, shape: Shape, classes: int | Sequence[int] = 2) -> None:
        nn.Module.__init__(self)
        Family.__init__(self, shape)
        self.classes = (classes,) * self.shape[0] if isinstance(classes, int) else tuple(classes)
        if len(self.classes) != self.shape[0] or min(self.classes) < 2:
            raise ShapeError(
                f"Categories: {self.shape[0]} columns need as many classes, each of 2 or more; got {self.classes}."
            )
        most = max(self.classes)
        places = [most * d + level for d, count in enumerate(self.classes) for level in range(count)]
        self.register_buffer("at", torch.tensor(places), persistent=False)

    @property
    def size(self) -> int:
        return sum(self.classes)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        most = max(self.classes)
        logits = phi.new_full((*phi.shape[:-1], self.shape[0] * most), -torch.inf).index_copy(-1, self.at, phi)
        return Independent(d.Levels(logits.unflatten(-1, (self.shape[0], most))), 1, validate_args=False)

    def start(self, x: Tensor) -> Tensor:
        """The logarithms of the shares of the levels."""
        columns = zip(x.unbind(-1), self.classes, strict=True)
        counts = [torch.bincount(column.long().clamp(0, n - 1), minlength=n) + UNSEEN for column, n in columns]
        return torch.cat([(c / c.sum()).log() for c in counts]).to(x)
