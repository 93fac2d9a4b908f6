"""What a report is about: a run, its model and its data, and what several sections need, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aevb.data.batch import Indexable
from aevb.data.columns import Schema
from aevb.data.dataset import Dataset, Split
from aevb.evaluation.bound import Bound, elbo
from aevb.evaluation.estimate import with_errors
from aevb.figures.style import common_limits, is_image
from aevb.runs.evaluate import evaluate_run, rows_of
from aevb.runs.files import read_json
from aevb.runs.store import Run
from aevb.use.encode import encode

MOST = 2000  # test rows that are looked at one by one, and shown on the map


@dataclass(frozen=True, eq=False)
class Subject:
    """A run to report on.

    Attributes:
        run; data: its data set; device: where to compute.
    """

    run: Run
    data: Dataset
    device: str = "cpu"

    @cached_property
    def model(self) -> Any:
        return self.run.model(self.device)

    @cached_property
    def side(self) -> str:
        """The split that is reported on: test, or another where it has no rows."""
        return next(name for name in ("test", "validation", "train") if len(getattr(self.data, name)))

    @cached_property
    def split(self) -> Split:
        """The rows that are looked at one by one."""
        return rows_of(self.run, self.data, self.side, MOST)

    @cached_property
    def rows(self) -> Indexable:
        """The same with their conditions, as the model reads them."""
        return self.run.recipe.context().rows(self.split, self.device)

    @cached_property
    def codes(self) -> Tensor:
        """E_q[z|x] (N, D)."""
        return encode(self.model, self.rows).flatten(1)

    @cached_property
    def bound(self) -> Bound:
        """The ELBO of each row, in the model's numbers."""
        return elbo(self.model, self.rows)

    @cached_property
    def evaluation(self) -> Mapping[str, Any]:
        """The numbers that were kept beside the run, or else new ones."""
        kept = self.run.path / f"evaluation-{self.side}.json"
        if kept.is_file():
            return with_errors(read_json(kept))
        return evaluate_run(self.run, self.data, self.side, device=self.device)

    @property
    def schema(self) -> Schema | None:
        """The columns of a table."""
        return self.data.train.values.schema

    @property
    def images(self) -> bool:
        return is_image(self.data.shape)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The values of black and of white."""
        few = self.split[torch.arange(min(len(self.split), 500))]
        return common_limits(few) if self.images else (0.0, 1.0)

    @property
    def classes(self) -> Sequence[str]:
        """All classes of y of a conditional model, in the order of its numbers."""
        count = self.run.recipe.context().classes
        names = self.data.class_names or tuple(map(str, range(count)))
        return names[:count]

    def condition(self, n: int) -> Tensor | None:
        """Conditions of n new data points; None of an unconditional model."""
        y = self.run.each(n)
        return None if y is None else y.to(self.device)
