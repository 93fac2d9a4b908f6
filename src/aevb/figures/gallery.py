"""Which figures fit a run, and drawing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from aevb.data.batch import take
from aevb.data.dataset import Dataset
from aevb.errors import AevbError, suggest
from aevb.evaluation.bound import elbo
from aevb.figures import plots
from aevb.models.ladder import Ladder
from aevb.models.vae import VAE
from aevb.probability.offers import support_of
from aevb.runs.store import Run
from aevb.use.encode import encode
from aevb.use.generate import generate

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
    first = None if y is None else y[:1]
    p = model.prior() if first is None else model.prior(first)
    yield "loss", lambda: plots.loss_curves(run.metrics(), f"{data.name}, {run.recipe.name}")
    yield "reconstructions", lambda: plots.reconstructions(model, take(rows, torch.arange(min(20, len(test)))))
    yield "samples", lambda: plots.samples(model) if y is None else by_class(run, model)
    if len(test) >= 3:  # t-SNE asks for as many
        names = data.class_names
        yield "latent", lambda: plots.latent_scatter(encode(model, rows).flatten(1), test.labels, names, data.name, p)
    one = take(rows, torch.arange(1)) if len(test) else None
    if pair and support_of(p) not in plots.CODES:
        a, b = (take(rows, torch.arange(start, min(pair, 16), 2)) for start in (0, 1))
        yield "interpolations", lambda: plots.interpolations(model, a, b)
    if support_of(p) not in plots.TIED:
        yield "traversals", lambda: plots.traversals(model, one, elbo(model, rows).kl.mean(0))
    if model.latent_shape == (2,) and support_of(p) in plots.FLAT:
        yield "manifold", lambda: plots.manifold(model, y=first)


def by_class(run: Run, model: VAE | Ladder) -> Figure:
    """Samples of a model that is conditioned on labels, a column for each class that it was trained on."""
    classes = len(run.classes())
    x = generate(model, 10 * classes, y=run.each(10 * classes))
    return plots.decoded(x, classes, "Samples, a column for each class")
