"""One page on synthetic rows of a table: each column beside the real one, pairs of columns, the scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from aevb.evaluation.two_sample import LEFT_OUT, PRIVACY, WITHOUT_ORDER, SampleCheck
from aevb.figures.style import FAINT, GREY, INK, PALETTE, chart, settle, styled

Rows = NDArray[np.float64]
MOST_SHOWN = 24  # columns
MOST_BARS = 8  # levels of a category; the others are one bar
BINS = 24
WIDE, HIGH = 4, 290  # panels side by side; pixels of one
REAL, MADE = PALETTE[0], PALETTE[1]


@styled
def synthetic_rows(
    real: Rows,
    synthetic: Rows,
    kinds: Sequence[str],
    check: SampleCheck,
    levels: Mapping[str, Sequence[Any]] | None = None,
) -> Figure:
    """Marginals of real and synthetic columns, the similarity of their pairs, and the scores of a check.

    Args:
        real, synthetic: (N, F) and (M, F), NaN where a value is missing, as of `two_sample`.
        kinds: of each column.
        check: what `two_sample` found.
        levels: of columns by name, what their codes mean.
    """
    chosen = [j for j, kind in enumerate(kinds) if kind not in LEFT_OUT][:MOST_SHOWN]
    lines, tall = math.ceil(len(chosen) / WIDE), _tall(check)
    caption = _caption(check, len(chosen))
    height = 120 + 22 * caption.count("\n") + lines * HIGH + tall
    figure = chart(1500, height, "Synthetic rows beside real ones", caption)
    parts = figure.add_gridspec(1 + bool(tall), 1, height_ratios=[lines * HIGH, tall][: 1 + bool(tall)])
    panels = parts[0].subgridspec(lines, WIDE)
    for i, (j, name) in enumerate(zip(chosen, check.columns, strict=False)):
        axes = figure.add_subplot(panels[i // WIDE, i % WIDE])
        known = (levels or {}).get(name, ())
        _draw(kinds[j], known)(axes, real[:, j], synthetic[:, j], known)
        axes.set_title(f"{_short(name, 20)}  {check.shapes[i].mean:.2f}")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    if tall:
        _pairs(figure.add_subplot(parts[1]), check)
    handles = [Patch(color=colour) for colour in (REAL, MADE)]
    figure.legend(handles, ["real", "synthetic"], loc="upper right", ncols=2, handlelength=1)
    return settle(figure)


def _draw(kind: str, levels: Sequence[Any]) -> Callable[[Axes, Rows, Rows, Sequence[Any]], None]:
    """Bars of levels, or densities of numbers."""
    return _bars if kind in WITHOUT_ORDER or levels else _steps


def _tall(check: SampleCheck) -> int:
    """Pixels of the matrix of pairs; 0 without pairs."""
    return 130 + min(640, 100 + 30 * len(check.paired)) if len(check.paired) > 1 else 0


def _caption(check: SampleCheck, shown: int) -> str:
    """The scores as text."""
    reached = check.train
    beside = "" if reached is None else f" (train rows {reached.c2st.text(3)})"
    lines = [
        f"C2ST {check.c2st.text(3)}{beside} · shape {check.shape.text(3)} · pairs {check.pairs.text(3)} · of"
        f" {check.m:,} synthetic and {check.n:,} held-out rows; 1 is alike"
    ]
    if check.nearer.known:
        lines.append(f"Nearer to a train row than to a held-out row: {check.nearer.text(3)}; 1/2 is expected")
    lines += [f"The first {shown} of {len(check.columns)} columns"] * (shown < len(check.columns))
    lines += [s for s in check.sentences if s != PRIVACY and not s.startswith("Memorisation")]
    return "\n".join([*lines, PRIVACY])


def _steps(axes: Axes, x: Rows, s: Rows, _: Sequence[Any]) -> None:
    """Two densities of a number, in bins that hold the middle 99 % of both; holes are given as text."""
    both = np.concatenate([x, s])
    both = both[~np.isnan(both)]
    if not len(both):
        return
    low, high = np.quantile(both, [0.005, 0.995])
    whole = np.array_equal(both, np.round(both)) and high - low < BINS
    edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high if high > low else low + 1, BINS + 1)
    for values, colour in ((x, REAL), (s, MADE)):
        share = np.histogram(values[~np.isnan(values)], edges)[0] / max(len(values), 1)
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=1.3)
    axes.margins(x=0)
    axes.locator_params(axis="x", nbins=4)
    _tell_holes(axes, x, s)


def _bars(axes: Axes, x: Rows, s: Rows, levels: Sequence[Any]) -> None:
    """The shares of the most frequent levels of what is there, real over synthetic; holes are given as text."""
    _tell_holes(axes, x, s)
    top, shares = _most_frequent(*(side[~np.isnan(side)] for side in (x, s)))
    names = [_short(str(levels[int(v)]) if int(v) < len(levels) else f"{v:g}", 11) for v in top]
    names += ["others"] * (shares.shape[1] - len(names))
    at = np.arange(len(names))
    for offset, part, colour in ((-0.2, shares[0], REAL), (0.2, shares[1], MADE)):
        axes.barh(at + offset, part, 0.38, color=colour)
        axes.spines["bottom"].set_visible(False)
    for y, name in enumerate(names):
        axes.text(-0.01, y, name, ha="right", va="center", fontsize=8, color=GREY, transform=axes.get_yaxis_transform())
    axes.invert_yaxis()
    axes.set_xticks([])


def _most_frequent(x: Rows, s: Rows) -> tuple[Rows, Rows]:
    """The most frequent values of both sides, and their shares of each side (2, values); last that of the others."""
    known, counts = np.unique(np.concatenate([x, s]), return_counts=True)
    top = known[np.argsort(-counts, kind="stable")[:MOST_BARS]]
    shares = np.array([(side[:, None] == top).sum(0) / max(len(side), 1) for side in (x, s)])
    others = 1 - shares.sum(1, keepdims=True)
    return top, np.hstack([shares, others]) if others.max() > 1e-9 else shares


def _tell_holes(axes: Axes, x: Rows, s: Rows) -> None:
    """The shares of missing values, where there are any."""
    shares = [float(np.isnan(side).mean()) for side in (x, s)]
    if max(shares) > 0:
        axes.set_xlabel(f"holes {shares[0]:.0%}, synthetic {shares[1]:.0%}")


def _pairs(axes: Axes, check: SampleCheck) -> None:
    """The matrix of the pairs' similarities."""
    found = np.ma.masked_invalid(check.pair_matrix)
    low = min(0.8, float(found.min()))
    image = axes.imshow(found, vmin=low, vmax=1, cmap="YlGnBu_r", aspect="auto", interpolation="none")
    axes.set_facecolor(FAINT)
    n, size = len(check.paired), 9 if len(check.paired) <= 20 else 7
    names = [_short(name, 18) for name in check.paired]
    axes.set_xticks(range(n), names, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(range(n), names, fontsize=size)
    axes.tick_params(length=0)
    axes.set_title("pairs")
    if n <= 10:
        for i, j in zip(*np.nonzero(~np.ma.getmaskarray(found)), strict=True):
            dark = found[i, j] < low + 0.5 * (1 - low)
            axes.text(
                int(j),
                int(i),
                f"{found[i, j]:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else INK,
            )
    axes.figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01, anchor=(0.0, 0.5))


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
