"""Columns of levels, each with as many as it has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from aevb.errors import ShapeError
from aevb.parts import LIKELIHOOD, Offers, Support
from aevb.probability import distributions as d
from aevb.probability.families import Family, Shape, check_size
from aevb.probability.shapes import side_by_side

UNSEEN = 0.5  # rows that a level counts beyond those that hold it, at the start


class LevelsOfColumns(d.Levels):
    """Categoricals over {0, ..., C_d - 1}, batch shape (*, n), from the logits of all columns side by side.

    log P needs no logits but a column's own: neighbours with as many levels are computed together. All else reads
    `base`, where each column has as many logits as the one of most levels, -∞ behind its own.

    Args:
        phi: (*, Σ C_d).
        classes: C_d.
        at: where each logit stands among those of `base`, (Σ C_d,).
    """

    def __init__(self, phi: Tensor, classes: Sequence[int], at: Tensor) -> None:
        self.phi, self.classes, self.at = phi, classes, at
        torch.distributions.Distribution.__init__(
            self, torch.Size((*phi.shape[:-1], len(classes))), validate_args=False
        )
        self.spacing = 1.0

    @cached_property
    def base(self) -> torch.distributions.Categorical:  # type: ignore[override]
        n, most = len(self.classes), max(self.classes)
        logits = self.phi.new_full((*self.phi.shape[:-1], n * most), -torch.inf).index_copy(-1, self.at, self.phi)
        return torch.distributions.Categorical(logits=logits.unflatten(-1, (n, most)), validate_args=False)

    @property
    def support(self) -> torch.distributions.constraints.Constraint:
        return d.Grid(max(self.classes), self.spacing)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of each cell, (*, n); -∞ of what is no level of its column."""
        value = value.expand(side_by_side(value.shape, self.batch_shape))
        alike = [(levels, len(list(group))) for levels, group in groupby(self.classes)]
        logits = self.phi.split([levels * columns for levels, columns in alike], -1)
        cells = value.round().long().split([columns for _, columns in alike], -1)
        each = zip(logits, cells, (levels for levels, _ in alike), strict=True)
        return torch.cat([_log_share(*one) for one in each], -1)


def _log_share(logits: Tensor, code: Tensor, levels: int) -> Tensor:
    """log P of codes (*, n), of logits (*, n C)."""
    log_p = logits.unflatten(-1, (-1, levels)).log_softmax(-1).expand(*code.shape, levels)
    inside = code.clamp(0, levels - 1)
    return torch.where(inside == code, log_p.gather(-1, inside.unsqueeze(-1)).squeeze(-1), -torch.inf)


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
        return Independent(LevelsOfColumns(check_size(self, phi), self.classes, self.at), 1, validate_args=False)

    def start(self, x: Tensor) -> Tensor:
        """The logarithms of the shares of the levels."""
        columns = zip(x.unbind(-1), self.classes, strict=True)
        counts = [torch.bincount(column.long().clamp(0, n - 1), minlength=n) + UNSEEN for column, n in columns]
        return torch.cat([(c / c.sum()).log() for c in counts]).to(x)
