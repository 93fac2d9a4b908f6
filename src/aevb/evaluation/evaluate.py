"""The evaluation of a model on a split: the bound, log p(x), the use of the latent space, in one pass over the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from aevb.data.batch import Batch, Indexable, batches, fixed, log_abs_dets
from aevb.data.randomness import derive
from aevb.data.walk import Counter
from aevb.evaluation.bound import Bound
from aevb.evaluation.estimate import UNDEFINED, Estimate, flat
from aevb.evaluation.latent import (
    Labels,
    active_units,
    agreement,
    as_array,
    kmeans,
    linear_probe,
    neighbors_accuracy,
)
from aevb.evaluation.report import Line, as_html, as_text, cells
from aevb.evidence.importance import marginal_of, points_at_a_time
from aevb.evidence.marginal import Marginal, joined
from aevb.models.checks import likelihood_batches
from aevb.models.inference import Model, as_result, dtype_of, fitting, inference
from aevb.models.rows import Group, by_row
from aevb.models.shares import dealt_out, group
from aevb.probability.codes import perplexity, usage
from aevb.probability.distributions import Pixels
from aevb.probability.mixtures import FiniteMixture
from aevb.probability.offers import elements_of, read_offers
from aevb.use.encode import encode

UNREACHED = (
    "q(z|x) has no density outside of an interval that moves with x, so that importance sampling from it does not reach"
    " log p(x). Use annealed importance sampling from the prior: --estimator ais --start prior."
)


@dataclass(frozen=True)
class LatentScores:
    """How much of the labels the codes know; the first two need a labelled train split as `reference`."""

    knn_accuracy: Estimate
    linear_accuracy: Estimate
    kmeans_nmi: float
    kmeans_ari: float
    kmeans_accuracy: Estimate


@dataclass(frozen=True)
class ComponentScores:
    """How the components of a mixture prior share the data: of each data point the m of the largest p(m | z).

    Attributes:
        components: M; used: those that are the likeliest of some data point.
        nmi, ari, accuracy: agreement with labels, as in `Clustering`; None or undefined without labels. More components
            than classes cannot all be matched: accuracy is then at most the share of those that are.
    """

    components: int
    used: int
    nmi: float | None
    ari: float | None
    accuracy: Estimate


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What is known of a model on a split: means over its data points, in nats, with standard errors.

    Attributes:
        split, n: the name of the split, and its number of data points N.
        elbo, reconstruction, kl: mean_N of the bound and of its parts, elbo = reconstruction - kl.
        log_likelihood: mean_N of the importance-sampling estimate of log p(x) with K = `importance_samples`. Up to four
            normal latents with K >= 100 take defensive mixtures of proposals, see `evidence.defensive`.
        log_likelihood_monte_carlo_se: the part of its error that more importance samples would remove, √(Σ_n se_n²) /
            N.
        effective_sample_size: mean_N of (Σ w)² / Σ w², between 1 and K.
        importance_warning: a warning where the weights' tails (Pareto k) are so heavy that log_likelihood cannot be
            trusted.
        bits_per_dim: -log_likelihood / (dim(x) ln 2) where every number of x is discrete.
        active_units: latent units with Cov_x(E_q[z]) > 0.01 Var_p(z), out of `latent_size`; of N(0, I) the variance is
            1.
        perplexity: of the use of the codes, exp of its entropy over all N, at most as many as there are; where z is
            codes.
        kl_per_dimension: mean_N of the KL per group of latents, (G).
        is_likelihood: False where the reported numbers are not bounds of log p(x): grey levels under a relaxed
            Bernoulli, and autoencoders, which have no KL.
        latent: agreement of the codes with labels.
        clusters: of a prior that is a mixture, how its components share the data.
        log_abs_det: log |det ∂x/∂s| of the map from the data s to the model's numbers x, nats. It is in elbo,
            reconstruction and log_likelihood, which are densities of the data as given: log p(s) = log p(x) + log |det
            ∂x/∂s|. Here it is the mean over the rows; of a table each row has its own.
        elbo_standardized, log_likelihood_standardized: densities of the model's numbers, where these are others.

    Every standard error `.se` is sd_N / √N over data points. The spread of the estimates contains the spread of log
    p(x) and the Monte-Carlo error of each; both add in quadrature: E[sd_N²] = Var_x(log p(x)) + mean_n se_n². An
    estimate that does not exist, such as log p(x) of an autoencoder, is NaN. `print` shows a table.
    """

    split: str
    n: int
    elbo: Estimate
    reconstruction: Estimate
    kl: Estimate
    log_likelihood: Estimate
    log_likelihood_monte_carlo_se: float
    importance_samples: int
    effective_sample_size: Estimate
    importance_warning: str | None
    bits_per_dim: Estimate
    active_units: int
    latent_size: int
    perplexity: float | None
    kl_per_dimension: list[Estimate]
    is_likelihood: bool
    latent: LatentScores | None
    clusters: ComponentScores | None
    log_abs_det: float = 0.0
    elbo_standardized: Estimate = UNDEFINED
    log_likelihood_standardized: Estimate = UNDEFINED

    def numbers(self) -> dict[str, Any]:
        """The numbers by name, those of `latent` and `clusters` in tables of their own.

        Of standardized data also `elbo_standardized` and `log_likelihood_standardized`, densities of the model's
        numbers.
        """
        inner = {name: None if part is None else _fields(part) for name, part in self._parts()}
        found = {**_fields(self), **inner}
        if not found.pop("log_abs_det"):
            del found["elbo_standardized"], found["log_likelihood_standardized"]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, `NAME` and `NAME_se`; JSON has no infinity, so what is infinite or undefined is
        None."""
        return flat(self.numbers())

    def _parts(self) -> Iterator[tuple[str, Any]]:
        yield from (("latent", self.latent), ("clusters", self.clusters))

    def __str__(self) -> str:
        return as_text(f"{self.split}, n = {self.n:,}", table(self.numbers()))

    def __repr__(self) -> str:
        return f"Evaluation({self.split}, n = {self.n:,}: ELBO {self.elbo}, log p(x) {self.log_likelihood} nats)"

    def _repr_html_(self) -> str:
        return as_html(f"{self.split}, n = {self.n:,}", table(self.numbers()))


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
) -> Evaluation:
    """Evaluate `model` on `data`: the bound, log p(x), the use of the latent space, and its agreement with labels.

    Each data point is encoded once. Fresh draws of pixels (values = "dynamic") are drawn once, by a fixed seed.

    Args:
        model: a trained one.
        data: x (N, *X), as of `aevb.encode`; of a `Dataset` its test split; with conditions, `Pairs`, all is of
            p(x|y).
        split: what to call the data.
        importance_samples: K of log p(x).
        elbo_samples: samples of the reconstruction term.
        labels: (N,), of the data; without them there are no `latent` scores.
        reference: (data, labels) of the train split, to fit the nearest-neighbour and the linear classifier.

    Raises:
        DataError: no data, or data outside of the likelihood's support.
    """
    if min(importance_samples, elbo_samples) < 1:
        got = f"{importance_samples} and {elbo_samples}"
        raise ValueError(f"evaluate: importance_samples and elbo_samples must be at least 1; got {got}.")
    data = fitting(model, data, "test")
    found = _Pass(model, fixed(data), importance_samples, elbo_samples, seed)
    changes = log_abs_dets(data)
    numbers = {**_bound_numbers(found.bound), **marginal_numbers(found.marginal, found.p)}
    numbers |= {f"{name}_standardized": numbers[name] for name in ("elbo", "log_likelihood")}
    rows = {"elbo": found.bound.elbo, "reconstruction": found.bound.reconstruction}
    rows |= {} if found.marginal is None else {"log_likelihood": found.marginal.log_px}
    numbers |= {name: Estimate.of(each + changes) for name, each in rows.items()}
    return Evaluation(
        split=split,
        n=len(data),
        **{**numbers, **({} if found.offers.everywhere else {"importance_warning": UNREACHED})},
        importance_samples=importance_samples,
        active_units=active_units(found.codes, threshold=0.01 * found.prior_variance)[0],
        latent_size=found.codes.shape[1],
        perplexity=None if found.usage is None else float(perplexity(found.usage)),
        is_likelihood=found.offers.kl and not relaxed(found.p),
        latent=None if labels is None else _latent_scores(model, found.codes, labels, reference, seed),
        clusters=_component_scores(found.shares, labels),
        log_abs_det=float(changes.mean()),
    )


@dataclass(frozen=True)
class _Part:
    """What is read of B data points: E_q[log p(x|z)] and KL (B,), log p̂(x), E_q[z|x] (B, D), p(m|z) (B, M), the codes
    used, and the moments of the prior; whether that is one for each of them.
    """

    reconstruction: Tensor
    kl: Tensor
    marginal: Marginal | None
    codes: Tensor
    shares: Tensor | None
    usage: Tensor | None
    prior: tuple[Tensor, Tensor] | None
    each: bool


class _Pass:
    """One pass over the data: each data point is encoded once, and all that needs q(z|x) is read off it.

    Several processes share the data points out.

    Attributes:
        bound; marginal: None without a density of z; codes: E_q[z|x] (N, D); shares: p(m | z) (N, M) of a mixture
        prior, or None; usage: of codes, or None; p: p(x|z) of the first data point; offers: of q(z|x).
        prior_variance: of each latent, (D,).
    """

    def __init__(self, model: Model, data: Indexable, samples: int, elbo_samples: int, seed: int) -> None:
        self.model, self.samples, self.elbo_samples, self.seed, self.n = model, samples, elbo_samples, seed, len(data)
        self.known = False  # the prior that all rows have
        members = group()
        self.count = Counter(len(data) * samples // (members.size if members else 1))
        with inference(model, derive(seed, "evaluate")) as device:
            first = next(batches(data, 1, device, dtype_of(model)))
            q = model.posterior(first)
            self.offers, self.p = read_offers(q), model.decode(q.mean, first.y)
            points = points_at_a_time(data, max(samples, self.elbo_samples), device, model)
            found = dealt_out(likelihood_batches(model, data, points), self._read)
        self.parts = [part for parts in found for part in parts]
        means = [part.prior for part in self.parts if part.prior is not None]
        self.prior_variance = _variance(means if self.parts[0].each else means[:1])

    def _read(self, batch: Batch) -> list[_Part]:
        """What is read off q(z|x) of a batch, in its groups."""
        return [self._of_group(group) for group in by_row(self.model.posterior, batch, self.seed)]

    def _of_group(self, group: Group) -> _Part:
        t = self.model.trace_at(group.batch, group.q, group.draw(self.elbo_samples))
        each = bool(t.p.batch_shape)  # a prior p(z|y) is that of each row
        wanted, self.known = each or not self.known, True
        known = self.offers.density and self.offers.everywhere  # else importance sampling from q tells nothing
        used = usage(group.q)
        return _Part(
            as_result(t.log_px).mean(0),
            as_result(t.kl),
            marginal_of(self.model, group, self.samples, t.p, self.count) if known else None,
            group.q.mean.flatten(1).cpu(),
            t.p.responsibilities(group.q.mean).cpu() if isinstance(t.p, FiniteMixture) else None,
            None if used is None else as_result(used) * len(group.batch),
            _moments(t.p) if wanted else None,
            each,
        )

    @property
    def bound(self) -> Bound:
        return Bound(self._all("reconstruction"), self._all("kl"))

    @property
    def marginal(self) -> Marginal | None:
        found = [part.marginal for part in self.parts if part.marginal is not None]
        return joined(found) if found else None

    @property
    def codes(self) -> Tensor:
        return self._all("codes")

    @property
    def shares(self) -> Tensor | None:
        return None if self.parts[0].shares is None else self._all("shares")

    @property
    def usage(self) -> Tensor | None:
        found = [part.usage for part in self.parts if part.usage is not None]
        return torch.stack(found).sum(0) / self.n if found else None

    def _all(self, name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in self.parts])


def _moments(p: Distribution, draws: int = 1000) -> tuple[Tensor, Tensor]:
    """E_p[z] and Var_p(z) of each latent, (B, D), or (1, D) of one prior; from draws where there is no formula."""
    size = p.event_shape.numel()
    try:
        mean, variance = p.mean, p.variance
    except NotImplementedError:
        z = p.sample(torch.Size((draws,)))
        mean, variance = z.mean(0), z.var(0)
    return as_result(mean.reshape(-1, size)), as_result(variance.reshape(-1, size))


def _variance(moments: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Var_p(z) of each latent, (D,); of a prior p(z|y) over the y of all rows; 1 where it is infinite."""
    mean, variance = (torch.cat(parts) for parts in zip(*moments, strict=True))
    total = variance.mean(0) + mean.var(0, correction=0)
    return torch.where(total.isfinite(), total, 1.0)


def discrete(support: Any) -> bool:
    """Whether every number of x is discrete: of columns of several kinds, all of them."""
    if isinstance(support, constraints.cat | constraints.stack):
        return all(discrete(part) for part in support.cseq)
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is not None and (discrete(support) if isinstance(support, constraints.cat) else support.is_discrete)


def _bound_numbers(bound: Bound) -> dict[str, Any]:
    return {
        "elbo": Estimate.of(bound.elbo),
        "reconstruction": Estimate.of(bound.reconstruction),
        "kl": Estimate.of(bound.kl.sum(1)),
        "kl_per_dimension": [Estimate.of(column) for column in bound.kl.T],
    }


def marginal_numbers(marginal: Marginal | None, p: Distribution) -> dict[str, Any]:
    """What is reported of log p(x), of data whose likelihood is p."""
    if marginal is None:
        undefined = dict.fromkeys(("log_likelihood", "effective_sample_size", "bits_per_dim"), UNDEFINED)
        return {**undefined, "log_likelihood_monte_carlo_se": math.nan, "importance_warning": None}
    log_px = Estimate.of(marginal.log_px)
    bits = log_px.times(-1 / (p.event_shape.numel() * math.log(2)))
    return {
        "log_likelihood": log_px,
        "log_likelihood_monte_carlo_se": float(marginal.se.square().sum().sqrt()) / len(marginal.se),
        "effective_sample_size": Estimate.of(marginal.ess),
        "importance_warning": marginal.warning,
        "bits_per_dim": bits if discrete(p.support) else UNDEFINED,
    }


def _latent_scores(
    model: Model, codes: Tensor, labels: Labels, reference: tuple[Indexable, Labels] | None, seed: int
) -> LatentScores | None:
    """None where there is only one class, and nothing to tell apart."""
    if any(len(np.unique(as_array(y))) < 2 for y in ([labels] if reference is None else [labels, reference[1]])):
        return None
    clusters = kmeans(codes, labels, seed)
    knn = linear = UNDEFINED
    if reference is not None:
        train = encode(model, reference[0]).flatten(1), reference[1]
        knn = Estimate.share(neighbors_accuracy(*train, codes, labels), len(codes))
        linear = Estimate.share(linear_probe(*train, codes, labels, seed), len(codes))
    return LatentScores(knn, linear, clusters.nmi, clusters.ari, Estimate.share(clusters.accuracy, len(codes)))


def _component_scores(shares: Tensor | None, labels: Labels | None) -> ComponentScores | None:
    if shares is None:
        return None
    clusters = shares.argmax(1)
    used = len(clusters.unique())
    if labels is None:
        return ComponentScores(shares.shape[1], used, None, None, UNDEFINED)
    scores = agreement(labels, clusters)
    return ComponentScores(
        shares.shape[1], used, scores.nmi, scores.ari, Estimate.share(scores.accuracy, len(clusters))
    )


def relaxed(p: Distribution) -> bool:
    """Whether p is a Bernoulli that admits grey levels, so that its `log_prob` is a cross-entropy."""
    p = elements_of(p)
    return isinstance(p, Pixels) and p.relaxed


def _fields(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}


BOUND = (
    Line("elbo", "ELBO", "nats"),
    Line("reconstruction", "  reconstruction", "nats"),
    Line("kl", "  KL(q(z|x) ‖ p(z))", "nats"),
)
LIKELIHOOD = (
    Line("log_likelihood", "{likelihood}", "nats, {by}"),
    Line("log_likelihood_monte_carlo_se", "  Monte-Carlo error", "nats, less with more samples", 3),
    Line("effective_sample_size", "  effective samples", "of {samples}, mean over points", 1),
    Line("bits_per_dim", "bits per dimension", "bits", 4),
)
CODES = (Line("perplexity", "codebook perplexity", "effective number of codes", 1),)
CLASSIFIER = (Line("classifier_accuracy", "classifier's accuracy", "of labels, by q(y|x)", 3),)
LATENT = (
    Line("knn_accuracy", "10-nearest-neighbours accuracy", "of the posterior means", 3),
    Line("linear_accuracy", "linear-probe accuracy", "of the posterior means", 3),
    Line("kmeans_nmi", "k-means NMI", "of the posterior means", 3),
    Line("kmeans_ari", "k-means ARI", "of the posterior means", 3),
    Line("kmeans_accuracy", "k-means accuracy", "of the posterior means", 3),
)
COMPONENTS = (
    Line("used", "components used", "of {components}: those that are argmax p(m|z) of some x", 0),
    Line("nmi", "components' NMI", "of argmax p(m|z)", 3),
    Line("ari", "components' ARI", "of argmax p(m|z)", 3),
    Line("accuracy", "components' accuracy", "of argmax p(m|z)", 3),
)


def table(e: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The lines (what, value ± standard error over data points, unit) of `Evaluation.numbers()`."""
    k = e["importance_samples"]
    named = {**e, "likelihood": likelihood_name(e), "by": f"{k:,} importance sample" + "s" * (k > 1), "samples": k}
    rows = cells((*BOUND, *LIKELIHOOD), named)
    active = ("–", "a single data point has no covariance") if e.get("n") == 1 else None
    active = active or (f"{e['active_units']} of {e['latent_size']}", "Cov E[z|x] > 0.01 of the prior's variance")
    rows.append(("active units", *active))
    rows += cells(CODES, e)
    rows += [("weights", e["weights"], "aevb.log_predictive averages over their posterior")] if "weights" in e else []
    return (
        rows + cells(CLASSIFIER, e) + cells(LATENT, e.get("latent") or {}) + cells(COMPONENTS, e.get("clusters") or {})
    )


def likelihood_name(e: Any) -> str:
    """What the number is: log p(x|y) of a model that is conditioned on labels y."""
    name = "log p(x|y)" if e.get("given_labels") else "log p(x)"
    return name if e.get("is_likelihood", True) else f"{name}, relaxed: no true likelihood"
