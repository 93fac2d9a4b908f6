"""An estimate of log p(x) that cannot be trusted: weights with too heavy a tail."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from aevb.data.batch import take
from aevb.data.randomness import derive
from aevb.evaluation.estimate import Estimate
from aevb.evaluation.exam import Check, Exam, Finding
from aevb.evidence.importance import marginal_of, points_at_a_time
from aevb.evidence.marginal import HEAVY, TOLERATED, Marginal, joined
from aevb.evidence.support import annealable
from aevb.models.inference import inference
from aevb.models.rows import by_row

WEIGHTS = 50_000  # that are computed in all
LEAST_ROWS = 50
SIGNIFICANT = 2.0  # standard errors above the share that is tolerated
MORE = 10  # times as many samples


def look(exam: Exam) -> Iterator[Finding]:
    offers = exam.of_train.offers
    if not exam.side or not (offers.density and offers.everywhere):
        return
    k = int(exam.story.part("evaluation", "importance_samples", 100))
    if k < 25:
        return
    found = _marginal(exam, k)
    share = Estimate.share(found.heavy, len(found.log_px))
    if not share - SIGNIFICANT * share.se >= TOLERATED:  # NaN: no error is known
        return
    yield Finding(
        "unreliable-log-px",
        f"log p(x) by importance sampling cannot be trusted: the weights of {share.times(100).text(1)} % of"
        f" {exam.side} rows have too heavy a tail (Pareto k > {HEAVY}, K = {k:,}).",
        _remedy(exam, k),
        {"heavy": share, "importance_samples": k},
    )


def _marginal(exam: Exam, k: int) -> Marginal:
    """log p(x) of some held-out rows, as an evaluation estimates it."""
    known = exam.affordable(k, LEAST_ROWS)
    rows, parts = take(known, torch.arange(min(len(known), max(LEAST_ROWS, WEIGHTS // k)))), []
    with inference(exam.model, derive(exam.seed, "evidence")) as device:
        size = points_at_a_time(exam.held, k, device)
        for part in torch.arange(len(rows)).split(size):
            for group in by_row(exam.model.posterior, rows[part], exam.seed):
                prior = exam.model.trace_at(group.batch, group.q, group.draw(1)).p
                parts.append(marginal_of(exam.model, group, k, prior))
    return joined(parts)


def _remedy(exam: Exam, k: int) -> str:
    q = exam.model.posterior(take(exam.held, torch.arange(1)))
    if annealable(q):
        return f"Use annealed importance sampling: {exam.commands.verb('evaluate', '--estimator', 'ais')}"
    return f"Use more samples: {exam.commands.verb('evaluate', '--importance-samples', str(MORE * k))}"


CHECK = Check("an estimate of log p(x) that cannot be trusted", 5, look=look)
