"""Clusters of data points: which one each is in, how many there are, and what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aevb.data.batch import Indexable, batches
from aevb.data.randomness import derive
from aevb.errors import DataError, RecipeError
from aevb.models.inference import Model, dtype_of, fitting, inference
from aevb.models.priors import Mixture
from aevb.models.rows import by_row
from aevb.notation import Brief
from aevb.probability.mixtures import FiniteMixture
from aevb.use.encode import encode
from aevb.use.fit_prior import Codes, as_prior, enough, gaussian_mixture, log_density

NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20)  # of clusters, of which the held-out codes choose
CHOOSING = 10_000  # codes at most, on which the number is chosen
FOLDS, SMALL = 5, 2_000  # of fewer codes each is held out once, of more a fifth of them
PATIENCE = 3  # numbers that are no better than a smaller one, after which no larger one is tried
FLOOR, TINY = 1e-3, 1e-12  # of a variance, in units of that of all codes; and in itself
STARTS = 4  # of the chosen mixture; the likeliest is kept


@dataclass(frozen=True, repr=False)
class Clusters(Brief):
    """Clusters of N data points, the largest first.

    Attributes:
        p: p(c|x), (N, C): the probability of each cluster for each data point; a row sums to 1.
        fit: log p(z|c) of each data point in its likeliest cluster c, (N,): the larger, the more typical.
        centres: the mean code of each cluster's data points, (C, *Z), weighted by p(c|x).
        scores: each candidate number's mean log density of held-out codes, in nats per code. Empty if the clusters are
            the components of the model's own prior, or if their number was given.
        errors: the standard error of each score.
    """

    p: Tensor
    fit: Tensor
    centres: Tensor
    scores: Mapping[int, float]
    errors: Mapping[int, float]

    @property
    def assigned(self) -> Tensor:
        """The likeliest cluster of each data point, (N,)."""
        return self.p.argmax(1)

    @property
    def sizes(self) -> Tensor:
        """How many data points are in each cluster, (C,)."""
        return torch.bincount(self.assigned, minlength=self.p.shape[1])

    def typical(self, cluster: int, n: int) -> list[int]:
        """The n most typical data points of a cluster, by their positions; all if it has fewer."""
        rows = (self.assigned == cluster).nonzero().flatten()
        order: list[int] = rows[self.fit[rows].argsort(descending=True, stable=True)[:n]].tolist()
        return order


def cluster(
    model: Model,
    data: Any,
    number: int | Sequence[int] | None = None,
    *,
    train: Any = None,
    samples: int = 32,
    seed: int = 0,
) -> Clusters:
    """The cluster of each data point, by a mixture p(z) = Σ_c π_c p(z|c) of the codes.

        p(c|x) = E_q(z|x)[π_c p(z|c) / p(z)]

    A model whose prior is a `Mixture` has clusters of its own, its components (VaDE, Jiang et al. 2017, arXiv
    1611.05148). For any other, a mixture of full-covariance normals is fitted to the mean codes of the train rows, and
    p(c|x) is taken at the mean code. No variance is below a thousandth of that of all codes. The number of components
    is the smallest whose mean log density of held-out codes is within one standard error of the best (Breiman et al.
    1984). Larger numbers are tried until three in a row are no better.

    Args:
        model: trained.
        data: x (N, *X), as of `aevb.encode`.
        number: how many clusters, or several numbers of which to choose. With it a mixture prior is not read.
        train: the rows that the mixture is fitted to; `data` if None.
        samples: draws z ~ q(z|x) for each p(c|x) of a mixture prior. Their noise depends on the row, the model and the
            seed alone.
        seed: of all draws.

    Raises:
        DataError: no data, or too few for any of the numbers.
        RecipeError: the number is below 1.
    """
    rows = fitting(model, data)
    by = grouping(model, rows if train is None else train, number, samples=samples, seed=seed)
    return largest_first(by.clusters(rows))


@dataclass(frozen=True)
class Grouping:
    """A mixture of the codes, which gives each data point its clusters, whatever other points there are.

    Attributes:
        model: whose codes; mixture: of C components; own: whether it is the model's prior.
        samples, seed: of draws z ~ q(z|x), where it is.
        scores, errors: as of `Clusters`.
    """

    model: Model
    mixture: Mixture
    own: bool
    samples: int
    seed: int
    scores: Mapping[int, float]
    errors: Mapping[int, float]

    def clusters(self, data: Indexable) -> Clusters:
        """The clusters of data points, in the order of the components."""
        rows = fitting(self.model, data)
        if self.own:
            return shared(self.model, rows, self.mixture, self.samples, self.seed)
        found = at_means(flat_codes(self.model, rows), self.mixture, self.model.latent_shape)
        return replace(found, scores=self.scores, errors=self.errors)


def grouping(
    model: Model, train: Any, number: int | Sequence[int] | None = None, *, samples: int = 32, seed: int = 0
) -> Grouping:
    """The mixture that `cluster` takes: the model's own prior, or one fitted to the codes of the train rows."""
    prior: Any = getattr(model, "prior", None)
    if number is None and isinstance(prior, Mixture):
        return Grouping(model, prior, True, samples, seed, {}, {})
    known = flat_codes(model, fitting(model, train))
    densities = held_out(known, numbers(number), seed)
    fitted = mixture(known, smallest(densities), seed, STARTS)
    scores, errors = score(densities) if len(densities) > 1 else ({}, {})
    return Grouping(model, fitted, False, samples, seed, scores, errors)


def numbers(number: int | Sequence[int] | None) -> list[int]:
    """The candidate numbers of clusters, in order."""
    asked = NUMBERS if number is None else [number] if isinstance(number, int) else number
    if not asked or min(asked) < 1:
        raise RecipeError(f"cluster: the number of clusters must be at least 1; got {number}.")
    return sorted(set(asked))


def flat_codes(model: Model, rows: Indexable) -> Codes:
    """E_q[z|x] of every row, flattened, (N, D) in float64."""
    return encode(model, rows).flatten(1).double().numpy()


def mixture(z: Codes, components: int, seed: int, starts: int = 1) -> Mixture:
    """A mixture of normals, fitted to codes z (N, D)."""
    return as_prior(gaussian_mixture(z, components, seed, starts, max(FLOOR * float(z.var(0).mean()), TINY)))


# The number of clusters


def held_out(z: Codes, candidates: Sequence[int], seed: int) -> dict[int, Tensor]:
    """log p_c(z_n) of codes z (N, D) that the mixture of c normals was not fitted to, for each number c that is tried.

    Raises:
        DataError: there are too few codes for any.
    """
    if len(candidates) == 1 and enough(candidates[0], z):
        return {candidates[0]: torch.zeros(1)}  # nothing to choose
    folds = folds_of(z, seed)
    possible = [c for c in candidates if all(enough(c, rest) for rest, _ in folds)]
    if not possible:
        words = " or ".join(map(str, candidates[:3]))
        raise DataError(f"{len(z)} rows with codes of {z.shape[1]} numbers are too few for {words} clusters. Add rows.")
    found: dict[int, Tensor] = {}
    for c in possible:
        found[c] = torch.cat([log_density(mixture(rest, c, seed), held) for rest, held in folds])
        if list(found).index(likeliest(found)) < len(found) - PATIENCE:
            break
    return found


def folds_of(z: Codes, seed: int) -> list[tuple[Codes, Codes]]:
    """Codes to fit to, and those held out: each of a few is held out once, of many one fold alone."""
    order = np.random.default_rng(seed).permutation(len(z))[:CHOOSING]
    parts = np.array_split(order, FOLDS)[: FOLDS if len(order) < SMALL else 1]
    return [(z[np.setdiff1d(order, part)], z[part]) for part in parts]


def score(densities: Mapping[int, Tensor]) -> tuple[dict[int, float], dict[int, float]]:
    """The mean of each number's log densities (N,), and its standard error."""
    scores = {c: float(log_p.mean()) for c, log_p in densities.items()}
    return scores, {c: float(log_p.std()) / len(log_p) ** 0.5 for c, log_p in densities.items()}


def likeliest(densities: Mapping[int, Tensor]) -> int:
    """The number of the largest mean log density."""
    return max(densities, key=lambda c: float(densities[c].mean()))


def smallest(densities: Mapping[int, Tensor]) -> int:
    """The smallest number whose mean log density is within one standard error of the best one's."""
    if len(densities) == 1:
        return next(iter(densities))
    scores, errors = score(densities)
    best = likeliest(densities)
    return min(c for c in scores if scores[c] >= scores[best] - errors[best])


# The shares of the clusters


def shared(model: Model, rows: Indexable, prior: Mixture, samples: int, seed: int) -> Clusters:
    """p(c|x) = E_q[p(c|z)] of each data point under the model's own prior, by draws."""
    p, fit = [], []
    with inference(model, derive(seed, "clusters")) as device:
        density = prior()
        for batch in batches(rows, None, device, dtype_of(model)):
            for group in by_row(model.posterior, batch, seed):
                share, typical = membership(density, group.draw(samples))
                p.append(share.cpu())
                fit.append(typical.cpu())
    return gathered(torch.cat(p), torch.cat(fit), encode(model, rows))


@torch.no_grad()
def at_means(z: Codes, fitted: Mixture, shape: torch.Size) -> Clusters:
    """p(c|z) at mean codes z (N, D), of event shape *Z."""
    codes = torch.from_numpy(z)
    p, fit = membership(fitted(), codes[None])
    return gathered(p, fit, codes.reshape(-1, *shape).to(torch.get_default_dtype()))


def gathered(p: Tensor, fit: Tensor, codes: Tensor) -> Clusters:
    """The clusters with their centres, from p(c|x) (N, C) and the mean codes (N, *Z)."""
    weights = p / p.sum(0).clamp(min=torch.finfo(p.dtype).tiny)
    centres = (weights.T.to(codes) @ codes.flatten(1)).reshape(-1, *codes.shape[1:])
    return Clusters(p, fit, centres, {}, {})


def membership(density: FiniteMixture, z: Tensor) -> tuple[Tensor, Tensor]:
    """Of draws z (K, B, *Z): the mean p(c|z), (B, C), and the mean log p(z|c) at the likeliest c, (B)."""
    joint = density.log_joint(z)
    shares = joint.softmax(-1).mean(0)
    given = (joint - density.mixture_distribution.logits).mean(0)
    return shares, given.gather(-1, shares.argmax(-1, keepdim=True)).squeeze(-1)


def largest_first(found: Clusters) -> Clusters:
    """The same clusters, by their sizes."""
    order = found.sizes.argsort(descending=True, stable=True)
    return replace(found, p=found.p[:, order], centres=found.centres[order])
