"""The verbs that evaluate a model, or rows by a model: evaluate, score, doctor."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from aevb.apps import actions, outputs, scores, show
from aevb.apps.app import (
    OUTPUT,
    RECIPES,
    DataDir,
    First,
    GivenNew,
    Json,
    Moved,
    Place,
    RunArg,
    RunOption,
    ScoresOut,
    Second,
    Seed,
    Split,
    default,
    verb,
)
from aevb.apps.rows import asked_for, open_run, rows
from aevb.evaluation.reports import names

LIKELIHOOD, REPORTS = "log p(x)", "Reports"
Importance = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        min=1,
        help=f"Importance samples per data point.{RECIPES}",
        rich_help_panel=LIKELIHOOD,
    ),
]


@verb(
    "aevb evaluate",
    "aevb evaluate RUN --importance-samples 5000 --json",
    "aevb evaluate RUN --report NAME",
    "aevb evaluate RUN --estimator bdmc",
    "aevb evaluate RUN --estimator ais --limit 200 --chains 16 --temperatures 1000",
)
def evaluate(
    run: RunArg = None,
    run_: RunOption = None,
    device: Place = "auto",
    split: Split = "test",
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"Only the first N data points.{default('all; 50 for ais, bdmc and hmc')}",
            rich_help_panel="Data",
        ),
    ] = None,
    data_: Moved = None,
    data_dir: DataDir = None,
    elbo_samples: Annotated[
        int | None,
        typer.Option(
            "--elbo-samples",
            metavar="L",
            min=1,
            help=f"Draws of z per data point for the ELBO.{RECIPES}",
            rich_help_panel=LIKELIHOOD,
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, hidden=True)] = None,
    importance_samples: Importance = None,
    estimator: Annotated[
        Literal["is", "ais", "bdmc", "hmc"],
        typer.Option(
            help="Estimator of log p(x). is: importance sampling. ais: annealed importance sampling. bdmc: bounds from"
            " both sides, on data drawn from the model. hmc: Appendix D of the 2013 paper, for at most ten latents,"
            " best up to five.",
            rich_help_panel=LIKELIHOOD,
        ),
    ] = "is",
    chains: Annotated[
        int | None,
        typer.Option(min=1, help=f"Chains of ais and bdmc per data point.{default('8')}", rich_help_panel=LIKELIHOOD),
    ] = None,
    temperatures: Annotated[
        int | None,
        typer.Option(min=1, help=f"Temperatures of ais and bdmc.{default('200')}", rich_help_panel=LIKELIHOOD),
    ] = None,
    start: Annotated[
        Literal["prior", "posterior"] | None,
        typer.Option(
            help=f"Where the chains of ais and bdmc begin: at p(z) or at q(z|x).{default('posterior')}",
            rich_help_panel=LIKELIHOOD,
        ),
    ] = None,
    report: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Add a report, one of {', '.join(names())}; may be repeated.{default('none')}",
            rich_help_panel=REPORTS,
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Evaluate a run: the ELBO and its parts, log p(x) by importance sampling, measures of the latent space.

    Another --estimator gives only log p(x), for fewer data points, and takes longer.
    """
    path = {"chains": chains, "temperatures": temperatures, "start": start}
    actions.only_for(estimator, ("ais", "bdmc"), **path)
    elbo_samples = elbo_samples or samples
    actions.only_for(estimator, ("is",), importance_samples=importance_samples, elbo_samples=elbo_samples)
    settings = {"importance_samples": importance_samples, "samples": elbo_samples}
    place = actions.device_named(device)
    opened = open_run(run, run_, data_)
    data = opened.dataset(data_dir)
    reports = actions.measured(opened, data, report or [], split, limit, place)  # first: one may not be possible
    if estimator == "is":
        result = actions.evaluate(opened, data, split, settings, limit, place)
    else:
        result = actions.likelihood(opened, data, split, {"estimator": estimator, **path}, limit, place)
    of = f"{split} split, n" if estimator != "bdmc" else "data of the model, n"
    actions.tell_evaluation(f"{opened.path.name}, {of} = {result['n']:,}", result, reports, json_)


@verb(
    "aevb score new.npy --out scores.csv",
    "aevb score RUN photos/ --out scores.csv",
    "aevb score new.npy --run RUN --importance-samples 5000 --out scores.npy",
    "aevb score table.csv --why --alarm 0.05 -o scores.parquet",
    "aevb score",
)
def score(
    first: First = None,
    second: Second = None,
    importance_samples: Importance = None,
    seed: Seed = 0,
    run: RunOption = None,
    device: Place = "auto",
    split: Split = "test",
    given: GivenNew = None,
    alarm: Annotated[
        float,
        typer.Option(
            metavar="RATE", min=1e-6, max=0.5, help="The rate of false alarms: a row with p_value ≤ RATE is an alarm."
        ),
    ] = 0.01,
    why: Annotated[
        bool,
        typer.Option(
            "--why", help="For tables: add the three most surprising cells of each row. For pictures: draw heat maps."
        ),
    ] = False,
    data_: Moved = None,
    data_dir: DataDir = None,
    json_: Json = False,
    out: ScoresOut = None,
) -> None:
    """Score rows: log p(x) of each in nats, by importance sampling. Higher is more normal.

    A row's score depends only on the row, the model and the seed. For a conditional model it is log p(x|y). The column
    `row` counts the rows of the data file from 0, also for a split; for pictures the column `file` has the name.
    `percentile` and `p_value` compare the score with those of validation rows. --why adds the most surprising cells,
    why_1, ..., and surprise_1, ...: the nats by which -log p(cell | rest of the row) exceeds the column's usual value.
    For pictures --why draws those of the lowest scores, with -log p(pixel | the others) as a heat map.
    """
    place, out = actions.device_named(device), outputs.scores_out(out)
    asked = asked_for(first, second, run, data_, split, {"data_dir": data_dir, "given": given})
    from aevb.apps import streaming

    asked_how = scores.Scoring(importance_samples, seed, place, alarm, why)
    if parts := streaming.parts_of(asked):
        found, result = streaming.score(asked, parts, asked_how, out)
    else:
        found = rows(asked)
        result = scores.compared(found, asked_how, data_dir)
        if out is not None:
            scores.write(out, found, result)
    numbers: dict[str, Any] = scores.summary(found, result)
    if json_:
        from aevb.evaluation.estimate import flat

        show.print_json(flat(numbers))
    else:
        scores.show_summary(asked.title, found, numbers)
        if why and scores.is_pictures(found):
            scores.draw_why(found, result, asked_how, out)


@verb("aevb doctor", "aevb doctor RUN --strict", "aevb doctor --json")
def doctor(
    run: RunArg = None,
    run_: RunOption = None,
    seed: Seed = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if anything is found.", rich_help_panel=OUTPUT)
    ] = False,
    device: Place = "auto",
    data_: Moved = None,
    data_dir: DataDir = None,
    json_: Json = False,
) -> None:
    """Say what is wrong with a run, and what to do: each finding with its error, each remedy with its command.

    It looks for unused latent units, over-fitting, too short a training, a likelihood that does not fit, holes in the
    prior, and unreliable estimates. It reads a sample of rows, and no test rows if there are validation rows.
    """
    place = actions.device_named(device)
    opened = open_run(run, run_, data_)
    from aevb.runs.doctor import doctor as examined

    with show.counting("looking"):
        found = examined(opened, data_dir=data_dir, device=place, seed=seed)
    if json_:
        show.print_json(found.to_dict())
    else:
        show.out.print(str(found))
    if strict and found.findings:
        raise typer.Exit(1)
