"""The command line: each verb parses, calls, prints. PyTorch is imported only by verbs that need it."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from aevb.apps import actions, console, crew, plans, show
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
    Moved,
    Place,
    RunOption,
    Side,
    Weights,
    app,
    default,
    verb,
    with_trackers,
)
from aevb.apps.rows import is_run, open_run
from aevb.data.memory import out_of_memory
from aevb.errors import AevbError
from aevb.runs.interrupt import signals_as_errors

Precision = Literal["float32", "bf16"]
MODEL, LENGTH = "Model", "Training"


def version(asked: bool) -> None:
    if asked:
        import aevb

        print(f"aevb {aevb.__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    _: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
) -> None:
    context.with_resource(show.reading())


@verb(
    "aevb train digits",
    "aevb train mnist --recipe aevb --latent 20 --samples 1e6",
    "aevb train mnist --recipe beta-vae --set objective.beta=8",
    "aevb train table.csv",
    "aevb train table.csv --init RUN",
    "aevb train pictures/ --size 64 --crop centre --epochs 50",
    "aevb train mine.npy --dry-run",
    "aevb train digits --log tensorboard",
    "aevb train --resume",
)
@with_trackers
def train(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="digits, ... (see aevb data), a table (.csv, .parquet), a .npy or .npz, a folder or .zip of images;"
            " or the address of one, such as s3://...",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"A recipe's name (see aevb recipes) or .toml file.{default('the one that suits the data')}",
            rich_help_panel=MODEL,
        ),
    ] = None,
    latent: Annotated[
        int | None, typer.Option(metavar="D", help=f"Latent dimensions.{RECIPES}", rich_help_panel=MODEL)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help=f"Change any key of the recipe, such as objective.beta=8; may be repeated.{default('none')}",
            rich_help_panel=MODEL,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(metavar="N", help=f"Passes through the training data.{RECIPES}", rich_help_panel=LENGTH),
    ] = None,
    samples: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help=f"Training samples to see, such as 1e6; instead of epochs.{RECIPES}",
            rich_help_panel=LENGTH,
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="M", help=f"Data points per step.{RECIPES}", rich_help_panel=LENGTH)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help=f"Seed of initialisation, order and noise.{RECIPES}", rich_help_panel=LENGTH),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume a run: aevb train --resume [RUN].", rich_help_panel=LENGTH)
    ] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Fuse the training step with torch.compile.", rich_help_panel=LENGTH)
    ] = False,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help=f"Precision of the products in a step; bf16 keeps weights and sums in float32.{RECIPES}",
            rich_help_panel=LENGTH,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help=f"Start from the weights, parts and columns of a run.{default('random weights')}",
            rich_help_panel=LENGTH,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the recipe, the sizes and the parameters; train nothing.", rich_help_panel=LENGTH
        ),
    ] = False,
    run: RunOption = None,
    device: Place = "auto",
    data_: Moved = None,
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
            metavar="FOLDER",
            help=f"The run's folder.{default('runs/SOURCE-RECIPE-TIME')} {ENV_RUNS}",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the figures at the end.", rich_help_panel=OUTPUT)] = True,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show the training in a browser: curves and map.", rich_help_panel=OUTPUT),
    ] = False,
    json_: Json = False,
) -> None:
    """Train a model, evaluate it on the test split and save figures.

    With --resume, resume a run that was interrupted, killed or finished: --samples or --epochs sets a new
    total, --set another step size. With --out and --resume, the same command line begins the run or resumes it.
    """
    compiled, dry, changed = given(compile_), given(dry_run), [*(set_ or [])]
    kinds = plans.weighed(weights, column, exposure)
    if resume and out is not None and not is_run(source):
        from aevb.runs.again import CommandLine

        actions.refuse({"--dry-run": dry, "--run": run, "--data": data_, "--watch": given(watch)})
        keys = {"training.batch": batch, "training.seed": seed}
        kinds_of_step = {"training.compile": compiled, "training.precision": precision}
        changed += [*plans.fitted(size, crop, kinds, schema, missing), *plans.beginning(init)]
        asked = CommandLine(source, recipe, {"latent": latent, **keys, **kinds_of_step}, changed, epochs, samples)
        done, data = actions.begin_or_resume(asked, out, device, data_dir, json_)
    elif resume:
        actions.refuse(
            {
                "--recipe": recipe,
                "--latent": latent,
                "--batch": batch,
                "--seed": seed,
                "--out": out,
                "--compile": compiled,
                "--precision": precision,
                "--dry-run": dry,
                "--watch": given(watch),
                "--size": size,
                "--crop": crop,
                "--column": column,
                "--schema": schema,
                "--missing": missing,
                "--weights": weights,
                "--exposure": exposure,
                "--init": init,
            }
        )
        again = actions.Again(open_run(source, run, data_), epochs, samples, changed)
        done, data = actions.resume_run(again, device, data_dir, json_)
    else:
        actions.only_resumed(run, data_)
        changes = {
            "latent": latent,
            "training__batch": batch,
            "training__seed": seed,
            "training__compile": compiled,
            "training__precision": precision,
        }
        actions.check_folder(out)
        changed += [*plans.fitted(size, crop, kinds, schema, missing), *plans.beginning(init)]
        told = not (json_ or dry_run or changed) and plans.tell_early(source, recipe, latent)
        plan = replace(plans.choose(source, recipe, data_dir, changed), told=told)
        plan = plan.changed(changes, epochs, samples)
        if dry_run:
            plans.show_plan(plan, json_)
            return
        done, data = actions.train_new(plan, out, device, json_, watch)
    actions.finish(done, data, actions.own_device(device), figures, json_)


def given(flag: bool) -> bool | None:
    """A flag as an option that may be missing."""
    return flag or None


from aevb.apps import sweeping, judging, filling, clustering, using, exploring, packing, sending, lists, rerun  # noqa: E402, F401, I001  # in the order of the help


def main() -> None:
    """The entry point: what a user can act on becomes one line, Ctrl-C becomes exit code 130, SIGTERM 143."""
    console.prepare()
    show.hush(False)
    code = _code()
    hindrance = console.flushed()
    if hindrance:
        code = _said(hindrance)
    gc.freeze()  # a process that ends need not look for cycles, which takes it a second
    sys.exit(code)


def _code() -> int:
    """Run the verb that the command line names; its exit code."""
    try:
        with signals_as_errors(), show.warnings_told(), show.logged(), crew.joined(sys.argv[1:2]):
            app(prog_name="aevb")
    except SystemExit as end:
        return _of_exit(end)
    except AevbError as error:
        options = " ".join(f"--set {change}" for change in error.changes)
        return _said(f"{error} On the command line: {options}" if options else str(error))
    except (MemoryError, RuntimeError) as error:
        if not (words := out_of_memory(error)):
            raise
        return _said(words)
    except OSError as error:
        return _of_the_system(error)
    except KeyboardInterrupt:
        return 130
    return 0


def _of_exit(end: SystemExit) -> int:
    """The exit code of what `sys.exit` was given: a number, nothing, or a message. A closed pipe is no error."""
    gone = isinstance(end.__context__, OSError) and not console.broken(end.__context__)
    if end.code is None or gone:  # typer exits by 1 then
        return 0
    return end.code if isinstance(end.code, int) else _said(str(end.code))


def _of_the_system(error: OSError) -> int:
    """The exit code where the system refused something: a file, or the output itself."""
    if error.filename is not None:
        return _said(f"{error.filename}: {error.strerror or error}")
    console.silence()
    hindrance = console.broken(error)
    return _said(hindrance) if hindrance else 0


def _said(message: str) -> int:
    show.err.print(f"[bold red]error:[/bold red] {show.escaped(message)}")
    return 1
