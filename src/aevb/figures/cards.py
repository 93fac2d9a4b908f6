"""The cards of clusters: of images the decoded mean and typical ones, of tables what differs most from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from aevb.figures.style import (
    GAP,
    PALETTE,
    as_tiles,
    chart,
    common_limits,
    image_grid,
    settle,
    sheet,
    stack,
    styled,
)
from aevb.use.cards import Card, Trait, label, share_text

TRAITS = 6  # columns on a card
ACROSS = 3  # cards side by side, at most
WIDTH, LETTER, BARS = 1150, 10, 120  # pixels: of all cards, of a letter beside bars, of bars at least


@styled
def image_cards(cards: Sequence[Card], means: Tensor, rows: Sequence[Tensor], title: str = "Clusters") -> Figure:
    """For each cluster, from left to right, the decoded mean of its codes and its most typical images.

    Args:
        cards: of C clusters.
        means: (C, *X), decoded.
        rows: of each cluster its typical images (T, *X), T at most the same for all.
    """
    across = max(map(len, rows))
    limits = common_limits(means, torch.cat(list(rows)))
    tiles = [as_tiles(torch.cat([means[i : i + 1], x]), limits, len(cards), across + 1) for i, x in enumerate(rows)]
    side = tiles[0].shape[2]
    lines = [stack([image_grid(t[:1], 1), image_grid(_filled(t[1:], across), across, GAP)], 1, 4 * GAP) for t in tiles]
    left = [((side + GAP) * i + side / 2, f"{card.cluster}: {share_text(card)}") for i, card in enumerate(cards)]
    caption = "Left: decoded from the mean code. Right: typical rows"
    return sheet(stack(lines, 0, GAP), title, caption, left=left, margin=80)


def _filled(tiles: Tensor, across: int) -> Tensor:
    """White tiles after (n, C, h, w), up to `across`."""
    return torch.cat([tiles, tiles.new_ones(across - len(tiles), *tiles.shape[1:])])


@styled
def table_cards(cards: Sequence[Card], title: str = "Clusters") -> Figure:
    """For each cluster of a table's rows the columns that differ most from the other rows, and by how much."""
    across = _across(cards)
    down = ceil(len(cards) / across)
    tall = max((len(card.traits[:TRAITS]) for card in cards), default=1)
    caption = "Bars: mean minus that of the other rows, in standard deviations; or the difference of a level's shares"
    figure = chart(WIDTH, 90 + down * (70 + 34 * tall), title, caption)
    grid = figure.add_gridspec(down, across)
    widest = max((abs(t.difference) for card in cards for t in card.traits[:TRAITS]), default=0.0) or 1.0
    for i, card in enumerate(cards):
        axes = figure.add_subplot(grid[i // across, i % across])
        axes.set_title(f"{card.cluster}: {card.n:,} rows, {share_text(card)}")
        _bars(axes, card.traits[:TRAITS], widest, tall)
    return settle(figure)


def _across(cards: Sequence[Card]) -> int:
    """How many cards fit beside each other: their longest words, and bars of some width."""
    longest = max((len(label(trait)) for card in cards for trait in card.traits[:TRAITS]), default=0)
    return max(1, min(ACROSS, WIDTH // (LETTER * longest + BARS)))


def _bars(axes: Axes, traits: Sequence[Trait], widest: float, tall: int) -> None:
    """One bar for each trait, the first at the top."""
    at = range(len(traits))
    colours = [PALETTE[3] if t.difference > 0 else PALETTE[0] for t in traits]
    axes.barh(list(at), [t.difference for t in traits], color=colours, height=0.55)
    axes.set_yticks(list(at), [label(t) for t in traits])
    axes.set_ylim(tall - 0.5, -0.5)
    axes.set_xlim(-1.1 * widest, 1.1 * widest)
    axes.axvline(0, color="0.7", linewidth=0.8)
