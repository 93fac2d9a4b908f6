"""New rows given some of their columns: values that are known, and ranges, by importance resampling in the model.

With x_O what is given exactly and R the ranges of other columns,

    w_k = p(z_k) p(x_O | z_k) Π_d P(x_d ∈ R_d | z_k) / r(z_k),   z_k ~ r

z is drawn again by its weight, then the other columns from p(x | z), those of ranges within them by F⁻¹. No row is
drawn and rejected. The proposals r are a mixture: the encoder's posterior given x_O, posteriors given x_O and values in
the ranges, and the prior with weight 1/10, which bounds the weights. K: proposals; F: columns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.distributions import Distribution

from aevb.data.batch import Batch
from aevb.data.columns import EXPOSURE, Column, Schema, step_of
from aevb.data.randomness import derive
from aevb.errors import AevbWarning, DataError
from aevb.evidence.support import refuse_point
from aevb.models.given import unknown_in
from aevb.models.inference import Model, dtype_of, inference
from aevb.probability.columns import Group, ProductOfColumns
from aevb.probability.inverse import between, icdf
from aevb.use.condition import columns_of, in_units

Range = tuple[float | None, float | None]
Asked = Mapping[str, float | Range] | Mapping[int, float | Range]
AT_ONCE, PROPOSALS = 500, 10  # rows drawn from one set of proposals, and proposals for each row
INSIDE = 16  # posteriors given values within the ranges
PRIOR = 0.1  # the prior's share of the proposals
DISCRETE = ("poisson", "negative-binomial", "zero-inflated-negative-binomial", "categorical")
FEW = 20.0  # an effective sample size of a set below which it is told


@dataclass(frozen=True)
class Wanted:
    """What is given, in model numbers, of one row.

    Attributes:
        x: (F,), NaN where no value is given; low, high: (F,), float64, infinite where there is no bound.
    """

    x: Tensor
    low: Tensor
    high: Tensor

    @property
    def ranged(self) -> Tensor:
        """Which columns have a range, (F,)."""
        return self.low.isfinite() | self.high.isfinite()

    def limits(self, group: Group) -> tuple[Tensor, Tensor]:
        """F below and at the ends of the ranges of a group's columns, each (*, n): 0 and 1 where there is none."""
        low, high = self.low[group.places], self.high[group.places]
        if not bool((low.isfinite() | high.isfinite()).any()):
            return torch.zeros_like(low), torch.ones_like(high)
        ends = (torch.where(end.isfinite(), end, group.within) for end in (low, high))
        shape = (*group.cells.batch_shape[:-1], len(low))
        below, up_to = between(group.cells, *(end.expand(shape) for end in ends))
        return torch.where(low.isfinite(), below, 0.0), torch.where(high.isfinite(), up_to, 1.0)

    def log_share(self, p: ProductOfColumns) -> Tensor:
        """log Π_d P(x_d is there, and in R_d | z), (*)."""
        shares = [up_to - below for below, up_to in map(self.limits, p.groups)]
        logs = [share.clamp(min=0).log().sum(-1).expand(p.batch_shape) for share in shares]
        logs += [] if p.mask is None else [p.mask.log_there(self.ranged)]
        return torch.stack(logs).sum(0)

    def cells(self, p: ProductOfColumns) -> Tensor:
        """x ~ p(x | z), (*, F), float64, within the ranges and with the values that are given; others may be holes."""
        made = torch.empty(*p.batch_shape, *p.event_shape, dtype=torch.float64, device=self.x.device)
        for group in p.groups:
            below, up_to = self.limits(group)
            u = torch.rand(*p.batch_shape, len(group.places), dtype=made.dtype, device=made.device)
            made[..., group.places] = icdf(group.cells, below + (up_to - below) * u)
        made = torch.minimum(torch.maximum(made, self.low), self.high)
        if p.mask is not None:
            made = made.masked_fill(p.mask.holes(made.shape[-1]) & ~self.ranged, math.nan)
        return torch.where(self.x.isnan(), made, self.x.double())


def sample_given(model: Model, n: int, given: Asked, *, schema: Schema | None = None, seed: int = 0) -> Tensor:
    """n new rows in which some columns are given: x ~ p(x | x_O, x_d ∈ R_d), by importance resampling.

    Levels are drawn, as are all columns that are not given. If the condition is rare in the model, the rows rest on few
    latents, and an AevbWarning says so.

    Args:
        n: how many.
        given: of a column, by its name in the schema or by its number: a value, or a range (low, high) with both ends,
            None for no bound. Of a table they are stored numbers: codes of levels, seconds, radians.
        schema: of the table that the model was trained on, as `run.values().schema`. Without one all numbers are the
            model's.
        seed: of the draws.

    Returns:
        (n, F), float64, in stored numbers, or in the model's without a schema.

    Raises:
        DataError: there is no such column, a value that it cannot have, or a range without any.
    """
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"sample_given: n must be a whole number of at least 1; got {n!r}.")
    blocks = []
    with inference(model, derive(seed, "given")) as device:
        size = columns_of(model.decode(model.sample_latent(1))).event_shape[0]
        wanted = wanted_of(given, size, schema, device, dtype_of(model))
        for start in range(0, n, AT_ONCE):
            blocks.append(_block(model, wanted, min(AT_ONCE, n - start)))
    rows = in_units(torch.cat([x for x, _ in blocks]), schema)
    ess = min(ess for _, ess in blocks)
    if ess < FEW:
        told = f"The condition is rare in the model: rows rest on an effective number of {ess:.1f} latents."
        warnings.warn(AevbWarning(f"{told} Widen a range, or give fewer columns."), stacklevel=2)
    return rows if schema is None else _within_ends(rows, given, schema)


def _within_ends(rows: Tensor, given: Asked, schema: Schema) -> Tensor:
    """Rounding cannot carry a number out of its range, nor a value away from what was given."""
    for d, (low, high, ranged) in by_number(given, schema, rows.shape[1]).items():
        if schema.model[d].decimals == 0 and ranged:
            low, high = (None if low is None else math.ceil(low)), (None if high is None else math.floor(high))
        if low is not None or high is not None:
            rows[:, d] = rows[:, d].clamp(low, high)
    return rows


class Limits(NamedTuple):
    """The ends between which a column must be; of a value, which is no range, both are the value."""

    low: float | None
    high: float | None
    ranged: bool


def by_number(given: Asked, schema: Schema | None, columns: int) -> dict[int, Limits]:
    """What is given, by the numbers of columns.  DataError where there is no such column."""
    places = {} if schema is None else {column.name: d for d, column in enumerate(schema.model)}
    found: dict[int, Limits] = {}
    for name, asked in given.items():
        d = places.get(name) if isinstance(name, str) else name
        if d is None or not 0 <= d < columns:
            known = ", ".join(list(places)[:10]) or f"0 to {columns - 1}"
            raise DataError(f"The model has no column {name!r} that could be given. It models {known}.")
        found[d] = Limits(*asked, True) if isinstance(asked, tuple) else Limits(asked, asked, False)
    return found


def wanted_of(given: Asked, columns: int, schema: Schema | None, device: torch.device, dtype: torch.dtype) -> Wanted:
    """What is given in model numbers; an exposure that is not is the median.  DataError for a range without numbers."""
    x = torch.full((columns,), math.nan, dtype=torch.float64)
    low, high = torch.full_like(x, -math.inf), torch.full_like(x, math.inf)
    for d, asked in by_number(given, schema, columns).items():
        column = None if schema is None else schema.model[d]
        if asked.ranged:
            low[d], high[d] = _ends((asked.low, asked.high), column)
        else:
            x[d] = _value(cast(float, asked.low), column)
    if schema is not None:
        x = torch.where(x.isnan() & torch.tensor([column.kind == EXPOSURE for column in schema.model]), 1.0, x)
    return Wanted(x.to(device, dtype), low.to(device), high.to(device))


def _value(asked: float, column: Column | None) -> float:
    """A value in model numbers.  DataError for a level that there is not."""
    if column is None:
        return asked
    if column.kind == EXPOSURE and not 0 < asked < math.inf:
        raise DataError(f"Column {column.name!r} is an exposure, which is above zero; got {asked:g}.")
    if not -math.inf < asked < column.levels_end:
        raise DataError(f"Column {column.name!r} has the levels 0 to {column.levels_end - 1:g}; got {asked:g}.")
    return float(column.numbers(torch.tensor(float(asked))))


def _ends(asked: Range, column: Column | None) -> tuple[float, float]:
    """The ends of a range in model numbers; of whole numbers that are modelled as real ones half a step wider."""
    low, high = unbounded(asked)
    if column is not None and column.kind == EXPOSURE:
        raise DataError(f"Column {column.name!r} is an exposure, which has no range. Give one value.")
    _refuse_empty(low, high, whole=column is not None and column.decimals == 0)
    if column is None:
        return low, high
    wider = 0.0 if column.likelihood in DISCRETE else 0.5 * max(step_of(column), column.multiple)
    bounds = column.open_ends
    low = -math.inf if low <= bounds[0] else float(column.numbers(torch.tensor(low - wider)))
    high = math.inf if high >= bounds[1] else float(column.numbers(torch.tensor(high + wider)))
    return low, high


def unbounded(asked: Range) -> tuple[float, float]:
    """The ends of a range, infinite where there is no bound."""
    low, high = asked
    return -math.inf if low is None else low, math.inf if high is None else high


def _refuse_empty(low: float, high: float, whole: bool) -> None:
    """Raise a `DataError` for a range without a number, or without a whole one where all are."""
    whole = whole and math.isfinite(low) and math.isfinite(high)
    if not low <= high or (whole and math.ceil(low) > math.floor(high)):
        kind = "whole number" if whole else "number"
        raise DataError(f"The range from {low:g} to {high:g} holds no {kind}. Give the smaller end first, or widen it.")


def _block(model: Model, wanted: Wanted, n: int) -> tuple[Tensor, float]:
    """n rows (n, F) from one set of proposals, and the effective size of that set."""
    row = Batch(torch.where(wanted.x.isnan(), unknown_in(model), wanted.x).unsqueeze(0))
    q = model.posterior(row)
    refuse_point(q, "importance sampling", everywhere=True)
    parts: list[tuple[float, Distribution]] = [(1 - PRIOR, q)]
    if bool(wanted.ranged.any()):
        inside = _inside(model, wanted, row, q)
        parts = [((1 - PRIOR) / 2, q), *((((1 - PRIOR) / 2) / len(inside), one) for one in inside)]
    z, log_w = _weighted(model, wanted, row, parts, PROPOSALS * n)
    w = log_w.softmax(0)
    if not bool(log_w.max().isfinite()):
        raise DataError("The model gives rows with these values no probability. Give fewer columns, or wider ranges.")
    chosen = z[torch.multinomial(w, n, replacement=True)]
    return wanted.cells(columns_of(model.decode(chosen)).exposed(wanted.x)), float(1 / w.square().sum())


def _inside(model: Model, wanted: Wanted, row: Batch, q: Distribution) -> list[Distribution]:
    """Posteriors given what is known and values within the ranges."""
    z, log_w = _weighted(model, wanted, row, [(1 - PRIOR, q)], INSIDE * PROPOSALS)
    if not bool(log_w.max().isfinite()):
        log_w = torch.zeros_like(log_w)
    chosen = z[torch.multinomial(log_w.softmax(0), INSIDE, replacement=True)]
    made = wanted.cells(columns_of(model.decode(chosen)).exposed(wanted.x)).to(wanted.x)
    rows = torch.where(wanted.ranged, made, row.x)
    return [model.posterior(Batch(one.unsqueeze(0))) for one in rows]


def _weighted(
    model: Model, wanted: Wanted, row: Batch, parts: Sequence[tuple[float, Distribution]], k: int
) -> tuple[Tensor, Tensor]:
    """About k draws z (K, *Z) of a mixture with the prior, and log w (K,), float64."""
    counts = [max(1, round(share * k)) for share in (*(share for share, _ in parts), PRIOR)]
    drawn = [q.sample((count,)).squeeze(1) for count, (_, q) in zip(counts, parts, strict=False)]
    z = torch.cat([*drawn, model.sample_latent(counts[-1])])
    log_pz = model.trace_at(row, parts[0][1], z.unsqueeze(1)).log_pz.squeeze(1)
    log_q = torch.stack([*(q.log_prob(z.unsqueeze(1)).squeeze(1) for _, q in parts), log_pz])
    log_r = (log_q + (log_q.new_tensor(counts) / len(z)).log().unsqueeze(1)).logsumexp(0)
    p = columns_of(model.decode(z)).exposed(wanted.x)
    log_px = p.log_prob(row.x.expand(len(z), -1))
    return z, (log_px + log_pz - log_r).double() + wanted.log_share(p)
