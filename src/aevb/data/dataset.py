"""A data set: tensors, their shape, and what the stored numbers mean.

Rows are kept as they came (uint8 where possible) and become float32 model inputs only when a batch is read, so the
same images can be grey levels, 256-way symbols or fresh Bernoulli draws without a second copy.  B: data points; *X: the
shape of one of them, channels first for images, (F,) for tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from aevb.errors import DataError, ShapeError

Kind = Literal["dynamic", "threshold", "grey", "levels", "standardized", "raw"]
Support = Literal["binary", "unit", "levels", "real"]

SUPPORTS: dict[Kind, Support] = {
    "dynamic": "binary",
    "threshold": "binary",
    "grey": "unit",
    "levels": "levels",
    "standardized": "real",
    "raw": "real",
}
BLOCK = 4096  # rows worked on at a time; in `Split.frozen` it is part of what a seed means


@dataclass(frozen=True)
class Values:
    """What stored numbers s mean: how they become model inputs x, float32.

    ============ ======================================== =========
    kind         x                                        support
    ============ ======================================== =========
    dynamic      x ~ Bernoulli(s / (levels-1)), each call binary
    threshold    1 if s ≥ levels/2, else 0                binary
    grey         s / divisor                              unit
    levels       s / (levels-1), on exactly that grid     levels
    standardized (s - mean) / std                         real
    raw          s                                        real
    ============ ======================================== =========

    Stored uint8 are integers in 0..levels-1.  Stored floats for `dynamic` and `threshold` are probabilities in [0, 1]
    themselves (the threshold is 1/2).  `mean` and `std`, of shape (*X), come from the train split: see `fitted`.
    """

    kind: Kind
    levels: int = 256
    divisor: float = 255.0
    mean: Tensor | None = None
    std: Tensor | None = None

    @property
    def support(self) -> Support:
        """Where x lives: in {0, 1}, in [0, 1], on the grid of `levels` points in [0, 1], or in ℝ."""
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
                return self._standardize(stored)
            case "raw":
                return stored.float()

    def probability(self, stored: Tensor) -> Tensor:
        """P(x = 1) of a `dynamic` pixel: s / (levels-1) for integers, s itself for floats."""
        return stored if stored.is_floating_point() else stored.float() / (self.levels - 1)

    def _standardize(self, stored: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            raise DataError("standardized values need a mean and a std: use Values.fitted(train rows)")
        return (stored.float() - self.mean) / self.std

    def fitted(self, stored: Tensor) -> Values:
        """These values with the mean and the std (ddof 0) of the rows (N, *X); the std of a constant entry is 1."""
        blocks, n = torch.split(stored, BLOCK), len(stored)
        mean = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / n
        variance = torch.stack([(block.double() - mean).square().sum(0) for block in blocks]).sum(0) / n
        constant = (stored == stored[:1]).all(0)  # not std == 0: rounding would make a constant's std 1e-17
        return replace(self, mean=mean.float(), std=torch.where(constant, 1.0, variance.sqrt()).float())

    def to(self, device: torch.device | str) -> Values:
        """The same values with mean and std on a device."""
        if self.mean is None or self.std is None:
            return self
        return replace(self, mean=self.mean.to(device), std=self.std.to(device))


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """One part of the data: what training and evaluation index.

    `stored` is (N, *X), uint8 or float32; `labels` is (N,), int64, or None; N may be 0.  `split[index]` gives float32
    (B, *X), for a tensor of indices, a slice or a list, with no Python per row.
    Raises DataError if the tensors' types do not fit, ShapeError if there are not as many labels as rows.
    """

    stored: Tensor
    labels: Tensor | None = None
    values: Values = Values("raw")

    def __post_init__(self) -> None:
        if self.stored.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"stored rows must be uint8 or float32, not {self.stored.dtype}: convert them first")
        if self.labels is None:
            return
        if self.labels.dtype != torch.int64:
            raise DataError(f"labels must be int64, not {self.labels.dtype}: use labels.long()")
        if self.labels.shape != (len(self),):
            raise ShapeError(f"{len(self)} rows need labels of shape ({len(self)},), not {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return self.stored.shape[0]

    @property
    def shape(self) -> torch.Size:
        """*X: the shape of one data point."""
        return self.stored.shape[1:]

    def __getitem__(self, index: Tensor | slice | list[int]) -> Tensor:
        if isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1:
            return self.values(self.stored.index_select(0, index))  # 15 times faster than stored[index] on a CPU
        return self.values(self.stored[index])

    def to(self, device: torch.device | str) -> Split:
        """The same split on a device: rows, labels, mean and std."""
        labels = None if self.labels is None else self.labels.to(device)
        return Split(self.stored.to(device), labels, self.values.to(device))

    def frozen(self, seed: int = 0) -> Split:
        """With dynamic values: one fixed binarization of all rows; otherwise the split itself.

        So evaluation is reproducible and does not depend on the batch size.  The draw has a generator of its own, on
        the CPU: torch's global one is neither read nor moved, and every device gets the same bits.
        """
        if self.values.kind != "dynamic":
            return self
        generator = torch.Generator().manual_seed(seed)
        bits = torch.empty(self.stored.shape, dtype=torch.uint8)
        for out, rows in zip(torch.split(bits, BLOCK), torch.split(self.stored.cpu(), BLOCK), strict=True):
            out.copy_(torch.rand(rows.shape, generator=generator) < self.values.probability(rows))
        return Split(bits.to(self.stored.device), self.labels, Values("threshold", levels=2, divisor=1.0))

    def take(self, n: int) -> Split:
        """The first n rows, or all if there are fewer."""
        return Split(self.stored[:n], None if self.labels is None else self.labels[:n], self.values)

    def __repr__(self) -> str:
        kind, type_ = self.values.kind, str(self.stored.dtype).removeprefix("torch.")
        labels = "" if self.labels is None else ", with labels"
        return f"Split({len(self):,} of {tuple(self.shape)}, {kind} from {type_}{labels}, on {self.stored.device})"


@dataclass(frozen=True, eq=False)
class Streamed:
    """A split whose rows stay where they are and whose batches go to a device: for data larger than its memory."""

    split: Split
    device: torch.device | str

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.split[index.to(self.split.stored.device)].to(self.device)


def placed(split: Split, device: torch.device | str) -> Split | Streamed:
    """The split on a device where its rows fit there, otherwise streamed to it batch by batch."""
    return split.to(device) if split.stored.nbytes <= free_memory(torch.device(device)) / 2 else Streamed(split, device)


def free_memory(device: torch.device) -> float:
    """Free bytes of a GPU; infinite for other devices, where the rows are already."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else float("inf")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test rows, what to call them, and the recipe that suits them.

    The validation and the test split are always frozen; train is not.  `validation` may have no rows (Frey Face, as in
    the 2013 paper): early stopping then needs `load_data(..., validation=0.1)`.
    Raises ShapeError if the splits disagree on the shape of a data point.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    recipe: str = "gaussian"
    class_names: tuple[str, ...] | None = None
    description: str = ""
    citation: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        for part in ("validation", "test"):
            split: Split = getattr(self, part)
            if split.shape != self.shape:
                raise ShapeError(
                    f"{self.name}: a {part} row is {tuple(split.shape)}, but a train row is {tuple(self.shape)}"
                )
            object.__setattr__(self, part, split.frozen())

    @property
    def shape(self) -> torch.Size:
        """*X: the shape of one data point."""
        return self.train.shape

    @property
    def support(self) -> Support:
        """Where x lives: see `Values.support`."""
        return self.train.values.support

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on a device."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device))
