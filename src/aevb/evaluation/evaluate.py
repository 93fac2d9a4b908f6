"""How good is it: one call for every number that is reported of a model on a split."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from aevb.evaluation.annealing import Bracket
from aevb.evaluation.batches import BATCH, Model, conditioned_batches, inference
from aevb.evaluation.elbo import Bound, elbo
from aevb.evaluation.latent import (
    Labels,
    active_units,
    agreement,
    as_array,
    component_shares,
    encode,
    kmeans,
    linear_probe,
    neighbors_accuracy,
)
from aevb.evaluation.marginal import Marginal, Progress, log_marginal
from aevb.evaluation.surgery import Surgery
from aevb.models.trace import check_support
from aevb.probability.codes import Quantized, perplexity, usage
from aevb.probability.distributions import Delta, Pixels
from aevb.training.train import Indexable


@dataclass(frozen=True)
class LatentScores:
    """How much of the labels the codes know; the first two need a labelled train split as `reference`."""

    knn_accuracy: float | None
    linear_accuracy: float | None
    kmeans_nmi: float
    kmeans_ari: float
    kmeans_accuracy: float
    knn_accuracy_se: float | None
    linear_accuracy_se: float | None
    kmeans_accuracy_se: float


@dataclass(frozen=True)
class ComponentScores:
    """How the components of a mixture prior share the data: of each data point the m of the largest p(m | z).

    Attributes:
        components: M; used: those that are the likeliest of some data point.
        nmi, ari, accuracy: agreement with labels, as in `Clustering`; None without labels. More components than classes
            cannot all be matched: accuracy is then at most the share of those that are.
    """

    components: int
    used: int
    nmi: float | None
    ari: float | None
    accuracy: float | None
    accuracy_se: float | None


@dataclass(frozen=True)
class Evaluation:
    """What is known of a model on a split: means over its data points, in nats, with standard errors.

    Attributes:
        split, n: the name of the split, and its number of data points N.
        elbo, reconstruction, kl: mean_N of the bound and of its parts, elbo = reconstruction - kl.
        log_likelihood: mean_N of the importance-sampling estimate of log p(x) with K = `importance_samples`.
        log_likelihood_monte_carlo_se: the part of its error that more importance samples would remove, √(Σ_n se_n²) / N.
        effective_sample_size: mean_N of (Σ w)² / Σ w², between 1 and K.
        importance_warning: in words, where the weights' tails (Pareto k) are so heavy that log_likelihood cannot be trusted.
        bits_per_dim: -log_likelihood / (dim(x) ln 2) where x is discrete.
        active_units: latent units with Cov_x(E_q[z]) > 0.01, out of `latent_size`.
        perplexity: of the use of the codes, exp of its entropy over all N, at most as many as there are; where z is codes.
        kl_per_dimension: mean_N of the KL per group of latents, (G).
        is_likelihood: False where the reported numbers bound no log p(x): grey levels under a relaxed Bernoulli, and
            autoencoders, which have no KL.
        latent: agreement of the codes with labels.
        clusters: of a prior that is a mixture, how its components share the data.

    Every `*_se` is sd_N / √N over data points. The spread of the estimates holds both the spread of log p(x) and the
    Monte-Carlo error of each, E[sd_N²] = Var_x(log p(x)) + mean_n se_n², so the two parts stand in it in quadrature.
    """

    split: str
    n: int
    elbo: float
    elbo_se: float
    reconstruction: float
    reconstruction_se: float
    kl: float
    kl_se: float
    log_likelihood: float | None
    log_likelihood_se: float | None
    log_likelihood_monte_carlo_se: float | None
    importance_samples: int
    effective_sample_size: float | None
    effective_sample_size_se: float | None
    importance_warning: str | None
    bits_per_dim: float | None
    bits_per_dim_se: float | None
    active_units: int
    latent_size: int
    perplexity: float | None
    kl_per_dimension: list[float]
    kl_per_dimension_se: list[float]
    is_likelihood: bool
    latent: LatentScores | None
    clusters: ComponentScores | None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, which has no infinity: what is infinite or undefined is None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def evaluate(
    model: Model,
    data: Indexable,
    *,
    split: str = "test",
    importance_samples: int = 100,
    elbo_samples: int = 1,
    seed: int = 0,
    labels: Labels | None = None,
    reference: tuple[Indexable, Labels] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate `model` on `data`: the bound, log p(x), the use of the latent space, and its agreement with labels.

    Args:
        data: x (N, *X), a float tensor on the model's device, or an object indexed by a tensor of row numbers; with
            contexts, `Pairs`, all is of p(x|y).
        split: what to call the data.
        importance_samples: K of log p(x).
        elbo_samples: samples of the reconstruction term.
        labels: (N,), of the data; without them there are no `latent` scores.
        reference: (data, labels) of the train split, to fit the nearest-neighbour and the linear classifier.
        progress: called with (samples decoded so far, N K) during importance sampling.

    Raises:
        DataError: no data, or data outside of the likelihood's support.
    """
    q, p, used = _distributions(model, data)
    bound = elbo(model, data, samples=elbo_samples, seed=seed)
    point = isinstance(q, Delta)
    single = point or isinstance(getattr(q, "base_dist", q), Quantized)
    marginal = None if single else log_marginal(model, data, importance_samples, seed=seed, progress=progress)
    codes = encode(model, data).flatten(1)
    return Evaluation(
        split=split,
        n=len(data),
        **_bound_numbers(bound),
        **_marginal_numbers(marginal, p),
        importance_samples=importance_samples,
        active_units=active_units(codes)[0],
        latent_size=codes.shape[1],
        perplexity=None if used is None else float(perplexity(used)),
        is_likelihood=not point and not _relaxed(p),
        latent=None if labels is None else _latent_scores(model, codes, labels, reference, seed),
        clusters=_component_scores(component_shares(model, data), labels),
    )


def evaluate_likelihood(model: Model, data: Indexable, marginal: Marginal, *, split: str = "test") -> dict[str, Any]:
    """Of `Evaluation` the numbers that come of log p(x), for an estimate of it by other means, such as `log_marginal_ais`.

    `samples` is its K; everything else has the name and the meaning that it has in `Evaluation`.
    """
    _, p, _ = _distributions(model, data)
    likelihood = {"split": split, "n": len(data), "samples": marginal.samples, "is_likelihood": not _relaxed(p)}
    return _plain({**likelihood, **_marginal_numbers(marginal, p)})  # type: ignore[no-any-return]


def evaluate_bracket(bracket: Bracket) -> dict[str, Any]:
    """Means over the data points of a `Bracket`, with their standard errors sd_N / √N, in nats."""
    sides = {"lower": bracket.lower.log_px, "upper": bracket.upper.log_px, "gap": bracket.gap}
    numbers = {name: _mean_and_se(values) for name, values in sides.items()}
    flat = {name + end: pair[i] for name, pair in numbers.items() for i, end in enumerate(("", "_se"))}
    return _plain({"n": len(bracket.x), "samples": bracket.lower.samples, **flat})  # type: ignore[no-any-return]


def evaluate_surgery(s: Surgery) -> dict[str, Any]:
    """The means of a `Surgery` with their standard errors, in nats; `dimension_kl` is the sum over latents."""
    by_dimension = None if s.dimension_kl is None else s.dimension_kl.sum(1)
    terms = {
        "rate": s.bound.kl.sum(1),
        "distortion": -s.bound.reconstruction,
        "mutual_information": s.mutual_information,
        "aggregate_kl": s.aggregate_kl,
        "total_correlation": s.total_correlation,
        "dimension_kl": by_dimension,
    }
    numbers = {name: (None, None) if term is None else _mean_and_se(term) for name, term in terms.items()}
    flat = {name + end: pair[i] for name, pair in numbers.items() for i, end in enumerate(("", "_se"))}
    sizes = {"n": len(s.bound.kl), "draws": len(s.mutual_information), "most_information": s.most_information}
    return _plain({**sizes, **flat, "collapsed": int(s.collapsed.sum()), "verdict": s.verdict})  # type: ignore[no-any-return]


def _distributions(model: Model, data: Indexable) -> tuple[Distribution, Distribution, Tensor | None]:
    """q(z|x) and p(x|z) of a batch, after every data point was held against the likelihood's support; the use of codes."""
    shares = []
    with inference(model, 0) as device:
        for given, x in conditioned_batches(model, data, BATCH, device):
            q, p = given.posterior(x), given.decode(given.encode(x))
            check_support(p, x)
            used = usage(q)
            shares += [] if used is None else [used.double() * len(x) / len(data)]
    return q, p, torch.stack(shares).sum(0) if shares else None


def _bound_numbers(bound: Bound) -> dict[str, Any]:
    terms = {"elbo": bound.elbo, "reconstruction": bound.reconstruction, "kl": bound.kl.sum(1)}
    groups = [_mean_and_se(column) for column in bound.kl.T]
    each = {"kl_per_dimension": [mean for mean, _ in groups], "kl_per_dimension_se": [se for _, se in groups]}
    return each | {name + end: _mean_and_se(term)[i] for name, term in terms.items() for i, end in enumerate(("", "_se"))}


def _marginal_numbers(marginal: Marginal | None, p: Distribution) -> dict[str, Any]:
    if marginal is None:
        names = ("log_likelihood", "effective_sample_size", "bits_per_dim")
        errors = [f"{name}_se" for name in names]
        return dict.fromkeys((*names, *errors, "log_likelihood_monte_carlo_se", "importance_warning"))
    mean, se = _mean_and_se(marginal.log_px)
    nats = p.event_shape.numel() * math.log(2)
    discrete = p.support is not None and p.support.is_discrete
    return {
        "log_likelihood": mean,
        "log_likelihood_se": se,
        "log_likelihood_monte_carlo_se": float(marginal.se.square().sum().sqrt()) / len(marginal.se),
        "effective_sample_size": float(marginal.ess.mean()),
        "effective_sample_size_se": _mean_and_se(marginal.ess)[1],
        "importance_warning": marginal.warning,
        "bits_per_dim": -mean / nats if discrete else None,
        "bits_per_dim_se": se / nats if discrete else None,
    }


def _mean_and_se(x: Tensor) -> tuple[float, float]:
    """The mean of (N,) and its standard error sd / √N, NaN for N = 1."""
    se = x.std() / math.sqrt(len(x)) if len(x) > 1 else torch.tensor(math.nan)
    return float(x.mean()), float(se)


def share_se(share: float | None, n: int) -> float | None:
    """The standard error sd / √n of a share of n data points; NaN for n = 1."""
    if share is None:
        return None
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else math.nan


def _latent_scores(
    model: Model, codes: Tensor, labels: Labels, reference: tuple[Indexable, Labels] | None, seed: int
) -> LatentScores | None:
    """None where there is only one class, and nothing to tell apart."""
    if any(len(np.unique(as_array(y))) < 2 for y in ([labels] if reference is None else [labels, reference[1]])):
        return None
    clusters = kmeans(codes, labels, seed)
    knn = linear = None
    if reference is not None:
        train = encode(model, reference[0]).flatten(1), reference[1]
        knn = neighbors_accuracy(*train, codes, labels)
        linear = linear_probe(*train, codes, labels, seed)
    accuracies = knn, linear, clusters.accuracy
    errors = [share_se(accuracy, len(codes)) for accuracy in accuracies]
    return LatentScores(knn, linear, clusters.nmi, clusters.ari, clusters.accuracy, *errors)  # type: ignore[arg-type]


def _component_scores(shares: Tensor | None, labels: Labels | None) -> ComponentScores | None:
    if shares is None:
        return None
    clusters = shares.argmax(1)
    scores = None if labels is None else agreement(labels, clusters)
    nmi, ari, accuracy = (None, None, None) if scores is None else (scores.nmi, scores.ari, scores.accuracy)
    error = share_se(accuracy, len(clusters))
    return ComponentScores(shares.shape[1], len(clusters.unique()), nmi, ari, accuracy, error)


def _relaxed(p: Distribution) -> bool:
    """Whether p is a Bernoulli that admits grey levels, so that its `log_prob` is a cross-entropy."""
    while isinstance(p, Independent):
        p = p.base_dist
    return isinstance(p, Pixels) and p.relaxed


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value] if all(map(_finite, value)) else None
    return value if _finite(value) else None


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
