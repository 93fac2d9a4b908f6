"""Holes: parts of the prior where no data point is encoded, so that draws of it decode to anything."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from aevb.evaluation.classifier import FEWEST, separation
from aevb.evaluation.estimate import Estimate
from aevb.evaluation.exam import Check, Exam, Finding
from aevb.models.inference import inference

DRAWS = 1000  # of either side
AUC, FAR = 0.65, 0.05  # what a classifier and decoded draws must reach to be told
USUAL = 0.99  # of decoded draws of the aggregate posterior are nearer to train rows than what counts as far
SIGNIFICANT = 3.0  # standard errors


def look(exam: Exam) -> Iterator[Finding]:
    known = exam.of_train
    if known.codes or len(known.z) < 5 * FEWEST:
        return
    prior, posterior = known.prior[:DRAWS], known.z[:DRAWS]
    told = separation(prior.numpy(), posterior.numpy(), seed=exam.seed).auc
    far = _far(exam, prior, posterior)
    clear = told - SIGNIFICANT * told.se > AUC
    if not clear and not (far - SIGNIFICANT * far.se > FAR):
        return
    yield Finding(
        "holes",
        f"The aggregate posterior leaves holes in the prior: a classifier distinguishes their draws (AUC {told}; 0.5"
        f" where it cannot). {far.times(100).text(1)} % of the prior's draws decode to rows farther from the train rows"
        " than 99 % of what the aggregate posterior decodes to.",
        _remedy(exam),
        {"auc": told, "far": far},
    )


def _far(exam: Exam, prior: Tensor, posterior: Tensor) -> Estimate:
    """The share of draws of the prior that decode to rows far from the train rows."""
    rows = _filled(exam.x_train)
    near = NearestNeighbors(n_neighbors=1).fit(rows)
    usual, made = (near.kneighbors(_filled(_decoded(exam, z)))[0][:, 0] for z in (posterior, prior))
    return Estimate.share(float((made > np.quantile(usual, USUAL)).mean()), len(made))


def _decoded(exam: Exam, z: Tensor) -> Tensor:
    """Means of p(x|z) at z (N, D), with the conditions of the train rows, (N, *X)."""
    weights = next(iter(exam.model.parameters()))
    with inference(exam.model, exam.seed):
        batch = exam.model.trace(exam.train[torch.arange(len(z))]).batch
        made: Tensor = exam.model.decode(z.reshape(-1, *exam.model.latent_shape).to(weights), batch.y).mean
    return made.cpu()


def _filled(x: Tensor) -> np.ndarray:
    """Rows (N, *X) as (N, F), 0 for what is missing."""
    return x.flatten(1).double().nan_to_num(nan=0.0).numpy()


def _remedy(exam: Exam) -> str:
    beta = exam.story.part("objective", "beta", 1)
    if exam.of_train.offers.kl and isinstance(beta, int | float) and beta < 1:
        return f"Give the KL more weight: {exam.commands.again('objective.beta=1')}"
    return f"Draw from a prior that is fitted to the codes: {exam.commands.verb('sample', '--ex-post')}"


CHECK = Check("holes in the prior", 4, look=look)
