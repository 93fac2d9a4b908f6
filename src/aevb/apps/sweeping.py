"""The verb that trains a recipe many times: sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aevb.apps import show
from aevb.apps.app import (
    ENV_RUNS,
    OUTPUT,
    RECIPES,
    Crop,
    DataDir,
    Exposure,
    Json,
    Kinds,
    KindsFile,
    Missing,
    Place,
    Side,
    Weights,
    default,
    verb,
)

if TYPE_CHECKING:
    from aevb.apps.plans import Plan
    from aevb.runs.sweeps import Sweep, Trial

TRAINING = "Training"


@verb(
    "aevb sweep digits --seeds 0:8",
    "aevb sweep digits --set objective.beta=1,2,4 --seeds 0:8",
    "aevb sweep table.csv --column visits=count --set latent=2,5",
    "aevb sweep mnist --recipe aevb --set latent=2,20 --set training.optimizer.lr=0.01,0.02 --seeds 0,1,2",
)
def sweep(
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="As for aevb train: a name, or a file or folder of data.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"A recipe's name (see aevb recipes) or .toml file.{default('the one that suits the data')}",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE,...",
            help="A key of the recipe and its values, such as objective.beta=1,2,4; several: every combination."
            f" A comma inside brackets does not separate.{default('none')}",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="A:B", help="Seeds A to B - 1; or a list, such as 0,1,5.")] = "0:3",
    epochs: Annotated[
        float | None,
        typer.Option(metavar="N", help=f"Passes through the training data.{RECIPES}", rich_help_panel=TRAINING),
    ] = None,
    samples: Annotated[
        float | None,
        typer.Option(
            metavar="N", help=f"Training samples to see, instead of epochs.{RECIPES}", rich_help_panel=TRAINING
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(min=1, help="Processes at a time, for runs that cannot be stacked.", rich_help_panel=TRAINING),
    ] = 1,
    device: Place = "auto",
    data_dir: DataDir = None,
    size: Side = None,
    crop: Crop = None,
    column: Kinds = None,
    schema: KindsFile = None,
    missing: Missing = None,
    weights: Weights = None,
    exposure: Exposure = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help=f"Folder of the runs.{default('runs/')} {ENV_RUNS}", rich_help_panel=OUTPUT
        ),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the figure at the end.", rich_help_panel=OUTPUT)] = True,
    json_: Json = False,
) -> None:
    """Train a recipe with every combination of settings and every seed, and compare the results.

    Models of one architecture are trained as one stack, which takes far less time than one by one. The same command
    again skips complete runs, and resumes the others.
    """
    from aevb.apps import actions, plans
    from aevb.errors import RecipeError
    from aevb.runs.grid import alternatives, seeds_of

    several = alternatives(set_ or [])
    of_data = [f"{k}={v[0]}" for k, v in several.items() if k.startswith("data.")]
    wanted = seeds_of(seeds)
    actions.check_folder(out)
    options = plans.fitted(size, crop, plans.weighed(weights, column, exposure), schema, missing)
    asked = {"training.samples": epochs is not None or samples is not None}
    asked |= {option.partition("=")[0].strip(): True for option in options}
    twice = next((key for key, given in asked.items() if given and key in several), None)
    if twice:
        raise RecipeError(f"{twice} is given twice, by an option and by --set. Give it once.")
    of_data += options
    plan = plans.choose(source, recipe, data_dir, of_data).changed({}, epochs, samples)
    found = _swept(plan, several, wanted, (out, jobs, actions.device_named(device)), json_)
    _tell(found, figures, json_)
    if not any(trial.status == "complete" for trial in found.trials):
        raise typer.Exit(1)


def _swept(
    plan: Plan, several: dict[str, list[Any]], seeds: Sequence[int], how: tuple[Any, int, str], quiet: bool
) -> Sweep:
    from aevb.apps.actions import exit_code
    from aevb.runs.interrupt import Terminated
    from aevb.runs.sweeps import sweep as train_all

    out, jobs, device = how
    many = len(seeds)
    for values in several.values():
        many *= len(values)
    show.note(f"{plan.line_with(several.get('latent', ()))}, {many:,} run{'s' * (many != 1)}")
    try:
        with show.warnings_told(), show.training_progress(quiet) as report:
            how_to: dict[str, Any] = {"out": out, "jobs": jobs, "device": device, "show": report, "tell": _note}
            again = any(key.startswith("data.") and key != "data.missing" for key in several)
            data = plan.recipe.source().source if again else plan.data
            return train_all(plan.recipe, data, several, seeds=seeds, **how_to)
    except (KeyboardInterrupt, Terminated) as error:
        show.err.print("Interrupted. The same command resumes the sweep.")
        raise typer.Exit(exit_code(error)) from None


def _note(text: str) -> None:
    show.note(show.escaped(text))


def _tell(found: Sweep, figures: bool, as_json: bool) -> None:
    """The table, and where everything is; with the figure, if asked."""
    from aevb.runs.store import runs_root

    drawn = figures and _draw(found)
    if as_json:
        return show.print_json(
            {"runs": list(map(_as_json, found.trials)), "points": _points(found), "notes": [*found.notes]}
        )
    lines = found.lines()
    show.out.print()
    show.out.print(
        show.table("mean ± sd over seeds (se over test points), nats", list(lines[0]), [[*r.values()] for r in lines])
    )
    if not show.MANNER.quiet:
        listed = ", `aevb runs` lists them" * (found.folder == runs_root())
        show.out.print(f"\nruns    {os.path.join(found.folder, '')}: {len(found.trials)}{listed}")
        show.out.print(f"table   {found.folder / found.name}.csv")
        if drawn:
            show.out.print(f"figure  {found.folder / found.name}.png, .svg")
    return None


def _as_json(trial: Trial) -> dict[str, Any]:
    """A run with its settings by their whole keys, and the numbers that it reached."""
    numbers = {name: part for key, e in trial.numbers.items() for name, part in ((key, float(e)), (f"{key}_se", e.se))}
    return {"run": str(trial.path), "seed": trial.seed, "status": trial.status, **trial.settings, **numbers}


def _points(found: Sweep) -> list[dict[str, Any]]:
    """The lines of the table, with the settings as those of the runs."""
    lines = []
    for settings, numbers in found.points:
        parts = ((n, s.mean, s.sd, s.se) for n, s in numbers.items())
        plain = {k: v for n, mean, sd, se in parts for k, v in ((n, mean), (f"{n}_sd", sd), (f"{n}_se", se))}
        lines.append({**settings, "seeds": max(s.n for s in numbers.values()), **plain})
    return lines


def _draw(found: Sweep) -> bool:
    """Write the figure, if a run has a number to be drawn; whether it was."""
    from aevb import figures

    if not any("elbo" in t.numbers and t.numbers["elbo"].known for t in found.trials):
        return False
    figures.save(figures.sweep(found.trials), found.folder / found.name)
    return True
