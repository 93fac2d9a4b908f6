"""Heat maps of surprise: where in a picture the numbers are that the model did not expect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from aevb.figures.style import as_tiles, common_limits, image_grid, sheet, stack, styled

LETTER = 10.5  # pixels of a letter below a picture
MOST = 0.995  # share of the numbers whose surprise is below full red


@styled
def surprise_maps(x: Tensor, surprise: Tensor, names: Sequence[str] = (), title: str = "Surprise") -> Figure:
    """Pictures over their heat maps: white where a number is as probable as any in these pictures, red where least so.

    Args:
        x: pictures (N, C, H, W) or (N, H, W).
        surprise: -log p(x_j | the rest) of each number, nats, of the same shape; channels of a pixel are added up.
        names: what to write below each picture.
    """
    heat = surprise.detach().cpu().float()
    heat = heat if heat.ndim == 3 else heat.sum(1)
    low, high = heat_limits(heat)
    shown = as_tiles(x, common_limits(x), 2, len(x))
    tiles = as_tiles(heat.unsqueeze(1), (low, high), 2, len(x)).clamp(0, 1)
    red = torch.cat([torch.ones_like(tiles), 1 - tiles, 1 - tiles], 1)
    grids = [image_grid(part.expand(-1, 3, -1, -1), len(x), 4) for part in (shown, red)]
    wide = shown.shape[3] + 4
    most = max(int(wide / LETTER), 4)
    cut = [name if len(name) <= most else f"…{name[1 - most :]}" for name in names]
    below = [(wide * i + wide / 2, name) for i, name in enumerate(cut)]
    caption = f"Red: −log p of a pixel given the others, {low:.2g} (white) to {high:.2g} nats"
    return sheet(stack(grids, 0, 8), title, caption, below=below)


def heat_limits(heat: Tensor) -> tuple[float, float]:
    """The surprise that is white, and that which is full red."""
    low, high = (float(v) for v in np.quantile(heat.numpy(), (0.0, MOST)))
    return low, high if high > low else low + 1
