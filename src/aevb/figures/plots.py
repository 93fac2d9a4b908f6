"""The figures: pure functions from numbers, or from a model, to a matplotlib `Figure`; `save` writes one.

N: data points; D: latent size; *X: the shape of a data point. Images are drawn as images. Any other data point is a
vertical strip with one coloured field per feature, so that strips side by side are a heat map. Latents are counted from
zero, as in code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution, Independent

from aevb.data.batch import Batch, Data
from aevb.errors import DataError
from aevb.figures.style import (
    GAP,
    GREY,
    PALETTE,
    as_tiles,
    chart,
    common_limits,
    fill,
    image_grid,
    is_image,
    save,
    settle,
    sheet,
    stack,
    styled,
)
from aevb.figures.tables import SPAN, Table
from aevb.models.chain import Chain
from aevb.models.given import given
from aevb.models.inference import Model, inference, prior_of
from aevb.models.ladder import Ladder
from aevb.models.vae import VAE
from aevb.parts import Support
from aevb.probability.offers import support_of
from aevb.use.interpolate import interpolate
from aevb.use.reconstruct import decode
from aevb.use.traverse import traverse

__all__ = ["decoded", "image_grid", "interpolations", "loss_curves", "manifold"]
__all__ += ["reconstructions", "samples", "save", "traversals"]

FLAT = (Support.REAL, Support.POSITIVE, Support.UNIT)  # what a latent covers of which a plane is a picture
CODES = (Support.ONE_HOT, Support.CODEBOOK, Support.GRID)  # between which there are no others
TIED = (*CODES, Support.SPHERE, Support.SIMPLEX)  # of which no single number can be moved
DRAWS = 100_000  # of a prior whose quantiles have no formula

Metrics = Sequence[Mapping[str, Any]]
Points = NDArray[np.float64]


@styled
def loss_curves(metrics: Metrics, title: str = "Training", log_abs_det: float = 0.0) -> Figure:
    """The ELBO = reconstruction - KL (arXiv 1312.6114, eq. 7) and its parts, in nats per data point, over training
    samples.

    Lines are those of `metrics.jsonl`. The sample axis is logarithmic where it spans more than 1.5 decades, as in Fig.
    2 of the paper. The first moments of a training may leave the frame, so that the rest can be seen.

    Args:
        log_abs_det: of the map from the data to the model's numbers, nats: the ELBO and the reconstruction are then
            densities of the data as given, as those of `evaluate`.
    """
    figure = chart(1150, 590, title)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.35, 1))
    places = {"elbo": grid[:, 0], "reconstruction": grid[0, 1], "kl": grid[1, 1]}
    titles = {"elbo": "ELBO", "reconstruction": "Reconstruction, E[log p(x|z)]", "kl": "KL(q(z|x) ‖ p(z))"}
    for name, place in places.items():
        axes = figure.add_subplot(place)
        axes.set_title(titles[name])
        _curves(axes, metrics, name, 0.0 if name == "kl" else log_abs_det)
        axes.set_ylabel("nats per data point" if name == "elbo" else "nats")
        if name != "reconstruction":
            axes.set_xlabel("training samples")
    figure.axes[0].legend(loc="best")
    return settle(figure)


def _curves(axes: Axes, metrics: Metrics, name: str, constant: float) -> None:
    """Training and validation numbers of one name, plus a constant."""
    shown: list[Points] = []
    for part, colour, width in (("train", PALETTE[0], 1.4), ("validation", PALETTE[1], 1.6)):
        rows = [(m["samples"], m[part][name]) for m in metrics if (m.get(part) or {}).get(name) is not None]
        points = np.array(rows, dtype=float).reshape(-1, 2) + np.array([0.0, constant])
        marker = "o" if len(points) < 12 else ""
        axes.plot(points[:, 0], points[:, 1], color=colour, linewidth=width, label=part, marker=marker, markersize=3)
        shown.append(points)
    points = np.concatenate(shown)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if len(points) == 0:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GREY)
        return
    first, last = points[:, 0].min(), points[:, 0].max()
    early = max(0.02 * last, first)
    if last > 10**1.5 * max(first, 1):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())  # of less than a decade they would be labelled, one on another
        axes.set_xlim(0.9 * early, 1.15 * last)
    late = points[points[:, 0] >= early, 1]
    low, high = float(np.nanmin(late)), float(np.nanmax(late))
    room = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)


@styled
def reconstructions(
    model: Model, data: Data, title: str = "Reconstructions", columns: int = 10, table: Table | None = None
) -> Figure:
    """Data, x (N, *X) or a `Batch`, above the means of p(x|z) at the posterior means z = E[q(z|x)].

    Args:
        columns: images in a row.
        table: of a table, its columns; those of the data if None.
    """
    batch = given(model, data)
    x, y = batch.x, decode(model, _codes(model, batch), batch.y)
    x, y, table = _as_table([x, y], table)
    limits = LIMITS if table else common_limits(x, y)
    columns = min(columns, len(x)) if is_image(x.shape[1:]) else len(x)
    rows = 2 * ceil(len(x) / columns)
    pairs = [
        image_grid(torch.cat([fill(as_tiles(part, limits, rows, columns), columns) for part in pair]), columns, GAP)
        for pair in zip(x.cpu().split(columns), y.split(columns), strict=True)
    ]
    caption = "Data above, decoded posterior means below" + _legend(table)
    picture = stack(pairs, 0, 14)
    left = _names(table, (picture.shape[0] - GAP) / 2)
    left += [((picture.shape[0] + GAP) / 2 + at, words.split(", ")[0]) for at, words in left]
    return sheet(picture, title, caption, left, margin=_margin(left))


@styled
def samples(model: Model, n: int = 100, seed: int = 0, title: str = "Samples", table: Table | None = None) -> Figure:
    """The means of p(x|z) at n draws z ~ p(z) (Fig. 5 of arXiv 1312.6114); a seed draws the same ones again."""
    with inference(model, seed):
        y = model.decode(model.sample_latent(n)).mean.cpu()
    return _page(y, None, title, "Decoded draws z ~ p(z)", table)


@styled
def decoded(
    x: Tensor, columns: int | None = None, title: str = "Decoded", table: Table | None = None, caption: str = ""
) -> Figure:
    """Data points x (N, *X), whatever they are: images row by row, as a square unless `columns` says otherwise."""
    return _page(x, columns, title, caption, table)


def _page(x: Tensor, columns: int | None, title: str, caption: str, table: Table | None) -> Figure:
    columns = len(x) if not is_image(x.shape[1:]) else columns or ceil(sqrt(len(x)))  # strips stand in one row
    x, _, table = _as_table([x, x], table)
    limits = LIMITS if table else common_limits(x)
    tiles = as_tiles(x, limits, ceil(len(x) / columns), columns)
    picture = image_grid(tiles, columns, GAP if is_image(x.shape[1:]) else 1)
    left = _names(table, picture.shape[0])
    return sheet(picture, title, (caption + _legend(table)).strip("\n"), left, margin=_margin(left))


@styled
def manifold(
    model: VAE | Ladder,
    n: int = 20,
    dims: tuple[int, int] | None = None,
    title: str = "Manifold",
    y: Tensor | None = None,
    table: Table | None = None,
) -> Figure:
    """The means of p(x|z) over a plane of latents, z_d = F_d⁻¹(u_d), at the n x n cell centres u of the unit square.

    F_d is the prior's distribution function of z_d, so that equal areas have equal prior mass where latents are
    independent (Fig. 4 of arXiv 1312.6114, for which F is the normal one).

    Args:
        dims: the latents that run along x and up along y; the others stay at their medians. Needed only for more than
            two.
        y: the condition (1, *C) of the whole plane.
    """
    with inference(model, 0) as device:
        y = None if y is None else y.to(device)
        size = model.latent_shape.numel()
        across, up = _plane(dims, size)
        u = torch.cat([(torch.arange(n, dtype=torch.float64) + 0.5) / n, torch.tensor([0.5], dtype=torch.float64)])
        found = quantiles(model.prior() if y is None else model.prior(y), u.to(device))
        ticks, median = found[:-1], found[-1]
        z = median.expand(n, n, size).clone()
        z[..., across], z[..., up] = ticks[:, across], ticks[:, up].flip(0).unsqueeze(1)
        x = decode(model, z.flatten(0, 1), y)
    x, _, table = _as_table([x, x], table)
    limits = LIMITS if table else common_limits(x)
    picture = image_grid(as_tiles(x, limits, n, n), n, 0 if _seamless(x) else GAP)
    cells = [i for i in {0, n // 4, n - 1 - n // 4, n - 1} if 2 * i + 1 != n]
    at = [(0.5, median), *(((i + 0.5) / n, ticks[i]) for i in cells)]
    left = [((1 - u) * picture.shape[0], _number(value[up])) for u, value in at]
    below = [(u * picture.shape[1], _number(value[across])) for u, value in at]
    caption = f"z[{across}] to the right, z[{up}] upwards, in equal steps of prior mass" + _legend(table, True)
    return sheet(picture, title, caption, left, below, margin=50)


def _plane(dims: tuple[int, int] | None, size: int) -> tuple[int, int]:
    """The two latents of a manifold."""
    if dims is None and size != 2:
        raise DataError(
            f"A manifold is a plane, but this model has {size} latents: choose two, such as dims=(0, 1); the others "
            "stay at the prior's median. `traversals` draws them one by one."
        )
    across, up = dims or (0, 1)
    if across == up or not all(0 <= d < size for d in (across, up)):
        raise DataError(f"dims={dims} must be two different latents from 0 to {size - 1}.")
    return across, up


def quantiles(p: Distribution, u: Tensor) -> Tensor:
    """F_d⁻¹(u) of each latent by itself, (n, D), for u (n): the prior's own where it has them, else those of many
    draws.

    Raises:
        DataError: the latents are on a sphere, a simplex or a grid, which a plane does not show.
    """
    _refuse(p, TIED, "a plane of numbers does not show them")
    if isinstance(p, Independent) and not p.base_dist.event_shape:
        with suppress(NotImplementedError):
            found: Tensor = p.base_dist.icdf(u.reshape(-1, *[1] * len(p.event_shape)).to(p.mean))
            return found.reshape(len(u), -1)
    draws = p.sample(torch.Size((DRAWS,))).reshape(DRAWS, -1)
    return draws.quantile(u.to(draws), 0)


def _seamless(y: Tensor) -> bool:
    """Whether images (N, ..., H, W) all end in the same level, as digits on black do: they then need no lines
    between."""
    if not is_image(y.shape[1:]):
        return False
    rim = torch.cat([y[..., [0, -1], :].flatten(), y[..., [0, -1]].flatten()])
    return float(rim.std()) < 0.03


@styled
def interpolations(
    model: Model,
    a: Data,
    b: Data,
    steps: int = 11,
    title: str = "Interpolations",
    table: Table | None = None,
) -> Figure:
    """The means of p(x|z) at z = (1-t) E[q(z|a)] + t E[q(z|b)], t = 0, ..., 1 in equal steps; a, b: (N, *X), or a
    `Batch`.

    Where a and b have conditions y, these go along the same line.
    """
    ends = given(model, a), given(model, b)
    from_, to = ends[0].x.cpu(), ends[1].x.cpu()
    _refuse(prior_of(model, ends[0]), CODES, "between two of them there are no others to decode")
    x = interpolate(model, a, b, steps)
    rows, columns, table = len(x), steps + 2, table or Table.of(torch.cat([from_, to]))
    from_, between, _ = _as_table([from_, x.flatten(0, 1)], table)
    to, _, shown = _as_table([to, to], table)
    limits = LIMITS if shown else common_limits(from_, to, between)
    parts = [(from_, 1), (between, steps), (to, 1)]
    blocks = [image_grid(as_tiles(part, limits, rows, columns), c, GAP) for part, c in parts]
    caption = "Data at the margins, decoded points of a line between" + _legend(shown, True)
    return sheet(stack(blocks, 1, 14), title, caption)


@dataclass(frozen=True)
class Moves:
    """How latents move: at most `dims` of them, each from -span to span, in `steps` values."""

    dims: int = 10
    span: float = 2.5
    steps: int = 11


@styled
def traversals(
    model: Model,
    data: Data | None,
    kl_per_dimension: Tensor,
    moves: Moves = Moves(),
    title: str = "Traversals",
    table: Table | None = None,
) -> Figure:
    """One row per latent, those of the largest KL first: the means of p(x|z) while it moves from -span to span.

    Latents that are never negative move between the percentiles 1 and 99 of the prior's draws. In a hierarchy it is a
    number of z_1, the only layer that is decoded.

    Args:
        data: one data point, x (1, *X) or a `Batch`, at whose posterior mean the other latents stay; None for the mean
            0.
        kl_per_dimension: (D,), nats of KL(q(z|x) ‖ p(z)) for each latent, as `evaluation` measures it. Where q does not
            factorise there is only one number: the latents then come in their own order.
        moves: how many latents move, and how far.
    """
    kl, steps = kl_per_dimension.detach().cpu(), moves.steps
    if data is not None:
        _refuse(prior_of(model, given(model, data)), TIED, "one number of a latent cannot be moved without the others")
    size, decoded = model.latent_shape.numel(), first_layer(model)
    known = len(kl) == size and bool(kl.isfinite().all())
    latents = (kl.argsort(descending=True, stable=True) if known else torch.arange(decoded))[: moves.dims]
    found = traverse(model, data, latents, moves.span, steps)
    x, _, table = _as_table([found.x.flatten(0, 1)] * 2, table)
    limits, rows = LIMITS if table else common_limits(x), len(latents)
    picture = image_grid(as_tiles(x, limits, rows, steps), steps, GAP)
    high, wide = (picture.shape[0] + GAP) / rows, (picture.shape[1] + GAP) / steps
    name = "z₁" if decoded < size else "z"
    labels = [f"{name}[{d}]" + (f"  {kl[d]:.2f}" if known else "") for d in latents.tolist()]
    left = [((row + 0.5) * high, label) for row, label in enumerate(labels)]
    below = [((i + 0.5) * wide, _number(found.values[i])) for i in (0, steps // 2, steps - 1)]
    caption = "One latent moves, the others stay" + "; beside each its KL in nats" * known
    return sheet(picture, title, caption + _legend(table, True), left, below, margin=100)


def _refuse(p: Distribution, kinds: Sequence[Support], why: str) -> None:
    """Raise a `DataError` where the latents, with this prior, are of one of these kinds."""
    support = support_of(p)
    if support and support in kinds:
        raise DataError(f"The latents of this model are on {support.value}: {why}.")


def first_layer(model: Any) -> int:
    """How many numbers z has, or z_1 in a hierarchy."""
    part = model if isinstance(model, Ladder) else model.encoder
    shapes = part.shapes if isinstance(part, Ladder | Chain) else (model.latent_shape,)
    return shapes[0].numel()


def _codes(model: Model, batch: Batch) -> Tensor:
    """E_q[z|x], (N, *Z), on the CPU."""
    with inference(model, 0) as device:
        return model.encode(batch.to(device)).cpu()


LIMITS = (-1.0, 1.0)  # of the colours of a table


def _as_table(parts: list[Tensor], table: Table | None) -> tuple[Tensor, Tensor, Table | None]:
    """Two sets of rows of a table as colours; images as they are, without a table."""
    if is_image(parts[0].shape[1:]):
        return parts[0], parts[1], None
    table = table or Table.of(parts[0])
    return table.colours(parts[0]), table.colours(parts[1]), table


def _legend(table: Table | None, all_names: bool = False) -> str:
    """What colours mean, for data that are no images; with `all_names` also what the fields of a strip are."""
    if table is None:
        return ""
    said = f"\nOne strip per data point; blue to red is the mean of a column ∓ {SPAN} standard deviations"
    labels = table.labels() if all_names and len(table.names) <= 6 else []
    return said + ("\nFrom the top: " + "; ".join(labels) if labels else "")


def _names(table: Table | None, height: float) -> list[tuple[float, str]]:
    """The columns of a table beside their fields."""
    labels = [] if table is None else table.labels()
    return [((i + 0.5) * height / len(labels), label) for i, label in enumerate(labels)]


def _margin(left: list[tuple[float, str]]) -> int:
    """Pixels for the longest of some words."""
    return max((11 * len(words) + 12 for _, words in left), default=0)


def _number(value: Tensor) -> str:
    return f"{value + 0.0:.1f}".replace("-", "−")
