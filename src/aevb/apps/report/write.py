"""The report of a run, written to a file."""

from __future__ import annotations

from pathlib import Path

from aevb.apps.report.page import page
from aevb.apps.report.subject import Subject
from aevb.data.dataset import Dataset
from aevb.runs.files import write_text
from aevb.runs.store import Run


def report(
    run: Run | str | Path | None = None,
    out: str | Path | None = None,
    data: Dataset | None = None,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
) -> Path:
    """Write a report on a run: one HTML file of less than 5 MB, with the decoder in it, that needs no network.

    Args:
        run: one, its folder or its name; the latest if None.
        out: the file; report.html in the run's folder if None.
        data: those that it was trained on; None to read them again.
        data_dir: where they are, if they have moved.
        device: where to compute.

    Returns:
        The file.

    Raises:
        RunError: there is no such run, or it has no weights.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    path = Path(out) if out is not None else opened.place("report.html")
    write_text(path, page(Subject(opened, data or opened.dataset(data_dir), device)))
    return path
