"""The verb that reruns the paper's experiments: reproduce."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from aevb.apps import show
from aevb.apps.actions import device_named
from aevb.apps.app import OUTPUT, DataDir, default, verb

PAPER, TABLES, ALL, REPORT = "paper", "tables", "all", "report"


@verb(
    "aevb reproduce figure-2 --panel mnist-3 --samples 1e6",
    "aevb reproduce figure-2 --samples 1e6 --seeds 3",
    "aevb reproduce paper --samples 100000",
    "aevb reproduce tables",
    "aevb reproduce report",
)
def reproduce(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Of the 2013 paper: autoencoder, figure-2, figure-3, figure-4, figure-5, estimators, full-bayes;"
            " paper is all of these. Of other papers: iwae, dreg, vamp-prior, flows; tables is all of these."
            " all: both. report: one page of all results.",
        ),
    ],
    samples: Annotated[
        float | None,
        typer.Option(
            "--samples",
            metavar="N",
            min=1,
            help=f"Training samples of each curve; more of them extend it.{default('1e6')}",
        ),
    ] = None,
    budget: Annotated[float | None, typer.Option("--budget", min=1, hidden=True)] = None,
    panel: Annotated[
        list[str] | None,
        typer.Option(metavar="PANEL", help=f"Of Figure 2, only this panel: mnist-3, ..., frey-20.{default('all')}"),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Seeds of each curve; full-bayes and the tables have three."),
    ] = 1,
    jobs: Annotated[
        int | None, typer.Option(min=1, help=f"Curves trained at a time.{default('one per processor core')}")
    ] = None,
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Where to train them; cuda is an NVIDIA GPU, which they share.")
    ] = "cpu",
    data_dir: DataDir = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of all experiments.", rich_help_panel=OUTPUT)
    ] = Path("reproduction"),
) -> None:
    """Rerun the paper: train its curves, compare them with the published ones. It resumes where it stopped."""
    from aevb.reproduce.report import write_report
    from aevb.reproduce.reproduce import chosen, reproduce

    if data_dir is not None:
        os.environ["AEVB_DATA"] = str(data_dir)  # for the processes that train, too
    experiments, place = chosen(experiments_of(names)), device_named(device)
    total = round(samples or budget or 1e6)
    try:
        with show.curves_progress() as progress:
            found = reproduce(
                experiments, total, out, panels=panel or (), seeds=seeds, jobs=jobs, device=place, show=progress
            )
    except KeyboardInterrupt:
        show.err.print(f"Stopped; all is kept in {out}. The same command resumes.")
        raise
    for name, findings in found.items():
        show.out.print(f"{out / name}")
        for line in findings:
            show.out.print(f"  {line}")
    if {PAPER, ALL, REPORT} & set(names):
        show.out.print(str(write_report(out)))


def experiments_of(names: list[str]) -> list[str]:
    """The experiments that names mean: paper, tables and all are several; report is none."""
    from aevb.reproduce.reproduce import EXPERIMENTS
    from aevb.reproduce.tables import TABLES as OTHERS

    several = {PAPER: [*EXPERIMENTS], TABLES: [*OTHERS], ALL: [*EXPERIMENTS, *OTHERS], REPORT: []}
    return [one for name in names for one in several.get(name, [name])]
