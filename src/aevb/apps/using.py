"""The verbs that use a model: sample, reconstruct, encode, decode, interpolate, traverse, plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aevb.apps import actions, checking, conditions, outputs, show
from aevb.apps.app import (
    OUTPUT,
    ArrayOut,
    CodesOut,
    DataDir,
    First,
    Given,
    GivenNew,
    Moved,
    PictureOut,
    Place,
    RowsOut,
    RunArg,
    RunOption,
    Second,
    Seed,
    Split,
    default,
    verb,
)
from aevb.apps.rows import Asked, Found, asked_for, open_run, rows

if TYPE_CHECKING:
    from aevb.data.batch import Batch, Indexable
    from aevb.models.inference import Model

FEW = 20  # rows that a picture shows


def some(data: Indexable, chosen: list[int], device: str) -> Batch:
    """A few rows, on the CPU."""
    import torch

    from aevb.data.batch import take

    return take(data, torch.tensor(chosen, device=device)).to("cpu")


@verb(
    "aevb sample",
    "aevb sample -n 1000 --out new.npy",
    "aevb sample --given 3",
    "aevb sample -n 1000 --given sex=female,age=30:40 -o new.csv",
    "aevb sample --ex-post",
)
def sample(
    run: RunArg = None,
    n: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 100,
    seed: Seed = 0,
    draw: Annotated[bool, typer.Option("--draw", help="A draw from p(x|z) instead of its mean.")] = False,
    given: Given = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="For a table: compare the new rows with the test rows, on one page."),
    ] = False,
    ex_post: Annotated[
        bool,
        typer.Option("--ex-post", help="Draw z from a mixture of normals fitted to the codes of the train split."),
    ] = False,
    run_: RunOption = None,
    device: Place = "auto",
    data_: Moved = None,
    data_dir: DataDir = None,
    out: RowsOut = None,
) -> None:
    """Generate data: z ~ p(z), then the mean of p(x|z), or a draw from it with --draw.

    A .npy for --out keeps the numbers. They are in the units and the type of the data: means of whole numbers are
    rounded. For a table, whole rows are drawn; --given takes any of its columns, and ranges of numbers and dates.
    """
    place, out = actions.device_named(device), outputs.rows_out(out)
    opened = open_run(run, run_, data_)
    schema = opened.values(data_dir).schema
    from aevb.figures import plots
    from aevb.use.generate import generate

    y = actions.contexts(opened, given, n) if schema is None else None
    model = actions.ex_post(opened, data_dir, place) if ex_post else opened.model(place)
    if schema is not None:
        new = conditions.drawn(model, n, schema, given, seed)
        conditions.tell_exposures(schema, given)
        if check:
            checking.check_rows(opened, new, data_dir, seed)
            if out is None:
                return None
        if out is not None and out.suffix in (".npy", *outputs.TABLES):
            return conditions.write_rows(out, schema, new)
        x = schema.numbers(new)
    else:
        outputs.refuse_table(out, opened, check)
        x = generate(model, n, seed=seed, draw=draw, y=y)
    title = f"{n} samples from the {'prior fitted to the codes' if ex_post else 'prior'}"
    title += f", given {given}" if given is not None else ""

    def figure() -> Any:
        return plots.decoded(x, max(1, round(n**0.5)), title, outputs.columns(opened, x, data_dir))

    outputs.deliver(opened, out, "samples", x, figure, data_dir)
    return None


@verb("aevb reconstruct", "aevb reconstruct --split train -n 20", "aevb reconstruct RUN photos/ --out restored.npy")
def reconstruct(
    first: First = None,
    second: Second = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--count",
            min=1,
            help=f"How many rows, the first ones.{default(f'{FEW}; all rows of NEW for numbers')}",
        ),
    ] = None,
    run: RunOption = None,
    device: Place = "auto",
    split: Split = "test",
    given: GivenNew = None,
    data_: Moved = None,
    data_dir: DataDir = None,
    out: RowsOut = None,
) -> None:
    """Encode and decode data points: originals over reconstructions, the means of p(x|z)."""
    place, out = actions.device_named(device), outputs.rows_out(out)
    asked = asked_for(first, second, run, data_, split, {"data_dir": data_dir, "given": given})
    if asked.run.values(data_dir).schema is None:
        outputs.refuse_table(out, asked.run)
    whole = out is not None and asked.new is not None and out.suffix in (".npy", *outputs.TABLES)
    reconstruct_some(asked, n, place, out, whole)


def reconstruct_some(asked: Asked, n: int | None, device: str, out: Path | None, whole: bool) -> None:
    """The first n rows; by default all where `whole`, a file of numbers, is asked for, else a few."""
    from aevb.apps import streamed_codes, streaming
    from aevb.figures.tables import SCALED

    parts, model = streaming.parts_of(asked), asked.run.model(device)
    if parts and whole and out is not None:
        return streamed_codes.reconstruct(asked, parts, model, n or parts.rows, out, device)
    found = streaming.first_rows(asked, parts, max(n or FEW, SCALED)) if parts else rows(asked)
    return reconstruct_rows(asked, found, model, n or (len(found.split) if whole else FEW), device, out)


def reconstruct_rows(asked: Asked, found: Found, model: Model, n: int, device: str, out: Path | None) -> None:
    """Write the reconstructions of the first n rows as a table or numbers, or draw them."""
    from aevb.figures import plots
    from aevb.figures.tables import Table
    from aevb.use.reconstruct import reconstruct as reconstructed

    few = found.first(n)
    data = few.data(device)
    y = reconstructed(model, data)

    def figure() -> Any:
        batch = some(data, list(range(len(few.split))), device)
        return plots.reconstructions(model, batch, table=Table.of_data(found.split))

    if out is not None and out.suffix in outputs.TABLES:
        schema = asked.run.values(asked.data_dir).columns
        conditions.write_rows(out, schema, schema.inverse(y), "rows reconstructed")
    else:
        outputs.deliver(asked.run, out, "reconstructions", y, figure, asked.data_dir)


@verb(
    "aevb encode --out codes.npy",
    "aevb encode new.csv --out codes.csv",
    "aevb encode RUN photos/ --out codes.npy",
    "aevb encode --split train --draws 5 --out draws.npy",
    "aevb encode --clusters --out clusters.npy",
)
def encode(
    first: First = None,
    second: Second = None,
    draws: Annotated[int, typer.Option("--draws", min=0, help="Draws from q(z|x) per data point; 0: its mean.")] = 0,
    samples: Annotated[int | None, typer.Option("--samples", min=0, hidden=True)] = None,
    clusters: Annotated[
        bool, typer.Option("--clusters", help="Of a mixture prior: p(m|z) for each of its components, (N, M).")
    ] = False,
    seed: Seed = 0,
    run: RunOption = None,
    device: Place = "auto",
    split: Split = "test",
    given: GivenNew = None,
    data_: Moved = None,
    data_dir: DataDir = None,
    out: CodesOut = None,
) -> None:
    """Write codes, (N, D): posterior means, the same at every call; or draws, (K, N, D), as a .npy.

    For a model with several layers of latents: z_1 and the layers above it, side by side.
    """
    place, out = actions.device_named(device), outputs.codes_out(out)
    asked = asked_for(first, second, run, data_, split, {"data_dir": data_dir, "given": given})
    from aevb.apps import streamed_codes, streaming
    from aevb.runs.build import latent_shapes, latents_text

    opened, draws = asked.run, draws if samples is None else samples
    outputs.refuse_draws(out, draws)
    model = opened.model(place)
    if parts := streaming.parts_of(asked):
        streamed_codes.encode(asked, parts, model, (clusters, draws, seed, place), out)
    else:
        encode_rows(asked, model, (clusters, draws, seed), place, out)
    if not clusters and len(latent_shapes(opened.recipe, opened.meta["shape"])) > 1:
        show.out.print(f"layers side by side: {latents_text(opened.recipe, opened.meta['shape'])} numbers")


def encode_rows(asked: Asked, model: Model, how: tuple[bool, int, int], device: str, out: Path | None) -> None:
    """Write the codes of rows that are read as a whole: shares of clusters, or draws where there are any, or means."""
    from aevb.use.encode import encode as encode_all
    from aevb.use.encode import posterior_draws

    clusters, draws, seed = how
    found, kind = rows(asked), "clusters" if clusters else "codes"
    data = found.data(device)
    if clusters:
        codes = actions.clusters(asked.run, model, data)
    else:
        codes = posterior_draws(model, data, draws, seed=seed) if draws else encode_all(model, data)
    out = out or outputs.beside_run(asked.run, f"{kind}-{asked.stem}.npy")
    outputs.write_codes(out, codes, found.column, found.names, "p" if clusters else "z")


@verb("aevb decode codes.npy", "aevb decode codes.npy --run runs/mnist --out images.npy")
def decode(
    codes: Annotated[Path, typer.Argument(metavar="CODES", help="A .npy file with codes, (N, D).")],
    given: Given = None,
    run: RunOption = None,
    device: Place = "auto",
    data_dir: DataDir = None,
    out: ArrayOut = None,
) -> None:
    """Decode codes to data: the means of p(x|z)."""
    place, out = actions.device_named(device), outputs.array_out(out)
    opened = open_run(run)
    from aevb.figures import plots
    from aevb.use.reconstruct import decode as decoded

    z = actions.read_codes(codes, opened)
    x = decoded(opened.model(place), z, actions.contexts(opened, given, len(z)))
    shown = x[:100]
    title = f"decoded from {codes.name}" + (f": the first {len(shown)} of {len(x):,}" if len(shown) < len(x) else "")

    def figure() -> Any:
        return plots.decoded(shown, 10, title, outputs.columns(opened, shown, data_dir))

    outputs.deliver(opened, out, "decoded", x, figure, data_dir)


@verb("aevb interpolate", "aevb interpolate --pair 3 14 --steps 15")
def interpolate(
    run: RunArg = None,
    pair: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="ROW ROW", help=f"Two row numbers, from 0.{default('the first eight pairs')}"),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Pictures along the way.")] = 11,
    run_: RunOption = None,
    device: Place = "auto",
    split: Split = "test",
    data_: Moved = None,
    data_dir: DataDir = None,
    out: PictureOut = None,
) -> None:
    """Interpolate linearly between two codes, and decode along the way."""
    place, out = actions.device_named(device), outputs.picture_out(out)
    found = rows(Asked(open_run(run, run_, data_), None, split, data_dir))
    few = min(len(found.split) // 2 * 2, 16)
    a, b = ([pair[0]], [pair[1]]) if pair else (list(range(0, few, 2)), list(range(1, few, 2)))
    actions.within([*a, *b] or [1], found.split, split)
    from aevb.figures import plots
    from aevb.figures.tables import Table

    data, model = found.data(place), found.run.model(place)
    from_, to = some(data, a, place), some(data, b, place)
    figure = plots.interpolations(model, from_, to, steps=steps, table=Table.of_data(found.split))
    outputs.save_figure(found.run, out, "interpolations", figure)


@verb("aevb traverse", "aevb traverse --index 7 --dims 5")
def traverse(
    run: RunArg = None,
    index: Annotated[int, typer.Option(min=0, help="Row of the data point to start from.")] = 0,
    dims: Annotated[int, typer.Option(min=1, help="How many latents at most, those with the largest KL first.")] = 10,
    run_: RunOption = None,
    device: Place = "auto",
    split: Split = "test",
    data_: Moved = None,
    data_dir: DataDir = None,
    out: PictureOut = None,
) -> None:
    """Traverse one latent at a time, in the order of their KL, and decode."""
    place, out = actions.device_named(device), outputs.picture_out(out)
    found = rows(Asked(open_run(run, run_, data_), None, split, data_dir))
    actions.within([index], found.split, split)
    from aevb.evaluation.bound import elbo
    from aevb.figures import plots
    from aevb.figures.tables import Table

    data, model = found.data(place), found.run.model(place)
    if dims > (size := model.latent_shape.numel()):
        show.note(f"{found.run.path.name} has {size} latents: all are shown")
    kl = elbo(model, data).kl.mean(0)
    start = some(data, [index], place)
    figure = plots.traversals(model, start, kl, plots.Moves(dims), table=Table.of_data(found.split))
    outputs.save_figure(found.run, out, "traversals", figure)


@verb("aevb plot", "aevb plot RUN --only manifold --only latent")
def plot(
    run: RunArg = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE", help=f"A figure's name; may be repeated.{default('all that fit the run')}"),
    ] = None,
    run_: RunOption = None,
    data_: Moved = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help=f"Folder for the figures.{default('figures/ of the run')}", rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Draw the figures of a run, as PNG and SVG."""
    opened = open_run(run, run_, data_)
    if out is None:
        outputs.beside_run(opened, "figures/loss.png", "Say where to write: --out FOLDER.")
    from aevb.figures.gallery import draw_all

    for path in draw_all(opened, opened.model(), opened.dataset(data_dir), only=only, folder=out):
        show.out.print(str(path))
