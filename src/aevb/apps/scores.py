"""Scores of rows, log p(x): as a table, as numbers, or in short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevb.apps import actions, outputs, show
from aevb.apps.rows import Found

if TYPE_CHECKING:
    from aevb.evidence.marginal import Marginal

LOWEST = 5  # rows that the summary names
SHARES = (0.01, 0.05, 0.5)  # of the rows, whose scores the summary gives


def scored(found: Found, samples: int | None, seed: int, device: str) -> Marginal:
    """log p(x) of each row in nats, a density of the data as given; of a conditional model log p(x|y).

    By importance sampling with K = `samples`, the recipe's if None. A row's score is a function of the row, the model
    and the seed alone.
    """
    from dataclasses import replace

    from aevb.data.batch import log_abs_det
    from aevb.evidence.importance import log_marginal

    run, data = found.run, found.data(device)
    k = samples or run.recipe.evaluation().importance_samples
    with show.counting("scoring"):
        marginal = log_marginal(run.model(device), data, k, seed=seed)
    return replace(marginal, log_px=marginal.log_px + log_abs_det(found.split))


def write(out: Path, found: Found, marginal: Marginal) -> None:
    """A .csv with the columns `row` or `file`, `log_px` and `log_px_se`, or log p(x) alone as a .npy."""
    if out.suffix == ".npy":
        outputs.write_array(out, marginal.log_px)
        return
    columns = (found.column, "log_px", "log_px_se")
    lines = zip(found.names, marginal.log_px.tolist(), marginal.se.tolist(), strict=True)
    outputs.write_table(out, columns, lines)
    show.out.print(f"{out}: {len(found.names):,} rows, columns {', '.join(columns)}")


def summary(found: Found, marginal: Marginal) -> dict[str, Any]:
    """The scores in short: their mean with its error over the rows, quantiles, and the lowest."""
    import numpy as np

    from aevb.evaluation.estimate import Estimate

    scores = marginal.log_px
    order = scores.argsort(stable=True)[:LOWEST].tolist()
    quantiles = np.quantile(scores.numpy(), SHARES).tolist()
    return {
        "n": len(scores),
        "importance_samples": marginal.samples,
        "log_px": Estimate.of(scores),
        "log_px_monte_carlo_se": float(marginal.se.median()),
        **{f"quantile_{share:g}": value for share, value in zip(SHARES, quantiles, strict=True)},
        "lowest": [{found.column: found.names[i], "log_px": float(scores[i])} for i in order],
        "given_labels": bool(found.run.recipe.context().classes),
        "importance_warning": marginal.warning,
    }


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
    actions.show_warning(numbers, annealed=False)
