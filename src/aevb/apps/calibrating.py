"""What scores are compared with: those of the run's validation rows, which are kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevb.apps import show
from aevb.apps.rows import Asked, Found, rows
from aevb.errors import AevbError, RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.runs.store import Run

ROWS = 1000  # of the validation split, at most
KEPT = "evaluation-scores.json"  # goes when the run is trained for longer, as all evaluations do
CELLS = 3  # that `--why` names

Numbers = Callable[[Found], "Tensor"]


@dataclass(frozen=True)
class Calibration:
    """The validation rows of a run, with numbers of them that are computed once.

    Attributes:
        run: the run; data_dir: where its data are; settings: what the numbers depend on beside the run.
    """

    run: Run
    data_dir: Path | None
    settings: dict[str, Any]

    def of(self, name: str, numbers: Numbers) -> Tensor | None:
        """Numbers of the validation rows, float64; None where the run's data have none, or are not to be found."""
        import torch

        from aevb.runs.files import read_json, write_json

        place = self.run.path / KEPT
        known = read_json(place) if place.is_file() else {}
        wanted = {"source": self.run.recipe.source().source, **self.settings}
        found = known.get(name, {})
        if found.get("settings") == wanted:
            return torch.tensor(found["numbers"], dtype=torch.float64)
        try:
            made = numbers(rows(Asked(self.run, None, "validation", self.data_dir)).first(ROWS))
        except AevbError as error:
            show.note(f"no {name} of validation rows to compare with: {show.escaped(str(error))}")
            return None
        write_json(place, {**known, name: {"settings": wanted, "numbers": made.nan_to_num().tolist()}})
        return made.nan_to_num()


def reasons(found: Found, model: Any, samples: int, seed: int) -> Tensor:
    """The surprise of each cell in nats, (N, F), of rows of a table.  RecipeError of other rows."""
    from aevb.use.surprise import surprise

    if found.split.values.schema is None:
        name = found.run.path.name
        raise RecipeError(f"--why: {name} is no run of a table with columns. In Python: aevb.surprise(model, x).")
    return surprise(model, found.split, samples, seed=seed)


def why(found: Found, excess: Tensor) -> dict[str, list[Any]]:
    """The most surprising cells of each row: columns why_1, surprise_1, ... of names and nats above the usual."""
    names = [column.name for column in found.split.values.columns.model]
    best = excess.nan_to_num(nan=-float("inf")).topk(min(CELLS, len(names)), dim=1)
    columns: dict[str, list[Any]] = {}
    for i, (values, places) in enumerate(zip(best.values.T.tolist(), best.indices.T.tolist(), strict=True), 1):
        there = [value > -float("inf") for value in values]
        columns[f"why_{i}"] = [names[d] if known else None for d, known in zip(places, there, strict=True)]
        columns[f"surprise_{i}"] = [value if known else None for value, known in zip(values, there, strict=True)]
    return columns
