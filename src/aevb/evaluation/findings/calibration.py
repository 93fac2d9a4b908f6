"""A likelihood that does not fit: held-out rows are not like draws of p(x|z)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.evaluation.calibration import INSIDE, PROPOSALS, Bin, Misfit, Ranks, misfit, ranks, worst_bin
from aevb.evaluation.estimate import Estimate
from aevb.evaluation.evaluate import relaxed
from aevb.evaluation.exam import Check, Exam, Finding
from aevb.models.inference import inference

WIDE = 200  # columns, above which statistics of a row are ranked instead
FEWEST, ENOUGH = 40, 100  # rows that are needed; that are looked at even of a large decoder
SURE = 1e-3  # the chance of a false alarm, shared by all columns
LARGE = 0.1  # distance of a rank's distribution function from that of a uniform one; of a probability from a frequency
BEYOND = 0.05  # of what lies outside of the central 90 %, beside the 0.1 that should
LEVELS = 20  # values of a column up to which it is read as one of categories
ERRORS = 4.5  # standard errors of a bin
LISTED = 3  # columns
MANY = 32  # latents, which pictures need at least
SUMMARY = ("mean", "standard deviation", "share of zeros")  # of a row of many numbers
BETTER = {  # likelihoods for values farther out than draws, by the one that fails
    "normal": "student-t",
    "homoscedastic-normal": "student-t",
    "optimal-normal": "student-t",
    "laplace": "student-t",
    "poisson": "negative-binomial",
    "negative-binomial": "zero-inflated-negative-binomial",
    "discretized-logistic": "logistic-mixture",
}


@dataclass(frozen=True)
class Fault:
    """A column that does not fit: its name, how, and whether its values lie farther out than draws.

    Outliers widen a normal: most values then lie too near to its middle.
    """

    column: str
    words: str
    size: float
    out: bool


def look(exam: Exam) -> Iterator[Finding]:
    if not exam.side or len(exam.held) < FEWEST or not exam.of_held.offers.density or _relaxed(exam):
        return
    wide = _wide(exam)
    found = ranks(exam.model, exam.affordable(PROPOSALS, ENOUGH), exam.seed, summary if wide else None)
    faults = sorted([*_ranked(exam, found, wide), *_reliable(exam, found, wide)], key=lambda f: -f.size)
    if faults:
        yield _finding(exam, faults, found)


def _wide(exam: Exam) -> bool:
    """Whether rows are pictures, or of so many columns that statistics of a row are looked at instead."""
    return exam.x_train.ndim > 2 or exam.x_train[0].numel() > WIDE


def _relaxed(exam: Exam) -> bool:
    """Whether x is grey under a Bernoulli, which has no grey draws."""
    with inference(exam.model, 0):
        batch = exam.held[torch.arange(1)]
        trace = exam.model.trace(batch)
        return relaxed(exam.model.decode(trace.z[0], trace.batch.y))


def summary(x: Tensor) -> Tensor:
    """Statistics of rows (..., F) of many numbers: `SUMMARY`, (..., 3), without those that are missing."""
    mean = x.nanmean(-1)
    spread = (x - mean.unsqueeze(-1)).square().nanmean(-1).sqrt()
    return torch.stack([mean, spread, (x == 0).double().mean(-1)], -1)


def _ranked(exam: Exam, found: Ranks, wide: bool) -> Iterator[Fault]:
    """Columns whose ranks are not uniform."""
    count, real = found.u.shape[1], exam.support == "real" and BETTER.get(exam.story.part("likelihood")) == "student-t"
    for j in range(count):
        if int((~found.u[:, j].isnan()).sum()) < FEWEST:
            continue
        seen = misfit(found.u[:, j])
        off = seen.outside - (1 - INSIDE)
        uneven = seen.p < SURE / count and seen.distance > LARGE
        tails = abs(off) > max(BEYOND, ERRORS * _by_chance(seen.outside.n))
        if uneven or tails:
            name = f"the {SUMMARY[j]} of a row" if wide else exam.name(j)
            centred = abs(seen.middle - 0.5) < 3 * seen.middle.se
            yield Fault(name, _how(seen), seen.distance + abs(off), off > 0 or (real and centred))


def _by_chance(n: int) -> float:
    """The standard error of the share of n values outside the central part, of a right model."""
    return math.sqrt(INSIDE * (1 - INSIDE) / n)


def _how(seen: Misfit) -> str:
    """What is wrong with a column, as text."""
    share = seen.outside.times(100).text(1)
    if abs(seen.outside - (1 - INSIDE)) > max(BEYOND, 3 * _by_chance(seen.outside.n)):
        return f"{share} % of its values lie outside the central 90 % of draws"
    side = "above" if seen.middle > 0.5 else "below"
    if abs(seen.middle - 0.5) > 3 * seen.middle.se:
        return f"its values lie {side} draws, at a mean rank of {seen.middle} instead of 0.50"
    return f"its distribution function differs from that of draws by up to {seen.distance:.2f}"


def _reliable(exam: Exam, found: Ranks, wide: bool) -> Iterator[Fault]:
    """Columns of few values whose probabilities are not kept."""
    for j in torch.nonzero(found.levels <= LEVELS).flatten().tolist() if not wide else ():
        worst = worst_bin(found.share[:, j], found.hit[:, j])
        if worst is not None and worst.errors > ERRORS and abs(worst.came - worst.said) > LARGE:
            yield Fault(exam.name(j), _kept(worst), abs(worst.came - worst.said), False)


def _kept(worst: Bin) -> str:
    came = Estimate(worst.came.mean * 100, worst.came.se * 100)
    return f"a value that is given {worst.said:.0%} comes in {came.text(1)} % of {worst.came.n} rows"


def _finding(exam: Exam, faults: Sequence[Fault], found: Ranks) -> Finding:
    listed = "; ".join(f"{f.column}: {f.words}" for f in faults[:LISTED])
    more = f"; and {len(faults) - LISTED} more" * (len(faults) > LISTED)
    outside = Estimate.of(found.outside)
    text = f"The likelihood does not fit {exam.side} rows: {listed}{more}."
    numbers = {"columns": [f.column for f in faults], "outside": outside, "rows": len(found.u)}
    return Finding("misfit", text, _remedy(exam, faults, outside), numbers)


def _remedy(exam: Exam, faults: Sequence[Fault], outside: Estimate) -> str:
    """Another likelihood where single values lie too far out, as long as there is one; else more latents."""
    kind, off = exam.story.part("likelihood"), outside - (1 - INSIDE)
    out = off > max(BEYOND, ERRORS * outside.se) if _wide(exam) else faults[0].out
    if out and kind in BETTER and _fits(exam, BETTER[kind]):
        return f"Use a wider likelihood: {exam.commands.again(f'likelihood.type={BETTER[kind]}')}"
    size = exam.story.settings.get("latent")
    if isinstance(size, int):
        more = max(2 * size, MANY) if _wide(exam) else 2 * size
        return f"Use more latents: {exam.commands.again(f'latent={more}')}"
    return "Use more latents, or another likelihood."


def _fits(exam: Exam, kind: str) -> bool:
    return kind != "logistic-mixture" or exam.x_train.ndim == 4


CHECK = Check("a likelihood that does not fit", 3, look=look)
