"""A table's likelihood: a product over columns, of a family for each group of columns, in which cells may be missing.

    log p(x_O | z) = Σ_{d ∈ O} log p_d(x_d | z),   O: the cells of the row that are there

is the density of what was observed: a factorised likelihood integrates a missing cell out by leaving its term away
(Nazábal et al. 2020, arXiv 1807.03653; Mattei & Frellsen 2019, arXiv 1812.02633). What is missing must be so at random,
unless which cells are there is modelled as well (`probability.masks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from aevb.errors import ShapeError
from aevb.parts import LIKELIHOOD, Offers, Support, Values
from aevb.probability.exposures import Given, over
from aevb.probability.families import Family, Normal, Shape, check_size
from aevb.probability.masks import Mask, known, start_of

WITHIN = {Support.UNIT: 0.5}  # a number of the support of a family, where 1 is none


@dataclass(frozen=True)
class Group:
    """Columns that share a family.

    Attributes:
        places: of the n columns in the row; p: their distribution, event shape (n,), independent; within: a number
            that is in its support.
        exposure: the place of the exposure of these counts; then p is that of counts over one unit of it.
    """

    places: Tensor
    p: Distribution
    within: float
    exposure: int | None = None

    @property
    def cells(self) -> Distribution:
        """The distribution of single cells, batch shape (*, n)."""
        cells: Distribution = getattr(self.p, "base_dist", self.p)
        return cells

    def log_prob_each(self, x: Tensor) -> Tensor:
        """log p of each cell, (*, n), of rows x (*, F); 0 where it is missing."""
        cells = self.per(x)
        seen = ~cells.isnan()
        each = self.exposed(x).cells.log_prob(torch.where(seen, x.index_select(-1, self.places), self.within))
        return torch.where(seen, each, 0.0)  # filled before, so that no NaN reaches a gradient

    def per(self, x: Tensor) -> Tensor:
        """The cells (*, n) of rows x (*, F), counts per unit of their exposure; NaN where either is missing."""
        return per_unit(x, self.places, self.exposure)

    def exposed(self, x: Tensor) -> Group:
        """The same with counts over the exposures of rows x (*, F), and with these as given; 1 where there is none."""
        if isinstance(self.cells, Given):
            e = _or_one(x.index_select(-1, self.places))
            return replace(self, p=_independent(Given(e + torch.zeros_like(self.cells.value))))
        if self.exposure is None:
            return self
        e = _or_one(x[..., self.exposure].unsqueeze(-1))
        return replace(self, p=_independent(over(self.cells, e)), exposure=None)


def per_unit(x: Tensor, places: Tensor, exposure: int | None) -> Tensor:
    """The cells at some places of rows x (*, F), divided by the exposure at another place, where there is one."""
    cells = x.index_select(-1, places)
    return cells if exposure is None else cells / x[..., exposure].unsqueeze(-1)


def _or_one(e: Tensor) -> Tensor:
    return torch.where(e.isnan(), 1.0, e)


def _independent(cells: Distribution) -> Distribution:
    return Independent(cells, 1, validate_args=False)


class ProductOfColumns(Distribution):
    """p(x_O | z) of rows x (F), NaN where a cell is missing; batch shape (*). With a mask it is p(x_O, m | z)."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, groups: Sequence[Group], columns: int, mask: Mask | None = None) -> None:
        self.groups, self.mask = groups, mask
        super().__init__(groups[0].p.batch_shape, torch.Size((columns,)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Cells([(group.places, group.p.support) for group in self.groups])

    def log_prob_each(self, x: Tensor) -> Tensor:
        """log p(x_d | z) of each cell, (*, F), nats; 0 where it is missing; with a mask log p(m_d | z) is in it."""
        if self.mask is None:
            return self._joined([group.log_prob_each(x) for group in self.groups])
        cells = self._joined([group.log_prob_each(known(x)) for group in self.groups])
        return cells.index_add(-1, self.mask.places, self.mask.log_prob_each(x))

    def log_prob(self, value: Tensor) -> Tensor:
        x = value if self.mask is None else known(value)
        parts = [group.log_prob_each(x).sum(-1) for group in self.groups]
        parts += [] if self.mask is None else [self.mask.log_prob_each(value).sum(-1)]
        return torch.stack(parts).sum(0)

    def exposed(self, x: Tensor) -> ProductOfColumns:
        """The same where counts are over the exposures that rows x (*, F) hold; without rows they are over one unit."""
        return ProductOfColumns([group.exposed(x) for group in self.groups], self.event_shape[0], self.mask)

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
        """A row without holes; with a mask holes are drawn too."""
        x = self._of(lambda p: p.sample(sample_shape))
        return x if self.mask is None else x.masked_fill(self.mask.holes(x.shape[-1], sample_shape), torch.nan)

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


def complete(p: Distribution) -> Distribution:
    """The distribution of rows without holes: what a cell is where it is there."""
    return ProductOfColumns(p.groups, p.event_shape[0]) if isinstance(p, ProductOfColumns) else p


def exposed(p: Distribution, x: Tensor) -> Distribution:
    """The distribution of rows whose exposures of counts are those of x (*, F); p itself where it knows none."""
    return p.exposed(x) if isinstance(p, ProductOfColumns) else p


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
    over = " of means in proportion to an exposure"
    parts = ", ".join(f"{len(part['columns'])} {part['type']}{over * ('exposure' in part)}" for part in v["parts"])
    which = f": {parts}" if parts else ", a family for each column"
    which += f"; a Bernoulli says which cells of {len(v['masked'])} columns are there" if v.get("masked") else ""
    return f"Π_d p_d({v['v']}_d) over the cells that are there,  their parameters = {v['net']}{which}"


class Columns(Family, nn.Module):
    """Π_d p_d(x_d | z) over the observed cells: a family for each group of columns.

    Args:
        shape: (F,).
        parts: families, each over (n,) columns; one normal over all of them if none are given.
        places: which n columns of the F each family has; together every column once.
        masked: columns whose holes are modelled, by a Bernoulli each; the holes of others are missing at random.
        exposures: of each part the column that is the exposure of its counts, or None. These columns are given: they
            are in no part, and have no density.
    """

    word, roles = "columns", (LIKELIHOOD,)
    offers = Offers(reparameterized=False, factorized=False, missing=True)
    equation = staticmethod(of_columns)

    masked: Tensor
    given: Tensor

    def __init__(
        self,
        shape: Shape,
        parts: Sequence[Family] = (),
        places: Sequence[Sequence[int]] = (),
        masked: Sequence[int] = (),
        exposures: Sequence[int | None] = (),
    ) -> None:
        nn.Module.__init__(self)
        Family.__init__(self, shape)
        parts, places = (parts, places) if parts else ([Normal(self.shape)], [range(self.shape[0])])
        self.exposures = [*exposures] or [None] * len(parts)
        given = sorted({e for e in self.exposures if e is not None})
        _check_places(self.shape[0], [*places, given], [*(f.shape[0] for f in parts), len(given)])
        self.families = list(parts)  # a plain list: those that are modules are registered below
        self.learning = nn.ModuleList(f for f in parts if isinstance(f, nn.Module))
        for i, group in enumerate(places):
            self.register_buffer(f"places_{i}", torch.tensor(list(group)), persistent=False)
        self.register_buffer("masked", torch.tensor(list(masked), dtype=torch.int64), persistent=False)
        self.register_buffer("given", torch.tensor(given, dtype=torch.int64), persistent=False)

    @property
    def starts(self) -> bool:  # type: ignore[override]
        return any(f.starts for f in self.families) or len(self.masked) > 0

    @property
    def size(self) -> int:
        return sum(f.size for f in self.families) + len(self.masked)

    @property
    def places(self) -> list[Tensor]:
        return [getattr(self, f"places_{i}") for i in range(len(self.families))]

    def start(self, x: Tensor) -> Tensor:
        """φ₀ of the parts that have one, each from the rows in which its cells are there; 0 of the others."""
        whole = zip(self.families, self.places, self.exposures, strict=True)
        parts = [self._start(family, per_unit(x, at, exposure)) for family, at, exposure in whole]
        return torch.cat([*parts, start_of(x.index_select(-1, self.masked)).to(x)])

    @staticmethod
    def _start(family: Family, x: Tensor) -> Tensor:
        return family.start(refilled(x)) if family.starts else x.new_zeros(family.size)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        *parts, logits = phi.split([*(f.size for f in self.families), len(self.masked)], -1)
        within = [WITHIN.get(f.offers.support, 1.0) if f.offers and f.offers.support else 1.0 for f in self.families]
        whole = zip(self.places, self.families, parts, within, self.exposures, strict=True)
        groups = [Group(at, family(part), w, exposure) for at, family, part, w, exposure in whole]
        if len(self.given):
            groups.append(Group(self.given, _independent(Given(phi.new_ones(*phi.shape[:-1], len(self.given)))), 1.0))
        return ProductOfColumns(groups, self.shape[0], Mask(self.masked, logits) if len(self.masked) else None)


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
