"""Sampled rows of a table beside real ones: `aevb sample --check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aevb.apps import outputs, show

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.runs.store import Run


def check_rows(run: Run, rows: Tensor, data_dir: Path | None, seed: int) -> None:
    """Hold new rows in stored numbers (n, F) against the test rows of a run: prints the scores, and draws the page."""
    from aevb.evaluation.two_sample import two_sample
    from aevb.figures.synthetic import synthetic_rows

    data = run.dataset(data_dir)
    columns = data.train.values.columns.model
    kinds, real, made = [column.kind for column in columns], data.test.stored.numpy(), rows.numpy()
    check = two_sample(
        real, made, kinds, train=data.train.stored.numpy(), names=[column.name for column in columns], seed=seed
    )
    show.out.print(str(check))
    levels = {column.name: column.levels for column in columns if column.levels}
    outputs.save_figure(run, None, "synthetic", synthetic_rows(real, made, kinds, check, levels))
