"""The verb that fills the holes of a table: impute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aevb.apps import actions, outputs, show
from aevb.apps.app import DataDir, First, Moved, Place, RunOption, Second, Seed, TableOut, default, verb
from aevb.apps.filled import NUMBER, Filling, filled_frame, frame_of, holes_in, told, unchanged
from aevb.apps.rows import Asked, asked_for, rows
from aevb.errors import DataError, RecipeError

if TYPE_CHECKING:
    from aevb.data.columns import Schema

SAMPLES = 200


@verb(
    "aevb impute table.csv -o filled.csv",
    "aevb impute RUN table.csv --method median --intervals 0.9 -o filled.csv",
    "aevb impute table.csv --draws 5 -o filled.parquet",
)
def impute(
    first: First = None,
    second: Second = None,
    method: Annotated[
        Literal["mean", "median", "draw"],
        typer.Option(help="How to fill a hole of numbers. A level is the most probable one, or with draw a drawn one."),
    ] = "mean",
    draws: Annotated[
        int,
        typer.Option(
            "--draws", metavar="M", min=0, help=f"M drawn tables below one another; the column {NUMBER!r} counts them."
        ),
    ] = 0,
    intervals: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", min=0.01, max=0.999, help=f"Add NAME_low and NAME_high of filled numbers.{default('none')}"
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option("--importance-samples", metavar="K", min=2, help="Importance samples per row.")
    ] = SAMPLES,
    seed: Seed = 0,
    run: RunOption = None,
    device: Place = "auto",
    data_: Moved = None,
    data_dir: DataDir = None,
    out: TableOut = None,
) -> None:
    """Fill the holes of a table with a run trained on one: E[missing | observed], by importance sampling.

    Observed cells, the order of rows and columns, types, and columns that are not modelled stay unchanged.
    """
    place, out = actions.device_named(device), outputs.table_out(out)
    asked = asked_for(first, second, run, data_, "test", {"data_dir": data_dir})
    if asked.new is None:
        raise DataError("Name the table whose holes to fill, as in: aevb impute table.csv -o filled.csv")
    schema = schema_of(asked, data_dir)
    out = out or Path(f"{asked.stem}-filled.csv")
    filling = Filling(method, draws, intervals, samples, seed)
    from aevb.apps import streaming

    if parts := streaming.parts_of(asked, arrays=True):
        return streaming.impute(asked, parts, filling, asked.run.model(place), out)
    found = rows(asked)
    frame = frame_of(found, asked)
    if not bool(found.split.stored.isnan().any()):
        return unchanged(asked.new, len(frame), out, lambda: outputs.write_frame(out, frame))
    with show.counting("filling"):
        made = filled_frame(found, frame, schema, filling, asked.run.model(place))
    outputs.write_frame(out, made)
    show.out.print(f"{out}: {told(len(frame), holes_in(frame, schema))}")
    return None


def schema_of(asked: Asked, data_dir: Path | None) -> Schema:
    """The columns of the run's table.  RecipeError where it was trained on none."""
    schema = asked.run.values(data_dir).schema
    if schema is None:
        name = asked.run.path.name
        raise RecipeError(f"{name} is no run of a table with columns, so it fills no holes. Train one: --recipe table.")
    return schema
