"""The same experiment by several seeds: which are trained, and how far their numbers spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from aevb.reproduce.curves import Curve, has_weights, read, seeded

Line = Mapping[str, Any]


def seen(curve: Curve, place: Path) -> int:
    """Training samples of a curve so far."""
    followed = read(curve, place)
    return int(followed.rows[-1]["samples"]) if followed else 0


def alike(curve: Curve, place: Path) -> list[Curve]:
    """The curve, then itself by seeds 1, 2, ...: those with weights, after as many training samples as itself."""
    there = takewhile(lambda c: has_weights(c, place), (seeded(curve, seed) for seed in count()))
    return [c for c in there if seen(c, place) == seen(curve, place)]


def spread(tables: Sequence[Sequence[Line]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Line by line, the mean of each number over the tables of several seeds, and `_sd`, its standard deviation.

    Args:
        tables: for each seed, the same lines in the same order.
        keys: what names a line; it is kept. Standard errors (`_se`), which are of one seed, and text are left out.

    Returns:
        No line where there is one seed.
    """
    return [_over_seeds(lines, keys) for lines in zip(*tables, strict=True) if len(tables) > 1]


def _over_seeds(lines: Sequence[Line], keys: Sequence[str]) -> dict[str, Any]:
    found = {**{key: lines[0][key] for key in keys}, "seeds": len(lines)}
    for name, first in lines[0].items():
        if isinstance(first, (int, float)) and not name.endswith("_se") and name not in keys:
            numbers = [float(line[name]) for line in lines]
            found |= {name: mean(numbers), f"{name}_sd": stdev(numbers)}
    return found


def rounded(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """With four significant digits."""
    return [{k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in line.items()} for line in lines]
