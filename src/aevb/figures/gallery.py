"""Which figures fit a run, and drawing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from aevb.data.batch import Indexable, take
from aevb.data.dataset import Dataset
from aevb.errors import AevbError, suggest
from aevb.evaluation.bound import elbo
from aevb.figures import plots
from aevb.figures.scatter import latent_scatter
from aevb.figures.tables import Table
from aevb.models.ladder import Ladder
from aevb.models.vae import VAE
from aevb.probability.offers import support_of
from aevb.runs.store import Run
from aevb.use.encode import encode
from aevb.use.generate import generate

Draw = Callable[[], Figure]
EACH, NAMED = 10, 12  # samples of a class; classes that are named, at most
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


def fitting(run: Run, model: VAE | Ladder, data: Dataset) -> Iterator[tuple[str, Draw]]:
    """The figures that make sense for a run, by name, each ready to be drawn."""
    test, context = data.test, run.recipe.context()
    rows, y = context.rows(test, "cpu"), context.given(test)
    few, table = partial(take, rows, torch.arange(min(20, len(test)))), Table.of_data(data)
    first = None if y is None else y[:1]
    p = model.prior() if first is None else model.prior(first)
    yield "loss", lambda: plots.loss_curves(run.metrics(), f"{data.name}, {run.recipe.name}", data.train.log_abs_det)
    yield "reconstructions", lambda: plots.reconstructions(model, few(), table=table)
    yield "samples", lambda: plots.samples(model, table=table) if y is None else by_class(run, model, table)
    if len(test) >= 3:  # t-SNE asks for as many
        names = data.class_names
        yield "latent", lambda: latent_scatter(encode(model, rows).flatten(1), test.labels, names, data.name, p)
    yield from walks(model, rows, support_of(p), table)
    if model.latent_shape == (2,) and support_of(p) in plots.FLAT:
        yield "manifold", lambda: plots.manifold(model, y=first, table=table)


def walks(model: VAE | Ladder, rows: Indexable, support: Any, table: Table | None) -> Iterator[tuple[str, Draw]]:
    """The figures of codes that move, where latents of this support can."""
    pairs = min(len(rows) // 2 * 2, 16)
    if pairs and support not in plots.CODES:
        a, b = (take(rows, torch.arange(start, pairs, 2)) for start in (0, 1))
        yield "interpolations", lambda: plots.interpolations(model, a, b, table=table)
    if support not in plots.TIED:
        one = take(rows, torch.arange(1)) if len(rows) else None
        yield "traversals", lambda: plots.traversals(model, one, elbo(model, rows).kl.mean(0), table=table)


def by_class(run: Run, model: VAE | Ladder, table: Table | None) -> Figure:
    """Ten samples of each class that a model was trained on: images in a column for each, rows of a table in a row."""
    names = tuple(run.classes().values())
    x = generate(model, EACH * len(names), y=run.each(EACH * len(names)))
    if table is not None:
        x = x.unflatten(0, (EACH, len(names))).transpose(0, 1).flatten(0, 1)
    title = f"Samples, {EACH} strips for each class" if table else "Samples, a column for each class"
    said = f"From left to right: {', '.join(names)}" if len(names) <= NAMED else ""
    return plots.decoded(x, len(names), title, table, said)
