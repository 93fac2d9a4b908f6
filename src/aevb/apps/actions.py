"""What the verbs of the command line share: open, choose, train, evaluate, read and write."""

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

    from aevb.data.batch import Indexable
    from aevb.data.dataset import Dataset, Split
    from aevb.models.inference import Model
    from aevb.runs.recipe import Recipe
    from aevb.runs.store import Run

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


def choose(
    source: str | None, recipe: str | None, data_dir: Path | None, assignments: list[str]
) -> tuple[Recipe, Dataset]:
    """The recipe and the data, each with what the other says about it."""
    from aevb.data.sources import SOURCES
    from aevb.runs.recipe import Recipe
    from aevb.runs.store import read

    named = Recipe.load(recipe) if recipe else None
    if source is None and named is None:
        raise DataError("Missing SOURCE. Name one, such as: aevb train digits. `aevb data` lists them.")
    where = (source or named.source().source) if named else str(source)
    path = Path(where).expanduser()
    changes = {"data__source": str(path.resolve()) if where not in SOURCES and path.exists() else where}
    if data_dir is not None:
        changes["data__dir"] = str(data_dir.expanduser().resolve())
    named = named or Recipe.load(_recipe_of(where, changes, assignments))
    chosen = named.replace(**changes).override(assignments)
    return chosen, read(chosen)


def _recipe_of(where: str, changes: dict[str, Any], assignments: list[str]) -> str:
    """The name of the recipe that suits the data, which are read as the assignments say."""
    from aevb.data.sources import SOURCES
    from aevb.runs.recipe import Recipe
    from aevb.runs.store import read

    if where in SOURCES:
        return SOURCES[where].recipe
    of_data = [a for a in assignments if a.partition("=")[0].strip().startswith("data")]
    return read(Recipe("", {}).replace(**changes).override(of_data)).recipe


def total_samples(epochs: float | None, samples: float | None, n: int) -> int:
    if epochs is not None and samples is not None:
        raise RecipeError("--epochs and --samples are mutually exclusive: give one of them.")
    total = epochs * n if epochs is not None else samples
    assert total is not None
    if not 1 <= total < math.inf:
        raise RecipeError(f"Nothing to train: {total:g} training samples. Give --epochs or --samples above zero.")
    return int(total)


def train_new(recipe: Recipe, data: Dataset, out: Path | None, device: str, quiet: bool) -> Run:
    from aevb.runs.build import latents_text
    from aevb.runs.fit import fit

    path, place = out or new_folder(data, recipe), device_named(device)
    if not quiet:
        kept, latents = f"{len(data.train):,} × {'×'.join(map(str, data.shape))}", latents_text(recipe, data.shape)
        show.err.print(f"[bold]{data.name}[/bold] ({kept}), recipe [bold]{recipe.name}[/bold], {latents} latents")
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
        raise RecipeError(f"--resume uses a run's own recipe: {given[0]} cannot be changed. Train anew for that.")


def interruptible(go: Callable[[Any], Run], path: Path, quiet: bool) -> Run:
    try:
        with show.warnings_told(), show.training_progress(quiet) as report:
            return go(report)
    except KeyboardInterrupt:
        saved = (path / "recipe.toml").is_file()
        show.err.print(
            f"Interrupted. Resume with: aevb train --resume {path}" if saved else "Interrupted before it began."
        )
        raise typer.Exit(130) from None


def finish(run: Run, data: Dataset, device: str, figures: bool, as_json: bool) -> None:
    """After training: evaluate, plot, print where everything is and what to try."""
    from aevb.evaluation.estimate import flat

    result = evaluate(run, data, "test", None, None, None, device)
    if not as_json:
        best = run.meta["best_step"] * run.meta["samples"] // run.meta["steps"]
        title = f"{data.name}, test split, n = {result['n']:,}, after {run.meta['samples']:,} training samples"
        title += f" ({kept_by(run)} at {best:,})" if best != run.meta["samples"] else ""
        show.out.print()
        show_evaluation(title, result)
    drawn = []
    if figures:
        from aevb.figures.gallery import draw_all

        drawn = draw_all(run, run.model(), data)
    if as_json:
        return show.print_json({"run": str(run.path), **flat(result)})
    show.out.print(f"\nrun      {run.path}")
    names = sorted({path.stem for path in drawn})
    if drawn:
        show.out.print(f"figures  {run.path / 'figures'}/: {', '.join(names)} (.png, .svg)")
    show.out.print(f"next     {' · '.join(tries(names, result))}")
    return None


def tries(figures: Sequence[str], result: Mapping[str, Any]) -> list[str]:
    """Verbs for a fresh run: of those that not every model can take, the ones whose figure or number it just gave."""
    walks = {"interpolations": "aevb interpolate", "traversals": "aevb traverse"}
    tighter = ["aevb evaluate --importance-samples 5000"] if result["log_likelihood"].known else []
    return ["aevb sample", *(verb for figure, verb in walks.items() if figure in figures), *tighter]


def kept_by(run: Run) -> str:
    """What the weights that a run keeps are the best of."""
    k = run.recipe.validation().importance_samples
    return f"best validation bound of {k:,} importance weights" if k else "best validation ELBO"


def evaluate(
    run: Run, data: Dataset, part: Part, importance: int | None, samples: int | None, limit: int | None, device: str
) -> dict[str, Any]:
    from aevb.runs.evaluate import evaluate_run

    with show.counting("evaluating ..."):
        return evaluate_run(run, data, part, importance_samples=importance, samples=samples, limit=limit, device=device)


def likelihood(
    run: Run, data: Dataset, part: Part, estimator: Any, device: str, limit: int | None, **options: Any
) -> dict[str, Any]:
    """As `estimate_likelihood`, with its defaults for the options that were not given."""
    from aevb.evaluation.likelihood import Path as Annealed
    from aevb.runs.evaluate import estimate_likelihood

    path = Annealed(**{name: value for name, value in options.items() if value is not None})
    with show.counting(f"evaluating by {estimator}") as progress:
        return estimate_likelihood(
            run, data, part, estimator=estimator, path=path, limit=limit, device=device, progress=progress
        )


def measured(run: Run, data: Dataset, names: list[str], part: Part, limit: int | None, device: str) -> dict[str, Any]:
    """The numbers of reports, by their names."""
    from aevb.evaluation.report import report
    from aevb.runs.evaluate import measure

    for name in names:
        report(name)  # a wrong name is an error before the first takes its time
    found = {}
    for name in names:
        with show.counting(f"{name} ..."):
            found[name] = measure(run, data, name, part, limit=limit, device=device)
    return found


def only_for(estimator: str, accepted: tuple[str, ...], **options: Any) -> None:
    """An option that the estimator would ignore is an error."""
    idle = [name for name, value in options.items() if value is not None and estimator not in accepted]
    if idle:
        raise RecipeError(f"--{idle[0].replace('_', '-')} only applies to --estimator {' and '.join(accepted)}.")


def show_evaluation(title: str, numbers: dict[str, Any]) -> None:
    """The table of an evaluation, or of an estimate of log p(x); and its warning, if there is one."""
    from aevb.evaluation.evaluate import table
    from aevb.evaluation.likelihood import likelihood_table

    rows = likelihood_table(numbers) if "estimator" in numbers else table(numbers)
    show.out.print(show.table(title, ("", "value", ""), rows))
    tell_units(numbers)
    if numbers.get("importance_warning"):
        show.out.print(f"\n{numbers['importance_warning']}")


def show_report(name: str, numbers: dict[str, Any]) -> None:
    from aevb.evaluation.report import report

    shown = report(name)
    show.out.print(show.table(f"\n{shown.title.format_map(numbers)}", ("", "value", ""), shown.rows(numbers)))
    if shown.closing:
        show.out.print(shown.closing.format_map(numbers))


def tell_units(numbers: dict[str, Any]) -> None:
    """One line on standardized data: of which numbers the densities are."""
    names = {"elbo": "ELBO", "log_likelihood": "log p(x)", "upper": "upper bound", "lower": "lower bound"}
    kept = [
        f"{name} {numbers[f'{key}_standardized']}" for key, name in names.items() if f"{key}_standardized" in numbers
    ]
    if kept:
        show.out.print(f"nats, density of the data as given; standardized: {', '.join(kept)}")


def contexts(run: Run, name: str | None, n: int) -> Tensor | None:
    """The contexts of n samples of a run: the class of this name or number for all, or each class in turn."""
    import torch

    from aevb.data.labels import one_hot

    classes = run.classes()
    if name is None:
        return run.each(n)
    if not classes:
        raise RecipeError(f"--given {name}: {run.path.name} has no classes. Train one that has: --recipe conditional.")
    return one_hot(torch.tensor([class_named(name, classes)]), run.recipe.context().classes)


def class_named(name: str, classes: Mapping[int, str]) -> int:
    """The number of a class: that of the name, or the number itself where names are words."""
    for number, called in classes.items():
        if called == name:
            return number
    words = not any(called.removeprefix("-").isdecimal() for called in classes.values())
    if words and name.isdecimal() and int(name) in classes:
        return int(name)
    raise DataError(f"--given {name}: there is no such class in the train split.{suggest(name, classes.values())}")


def rows_of(run: Run, part: Part, data_dir: Path | None) -> Split:
    from aevb.runs.evaluate import rows_of

    return rows_of(run, run.dataset(data_dir), part)


def within(indices: list[int], rows: Split, part: str) -> None:
    beyond = [index for index in indices if not 0 <= index < len(rows)]
    if beyond:
        raise DataError(f"There is no row {beyond[0]} in the {part} split: it has rows 0 to {len(rows) - 1}.")


def ex_post(run: Run, data_dir: Path | None) -> Model:
    """The run's model under a mixture of normals fitted to the codes of its train split; it says by which scores."""
    from aevb.evaluation.estimate import Estimate
    from aevb.use.fit_prior import fit_prior

    rows = rows_of(run, "train", data_dir)
    model: Any = run.model()
    found = fit_prior(model, run.recipe.context().rows(rows, "cpu"))
    rows_told = [(f"{name}", Estimate(found.scores[name], found.errors[name]).text()) for name in found.scores]
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

    from aevb.data.batch import check_finite
    from aevb.runs.build import code_shape

    try:
        codes = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise DataError(f"{path} is no .npy file of numbers, such as `aevb encode` writes.") from error
    latent = code_shape(run.recipe, run.meta["shape"])
    if tuple(codes.shape[1:]) != latent or not len(codes):
        wanted = ", ".join(map(str, ("N", *latent)))
        raise DataError(f"{path} holds an array of shape {tuple(codes.shape)}; {run.path.name} needs codes ({wanted}).")
    check_finite(codes)
    return codes


def write_array(path: Path, values: Any) -> None:
    import numpy as np

    from aevb.runs.files import write_whole

    array = np.asarray(values)

    def write(beside: Path) -> None:
        with beside.open("wb") as f:
            np.save(f, array)

    write_whole(path, write)
    show.out.print(f"{path}: {' × '.join(map(str, array.shape))}, {array.dtype}")


def in_units(run: Run, x: Tensor, data_dir: Path | None = None) -> Any:
    """What leaves a model, in the units and the type of the data; probabilities of binary data stay probabilities."""
    values = run.values(data_dir)
    probabilities = values.support == "binary" and values.levels == 2 and bool(((x > 0) & (x < 1)).any())
    return x.cpu().numpy() if probabilities else values.inverse(x)


def deliver(
    run: Run, out: Path | None, name: str, x: Tensor, figure: Callable[[], Any], data_dir: Path | None = None
) -> None:
    """Numbers in the units of the data for a .npy, a picture for anything else."""
    if out is not None and out.suffix == ".npy":
        write_array(out, in_units(run, x, data_dir))
    else:
        save_figure(run, out, name, figure())


def save_figure(run: Run, out: Path | None, name: str, figure: Any) -> None:
    from aevb.figures.plots import save

    drawn = out is not None and out.suffix in (".png", ".svg")  # both are written
    for path in save(figure, (out.with_suffix("") if drawn else out) if out else run.figure(name)):
        show.out.print(str(path))
