"""What the columns of a table mean: the map from stored numbers to model numbers, and back.

A column is stored as one float64 per row, NaN where it is missing: the number itself; the code 0, 1, ... of a level;
seconds since 1970 (UTC) of a date; radians of an angle.  B: rows; F: columns that are modelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aevb.data.dates import from_local, to_local, zone_of

KINDS = {  # what a column can be, and what that means
    "real": "numbers of either sign",
    "positive": "numbers above zero, whose logarithm is modelled",
    "bounded": "numbers between two bounds",
    "count": "whole numbers from 0",
    "binary": "two levels",
    "categorical": "levels without an order",
    "ordinal": "levels with an order",
    "datetime": "dates and times",
    "angle": "numbers on a circle",
    "constant": "one value in all rows; not modelled",
    "id": "a value of its own in each row; not modelled",
    "text": "free text; not modelled",
    "weight": "how much each row counts; not modelled",
    "exposure": "how much time, area or material counts of a row are over; given, not modelled",
}
CODED = ("binary", "categorical", "ordinal")  # kinds that are stored as codes of levels
UNMODELLED = ("constant", "id", "text", "weight")
EXPOSURE, GIVEN = "exposure", "given"  # a kind, and what stands for its likelihood: the model reads it, and no more
OF_ALL = f"{EXPOSURE}:counts"  # asks for the exposure of all counts that have no other
EXACT = 2**53  # float64 holds every integer up to here
EDGE = 1e-6  # of the range of a bounded column: how near a number may come to a bound in its logit
NEAR = 1e-5  # of the scale of a column: how near a number is to a spike that it is taken for
RESOLVED = 4 * torch.finfo(torch.float32).eps  # of how far a spike is from the center, likewise
BELOW = 1e-3  # of the smallest number that was seen: what a number at or below zero counts as in a logarithm

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: as the source has it.
        kind: one of `KINDS`.
        dtype: the source's type, as narwhals calls it.
        why: the reason for the kind, a clause.
        likelihood: the word of a family; "" where the column is not modelled.
        levels: what the codes 0, 1, ... mean.
        holes: missing values among the rows that were looked at.
        map: x = (map(s) - center) / scale: "identity", "log", or "logit" between the bounds.
        center, scale: of the map, float64.
        low, high: the smallest and the largest stored number; of a bounded column its bounds.
        exposure: the name of the column that is the exposure of a count; "" where it has none.
        sums: whether this is no column of the source, but the sum of the counts in a row, as their exposure.
        origin: stored are the numbers less this one, where they are whole numbers that float64 would round.
        decimals: what leaves the model is rounded to so many; 0 of whole numbers; None: it is not.
        multiple: what leaves the model is rounded to multiples of this number, such as 3600 seconds; 0: it is not.
        bins: of the likelihood "quantiles".
        spikes: numbers that many rows share, in order: what leaves the model this near to one (`NEAR`) is that one.
        clocks: whether `multiple` is by the clocks of a date's time zone, such as their midnights.
        decimal: the mark before the fraction of numbers in a text file, "." or ","; "" where it is not known.
        least: a lower bound of the scale of a normal or Student's t, in model numbers: no column gains density by
            shrinking its noise.
    """

    name: str
    kind: str
    dtype: str = "Float64"
    why: str = ""
    likelihood: str = ""
    levels: tuple[Any, ...] = ()
    holes: int = 0
    map: str = "identity"
    center: float = 0.0
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    decimals: int | None = None
    bins: int = 64
    spikes: tuple[float, ...] = ()
    least: float = 0.05
    origin: int = 0
    exposure: str = ""
    multiple: float = 0.0
    sums: bool = False
    decimal: str = ""
    clocks: bool = False

    @property
    def modelled(self) -> bool:
        return bool(self.likelihood)

    @property
    def asked(self) -> str:
        """How the kind is asked for: "count", or "count:days" of one with an exposure."""
        if self.sums:
            return OF_ALL
        return f"{self.kind}:{self.exposure}" if self.exposure else self.kind

    def numbers(self, stored: Tensor) -> Tensor:
        """x of stored numbers s, float64; NaN stays NaN."""
        return (self._mapped(stored.double()) - self.center) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """s of model numbers x, float64; codes within the levels, whole numbers whole, bounded ones within bounds."""
        s = x.double() * self.scale + self.center
        if self.map == "log":
            s = s.exp()
        elif self.map == "logit":
            low, high = self._bounds
            s = low + (high - low) * torch.sigmoid(s)
        return self.rounded(s)

    def rounded(self, s: Tensor) -> Tensor:
        """Stored numbers as the column writes them: codes within the levels, multiples and decimals as it has them."""
        if self.kind in CODED:
            return s.round().clamp(0, len(self.levels) - 1)
        s = self._to_multiples(s) if self.multiple else s
        s = s if self.decimals is None else torch.round(s, decimals=self.decimals)
        return self._snapped(s) if self.spikes else s

    def _to_multiples(self, s: Tensor) -> Tensor:
        """The nearest multiples; of positive numbers none is 0."""
        if self.clocks:
            zone = zone_of(self.dtype)
            local = torch.from_numpy(to_local(s.cpu().numpy().ravel(), zone))
            nearest = torch.round(local / self.multiple) * self.multiple
            return torch.from_numpy(from_local(nearest.numpy(), zone)).to(s.device).reshape(s.shape)
        s = torch.round(s / self.multiple) * self.multiple
        return s.clamp(min=self.multiple) if self.map == "log" else s

    def _snapped(self, s: Tensor) -> Tensor:
        """Numbers that are a spike but for rounding as the spike itself."""
        spikes = torch.tensor(self.spikes, dtype=s.dtype, device=s.device)
        right = torch.searchsorted(spikes, s.contiguous()).clamp(max=len(spikes) - 1)
        pair = spikes[torch.stack([(right - 1).clamp(min=0), right])]
        nearest = torch.where((s - pair[0]).abs() < (s - pair[1]).abs(), pair[0], pair[1])
        near = NEAR * self.scale + RESOLVED * (nearest - self.center).abs()
        return torch.where((s - nearest).abs() <= near, nearest, s)

    def log_abs_det(self, stored: Tensor) -> Tensor:
        """log |dx/ds| of each stored number, in nats; 0 where it is missing, and of kinds that are discrete."""
        s, logs = stored.double(), torch.zeros_like(stored, dtype=torch.float64)
        if self.kind in (*CODED, "count", EXPOSURE):
            return logs
        logs = logs - torch.tensor(self.scale, dtype=torch.float64).log()
        if self.map == "log":
            logs = logs - self._above(s).log()
        elif self.map == "logit":
            low, high = self._bounds
            u = self._unit(s)
            logs = logs - (u * (1 - u) * (high - low)).log()
        return torch.where(s.isnan(), 0.0, logs)

    @property
    def values(self) -> Tensor | None:
        """The levels of an ordinal column as numbers, float64; None where they are none, and of other columns."""
        numeric = all(isinstance(level, int | float) for level in self.levels)
        return (
            torch.tensor(list(map(float, self.levels)), dtype=torch.float64)
            if self.kind == "ordinal" and numeric
            else None
        )

    @property
    def levels_end(self) -> float:
        """The first code behind those of the levels, which stands for all that training never saw; else infinity."""
        return float(len(self.levels)) if self.kind in CODED else math.inf

    @property
    def open_ends(self) -> tuple[float, float]:
        """Between which stored numbers must lie; infinite where they need not."""
        if self.map == "logit":
            return self._bounds
        return (0.0 if self.map == "log" else -math.inf), math.inf

    @property
    def _bounds(self) -> tuple[float, float]:
        return self.low or 0.0, 1.0 if self.high is None else self.high

    def _unit(self, s: Tensor) -> Tensor:
        """A number between its bounds, 0 to 1, a little off both."""
        low, high = self._bounds
        return ((s - low) / (high - low)).clamp(EDGE, 1 - EDGE)

    def _above(self, s: Tensor) -> Tensor:
        return s.clamp(min=BELOW * (self.low or 1.0))

    def _mapped(self, s: Tensor) -> Tensor:
        if self.map == "log":
            return self._above(s).log()
        return torch.logit(self._unit(s)) if self.map == "logit" else s

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without what is as by default; `from_dict` gives an equal column back."""
        usual = {f.name: f.default for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v != usual[k]}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Column:
        return cls(**{**table, **{name: tuple(table.get(name, ())) for name in ("levels", "spikes")}})


def step_of(column: Column) -> float:
    """The step of a column's stored numbers, such as 1 of whole ones; 0 where there is none."""
    return 0.0 if column.decimals is None else float(10.0**-column.decimals)


@dataclass(frozen=True)
class Schema:
    """All columns of a table, in the order of the source."""

    columns: tuple[Column, ...]

    @cached_property
    def modelled(self) -> tuple[int, ...]:
        """The positions of the F columns that are modelled."""
        return tuple(i for i, column in enumerate(self.columns) if column.modelled)

    @cached_property
    def model(self) -> tuple[Column, ...]:
        """The F columns that are modelled."""
        return tuple(self.columns[i] for i in self.modelled)

    def numbers(self, stored: Tensor) -> Tensor:
        """Stored numbers (B, F), NaN where missing → model numbers x (B, F), float32, NaN where missing."""
        return self._each(stored, Column.numbers).float()

    def inverse(self, x: Tensor) -> Tensor:
        """Model numbers x (..., F) → stored numbers (..., F), float64."""
        return self._each(x, Column.inverse)

    def log_abs_det(self, stored: Tensor) -> Tensor:
        """log |det ∂x/∂s| of the observed cells, (B), nats: log p(s) = log p(x) + log |det|."""
        return self._each(stored, Column.log_abs_det).sum(-1)

    def _each(self, numbers: Tensor, change: Callable[[Column, Tensor], Tensor]) -> Tensor:
        parts = [change(column, part) for column, part in zip(self.model, numbers.unbind(-1), strict=True)]
        return torch.stack(parts, -1)

    def to_dict(self) -> dict[str, Any]:
        return {"columns": [column.to_dict() for column in self.columns]}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Schema:
        return cls(tuple(map(Column.from_dict, table["columns"])))
