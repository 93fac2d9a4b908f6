"""The command line: each verb parses, calls, prints. PyTorch is imported only by verbs that need it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from aevb.apps import actions, show
from aevb.apps.actions import Part
from aevb.errors import AevbError, DataError

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="aevb",
    help="Variational autoencoders: train, evaluate, use and plot them. Begin with [bold]aevb train digits[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunArg = Annotated[str | None, typer.Argument(metavar="RUN", help="A run's folder or name; the latest one by default.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with data files, searched before any download (or $AEVB_DATA).")
]
Json = Annotated[bool, typer.Option("--json", help="Print strict JSON instead of a table.")]
Count = Annotated[int, typer.Option("-n", min=1, help="How many.")]
Out = Annotated[Path | None, typer.Option(help="Where to write; beside the run by default.")]
Seed = Annotated[int, typer.Option(help="Seed of the random draws.")]
GivenOption = Annotated[
    str | None,
    typer.Option(help="Class label (name or index) for conditional models; cycles through all classes by default."),
]
SplitOption = Annotated[Part, typer.Option("--split", help="Which part of the data.")]


def examples(*lines: str) -> str:
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  [cyan]{line}[/cyan]" for line in lines)


def version(asked: bool) -> None:
    if asked:
        import aevb

        print(f"aevb {aevb.__version__}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command(
    epilog=examples(
        "aevb train digits",
        "aevb train mnist --recipe aevb --latent 20 --samples 1e6",
        "aevb train mnist --recipe beta-vae --set objective.beta=8",
        "aevb train pictures/ --epochs 50",
        "aevb train --resume",
    )
)
def train(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE", help="digits, mnist, ... (see aevb data), a .npy/.npz file, a folder or .zip of images."
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name (see aevb recipes) or .toml file.")] = None,
    latent: Annotated[int | None, typer.Option(help="Latent dimensions.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes through the training data.")] = None,
    samples: Annotated[
        float | None, typer.Option(help="Training samples to see, such as 1e6, instead of epochs.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Data points per step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of initialisation, order and noise.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/SOURCE-RECIPE-TIME by default.")] = None,
    data_dir: DataDir = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change any key of the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run: aevb train --resume [RUN].")] = False,
    compile_: Annotated[bool, typer.Option("--compile", help="Fuse the training step with torch.compile.")] = False,
    figures: Annotated[bool, typer.Option(help="Draw the figures at the end.")] = True,
    json_: Json = False,
) -> None:
    """Train a model, evaluate it on the test split and save figures.

    With --resume, resume a run that was interrupted, killed or finished: --samples or --epochs set a new total, --set
    another step size.
    """
    if resume:
        actions.refuse(
            {
                "--recipe": recipe,
                "--latent": latent,
                "--batch": batch,
                "--seed": seed,
                "--out": out,
                "--compile": compile_ or None,
            }
        )
        run, data = actions.resume_run(source, epochs, samples, set_ or [], device, data_dir, json_)
    else:
        changes = {
            "latent": latent,
            "training__batch": batch,
            "training__seed": seed,
            "training__compile": compile_ or None,
        }
        chosen, data = actions.choose(source, recipe, data_dir, set_ or [])
        if epochs is not None or samples is not None:
            changes["training__samples"] = actions.total_samples(epochs, samples, len(data.train))
        chosen = chosen.replace(**{k: v for k, v in changes.items() if v is not None})
        run = actions.train_new(chosen, data, out, device, json_)
    actions.finish(run, data, actions.device_named(device), figures, json_)


@app.command(
    epilog=examples(
        "aevb evaluate",
        "aevb evaluate RUN --importance-samples 5000 --json",
        "aevb evaluate RUN --report surgery",
        "aevb evaluate RUN --estimator bdmc",
        "aevb evaluate RUN --estimator ais --limit 200 --chains 16 --temperatures 1000",
    )
)
def evaluate(
    run: RunArg = None,
    split: SplitOption = "test",
    importance_samples: Annotated[int | None, typer.Option(min=1, help="K for log p(x).")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="L for the ELBO.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many data points; ais, bdmc and hmc: 50 by default.")
    ] = None,
    estimator: Annotated[
        Literal["is", "ais", "bdmc", "hmc"],
        typer.Option(
            help="Of log p(x). is: importance sampling; ais: annealed; bdmc: from below and from above, on data that "
            "the"
            " model makes; hmc: App. D of the 2013 paper, for up to five latents."
        ),
    ] = "is",
    chains: Annotated[int | None, typer.Option(min=1, help="Of ais and bdmc, per data point; 8 by default.")] = None,
    temperatures: Annotated[int | None, typer.Option(min=1, help="Of ais and bdmc; 200 by default.")] = None,
    start: Annotated[
        Literal["prior", "posterior"] | None,
        typer.Option(
            help="Where the chains of ais and bdmc begin; by default at q(z|x), from which the way is shorter."
        ),
    ] = None,
    report: Annotated[
        list[str] | None,
        typer.Option(help="Also a report: surgery, fidelity or disentanglement. May be given more than once."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option()] = "auto",
    data_dir: DataDir = None,
    json_: Json = False,
) -> None:
    """Evaluate a run: the ELBO and its parts, log p(x) by importance sampling, latent-space diagnostics.

    With another --estimator, log p(x) alone, of fewer data points and in more time.
    """
    from aevb.evaluation.estimate import flat

    path = {"chains": chains, "temperatures": temperatures, "start": start}
    actions.only_for(estimator, ("ais", "bdmc"), **path)
    actions.only_for(estimator, ("is",), importance_samples=importance_samples, samples=samples)
    opened, place = actions.open_run(run), actions.device_named(device)
    data = opened.dataset(data_dir)
    if estimator == "is":
        result = actions.evaluate(opened, data, split, importance_samples, samples, limit, place)
    else:
        result = actions.likelihood(opened, data, split, estimator, place, limit=limit, **path)
    reports = actions.measured(opened, data, report or [], split, limit, place)
    if json_:
        show.print_json(flat({**result, **reports}))
        return
    of = f"{split} split, n" if estimator != "bdmc" else "data of the model, n"
    actions.show_evaluation(f"{opened.path.name}, {of} = {result['n']:,}", result)
    for name, numbers in reports.items():
        actions.show_report(name, numbers)


@app.command(
    epilog=examples(
        "aevb sample", "aevb sample -n 1000 --out new.npy", "aevb sample --given 3", "aevb sample --ex-post"
    )
)
def sample(
    run: RunArg = None,
    n: Count = 100,
    out: Out = None,
    seed: Seed = 0,
    draw: Annotated[bool, typer.Option("--draw", help="A draw from p(x|z) instead of its mean.")] = False,
    given: GivenOption = None,
    ex_post: Annotated[
        bool,
        typer.Option("--ex-post", help="From a mixture of normals fitted to the codes of the train split instead."),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Generate: z ~ p(z), then the mean of p(x|z) (or a draw from it, with --draw). A .npy for --out keeps the numbers.

    They are in the units and the type of the data, so means of whole numbers are rounded.
    """
    from aevb.figures import plots
    from aevb.use.generate import generate

    opened = actions.open_run(run)
    model = actions.ex_post(opened, data_dir) if ex_post else opened.model()
    x = generate(model, n, seed=seed, draw=draw, y=actions.contexts(opened, given, n))
    title = f"{n} samples from the {'prior fitted to the codes' if ex_post else 'prior'}"
    title += f", given {given}" if given is not None else ""
    actions.deliver(
        opened, out, "samples", x, lambda: plots.decoded(x, columns=max(1, round(n**0.5)), title=title), data_dir
    )


@app.command(epilog=examples("aevb reconstruct", "aevb reconstruct --split train -n 20"))
def reconstruct(
    run: RunArg = None, split: SplitOption = "test", n: Count = 20, out: Out = None, data_dir: DataDir = None
) -> None:
    """Encode and decode data points: originals over reconstructions."""
    import torch

    from aevb.data.batch import take
    from aevb.figures import plots
    from aevb.use.reconstruct import reconstruct as reconstructed

    opened = actions.open_run(run)
    rows, model = actions.rows_of(opened, split, data_dir).take(n), opened.model()
    data = opened.recipe.context().rows(rows, "cpu")
    batch = take(data, torch.arange(len(rows)))
    y = reconstructed(model, data)
    actions.deliver(opened, out, "reconstructions", y, lambda: plots.reconstructions(model, batch), data_dir)


@app.command(
    epilog=examples(
        "aevb encode --out codes.npy",
        "aevb encode --split train --samples 5 --out draws.npy",
        "aevb encode --clusters --out clusters.npy",
    )
)
def encode(
    run: RunArg = None,
    split: SplitOption = "test",
    samples: Annotated[int, typer.Option(min=0, help="Draws from q(z|x) per data point; 0: the posterior mean.")] = 0,
    clusters: Annotated[
        bool, typer.Option("--clusters", help="Of a mixture prior: p(m|z) for each of its components instead, (N, M).")
    ] = False,
    out: Out = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
) -> None:
    """Write the codes of a split, (N, D): posterior means, the same at every call; or draws, (K, N, D).

    Of a model with several layers of latents, z_1 and those above it side by side.
    """
    from aevb.runs.build import latent_shapes, latents_text
    from aevb.use.encode import encode as encode_all
    from aevb.use.encode import posterior_draws

    if out is not None and out.suffix != ".npy":
        raise DataError(f"--out {out}: codes are written as a .npy file; end its name in .npy.")
    opened = actions.open_run(run)
    model, rows = opened.model(), opened.recipe.context().rows(actions.rows_of(opened, split, data_dir), "cpu")
    if clusters:
        actions.write_array(out or opened.path / f"clusters-{split}.npy", actions.clusters(opened, model, rows))
        return
    codes = posterior_draws(model, rows, samples, seed=seed) if samples else encode_all(model, rows)
    actions.write_array(out or opened.path / f"codes-{split}.npy", codes)
    if len(latent_shapes(opened.recipe, opened.meta["shape"])) > 1:
        show.out.print(f"layers side by side: {latents_text(opened.recipe, opened.meta['shape'])} numbers")


@app.command(epilog=examples("aevb decode codes.npy", "aevb decode codes.npy --run runs/mnist --out images.npy"))
def decode(
    codes: Annotated[Path, typer.Argument(help="A .npy file with codes, (N, D).")],
    run: Annotated[str | None, typer.Option(help="A run's folder or name; the latest one by default.")] = None,
    given: GivenOption = None,
    out: Out = None,
) -> None:
    """Decode codes to data: the mean of p(x|z)."""
    from aevb.figures import plots
    from aevb.use.reconstruct import decode as decoded

    opened = actions.open_run(run)
    z, model = actions.read_codes(codes, opened), opened.model()
    x = decoded(model, z, actions.contexts(opened, given, len(z)))
    shown = x[:100]
    title = f"decoded from {codes.name}" + (f": the first {len(shown)} of {len(x):,}" if len(shown) < len(x) else "")
    actions.deliver(opened, out, "decoded", x, lambda: plots.decoded(shown, columns=10, title=title))


@app.command(epilog=examples("aevb interpolate", "aevb interpolate --pair 3 14 --steps 15"))
def interpolate(
    run: RunArg = None,
    pair: Annotated[
        tuple[int, int] | None, typer.Option(help="Two row numbers; otherwise the first eight pairs.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Pictures along the way.")] = 11,
    split: SplitOption = "test",
    out: Out = None,
    data_dir: DataDir = None,
) -> None:
    """Interpolate linearly between two codes, and decode along the way."""
    import torch

    from aevb.data.batch import take
    from aevb.figures import plots

    opened = actions.open_run(run)
    rows, model = actions.rows_of(opened, split, data_dir), opened.model()
    few = min(len(rows) // 2 * 2, 16)
    a, b = ([pair[0]], [pair[1]]) if pair else (list(range(0, few, 2)), list(range(1, few, 2)))
    actions.within([*a, *b] or [1], rows, split)
    data = opened.recipe.context().rows(rows, "cpu")
    figure = plots.interpolations(model, take(data, torch.tensor(a)), take(data, torch.tensor(b)), steps=steps)
    actions.save_figure(opened, out, "interpolations", figure)


@app.command(epilog=examples("aevb traverse", "aevb traverse --index 7 --dims 5"))
def traverse(
    run: RunArg = None,
    index: Annotated[int, typer.Option(min=0, help="Row of the data point to start from.")] = 0,
    dims: Annotated[int, typer.Option(min=1, help="How many latents, those with the largest KL first.")] = 10,
    split: SplitOption = "test",
    out: Out = None,
    data_dir: DataDir = None,
) -> None:
    """Traverse one latent at a time, in the order of their KL, and decode."""
    import torch

    from aevb.data.batch import take
    from aevb.evaluation.bound import elbo
    from aevb.figures import plots

    opened = actions.open_run(run)
    rows, model = actions.rows_of(opened, split, data_dir), opened.model()
    actions.within([index], rows, split)
    data = opened.recipe.context().rows(rows, "cpu")
    kl = elbo(model, data).kl.mean(0)
    figure = plots.traversals(model, take(data, torch.tensor([index])), kl, dims=dims)
    actions.save_figure(opened, out, "traversals", figure)


@app.command(epilog=examples("aevb plot", "aevb plot RUN --only manifold --only latent"))
def plot(
    run: RunArg = None,
    only: Annotated[list[str] | None, typer.Option(help="A figure's name; all that fit the run by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the figures; the run's figures/ by default.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Draw the figures of a run, as PNG and SVG."""
    from aevb.figures.gallery import draw_all

    opened = actions.open_run(run)
    for path in draw_all(opened, opened.model(), opened.dataset(data_dir), only=only, folder=out):
        show.out.print(str(path))


@app.command()
def runs(json_: Json = False) -> None:
    """List the runs, the oldest first."""
    from aevb.evaluation.estimate import Estimate
    from aevb.runs.index import summaries

    def number(mean: float | None, se: float | None) -> str:
        return Estimate(float("nan") if mean is None else mean, float("nan") if se is None else se).text()

    found = summaries()
    if json_:
        show.print_json(found)
    elif not found:
        show.out.print("No runs yet. Make one: aevb train digits")
    else:
        columns = ("run", "status", "data", "recipe", "latent", "samples", "test ELBO", "log p(x)")
        cells = [[number(r[c], r[f"{c} se"]) if f"{c} se" in r else _cell(r[c]) for c in columns] for r in found]
        show.out.print(show.table("", columns, cells))


@app.command(epilog=examples("aevb recipes", "aevb recipes beta-vae"))
def recipes(name: Annotated[str | None, typer.Argument(help="Print this recipe.")] = None, json_: Json = False) -> None:
    """List the recipes, or print one under its equation: to be saved, changed and given to train --recipe FILE.toml."""
    from aevb.runs.index import recipe_details, recipe_summaries, recipe_text

    if name is not None:
        show.print_json(recipe_details(name)) if json_ else print(recipe_text(name))
    elif json_:
        show.print_json(recipe_summaries())
    else:
        show.out.print(
            show.table("", ("recipe", "what it is", "paper"), [list(r.values()) for r in recipe_summaries()])
        )


@app.command(epilog=examples("aevb data", "aevb data mnist"))
def data(
    source: Annotated[str | None, typer.Argument(help="Load this one and say what is in it.")] = None,
    data_dir: DataDir = None,
    json_: Json = False,
) -> None:
    """List the data sets known by name, or look into one (downloading it where needed)."""
    from aevb.data.sources import SOURCES
    from aevb.runs.index import describe_data

    if source is not None:
        described = describe_data(source, data_dir)
        return (
            show.print_json(described) if json_ else show.out.print(show.table(source, ("", " "), [*described.items()]))
        )
    rows = [
        {"source": s.name, "what it is": s.title, "shape": "×".join(map(str, s.shape)),
         "train": s.counts[0], "validation": s.counts[1], "test": s.counts[2], "recipe": s.recipe}
        for s in SOURCES.values()
    ]  # fmt: skip
    if json_:
        return show.print_json(rows)
    show.out.print(show.table("", list(rows[0]), [[_cell(v) for v in r.values()] for r in rows]))
    return show.out.print("\nOr a .npy or .npz file, a folder of images, a .zip of images: aevb train PATH")


@app.command(
    epilog=examples(
        "aevb reproduce figure-2 --panel mnist-3 --budget 1e6",
        "aevb reproduce all --budget 100000",
        "aevb reproduce report",
    )
)
def reproduce(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="autoencoder, figure-2, figure-3, figure-4, figure-5, estimators, full-bayes, or all of these; of "
            "other "
            "papers: iwae, dreg, vamp-prior, flows; report: a page of what there is.",
        ),
    ],
    budget: Annotated[
        float, typer.Option(min=1, help="Training samples of each curve; a larger budget extends them.")
    ] = 1e6,
    panel: Annotated[
        list[str] | None, typer.Option(help="Of Figure 2, only this panel: mnist-3, ..., frey-20.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Curves at a time; by default one per processor core.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all experiments.")] = Path("reproduction"),
    data_dir: DataDir = None,
) -> None:
    """Rerun the paper: train its curves, hold them against the published ones. Goes on where it stopped."""
    from aevb.reproduce.report import write_report
    from aevb.reproduce.reproduce import chosen, reproduce

    if data_dir is not None:
        os.environ["AEVB_DATA"] = str(data_dir)  # for the processes that train, too
    experiments = chosen([name for name in names if name != "report"])
    try:
        with show.curves_progress() as progress:
            found = reproduce(experiments, round(budget), out, panels=panel or (), jobs=jobs, show=progress)
    except KeyboardInterrupt:
        show.err.print(f"Stopped; all is kept in {out}. The same command resumes.")
        raise
    for name, findings in found.items():
        show.out.print(f"{out / name}")
        for line in findings:
            show.out.print(f"  {line}")
    if {"all", "report"} & set(names):
        show.out.print(str(write_report(out)))


def main() -> None:
    """The entry point: errors that a user can act on become one line, Ctrl-C becomes exit code 130."""
    try:
        with show.warnings_told():
            app(prog_name="aevb")
    except AevbError as error:
        options = " ".join(f"--set {change}" for change in error.changes)
        _fail(f"{error} On the command line: {options}" if options else str(error))
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    show.err.print(f"[bold red]error:[/bold red] {show.escaped(message)}")
    sys.exit(1)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)
