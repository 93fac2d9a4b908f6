"""A table's likelihood: a product over columns, of a family for each group of columns, in which cells may be missing.

    log p(x_O | z) = Σ_{d ∈ O} log p_d(x_d | z),   O: the cells of the row that are there

is the density of what was observed: a factorised likelihood integrates a missing cell out by leaving its term away
(Nazábal et al. 2020, arXiv 1807.03653; Mattei & Frellsen 2019, arXiv 1812.02633). What is missing must be so at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from aevb.errors import ShapeError
from aevb.parts import LIKELIHOOD, Offers, Support, Values
from aevb.probability.families import Family, Normal, Shape, check_size

WITHIN = {Support.UNIT: 0.5}  # a number of the support of a family, where 1 is none


@dataclass(frozen=True)
class Group:
    """Columns that share a family.

    Attributes:
        places: of the n columns in the row; p: their distribution, event shape (n,), independent; within: a number
            that is in its support.
    """

    places: Tensor
    p: Distribution
    within: float

    @property
    def cells(self) -> Distribution:
        """The distribution of single cells, batch shape (*, n)."""
        cells: Distribution = getattr(self.p, "base_dist", self.p)
        return cells

    def log_prob_each(self, x: Tensor) -> Tensor:
        """log p of each cell, (*, n), of rows x (*, F); 0 where it is missing."""
        cells = x.index_select(-1, self.places)
        seen = ~cells.isnan()
        each = self.cells.log_prob(torch.where(seen, cells, self.within))
        return torch.where(seen, each, 0.0)  # filled before, so that no NaN reaches a gradient


class ProductOfColumns(Distribution):
    """p(x_O | z) of rows x (F), NaN where a cell is missing; batch shape (*)."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, groups: Sequence[Group], columns: int) -> None:
        self.groups = groups
        super().__init__(groups[0].p.batch_shape, torch.Size((columns,)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Cells([(group.places, group.p.support) for group in self.groups])

    def log_prob_each(self, x: Tensor) -> Tensor:
        """log p(x_d | z) of each cell, (*, F), nats; 0 where it is missing."""
        return self._joined([group.log_prob_each(x) for group in self.groups])

    def log_prob(self, value: Tensor) -> Tensor:
        parts = [group.log_prob_each(value).sum(-1) for group in self.groups]
        return torch.stack(parts).sum(0)

    @property
    def mean(self) -> Tensor:
        return self._of(lambda p: p.mean)

    @property
    def mode(self) -> Tensor:
        """The most probable value of each cell; the mean where a family has no mode in closed form."""
        return self._of(_mode)

    @property
    def variance(self) -> Tensor:
        return self._of(lambda p: p.variance)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A row without holes."""
        return self._of(lambda p: p.sample(sample_shape))

    def of_cells(self, read: Callable[..., Tensor], *cells: Tensor) -> Tensor:
        """What `read` makes of the distribution of single cells, (*, n), of each group, and of its n columns of `cells`
        (*, F); joined in the order of the columns, (*, F)."""
        at = ((g, (part.index_select(-1, g.places) for part in cells)) for g in self.groups)
        return self._joined([read(g.cells, *own) for g, own in at])

    def _of(self, read: Callable[[Distribution], Tensor]) -> Tensor:
        return self._joined([read(group.p) for group in self.groups])

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        order = torch.cat([group.places for group in self.groups]).argsort()
        return torch.cat(list(parts), -1).index_select(-1, order)


def _mode(p: Distribution) -> Tensor:
    try:
        mode: Tensor = p.mode
        return mode
    except NotImplementedError:
        return p.mean


class Cells(constraints.Constraint):
    """Each group of columns in its own support, or missing."""

    event_dim = 1

    def __init__(self, parts: Sequence[tuple[Tensor, Any]]) -> None:
        self.parts = parts
        super().__init__()

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        return all(support.is_discrete for _, support in self.parts)

    @property
    def base_constraint(self) -> constraints.Constraint:
        """The constraint on single cells."""
        return _EachCell(self.parts)

    def check(self, value: Tensor) -> Tensor:
        return _EachCell(self.parts).check(value).all(-1)

    def __str__(self) -> str:
        return "the values that each column can have"


class _EachCell(constraints.Constraint):
    def __init__(self, parts: Sequence[tuple[Tensor, Any]]) -> None:
        self.parts = parts
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        inside = value.isnan()
        for places, support in self.parts:
            single = getattr(support, "base_constraint", support)
            cells = value.index_select(-1, places)
            inside[..., places] |= single.check(torch.where(cells.isnan(), 1.0, cells))
        return inside


def of_columns(v: Values) -> str:
    """The equation: what each group of columns is drawn from."""
    parts = ", ".join(f"{len(part['columns'])} {part['type']}" for part in v["parts"])
    which = f": {parts}" if parts else ", a family for each column"
    return f"Π_d p_d({v['v']}_d) over the cells that are there,  their parameters = {v['net']}{which}"


class Columns(Family, nn.Module):
    """Π_d p_d(x_d | z) over the cells that are there: a family for each group of columns.

    Args:
        shape: (F,).
        parts: families, each over (n,) columns; one normal over all of them if none are given.
        places: which n columns of the F each family has; together every column once.
    """

    word, roles = "columns", (LIKELIHOOD,)
    offers = Offers(reparameterized=False, factorized=False, missing=True)
    equation = staticmethod(of_columns)

    def __init__(self, shape: Shape, parts: Sequence[Family] = (), places: Sequence[Sequence[int]] = ()) -> None:
        nn.Module.__init__(self)
        Family.__init__(self, shape)
        parts, places = (parts, places) if parts else ([Normal(self.shape)], [range(self.shape[0])])
        _check_places(self.shape[0], places, [f.shape[0] for f in parts])
        self.families = list(parts)  # a plain list: those that are modules are registered below
        self.learning = nn.ModuleList(f for f in parts if isinstance(f, nn.Module))
        for i, group in enumerate(places):
            self.register_buffer(f"places_{i}", torch.tensor(list(group)), persistent=False)

    @property
    def starts(self) -> bool:  # type: ignore[override]
        return any(f.starts for f in self.families)

    @property
    def size(self) -> int:
        return sum(f.size for f in self.families)

    @property
    def places(self) -> list[Tensor]:
        return [getattr(self, f"places_{i}") for i in range(len(self.families))]

    def start(self, x: Tensor) -> Tensor:
        """φ₀ of the parts that have one, each from the rows in which its cells are there; 0 of the others."""
        whole = zip(self.families, self.places, strict=True)
        return torch.cat([self._start(family, x.index_select(-1, at)) for family, at in whole])

    @staticmethod
    def _start(family: Family, x: Tensor) -> Tensor:
        return family.start(refilled(x)) if family.starts else x.new_zeros(family.size)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        parts = phi.split([f.size for f in self.families], -1)
        within = [WITHIN.get(f.offers.support, 1.0) if f.offers and f.offers.support else 1.0 for f in self.families]
        whole = zip(self.places, self.families, parts, within, strict=True)
        groups = [Group(at, family(part), w) for at, family, part, w in whole]
        return ProductOfColumns(groups, self.shape[0])


def _check_places(columns: int, places: Sequence[Sequence[int]], sizes: Sequence[int]) -> None:
    """Raise a `ShapeError` unless each column has one place, in a part that is of as many columns as its places."""
    given = sorted(place for group in places for place in group)
    if given != list(range(columns)) or [len(group) for group in places] != [*sizes]:
        raise ShapeError(f"Columns: each of the {columns} columns must be in one part; got the columns {given}.")


def refilled(x: Tensor) -> Tensor:
    """Rows x (N, n) with each hole filled by an observed value of its column, taken in turn; 0 in an empty column."""
    filled = x.clone()
    for column in filled.unbind(1):
        holes = column.isnan()
        seen = column[~holes]
        if holes.any():
            column[holes] = seen[torch.arange(int(holes.sum())) % len(seen)] if len(seen) else 0.0
    return filled
