"""A number with its error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Estimate(float):
    """A mean over n data points with its standard error; it is a number, and prints as -91.90 ± 0.31.

    Attributes:
        se: the standard error; NaN where it is not known.
        n: how many data points; 0 where it is not known.

    Arithmetic gives plain numbers; `moved` and `times` keep the error.
    """

    se: float
    n: int

    def __new__(cls, mean: float, se: float = math.nan, n: int = 0) -> Estimate:
        made = super().__new__(cls, mean)
        made.se, made.n = se, n
        return made

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The mean of (N,) and its standard error sd / √N, NaN for N = 1."""
        values = values.double()
        se = values.std() / math.sqrt(len(values)) if len(values) > 1 else torch.tensor(math.nan)
        return cls(float(values.mean()), float(se), len(values))

    @classmethod
    def share(cls, share: float, n: int) -> Estimate:
        """A share of n data points, with the error √(share (1 - share) / (n - 1)), NaN for n = 1."""
        return cls(share, math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else math.nan, n)

    @property
    def mean(self) -> float:
        return float(self)

    @property
    def known(self) -> bool:
        """Whether it is a finite number."""
        return math.isfinite(self)

    def moved(self, constant: float) -> Estimate:
        """The estimate plus a constant, which has no error."""
        return Estimate(self.mean + constant, self.se, self.n)

    def times(self, factor: float) -> Estimate:
        return Estimate(self.mean * factor, self.se * abs(factor), self.n)

    def text(self, digits: int = 2) -> str:
        """-91.90 ± 0.31; a dash where it is undefined."""
        if not self.known:
            return "–"
        return f"{self.mean:.{digits}f}" + (f" ± {self.se:.{digits}f}" if math.isfinite(self.se) else "")

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Estimate({self.mean!r}, se={self.se!r}, n={self.n})"


UNDEFINED = Estimate(math.nan)


def flat(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Plain numbers for JSON: an `Estimate` NAME becomes NAME and NAME_se; what is infinite or undefined becomes None.

    A list of estimates becomes two lists; a mapping stays one.
    """
    found: dict[str, Any] = {}
    for name, value in numbers.items():
        if isinstance(value, Estimate):
            found |= {name: _plain(value.mean), f"{name}_se": _plain(value.se)}
        elif isinstance(value, list) and value and isinstance(value[0], Estimate):
            found |= {name: _plain([v.mean for v in value]), f"{name}_se": _plain([v.se for v in value])}
        else:
            found[name] = flat(value) if isinstance(value, Mapping) else _plain(value)
    return found


def with_errors(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of JSON, `NAME` and `NAME_se`, as estimates by name: `flat` undone."""
    found: dict[str, Any] = {}
    for name, value in kept.items():
        error = kept.get(f"{name}_se")
        if f"{name}_se" in kept:
            found[name] = _estimate(value, error)
        elif name.removesuffix("_se") == name or name.removesuffix("_se") not in kept:
            found[name] = with_errors(value) if isinstance(value, Mapping) else value
    return found


def _estimate(value: Any, error: Any) -> Any:
    if isinstance(value, list):
        return [_estimate(v, e) for v, e in zip(value, error or [None] * len(value), strict=True)]
    mean, se = (math.nan if x is None else float(x) for x in (value, error))
    return Estimate(mean, se)


def _plain(value: Any) -> Any:
    numbers = value if isinstance(value, list) else [value]
    return value if all(not isinstance(v, float) or math.isfinite(v) for v in numbers) else None
