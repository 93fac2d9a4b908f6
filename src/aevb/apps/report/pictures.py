"""Tensors and figures as pictures inside of a page."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from aevb.apps.report.markup import Html, data_uri, tag
from aevb.figures.style import image_grid

WIDE, LARGEST = 1200, 300_000  # pixels of a picture; bytes of an .svg
THUMB = 32  # pixels of the sides of a small picture on the map


def grey_levels(x: Tensor, limits: tuple[float, float]) -> Tensor:
    """Images (N, C, H, W) or (N, H, W) as (N, 1 or 3, H, W) in [0, 1]."""
    x = x.detach().cpu().float()
    x = x.unsqueeze(1) if x.ndim == 3 else x
    x = x if x.shape[1] in (1, 3) else x.mean(1, keepdim=True)
    return ((x - limits[0]) / (limits[1] - limits[0])).clamp(0, 1)


def grid(x: Tensor, columns: int, limits: tuple[float, float], said: str) -> Html:
    """Images as one picture, so many in a row; a reader of screens hears what is `said`."""
    x = grey_levels(x, limits)
    most = WIDE // columns
    if x.shape[3] > most:
        x = interpolate(x, scale_factor=most / x.shape[3], mode="area")
    picture = image_grid(x, columns, gap=1, background=0.5)
    width = min(picture.shape[1] * max(1, 72 // x.shape[3]), WIDE)
    return tag("img", src=png(picture), alt=said, width=width, _class="pixels")


def png(picture: NDArray[Any]) -> str:
    """A picture (H, W) or (H, W, 3) in [0, 1] as an address."""
    levels = np.rint(picture * 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(levels).save(out, format="png", optimize=True)
    return data_uri(out.getvalue(), "image/png")


def sheet_of_thumbs(x: Tensor, limits: tuple[float, float]) -> dict[str, Any]:
    """Small images of all rows in one picture, for JSON: its address, how many in a row, and their size."""
    x = grey_levels(x, limits)
    if max(x.shape[2:]) > THUMB:
        x = interpolate(x, scale_factor=THUMB / max(x.shape[2:]), mode="area")
    columns = math.ceil(math.sqrt(len(x)))
    return {"src": png(image_grid(x, columns, gap=0)), "columns": columns, "size": [x.shape[3], x.shape[2]]}


def drawn(figure: Figure, said: str) -> Html:
    """A chart: an .svg with a clear ground, or a .png where that is smaller by far."""
    for part in (figure.patch, *(axes.patch for axes in figure.axes)):
        part.set_alpha(0)
    content, mime = _written(figure, "svg"), "image/svg+xml"
    if len(content) > LARGEST:
        content, mime = _written(figure, "png"), "image/png"
    return tag("img", src=data_uri(content, mime), alt=said, _class="chart")


def _written(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, transparent=True)
    return out.getvalue()
