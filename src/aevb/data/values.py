"""What stored numbers mean: the map from them to model numbers, its inverse, and the logarithm of its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.columns import EXACT, Schema
from aevb.data.moments import Moments, moments
from aevb.errors import DataError

Kind = Literal["dynamic", "threshold", "grey", "levels", "standardized", "raw", "columns"]
Support = Literal["binary", "unit", "levels", "real", "columns"]

SUPPORTS: dict[Kind, Support] = {
    "dynamic": "binary",
    "threshold": "binary",
    "grey": "unit",
    "levels": "levels",
    "standardized": "real",
    "raw": "real",
    "columns": "columns",
}
BLOCK = 4096  # rows worked on at a time; in `Split.frozen` it is part of what a seed means


@dataclass(frozen=True)
class Values:
    """What stored numbers s mean: how they become model inputs x, float32, and how x becomes numbers of the data again.

    ============ ======================================== ========= =====================
    kind         x                                        support   log |det ∂x/∂s|, nats
    ============ ======================================== ========= =====================
    dynamic      x ~ Bernoulli(s / (levels-1)), each call binary    0
    threshold    1 if s ≥ levels/2, else 0                binary    0
    grey         s / divisor                              unit      0
    levels       s / (levels-1), on exactly that grid     levels    0
    standardized (s - mean) / std                         real      -Σ log std
    raw          s                                        real      0
    columns      each column by its `Schema`              columns   of the cells that are there
    ============ ======================================== ========= =====================

    Stored uint8 are integers in 0..levels-1. Stored floats for `dynamic` and `threshold` are probabilities in [0, 1]
    themselves (the threshold is 1/2). `mean` and `std`, of shape (*X), float64, come from the train split: see
    `fitted`. `dtype` is NumPy's name of the type that the data came in, in which `inverse` gives numbers back; "" if
    not known. `origin`, (*X), int64, is subtracted first from integers beyond 2⁵³, so that they lose nothing; `mean` is
    then that of s - origin. Whole numbers beyond int64 are stored less an `offset`.

    Grey levels have the unit of an intensity in [0, 1], and so has a density of them: it needs no factor.
    """

    kind: Kind
    levels: int = 256
    divisor: float = 255.0
    mean: Tensor | None = None
    std: Tensor | None = None
    origin: Tensor | None = None
    offset: int = 0
    dtype: str = ""
    schema: Schema | None = None

    @property
    def support(self) -> Support:
        """Where x lives: in {0, 1}, in [0, 1], on the grid of `levels` points in [0, 1], in ℝ, or as columns say."""
        return SUPPORTS[self.kind]

    def __call__(self, stored: Tensor) -> Tensor:
        """Stored (B, *X) -> x (B, *X), float32, on the same device; `dynamic` draws from torch's global generator."""
        match self.kind:
            case "dynamic":
                p = self.probability(stored)
                return (torch.rand(p.shape, device=p.device) < p).float()
            case "threshold":
                return (stored >= (0.5 if stored.is_floating_point() else self.levels / 2)).float()
            case "grey":
                return stored.float() / self.divisor
            case "levels":
                return stored.float() / (self.levels - 1)
            case "standardized":
                mean, std = self._moments()
                return ((self._shifted(stored) - mean) / std).float()
            case "raw":
                return stored.float()
            case "columns":
                return self.columns.numbers(stored)

    def probability(self, stored: Tensor) -> Tensor:
        """P(x = 1) of a `dynamic` pixel: s / (levels-1) for integers, s itself for floats."""
        return stored if stored.is_floating_point() else stored.float() / (self.levels - 1)

    def inverse(self, x: Tensor) -> NDArray[Any]:
        """x (..., *X), of a model -> numbers (..., *X) in the units and the type of the data, computed in float64.

        Integers are rounded, and clipped to what the data can hold: grey levels to 0..levels-1. Means of a binary x
        become levels·x, or stay probabilities where the data were floats.
        """
        s = x.detach().cpu().double()
        if self.kind == "columns":
            return self.columns.inverse(s).numpy()
        if self.kind == "standardized":
            mean, std = self._moments()
            s = s * std.cpu() + mean.cpu()
        elif self.kind != "raw":
            s = s * self._scale()
        return self._typed(s)

    def as_given(self, stored: Tensor) -> NDArray[Any]:
        """Stored rows (N, *X) as the numbers that the data had, rounded to float64 where they are stored otherwise."""
        if self.schema is not None:
            return np.asarray(stored.double().numpy() + np.array([float(c.origin) for c in self.schema.model]))
        numbers: NDArray[Any] = stored.double().numpy() + self.offset if self.offset else stored.numpy()
        return numbers

    def log_abs_dets(self, stored: Tensor) -> Tensor:
        """log |det ∂x/∂s| of each data point (N,), in nats: log p(s) = log p(x) + log |det ∂x/∂s|."""
        if self.kind == "columns":
            parts = torch.split(stored, BLOCK) if len(stored) else (stored,)
            return torch.cat([self.columns.log_abs_det(part) for part in parts])
        constant = -float(self._moments()[1].log().sum()) if self.kind == "standardized" else 0.0
        return torch.full((len(stored),), constant, dtype=torch.float64)

    @property
    def columns(self) -> Schema:
        """What the columns of a table mean.

        Raises:
            DataError: these values are not of a table.
        """
        if self.schema is None:
            raise DataError(f"values={self.kind!r} know no columns. Read a table, as in aevb.load_data('table.csv').")
        return self.schema

    def fitted(self, stored: Tensor) -> Values:
        """These values with the mean and the std (ddof 0) of the rows (N, *X), float64; the std of a constant entry is
        1."""
        return self.fit(stored)[0]

    def fit(self, stored: Tensor, also: Callable[[Tensor], None] | None = None) -> tuple[Values, Moments]:
        """The same, and what one pass over the rows found; `also` is called with the rows of each part, in order."""
        first = stored[0].clone() if stored.dtype == torch.int64 else None
        found = moments(stored, replace(self, origin=first)._shifted, also)
        mean, std = found.mean, torch.where(found.constant, 1.0, found.std)  # not 1e-17
        if first is None or max(-int(found.low.min()), int(found.high.max())) > EXACT:
            return replace(self, origin=first, mean=mean, std=std), found
        return replace(self, origin=None, mean=mean + first, std=std), found

    def to(self, device: torch.device | str) -> Values:
        """The same values with mean and std on a device."""
        moved: dict[str, Any] = {name: None if t is None else t.to(device) for name, t in self._tensors().items()}
        return replace(self, **moved)

    def to_dict(self) -> dict[str, Any]:
        """As numbers, lists and text for JSON; `from_dict` gives equal values back."""
        lists = {name: None if t is None else t.tolist() for name, t in self._tensors().items()}
        plain = {"kind": self.kind, "levels": self.levels, "divisor": self.divisor, "dtype": self.dtype}
        offset = {"offset": self.offset} if self.offset else {}
        return plain | lists | offset | ({} if self.schema is None else {"schema": self.schema.to_dict()})

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Values:
        """The values of which `to_dict` gave a table."""
        types = {"mean": torch.float64, "std": torch.float64, "origin": torch.int64}
        tensors = {name: torch.tensor(table[name], dtype=t) for name, t in types.items() if table.get(name) is not None}
        columns = {"schema": Schema.from_dict(table["schema"])} if table.get("schema") else {}
        return cls(**{**table, **tensors, **columns})

    def _tensors(self) -> dict[str, Tensor | None]:
        return {"mean": self.mean, "std": self.std, "origin": self.origin}

    def _moments(self) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.std is None:
            raise DataError("standardized values need a mean and a std: use Values.fitted(train rows)")
        return self.mean.double(), self.std.double()

    def _shifted(self, stored: Tensor) -> Tensor:
        """s - origin in float64. In two halves, so that no difference of two int64 is too large for one."""
        if self.origin is None:
            return stored.double()
        high, low = (stored >> 32) - (self.origin >> 32), (stored & 0xFFFFFFFF) - (self.origin & 0xFFFFFFFF)
        return high.double() * 2**32 + low.double()

    def _scale(self) -> float:
        """Stored numbers per unit of x, for values that are pixels or bits."""
        if self.kind == "grey":
            return self.divisor
        return float(self.levels - 1) if self.kind == "levels" or self._type.kind in "bui" else 1.0

    @property
    def _type(self) -> np.dtype[Any]:
        return np.dtype(self.dtype or "float32")

    def _typed(self, s: Tensor) -> NDArray[Any]:
        if self._type.kind not in "bui":
            return s.numpy().astype(self._type)
        low, high = (0, 1) if self._type.kind == "b" else (np.iinfo(self._type).min, np.iinfo(self._type).max)
        if self.support != "real":
            low, high = 0, min(high, self.levels - 1)
        if self.origin is not None or self.offset:
            return self._exact(s)
        top = math.nextafter(float(high), 0.0) if high > EXACT else float(high)  # 2⁶³ is no int64
        return s.round().clamp(float(low), top).numpy().astype(self._type)

    def _exact(self, s: Tensor) -> NDArray[Any]:
        """Whole numbers s less the origin as those of the data, exactly, and no farther than their type goes."""
        origin = torch.zeros((), dtype=torch.int64) if self.origin is None else self.origin.cpu()
        ends = torch.iinfo(torch.int64)
        least, most = ends.min - origin.clamp(max=0), ends.max - origin.clamp(min=0)  # what may be added to the origin
        near = torch.maximum(torch.minimum(s.clamp(-(2.0**60), 2.0**60).round().long(), most), least) + origin
        far = (s + origin).clamp(float(ends.min), math.nextafter(2.0**63, 0.0)).long()  # of what float64 rounds anyway
        far = torch.where(s + origin >= 2.0**63, ends.max, far)
        moved = torch.where(s.abs() < 2.0**60, near, far).numpy()
        whole = moved if self._type.kind == "i" or self.offset else moved.clip(0)
        out: NDArray[Any] = whole.astype(self._type) + self._type.type(self.offset)
        return out
