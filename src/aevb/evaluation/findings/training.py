"""How the training ended: broken off, diverged, too short, or long after its best."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from aevb.evaluation.estimate import Estimate
from aevb.evaluation.exam import Check, Finding, Story

LAST = 3  # a rise is looked for in the last third of the training
FEWEST = 6  # records in it
RISE = 0.02  # of all that was gained since the first record
SIGNIFICANT = 4.0  # standard errors; records of one training are not independent
LONGER, LEAST = 10, 500_000  # times as many training samples, or so many: patience ends it before
PATIENCE = 10  # validations without a better bound
USUAL = 1e-3  # step size of most recipes


def listen(story: Story) -> Iterator[Finding]:
    if story.status == "diverged":
        yield _diverged(story)
    elif story.status == "interrupted":
        yield _interrupted(story)
    elif story.facts.get("stopped") == "samples":
        yield from _unfinished(story)
        yield from _past_its_best(story)


def _diverged(story: Story) -> Finding:
    rate = story.part("training", "optimizer", {}).get("lr", 1e-3)
    text = f"The training diverged after {_seen(story):,} training samples, at a step size of {rate:g}."
    raw = story.part("data", "values") == "raw"
    change = "data.values=standardized" if raw else f"training.optimizer.lr={min(rate / 10, USUAL):g}"
    why = "Bring the columns to one scale" if raw else "Train again with a smaller step size"
    return Finding("diverged", text, f"{why}: {story.commands.again(change)}", {"lr": rate})


def _interrupted(story: Story) -> Finding:
    total = story.part("training", "samples", 0)
    text = f"The training was interrupted after {_seen(story):,} of {total:,} training samples."
    numbers = {"samples": _seen(story), "total": total}
    return Finding("interrupted", text, f"Resume it: {story.commands.resume(None)}", numbers)


def _seen(story: Story) -> int:
    """Training samples up to the last record."""
    return max([int(story.facts.get("samples", 0)), *(int(record["samples"]) for record in story.metrics)])


def _unfinished(story: Story) -> Iterator[Finding]:
    """The bound still rises: a line through the last third of its records has a slope."""
    side = _side(story)
    samples, bound = (np.array(part, float) for part in story.curve(side))
    late = _late(story, side)
    if late.sum() < FEWEST:
        return
    rise, gained = _rise(samples[late], bound[late]), bound[late].mean() - bound[0]
    if rise < SIGNIFICANT * rise.se or rise < RISE * abs(gained):
        return
    total = max(LONGER * int(story.facts["samples"]), LEAST)
    patience = [f"validation.patience={PATIENCE}"] if story.curve("validation")[0] else []
    yield Finding(
        "under-training",
        f"The {side} bound still rose when the training ended, by {rise} nats in its last third.",
        f"Train longer, until the bound no longer rises: {story.commands.resume(total, *patience)}",
        {"rise": rise, "samples": int(story.facts["samples"])},
    )


def _side(story: Story) -> str:
    """Whose bound to read: that of validation rows; of train rows where these are few and say the same, or none."""
    held = story.curve("validation")[1]
    if held and (_late(story, "validation").sum() >= FEWEST or len(held) < 2 or held[-1] < max(held)):
        return "validation"  # of train rows alone the bound rises where a model over-fits, too
    return "train"


def _late(story: Story, side: str) -> NDArray[np.bool_]:
    """Which records are of the last third of the training."""
    samples = np.array(story.curve(side)[0])
    return samples > samples[-1] * (1 - 1 / LAST) if len(samples) else np.zeros(0, bool)


def _rise(x: NDArray[np.float64], y: NDArray[np.float64]) -> Estimate:
    """How much a line of least squares through (x, y) rises from the first x to the last, with its error."""
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    rest = y - y.mean() - slope * away
    se = math.sqrt(float(rest @ rest) / (len(x) - 2) / float(away @ away))
    length = float(x[-1] - x[0])
    return Estimate(slope * length, se * length, len(x))


def _past_its_best(story: Story) -> Iterator[Finding]:
    """The weights that are kept are from early: the validation bound fell for most of the training."""
    bound = np.array(story.curve("validation")[1])
    if len(bound) < 3 * FEWEST:
        return
    best, steps = int(story.facts.get("best_step", 0)), int(story.facts.get("steps", 0))
    noise = float(np.diff(bound).std()) / math.sqrt(2)
    fall = Estimate(float(bound.max() - bound[-FEWEST:].mean()), noise / math.sqrt(FEWEST), len(bound))
    if 2 * best > steps or fall < SIGNIFICANT * noise:
        return
    yield Finding(
        "over-long",
        f"The validation bound was best after {best / steps:.0%} of the training, and has fallen by {fall} nats since."
        " The best weights are kept; the time since was lost.",
        "Next time, stop where it no longer rises: " + story.commands.again(f"validation.patience={PATIENCE}"),
        {"fall": fall, "best_step": best, "steps": steps},
    )


CHECK = Check("how the training ended", 0, listen=listen)
