"""How every figure looks, how tiles become one picture, and how a figure becomes files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL.Image import Image, fromarray, frombytes
from torch import Tensor
from torch.nn.functional import interpolate

from aevb.runs.files import write_whole

P = ParamSpec("P")
DPI = 144
SIDE = 1000  # pixels that a picture aims at, in width and in height
GAP = 4  # pixels between two tiles
FIELD = 22  # pixels of a field of a strip at most, enough for its name
EDGE = 22  # pixels around everything
INK, GREY, FAINT = "#1c1f24", "#5c636e", "#d9dce1"
# Ten hues after Okabe & Ito, moved until any two differ: by 28 units of CIELAB, by 17 for the three kinds of
# dichromats.
PALETTE = (
    *("#0072b2", "#dd6f01", "#009e72", "#872055", "#ebac00"),
    *("#56b9eb", "#915700", "#c972a8", "#332f89", "#7b5c3a"),
)
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "savefig.dpi": "figure",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "text.usetex": False,
    "mathtext.fontset": "dejavusans",
    "axes.facecolor": "white",
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "aevb",
    "svg.fonttype": "path",
    "svg.image_inline": True,
}


class Picture(Figure):
    """A figure that a notebook shows, before and without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        with rc_context(STYLE):
            _small(self).save(buffer, format="png")
        return buffer.getvalue()


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under `STYLE`, and leave matplotlib's settings as they were."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write `path`.png and `path`.svg, each whole or not at all, and byte for byte the same for the same figure."""
    png, svg = Path(f"{path}.png"), Path(f"{path}.svg")
    with rc_context(STYLE):
        write_whole(png, lambda p: _small(figure).save(p, format="png"))
        write_whole(svg, lambda p: figure.savefig(p, format="svg", metadata={"Date": None, "Creator": None}))
    return [png, svg]


def _small(figure: Figure) -> Image:
    """The figure's pixels, by palette where there are at most 256 colours, which halves the file and changes
    nothing."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    rgb = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]
    found = fromarray(rgb).getcolors(256)
    if found is None:  # there are more
        return fromarray(rgb)
    digits = np.array([65536, 256, 1], dtype=np.uint32)
    colours = np.sort(np.array([colour for _, colour in found], dtype=np.uint32) @ digits)
    which = np.searchsorted(colours, rgb @ digits).astype(np.uint8)
    image = frombytes("P", rgb.shape[1::-1], which.tobytes())
    image.putpalette(colours.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes())
    return image


def image_grid(images: Tensor, columns: int, gap: int = 1, background: float = 1.0) -> NDArray[np.float32]:
    """Tile images, row by row, into one picture.

    Args:
        images: (N, C, H, W) with C = 1 or 3, or (N, H, W), in [0, 1]; what lies outside is clipped.
        gap: pixels between two tiles; they and the places after the last tile have the level `background`.

    Returns:
        (R(H + gap) - gap, columns(W + gap) - gap), with a last axis of 3 for colours; R = ⌈N / columns⌉ rows.
    """
    tiles = images.detach().cpu().float().clamp(0, 1).numpy()
    if tiles.ndim == 4:
        tiles = tiles[:, 0] if tiles.shape[1] == 1 else np.moveaxis(tiles, 1, -1)
    n, h, w = tiles.shape[:3]
    size = (math.ceil(n / columns) * (h + gap) - gap, columns * (w + gap) - gap, *tiles.shape[3:])
    grid = np.full(size, background, dtype=np.float32)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        grid[y : y + h, x : x + w] = tile
    return grid


def is_image(shape: Sequence[int]) -> bool:
    """Whether a data point of this shape is drawn as an image, (H, W) or (C, H, W), rather than as a coloured strip."""
    return len(shape) in (2, 3)


def as_tiles(x: Tensor, limits: tuple[float, float], rows: int, columns: int) -> Tensor:
    """Data points (N, *X) as tiles (N, 1 or 3, h, w) of whole pixels, so large that rows · columns of them fill a page.

    Images keep their pixels, enlarged by a whole number (or shrunk, if they are many and large). Any other data point
    is a vertical strip with one field per feature: red above zero, blue below.
    """
    x = x.detach().cpu().float()
    if not is_image(x.shape[1:]):
        high, wide = _whole(0.7 * SIDE / rows / x[0].numel(), 1, FIELD), _whole(SIDE / columns - GAP, 3, 90)
        return _blue_to_red(x.flatten(1) / limits[1]).repeat_interleave(high, 2).repeat_interleave(wide, 3)
    x = x.unsqueeze(1) if x.ndim == 3 else x
    x = x if x.shape[1] in (1, 3) else x.mean(1, keepdim=True)
    grey = (x - limits[0]) / (limits[1] - limits[0])
    factor = min(SIDE / rows / x.shape[2], SIDE / columns / x.shape[3])
    if factor < 0.5:
        return interpolate(grey, scale_factor=factor, mode="area")
    scale = _whole(round(factor), 1, 16)
    return grey.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def common_limits(*parts: Tensor) -> tuple[float, float]:
    """The values of black and of white: (0, 1) for images that about keep to it, else what nearly all values lie in.

    Vectors get limits that are symmetric around zero.
    """
    values = torch.cat([p.detach().cpu().float().flatten() for p in parts]).numpy()
    if not is_image(parts[0].shape[1:]):
        most = float(np.quantile(np.abs(values), 0.98)) or 1.0
        return -most, most
    low, high = (float(v) for v in np.quantile(values, (0.01, 0.99)))
    grey = low >= -0.25 * high and high < 1.25  # standardised pixels are as often negative, however small
    return (0.0, 1.0) if grey else (low, high if high > low else low + 1)


def _whole(value: float, least: int, most: int) -> int:
    return min(max(int(value), least), most)


MISSING = 0.6  # how bright a cell without a number is


def _blue_to_red(x: Tensor) -> Tensor:
    """(N, F) in [-1, 1] → colours (N, 3, F, 1): blue, almost white at zero, red; grey where there is no number."""
    ends = torch.tensor([[0.13, 0.40, 0.67], [0.96, 0.96, 0.96], [0.70, 0.09, 0.17]])
    x = x.clamp(-1, 1).unsqueeze(1)
    low, middle, high = ends.unsqueeze(-1).unbind()
    colours = middle + x.clamp(min=0) * (high - middle) - x.clamp(max=0) * (low - middle)
    return colours.nan_to_num(nan=MISSING).unsqueeze(-1)


def stack(blocks: Sequence[NDArray[np.float32]], axis: int, gap: int) -> NDArray[np.float32]:
    """Pictures below (axis 0) or beside (axis 1) one another, with white between."""
    between = list(blocks[0].shape)
    between[axis] = gap
    white = np.ones(between, dtype=np.float32)
    return np.concatenate([part for block in blocks for part in (white, block)][1:], axis)


Words = Sequence[tuple[float, str]]


def sheet(
    picture: NDArray[np.float32], title: str, caption: str, left: Words = (), below: Words = (), margin: int = 0
) -> Figure:
    """One picture, pixel for pixel, under a title and a caption.

    Args:
        left, below: (pixels from the picture's top or left, what to write there) along the left and the lower edge.
        margin: pixels to keep for `left`.
    """
    h, w = picture.shape[:2]
    head, foot = _head(title, caption), EDGE + (26 if below else 0)
    longest = max(len(line) for line in caption.split("\n"))  # at most 11 pixels each
    width, height = max(max(w, 560) + margin, 11 * longest) + 2 * EDGE, h + head + foot
    figure = Picture(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI)
    x, y = EDGE + margin, head
    axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
    shown = (
        np.rint(picture * 63) / 63 if picture.ndim == 2 else picture
    )  # 64 greys, hardly to be told apart: small files
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="none", aspect="auto")
    axes.set_axis_off()
    _entitle(figure, title, caption)
    for at, words in left:
        figure.text((x - 10) / width, 1 - (y + at) / height, words, fontsize=9, color=GREY, ha="right", va="center")
    for at, words in below:
        figure.text((x + at) / width, 1 - (y + h + 8) / height, words, fontsize=9, color=GREY, ha="center", va="top")
    return figure


def fill(tiles: Tensor, columns: int) -> Tensor:
    """White tiles after (n, C, h, w), up to a whole row."""
    return torch.cat([tiles, tiles.new_ones(columns - len(tiles), *tiles.shape[1:])])


def chart(width: int, height: int, title: str, caption: str = "") -> Figure:
    """An empty figure of so many pixels, with the title and the caption of `sheet`; `settle` places its axes."""
    figure = Picture(figsize=(width / DPI, height / DPI), dpi=DPI)
    side = EDGE / width
    free = (side, EDGE / height, 1 - 2 * side, 1 - (EDGE + _head(title, caption)) / height)
    figure.set_layout_engine("constrained", rect=free, w_pad=0, h_pad=0, wspace=0.05, hspace=0.08)
    _entitle(figure, title, caption)
    return figure


def settle(figure: Figure) -> Figure:
    """Place the axes of a chart, on whole pixels: the solver's last digits differ between two runs, and so would
    files."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    pixels = np.tile(figure.bbox.size, 2)
    for axes in figure.axes:
        axes.set_position(tuple(np.rint(np.array(axes.get_position(original=True).bounds) * pixels) / pixels))
    return figure


def _head(title: str, caption: str) -> int:
    """Pixels above a picture."""
    return EDGE + (36 if title else 0) + (4 + 22 * (caption.count("\n") + 1) if caption else 0)


def _entitle(figure: Figure, title: str, caption: str) -> None:
    width, height = figure.bbox.size
    edge, below = EDGE / width, _head(title, caption) - 9
    figure.text(edge, 1 - EDGE / height, title, fontsize=12, weight="bold", va="top")
    figure.text(edge, 1 - below / height, caption, fontsize=9, color=GREY, va="bottom", linespacing=1.3)
