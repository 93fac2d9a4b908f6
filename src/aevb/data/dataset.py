"""A data set: tensors, their shape, and what the stored numbers mean.

Rows are kept as they came (uint8 where possible) and become float32 model inputs only when a batch is read. So the same
images can be grey levels, 256-way symbols or fresh Bernoulli draws without a second copy.  B: data points; *X: the
shape of one of them, channels first for images, (F,) for tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.prints import Known, prints_of
from aevb.data.randomness import derive
from aevb.data.room import fits, room
from aevb.data.values import BLOCK, Support, Values
from aevb.errors import DataError, ShapeError

RAW = Values("raw")
WIDE = {"standardized": (torch.float64, torch.int64), "columns": (torch.float64,)}  # kinds of numbers that become
# float32 only after they are standardized


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """One part of the data: what training and evaluation index.

    `stored` is (N, *X), uint8 or float32, or float64 or int64 if it is standardized; `labels` is (N,), int64, or None;
    N may be 0.  `split[index]` gives float32 (B, *X), for a tensor of indices, a slice or a list, with no Python per
    row. Raises DataError if the tensors' types do not fit, ShapeError if there are not as many labels as rows.
    """

    stored: Tensor
    labels: Tensor | None = None
    values: Values = RAW
    names: NDArray[Any] | None = None  # (N,), the number of each row in its source, or the name of its file
    weights: Tensor | None = None  # (N,), how much each row counts; None: all alike
    known: Known | None = None  # fingerprints of the rows, where a pass over them has found them

    def __post_init__(self) -> None:
        wide = WIDE.get(self.values.kind, ())
        if self.stored.dtype not in (torch.uint8, torch.float32, *wide):
            raise DataError(f"stored rows must be uint8 or float32, not {self.stored.dtype}: convert them first")
        if self.known and self.known.rows is not self.stored:
            object.__setattr__(self, "known", None)
        if not self.values.dtype:
            named = replace(self.values, dtype=str(self.stored.dtype).removeprefix("torch."))
            object.__setattr__(self, "values", named)
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
        if self.holes and fits(self.stored.nbytes):
            return self._cells[index]
        if isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1:
            return self.values(self.stored.index_select(0, index))  # 15 times faster than stored[index] on a CPU
        return self.values(self.stored[index])

    def to(self, device: torch.device | str) -> Split:
        """The same split on a device: rows, labels, mean and std."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, stored=self.stored.to(device), labels=labels, values=self.values.to(device))

    @property
    def prints(self) -> dict[str, str]:
        """Fingerprints of the stored rows."""
        return self.known.prints if self.known and self.known.of(self.stored) else prints_of(self.stored)

    @property
    def holes(self) -> bool:
        """Whether these are rows of a table, in which cells may be missing: NaN."""
        return self.values.kind == "columns"

    @cached_property
    def _cells(self) -> Tensor:
        """All rows of a table as model numbers."""
        return self.values(self.stored)

    @cached_property
    def log_abs_dets(self) -> Tensor:
        """log |det ∂x/∂s| of the map from stored numbers s to x, (N,), in nats: see `Values`."""
        return self.values.log_abs_dets(self.stored)

    @property
    def log_abs_det(self) -> float:
        """The mean of `log_abs_dets`, in nats; 0 without rows."""
        return float(self.log_abs_dets.mean()) if len(self) else 0.0

    def frozen(self, seed: int = 0) -> Split:
        """With dynamic values: one fixed binarization of all rows; otherwise the split itself.

        So evaluation is reproducible and does not depend on the batch size.  The draw has a generator of its own, on
        the CPU: torch's global one is neither read nor moved, and every device gets the same bits.
        """
        if self.values.kind != "dynamic":
            return self
        generator = torch.Generator().manual_seed(derive(seed, "frozen"))
        bits = torch.from_numpy(room(self.stored.shape, "uint8", "The data set", f"{len(self):,} rows of bits"))
        for out, rows in zip(torch.split(bits, BLOCK), torch.split(self.stored.cpu(), BLOCK), strict=True):
            out.copy_(torch.rand(rows.shape, generator=generator) < self.values.probability(rows))
        values = replace(self.values, kind="threshold", levels=2, divisor=1.0)
        return replace(self, stored=bits.to(self.stored.device), values=values)

    def take(self, n: int) -> Split:
        """The first n rows, or all if there are fewer."""
        names = None if self.names is None else self.names[:n]
        weights = None if self.weights is None else self.weights[:n]
        return Split(self.stored[:n], None if self.labels is None else self.labels[:n], self.values, names, weights)

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

    @property
    def log_abs_det(self) -> float:
        return self.split.log_abs_det

    @property
    def log_abs_dets(self) -> Tensor:
        return self.split.log_abs_dets

    def frozen(self, seed: int = 0) -> Streamed:
        """With rows drawn once, where pixels are dynamic."""
        return Streamed(self.split.frozen(seed), self.device)


def placed(split: Split, device: torch.device | str) -> Split | Streamed:
    """The split on a device where its rows fit there, otherwise streamed to it batch by batch."""
    return split.to(device) if split.stored.nbytes <= free_memory(torch.device(device)) / 2 else Streamed(split, device)


def free_memory(device: torch.device) -> float:
    """Free bytes of a GPU; infinite for other devices, where the rows are already."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else float("inf")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test rows, their names, and the recipe that suits them.

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
    seed: int | None = None

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
    def counts(self) -> tuple[int, int, int]:
        """How many rows train, validation and test have."""
        return len(self.train), len(self.validation), len(self.test)

    @property
    def classes(self) -> int:
        """How many classes the labels have, 0 to `classes` - 1; 0 where there are no labels."""
        if self.train.labels is None:
            return 0
        if self.class_names is not None:
            return len(self.class_names)
        labels = [
            part.labels for part in (self.train, self.validation, self.test) if part.labels is not None and len(part)
        ]
        return max((int(part.max()) + 1 for part in labels), default=0)

    @property
    def support(self) -> Support:
        """Where x lives: see `Values.support`."""
        return self.train.values.support

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on a device."""
        return replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )
