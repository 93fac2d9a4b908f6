"""What the verbs of the command line share: open, choose, train, evaluate, read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from aevb.apps import show
from aevb.apps.app import Part
from aevb.apps.outputs import beside_run
from aevb.apps.plans import Plan, choose, oddities, total_samples
from aevb.apps.rows import class_named, open_run, unconditional
from aevb.errors import DataError, RecipeError
from aevb.runs.interrupt import Terminated

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.data.batch import Indexable
    from aevb.data.dataset import Dataset, Split
    from aevb.models.inference import Model
    from aevb.runs.again import CommandLine
    from aevb.runs.store import Run


def device_named(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("--device cuda: PyTorch sees no GPU here. Use --device cpu, or install a CUDA build of torch.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise DataError("--device mps: PyTorch sees no Apple GPU here. Use --device cpu.")
    return name


def own_device(name: str) -> str:
    """As `device_named`; of several processes on one machine each has a GPU of its own."""
    from aevb.training.processes import placed

    return str(placed(device_named(name)))


def train_new(plan: Plan, out: Path | None, device: str, quiet: bool, watch: bool = False) -> tuple[Run, Dataset]:
    from aevb.runs.store import new_folder

    place = own_device(device)
    if not quiet and not plan.told:
        show.note(plan.line)
    from aevb.runs.fit import fit
    from aevb.training.processes import first

    recipe, data = plan.recipe, plan.data
    path = out or new_folder(data.name, recipe.name)
    for told in [] if quiet else oddities(recipe.of(data), data):
        show.note(told)
    with watched(path, plan, watch and first()) as every:

        def go(report: Any) -> Run:
            return fit(recipe, data, path, device=place, show=report, checkpoint_every=every)

        return interruptible(go, path, quiet, data.train.log_abs_det), data


@contextmanager
def watched(path: Path, plan: Plan, watch: bool) -> Iterator[float]:
    """Show the training inside of this block on a page, if asked; gives the seconds between two checkpoints."""
    if not watch:
        yield 10.0
        return
    from aevb.apps.explorer import live, start

    start.needs_packages()
    with live.watched(path, plan.recipe, plan.data):
        yield live.CHECKPOINT


def check_folder(out: Path | None) -> None:
    """Refuse a file as a run's folder, or what is named as one.

    Raises:
        DataError: it is a file, or is named so.
    """
    if out is not None and (out.is_file() or (out.suffix in FILES and not out.exists())):
        raise DataError(f"--out {out}: a run is a folder, and this names a file. Choose a folder, such as {out.stem}.")


FILES = (".npy", ".npz", ".csv", ".txt", ".json", ".toml", ".zip", ".png", ".jpg", ".svg", ".pt", ".safetensors")


@dataclass(frozen=True)
class Again:
    """A run to resume, and what changes: a new total of epochs or training samples, assignments."""

    run: Run
    epochs: float | None
    samples: float | None
    assignments: list[str]


def resume_run(again: Again, device: str, data_dir: Path | None, quiet: bool) -> tuple[Run, Dataset]:
    from aevb.runs.fit import amend, resume

    opened, epochs, samples = again.run, again.epochs, again.samples
    beside_run(opened, "metrics.jsonl", "Copy it to a folder that you can write to, and resume the copy.")
    opened.recipe = amend(opened.recipe, again.assignments)
    data = opened.dataset(data_dir)
    total = None if epochs is None and samples is None else total_samples(epochs, samples, len(data.train))
    if not quiet:
        show.note(f"resuming [bold]{show.escaped(str(opened.path))}[/bold]{ended(opened) * (total is None)}")

    def go(report: Any) -> Run:
        return resume(opened, data, samples=total, device=own_device(device), show=report)

    return interruptible(go, opened.path, quiet, data.train.log_abs_det), data


def only_resumed(run: str | None, moved: str | None) -> None:
    """Options that are of a run that exists are errors for a new one."""
    for name, value in (("--run", run), ("--data", moved)):
        if value is not None:
            raise RecipeError(f"{name} is for a run that exists: aevb train --resume {name} {value}.")


def begin_or_resume(
    asked: CommandLine, out: Path, device: str, data_dir: Path | None, quiet: bool
) -> tuple[Run, Dataset]:
    """The run of a command line: begun where there is none yet in `out`, resumed where there is one.

    Raises:
        RecipeError: an option contradicts the run.
    """
    from aevb.runs.again import agree, longer

    if not (out / "recipe.toml").is_file():
        check_folder(out)
        plan = choose(asked.source, asked.recipe, data_dir, [*asked.assignments])
        return train_new(plan.changed(asked.options, asked.epochs, asked.samples), out, device, quiet)
    run = open_run(str(out))
    given = asked.epochs is not None or asked.samples is not None
    n = run.meta["splits"]["train"]["n"]
    total = total_samples(asked.epochs, asked.samples, n) if given else None
    return resume_run(Again(run, None, longer(run, total), agree(run, asked)), device, data_dir, quiet)


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


def interruptible(go: Callable[[Any], Run], path: Path, quiet: bool, stretch: float = 0.0) -> Run:
    try:
        with show.warnings_told(), show.training_progress(quiet, stretch) as report:
            return go(report)
    except (KeyboardInterrupt, Terminated) as error:
        saved = (path / "recipe.toml").is_file()
        show.err.print(
            f"Interrupted. Resume with: aevb train --resume {path}" if saved else "Interrupted before it began."
        )
        raise typer.Exit(exit_code(error)) from None


def exit_code(error: BaseException) -> int:
    """Of a process that a signal ended: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + error.number if isinstance(error, Terminated) else 130


@contextmanager
def afterwards(run: Run, figures: bool) -> Iterator[None]:
    """What a signal that comes after the training is answered: what is complete, and how to get the rest."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        rest = f"aevb evaluate {run.path}" + f" · aevb plot {run.path}" * figures
        show.err.print(f"Interrupted. The training of {show.escaped(str(run.path))} is complete. For the rest: {rest}")
        raise typer.Exit(exit_code(error)) from None


def finish(run: Run, data: Dataset, device: str, figures: bool, as_json: bool) -> None:
    """After training: evaluate, plot, print where everything is and what to try.

    Several processes share the evaluation out; the rest is of the first one.
    """
    from aevb.models.shares import alone
    from aevb.training.processes import first

    with afterwards(run, figures):
        result = evaluate(run, data, "test", {}, None, device)
        if first():
            with alone():
                _finish(run, data, result, figures, as_json)


def _finish(run: Run, data: Dataset, result: dict[str, Any], figures: bool, as_json: bool) -> None:
    from aevb.evaluation.estimate import flat
    from aevb.runs.trackers import trackers

    trackers().tell("test", flat(result))
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
        trackers().figures(drawn)
    if as_json:
        return show.print_json({"run": str(run.path), **flat(result)})
    show.out.print(f"\nrun      {run.path}")
    names = sorted({path.stem for path in drawn})
    if show.MANNER.quiet:
        return None
    if drawn:
        show.out.print(f"figures  {run.path / 'figures'}/: {', '.join(names)} (.png, .svg)")
    show.out.print(f"next     {' · '.join([*settling(run, data, result), *tries(names, result)])}")
    return None


def tries(figures: Sequence[str], result: Mapping[str, Any]) -> list[str]:
    """Verbs for a fresh run: of those that not every model can take, the ones whose figure or number it just gave."""
    walks = {"interpolations": "aevb interpolate", "traversals": "aevb traverse"}
    tighter = ["aevb evaluate --importance-samples 5000"] if result["log_likelihood"].known else []
    return ["aevb sample", *(verb for figure, verb in walks.items() if figure in figures), *tighter]


def settling(run: Run, data: Dataset, result: Mapping[str, Any]) -> list[str]:
    """The command that settles log p(x) where the estimate came with a warning."""
    import torch

    from aevb.data.batch import take
    from aevb.evidence.support import annealable

    if not result["importance_warning"]:
        return []
    q = run.model().posterior(take(run.recipe.context().rows(data.test, "cpu"), torch.arange(1)))
    return ["aevb evaluate --estimator ais"] if annealable(q) else []


def kept_by(run: Run) -> str:
    """What the weights that a run keeps are the best of."""
    k = run.recipe.validation().importance_samples
    return f"best validation bound of {k:,} importance weights" if k else "best validation ELBO"


def evaluate(
    run: Run, data: Dataset, part: Part, settings: dict[str, int | None], limit: int | None, device: str
) -> dict[str, Any]:
    """As `evaluate_run`, with the recipe's settings for those that were not given."""
    from aevb.runs.evaluate import evaluate_run

    given = {name: value for name, value in settings.items() if value is not None}
    asked = replace(run.recipe.evaluation(), **given) if given else None
    with show.counting("evaluating"):
        return evaluate_run(run, data, part, settings=asked, limit=limit, device=device)


def likelihood(
    run: Run, data: Dataset, part: Part, options: dict[str, Any], limit: int | None, device: str
) -> dict[str, Any]:
    """As `estimate_likelihood`, with its defaults for the options that were not given."""
    from aevb.evaluation.likelihood import Method
    from aevb.runs.evaluate import estimate_likelihood

    method = Method(**{name: value for name, value in options.items() if value is not None})
    with show.counting(f"evaluating by {method.estimator}"):
        return estimate_likelihood(run, data, part, method=method, limit=limit, device=device)


def measured(run: Run, data: Dataset, names: list[str], part: Part, limit: int | None, device: str) -> dict[str, Any]:
    """The numbers of reports, by their names."""
    from aevb.evaluation.report import report
    from aevb.runs.evaluate import measure

    for name in names:
        report(name)  # a wrong name is an error before the first takes its time
    found = {}
    for name in names:
        with show.counting(name):
            found[name] = measure(run, data, name, part, limit=limit, device=device)
    return found


def only_for(estimator: str, accepted: tuple[str, ...], **options: Any) -> None:
    """An option that the estimator would ignore is an error."""
    idle = [name for name, value in options.items() if value is not None and estimator not in accepted]
    if idle:
        raise RecipeError(f"--{idle[0].replace('_', '-')} only applies to --estimator {' and '.join(accepted)}.")


def tell_evaluation(title: str, result: dict[str, Any], reports: dict[str, Any], as_json: bool) -> None:
    """An evaluation and its reports, as tables or as JSON."""
    from aevb.evaluation.estimate import flat

    if as_json:
        show.print_json(flat({**result, **reports}))
        return
    show_evaluation(title, result)
    for name, numbers in reports.items():
        show_report(name, numbers)


def show_evaluation(title: str, numbers: dict[str, Any]) -> None:
    """The table of an evaluation, or of an estimate of log p(x); and its warning, if there is one."""
    from aevb.evaluation.evaluate import table
    from aevb.evaluation.likelihood import likelihood_table

    rows = likelihood_table(numbers) if "estimator" in numbers else table(numbers)
    show.out.print(show.table(title, ("", "value", ""), rows))
    tell_units(numbers)
    show_warning(numbers)


def show_warning(numbers: Mapping[str, Any], annealed: bool = True) -> None:
    """The warning of an estimate of log p(x), with the options that follow it; `annealed`: the verb has --estimator."""
    warning = numbers.get("importance_warning")
    if not warning:
        return
    cures = [f"--importance-samples {10 * numbers['importance_samples']}"] if "importance_samples" in numbers else []
    cures += ["--estimator ais"] * (annealed and bool(cures) and "annealed" in warning)
    show.out.print(f"\n{warning}{' On the command line: ' * bool(cures)}{', or '.join(cures)}{'.' * bool(cures)}")


def show_report(name: str, numbers: dict[str, Any]) -> None:
    from aevb.evaluation.report import report

    shown = report(name)
    show.out.print(show.table(f"\n{shown.title.format_map(numbers)}", ("", "value", ""), shown.rows(numbers)))
    if shown.closing:
        show.out.print(shown.closing.format_map(numbers))


def tell_units(numbers: dict[str, Any]) -> None:
    """One line on standardized data: of which numbers the densities are."""
    from aevb.evaluation.evaluate import likelihood_name

    likelihood = likelihood_name(numbers)
    names = {"elbo": "ELBO", "log_likelihood": likelihood, "upper": "upper bound", "lower": "lower bound"}
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
        raise unconditional(run, name)
    return one_hot(torch.tensor([class_named(name, classes)]), run.recipe.context().classes)


def within(indices: list[int], rows: Split, part: str) -> None:
    beyond = [index for index in indices if not 0 <= index < len(rows)]
    if beyond:
        raise DataError(f"There is no row {beyond[0]} in the {part} split: it has rows 0 to {len(rows) - 1}.")


def ex_post(run: Run, data_dir: Path | None, device: str = "cpu") -> Model:
    """The run's model under a mixture of normals fitted to the codes of its train split; it says by which scores."""
    from aevb.evaluation.estimate import Estimate
    from aevb.runs.evaluate import rows_of
    from aevb.use.fit_prior import fit_prior

    rows = rows_of(run, run.dataset(data_dir), "train")
    model: Any = run.model(device)
    found = fit_prior(model, run.recipe.context().rows(rows, device))
    rows_told = [(f"{name}", Estimate(found.scores[name], found.errors[name]).text()) for name in found.scores]
    title = f"log density of held-out codes, nats; {found.chosen} normals are chosen"
    if not show.MANNER.quiet:
        show.err.print(show.table(title, ("normals", ""), rows_told))
    return found.model


def clusters(run: Run, model: Model, rows: Indexable) -> Tensor:
    """p(m | z) of each row under each component of the prior, (N, M)."""
    from aevb.evaluation.latent import component_shares

    shares = component_shares(model, rows)
    if shares is None:
        raise RecipeError(
            f"--clusters: the prior of {run.path.name} is not a mixture. Train one: --recipe mixture-prior."
        )
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
        raise DataError(f"{path} is not a .npy file of numbers, such as `aevb encode` writes.") from error
    latent = code_shape(run.recipe, run.meta["shape"])
    if tuple(codes.shape[1:]) != latent or not len(codes):
        wanted = ", ".join(map(str, ("N", *latent)))
        raise DataError(f"{path} holds an array of shape {tuple(codes.shape)}; {run.path.name} needs codes ({wanted}).")
    check_finite(codes)
    return codes
