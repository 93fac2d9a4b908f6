"""The doctor: what is wrong with a run, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aevb.data.dataset import Dataset
from aevb.evaluation.exam import Commands, Exam, Finding, Story, checks, examine
from aevb.runs.index import status
from aevb.runs.plain import type_of
from aevb.runs.recipe import UNWATCHED
from aevb.runs.sources import KEPT
from aevb.runs.store import Run

TRAIN, HELD = 2000, 500  # rows of either side that are looked at, at most


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        run: the name of the run.
        findings: what is wrong, causes before what may come of them.
        looked: at which rows.
        kinds: of faults that were looked for.
    """

    run: str
    findings: tuple[Finding, ...]
    looked: str
    kinds: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = [finding.to_dict() for finding in self.findings]
        return {"run": self.run, "looked_at": self.looked, "looked_for": list(self.kinds), "findings": found}

    def __str__(self) -> str:
        lines = [f"{f.name}: {f.text}\n  → {f.remedy}" for f in self.findings]
        none = f"No fault was found. Checked: {', '.join(self.kinds)}."
        return "\n".join([f"{self.run}, {self.looked}", *(lines or [none])])


def doctor(
    run: Run | str | Path | None = None,
    data: Dataset | None = None,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Diagnosis:
    """Say what is wrong with a run, and what to do: a sentence and a remedy for each fault.

    It reads up to 2,000 train rows and 500 validation rows (test rows where there are no others), and the lines of
    metrics.jsonl. A difference is reported if it is larger than its Monte-Carlo error and large enough to matter.

    Args:
        run: one, its folder or its name; the latest if None.
        data: those that it was trained on; None to read them again.
        data_dir: where they are, if they have moved.
        device: where to compute.
        seed: of what is drawn.

    Raises:
        RunError: there is no such run.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    told = story(opened)
    lacking = _lacking(opened)
    exam = None if lacking else exam_of(opened, data or opened.dataset(data_dir), told, device, seed)
    looked = f"only its metrics: {lacking}" if exam is None else _looked(exam)
    return Diagnosis(opened.path.name, tuple(examine(told, exam)), looked, tuple(check.what for check in checks()))


def _lacking(run: Run) -> str:
    """Why the model of a run cannot be looked at; empty where it can."""
    if not run.weights.is_file():
        return "there are no weights"
    return "no encoder was trained" if type_of(run.recipe.settings["objective"]) in UNWATCHED else ""


def story(run: Run) -> Story:
    """What the training of a run wrote."""
    commands = Commands(str(run.path), not (run.path / KEPT).is_file())
    return Story({**run.meta, "status": status(run)}, run.metrics(), run.recipe.settings, commands)


def exam_of(run: Run, data: Dataset, told: Story, device: str, seed: int) -> Exam:
    """A run's model with samples of its rows."""
    side = next((name for name in ("validation", "test") if len(getattr(data, name))), "")
    train, held = data.train.take(TRAIN).frozen(), getattr(data, side or "test").take(HELD).frozen()
    context, schema = run.recipe.context(), data.train.values.schema
    return Exam(
        run.model(device),
        context.rows(train, device),
        context.rows(held, device),
        side,
        (len(data.train), len(getattr(data, side or "test"))),
        told,
        data.train.values.support,
        None if schema is None else [schema.columns[j].name for j in schema.modelled],
        seed,
    )


def _looked(exam: Exam) -> str:
    train, held = exam.of
    seen = f"{min(train, TRAIN):,} of {train:,} train rows"
    return f"{seen}, {min(held, HELD):,} of {held:,} {exam.side} rows" if exam.side else seen
