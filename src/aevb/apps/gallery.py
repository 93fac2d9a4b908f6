"""Which figures fit a run, and drawing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from aevb.apps import plots
from aevb.data.dataset import Dataset
from aevb.errors import AevbError, suggest
from aevb.evaluation.elbo import elbo
from aevb.evaluation.generation import generate
from aevb.evaluation.latent import encode
from aevb.models.ladder import Ladder
from aevb.models.trace import covered
from aevb.models.vae import VAE
from aevb.runs.recipe import Context
from aevb.runs.store import Run

FIGURES = ("loss", "reconstructions", "samples", "latent", "interpolations", "traversals", "manifold")


def draw_all(
    run: Run, model: VAE | Ladder, data: Dataset, only: Sequence[str] | None = None, folder: Path | None = None
) -> list[Path]:
    """Draw the figures of a run, or those named; returns the files, PNG and SVG."""
    figures = dict(fitting(run, model, data))
    for name in only or ():
        if name not in FIGURES:
            raise AevbError(f"There is no figure {name!r}.{suggest(name, FIGURES)}")
        if name not in figures:
            why = "its test split has too few rows"
            why = "its latents are codes, or on a sphere" if name in ("interpolations", "traversals") else why
            why = "a manifold needs two latents that are numbers of their own" if name == "manifold" else why
            raise AevbError(f"The figure {name!r} does not fit this run: {why}. Possible: {', '.join(figures)}.")
    written: list[Path] = []
    for name in only or figures:
        path = folder / name if folder else run.figure(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        written += plots.save(figures[name](), path)
    return written


def fitting(run: Run, model: VAE | Ladder, data: Dataset) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The figures that make sense for a run, by name, each ready to be drawn."""
    test, context = data.test, run.recipe.context()
    rows, y = context.rows(test, "cpu"), context.given(test)
    pair = len(test) // 2 * 2
    yield "loss", lambda: plots.loss_curves(run.metrics(), f"{data.name}, {run.recipe.name}")
    yield "reconstructions", lambda: plots.reconstructions(model, test[:20], given=None if y is None else y[:20])
    yield "samples", lambda: plots.samples(model) if y is None else by_class(model, context)
    if len(test) >= 3:  # t-SNE asks for as many
        names = data.class_names
        yield "latent", lambda: plots.latent_scatter(encode(model, rows).flatten(1), test.labels, names, data.name)
    first = None if y is None else y[:1]
    p = model.prior() if first is None else model.prior(first)
    if pair and covered(p) not in plots.CODES:
        a, b = slice(0, min(pair, 16), 2), slice(1, min(pair, 16), 2)
        ends = None if y is None else (y[a], y[b])
        yield "interpolations", lambda: plots.interpolations(model, test[a], test[b], given=ends)
    if covered(p) not in plots.TIED:
        yield "traversals", lambda: plots.traversals(model, test[:1][0], elbo(model, rows).kl.mean(0), given=first)
    if run.recipe.code_shape(data.shape) == (2,) and covered(p) in plots.FLAT:
        yield "manifold", lambda: plots.manifold(model, given=first)


def by_class(model: VAE | Ladder, context: Context) -> Figure:
    """Samples of a model that is conditioned on labels, a column for each class."""
    each = context.each(10 * context.classes)
    return plots.decoded(generate(model, len(each), given=each), context.classes, "Samples, a column for each class")
