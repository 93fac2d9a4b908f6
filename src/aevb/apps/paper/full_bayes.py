"""Full variational Bayes (App. F) against point estimates of the weights, where data are few: 1,000 digits."""

from __future__ import annotations

import math

from torch import Tensor

from aevb.apps.paper.curves import Curve, Row, bound
from aevb.data.dataset import Split
from aevb.evaluation.elbo import elbo
from aevb.evaluation.marginal import log_marginal
from aevb.evaluation.predictive import log_predictive
from aevb.models.vae import VAE
from aevb.objectives.full_bayes import FullBayes
from aevb.training.train import Learner

ROWS = 1000  # training points
SEEDS = (0, 1, 2)
POINTS = 1000  # test points whose log p(x) is estimated
DRAWS, EACH = 10, 10  # weights from q(θ), and importance samples for each; point estimates get as many in all
NAMES = {"ml": "maximum likelihood", "map": "MAP", "full": "full variational Bayes"}


def measured(learner: Learner, train: Split, test: Split) -> Row:
    """The bound at the mean weights on train and test rows, and log p(x) of `POINTS` test rows, in nats per data point.

    log p(x) is the importance-sampling estimate by `DRAWS` · `EACH` samples (arXiv 1509.00519, L_K): at the mean weights
    (`log_px`), and under full Bayes also with as many samples spread over weights from q(θ) (`predictive`). Each has its
    standard error over test rows. `kl_weights` is KL(q(θ) ‖ p(θ)) / N.
    """
    model, objective, some = learner.best_known, learner.objective, test.take(POINTS)
    assert isinstance(model, VAE)
    row = {"train": bound(learner, train), **_mean("test", elbo(model, test).elbo)}
    row |= _mean("log_px", log_marginal(model, some, DRAWS * EACH).log_px)
    if isinstance(objective, FullBayes):
        row |= _mean("predictive", log_predictive(model, objective, some, DRAWS, samples=EACH).log_px)
        row["kl_weights"] = float(objective.kl(objective.posterior(model)).detach()) / objective.n
    return row


def _mean(name: str, values: Tensor) -> Row:
    """The mean of (N,) and its standard error."""
    return {name: float(values.mean()), f"{name}_se": float(values.std()) / math.sqrt(len(values))}


def curve(method: str, seed: int) -> Curve:
    """One training: `method` is a key of `NAMES`; all have the same network, optimiser and candidates for its step size."""
    recipe = "full-bayes" if method == "full" else "aevb"
    prior = {} if method == "full" else {"training__weight_prior": method == "map"}
    marks = (1.0, 2.0, 3.0, 5.0, 7.0)
    changes = {"latent": 20, **prior, "training__seed": seed}
    return Curve(f"full-bayes-{method}-s{seed}", recipe, "mnist", measured, changes, rows=ROWS, marks=marks)


CURVES = tuple(curve(method, seed) for seed in SEEDS for method in NAMES)
