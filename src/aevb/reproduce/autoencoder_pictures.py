"""The pictures of the experiment "an autoencoder against a VAE", side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from aevb.figures.scatter import density_levels, draw_prior, frame_latents, name_classes
from aevb.figures.style import GAP, PALETTE, as_tiles, chart, image_grid, settle, sheet, stack, styled
from aevb.models.priors import StandardNormal

SHOWN = 3000  # codes in a panel
WIDE = 6 * GAP  # pixels between two blocks
LIMITS = (0.0, 1.0)


@styled
def scatters(codes: Mapping[str, Tensor], labels: Tensor) -> Figure:
    """Codes (N, 2) of several models, each in its own panel and scale, coloured by class (N,)."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:SHOWN]  # no class above the others
    which = labels[order].numpy()
    caption = f"{len(order):,} posterior means of test images; lines hold 50, 90 and 99 % of N(0, I). The scales differ"
    figure = chart(620 * len(codes), 700, "Codes by digit", caption)
    prior = StandardNormal(2)()
    levels = density_levels(prior)
    assert levels is not None
    panels = figure.subplots(1, len(codes), squeeze=False)[0]
    points = [z[order].double().numpy() for z in codes.values()]
    for axes, name, xy in zip(panels, codes, points, strict=True):
        axes.scatter(xy[:, 0], xy[:, 1], s=3, c=np.array(PALETTE)[which % len(PALETTE)], linewidths=0, rasterized=True)
        axes.set_title(name)
        frame_latents(axes, 2)
        draw_prior(axes, prior, levels)
    settle(figure)
    for axes, xy in zip(panels, points, strict=True):
        name_classes(axes, xy, which, None)
    return figure


@styled
def samples_picture(panels: Mapping[tuple[int, str], Tensor]) -> Figure:
    """A square of images (N, *X) for each (latents, name), a row of squares for each number of latents."""
    latents, names = (list(dict.fromkeys(column)) for column in zip(*panels, strict=True))
    rows = [stack([_square(panels[d, name]) for name in names], 1, WIDE) for d in latents]
    high, wide = rows[0].shape[0], (rows[0].shape[1] + WIDE) / len(names)
    left = [(i * (high + WIDE) + high / 2, f"{d} latents") for i, d in enumerate(latents)]
    below = [(i * wide + (wide - WIDE) / 2, str(name)) for i, name in enumerate(names)]
    caption = "Means of p(x|z); N(m, S) is the normal fitted to the codes of the train split"
    return sheet(stack(rows, 0, WIDE), "Random samples", caption, left, below, margin=90)


def _square(images: Tensor) -> NDArray[np.float32]:
    side = math.isqrt(len(images))
    return image_grid(as_tiles(images, LIMITS, 2 * side, 2 * side), side, 0)


@styled
def paths_picture(starts: Tensor, ends: Tensor, decoded: Mapping[tuple[str, int], Tensor]) -> Figure:
    """Paths (N, T, *X) of each (model, latents) between codes of data (N, *X): models above, latents beside one
    another."""
    names, latents = (list(dict.fromkeys(column)) for column in zip(*decoded, strict=True))
    columns = []
    for d in latents:
        pairs = [
            stack([_strip(starts[i], decoded[name, d][i], ends[i]) for name in names], 0, 0) for i in range(len(starts))
        ]
        columns.append(stack(pairs, 0, 2 * GAP))
    picture = stack(columns, 1, WIDE)
    row, strip = (picture.shape[0] + 2 * GAP) / len(starts), (picture.shape[0] + 2 * GAP) / len(starts) - 2 * GAP
    left = [(i * row + (j + 0.5) * strip / len(names), n) for i in range(len(starts)) for j, n in enumerate(names)]
    wide = (picture.shape[1] + WIDE) / len(latents)
    below = [(i * wide + (wide - WIDE) / 2, f"{d} latents") for i, d in enumerate(latents)]
    caption = "Test images at the margins, decoded points of the straight line between their codes"
    return sheet(picture, "Paths between digits", caption, left, below, margin=110)


def _strip(start: Tensor, path: Tensor, end: Tensor) -> NDArray[np.float32]:
    parts = [start.unsqueeze(0), path, end.unsqueeze(0)]
    wide = 2 * (len(path) + 2)
    return stack([image_grid(as_tiles(part, LIMITS, wide, wide), len(part), 0) for part in parts], 1, 2 * GAP)
