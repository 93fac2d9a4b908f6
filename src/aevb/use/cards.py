"""What tells clusters apart: a card for each, with its size, its typical rows and its columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aevb.notation import short
from aevb.use.cluster import Clusters

TYPICAL = 8  # rows that a card names
Write = Callable[[float], str]
HOLE = "(missing)"  # the value of a trait that is the share of holes


@dataclass(frozen=True)
class Trait:
    """What one column of a table is like in a cluster.

    Attributes:
        name: of the column; value: its mean in the cluster, the most frequent of its levels, or `HOLE`.
        rest: the mean of the other rows, or the share of `value` among them.
        difference: of the means, in standard deviations of all rows; or of the shares of `value`.
        share: of `value` in the cluster; None of a mean.
        words: a mean and that of the rest as they are written, such as dates; None of numbers.
    """

    name: str
    value: Any
    rest: float
    difference: float
    share: float | None = None
    words: tuple[str, str] | None = None


@dataclass(frozen=True)
class Card:
    """What a cluster is like.

    Attributes:
        cluster: its number; n: its rows; share: of all rows.
        typical: the positions of its most typical rows.
        traits: the columns of a table, those first that differ most from the other rows; none of images.
    """

    cluster: int
    n: int
    share: float
    typical: tuple[int, ...]
    traits: tuple[Trait, ...]


def cards(
    found: Clusters,
    rows: NDArray[Any] | None = None,
    names: Sequence[str] = (),
    levels: Sequence[Sequence[Any]] = (),
    write: Sequence[Write | None] = (),
    typical: int = TYPICAL,
) -> list[Card]:
    """A card for each cluster that has rows.

    Args:
        rows: the numbers of a table (N, F), NaN where missing, in the units that the cards speak of; None of images.
        names: of the F columns.
        levels: what the codes 0, 1, ... of a column mean, for those that are categories; empty for numbers.
        write: how the numbers of a column are written, for those that are dates or times; None for numbers.
        typical: rows named on a card.
    """
    tallies = None if rows is None else Tallies(found.p.shape[1], rows.shape[1], names, levels, write)
    if rows is not None and tallies is not None:
        tallies.add(rows, found.assigned.numpy())
    sizes = found.sizes.tolist()
    return dealt(sizes, [found.typical(c, typical) for c in range(len(sizes))], tallies)


def dealt(sizes: Sequence[int], typical: Sequence[Sequence[int]], tallies: Tallies | None) -> list[Card]:
    """A card for each cluster that has rows, from its size, its typical rows and what was tallied of its columns."""
    n, there = sum(sizes), [c for c, size in enumerate(sizes) if size]
    traits = [() if tallies is None else tuple(tallies.traits(c)) for c in there]
    return [Card(c, sizes[c], sizes[c] / n, tuple(typical[c]), own) for c, own in zip(there, traits, strict=True)]


def traits_of(
    rows: NDArray[Any], inside: NDArray[np.bool_], names: Sequence[str] = (), levels: Sequence[Sequence[Any]] = ()
) -> list[Trait]:
    """Each column of rows (N, F) inside a cluster against the others, the largest difference first; and its holes."""
    tallies = Tallies(2, rows.shape[1], names, levels)
    tallies.add(rows, np.where(inside, 0, 1))
    return tallies.traits(0)


class Tallies:
    """What cards need of rows, which are added some at a time.

    Moments of parts are joined as in Chan, Golub & LeVeque (1983, doi 10.1080/00031305.1983.10483115).

    Args:
        clusters, columns: C and F; names, levels, write: of the columns, as of `cards`.

    Attributes:
        rows: of each cluster, (C,); known: cells that are there, mean: theirs, squares: the sum of their squared
            distances from it, (C, F); low, high: the least and largest cell, (F,); counts: of levels, (C, L) each.
    """

    def __init__(
        self,
        clusters: int,
        columns: int,
        names: Sequence[str] = (),
        levels: Sequence[Sequence[Any]] = (),
        write: Sequence[Write | None] = (),
    ) -> None:
        self.write = write or [None] * columns
        self.names, self.levels = names or [f"column {j}" for j in range(columns)], levels or [()] * columns
        self.rows = np.zeros(clusters, np.int64)
        self.known, self.mean, self.squares = (np.zeros((clusters, columns)) for _ in range(3))
        self.low, self.high = np.full(columns, np.inf), np.full(columns, -np.inf)
        self.counts = [np.zeros((clusters, len(words)), np.int32) for words in self.levels]

    def add(self, rows: NDArray[Any], which: NDArray[Any]) -> None:
        """Tally rows (B, F), NaN where missing, of these clusters (B,)."""
        x = rows.astype(np.float64)
        for c in np.unique(which):
            self._join(int(c), x[which == c])
        self.low = np.fmin(self.low, np.fmin.reduce(x, 0, initial=np.inf))
        self.high = np.fmax(self.high, np.fmax.reduce(x, 0, initial=-np.inf))
        for j, counts in enumerate(self.counts):
            if counts.size:
                there = ~np.isnan(x[:, j])
                np.add.at(counts, (which[there], x[there, j].astype(np.int64)), 1)

    def ordered(self, order: NDArray[np.int64]) -> Tallies:
        """The same of the clusters in another order."""
        made = Tallies(0, len(self.names), self.names, self.levels, self.write)
        made.low, made.high, made.rows = self.low, self.high, self.rows[order]
        made.known, made.mean, made.squares = self.known[order], self.mean[order], self.squares[order]
        made.counts = [counts[order] for counts in self.counts]
        return made

    def _join(self, c: int, x: NDArray[np.float64]) -> None:
        n = (~np.isnan(x)).sum(0)
        mean = np.nansum(x, 0) / np.maximum(n, 1)
        total = self.known[c] + n
        step, share = mean - self.mean[c], n / np.maximum(total, 1)
        self.squares[c] += np.nansum((x - mean) ** 2, 0) + step**2 * self.known[c] * share
        self.mean[c] += step * share
        self.known[c], self.rows[c] = total, self.rows[c] + len(x)

    def traits(self, c: int) -> list[Trait]:
        """Each column of a cluster against the other clusters, the largest difference first; and its holes."""
        found = []
        for j, words in enumerate(self.levels):
            known, seen = self.known[c, j], self.known[:, j].sum()
            if known:
                found.append(self._frequent(c, j) if len(words) else self._average(c, j))
            if 0 < seen < self.rows.sum() and self.rows[c] < self.rows.sum():
                found.append(self._missing(c, j))
        return sorted(found, key=lambda trait: -abs(trait.difference))

    def _average(self, c: int, j: int) -> Trait:
        """The mean against that of the others; the difference is 0 where all are the same, or there are no others."""
        n, mean, own = self.known[:, j], self.mean[:, j], float(self.mean[c, j])
        others = n * (np.arange(len(n)) != c)
        grand = (n * mean).sum() / n.sum()
        sd = float(((self.squares[:, j] + n * (mean - grand) ** 2).sum() / n.sum()) ** 0.5)
        rest = float((others * mean).sum() / others.sum()) if others.any() else float("nan")
        differs = others.any() and self.low[j] < self.high[j] and sd > 0
        written = self.write[j]
        words = None if written is None else (written(own), "" if math.isnan(rest) else written(rest))
        return Trait(self.names[j], own, rest, (own - rest) / sd if differs else 0.0, words=words)

    def _frequent(self, c: int, j: int) -> Trait:
        """The most frequent level, and its shares in the cluster and among the others."""
        counts, n = self.counts[j], self.known[:, j]
        code = int(counts[c].argmax())
        share, others = float(counts[c, code] / n[c]), n.sum() - n[c]
        rest = float((counts[:, code].sum() - counts[c, code]) / others) if others else float("nan")
        return Trait(self.names[j], self.levels[j][code], rest, share - rest if others else 0.0, share)

    def _missing(self, c: int, j: int) -> Trait:
        """The shares of holes in the cluster, and among the other rows."""
        holes = self.rows - self.known[:, j]
        share = float(holes[c] / self.rows[c])
        rest = float((holes.sum() - holes[c]) / (self.rows.sum() - self.rows[c]))
        return Trait(self.names[j], HOLE, rest, share - rest, share)


def label(trait: Trait) -> str:
    """«age 47 (rest 38)», or «job = farmer 60% (rest 3%)»; without the rest, where there are no other rows."""
    if trait.share is None:
        value, rest = trait.words or (short(trait.value), short(trait.rest))
        own = f"{clipped(trait.name)} {value}"
    else:
        own, rest = f"{clipped(trait.name)} = {clipped(str(trait.value))} {trait.share:.0%}", f"{trait.rest:.0%}"
    return own if math.isnan(trait.rest) else f"{own} (rest {rest})"


def clipped(words: str, most: int = 18) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"


def share_text(card: Card) -> str:
    return f"{card.share:.0%}" if card.share >= 0.01 else "< 1%"
