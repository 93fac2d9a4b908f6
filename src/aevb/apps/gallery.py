"""Which figures fit a run, and drawing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from aevb.apps import plots
from aevb.data.dataset import Dataset
from aevb.data.labels import one_hot
from aevb.errors import AevbError, suggest
from aevb.evaluation.elbo import elbo
from aevb.evaluation.generation import generate
from aevb.evaluation.latent import encode
from aevb.models.vae import VAE
from aevb.runs.store import Run

FIGURES = ("loss", "reconstructions", "samples", "latent", "interpolations", "traversals", "manifold")


def draw_all(
    run: Run, model: VAE, data: Dataset, only: Sequence[str] | None = None, folder: Path | None = None
) -> list[Path]:
    """Draw the figures of a run, or those named; returns the files, PNG and SVG."""
    figures = dict(fitting(run, model, data))
    for name in only or ():
        if name not in FIGURES:
            raise AevbError(f"There is no figure {name!r}.{suggest(name, FIGURES)}")
        if name not in figures:
            why = "a manifold needs two latents" if name == "manifold" else "its test split has too few rows"
            why = "its model is conditioned on labels" if run.recipe.context().classes else why
            raise AevbError(f"The figure {name!r} does not fit this run: {why}. Possible: {', '.join(figures)}.")
    written: list[Path] = []
    for name in only or figures:
        path = folder / name if folder else run.figure(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        written += plots.save(figures[name](), path)
    return written


def fitting(run: Run, model: VAE, data: Dataset) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The figures that make sense for a run, by name, each ready to be drawn."""
    if run.recipe.context().classes:
        yield from fitting_contexts(run, model, data)
        return
    test = data.test
    pair = len(test) // 2 * 2
    yield "loss", lambda: plots.loss_curves(run.metrics(), f"{data.name}, {run.recipe.name}")
    yield "reconstructions", lambda: plots.reconstructions(model, test[:20])
    yield "samples", lambda: plots.samples(model)
    if len(test) >= 3:  # t-SNE asks for as many
        yield "latent", lambda: plots.latent_scatter(encode(model, test), test.labels, data.class_names, data.name)
    if pair:
        ends = test[: min(pair, 16) : 2], test[1 : min(pair, 16) : 2]
        yield "interpolations", lambda: plots.interpolations(model, *ends)
    yield "traversals", lambda: plots.traversals(model, test[:1][0], _kl(model, data))
    if run.recipe.settings["latent"] == 2:
        yield "manifold", lambda: plots.manifold(model)


def fitting_contexts(run: Run, model: VAE, data: Dataset) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """As `fitting`, where the labels are contexts: samples stand in a column for each class."""
    context, test = run.recipe.context(), data.test.take(20)
    yield "loss", lambda: plots.loss_curves(run.metrics(), f"{data.name}, {run.recipe.name}")
    if test.labels is not None and len(test):
        given = one_hot(test.labels, context.classes)
        yield "reconstructions", lambda: plots.reconstructions(model, test[:], given=given)
    each = context.each(10 * context.classes)
    new = generate(model, len(each), given=each)
    yield "samples", lambda: plots.decoded(new, context.classes, "Samples, a column for each class")


def _kl(model: VAE, data: Dataset) -> torch.Tensor:
    return elbo(model, data.test).kl.mean(0)
