"""Inference of some cells of a row given the others: filling holes, draws of what is missing, intervals.

With O the cells of x that are there, and z_k ~ q(z | x_O), k = 1..K,

    w_k = p(x_O, z_k) / q(z_k | x_O),   w̃_k = w_k / Σ_j w_j,   E[h(x_M) | x_O] ≈ Σ_k w̃_k E[h(x_M) | z_k]

is self-normalised importance sampling (MIWAE: Mattei & Frellsen 2019, arXiv 1812.02633). The noise of a row comes from
streams of its own (`models.rows`), so that a row's result does not depend on the rows beside it. K: samples; B: rows at
a time; N: rows; F: columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from aevb.data.batch import Batch, Indexable
from aevb.data.columns import Column, Schema
from aevb.data.randomness import derive
from aevb.data.walk import Counter, decoded_at_once
from aevb.errors import DataError
from aevb.evidence.support import refuse_point
from aevb.models.checks import likelihood_batches, split_of
from aevb.models.given import admits_holes
from aevb.models.inference import Model, as_result, fitting, inference, numbers_of_columns
from aevb.models.rows import Group, by_row
from aevb.notation import Brief
from aevb.probability.columns import ProductOfColumns
from aevb.probability.inverse import average, has_order, icdf

Method = Literal["mean", "median"]
PER_DRAW = 5  # proposals of z for each imputation, at least


@dataclass(frozen=True, repr=False)
class Imputed(Brief):
    """Rows with their holes filled.

    Attributes:
        values: (N, F), float64, on the CPU; observed cells are unchanged.
        ess: (N,), the effective sample size (Σ w)² / Σ w², between 1 and K; NaN of rows without holes.
        samples: K.
    """

    values: Tensor
    ess: Tensor
    samples: int


@dataclass(frozen=True)
class Weighed:
    """Draws of z given the cells that are there, for B rows.

    Attributes:
        model, group: of which model, and for which rows.
        z: (K, B, *Z); p: p(x | z), batch (K, B); w: (K, B), normalised weights, float64.
    """

    model: Model
    group: Group
    z: Tensor
    p: ProductOfColumns
    w: Tensor

    @property
    def ess(self) -> Tensor:
        """(B,)."""
        return 1 / self.w.square().sum(0)

    def cells(self) -> Tensor:
        """x_k ~ p(x | z_k), (K, B, F)."""
        return cells_at(self.p, self.group.uniform(len(self.z), self.p.event_shape[0], "cells"))

    def mean(self) -> Tensor:
        """Σ_k w̃_k E[x | z_k], (B, F); the most probable level of a column of levels, the mean direction of angles."""
        return self.p.of_cells(lambda p: average(p, self.w))

    def draws(self, n: int) -> Tensor:
        """x ~ p(x | x_O), (n, B, F): z is drawn again by its weight, then every cell."""
        k = picked(self.w, self.group.uniform(n, 1, "which").squeeze(-1))
        z = self.z[k, torch.arange(self.z.shape[1], device=k.device)]
        p = columns_of(self.model.decode(z, self.group.batch.y)).exposed(self.group.batch.x)
        return cells_at(p, self.group.uniform(n, p.event_shape[0], "drawn"))

    def told_apart(self, seen: dict[int, int]) -> Weighed:
        """The same, with other streams for rows that equal one that was `seen`: their draws must be independent."""
        seeds = []
        for seed in self.group.seeds:
            seeds.append(derive(seed, seen[seed]) if seed in seen else seed)
            seen[seed] = seen.get(seed, 0) + 1
        return replace(self, group=replace(self.group, seeds=seeds))


def impute(model: Model, data: Indexable, samples: int = 200, *, method: Method = "mean", seed: int = 0) -> Imputed:
    """Fill holes: E[x_M | x_O], or its median, by importance sampling (MIWAE, arXiv 1812.02633).

        E[x_d | x_O] ≈ Σ_k w̃_k E[x_d | z_k],   w_k = p(x_O, z_k) / q(z_k | x_O),   z_k ~ q(z | x_O)

    The mean is one of the data's own numbers: where a logarithm or a logit of a column is modelled it is the mean of
    draws, within the range that was seen. Columns of levels get their most probable level; ordered numbers get the
    level nearest to the mean. Angles get the mean direction, and columns of whole numbers whole ones.

    Args:
        data: x (N, F), NaN where a cell is missing, as of `aevb.encode`. Of a split of a table results are in its
            stored numbers; of other data in the model's numbers.
        samples: K.
        method: "mean", which has the smallest squared error, or "median", the smallest absolute one.
        seed: of the noise.

    Raises:
        DataError: the model's likelihood has no columns in which cells may be missing.
    """
    read = {"mean": _means, "median": _medians}[method]
    values, ess = _filled(model, data, samples, read, seed)
    return Imputed(values[0], ess, samples)


def conditional_draws(
    model: Model,
    data: Indexable,
    n: int = 10,
    *,
    samples: int | None = None,
    seed: int = 0,
    seen: dict[int, int] | None = None,
) -> Tensor:
    """Multiple imputations: n draws x_M ~ p(x_M | x_O) of the missing cells, (n, N, F), by importance resampling.

    z is drawn from K proposals z_k ~ q(z | x_O) by its weight w_k = p(x_O, z_k) / q(z_k | x_O), then x_M ~ p(x_M | z):
    levels are drawn too. Observed cells are the same in all. Equal rows get different draws, by their order.

    Args:
        data: as of `impute`, with the same units.
        n: draws of each row.
        samples: K; 200, or 5n where that is more, if None.
        seen: of data that come part by part: the same dict for each part, empty at first; it counts equal rows.

    Returns:
        (n, N, F), float64, on the CPU.
    """
    k, before = samples or max(200, PER_DRAW * n), {} if seen is None else seen

    def drawn(found: Weighed, schema: Schema | None) -> Tensor:
        return in_units(found.told_apart(before).draws(n), schema)

    return _filled(model, data, k, drawn, seed)[0]


def intervals(
    model: Model, data: Indexable, share: float = 0.9, *, samples: int = 500, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Central intervals that hold a missing number with probability `share`: low and high, each (N, F).

    They are weighted quantiles of draws x_k ~ p(x | z_k), z_k ~ q(z | x_O), in the units of `impute`. Cells that are
    there, and columns of angles and of levels without an order, which have no such interval, are NaN.
    """
    if not 0 < share < 1:
        raise ValueError(f"intervals: share must be between 0 and 1; got {share}.")
    ends = ((1 - share) / 2, (1 + share) / 2)

    def both(found: Weighed, schema: Schema | None) -> Tensor:
        x = found.cells()
        quantiles = torch.stack([weighted_quantile(x, found.w, end) for end in ends])
        return torch.where(ordered_columns(found.p, schema), in_units(quantiles, schema), torch.nan)

    low, high = _filled(model, data, samples, both, seed, keep=False)[0]
    return low, high


Read = Callable[[Weighed, "Schema | None"], Tensor]  # → (n, B, F) in the data's units


def _means(found: Weighed, schema: Schema | None) -> Tensor:
    x = found.mean()
    if not bool(x.isfinite().all()):  # of tails without a mean
        x = torch.where(x.isfinite(), x, weighted_quantile(found.cells(), found.w, 0.5))
    out = in_units(x, schema)
    if schema is not None and any(map(_by_draws, schema.model)):
        s, w = in_units(found.cells(), schema), found.w.cpu()
        for d, column in enumerate(schema.model):
            if _by_draws(column):
                out[:, d] = _mean_of_draws(column, s[..., d], w)
    return out.unsqueeze(0)


def _by_draws(column: Column) -> bool:
    """Whether the mean of a column's own numbers is no function of the mean of the model's numbers."""
    return column.map != "identity" or column.values is not None


def _mean_of_draws(column: Column, s: Tensor, w: Tensor) -> Tensor:
    """Σ_k w̃_k s_k of stored numbers s (K, B), within the range that was seen; of levels that are numbers the nearest
    one."""
    values = column.values
    if values is None:
        inside = s if column.low is None or column.high is None else s.clamp(column.low, column.high)
        return column.rounded((w * inside).sum(0))
    mean = (w * values[s.long()]).sum(0)
    return (mean.unsqueeze(-1) - values).abs().argmin(-1).double()


def _medians(found: Weighed, schema: Schema | None) -> Tensor:
    middle = weighted_quantile(found.cells(), found.w, 0.5)
    ordered = ordered_columns(found.p, schema).to(middle.device)
    return in_units(torch.where(ordered, middle, found.mean()), schema).unsqueeze(0)


def in_units(x: Tensor, schema: Schema | None) -> Tensor:
    """Model numbers (..., F) as stored ones, on the CPU, float64; as they are without a schema."""
    return as_result(x) if schema is None else schema.inverse(as_result(x))


def _filled(
    model: Model, data: Indexable, samples: int, read: Read, seed: int, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """What `read` makes of the rows with holes, (n, N, F), and the ess (N,), NaN of rows without; other cells are kept,
    or NaN."""
    cells, x, schema = all_cells(fitting(model, data))
    holed = cells.isnan().any(1).nonzero().flatten()
    ess, made = cells.new_full((len(cells),), math.nan), None
    start = 0
    if not len(holed):  # of one row, for the count of what `read` gives
        holed = torch.zeros(1, dtype=torch.int64)
    for found in weighed(model, rows_with(x, holed), samples, seed):
        at = holed[start : start + len(found.group.batch)]
        numbers = read(found, schema)
        if made is None:
            made = torch.where(torch.tensor(keep), cells, math.nan).expand(len(numbers), -1, -1).clone()
        made[:, at] = torch.where(cells[at].isnan(), numbers, made[:, at])
        ess[at] = as_result(found.ess)
        start += len(at)
    assert made is not None
    return made, ess


def all_cells(data: Any) -> tuple[Tensor, Any, Schema | None]:
    """All cells in the data's units (N, F), float64; the rows as a tensor or a split; the schema of a table."""
    split = split_of(data)
    if split is not None and split.values.schema is not None:
        return as_result(split.stored), split, split.values.schema
    item = data[torch.arange(len(data))]
    x = item.x if isinstance(item, Batch) else item
    return as_result(x), x, None


def rows_with(x: Any, at: Tensor) -> Any:
    """Some rows of a tensor or of a split."""
    return x[at.to(x.device)] if isinstance(x, Tensor) else replace(x, stored=x.stored[at], labels=None, names=None)


def weighed(model: Model, rows: Any, samples: int, seed: int, purpose: str = "condition") -> Iterator[Weighed]:
    """Weighted draws of z for all rows, in blocks whose numbers fit memory, in the data's order."""
    data = fitting(model, rows)
    if samples < 1:
        raise ValueError(f"{purpose}: samples must be at least 1; got {samples}.")
    if not admits_holes(model):
        raise DataError("The model does not support rows with holes. Train one of a table: aevb train table.csv.")
    count = Counter(len(data) * samples)
    with inference(model, derive(seed, purpose)) as device:
        for batch in likelihood_batches(model, data, rows_at_a_time(model, samples, device)):
            for group in by_row(model.posterior, batch, derive(seed, purpose)):
                yield weighed_group(model, group, samples)
                count(samples * len(group.batch))


def weighed_group(model: Model, group: Group, samples: int) -> Weighed:
    """K draws of z for the rows of a group, and their weights."""
    refuse_point(group.q, "importance sampling", everywhere=True)
    z = torch.cat(list(group.blocks(samples)))
    p = columns_of(model.decode(z, group.batch.y)).exposed(group.batch.x)
    log_w = p.log_prob(group.batch.x) + model.trace_at(group.batch, group.q, z).log_pz - group.q.log_prob(z)
    return Weighed(model, group, z, p, log_w.double().softmax(0))


def columns_of(p: Distribution) -> ProductOfColumns:
    if not isinstance(p, ProductOfColumns):
        raise DataError("The model's likelihood is not one of columns. Train one of a table: aevb train table.csv.")
    return p


def rows_at_a_time(model: Any, samples: int, device: torch.device) -> int:
    """How many rows to decode at a time with all their samples: the network's numbers for one row count, too."""
    width = (
        numbers_of_columns(model)
        or model.decode(torch.zeros(1, *model.latent_shape, device=device)).event_shape.numel()
    )
    return max(1, 4 * decoded_at_once(device) // (width * samples))


def cells_at(p: ProductOfColumns, u: Tensor) -> Tensor:
    """x = F⁻¹(u), each cell of its own u (*, F)."""
    return p.of_cells(icdf, u)


def ordered_columns(p: ProductOfColumns, schema: Schema | None) -> Tensor:
    """Which columns have quantiles, (F,)."""
    ordered = torch.zeros(p.event_shape[0], dtype=torch.bool)
    for group in p.groups:
        ordered[group.places.cpu()] = has_order(group.cells)
    return ordered if schema is None else ordered | torch.tensor([c.kind == "ordinal" for c in schema.model])


def weighted_quantile(x: Tensor, w: Tensor, q: float) -> Tensor:
    """The smallest x_k (B, F) of (K, B, F) below and at which there are weights (K, B) of q or more."""
    ordered, order = x.sort(0)
    mass = w.unsqueeze(-1).expand(x.shape).gather(0, order).cumsum(0)
    at = (mass < q * (1 - 1e-9)).sum(0, keepdim=True).clamp(max=len(x) - 1)
    return ordered.gather(0, at).squeeze(0)


def picked(w: Tensor, u: Tensor) -> Tensor:
    """Numbers k (n, B), each with the probability w_k (K, B), as a function of u (n, B) in [0, 1)."""
    mass = w.cumsum(0).T.contiguous()
    return torch.searchsorted(mass, u.to(mass).T.contiguous()).clamp(max=len(w) - 1).T
