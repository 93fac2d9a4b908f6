"""What the verbs of the command line share: open, choose, train, judge, read and write."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from aevb.apps import show
from aevb.errors import DataError, RecipeError, suggest

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.data.dataset import Dataset, Split
    from aevb.evaluation.batches import Model
    from aevb.runs.recipe import Recipe
    from aevb.runs.store import Run
    from aevb.training.train import Indexable

Part = Literal["train", "validation", "test"]


def open_run(run: str | None) -> Run:
    from aevb.runs.store import Run

    return Run.open(run)


def device_named(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("--device cuda: PyTorch sees no GPU here. Use --device cpu, or install a CUDA build of torch.")
    return name


def choose(source: str | None, recipe: str | None, data_dir: Path | None, assignments: list[str]) -> tuple[Recipe, Dataset]:
    """The recipe and the data, each with what the other says about it."""
    from aevb.data.sources import SOURCES, load_data
    from aevb.runs.recipe import Recipe
    from aevb.runs.store import read

    named = Recipe.load(recipe) if recipe else None
    if source is None and named is None:
        raise DataError("Train on what? Name a source, such as: aevb train digits. `aevb data` lists them.")
    where = (source or named.source().source) if named else str(source)
    if named is None:
        named = Recipe.load(SOURCES[where].recipe if where in SOURCES else load_data(where, data_dir=data_dir).recipe)
    path = str(Path(where).expanduser().resolve()) if Path(where).expanduser().exists() else where
    chosen = named.replace(data__source=where if where in SOURCES else path).override(assignments)
    if data_dir is not None:
        chosen = chosen.replace(data__dir=str(data_dir.expanduser().resolve()))
    return chosen, read(chosen)


def total_samples(epochs: float | None, samples: float | None, n: int) -> int:
    if epochs is not None and samples is not None:
        raise RecipeError("--epochs and --samples say the same thing: give one of them.")
    total = epochs * n if epochs is not None else samples
    assert total is not None
    if not 1 <= total < math.inf:
        raise RecipeError(f"Nothing to train: {total:g} training samples. Give --epochs or --samples above zero.")
    return int(total)


def train_new(recipe: Recipe, data: Dataset, out: Path | None, device: str, quiet: bool) -> Run:
    from aevb.runs.fit import fit

    path, place = out or new_folder(data, recipe), device_named(device)
    if not quiet:
        kept = f"{len(data.train):,} × {'×'.join(map(str, data.shape))}"
        show.err.print(
            f"[bold]{data.name}[/bold] ({kept}), recipe [bold]{recipe.name}[/bold], {recipe.latents(data.shape)} latents"
        )
    return interruptible(lambda report: fit(recipe, data, path, device=place, show=report), path, quiet)


def new_folder(data: Dataset, recipe: Recipe) -> Path:
    from aevb.runs.store import new_folder

    return new_folder(data.name, recipe.name)


def resume_run(
    name: str | None,
    epochs: float | None,
    samples: float | None,
    assignments: list[str],
    device: str,
    data_dir: Path | None,
    quiet: bool,
) -> tuple[Run, Dataset]:
    from aevb.runs.fit import amend, resume

    opened = open_run(name)
    opened.recipe = amend(opened.recipe, assignments)
    data = opened.dataset(data_dir)
    total = None if epochs is None and samples is None else total_samples(epochs, samples, len(data.train))
    if not quiet:
        show.err.print(f"resuming [bold]{show.escaped(str(opened.path))}[/bold]{ended(opened) * (total is None)}")

    def go(report: Any) -> Run:
        return resume(opened, data, samples=total, device=device_named(device), show=report)

    return interruptible(go, opened.path, quiet), data


def ended(run: Run) -> str:
    """What to say of a run that has nothing left to do."""
    if run.meta.get("status") != "complete":
        return ""
    more = "--samples TOTAL" + " --set validation.patience=0" * (run.meta.get("stopped") == "patience")
    return f": it is complete, after {run.meta['samples']:,} training samples. To train it for longer: {more}"


def refuse(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise RecipeError(f"--resume goes on with a run's own recipe: {given[0]} cannot be changed. Train anew for that.")


def interruptible(go: Callable[[Any], Run], path: Path, quiet: bool) -> Run:
    try:
        with show.warnings_told(), show.training_progress(quiet) as report:
            return go(report)
    except KeyboardInterrupt:
        saved = (path / "recipe.toml").is_file()
        show.err.print(f"Interrupted. Go on with: aevb train --resume {path}" if saved else "Interrupted before it began.")
        raise typer.Exit(130) from None


def finish(run: Run, data: Dataset, device: str, figures: bool, as_json: bool) -> None:
    """After training: judge, draw, say where everything is and what to try."""
    result = evaluate(run, data, "test", None, None, None, device)
    if not as_json:
        best = run.meta["best_step"] * run.meta["samples"] // run.meta["steps"]
        title = f"{data.name}, test split, n = {result['n']:,}, after {run.meta['samples']:,} training samples"
        title += f" ({kept_by(run)} at {best:,})" if best != run.meta["samples"] else ""
        show.out.print()
        show.out.print(show.table(title, *evaluation_table(result)))
        warn(result)
    drawn = []
    if figures:
        from aevb.apps.gallery import draw_all

        drawn = draw_all(run, run.model(), data)
    if as_json:
        return show.print_json({"run": str(run.path), **result})
    show.out.print(f"\nrun      {run.path}")
    names = sorted({path.stem for path in drawn})
    if drawn:
        show.out.print(f"figures  {run.path / 'figures'}/: {', '.join(names)} (.png, .svg)")
    show.out.print(f"next     {' · '.join(tries(names, result))}")
    return None


def tries(figures: Sequence[str], result: Mapping[str, Any]) -> list[str]:
    """Verbs for a fresh run: of those that not every model can take, the ones whose figure or number it just gave."""
    walks = {"interpolations": "aevb interpolate", "traversals": "aevb traverse"}
    tighter = ["aevb evaluate --importance-samples 5000"] if result["log_likelihood"] is not None else []
    return ["aevb sample", *(verb for figure, verb in walks.items() if figure in figures), *tighter]


def kept_by(run: Run) -> str:
    """What the weights that a run keeps are the best of."""
    k = run.recipe.validation().importance_samples
    return f"best validation bound of {k:,} importance weights" if k else "best validation ELBO"


def evaluate(
    run: Run, data: Dataset, part: Part, importance: int | None, samples: int | None, limit: int | None, device: str
) -> dict[str, Any]:
    from aevb.runs.judge import judge

    with show.err.status("judging ...") if show.err.is_terminal else show.training_progress(True):
        return judge(run, data, part, importance_samples=importance, samples=samples, limit=limit, device=device)


def likelihood(run: Run, data: Dataset, part: Part, estimator: Any, device: str, **options: Any) -> dict[str, Any]:
    """As `judge_likelihood`, with its defaults for the options that were not given."""
    from aevb.runs.judge import judge_likelihood

    given = {name: value for name, value in options.items() if value is not None}
    with show.counting(f"judging by {estimator}") as progress:
        return judge_likelihood(run, data, part, estimator=estimator, device=device, progress=progress, **given)


def surgery(run: Run, data: Dataset, part: Part, limit: int | None, device: str) -> dict[str, Any]:
    from aevb.runs.judge import judge_surgery

    with show.counting("surgery ..."):
        return judge_surgery(run, data, part, limit=limit, device=device)


def fidelity(run: Run, data: Dataset, part: Part, limit: int | None, device: str) -> dict[str, Any]:
    from aevb.runs.judge import judge_samples

    with show.counting("fidelity ..."):
        return judge_samples(run, data, part, limit=limit, device=device)


def disentanglement(run: Run, data: Dataset, part: Part, limit: int | None, device: str) -> dict[str, Any]:
    from aevb.runs.judge import judge_disentanglement

    with show.counting("disentanglement ..."):
        return judge_disentanglement(run, data, part, limit=limit, device=device)


def only_for(estimator: str, accepted: tuple[str, ...], **options: Any) -> None:
    """Refuse options of another estimator, of which nothing would be heard."""
    idle = [name for name, value in options.items() if value is not None and estimator not in accepted]
    if idle:
        raise RecipeError(f"--{idle[0].replace('_', '-')} is of --estimator {' and '.join(accepted)}, not of {estimator}.")


def evaluation_table(result: dict[str, Any]) -> tuple[tuple[str, str, str], list[tuple[str, str, str]]]:
    rows = show.likelihood_rows(result) if "estimator" in result else show.evaluation_rows(result)
    return ("", "value", ""), rows


def show_disentanglement(result: dict[str, Any]) -> None:
    title = f"\nsingle latents and single factors, n = {result['n']:,}"
    show.out.print(show.table(title, ("", "value", ""), show.disentanglement_rows(result)))


def show_surgery(result: dict[str, Any]) -> None:
    show.out.print(
        show.table(f"\nwhere the KL goes, over all {result['n']:,}", ("", "value", ""), show.surgery_rows(result))
    )
    show.out.print(result["verdict"])


def show_fidelity(result: dict[str, Any]) -> None:
    title = f"\n{result['n']:,} decoded means against as many data, in principal components of train data"
    show.out.print(show.table(title, ("", "value", ""), show.fidelity_rows(result)))


def warn(result: dict[str, Any]) -> None:
    if result.get("importance_warning"):
        show.out.print(f"\n{result['importance_warning']}")


def contexts(run: Run, name: str | None, n: int) -> Tensor | None:
    """The contexts of n samples of a run: the class of this name or number for all, or each class in turn."""
    import torch

    from aevb.data.labels import one_hot
    from aevb.runs.store import read

    context = run.recipe.context()
    if name is None:
        return context.each(n) if context.classes else None
    if not context.classes:
        raise RecipeError(f"--given {name}: {run.path.name} has no classes. Train one that has: --recipe conditional.")
    names = () if name.isdecimal() else read(run.recipe).class_names or ()
    if not name.isdecimal() and name not in names:
        raise DataError(f"--given {name}: there is no such class.{suggest(name, names)} Or a number from 0.")
    return one_hot(torch.tensor([int(name) if name.isdecimal() else names.index(name)]), context.classes)


def rows_of(run: Run, part: Part, data_dir: Path | None) -> Split:
    rows: Split = getattr(run.dataset(data_dir), part)
    if not len(rows):
        raise DataError(f"The {part} split of {run.path.name} is empty. Choose another with --split.")
    return rows.frozen()


def within(indices: list[int], rows: Split, part: str) -> None:
    beyond = [index for index in indices if not 0 <= index < len(rows)]
    if beyond:
        raise DataError(f"There is no row {beyond[0]} in the {part} split: it has rows 0 to {len(rows) - 1}.")


def ex_post(run: Run, data_dir: Path | None) -> Model:
    """The run's model under a mixture of normals fitted to the codes of its train split; it says by which scores."""
    from aevb.evaluation.ex_post import fit_prior

    rows = rows_of(run, "train", data_dir)
    model: Any = run.model()
    found = fit_prior(model, run.recipe.context().rows(rows, "cpu"))
    rows_told = [(f"{name}", show.pm(found.scores[name], found.errors[name])) for name in found.scores]
    title = f"log density of held-out codes, nats; {found.chosen} normals are taken"
    show.err.print(show.table(title, ("normals", ""), rows_told))
    return found.model


def clusters(run: Run, model: Model, rows: Indexable) -> Tensor:
    """p(m | z) of each row under each component of the prior, (N, M)."""
    from aevb.evaluation.latent import component_shares

    shares = component_shares(model, rows)
    if shares is None:
        raise RecipeError(f"--clusters: the prior of {run.path.name} is no mixture. Train one: --recipe mixture-prior.")
    return shares


def read_codes(path: Path, run: Run) -> Tensor:
    import numpy as np
    import torch

    from aevb.training.train import refuse_non_finite

    try:
        codes = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise DataError(f"{path} is no .npy file of numbers, such as `aevb encode` writes.") from error
    latent = run.recipe.code_shape(run.meta["shape"])
    if tuple(codes.shape[1:]) != latent or not len(codes):
        wanted = ", ".join(map(str, ("N", *latent)))
        raise DataError(f"{path} holds an array of shape {tuple(codes.shape)}; {run.path.name} needs codes ({wanted}).")
    refuse_non_finite(codes)
    return codes


def write_array(path: Path, values: Tensor) -> None:
    import numpy as np

    from aevb.runs.files import write_whole

    def write(beside: Path) -> None:
        with beside.open("wb") as f:
            np.save(f, values.cpu().numpy())

    write_whole(path, write)
    show.out.print(f"{path}: {' × '.join(map(str, values.shape))}, {str(values.dtype).removeprefix('torch.')}")


def deliver(run: Run, out: Path | None, name: str, values: Tensor, figure: Callable[[], Any]) -> None:
    """Numbers for a .npy, a picture for anything else."""
    if out is not None and out.suffix == ".npy":
        write_array(out, values)
    else:
        save_figure(run, out, name, figure())


def save_figure(run: Run, out: Path | None, name: str, figure: Any) -> None:
    from aevb.apps.plots import save

    drawn = out is not None and out.suffix in (".png", ".svg")  # both are written
    for path in save(figure, (out.with_suffix("") if drawn else out) if out else run.figure(name)):
        show.out.print(str(path))
