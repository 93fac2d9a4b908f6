"""The figure of a sweep: the numbers of its runs, over a setting or by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aevb.errors import DataError
from aevb.evaluation.estimate import Estimate
from aevb.figures.style import GREY, PALETTE, chart, settle, styled
from aevb.runs.grid import short_keys, written
from aevb.runs.sweeps import NUMBERS, Summary, Trial

SPREAD = 0.12  # of the distance of two settings, over which the seeds of one are spread
APART = 0.4  # of it, over which lines are spread
MOST = 16  # seeds that are named at an axis


@styled
def sweep(trials: Sequence[Trial], number: str = "elbo", title: str = "") -> Figure:
    """The bound of each run of a sweep, in nats: over the setting that was swept, or by seed where none was.

    A dot is a run; a line with bars is the mean ± standard deviation over seeds. By seed, a bar is the standard error
    over the test points. Further settings are lines of other colours.

    Args:
        trials: of `aevb.sweep(...)`.
        number: "elbo", or "log_likelihood", the estimate of log p(x).

    Raises:
        DataError: no run has this number.
    """
    known = [t for t in trials if number in t.numbers and t.numbers[number].known]
    if number not in NUMBERS or not known:
        raise DataError(f"figures.sweep: no run of this sweep has {number!r}. Choose from {', '.join(NUMBERS)}.")
    keys = swept(trials)
    names = short_keys(list(trials[0].settings))
    figure = chart(
        1150, 590, title or f"{NUMBERS[number]} by {names[keys[0]] if keys else 'seed'}", _caption(bool(keys))
    )
    axes = figure.add_subplot()
    axes.set_ylabel(f"{NUMBERS[number]}, nats")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if keys:
        _over_settings(axes, trials, keys, number)
        axes.set_xlabel(names[keys[0]])
    else:
        _by_seed(axes, known, number)
        axes.set_xlabel("seed")
    return settle(figure)


def swept(trials: Sequence[Trial]) -> list[str]:
    """The keys of which a sweep has several values, the one with the most first."""
    values = {key: {written(t.settings[key]) for t in trials} for key in trials[0].settings}
    several = [key for key, found in values.items() if len(found) > 1]
    return sorted(several, key=lambda key: -len(values[key]))


def _caption(settings: bool) -> str:
    if settings:
        return "Dots: runs. Bars: mean ± standard deviation over seeds."
    return "Bars: standard error over test points. Line: mean over seeds."


def _over_settings(axes: Axes, trials: Sequence[Trial], keys: Sequence[str], number: str) -> None:
    """A line for each combination of the further settings, over the values of the first."""
    values = list(dict.fromkeys(written(t.settings[keys[0]]) for t in trials))
    places = {value: float(i) for i, value in enumerate(values)}
    axes.set_xticks(list(places.values()), [_short(value, len(values)) for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    names = short_keys(list(trials[0].settings))
    lines: dict[str, dict[str, list[Estimate]]] = {}
    for t in trials:
        label = ", ".join(f"{names[key]} = {_short(written(t.settings[key]))}" for key in keys[1:])
        there = lines.setdefault(label, {})
        if number in t.numbers and t.numbers[number].known:  # not of a training that diverged
            there.setdefault(written(t.settings[keys[0]]), []).append(t.numbers[number])
    for i, (label, found) in enumerate(lines.items()):
        beside = APART * (i - (len(lines) - 1) / 2) / max(len(lines) - 1, 1)
        at = {places[value] + beside: reached for value, reached in found.items()}
        _line(axes, at, PALETTE[i % len(PALETTE)], label, SPREAD / len(lines))
    if len(lines) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _short(value: str, many: int = 4) -> str:
    """A value at an axis, where so many stand."""
    most = max(96 // many, 6)
    return value if len(value) <= most else f"{value[: most - 1]}…"


def _line(axes: Axes, found: Mapping[float, Sequence[Estimate]], colour: str, label: str, width: float) -> None:
    at = sorted(found)
    of = [Summary.of(found[x]) for x in at]
    spread = [0.0 if math.isnan(s.sd) else s.sd for s in of]
    style: dict[str, Any] = {"color": colour, "linewidth": 1.6, "capsize": 4, "label": label or None}
    axes.errorbar(at, [s.mean for s in of], yerr=spread, **style)
    for x in at:
        beside = x + width * np.linspace(-1, 1, len(found[x])) * (len(found[x]) > 1)
        axes.scatter(beside, [float(e) for e in found[x]], s=12, color=colour, alpha=0.6, linewidths=0)


def _by_seed(axes: Axes, trials: Sequence[Trial], number: str) -> None:
    found = [t.numbers[number] for t in trials]
    at = list(range(len(found)))
    every = math.ceil(len(trials) / MOST)
    axes.set_xticks(at[::every], [str(t.seed) for t in trials[::every]])
    errors = [0.0 if math.isnan(e.se) else e.se for e in found]
    axes.errorbar(at, [float(e) for e in found], yerr=errors, fmt="o", color=PALETTE[0], capsize=4)
    axes.axhline(float(np.mean(found)), color=GREY, linewidth=1)
