"""What tells clusters apart: a card for each, with its size, its typical rows and its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aevb.notation import short
from aevb.use.cluster import Clusters

TYPICAL = 8  # rows that a card names
HOLE = "(missing)"  # the value of a trait that is the share of holes


@dataclass(frozen=True)
class Trait:
    """What one column of a table is like in a cluster.

    Attributes:
        name: of the column; value: its mean in the cluster, the most frequent of its levels, or `HOLE`.
        rest: the mean of the other rows, or the share of `value` among them.
        difference: of the means, in standard deviations of all rows; or of the shares of `value`.
        share: of `value` in the cluster; None of a mean.
    """

    name: str
    value: Any
    rest: float
    difference: float
    share: float | None = None


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
    typical: int = TYPICAL,
) -> list[Card]:
    """A card for each cluster that has rows.

    Args:
        rows: the numbers of a table (N, F), NaN where missing, in the units that the cards speak of; None of images.
        names: of the F columns.
        levels: what the codes 0, 1, ... of a column mean, for those that are categories; empty for numbers.
        typical: rows named on a card.
    """
    sizes, which = found.sizes.tolist(), found.assigned.numpy()
    made = []
    for c in [c for c, n in enumerate(sizes) if n]:
        traits = [] if rows is None else traits_of(rows, which == c, names, levels)
        best = tuple(found.typical(c, typical))
        made.append(Card(c, sizes[c], sizes[c] / len(which), best, tuple(traits)))
    return made


def traits_of(
    rows: NDArray[Any], inside: NDArray[np.bool_], names: Sequence[str], levels: Sequence[Sequence[Any]] = ()
) -> list[Trait]:
    """Each column of rows (N, F) inside a cluster against the others, the largest difference first; and its holes."""
    found = []
    for j, name in enumerate(names or [f"column {j}" for j in range(rows.shape[1])]):
        column = rows[:, j].astype(float)
        known, words = ~np.isnan(column), levels[j] if levels else ()
        a, b = column[known & inside], column[known & ~inside]
        if len(a):
            found.append(frequent(name, a, b, words) if len(words) else average(name, a, b))
        if known.any() and not known.all() and not inside.all():
            found.append(missing(name, ~known[inside], ~known[~inside]))
    return sorted(found, key=lambda trait: -abs(trait.difference))


def average(name: str, a: NDArray[Any], b: NDArray[Any]) -> Trait:
    """The mean of a against that of b; the difference is 0 where all are the same, or there is no b."""
    sd = float(np.concatenate([a, b]).std())
    rest = float(b.mean()) if len(b) else float("nan")
    return Trait(name, float(a.mean()), rest, (float(a.mean()) - rest) / sd if len(b) and sd > 0 else 0.0)


def frequent(name: str, a: NDArray[Any], b: NDArray[Any], levels: Sequence[Any]) -> Trait:
    """The most frequent level of a, and its shares in a and in b."""
    code = int(np.bincount(a.astype(int), minlength=len(levels)).argmax())
    share, rest = float((a == code).mean()), float((b == code).mean()) if len(b) else float("nan")
    return Trait(name, levels[code], rest, share - rest if len(b) else 0.0, share)


def missing(name: str, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Trait:
    """The shares of holes of a column in a cluster, and among the other rows."""
    share, rest = float(a.mean()), float(b.mean()) if len(b) else float("nan")
    return Trait(name, HOLE, rest, share - rest if len(b) else 0.0, share)


def label(trait: Trait) -> str:
    """«age 47 (rest 38)», or «job = farmer 60% (rest 3%)»."""
    if trait.share is None:
        return f"{clipped(trait.name)} {short(trait.value)} (rest {short(trait.rest)})"
    return f"{clipped(trait.name)} = {clipped(str(trait.value))} {trait.share:.0%} (rest {trait.rest:.0%})"


def clipped(words: str, most: int = 18) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"


def share_text(card: Card) -> str:
    return f"{card.share:.0%}" if card.share >= 0.01 else "< 1%"
