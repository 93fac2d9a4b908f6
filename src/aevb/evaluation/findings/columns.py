"""Columns that do not vary, whose density has no upper bound."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from aevb.evaluation.exam import Check, Exam, Finding

LISTED = 5


def look(exam: Exam) -> Iterator[Finding]:
    x = exam.x_train
    if exam.support != "real" or x.ndim != 2 or len(x) < 10:
        return
    same = ((x == x[:1]) | (x.isnan() & x[:1].isnan())).all(0)
    columns = torch.nonzero(same).flatten().tolist()
    if not columns:
        return
    listed = ", ".join(exam.name(j) for j in columns[:LISTED]) + ", ..." * (len(columns) > LISTED)
    yield Finding(
        "constant-columns",
        f"{len(columns)} of {x.shape[1]} columns do not vary in {len(x):,} train rows: {listed}. A density of a"
        " constant has no upper bound, so the bound and log p(x) say nothing.",
        "Leave these columns out of the data, and train again.",
        {"columns": columns, "rows": len(x)},
    )


CHECK = Check("columns that do not vary", 1, look=look)
