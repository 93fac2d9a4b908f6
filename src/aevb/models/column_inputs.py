"""What an encoder sees of a row of a table: features of each cell, and which cells are missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from aevb.probability.masks import known

FEW = 32  # levels, each of which has an indicator; more have vectors
EMBEDDING = 16  # numbers of such a vector
LEAST = 1e-30  # of what a logarithm is taken


def _whole(numbers: Iterable[int]) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.int64)


class CellFeatures(nn.Module):
    """Rows x (B, F), NaN where a cell is missing → features (B, H).

    A number x becomes asinh((g(x) - m) / s): near x where x is small, and growing as a logarithm, so an outlier cannot
    drown the other cells. g(x) = log(1 + x) for counts; m and s are set from training rows. With an exposure e of
    counts g is log(1 + x/e) of them, missing where e is, and log e of the exposure itself. An angle becomes its sine
    and cosine. In a column of few levels each level has an indicator, in one of many levels a learned vector. The last
    level, for what training never sees, counts as missing here. A missing cell is 0 in all of these, and beside the
    features of numbers stands which of them are there.

    Args:
        columns: F; numbers behind them, a context beside x, stay as they are.
        numbers: the columns that are numbers.
        counts: those of them that are counts.
        angles: the columns that are angles.
        levels: the columns of levels, and how many there are, the last one for what training never sees.
        exposures: of counts that have an exposure, its column.
    """

    mean: Tensor
    std: Tensor
    numbers: Tensor
    angles: Tensor
    counted: Tensor
    measures: Tensor
    per: Tensor
    coded: Tensor
    starts: Tensor
    ends: Tensor

    def __init__(
        self,
        columns: int,
        numbers: Sequence[int],
        counts: Sequence[int] = (),
        angles: Sequence[int] = (),
        levels: Sequence[tuple[int, int]] = (),
        exposures: Mapping[int, int] = {},
    ) -> None:
        super().__init__()
        self.columns, self.exposed = columns, bool(exposures)
        few = [(column, n - 1) for column, n in levels if n <= FEW]
        self.many = [(column, n - 1) for column, n in levels if n > FEW]
        sizes = _whole(n for _, n in few)
        self.indicators = int(sizes.sum())
        whole = {"numbers": _whole(numbers), "angles": _whole(angles), "coded": _whole(column for column, _ in few)}
        whole |= {"starts": sizes.cumsum(0) - sizes, "ends": sizes - 1}
        whole["counted"] = torch.isin(whole["numbers"], _whole(counts))
        whole["measures"] = torch.isin(whole["numbers"], _whole(exposures.values()))
        whole["per"] = _whole(exposures.get(column, columns) for column in numbers)  # behind all columns stands a 1
        for name, places in whole.items():
            self.register_buffer(name, places, persistent=False)
        self.register_buffer("mean", torch.zeros(len(numbers)))
        self.register_buffer("std", torch.ones(len(numbers)))
        self.embeddings = nn.ModuleList([nn.Embedding(n + 1, EMBEDDING, padding_idx=n) for _, n in self.many])

    @property
    def size(self) -> int:
        """H, how many features there are."""
        return 2 * len(self.mean) + 3 * len(self.angles) + self.indicators + EMBEDDING * len(self.many)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        numbers, angles = self._numbers(flat), flat.index_select(1, self.angles)
        seen, known = ~numbers.isnan(), ~angles.isnan()
        standardized = (self._logged(torch.where(seen, numbers, 0.0)) - self.mean) / self.std
        features = [torch.where(seen, standardized.asinh(), 0.0), seen.to(x)]
        if len(self.angles):
            turned = torch.where(known, angles, 0.0)
            features += [turned.sin() * known, turned.cos() * known, known.to(x)]
        if self.indicators:
            features.append(self._indicated(flat.index_select(1, self.coded)))
        for (column, n), embedding in zip(self.many, self.embeddings, strict=True):
            there = flat[:, column] < n  # NaN is not
            codes = torch.where(there, flat[:, column], 0.0).long().clamp(min=0)
            vectors = nn.functional.embedding(codes, cast(Tensor, embedding.weight))  # vmap knows no padding_idx
            features.append(vectors * there.unsqueeze(1))
        return torch.cat([part.to(x) for part in (*features, flat[:, self.columns :])], 1)

    def _indicated(self, codes: Tensor) -> Tensor:
        """1 at the level of each cell that is there, (B, all levels)."""
        seen = codes <= self.ends  # NaN is not
        at = self.starts + torch.where(seen, codes, 0.0).long().clamp(min=0)
        return torch.zeros(codes.shape[0], self.indicators, device=codes.device).scatter(1, at, seen.float())

    def _numbers(self, flat: Tensor) -> Tensor:
        """The numbers of rows, counts per unit of their exposure; NaN where either is missing."""
        numbers = flat.index_select(1, self.numbers)
        if not self.exposed:
            return numbers
        own = flat[:, : self.columns]
        return numbers / torch.cat([own, torch.ones_like(own[:, :1])], 1).index_select(1, self.per)

    def _logged(self, numbers: Tensor) -> Tensor:
        logged = torch.where(self.counted, numbers.clamp(min=0).log1p(), numbers)
        return torch.where(self.measures, numbers.clamp(min=LEAST).log(), logged)

    @torch.no_grad()
    def start_at(self, x: Tensor) -> None:
        """Take m and s from the cells of training rows (N, F) that are there: the median, and the mean deviation of it.

        Both are robust; the s of a constant is 1.
        """
        cells = self._logged(self._numbers(x.flatten(1))).double()
        if not cells.numel():
            return
        middle = cells.nanmedian(0).values
        spread = (cells - middle).abs().nanmean(0) * math.sqrt(math.pi / 2)  # σ of a normal
        self.mean.copy_(middle.nan_to_num())
        self.std.copy_(torch.where(spread > 1e-9, spread, 1.0).nan_to_num(1.0))


class HoleFeatures(nn.Module):
    """Rows x (B, F) → the features of their cells, and for each column whose holes are modelled whether it has one.

    So a hole, NaN, differs from a cell of which nobody knows (`probability.masks`), which is 0 in all features.

    Args:
        cells: the features of cells.
        masked: the columns whose holes are modelled.
    """

    masked: Tensor

    def __init__(self, cells: CellFeatures, masked: Sequence[int]) -> None:
        super().__init__()
        self.cells = cells
        self.register_buffer("masked", torch.tensor(list(masked), dtype=torch.int64), persistent=False)

    @property
    def size(self) -> int:
        """H, how many features there are."""
        return self.cells.size + len(self.masked)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.cells(known(x))
        return torch.cat([features, x.flatten(1).index_select(1, self.masked).isnan().to(features)], 1)
