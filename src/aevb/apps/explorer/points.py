"""The points of the map: rows of a run's data, their codes, and numbers by which to colour them.

Codes and colours are computed when they are first asked for, some rows at a time, and kept.  N: points; D: latent size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aevb.data.batch import Indexable
from aevb.data.dataset import Dataset, Split
from aevb.errors import DataError
from aevb.models.inference import Model
from aevb.runs.recipe import Context
from aevb.use.encode import encode
from aevb.use.plane import Plane

PARTS = ("test", "validation", "train")
CHUNK = 2000  # rows that are encoded at a time
FEW = 100  # rows that are scored at a time, so that what the pointer asks for waits little


class Rows:
    """Rows of a run's data as one split: held-out rows first.

    Attributes:
        split: (N, *X), frozen; part: (N,), the number of the split in `PARTS`; names: what each row is called.
    """

    def __init__(self, data: Dataset, most: int) -> None:
        taken: list[tuple[int, Split]] = []
        left = most
        for number, part in enumerate(PARTS):
            rows: Split = getattr(data, part)
            if left and len(rows):
                taken.append((number, rows.take(left).frozen()))
                left -= len(taken[-1][1])
        splits = [split for _, split in taken]
        self.split = joined(splits)
        self.part = torch.cat([torch.full((len(split),), number) for number, split in taken])
        self.names: list[Any] = [name for split in splits for name in names_of(split)]

    def __len__(self) -> int:
        return len(self.split)


def names_of(split: Split) -> list[Any]:
    """What each row is called: its number in the source, or its file."""
    found: list[Any] = list(range(len(split))) if split.names is None else split.names.tolist()
    return found


def joined(splits: list[Split]) -> Split:
    """Splits one after another; labels where all have them."""
    stored = torch.cat([split.stored for split in splits])
    known = [split.labels for split in splits if split.labels is not None]
    labels = torch.cat(known) if len(known) == len(splits) else None
    return Split(stored, labels, splits[0].values)


class Kept:
    """Numbers of N rows, (N, *), which are computed in their order, `step` at a time, and once."""

    def __init__(self, n: int, step: int, compute: Callable[[slice], Tensor]) -> None:
        self.n, self.step, self.compute = n, step, compute
        self.parts: list[Tensor] = []
        self.lock = threading.Lock()

    @property
    def ready(self) -> int:
        return sum(map(len, self.parts))

    def more(self, start: int) -> Tensor:
        """The numbers from `start` on that are known; at least one step of them, if there are any."""
        with self.lock:
            while self.ready < self.n and self.ready <= start:
                self.parts.append(self.compute(slice(self.ready, min(self.ready + self.step, self.n))))
            return torch.cat(self.parts)[start:]

    def all(self) -> Tensor:
        """The numbers of all rows."""
        while self.ready < self.n:
            self.more(self.ready)
        return torch.cat(self.parts)


class Points:
    """The points of one run's map."""

    def __init__(self, model: Model, rows: Rows, context: Context) -> None:
        self.model, self.rows, self.context = model, rows, context
        self.codes = Kept(len(rows), CHUNK, lambda part: encode(model, self.data(part)).flatten(1).float())

    def __len__(self) -> int:
        return len(self.rows)

    def data(self, part: slice | list[int], given: int | None = None) -> Indexable:
        """Some rows as the model reads them, with their classes, or all with one class."""
        split = self.some(part)
        if given is not None:
            split = replace(split, labels=torch.full((len(split),), given))
        return self.context.rows(split, "cpu")

    def some(self, part: slice | list[int]) -> Split:
        """Some rows of the data."""
        split = self.rows.split
        return replace(split, stored=split.stored[part], labels=None if split.labels is None else split.labels[part])

    def code(self, index: int) -> Tensor:
        """The code of one row, (D,).

        Raises:
            DataError: there is no such row.
        """
        self.check([index])
        return self.codes.more(index)[0] if index < self.codes.ready + CHUNK else self.codes.all()[index]

    def check(self, indices: list[int]) -> None:
        """Raises DataError where there is no such point."""
        wrong = next((i for i in indices if not 0 <= i < len(self)), None)
        if wrong is not None:
            raise DataError(f"There is no point {wrong}: the points are 0 to {len(self) - 1}.")

    def places(self, plane: Plane, start: int) -> Tensor:
        """(u, v) of the points from `start` on whose codes are known, (n, 2)."""
        return plane.project(self.codes.more(start)).float() if start < len(self) else torch.zeros(0, 2)
