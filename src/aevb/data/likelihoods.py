"""A column of a kind, with what is measured of it: levels, map, center, scale, and the likelihood that suits it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.cells import DATE, NUMBER, WORD, Cells
from aevb.data.columns import CODED, EXPOSURE, UNMODELLED, Column, step_of
from aevb.data.dates import to_local, zone_of
from aevb.parts import LEVELS

NORMAL_IQR = 1.349  # of a standard normal
DECADE = 10.0  # the ratio of two quantiles from which on logarithms are taken
SKEWED = 1.0
SPIKED = "quantiles"  # the likelihood of numbers with spikes or several modes
HEAVY = 6.0  # of the IQR between the quantiles 0.5 % and 99.5 %: 3.8 of a normal, 7.6 of Student's t with 3
FEW = 10  # different numbers
FINEST = 8  # decimals; more are noise of binary numbers
SPIKE = 0.15  # of the rows share one number
ENOUGH = 100  # rows, for a judgement on tails or spikes
COARSE = 1e-3  # of the scale of a column: a step of its numbers that rounding finds again
Numbers = NDArray[np.float64]


def measured(cells: Cells, kind: str, why: str, seen: Cells | None = None) -> Column:
    """The column of this kind, which it can be.

    Args:
        cells: all of the column, which give its levels and holes.
        seen: those which give center, scale, bounds and likelihood; all of them by default.
    """
    column = Column(cells.name, kind, cells.dtype, why, holes=cells.holes)
    if kind in UNMODELLED or not len(cells.numbers):
        return replace(column, levels=_values(cells)) if kind == "constant" else column
    if kind in CODED:
        return replace(column, likelihood="categorical", levels=_values(cells))
    if kind == "angle":
        return replace(column, likelihood="von-mises", levels=circle(cells.floats))
    return suited_map(column, numbers_of(cells if seen is None or not len(seen.numbers) else seen, kind), cells)


def unfit(cells: Cells, kind: str) -> str:
    """Why a column cannot be of a kind; "" where it can."""
    if kind in UNMODELLED or not len(cells.numbers):
        return ""
    if kind in CODED:
        levels = cells.distinct
        if levels > LEVELS:
            return f"it has {levels:,} levels, and {LEVELS:,} are possible. Leave it out: {cells.name}=id"
        levels = len(_values(cells))
        return f"it has {levels:,} different values" if kind == "binary" and levels != 2 else ""
    if kind == "datetime":
        return "" if cells.form == DATE or cells.dates is not None else "its values are not dates"
    if cells.form == NUMBER and cells.origin and kind != "real":
        return f"its numbers, such as {cells.numbers[0]}, differ only in their last digits. Make it real"
    return unfit_numbers(cells.floats, kind) if cells.form == NUMBER else "its values are not numbers"


def unfit_numbers(x: Numbers, kind: str) -> str:
    """Why numbers cannot be of a kind; "" where they can."""
    if kind in ("positive", "count") and (x.min() < 0 or (kind == "positive" and x.min() == 0)):
        return f"it holds {x.min():g}"
    broken = x[x != np.trunc(x)]
    return f"it holds {broken[0]:g}" if kind == "count" and len(broken) else ""


def _values(cells: Cells) -> tuple[Any, ...]:
    """The levels, or the different numbers or dates, in order, as JSON can hold them."""
    if cells.form == WORD:
        shown = cells.levels if cells.distinct > 1 else tuple(cells.levels[int(c)] for c in np.unique(cells.numbers))
        return shown if cells.dtype == "String" else tuple(map(plain, shown))
    return tuple(map(plain, np.unique(cells.numbers).tolist()))


def plain(value: Any) -> Any:
    """A level as JSON can hold it."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def numbers_of(cells: Cells, kind: str) -> Numbers:
    """The stored numbers of the cells that are there: numbers, or seconds of dates."""
    if kind != "datetime" or cells.form != WORD:
        return cells.floats
    assert cells.dates is not None
    seconds = cells.dates.seconds[cells.numbers]
    return seconds[~np.isnan(seconds)]


def circle(x: Numbers) -> tuple[float, float]:
    """Where the circle begins and how long it is: radians, or degrees where numbers go beyond 2π."""
    if np.abs(x).max() <= 2 * math.pi:
        return (-math.pi if x.min() < 0 else 0.0, 2 * math.pi)
    return (-180.0 if x.min() < 0 else 0.0, 360.0)


def suited_map(column: Column, x: Numbers, cells: Cells) -> Column:
    """With bounds, map, center, scale and likelihood."""
    column = noted(column, x, cells)
    if column.kind == EXPOSURE:
        return replace(column, scale=float(np.sort(x)[(len(x) - 1) // 2]))  # the median, as one that was seen
    if column.kind == "count":
        return suited(replace(column, likelihood=suited_count(x)), x)
    if column.kind == "bounded":
        low, high = bounds(x)
        column = replace(column, low=low, high=high, map="logit")
    elif column.kind == "positive" and spreads(x):
        column = replace(column, map="log")
    center, scale = robust(mapped(column, x))
    tails = "student-t" if len(x) >= ENOUGH and heavy(mapped(column, x)) else "normal"
    return suited(replace(column, center=center, scale=scale, likelihood=tails), x)


def noted(column: Column, x: Numbers, cells: Cells) -> Column:
    """With the smallest and the largest number, decimals, and the form of dates that stand as text."""
    decimals = decimals_of(x.astype(np.float32) if cells.dtype == "Float32" else x)
    multiple = 0.0 if decimals is None or cells.origin else multiple_of(x, decimals)
    column = replace(column, decimals=decimals, multiple=multiple, origin=cells.origin)
    if decimals is not None and (zone := zone_of(cells.dtype)):
        local = multiple_of(to_local(x, zone), decimals)
        column = replace(column, multiple=local, clocks=True) if local > multiple else column
    column = replace(column, low=float(x.min()), high=float(x.max()))
    dates = cells.dates if cells.form == WORD else None
    return column if dates is None else replace(column, dtype=f"{cells.dtype}(format={dates.form!r})")


def decimals_of(numbers: NDArray[Any]) -> int | None:
    """How many decimals the numbers have, in their own type; None where they have more than `FINEST`."""
    first = next((k for k in range(FINEST + 1) if same(numbers[:ENOUGH], k)), FINEST)
    return next((k for k in range(first, FINEST + 1) if same(numbers, k)), None)


def multiple_of(numbers: Numbers, decimals: int) -> float:
    """The largest number of which all are multiples, such as 25 of weights in grams; 0 where decimals say as much.

    Of fewer than `FEW` different numbers it may be chance.
    """
    units = np.unique(np.round(numbers * 10.0**decimals))
    if len(units) < FEW or abs(units).max() > 2**53:
        return 0.0
    largest = int(np.gcd.reduce(units.astype(np.int64)))
    return 0.0 if largest == 1 else largest / 10.0**decimals


def same(numbers: NDArray[Any], decimals: int) -> bool:
    """Whether rounding changes none of them."""
    return bool((np.round(numbers.astype(np.float64), decimals).astype(numbers.dtype) == numbers).all())


def bounds(x: Numbers) -> tuple[float, float]:
    """0 and 1, or 0 and 100, where all numbers are between; else the smallest and the largest."""
    for top in (1.0, 100.0):
        if x.min() >= 0 and x.max() <= top:
            return 0.0, top
    return float(x.min()), float(x.max())


def spreads(x: Numbers) -> bool:
    """Whether positive numbers are skewed, more than their logarithms: over more than a decade, or clearly."""
    low, high = np.quantile(x, [0.01, 0.99])
    skewed = skew(x)
    return bool(skewed > abs(skew(np.log(x))) and (high > DECADE * low or skewed > SKEWED))


def skew(x: Numbers) -> float:
    x = x / (np.abs(x).max() or 1)  # whose squares are finite
    far, spread = x - x.mean(), x.std()
    return float(((far / spread) ** 3).mean()) if spread > 0 else 0.0


def mapped(column: Column, x: Numbers) -> Numbers:
    """The map of the column, before center and scale."""
    import torch

    return replace(column, center=0.0, scale=1.0).numbers(torch.from_numpy(np.array(x))).numpy()


def robust(x: Numbers) -> tuple[float, float]:
    """Median, and IQR / 1.349; the standard deviation where the IQR is 0, and 1 where that is 0 as well."""
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75])
    scale = (high - low) / NORMAL_IQR or float(x.std())
    return float(middle), float(scale if math.isfinite(scale) and scale > 0 else 1.0)


def suited(column: Column, x: Numbers) -> Column:
    """The column with the likelihood that suits its numbers x, as stored: its own, or quantiles where held-out rows
    are clearly more probable by them, as of numbers with spikes or several modes."""
    from aevb.data.heldout import bins_for, gain_of_quantiles

    if len(x) < ENOUGH:
        return column
    if column.kind != "count" and (share := spike(x)) >= SPIKE:  # where a density has no bound
        why = f"{column.why}; {share:.0%} of the rows share one number"
    elif (gain := gain_of_quantiles(column, x)).clear:
        why = f"{column.why}; quantiles: {gain}, against {column.likelihood}"
    else:
        return column
    center, scale = (0.0, 1.0) if column.kind == "count" else robust(x)
    column = replace(column, likelihood=SPIKED, bins=bins_for(len(x)), why=why)
    column = replace(column, map="identity", center=center, scale=scale)
    return replace(column, spikes=spikes(column, x))


def spikes(column: Column, x: Numbers) -> tuple[float, ...]:
    """The numbers x that have a bin of their own; none where rounding restores them."""
    import torch

    from aevb.probability.quantiles import spikes_of

    if step_of(column) > COARSE * column.scale:
        return ()
    values, counts = np.unique(x, return_counts=True)
    found: list[float] = spikes_of(torch.tensor(values), torch.tensor(counts), column.bins - 1).tolist()
    return tuple(found)


def spike(x: Numbers) -> float:
    """The share of the rows that hold the most frequent number."""
    return float(np.unique(x, return_counts=True)[1].max() / len(x))


def heavy(x: Numbers) -> bool:
    """Whether tails are heavier than a normal's, by quantiles, which no single row moves."""
    lowest, low, high, highest = np.quantile(x, [0.005, 0.25, 0.75, 0.995])
    return bool(highest - lowest > HEAVY * (high - low))


def suited_count(x: Numbers, e: Numbers | None = None) -> str:
    """Poisson where the variance is as the mean; negative binomial above; with more zeros where it has too few.

    Args:
        x: (N,), counts.
        e: (N,), their exposures, to which the means are in proportion; all alike by default.
    """
    each = np.ones(len(x)) if e is None else e
    mean = each * (x.sum() / each.sum())
    variance, zeros = float(((x - mean) ** 2).mean()), float((x == 0).mean())
    if variance <= 1.2 * mean.mean():
        return "poisson"
    r = float((mean**2).mean() / (variance - mean.mean()))
    expected = float(((r / (r + mean)) ** r).mean())
    return "zero-inflated-negative-binomial" if zeros > expected + 0.1 else "negative-binomial"
