"""The application: how a verb is declared, and the options that several verbs share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from aevb.apps import show

Verb = TypeVar("Verb", bound=Callable[..., Any])
Part = Literal["train", "validation", "test"]
Device = Literal["auto", "cpu", "cuda", "mps"]

DATA, OUTPUT, WHERE = "Data", "Output", "Run and device"
ENV_DATA, ENV_RUNS = r"\[env var: AEVB_DATA]", r"\[env var: AEVB_RUNS]"


def default(text: str) -> str:
    """A default that is no fixed value, as typer shows fixed ones."""
    return rf" [dim]\[default: {text}][/dim]"


RECIPES = default("the recipe's")


def _without_value(option: Any) -> Any:
    """An option that takes no value shows none."""
    if getattr(option, "is_flag", False):
        option.metavar = ""
    return option


class VerbCommand(TyperCommand):
    """A verb."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_without_value(parameter) for parameter in super().get_params(ctx)]


class Verbs(TyperGroup):
    """The verbs together."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_without_value(parameter) for parameter in super().get_params(ctx)]


app = typer.Typer(
    name="aevb",
    cls=Verbs,
    help="Variational autoencoders: train, evaluate, use and plot them. Begin with [bold]aevb train digits[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def verb(*examples: str) -> Callable[[Verb], Verb]:
    """Declare a verb of the command line, with examples under its help."""
    epilog = "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  [cyan]{line}[/cyan]" for line in examples)

    def declare(function: Verb) -> Verb:
        app.command(cls=VerbCommand, epilog=epilog)(with_quiet(function))
        return function

    return declare


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print only results, warnings and errors: no progress, no notes.",
        rich_help_panel=OUTPUT,
    ),
]


def with_quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """A verb with the option --quiet beside its own."""
    own = inspect.signature(function, eval_str=True)

    @wraps(function)
    def hushed(*args: Any, quiet: bool = False, **kwargs: Any) -> Any:
        show.hush(quiet)
        return function(*args, **kwargs)

    option = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    whole = own.replace(parameters=[*own.parameters.values(), option])
    hushed.__annotations__ = {name: parameter.annotation for name, parameter in whole.parameters.items()}
    hushed.__signature__ = whole  # type: ignore[attr-defined]
    return hushed


Trackers = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="TRACKER",
        help=f"Log the training to tensorboard, wandb or mlflow; may be repeated.{default('none')}",
        rich_help_panel=OUTPUT,
    ),
]


def with_trackers(function: Callable[..., Any]) -> Callable[..., Any]:
    """A verb that trains with the option --log beside its own."""
    own = inspect.signature(function, eval_str=True)

    @wraps(function)
    def tracked(*args: Any, log: list[str] | None = None, **kwargs: Any) -> Any:
        if not log:
            return function(*args, **kwargs)
        from aevb.runs.trackers import tracking

        with tracking(*log):
            return function(*args, **kwargs)

    option = inspect.Parameter("log", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Trackers)
    tracked.__signature__ = own.replace(parameters=[*own.parameters.values(), option])  # type: ignore[attr-defined]
    return tracked


RunArg = Annotated[
    str | None, typer.Argument(metavar="RUN", help=f"A run's folder or name.{default('the latest run')}")
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help=f"The run, as an option: a folder, or a name in runs/. {ENV_RUNS}",
        rich_help_panel=WHERE,
    ),
]
First = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", help=f"A run's folder or name; without NEW its test split.{default('the latest run')}"
    ),
]
Second = Annotated[
    str | None,
    typer.Argument(
        metavar="NEW",
        help="New data, all rows in their order: a file, a folder of pictures, a picture, an address such as s3://...,"
        " or a name (see aevb data).",
    ),
]
Moved = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help=f"The data that the run was trained on, if they have moved.{default('where they were')}",
        rich_help_panel=DATA,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help=f"Folder with data files, searched first; or a file that has moved. {ENV_DATA}",
        rich_help_panel=DATA,
    ),
]
Side = Annotated[
    int | None,
    typer.Option(
        "--size",
        metavar="PIXELS",
        help=f"Resize the images of a folder or .zip to squares of this side.{default('as they are')}",
        rich_help_panel=DATA,
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help=f"With --size: 'centre' takes the middle square, 'stretch' the whole image.{default('only squares')}",
        rich_help_panel=DATA,
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=KIND",
        help="The kind of a column of a table, such as age=count, or visits=count:days for a count over so many days;"
        f" may be repeated.{default('by its values')}",
        rich_help_panel=DATA,
    ),
]
KindsFile = Annotated[
    Path | None,
    typer.Option(
        "--schema",
        metavar="FILE",
        help=f"File with the kinds of all columns, .toml or .json; `aevb data` writes it.{default('none')}",
        rich_help_panel=DATA,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="COLUMN",
        help=f"A column of a table that says how much each row counts; it is not modelled.{default('equal weights')}",
        rich_help_panel=DATA,
    ),
]
Exposure = Annotated[
    str | None,
    typer.Option(
        "--exposure",
        metavar="COLUMN",
        help="What all counts of a table are over: a column; or total, the sum of the counts in the row.",
        rich_help_panel=DATA,
    ),
]
Missing = Annotated[
    Literal["random", "model"] | None,
    typer.Option(
        "--missing",
        help="Missing cells of a table: at random, given the observed cells; or modelled, so that new rows have "
        f"holes too.{default('random')}",
        rich_help_panel=DATA,
    ),
]
Split = Annotated[Part, typer.Option("--split", help="Split of the run's data.", rich_help_panel=DATA)]
Given = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        help="Of a conditional model: the class, by its name or number. In sample, of a table: columns, as in"
        f" sex=female,age=30:40.{default('each class in turn')}",
    ),
]
GivenNew = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        help=f"Of a conditional model: the class of all rows of NEW.{default('the labels of NEW')}",
        rich_help_panel=DATA,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print strict JSON instead of a table.", rich_help_panel=OUTPUT)]
Place = Annotated[
    Device,
    typer.Option(
        "--device",
        help="Where to compute; auto takes an NVIDIA GPU if there is one; mps, Apple's, is untested.",
        rich_help_panel=WHERE,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the random draws.")]


def out(what: str, kinds: str) -> Any:
    """The option --out, which takes files of some kinds."""
    text = f"Where to write: {kinds}.{default(what)}"
    return typer.Option("--out", "-o", metavar="FILE", help=text, rich_help_panel=OUTPUT)


PictureOut = Annotated[Path | None, out("a picture among the run's figures", ".png or .svg, both are written")]
ArrayOut = Annotated[Path | None, out("a picture among the run's figures", ".npy for the numbers; .png or .svg")]
RowsOut = Annotated[
    Path | None,
    out("a picture among the run's figures", ".csv, .tsv or .parquet of a table; .npy for the numbers; .png or .svg"),
]
TableOut = Annotated[Path | None, out("the name of NEW, with -filled", ".csv, .tsv or .parquet")]
CodesOut = Annotated[Path | None, out("beside the run", ".npy, or .csv with the row or file of each")]
ScoresOut = Annotated[
    Path | None, out("none, a summary is printed", ".csv or .parquet; .npy for the numbers log p(x) alone")
]
