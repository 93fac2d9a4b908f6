"""Judge a run on a split of its data, and keep the verdict beside it."""

from __future__ import annotations

from typing import Any

from aevb.data.dataset import Dataset, Split, placed
from aevb.errors import DataError
from aevb.evaluation.evaluate import evaluate
from aevb.runs.files import write_json
from aevb.runs.store import Run

REFERENCE = 10_000  # labelled training points that neighbours and probes learn from, at most


def judge(
    run: Run,
    data: Dataset,
    part: str = "test",
    *,
    importance_samples: int | None = None,
    samples: int | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Evaluate a run's model on a split, with the recipe's settings where none are given.

    With none given, this is the run's verdict, and kept in evaluation-SPLIT.json. A run by `FullBayes` is judged at the mean
    of its weights' posterior, and `weights` in the result says so; `log_predictive` averages over the posterior.
    """
    settings = run.recipe.judging()
    rows: Split = getattr(data, part)
    rows = (rows if limit is None else rows.take(limit)).frozen()
    if not len(rows):
        raise DataError(f"The {part} split of {run.path.name} is empty. Choose another with --split.")
    known = data.train.take(REFERENCE).frozen()
    result = evaluate(
        run.model(device),
        placed(rows, device),
        split=part,
        importance_samples=importance_samples or settings.importance_samples,
        elbo_samples=samples or settings.samples,
        labels=rows.labels,
        reference=None if known.labels is None else (placed(known, device), known.labels),
    ).to_dict()
    if run.recipe.settings["objective"]["type"] == "full-bayes":
        result["weights"] = "posterior mean"
    if limit is importance_samples is samples is None:  # the verdict on record is the recipe's own
        write_json(run.path / f"evaluation-{part}.json", result)
    return result
