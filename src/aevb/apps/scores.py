"""Scores of rows, log p(x): as a table, as numbers, or in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevb.apps import actions, outputs, show
from aevb.apps.calibrating import Calibration, reasons, why
from aevb.apps.rows import Found

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.evidence.marginal import Marginal
    from aevb.runs.store import Run

LOWEST = 5  # rows that the summary names
SHARES = (0.01, 0.05, 0.5)  # of the rows, whose scores the summary gives
MAPS = 8  # pictures that are drawn with their heat maps
WHY_SAMPLES = 200  # importance samples of a surprise


@dataclass(frozen=True)
class Compared:
    """Scores beside those of the validation rows.

    Attributes:
        marginal: log p(x) of each row, (N,).
        alarm: the rate of false alarms; calibrated: how many validation rows there are to compare with, 0 for none.
        columns: what else is said of each row, by name.
    """

    marginal: Marginal
    alarm: float
    calibrated: int = 0
    columns: dict[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoring:
    """How rows are to be scored: K, None for the recipe's; the seed; the device; the rate of alarms; with reasons."""

    samples: int | None
    seed: int
    device: str
    alarm: float
    why: bool = False


def compared(found: Found, asked: Scoring, data_dir: Path | None) -> Compared:
    """Scores, with percentiles and p-values among those of the validation rows; and why they are low."""
    marginal = scored(found, asked.samples, asked.seed, asked.device)
    calibration, others = calibrated(found.run, asked, marginal.samples, data_dir)
    columns: dict[str, Sequence[Any]] = {name: x.tolist() for name, x in beside(marginal, others).items()}
    if asked.why and not is_pictures(found):
        own, usual = surprises(found, asked), usual_of(calibration, asked)
        columns |= why(found, own - (own.nanmedian(0).values if usual is None else usual))
    return Compared(marginal, asked.alarm, 0 if others is None else len(others), columns)


def calibrated(run: Run, asked: Scoring, samples: int, data_dir: Path | None) -> tuple[Calibration, Tensor | None]:
    """The validation rows of a run, and their scores where there are any."""
    calibration = Calibration(run, data_dir, {"importance_samples": samples, "seed": asked.seed})
    return calibration, calibration.of("log_px", lambda own: scored(own, samples, asked.seed, asked.device).log_px)


def beside(marginal: Marginal, others: Tensor | None) -> dict[str, Tensor]:
    """Percentiles and p-values of scores among those of validation rows; nothing without any."""
    from aevb.use.conformal import p_values, percentiles

    if others is None:
        return {}
    return {"percentile": percentiles(marginal.log_px, others), "p_value": p_values(marginal.log_px, others)}


def is_pictures(found: Found) -> bool:
    """Whether the rows are pictures, whose surprise is drawn, and not written."""
    return len(found.split.shape) == 3


def draw_why(found: Found, scores: Compared, asked: Scoring, out: Path | None) -> None:
    """Heat maps of the pictures with the lowest scores, beside --out or among the figures of the run."""
    import torch

    from aevb.figures.surprise import surprise_maps
    from aevb.use.condition import rows_with
    from aevb.use.surprise import surprise

    lowest = scores.marginal.log_px.argsort(stable=True)[:MAPS]
    split = rows_with(found.split, lowest)
    with show.counting("why"):
        heat = surprise(found.run.model(asked.device), split, WHY_SAMPLES, seed=asked.seed)
    own = [str(found.names[i]) for i in lowest.tolist()]
    names = own if found.column == "file" else [f"{found.column} {name}" for name in own]
    figure = surprise_maps(split[torch.arange(len(split))], heat, names, "The rows of lowest log p(x)")
    outputs.save_figure(found.run, None if out is None else out.with_suffix(""), "surprise", figure)


def surprises(found: Found, asked: Scoring) -> Tensor:
    """How much each cell surprises given the others, nats, (N, F)."""
    with show.counting("why"):
        return reasons(found, found.run.model(asked.device), WHY_SAMPLES, asked.seed)


def usual_of(calibration: Calibration, asked: Scoring) -> Tensor | None:
    """How much a cell of each column usually surprises, (F,): the median of the validation rows; None without any.

    What exceeds it depends on no unit of a column. Without validation rows, the median of the rows themselves will do.
    """
    return calibration.of("surprise", lambda rows: surprises(rows, asked).nanmedian(0).values)


def scored(found: Found, samples: int | None, seed: int, device: str) -> Marginal:
    """log p(x) of each row in nats, a density of the data as given; of a conditional model log p(x|y).

    By importance sampling with K = `samples`, the recipe's if None. A row's score is a function of the row, the model
    and the seed alone.
    """
    from dataclasses import replace

    from aevb.data.batch import log_abs_dets
    from aevb.evidence.importance import log_marginal

    run, data = found.run, found.data(device)
    k = samples or run.recipe.evaluation().importance_samples
    with show.counting("scoring"):
        marginal = log_marginal(run.model(device), data, k, seed=seed)
    return replace(marginal, log_px=marginal.log_px + log_abs_dets(found.split))


def write(out: Path, found: Found, scores: Compared) -> None:
    """A table with `row` or `file`, `log_px`, `log_px_se` and the other columns; or log p(x) alone as a .npy."""
    marginal = scores.marginal
    if out.suffix == ".npy":
        outputs.write_array(out, marginal.log_px)
        return
    columns = columns_of(found, marginal, scores.columns)
    outputs.write_columns(out, columns)
    show.out.print(f"{out}: {len(found.names):,} rows, columns {', '.join(columns)}")


def columns_of(found: Found, marginal: Marginal, others: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The columns of a table of scores."""
    return {
        found.column: list(found.names),
        "log_px": marginal.log_px.tolist(),
        "log_px_se": marginal.se.tolist(),
        **others,
    }


def summary(found: Found, scores: Compared) -> dict[str, Any]:
    """The scores in short: their mean with its error over the rows, quantiles, the lowest, and alarms."""
    import numpy as np

    from aevb.evaluation.estimate import Estimate

    marginal = scores.marginal
    log_px = marginal.log_px
    order = log_px.argsort(stable=True)[:LOWEST].tolist()
    quantiles = np.quantile(log_px.numpy(), SHARES).tolist()
    return {
        "n": len(log_px),
        "importance_samples": marginal.samples,
        "log_px": Estimate.of(log_px),
        "log_px_monte_carlo_se": float(marginal.se.median()),
        **{f"quantile_{share:g}": value for share, value in zip(SHARES, quantiles, strict=True)},
        "lowest": [{found.column: found.names[i], "log_px": float(log_px[i])} for i in order],
        "given_labels": bool(found.run.recipe.context().classes),
        "importance_warning": marginal.warning,
        "calibration_rows": scores.calibrated,
        "alarm": scores.alarm,
        "alarms": alarms(scores),
    }


def alarms(scores: Compared) -> int | None:
    """How many rows have a p-value at or below the rate; None where there are too few validation rows to say."""
    from aevb.use.conformal import least_rows

    if scores.calibrated < least_rows(scores.alarm):
        return None
    return len([p for p in scores.columns["p_value"] if p <= scores.alarm])


def show_summary(title: str, found: Found, numbers: dict[str, Any]) -> None:
    """The table of a summary, and the warning, if there is one."""
    from aevb.evaluation.evaluate import likelihood_name

    name = likelihood_name(numbers)
    quantiles = [
        (f"  {share:.0%} of the rows below", f"{numbers[f'quantile_{share:g}']:.2f}", "nats") for share in SHARES
    ]
    lowest = ", ".join(f"{row[found.column]} ({row['log_px']:.2f})" for row in numbers["lowest"])
    cells: Sequence[Sequence[Any]] = [
        (f"{name}, mean", numbers["log_px"].text(), f"nats, {numbers['importance_samples']:,} importance samples"),
        ("  Monte-Carlo error of a row", f"{numbers['log_px_monte_carlo_se']:.3f}", "nats, median"),
        *quantiles,
    ]
    show.out.print(show.table(f"{title}, n = {numbers['n']:,}", ("", "value", ""), cells))
    show.out.print(f"higher is more normal; the lowest {found.column}s: {lowest}")
    show_alarms(numbers)
    actions.show_warning(numbers, annealed=False)


def show_alarms(numbers: dict[str, Any]) -> None:
    """How many rows are alarms, at which rate of false ones."""
    from aevb.use.conformal import least_rows

    n, rate, alarm = numbers["calibration_rows"], f"{numbers['alarm']:g}", numbers["alarms"]
    if alarm is not None:
        show.out.print(
            f"alarms: {alarm:,} rows with p_value ≤ {rate}, of normal rows a share of {rate} at most"
            f" ({n:,} validation rows)"
        )
    elif n:
        show.out.print(
            f"alarms: none are possible at a rate of {rate}, which needs {least_rows(numbers['alarm']):,} validation"
            f" rows; there are {n:,}"
        )
