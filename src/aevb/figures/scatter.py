"""Codes as points of a plane: in their classes' colours, with lines of equal density of the prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.data.randomness import seeded
from aevb.errors import DataError
from aevb.figures.style import GREY, INK, PALETTE, chart, settle, styled

DRAWS = 100_000  # of a prior, whose levels of density they give
POINTS = 2000  # at most so many points go into t-SNE

Points = NDArray[np.float64]


@styled
def latent_scatter(
    codes: Tensor,
    labels: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "Latent space",
    prior: Distribution | None = None,
    points: int = POINTS,
) -> Figure:
    """Posterior means (N, D), coloured by class (N,), with the class names at the medians; without labels, by density.

    Two latents are drawn as they are, with lines of equal density of the prior p(z) that hold 50, 90 and 99 % of it.
    More are embedded by t-SNE, of at most `points` of them; its distances between clusters have no meaning.
    """
    size = codes.shape[1]
    chosen = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))  # no class is above the others
    chosen = chosen[:points] if size > 2 else chosen
    xy, about = _in_the_plane(codes.detach().cpu().double()[chosen].numpy())
    levels = None if prior is None or size != 2 else density_levels(prior)
    about = about if levels is None else "lines hold 50, 90 and 99 % of the prior"
    figure = chart(900, 960, title, f"{len(xy):,} posterior means; {about}")
    axes = figure.add_subplot()
    which = None if labels is None else labels.detach().cpu()[chosen].numpy()
    area = float(np.clip(24000 / max(len(xy), 1), 3, 28))
    colours = _density(xy) if which is None else np.array(PALETTE)[which % len(PALETTE)]
    axes.scatter(xy[:, 0], xy[:, 1], s=area, c=colours, alpha=0.75, linewidths=0, rasterized=True)
    frame_latents(axes, size)
    if prior is not None and levels is not None:
        draw_prior(axes, prior, levels)
    settle(figure)
    if which is not None:
        name_classes(axes, xy, which, class_names)
    return figure


def _in_the_plane(z: Points) -> tuple[Points, str]:
    """Codes (N, D) as points (N, 2), and how they became so."""
    size = z.shape[1]
    if size == 2:
        return z, "as they are"
    if size > 2:
        return _t_sne(z), f"t-SNE of {size} latents"
    return np.c_[z, np.random.default_rng(0).uniform(-1, 1, len(z))], "height random"


def frame_latents(axes: Axes, size: int) -> None:
    """Axes for two latents; hardly any for an embedding."""
    if size == 1:
        axes.set(xlabel="z[0]", yticks=[], ylim=(-3, 3))
        axes.spines["left"].set_visible(False)
        return
    if size > 2:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="z[0]", ylabel="z[1]")


def density_levels(p: Distribution, masses: Sequence[float] = (0.5, 0.9, 0.99)) -> Tensor | None:
    """The log densities c of which {z: log p(z) ≥ c} holds these masses, from draws; None where the density is flat."""
    with torch.no_grad(), seeded(0):
        log_p = p.log_prob(p.sample(torch.Size((DRAWS,)))).flatten().double().cpu()
    levels = torch.quantile(log_p, 1 - torch.tensor(masses, dtype=torch.float64))
    return levels if bool((levels.diff() < -1e-3).all()) else None


def draw_prior(axes: Axes, p: Distribution, levels: Tensor, cells: int = 200) -> None:
    """Lines of equal density, in a frame that holds the points and nearly all of the prior."""
    with torch.no_grad(), seeded(0):
        draws = p.sample(torch.Size((1000,))).reshape(-1, 2).double().cpu()
    drawn = torch.quantile(draws, torch.tensor([0.005, 0.995], dtype=torch.float64), 0).numpy()
    limits = [
        (min(a[0], b[0]), max(a[1], b[1])) for a, b in zip((axes.get_xlim(), axes.get_ylim()), drawn.T, strict=True)
    ]
    across, up = (np.linspace(low, high, cells) for low, high in limits)
    z = torch.as_tensor(np.stack(np.meshgrid(across, up), -1)).float()
    inside = constraints.real_vector.check(z) if p.support is None else p.support.check(z)
    with torch.no_grad():
        log_p = torch.where(inside, p.log_prob(torch.where(inside.unsqueeze(-1), z, draws[0].float())), -torch.inf)
    height = np.ma.masked_invalid(log_p.cpu().numpy())
    axes.contour(across, up, height, levels.flip(0).numpy(), colors=GREY, linewidths=0.7, alpha=0.6, linestyles="solid")


def _t_sne(z: Points) -> Points:
    from sklearn.manifold import TSNE  # imported late: seconds

    if len(z) < 3:
        raise DataError(f"t-SNE of {z.shape[1]} latents needs at least 3 data points; got {len(z)}.")
    if not np.ptp(z, axis=0).any():
        return np.zeros((len(z), 2))  # one code for all
    perplexity = min(30.0, (len(z) - 1) / 3)
    return np.asarray(TSNE(2, init="pca", random_state=0, perplexity=perplexity).fit_transform(z), dtype=float)


def _density(xy: Points) -> Points:
    """A colour (N, 4) for each point, the darker the more points are near."""
    from matplotlib import colormaps
    from scipy.ndimage import gaussian_filter

    counts, *edges = np.histogram2d(xy[:, 0], xy[:, 1], bins=100)
    cells = [np.clip(np.digitize(v, e) - 1, 0, 99) for v, e in zip(xy.T, edges, strict=True)]
    level = gaussian_filter(counts, 2.0)[cells[0], cells[1]]
    return np.asarray(colormaps["YlGnBu"](0.35 + 0.65 * level / level.max()))


def name_classes(axes: Axes, xy: Points, which: NDArray[np.int64], names: Sequence[str] | None) -> None:
    """Class names at the medians of their points, in ink with a white rim, moved apart where they would overlap."""
    classes = np.unique(which)
    words = [str(names[c]) if names else str(c) for c in classes]
    axes.autoscale_view()
    axes.apply_aspect()
    at = axes.transData.transform([np.median(xy[which == c], axis=0) for c in classes])
    at = _apart(at, np.array([(len(w) * 17 + 8, 26) for w in words]))
    for (x, y), word, c in zip(axes.transData.inverted().transform(at), words, classes, strict=True):
        rim = [
            withStroke(linewidth=4.5, foreground=PALETTE[c % len(PALETTE)]),
            withStroke(linewidth=3, foreground="white"),
        ]
        axes.text(x, y, word, ha="center", va="center", weight="bold", fontsize=12, color=INK, path_effects=rim)


def _apart(at: Points, sizes: Points) -> Points:
    """Push boxes of these sizes at these centres apart, along the axis on which they overlap least."""
    at = at.copy()
    for _ in range(100):
        for i in range(len(at)):
            for j in range(i):
                apart = at[i] - at[j]
                overlap = (sizes[i] + sizes[j]) / 2 - np.abs(apart)
                if (overlap > 0).all():
                    axis = int(overlap.argmin())
                    push = (0.5 if apart[axis] >= 0 else -0.5) * overlap[axis]
                    at[i, axis] += push
                    at[j, axis] -= push
    return at
