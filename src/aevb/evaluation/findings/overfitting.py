"""A bound that is better on rows that were trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from aevb.evaluation.estimate import Estimate
from aevb.evaluation.exam import Check, Exam, Finding

SIGNIFICANT = 3.0  # standard errors
LARGE = 0.25  # of the standard deviation of the bound from row to row
CROWDED = 100  # parameters for each number of the train split
LEAST_HIDDEN = 4
FEW = 5  # validations, of which none need be near the best


def look(exam: Exam) -> Iterator[Finding]:
    if not exam.side or not exam.of_train.offers.kl:
        return
    train, held = (Estimate.of(side.elbo) for side in (exam.of_train, exam.of_held))
    gap = Estimate(train - held, math.hypot(train.se, held.se), held.n)
    if not gap >= SIGNIFICANT * gap.se or gap < LARGE * float(exam.of_held.elbo.std()):  # NaN: no error is known
        return
    many = exam.of[0] * exam.x_train[0].numel()
    crowded = exam.parameters > CROWDED * many
    text = f"The bound of train rows is {gap} nats above that of {exam.side} rows ({train} against {held})"
    numbers = {"gap": gap, "train": train, exam.side: held, "parameters": exam.parameters, "rows": exam.of[0]}
    if crowded:
        text += f": {exam.parameters:,} parameters for {exam.of[0]:,} rows of {many // exam.of[0]:,} numbers"
    yield Finding("too-few-rows" if crowded else "over-fitting", f"{text}.", _remedy(exam), numbers)


def _remedy(exam: Exam) -> str:
    """Weights of the best of many validations; where these are kept already, more rows, or a smaller network."""
    if exam.side != "validation":
        return "Keep rows for validation, so that the weights of the best validation bound are kept."
    if len(exam.story.curve("validation")[0]) < FEW:
        often = exam.commands.again("validation.every=0", "validation.patience=10")
        return f"Validate more often, so that weights from before the over-fitting are kept: {often}"
    changes = [c for side in ("encoder", "decoder") for c in _narrower(side, exam.story.settings.get(side), exam.of[0])]
    if not changes:
        return "More rows help most. A smaller network has a smaller gap."
    return (
        "More rows help most. A smaller network has a smaller gap; keep it if its validation bound is no worse:"
        f" {exam.commands.again(*changes)}"
    )


def _narrower(side: str, table: Any, rows: int) -> list[str]:
    """One hidden layer of an eighth of its width, and of a sixteenth of the rows at most."""
    widths = table.get("hidden") if isinstance(table, Mapping) else None
    if not isinstance(widths, list) or not widths or max(widths) <= LEAST_HIDDEN:
        return []
    return [f"{side}.hidden=[{max(LEAST_HIDDEN, min(int(widths[0]) // 8, rows // 16))}]"]


CHECK = Check("over-fitting", 2, look=look)
