"""The figures of a model and data of any form, each a matplotlib `Figure` that is tied to no backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

from aevb.data.batch import Batch, Indexable, log_abs_det, take
from aevb.data.dataset import Dataset, Split
from aevb.errors import DataError
from aevb.evaluation.bound import elbo
from aevb.figures import plots
from aevb.figures.scatter import latent_scatter
from aevb.figures.tables import Table
from aevb.models.inference import Model, fitting, prior_of
from aevb.runs.store import Run
from aevb.use.encode import encode
from aevb.use.generate import generate

MEASURED = 1000  # rows from which `traversals` orders latents


def loss(run: Run | Sequence[Mapping[str, Any]], title: str = "Training", data: Any = None) -> Figure:
    """The ELBO and its parts over a training, in nats per data point.

    Args:
        run: a run, or the lines of its `metrics.jsonl`.
        data: a split or a data set that is standardised: the nats are then those of its own units.
    """
    lines = run.metrics() if isinstance(run, Run) else run
    return plots.loss_curves(lines, title, 0.0 if data is None else log_abs_det(_split(data)))


def latent(
    model: Model,
    data: Any,
    labels: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "Latent space",
) -> Figure:
    """Posterior means of data, coloured by class; more than two latents are embedded by t-SNE.

    Args:
        data: x (N, *X), as of `aevb.encode`; of a `Dataset` its test split, with its labels.
        labels: (N,), whole numbers; those of the split if None.
    """
    split = _split(data)
    labels = split.labels if labels is None and isinstance(split, Split) else labels
    class_names = data.class_names if class_names is None and isinstance(data, Dataset) else class_names
    codes = encode(model, split).flatten(1)
    return latent_scatter(codes, labels, class_names, title, _prior(model, split))


def reconstructions(model: Model, data: Any, n: int = 20, title: str = "Reconstructions") -> Figure:
    """The first n data points above the means of p(x|z) at their posterior means.

    Args:
        data: x (N, *X), as of `aevb.encode`; of a `Dataset` its test split.
    """
    return plots.reconstructions(model, _first(model, data, n), title, table=Table.of_data(data))


def samples(
    model: Model, n: int = 100, y: Tensor | None = None, seed: int = 0, data: Any = None, title: str = "Samples"
) -> Figure:
    """The means of p(x|z) at n draws z ~ p(z), or z ~ p(z|y) at conditions y (n, *C), or (1, *C) for all.

    Args:
        data: of a table, the data set or split whose columns name the fields and give their units.
    """
    return plots.decoded(generate(model, n, seed=seed, y=y), None, title, Table.of_data(data))


def interpolations(model: Model, data: Any, n: int = 8, steps: int = 11, title: str = "Interpolations") -> Figure:
    """Lines between the codes of n pairs of data points: rows 0 and 1, rows 2 and 3, and so on.

    Args:
        data: x (N, *X), as of `aevb.encode`; of a `Dataset` its test split.
    """
    batch = _first(model, data, 2 * n)
    if len(batch) < 2:
        raise DataError("interpolations: at least two data points are needed; got one.")
    return plots.interpolations(
        model, _every_second(batch, 0), _every_second(batch, 1), steps, title, Table.of_data(data)
    )


def traversals(model: Model, data: Any, dims: int = 10, span: float = 2.5, title: str = "Traversals") -> Figure:
    """One latent moves in each row, those of the largest KL first, at the code of the first data point.

    Args:
        data: x (N, *X), as of `aevb.encode`; of a `Dataset` its test split. The KL is that of its first 1,000 rows.
        dims: latents at most.
        span: from -span to span.
    """
    batch = _first(model, data, MEASURED)
    kl, moves = elbo(model, batch).kl.mean(0), plots.Moves(dims, span)
    return plots.traversals(model, batch[:1], kl, moves, title, Table.of_data(data))


def manifold(
    model: Any, data: Any = None, n: int = 20, dims: tuple[int, int] | None = None, title: str = "Manifold"
) -> Figure:
    """The means of p(x|z) over a plane of two latents, in equal steps of the prior's mass.

    Args:
        data: for a conditional model, data whose first row gives the condition y; else not read.
        n: decoded points along each side.
        dims: the two latents, of a model with more.
    """
    y = None if data is None else _first(model, data, 1).y
    return plots.manifold(model, n, dims, title, y, Table.of_data(data))


def _split(data: Any) -> Any:
    """The test split of a data set; all else as it is."""
    return data.test if isinstance(data, Dataset) else data


def _first(model: Model, data: Any, n: int) -> Batch:
    """The first n rows, or all if there are fewer."""
    read: Indexable = fitting(model, data, "test")
    rows = torch.arange(min(n, len(read)), device=next(model.parameters()).device)
    return take(read, rows)


def _every_second(batch: Batch, start: int) -> Batch:
    rows = slice(start, len(batch) // 2 * 2, 2)
    return Batch(batch.x[rows], None if batch.y is None else batch.y[rows])


def _prior(model: Model, data: Any) -> Distribution | None:
    """p(z), for its lines of equal density; None of a conditional model, where each y may have its own."""
    batch = _first(model, data, 1)
    return prior_of(model, batch) if batch.y is None else None
